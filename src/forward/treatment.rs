//! What is done with the connections and requests that go to one node, beside passing them on.

use crate::addr::{Host, HostPort};
use crate::auth::{Auther, Credential};
use crate::channel::tls::{self, TlsError};
use crate::http::Rewrite;
use crate::http::failure::Failure;
use crate::net::BoxStream;
use crate::route::hop::HopSettings;
use crate::route::{Node, Protocol, Request};
use crate::wire::proxy;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::ops::RangeInclusive;
use std::time::Duration;
use tokio::time::timeout;

/// `http`, `auth` and `tls` of a node.
#[derive(Debug, Clone, Default)]
pub struct NodeSettings {
    /// `http`: what is changed.
    pub rewrite: Rewrite,
    /// `http.auth` or `auth`: whom it lets in; empty: everybody.
    pub users: Vec<Credential>,
    /// `http.failCodes`: replies that count as failures of the node.
    pub fail_codes: Vec<RangeInclusive<u16>>,
    /// `tls`: it is spoken to over TLS.
    pub tls: Option<tls::ClientSettings>,
    /// `metadata` `proxyProtocol`: connections to it begin with a header that says who the visitor is; `None`: as the handler
    /// says.
    pub proxy_protocol: Option<proxy::Version>,
}

/// The same, at work.
#[derive(Debug, Default)]
pub(crate) struct Treatment {
    pub(super) rewrite: Rewrite,
    users: Option<Auther>,
    fail_codes: Vec<RangeInclusive<u16>>,
    tls: Option<tls::Connector>,
    pub(super) proxy_protocol: Option<proxy::Version>,
}

impl Treatment {
    /// Reads the files of `tls`.
    fn new(settings: NodeSettings, node: &str) -> Result<Self, TlsError> {
        let NodeSettings { rewrite, users, fail_codes, tls, proxy_protocol } = settings;
        let users = (!users.is_empty()).then(|| Auther::inline(users));
        let tls = tls.map(|tls| {
            tls::warn_of_no_verification(node, &tls);
            tls::Connector::new(&tls)
        });
        Ok(Self { rewrite, users, fail_codes, tls: tls.transpose()?, proxy_protocol })
    }

    /// Whether the node lets this request in. What is no HTTP cannot say who sends it.
    pub(super) async fn admit(&self, request: &Request<'_>) -> Result<(), Failure> {
        let Some(users) = &self.users else { return Ok(()) };
        let credentials = request.http.and_then(|parts| basic(parts.field("authorization")?));
        let (user, password) = credentials.ok_or(Failure::Unauthorized)?;
        users.check(&user, &password).await.map(drop).ok_or(Failure::Unauthorized)
    }

    /// The handshake on a new connection to the node, unless the visitor does it itself. The server is asked for the Host that
    /// the node is told, else for the host that was dialled.
    pub(super) async fn secure(
        &self,
        stream: BoxStream,
        target: &HostPort,
        protocol: Protocol,
        limit: Duration,
    ) -> Result<BoxStream, String> {
        let Some(tls) = self.tls.as_ref().filter(|_| protocol != Protocol::Tls) else { return Ok(stream) };
        let alpn: &[&str] = match protocol {
            Protocol::Http1 => &["http/1.1"],
            Protocol::Http2 => &["h2"],
            _ => &[],
        };
        let told = self.rewrite.host.as_ref().and_then(|host| HostPort::parse(host.as_str(), 443).ok());
        let host: &Host = told.as_ref().map_or(&target.host, |told| &told.host);
        match timeout(limit, tls.connect(stream, host, alpn)).await {
            Ok(Ok(stream)) => Ok(Box::new(stream)),
            Ok(Err(error)) => Err(format!("{target}: {error}")),
            Err(_) => Err(format!("{target}: no TLS handshake within {limit:?} (connectTimeout)")),
        }
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
    /// Reads the files of each node's `tls`.
    pub(crate) fn new(hop: &HopSettings, nodes: &[NodeSettings]) -> Result<Self, TlsError> {
        let each = hop.nodes.iter().zip(nodes.iter().cloned());
        Ok(Self(each.map(|(node, settings)| Treatment::new(settings, &node.name)).collect::<Result<_, _>>()?))
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
