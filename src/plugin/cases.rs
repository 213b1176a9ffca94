//! Decision tables: questions with the answers that a plugin must give, as its own test and before it is taken into use.

mod question;

use super::ask::{Answered, Generation, Target, Tried};
use super::bind::types::{Dependency, Reuse};
use super::{InstallError, Roles, bind};
use crate::route::Verdict;
use crate::route::hosts::HostPattern;
pub(crate) use question::Question;
pub use question::{Asked, Candidate};
use serde::{Deserialize, Serialize};
use serde_saphyr::Spanned;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// A table; `NAME.cases.yaml` beside `NAME.wasm`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cases {
    /// In place of `NAME.yaml`.
    pub config: Option<String>,
    /// The questions, asked in this order; what one leaves in the store is there for the next.
    cases: Vec<Spanned<Case>>,
}

/// One question and its answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// The request; with a `tunnel` in it, `admission.admit` is asked.
    pub request: Asked,
    /// Candidates: with any, `forwarder.select` is asked, without `ingress.resolve`.
    #[serde(default)]
    pub nodes: Vec<Candidate>,
    /// Put into the store before.
    #[serde(default)]
    pub store: BTreeMap<String, String>,
    /// The answer; absent: any that is none of a failure.
    pub expect: Option<Answer>,
}

/// What is to be answered, and what is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// No opinion.
    Pass,
    /// A failure of whatever kind.
    Error,
    /// This tunnel, with `$` in front when private.
    Tunnel(String),
    /// This tunnel, public whatever rules say.
    Expose(String),
    /// The candidate of this name.
    Node(String),
    /// This address.
    Address(String),
    /// Sent away with this status.
    Refuse(u16),
    /// A client may open its tunnel, and ask for these names; none: as the configuration says.
    Allow(Vec<String>),
    /// It may not.
    Deny,
}

/// What came of one case.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The answer; of a failure, that it is one.
    pub answer: Answer,
    /// Why there is none.
    pub failure: Option<String>,
    /// What the plugin tells a visitor that it sends away, or the log about a client that it denies.
    pub reason: Option<String>,
    /// What was expected, where that is something else.
    pub expected: Option<String>,
    /// For how long, and for which requests, the answer may be given again.
    pub reuse: Option<Again>,
    /// How long the call took.
    pub elapsed: Duration,
    /// Level and text of each line that the plugin logged.
    pub log: Vec<(String, String)>,
    /// Bytes of the instance's memory.
    pub memory: usize,
}

/// Permission to give an answer again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Again {
    /// For so many milliseconds.
    pub ttl_ms: u32,
    /// For requests that agree in these, beside service, protocol and hostname.
    pub depends_on: Vec<&'static str>,
    /// Some of what always counts, for whoever reads.
    #[serde(skip)]
    pub always: &'static [&'static str],
}

impl Cases {
    /// Reads a table; the error says what is wrong in it, and where.
    pub fn parse(text: &str) -> Result<Self, String> {
        // Without the lines around the place: the message becomes one line of a log.
        let options = serde_saphyr::options! { with_snippet: false };
        let table: Option<Self> = serde_saphyr::from_str_with_options(text, options)
            .map_err(|e| format!("the decision table is none: {e}"))?;
        let table = table.unwrap_or_default();
        if table.cases.is_empty() {
            return Err("the decision table has no cases: it would hold whatever the plugin does".to_owned());
        }
        Ok(table)
    }

    /// The cases, each with the line that it begins in.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u64, &Case)> {
        self.cases.iter().map(|case| (case.referenced.line(), &case.value))
    }

    /// Whether all cases hold.
    pub(super) fn check(&self, generation: &Generation) -> Result<(), InstallError> {
        let mut failed = Vec::new();
        for (line, case) in self.iter() {
            let wrong = |error| InstallError::Table(format!("the case in line {line}: {error}"));
            let outcome = case.run(generation).map_err(wrong)?;
            if let Some(expected) = &outcome.expected {
                let (about, got) = (case.about(), outcome.got());
                failed.push(format!("line {line} ({about}): expected {expected}, got {got}"));
            }
        }
        match failed.first().cloned() {
            None => Ok(()),
            Some(first) => {
                let (cases, failed) = (self.cases.len(), failed.len());
                Err(InstallError::Cases { cases, failed, first })
            }
        }
    }
}

impl Case {
    /// A question without an answer: the keys of `request`, and `nodes` and `store` beside them, from a YAML text and from
    /// `more`, which stands above it.
    ///
    /// # Errors
    ///
    /// When there is another key, or a value that is none for its key.
    pub fn question(
        yaml: Option<&str>,
        more: serde_json::Map<String, serde_json::Value>,
    ) -> Result<Self, String> {
        let mut keys: serde_json::Map<_, _> = match yaml {
            Some(text) => serde_saphyr::from_str(text).map_err(|e| e.to_string())?,
            None => serde_json::Map::new(),
        };
        keys.extend(more);
        let mut case = serde_json::Map::new();
        for beside in ["nodes", "store"] {
            case.extend(keys.remove(beside).map(|value| (beside.to_owned(), value)));
        }
        case.insert("request".to_owned(), keys.into());
        serde_json::from_value(case.into()).map_err(|e| e.to_string())
    }

    /// What is asked about: the hostname, or user, tunnel and hostname of a client that opens one.
    pub fn about(&self) -> String {
        self.request.about()
    }

    /// Asks; the error is one of the table.
    pub(super) fn run(&self, generation: &Generation) -> Result<Outcome, String> {
        let question = self.prepare(generation)?;
        Ok(self.outcome(question.try_out(generation)))
    }

    /// The question, and the store as it is to be before it is asked.
    pub(super) fn prepare(&self, generation: &Generation) -> Result<Question, String> {
        let question = self.request.question(&self.nodes)?;
        let pool = &generation.pool;
        fits(&question, pool.compiled.roles)?;
        for (key, value) in &self.store {
            let now = question.now.unwrap_or_else(bind::clock);
            let set = pool.shared.store.set(key, value.as_bytes(), None, now);
            set.map_err(|e| format!("store: {key:?}: {e:?}"))?;
        }
        Ok(question)
    }

    fn again(&self, reuse: &Reuse) -> Again {
        let parts = [(Dependency::CLIENT, "client"), (Dependency::PATH, "path")];
        let depends_on = parts.into_iter().filter(|(part, _)| reuse.depends_on.contains(*part));
        Again {
            ttl_ms: reuse.ttl_ms,
            depends_on: depends_on.map(|(_, name)| name).collect(),
            always: if self.request.is_opening() { &["tunnel", "user", "hostname"] } else { &["hostname"] },
        }
    }

    fn outcome(&self, tried: Tried) -> Outcome {
        let Tried { answer, reuse, trial } = tried;
        let given = answer.as_ref().map_or(Answer::Error, given);
        let fits = match &self.expect {
            Some(expected) => same(expected, &given),
            None => given != Answer::Error,
        };
        let expected = || self.expect.as_ref().map_or_else(|| "an answer".to_owned(), Answer::to_string);
        Outcome {
            expected: (!fits).then(expected),
            reason: answer.as_ref().ok().and_then(reason),
            failure: answer.err().map(|error| error.to_string()),
            answer: given,
            reuse: reuse.as_ref().map(|reuse| self.again(reuse)),
            elapsed: trial.elapsed,
            log: trial.log,
            memory: trial.memory,
        }
    }
}

impl Outcome {
    /// The answer as it is written in a table, or the failure.
    pub fn got(&self) -> String {
        match &self.failure {
            Some(failure) => format!("error: {failure}"),
            None => self.answer.to_string(),
        }
    }
}

/// Whether the plugin is ever asked such a question.
fn fits(question: &Question, roles: Roles) -> Result<(), String> {
    let error = match (&question.opening, question.nodes.is_empty()) {
        (Some(_), _) if !roles.admission => "tunnel: this plugin does not decide who may open one",
        (None, true) if !roles.ingress && roles.forwarder => {
            "no nodes: this plugin is asked only where there are candidates"
        }
        (None, true) if !roles.ingress => "no tunnel: this plugin is asked only about clients that open one",
        (None, false) if !roles.forwarder && roles.ingress => {
            "nodes: this plugin decides for an ingress, where there are no candidates"
        }
        (None, false) if !roles.forwarder => {
            "nodes: this plugin is asked only about clients that open a tunnel"
        }
        _ => return Ok(()),
    };
    Err(error.to_owned())
}

/// The answer, in the words of a table.
fn given(answer: &Answered) -> Answer {
    match answer {
        Answered::Tunnel(tunnel) => match &tunnel.verdict {
            Verdict::Pass => Answer::Pass,
            Verdict::Use(endpoint) => {
                let private = if endpoint.private { "$" } else { "" };
                let id = format!("{private}{}", endpoint.tunnel);
                if tunnel.exposed { Answer::Expose(id) } else { Answer::Tunnel(id) }
            }
            Verdict::Refuse(refusal) => Answer::Refuse(refusal.status),
        },
        Answered::Target(Verdict::Pass) => Answer::Pass,
        Answered::Target(Verdict::Use(Target::Node(node))) => Answer::Node(node.name.to_string()),
        Answered::Target(Verdict::Use(Target::Address(address))) => Answer::Address(address.to_string()),
        Answered::Target(Verdict::Refuse(refusal)) => Answer::Refuse(refusal.status),
        Answered::Admission(Verdict::Pass) => Answer::Pass,
        Answered::Admission(Verdict::Use(names)) => {
            Answer::Allow(names.iter().map(ToString::to_string).collect())
        }
        Answered::Admission(Verdict::Refuse(_)) => Answer::Deny,
    }
}

fn reason(answer: &Answered) -> Option<String> {
    match answer {
        Answered::Tunnel(super::ask::Tunnel { verdict: Verdict::Refuse(refusal), .. })
        | Answered::Target(Verdict::Refuse(refusal))
        | Answered::Admission(Verdict::Refuse(refusal)) => Some(refusal.reason.clone()),
        _ => None,
    }
}

fn same(expected: &Answer, given: &Answer) -> bool {
    match (expected, given) {
        (Answer::Tunnel(a), Answer::Tunnel(b)) | (Answer::Expose(a), Answer::Expose(b)) => {
            a.eq_ignore_ascii_case(b)
        }
        (Answer::Allow(expected), Answer::Allow(given)) => {
            let patterns = |names: &[String]| {
                names.iter().map(|name| HostPattern::from_filter(name).ok().flatten()).collect::<Vec<_>>()
            };
            patterns(expected) == patterns(given)
        }
        _ => expected == given,
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass => f.write_str("pass"),
            Self::Error => f.write_str("error"),
            Self::Tunnel(id) => write!(f, "{{ tunnel: {id} }}"),
            Self::Expose(id) => write!(f, "{{ expose: {id} }}"),
            Self::Node(name) => write!(f, "{{ node: {name} }}"),
            Self::Address(address) => write!(f, "{{ address: '{address}' }}"),
            Self::Refuse(status) => write!(f, "{{ refuse: {status} }}"),
            // Quoted where YAML would take the star for something else.
            Self::Allow(names) => {
                let quoted = |name: &String| match name.starts_with('*') {
                    true => format!("'{name}'"),
                    false => name.clone(),
                };
                write!(f, "{{ allow: [{}] }}", names.iter().map(quoted).collect::<Vec<_>>().join(", "))
            }
            Self::Deny => f.write_str("deny"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_read_and_typing_errors_told() {
        let table = Cases::parse(
            "cases:
- request: { hostname: a.example, client: 192.0.2.1, headers: { cookie: 'a=1' } }
  expect: { tunnel: 4d21094e-b74c-4916-86c1-d9fa36ea677b }
- request: { hostname: b.example }
  nodes: [{ name: n, address: '10.0.0.1:80' }]
  expect: pass
- request: { hostname: c }
  expect: { refuse: 503 }
",
        )
        .unwrap();
        let read: Vec<_> = table.iter().map(|(line, case)| (line, case.expect.clone())).collect();
        let tunnel = Answer::Tunnel("4d21094e-b74c-4916-86c1-d9fa36ea677b".to_owned());
        assert_eq!(read, [(2, Some(tunnel)), (4, Some(Answer::Pass)), (7, Some(Answer::Refuse(503)))]);
        for (wrong, told) in [
            ("cases:\n- reqest: {}\n", &["reqest", "2"][..]),
            ("cases:\n- request: { hostname: a }\n  expect: { tunel: x }\n", &["tunel", "3"]),
            ("cases:\n- request: [\n", &["line 2"]),
            ("cases: []", &["no cases"]),
            ("", &["cases"]),
        ] {
            let error = Cases::parse(wrong).unwrap_err();
            assert!(!error.contains('\n'), "{error}");
            assert!(told.iter().all(|told| error.contains(told)), "{error}");
        }
    }
}
