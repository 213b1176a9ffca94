//! Placeholder.

/// One line of an ingress: hostname pattern and endpoint, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// `example.com`, `.example.com` or `*.example.com`.
    pub hostname: String,
    /// A UUID, `$` in front: private. Text that is no UUID makes the rule route nowhere.
    pub endpoint: String,
}
