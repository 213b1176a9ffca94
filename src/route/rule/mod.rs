//! Matcher expressions: GOST's `matcher.rule`, compiled once and asked for every request.
//!
//! The language is Traefik's: functions on the request joined by `&&`, `||`, `!` and parentheses; `parse` reads it, `function` holds
//! the functions. What a matching rule is worth (priority, which nodes it stands before) is `hop`'s. A function that needs
//! HTTP is false where there is none, so its negation is true. `BodyRegexp`, `BodyJSON`, `Bypass` and `Admission` are refused
//! by name: a rule that silently ignored them would send traffic where it was forbidden.

mod bound;
mod function;
mod parse;
#[cfg(test)]
mod tests;

use super::Request;
use super::hosts::HostPattern;
use bound::Bound;
use function::Function;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// A compiled matcher expression. Cheap to clone; two rules are equal when their text is.
#[derive(Clone)]
pub struct Rule {
    text: Arc<str>,
    expr: Arc<Expr>,
}

/// Why a text is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ParseError {
    message: String,
    offset: usize,
}

impl ParseError {
    /// The byte of the rule's text where the reader stopped.
    pub fn offset(&self) -> usize {
        self.offset
    }
}

impl Rule {
    /// Compiles an expression.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let expr = parse::parse(text)?;
        Ok(Self { text: text.into(), expr: Arc::new(expr) })
    }

    /// The expression as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the request is meant.
    pub fn matches(&self, request: &Request<'_>) -> bool {
        self.matches_subject(&Subject::new(request))
    }

    pub(super) fn matches_subject(&self, subject: &Subject<'_>) -> bool {
        self.expr.matches(subject)
    }

    /// What a request must meet one of for the rule to match at all: where an index has to file the rule.
    pub(super) fn bounds(&self) -> Vec<Bound<'_>> {
        bound::bounds(&self.expr)
    }
}

/// What a handler gets to know of those who come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// The host that is asked for.
    pub host: bool,
    /// What protocol they speak.
    pub protocol: bool,
    /// Their HTTP requests.
    pub http: bool,
}

impl Rule {
    /// Whether there is anybody whom it could be true for.
    pub fn can_match(&self, known: Known) -> bool {
        self.expr.can_be(true, known)
    }
}

impl PartialEq for Rule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Rule {}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Rule").field(&self.text).finish()
    }
}

/// A request with what several rules would otherwise each work out again.
#[derive(Debug)]
pub(super) struct Subject<'a> {
    pub(super) request: &'a Request<'a>,
    path: Option<Cow<'a, [u8]>>,
}

impl<'a> Subject<'a> {
    pub(super) fn new(request: &'a Request<'a>) -> Self {
        let path = request.http.map(|http| function::percent_decoded(http.path().as_bytes()));
        Self { request, path }
    }

    /// The path of the URL without escapes, as GOST compares it; `None` for what is not HTTP.
    pub(super) fn path(&self) -> Option<&[u8]> {
        self.path.as_deref()
    }
}

#[derive(Debug)]
enum Expr {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Call(Function),
}

impl Expr {
    /// Recursion is bounded by [`parse::MAX_DEPTH`].
    fn matches(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::All(terms) => terms.iter().all(|term| term.matches(subject)),
            Self::Any(terms) => terms.iter().any(|term| term.matches(subject)),
            Self::Not(term) => !term.matches(subject),
            Self::Call(function) => function.matches(subject),
        }
    }

    /// Whether it may come out so.
    fn can_be(&self, outcome: bool, known: Known) -> bool {
        let may_be = |terms: &[Self], all: bool| match all {
            true => terms.iter().all(|term| term.can_be(outcome, known)),
            false => terms.iter().any(|term| term.can_be(outcome, known)),
        };
        match self {
            Self::All(terms) => may_be(terms, outcome),
            Self::Any(terms) => may_be(terms, !outcome),
            Self::Not(term) => term.can_be(!outcome, known),
            Self::Call(function) => !outcome || function.can_match(known),
        }
    }
}
