//! The built-in ingress: a table of host patterns, compiled once, that names the tunnel of a host.
//!
//! For a host the exact rule is taken, else the rule of the longest suffix (`.example.com` covers `example.com` itself and
//! every depth below it). A rule whose endpoint is no UUID routes nowhere, and says so for all that it covers: it hides the
//! rules of shorter suffixes. The table answers "which tunnel" only; whether a visitor may pass a private one, and what
//! happens without an answer, is the caller's business. Reading rules from files is `config`'s.

use super::hosts::{HostMap, HostPattern};
use super::{Endpoint, Request, RouteError, Verdict};
use crate::addr::InvalidAddr;
use std::fmt;
use uuid::Uuid;

#[cfg(test)]
mod tests;

/// One line of an ingress: hostname pattern and endpoint, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// `example.com`, `.example.com` or `*.example.com`.
    pub hostname: String,
    /// A UUID, `$` in front: private. Text that is no UUID makes the rule route nowhere.
    pub endpoint: String,
}

/// A rule that was taken as GOST takes it, but cannot do what its author wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The hostname is none, so the rule was left out.
    #[error("hostname {hostname:?} can never match: {reason}")]
    Hostname {
        /// Position in the list of rules.
        index: usize,
        /// As written.
        hostname: String,
        /// What is wrong with it.
        reason: InvalidAddr,
    },
    /// The endpoint is none, so the hosts of the rule go nowhere.
    #[error(
        "endpoint {endpoint:?} is not a tunnel ID (a UUID, or $ and a UUID): its hosts are routed nowhere"
    )]
    Endpoint {
        /// Position in the list of rules.
        index: usize,
        /// As written.
        endpoint: String,
    },
}

impl Problem {
    /// Position of the rule in the list that the table was made from.
    pub fn index(&self) -> usize {
        match self {
            Self::Hostname { index, .. } | Self::Endpoint { index, .. } => *index,
        }
    }
}

/// Compiled rules. A look-up allocates the rule's text only and costs one hash per label of the host, however many rules there are.
pub struct Table {
    names: HostMap<Targets>,
}

impl Table {
    /// Compiles `rules`, later ones overwriting earlier ones with the same pattern, and reports those that cannot work.
    pub fn new(rules: &[Rule]) -> (Self, Vec<Problem>) {
        let mut names: HostMap<Targets> = HostMap::with_capacity(rules.len());
        let mut problems = Vec::new();
        for (index, rule) in rules.iter().enumerate() {
            let pattern = match HostPattern::from_ingress(&rule.hostname) {
                Ok(pattern) => pattern,
                Err(reason) => {
                    problems.push(Problem::Hostname { index, hostname: rule.hostname.clone(), reason });
                    continue;
                }
            };
            let target = parse_endpoint(&rule.endpoint)
                .map_or(Target::Nowhere, |(tunnel, private)| Target::Tunnel { tunnel, private });
            if target == Target::Nowhere {
                problems.push(Problem::Endpoint { index, endpoint: rule.endpoint.clone() });
            }
            let targets = names.entry(pattern.name());
            match pattern {
                HostPattern::Exact(_) => targets.exact = target,
                HostPattern::Within(_) | HostPattern::Below(_) => targets.within = target,
            }
        }
        (Self { names }, problems)
    }

    fn lookup(&self, host: &str) -> Option<Endpoint> {
        for (name, targets) in self.names.walk(host) {
            let exact = if name == host { targets.exact } else { Target::Unset };
            let (target, star) = if exact == Target::Unset { (targets.within, "*.") } else { (exact, "") };
            match target {
                Target::Unset => {}
                Target::Nowhere => return None,
                Target::Tunnel { tunnel, private } => {
                    return Some(Endpoint { tunnel, private, rule: format!("{star}{name}").into() });
                }
            }
        }
        None
    }
}

impl super::Ingress for Table {
    /// `Use` or `Pass`: a table never refuses and never fails.
    fn resolve(&self, request: &Request<'_>) -> Result<Verdict<Endpoint>, RouteError> {
        Ok(self.lookup(request.hostname.as_str()).map_or(Verdict::Pass, Verdict::Use))
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Table").field("names", &self.names.len()).finish_non_exhaustive()
    }
}

/// What is said of one name. Both are kept in one entry so that one hash answers for the host and for what is under it.
#[derive(Debug, Default)]
struct Targets {
    exact: Target,
    within: Target,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Target {
    /// No rule.
    #[default]
    Unset,
    /// A rule that routes nowhere.
    Nowhere,
    Tunnel {
        tunnel: Uuid,
        private: bool,
    },
}

/// A tunnel ID in any form that GOST reads: 36 characters, 32 hex digits, in braces or with `urn:uuid:`; `$` in front marks it
/// private, which is the second value. The all-zero ID means "no route" to GOST, so it is none here.
pub fn parse_endpoint(text: &str) -> Option<(Uuid, bool)> {
    const URN: &str = "urn:uuid:";
    let text = text.trim();
    let (id, private) = text.strip_prefix('$').map_or((text, false), |id| (id, true));
    let id = match id.get(..URN.len()) {
        Some(urn) if urn.eq_ignore_ascii_case(URN) => id.get(URN.len()..).filter(|id| id.len() == 36)?,
        _ => id,
    };
    let tunnel = Uuid::try_parse(id).ok().filter(|id| !id.is_nil())?;
    Some((tunnel, private))
}
