//! The rules of an ingress: host patterns, compiled once, that name the tunnel of a host.
//!
//! For a host the exact rule is taken, else the rule of the longest suffix (`.example.com` covers `example.com` itself and
//! every depth below it). A rule whose endpoint is no UUID routes nowhere, and says so for all that it covers: it hides the
//! rules of shorter suffixes.
//!
//! The same file is compiled into the binary and into the plugin `plugins/yaml-ingress`, so it needs nothing of the rest but
//! host names and their patterns.

use crate::addr::{Host, InvalidAddr};
use crate::route::hosts::{HostMap, HostPattern};
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use uuid::Uuid;

/// The tunnel that an ingress names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The tunnel's ID.
    pub tunnel: Uuid,
    /// Private: public visitors are refused, visitors that know the ID may pass.
    pub private: bool,
    /// What decided, for the log: the rule, `example.com` or `*.example.com`, or a plugin.
    pub rule: Arc<str>,
}

/// One line of an ingress: hostname pattern and endpoint, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// `example.com`, `.example.com` or `*.example.com`.
    pub hostname: String,
    /// A UUID, `$` in front: private. Text that is no UUID makes the rule route nowhere.
    pub endpoint: String,
}

impl Rule {
    /// As [`is_star`].
    pub fn is_star(&self) -> bool {
        is_star(&self.hostname)
    }
}

/// GOST takes a `*` alone as a hostname, but no host has its key, the empty one.
pub fn is_star(hostname: &str) -> bool {
    hostname == "*"
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

/// What a rule says of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'a> {
    /// The tunnel's ID.
    pub tunnel: Uuid,
    /// As in [`Endpoint`].
    pub private: bool,
    /// The host of the rule.
    name: &'a str,
    /// It is for that host alone.
    exact: bool,
}

/// Compiled rules. A look-up allocates the rule's text only and costs one hash per label of the host, however many rules there are.
pub struct Table {
    names: HostMap<Targets>,
    /// Tunnels that rules name only as private ones.
    private: HashSet<Uuid>,
}

/// A table that is being made: rule by rule, so that a hundred thousand need not be there at once.
#[derive(Debug, Default)]
pub struct Draft {
    names: HostMap<Targets>,
    /// Tunnels that a rule names as private ones.
    private: HashSet<Uuid>,
    /// Tunnels that rules name as public ones which are not in the table.
    lost: Vec<Uuid>,
}

/// What is wrong with one rule; it is in the table as far as it can be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrong {
    /// The hostname is none.
    Hostname(InvalidAddr),
    /// The endpoint is none.
    Endpoint,
}

impl Draft {
    /// One for so many rules.
    pub fn with_capacity(rules: usize) -> Self {
        Self { names: HostMap::with_capacity(rules), private: HashSet::new(), lost: Vec::new() }
    }

    /// Compiles a rule, which overwrites an earlier one with the same pattern.
    ///
    /// # Errors
    ///
    /// When it cannot work as written; the hostname comes first.
    pub fn add(&mut self, hostname: &str, endpoint: &str) -> Result<(), Wrong> {
        let endpoint = parse_endpoint(endpoint);
        let target = endpoint.map_or(Target::Nowhere, |(tunnel, private)| Target::Tunnel { tunnel, private });
        if let Some((tunnel, true)) = endpoint {
            self.private.insert(tunnel);
        }
        let over = match HostPattern::from_ingress(hostname) {
            Ok(pattern) => {
                let targets = self.names.entry(pattern.name());
                let place = match pattern {
                    HostPattern::Exact(_) => &mut targets.exact,
                    HostPattern::Within(_) | HostPattern::Below(_) => &mut targets.within,
                };
                Ok(std::mem::replace(place, target))
            }
            Err(reason) => Err(reason),
        };
        self.lost.extend(over.as_ref().unwrap_or(&target).public());
        over.map_err(Wrong::Hostname)?;
        endpoint.map(|_| ()).ok_or(Wrong::Endpoint)
    }

    /// The table of all rules that were added.
    pub fn table(self) -> Table {
        let Self { names, mut private, lost } = self;
        if !private.is_empty() {
            let public = names.values().flat_map(|targets| [targets.exact, targets.within]);
            for tunnel in public.filter_map(|target| target.public()).chain(lost) {
                private.remove(&tunnel);
            }
        }
        Table { names, private }
    }
}

impl Table {
    /// Compiles `rules`, later ones overwriting earlier ones with the same pattern, and reports those that cannot work.
    pub fn new(rules: &[Rule]) -> (Self, Vec<Problem>) {
        let mut draft = Draft::with_capacity(rules.len());
        let mut problems = Vec::new();
        for (index, Rule { hostname, endpoint }) in rules.iter().enumerate() {
            match draft.add(hostname, endpoint) {
                Ok(()) => {}
                Err(Wrong::Hostname(reason)) => {
                    problems.push(Problem::Hostname { index, hostname: hostname.clone(), reason });
                }
                Err(Wrong::Endpoint) => {
                    problems.push(Problem::Endpoint { index, endpoint: endpoint.clone() });
                }
            }
        }
        (draft.table(), problems)
    }

    /// Whether the rules keep this host, or this tunnel, from the public.
    pub fn is_private(&self, host: &Host, tunnel: Uuid) -> bool {
        let is_private = |found: Found<'_>| found.private;
        self.names.len() != 0
            && (self.private.contains(&tunnel) || self.find(host.as_str()).is_some_and(is_private))
    }

    /// The tunnel of a host, given in the normal form of [`Host`], with the rule's text.
    pub fn lookup(&self, host: &str) -> Option<Endpoint> {
        let Found { tunnel, private, name, exact } = self.find(host)?;
        let rule = if exact { name.into() } else { format!("*.{name}").into() };
        Some(Endpoint { tunnel, private, rule })
    }

    /// The tunnel of a host, given in the normal form of [`Host`].
    pub fn find<'a>(&'a self, host: &'a str) -> Option<Found<'a>> {
        for (name, targets) in self.names.walk(host) {
            // Of the names that a walk gives only the host's own is as long as the host.
            let exact = name.len() == host.len() && targets.exact != Target::Unset;
            match if exact { targets.exact } else { targets.within } {
                Target::Unset => {}
                Target::Nowhere => return None,
                Target::Tunnel { tunnel, private } => return Some(Found { tunnel, private, name, exact }),
            }
        }
        None
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

impl Target {
    fn public(&self) -> Option<Uuid> {
        if let Self::Tunnel { tunnel, private: false } = self { Some(*tunnel) } else { None }
    }
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

/// A line that is not of two columns, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {0}: expected two columns, a host name and a tunnel ID")]
pub struct NotTwoColumns(pub usize);

/// Reads GOST's two-column form: lines `hostname endpoint`, `#` begins a comment. GOST leaves out a line that it cannot read, and
/// its hosts go nowhere without a word; here it is an error.
pub fn parse_lines(text: &str) -> Result<Vec<Rule>, NotTwoColumns> {
    numbered_lines(text).map(|line| line.map(|(_, rule)| rule)).collect()
}

/// The same, each rule with the number of its line.
pub fn numbered_lines(text: &str) -> impl Iterator<Item = Result<(usize, Rule), NotTwoColumns>> {
    let lines = (1..).zip(text.trim_start_matches('\u{feff}').lines());
    let columns = lines.map(|(number, line)| {
        let line = line.split_once('#').map_or(line, |(line, _)| line);
        (number, line.split_whitespace().collect::<Vec<_>>())
    });
    let rule = |(number, columns): (usize, Vec<&str>)| match columns[..] {
        [hostname, endpoint] => {
            Ok((number, Rule { hostname: hostname.to_owned(), endpoint: endpoint.to_owned() }))
        }
        _ => Err(NotTwoColumns(number)),
    };
    columns.filter(|(_, columns)| !columns.is_empty()).map(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_small() {
        // A hundred thousand rules are to have 10 MiB in all: a hundred bytes each, with the name and where it is found.
        assert!(size_of::<Targets>() <= 36);
    }
}
