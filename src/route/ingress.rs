//! The built-in ingress: hostname patterns to tunnels (the wire specification, section 2.6).
//!
//! Exact names come before suffixes, longer suffixes before shorter ones, later rules replace earlier ones with the same
//! pattern. Unlike the reference, case and a trailing dot make no difference.

use super::hosts::{HostMap, HostPattern};
use super::{Endpoint, Ingress, Request, RouteError, Verdict};
use uuid::Uuid;

/// One line of an ingress: hostname pattern and endpoint, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// `example.com`, `.example.com` or `*.example.com`.
    pub hostname: String,
    /// A UUID, `$` in front: private. Text that is no UUID makes the rule route nowhere.
    pub endpoint: String,
}

impl Endpoint {
    /// Parses a UUID, private with a `$` in front.
    pub fn parse(text: &str) -> Option<Self> {
        let id = text.strip_prefix('$');
        let tunnel = Uuid::parse_str(id.unwrap_or(text)).ok().filter(|id| !id.is_nil())?;
        Some(Self { tunnel, private: id.is_some() })
    }
}

/// Rules, compiled.
#[derive(Debug, Default)]
pub struct Table {
    /// `None`: a rule that routes nowhere, and so hides the rules of its parents.
    endpoints: HostMap<Option<Endpoint>>,
}

impl Table {
    /// Compiles rules; a hostname that can never match is left out.
    pub fn new<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> Self {
        let mut endpoints = HostMap::default();
        for rule in rules {
            if let Ok(pattern) = HostPattern::parse(&rule.hostname) {
                *endpoints.entry(pattern) = Endpoint::parse(&rule.endpoint);
            }
        }
        Self { endpoints }
    }
}

impl Ingress for Table {
    fn resolve(&self, request: &Request<'_>) -> Result<Verdict<Endpoint>, RouteError> {
        let endpoint = self.endpoints.matches(&request.hostname).next().copied().flatten();
        Ok(endpoint.map_or(Verdict::Pass, Verdict::Use))
    }
}

#[cfg(test)]
mod tests {
    use super::super::Protocol;
    use super::*;
    use crate::addr::Host;

    const A: &str = "4d21094e-b74c-4916-86c1-d9fa36ea677b";
    const B: &str = "ac74d9dd-3125-442a-a7c1-f9e49e05faca";

    fn resolve(table: &Table, host: &str) -> Option<(String, bool)> {
        let request = Request {
            hostname: Host::parse(host).unwrap(),
            protocol: Protocol::Http1,
            client: ([127, 0, 0, 1], 1).into(),
            service: "s",
            http: None,
        };
        match table.resolve(&request).unwrap() {
            Verdict::Use(e) => Some((e.tunnel.to_string(), e.private)),
            _ => None,
        }
    }

    #[test]
    fn patterns() {
        let rule =
            |hostname: &str, endpoint: &str| Rule { hostname: hostname.into(), endpoint: endpoint.into() };
        let private = format!("${B}");
        let rules = [
            rule("srv-0.local", B),
            rule("SRV-0.local.", A),
            rule("*.wild.local", A),
            rule("deep.wild.local", &private),
            rule("*x.com", A),
            rule("off.wild.local", "nothing"),
            rule("*", A),
        ];
        let table = Table::new(&rules);
        let (a, b) = (Some((A.to_owned(), false)), Some((B.to_owned(), true)));
        for (host, expected) in [
            ("srv-0.local", &a),
            ("Srv-0.LOCAL.", &a),
            ("wild.local", &a),
            ("a.b.wild.local", &a),
            ("deep.wild.local", &b),
            ("x.deep.wild.local", &a),
            ("off.wild.local", &None),
            ("badwild.local", &None),
            ("x.com", &a),
            ("ax.com", &None),
            ("", &None),
        ] {
            assert_eq!(&resolve(&table, host), expected, "{host}");
        }
    }

    #[test]
    fn a_hundred_thousand_rules() {
        let rules: Vec<_> =
            (0..100_000).map(|i| Rule { hostname: format!("h{i}.example"), endpoint: A.into() }).collect();
        let table = Table::new(&rules);
        assert!(resolve(&table, "h99999.example").is_some());
        assert!(resolve(&table, "h100000.example").is_none());
    }
}
