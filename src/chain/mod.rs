//! Chains: the way to a server or a target through one hop after the other.
//!
//! A hop is a choice between nodes. To reach something through a chain, a node of its last hop is chosen and reached through
//! the hops before it, and its connector is asked for the rest of the way. A node that cannot be reached is marked, and the next
//! one of its hop is tried; a target that a node refuses is tried through the others of its hop, and marks nobody. A relay server
//! answers too late for that (see `later`): what it says counts for the next connection.

mod connect;
mod http;
mod later;
mod leg;
mod socks5;
#[cfg(test)]
mod tests;

use crate::addr::HostPort;
use crate::channel::tls::TlsError;
use crate::channel::{self, ChannelError, Dialed, Dialer, Way};
use crate::mux;
use crate::net::dial::DialError;
use crate::net::udp::BoxDatagrams;
use crate::route::hop::{self, Tried};
use crate::route::{Forwarder, Request, Verdict};
use crate::shutdown::Shutdown;
use crate::wire::proxy;
use later::Later;
use leg::{Datagrams, Leg, Stream};
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::time::Instant;
use tracing::warn;
use uuid::Uuid;

/// One of the `hops` of a chain.
#[derive(Debug, Clone, PartialEq)]
pub struct HopSettings {
    /// `nodes`.
    pub nodes: Vec<Node>,
    /// How to choose among them: one node for each, in the same order.
    pub choice: hop::HopSettings,
}

/// One of the `nodes` of a hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// `name`.
    pub name: String,
    /// `None` with `connector: direct`: the way goes on as if the hop were not there.
    pub server: Option<Server>,
}

/// Who is at a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `addr`.
    pub addr: HostPort,
    /// `connector`.
    pub connector: Connector,
    /// `connector.auth`.
    pub auth: Option<Auth>,
    /// `connector.metadata` `mux.*`: for the session of a client that is to be reached.
    pub mux: mux::Settings,
    /// `connector.metadata` `connectTimeout`: for the answer to what the connector asks.
    pub connect_timeout: Duration,
    /// `dialer`.
    pub channel: channel::ClientSettings,
    /// `metadata` `proxyProtocol`: connections to it begin with a header that says for whom they are made.
    pub proxy_protocol: Option<proxy::Version>,
}

/// `connector.type`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connector {
    /// `tunnel`, with `tunnel.id` (absent: a time-based UUID made once at start) and `tunnel.weight`.
    Tunnel {
        /// The tunnel to serve, or to visit.
        id: Uuid,
        /// Of a connector: 0 counts as 1, 255 takes all.
        weight: u8,
    },
    /// `relay`: the server connects on; for a client that is to be reached it opens the bind address as a port.
    Relay,
    /// `http`: CONNECT, with the fields of `header`.
    Http {
        /// Names and values.
        fields: Vec<(String, String)>,
    },
    /// `socks5`.
    Socks5,
    /// `forward`: nothing is asked, for the server forwards all to where it wants.
    Forward,
}

/// User name and password; `Debug` hides the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Auth {
    /// At most 255 bytes.
    pub username: String,
    /// At most 255 bytes.
    pub password: String,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("username", &self.username).field("password", &"***").finish()
    }
}

/// Why nothing was reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChainError {
    /// The target does not answer, or the last server says that it cannot be reached.
    #[error("{0}")]
    Target(String),
    /// A node of the last hop failed, which is marked; another may do better.
    #[error("{0}")]
    Node(String),
    /// The chain does not lead that far: all nodes of a hop fail.
    #[error("{0}")]
    Way(String),
    /// This process has nothing left to connect with.
    #[error("{0}")]
    Exhausted(String),
}

impl From<DialError> for ChainError {
    fn from(error: DialError) -> Self {
        if error.is_exhausted() {
            Self::Exhausted(error.to_string())
        } else {
            Self::Target(error.to_string())
        }
    }
}

/// The way out: through the hops of a chain, or straight where it has none.
#[derive(Debug)]
pub(crate) struct Chain {
    hops: Vec<Hop>,
    /// When it was made: failure marks are counted from here.
    since: Instant,
}

#[derive(Debug)]
struct Hop {
    choice: hop::Hop,
    /// Asked before the hop's own strategy.
    forwarder: Option<Arc<dyn Forwarder>>,
    nodes: Vec<NodeState>,
}

#[derive(Debug)]
struct NodeState {
    settings: Node,
    /// One for each server.
    dialer: Option<Dialer>,
}

/// A server of the last hop that was chosen.
#[derive(Debug)]
pub(crate) struct Chosen<'a> {
    chain: &'a Chain,
    node: Arc<crate::route::Node>,
    pub(crate) name: &'a str,
    pub(crate) server: &'a Server,
    dialer: &'a Dialer,
}

/// Who asks for a way, and how long the first connection of it may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub(crate) request: &'a Request<'a>,
    pub(crate) connect_timeout: Duration,
    /// From where to where the visitor's connection goes; `None`: we ask for ourselves.
    pub(crate) visitor: Option<(SocketAddr, SocketAddr)>,
}

type Reaching<'a, End> = Pin<Box<dyn Future<Output = Result<End, ChainError>> + Send + 'a>>;

impl Chain {
    /// Reads the files that the dialers need. With each hop comes whom to ask which node, if anybody.
    pub(crate) fn new<'a>(
        hops: impl IntoIterator<Item = (&'a HopSettings, Option<Arc<dyn Forwarder>>)>,
        shutdown: &Shutdown,
    ) -> Result<Self, TlsError> {
        let state = |node: &Node| {
            let dialer =
                node.server.as_ref().map(|server| Dialer::new(&server.channel, &node.name, shutdown));
            let dialer = dialer.transpose()?;
            Ok::<_, TlsError>(NodeState { settings: node.clone(), dialer })
        };
        let hop = |(settings, forwarder): (&HopSettings, _)| {
            let nodes = settings.nodes.iter().map(state).collect::<Result<_, _>>()?;
            Ok::<_, TlsError>(Hop { choice: hop::Hop::new(settings.choice.clone()), forwarder, nodes })
        };
        Ok(Self { hops: hops.into_iter().map(hop).collect::<Result<_, _>>()?, since: Instant::now() })
    }

    /// No hops.
    pub(crate) fn straight() -> Self {
        Self { hops: Vec::new(), since: Instant::now() }
    }

    /// Whether there are no hops.
    pub(crate) fn is_straight(&self) -> bool {
        self.hops.is_empty()
    }

    /// A connection to `target`.
    pub(crate) async fn connect(&self, target: &HostPort, ask: Ask<'_>) -> Result<Dialed, ChainError> {
        if self.is_straight() {
            return Ok(Stream::straight(target, ask.connect_timeout).await?);
        }
        self.through::<Stream>(&self.hops, target, ask).await
    }

    /// A flow of datagrams to `target`.
    pub(crate) async fn datagrams(
        &self,
        target: &HostPort,
        ask: Ask<'_>,
    ) -> Result<BoxDatagrams, ChainError> {
        if self.is_straight() {
            return Ok(Datagrams::straight(target, ask.connect_timeout).await?);
        }
        self.through::<Datagrams>(&self.hops, target, ask).await
    }

    /// The next server of the last hop that was not tried yet; `None`: all were.
    pub(crate) async fn server(
        &self,
        request: &Request<'_>,
        tried: &mut Tried,
    ) -> Result<Option<Chosen<'_>>, ChainError> {
        let Some(hop) = self.hops.last() else { return Ok(None) };
        while let Some((node, state)) = self.choose(hop, request, tried).await? {
            if let Some(chosen) = self.chosen(node, state) {
                return Ok(Some(chosen));
            }
        }
        Ok(None)
    }

    /// A connection to that server, through the hops before the last.
    pub(crate) async fn reach(&self, chosen: &Chosen<'_>, ask: Ask<'_>) -> Result<Dialed, ChainError> {
        let before = self.hops.split_last().map_or(&[][..], |(_, before)| before);
        self.reach_through(before, chosen, ask).await
    }

    fn chosen<'a>(&'a self, node: Arc<crate::route::Node>, state: &'a NodeState) -> Option<Chosen<'a>> {
        let (server, dialer) = (state.settings.server.as_ref()?, state.dialer.as_ref()?);
        Some(Chosen { chain: self, node, name: &state.settings.name, server, dialer })
    }

    /// To `target` through these hops.
    fn through<'a, L: Leg>(
        &'a self,
        hops: &'a [Hop],
        target: &'a HostPort,
        ask: Ask<'a>,
    ) -> Reaching<'a, L::End> {
        Box::pin(async move {
            let Some((hop, before)) = hops.split_last() else {
                return Ok(L::straight(target, ask.connect_timeout).await?);
            };
            let (mut tried, mut failure) = (Tried::new(), None);
            while let Some((node, state)) = self.choose(hop, ask.request, &mut tried).await? {
                let reached = match self.chosen(node, state) {
                    None => self.through::<L>(before, target, ask).await,
                    Some(chosen) => self.on_from::<L>(before, &chosen, target, ask).await,
                };
                match reached {
                    Err(ChainError::Node(why)) => failure = failure.or(Some(ChainError::Way(why))),
                    // That the chain leads there counts for more than that one of its nodes does not.
                    Err(ChainError::Target(why)) => failure = Some(ChainError::Target(why)),
                    // Another node of this hop would meet the same before it.
                    Ok(_) | Err(ChainError::Way(_) | ChainError::Exhausted(_)) => return reached,
                }
            }
            Err(failure
                .unwrap_or_else(|| ChainError::Way("no node of the hop takes this request".to_owned())))
        })
    }

    /// To `target` from a server that is reached through the hops before it.
    async fn on_from<L: Leg>(
        &self,
        before: &[Hop],
        chosen: &Chosen<'_>,
        target: &HostPort,
        ask: Ask<'_>,
    ) -> Result<L::End, ChainError> {
        let Dialed { stream, local, way } = self.reach_through(before, chosen, ask).await?;
        let wanted = connect::Wanted { client: ask.request.client, local, target, udp: L::UDP };
        match connect::connect(chosen.server, stream, wanted).await {
            Ok(stream) if chosen.server.connector == Connector::Relay => {
                let later = Later::new(stream, chosen, ask.request.service, way);
                Ok(L::behind(Dialed { way: later.way(), stream: Box::new(later), local }))
            }
            Ok(stream) => {
                chosen.succeeded();
                Ok(L::behind(Dialed { stream, local, way }))
            }
            Err(connect::Failed::Refused(why)) => {
                chosen.succeeded();
                Err(ChainError::Target(format!("node {:?}: {why}", chosen.name)))
            }
            Err(connect::Failed::Broken(why)) => {
                unbroken(&way)?;
                chosen.failed(ask.request.service, &why).await;
                Err(ChainError::Node(format!("node {:?}: {why}", chosen.name)))
            }
        }
    }

    async fn reach_through(
        &self,
        before: &[Hop],
        chosen: &Chosen<'_>,
        ask: Ask<'_>,
    ) -> Result<Dialed, ChainError> {
        let addr = &chosen.server.addr;
        let mut way = Way::default();
        let below = async {
            let mut dialed = self.through::<Stream>(before, addr, ask).await?;
            way = dialed.way.clone();
            if let Some(version) = chosen.server.proxy_protocol {
                let ourselves = || (dialed.local, addr.socket_addr().unwrap_or(dialed.local));
                let (from, to) = ask.visitor.unwrap_or_else(ourselves);
                // Into the empty buffer of a new connection; one that is lost already says so when it is used.
                let _ = dialed.stream.write_all(&proxy::encode(version, from, to)).await;
            }
            Ok(dialed)
        };
        match chosen.dialer.connect(addr, below).await {
            Ok(dialed) => Ok(dialed),
            Err(channel::Failed::Below(ChainError::Target(why))) => {
                chosen.failed(ask.request.service, &why).await;
                Err(ChainError::Node(format!("node {:?}: {why}", chosen.name)))
            }
            Err(channel::Failed::Below(error)) => Err(error),
            // Whoever met it himself has marked the node.
            Err(channel::Failed::Shared(why)) => {
                Err(ChainError::Node(format!("node {:?} ({addr}): {why}", chosen.name)))
            }
            Err(channel::Failed::Channel(ChannelError::Dial(error))) if error.is_exhausted() => {
                Err(error.into())
            }
            Err(channel::Failed::Channel(error)) => {
                unbroken(&way)?;
                chosen.failed(ask.request.service, &error).await;
                Err(ChainError::Node(format!("node {:?} ({addr}): {error}", chosen.name)))
            }
        }
    }

    /// The next node of a hop: the plugin's choice where there is one and it has an opinion, else one that is alive, else the
    /// one that failed longest ago.
    async fn choose<'a>(
        &self,
        hop: &'a Hop,
        request: &Request<'_>,
        tried: &mut Tried,
    ) -> Result<Option<(Arc<crate::route::Node>, &'a NodeState)>, ChainError> {
        let now = self.since.elapsed();
        let node = match &hop.forwarder {
            None => hop.choice.choose(request, tried, now),
            Some(forwarder) => match hop.choice.choose_with(&**forwarder, request, tried, now).await {
                Ok(Verdict::Use(node)) => Some(node),
                Ok(Verdict::Pass) => None,
                Ok(Verdict::Refuse(refusal)) => {
                    return Err(ChainError::Way(format!(
                        "the plugin of the hop refuses: {}",
                        refusal.reason
                    )));
                }
                Err(error) => return Err(ChainError::Way(error.to_string())),
            },
        };
        let Some(node) = node else { return Ok(None) };
        let index = hop.choice.nodes().iter().position(|known| Arc::ptr_eq(known, &node));
        Ok(index.and_then(|index| hop.nodes.get(index)).map(|state| (node, state)))
    }
}

/// What fails on a way of which a server has turned out to fail is that server's fault.
pub(crate) fn unbroken(way: &Way) -> Result<(), ChainError> {
    way.failure().map_or(Ok(()), |why| Err(ChainError::Way(why.to_owned())))
}

impl Chosen<'_> {
    /// It did what was asked of it.
    pub(crate) fn succeeded(&self) {
        self.node.health.succeeded();
    }

    /// It did not, and what it was asked through may be dead without knowing.
    pub(crate) async fn failed(&self, service: &str, error: &(dyn fmt::Display + Sync)) {
        warn!(service, node = self.name, addr = %self.server.addr, %error, "cannot connect");
        self.mark_failed();
        self.forget().await;
    }

    /// The mark alone.
    pub(crate) fn mark_failed(&self) {
        self.node.health.failed(self.chain.since.elapsed());
    }

    /// The next connection to it is a new one.
    pub(crate) async fn forget(&self) {
        self.dialer.forget().await;
    }
}
