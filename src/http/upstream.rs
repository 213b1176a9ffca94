//! Streams to where requests go, and what they are used again for.

use super::pump::Buffered;
use crate::addr::HostPort;
use crate::net::BoxStream;
use crate::record::Route;
use crate::wire::http::{ReplyHead, RequestHead};
use bytes::Bytes;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Requests with the same key may use the same upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) place: Place,
    pub(crate) target: HostPort,
    /// Whose it is, where the target was told who the visitor is.
    pub(crate) visitor: Option<SocketAddr>,
}

/// Of the parts that tell most keys from one another: every request looks for its own.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.place {
            Place::Node(place) => state.write_usize(place.map_or(0, |place| place + 1)),
            Place::Tunnel(id) => state.write_u128(id.as_u128()),
        }
        self.target.host.hash(state);
    }
}

/// What an upstream belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// The node at that place of its hop; `None`: an address of no hop.
    Node(Option<usize>),
    /// The tunnel.
    Tunnel(Uuid),
}

/// A new stream to a request's target.
#[derive(Debug)]
pub(crate) struct Fresh {
    pub(crate) stream: BoxStream,
    pub(crate) key: Key,
    pub(crate) route: Route,
    /// After so long without a sign that it reads, try another; `None` where there is no other.
    pub(crate) silence: Option<Duration>,
    pub(crate) between: Option<Arc<dyn Intermediary>>,
}

/// What stands between us and targets, and may hang without its connection breaking while others like it do not: a tunnel's
/// connector.
pub(crate) trait Intermediary: fmt::Debug + Send + Sync {
    /// How long nothing may be heard of it.
    fn patience(&self) -> Duration;

    /// Whether there is another in its place.
    fn has_other(&self) -> bool;

    /// Whether something was heard of it within its patience.
    fn is_heard(&self) -> bool;

    /// Whether it was passed over and nothing was heard of it since.
    fn hangs(&self) -> bool;

    /// Something that it has to react to if it lives, to be held until it does; `None` where that is under way already.
    fn probe(&self) -> Option<BoxStream>;

    /// Others come first until something is heard of it.
    fn pass_over(&self);
}

/// The way to a request's target.
#[derive(Debug)]
pub(crate) enum Way<K> {
    /// One that the pool had.
    Kept(K),
    /// A new one.
    Fresh(Fresh),
}

/// What one visitor's connection keeps of the ways that it has used.
pub(crate) trait Pool: Send {
    /// What is kept.
    type Kept: Send;

    /// One that leads where this key says and is fit for the request at hand.
    fn take(&mut self, key: &Key) -> impl Future<Output = Option<Self::Kept>> + Send;
}

/// For connections that are used once.
#[derive(Debug)]
pub(crate) struct NoPool;

impl Pool for NoPool {
    type Kept = Infallible;

    async fn take(&mut self, _: &Key) -> Option<Infallible> {
        None
    }
}

/// A stream that carries one HTTP/1 exchange after another.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(super) io: Buffered,
    pub(super) key: Key,
    pub(super) route: Route,
    pub(super) silence: Option<Duration>,
    pub(super) between: Option<Arc<dyn Intermediary>>,
    /// It has answered before.
    pub(super) kept: bool,
    /// It is not for the requests of others.
    pub(super) bound: bool,
}

impl Upstream {
    /// Whether requests of other visitors may go to it.
    pub(super) fn serves_anybody(&self) -> bool {
        !self.bound && self.key.visitor.is_none()
    }

    /// Notes what makes the connection one visitor's own: an authentication of the whole connection, and a reply without the
    /// body that a careless server may send all the same, for the next request to stumble over.
    pub(super) fn note(&mut self, request: &RequestHead, reply: &ReplyHead) {
        let offers = matches!(reply.status(), 401 | 407)
            && reply.fields().any(|(name, value)| {
                (name.eq_ignore_ascii_case("www-authenticate")
                    || name.eq_ignore_ascii_case("proxy-authenticate"))
                    && of_connections(value)
            });
        let bodiless = request.is_head() || matches!(reply.status(), 204 | 304);
        self.bound |= bodiless
            || offers
            || ["authorization", "proxy-authorization"]
                .into_iter()
                .filter_map(|name| request.field(name))
                .any(of_connections);
    }
}

/// Whether a field names a scheme that authenticates connections (NTLM, and RFC 4559).
fn of_connections(value: &[u8]) -> bool {
    let scheme = value.split(|b| *b == b' ').next().unwrap_or_default();
    scheme.eq_ignore_ascii_case(b"ntlm") || scheme.eq_ignore_ascii_case(b"negotiate")
}

impl From<Fresh> for Upstream {
    fn from(fresh: Fresh) -> Self {
        let Fresh { stream, key, route, silence, between } = fresh;
        let io = Buffered::new(stream, Bytes::new());
        Self { io, key, route, silence, between, kept: false, bound: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::memory;
    use crate::wire::http::testing::{reply, request};

    #[test]
    fn connections_that_are_not_for_others_are_noted() {
        for (asked, answered, bound) in [
            ("", "HTTP/1.1 200 OK", false),
            (
                "Authorization: Basic YTpi\r\n",
                "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=\"a\"",
                false,
            ),
            ("Authorization: negotiate YII\r\n", "HTTP/1.1 200 OK", true),
            ("", "HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=\"a\"\r\nWWW-Authenticate: NTLM", true),
            ("", "HTTP/1.1 407 No\r\nProxy-Authenticate: Negotiate", true),
            ("", "HTTP/1.1 200 OK\r\nWWW-Authenticate: NTLM", false),
            ("", "HTTP/1.1 204 Nothing", true),
            ("", "HTTP/1.1 304 Same", true),
        ] {
            let head = request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{asked}\r\n"));
            let key =
                Key { place: Place::Node(None), target: HostPort::parse("a", 80).unwrap(), visitor: None };
            let stream = Box::new(memory::pair(1).0);
            let route = Route::default();
            let mut upstream = Upstream::from(Fresh { stream, key, route, silence: None, between: None });
            upstream.note(&head, &reply(&format!("{answered}\r\n\r\n"), &head));
            assert_eq!(upstream.serves_anybody(), !bound, "{asked:?} {answered:?}");
        }
    }
}
