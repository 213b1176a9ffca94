//! What is done with the connections and requests that go to one node, beside passing them on.

use crate::auth::{Auther, Authers, Credential};
use crate::http::Rewrite;
use crate::http::failure::Failure;
use crate::route::{Node, Request};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// `http` and `auth` of a node.
#[derive(Debug, Clone, Default)]
pub struct NodeSettings {
    /// `http`: what is changed.
    pub rewrite: Rewrite,
    /// `http.auth` or `auth`: whom it lets in; empty: everybody.
    pub users: Vec<Credential>,
    /// `http.failCodes`: replies that count as failures of the node.
    pub fail_codes: Vec<RangeInclusive<u16>>,
}

/// The same, at work.
#[derive(Debug, Default)]
pub(crate) struct Treatment {
    pub(super) rewrite: Rewrite,
    users: Authers,
    fail_codes: Vec<RangeInclusive<u16>>,
}

impl Treatment {
    pub(crate) fn new(settings: NodeSettings) -> Self {
        let NodeSettings { rewrite, users, fail_codes } = settings;
        let users = (!users.is_empty()).then(|| Arc::new(Auther::inline(users))).into_iter().collect();
        Self { rewrite, users, fail_codes }
    }

    /// Whether the node lets this request in. What is no HTTP cannot say who sends it.
    pub(super) async fn admit(&self, request: &Request<'_>) -> Result<(), Failure> {
        if self.users.is_empty() {
            return Ok(());
        }
        let credentials = request.http.and_then(|parts| basic(parts.field("authorization")?));
        let (user, password) = credentials.ok_or(Failure::Unauthorized)?;
        self.users.check(&user, &password).await.map(drop).ok_or(Failure::Unauthorized)
    }

    /// Marks the node by the status of its reply.
    pub(super) fn is_failure(&self, status: u16) -> bool {
        self.fail_codes.iter().any(|codes| codes.contains(&status))
    }
}

/// How each node of a hop is treated, by its place.
#[derive(Debug, Default)]
pub(crate) struct Treatments(Vec<Treatment>);

impl Treatments {
    pub(crate) fn new(nodes: &[NodeSettings]) -> Self {
        Self(nodes.iter().cloned().map(Treatment::new).collect())
    }

    pub(super) fn of(&self, node: &Node) -> Option<&Treatment> {
        self.0.get(node.place?)
    }
}

/// User and password of `Basic BASE64` (RFC 7617).
fn basic(field: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let (scheme, token) = field.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let mut user = STANDARD.decode(token.trim_ascii()).ok()?;
    let colon = memchr::memchr(b':', &user)?;
    let password = user.split_off(colon + 1);
    user.pop();
    Some((user, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_credentials() {
        let read = |field: &str| {
            let (user, password) = basic(field.as_bytes())?;
            Some(format!("{} {}", user.escape_ascii(), password.escape_ascii()))
        };
        assert_eq!(read("Basic YTpiOmM=").as_deref(), Some("a b:c"));
        assert_eq!(read("bAsIc  Og==").as_deref(), Some(" "));
        for bad in ["", "Basic", "Basic YQ==", "Bearer YTpi", "Basic ***"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
