//! Placeholder.

/// A compiled matcher expression.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {}
