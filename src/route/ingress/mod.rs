//! The built-in ingress: the rules of a configuration, natively linked.
//!
//! The table answers "which tunnel" only; whether a visitor may pass a private one, and what happens without an answer, is
//! the caller's business. Reading rules from files is `config`'s.

mod rules;
mod table;
#[cfg(test)]
mod tests;

pub use table::{
    Draft, Endpoint, NotTwoColumns, Problem, Rule, Table, Wrong, is_star, numbered_lines, parse_endpoint,
    parse_lines,
};

pub use rules::Rules;

use super::{Answer, Request, Verdict};

impl super::Ingress for Table {
    /// `Use` or `Pass`: a table never refuses and never fails.
    fn resolve(&self, request: &Request<'_>) -> Answer<Endpoint> {
        Answer::Now(Ok(self.lookup(request.hostname.as_str()).map_or(Verdict::Pass, Verdict::Use)))
    }
}
