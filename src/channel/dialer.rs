//! The side that connects. Channels that carry many streams on one connection keep it for the next stream.

use super::first::FirstBytes;
use super::{ChannelError, Kind, Layer, Way, http2, quic, tls, websocket};
use crate::addr::HostPort;
use crate::mux::{self, Session};
use crate::net::BoxStream;
use crate::shutdown::Shutdown;
use bytes::Bytes;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tokio_util::sync::DropGuard;
use tracing::debug;

/// A connection on which nothing comes for so long, although a stream was opened on it, gets no more of them. Those that it has are
/// left to its own time-outs: the server may be slow, and the others well served.
pub(super) const SILENCE: Duration = Duration::from_secs(3);

/// `dialer` of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientSettings {
    /// `type`.
    pub kind: Kind,
    /// `tls`, for the kinds that have it.
    pub tls: Option<tls::ClientSettings>,
    /// The layer on TCP or TLS.
    pub layer: Layer,
    /// `mux.*`, for the kinds that have it.
    pub mux: Option<mux::Settings>,
    /// `handshakeTimeout`: for everything between the connection and the first byte of what it carries.
    pub handshake_timeout: Duration,
}

/// Connects to the servers of one node.
#[derive(Debug)]
pub struct Dialer {
    settings: ClientSettings,
    tls: Option<tls::Connector>,
    shutdown: Shutdown,
    /// What carries streams; locked while it is made, so that others wait for it.
    slot: Mutex<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    carrier: Option<Carrier>,
    /// When the last try began that came to nothing, and why it did.
    failed: Option<(Instant, String)>,
}

/// A connection that was made.
#[derive(Debug)]
pub struct Dialed {
    /// Its bytes.
    pub stream: BoxStream,
    /// Our own address on the socket below.
    pub local: SocketAddr,
    /// What it goes through.
    pub way: Way,
}

impl From<TcpStream> for Dialed {
    fn from(socket: TcpStream) -> Self {
        let local = socket.local_addr().unwrap_or_else(|_| (Ipv4Addr::UNSPECIFIED, 0).into());
        Self { stream: Box::new(socket), local, way: Way::default() }
    }
}

/// Why there is no data channel.
#[derive(Debug)]
pub enum Failed<E> {
    /// What was to carry it did not come about.
    Below(E),
    /// Its own layers.
    Channel(ChannelError),
    /// What somebody else met who tried while this one waited.
    Shared(String),
}

impl<E: fmt::Display> fmt::Display for Failed<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Below(error) => error.fmt(f),
            Self::Channel(error) => error.fmt(f),
            Self::Shared(error) => error.fmt(f),
        }
    }
}

impl<E, C: Into<ChannelError>> From<C> for Failed<E> {
    fn from(error: C) -> Self {
        Self::Channel(error.into())
    }
}

/// A connection that carries many streams.
#[derive(Debug)]
struct Carrier {
    streams: Streams,
    local: SocketAddr,
    way: Way,
    /// When a stream was opened first since the server was heard last, and what had been heard then.
    asked: Option<(Instant, Heard)>,
}

#[derive(Debug)]
enum Streams {
    /// Dropped, the session ends with its last stream.
    Mux {
        session: Session,
        _in_use: DropGuard,
    },
    Http2(http2::Client),
    Quic(quic::Client),
}

/// What has come from a server: another value once there is more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    At(Instant),
    Count(u64),
}

impl Dialer {
    /// Reads the files that the settings name. `node` is for the log.
    pub fn new(settings: &ClientSettings, node: &str, shutdown: &Shutdown) -> Result<Self, tls::TlsError> {
        let tls = settings.tls.as_ref().map(|tls| {
            tls::warn_of_no_verification(node, tls);
            tls::Connector::new(tls)
        });
        Ok(Self {
            settings: settings.clone(),
            tls: tls.transpose()?,
            shutdown: shutdown.clone(),
            slot: Mutex::default(),
        })
    }

    /// A connection to the server at `addr`: a stream on the connection that is there, or a new one on what `below` comes to;
    /// QUIC needs nothing below. Whoever waits for a new connection waits for two tries at the most: the one that was under way, and
    /// one that he shares with all who wait.
    pub async fn connect<E: fmt::Display>(
        &self,
        addr: &HostPort,
        below: impl Future<Output = Result<Dialed, E>>,
    ) -> Result<Dialed, Failed<E>> {
        if !self.carries_streams() {
            return self.layers(addr, below).await;
        }
        let came = Instant::now();
        let mut slot = self.slot.lock().await;
        if slot.carrier.as_ref().is_some_and(Carrier::is_silent) {
            debug!(%addr, "no answer on the connection that is there");
            slot.carrier = None;
        }
        if let Some(carrier) = &mut slot.carrier
            && let Ok(dialed) = self.limited(carrier.open()).await
        {
            return Ok(dialed);
        }
        if let Some((_, why)) = slot.failed.as_ref().filter(|(began, _)| *began >= came) {
            return Err(Failed::Shared(why.clone()));
        }
        let began = Instant::now();
        match self.carry(addr, below).await {
            Ok(mut carrier) => {
                let dialed = self.limited(carrier.open()).await;
                *slot = Slot { carrier: Some(carrier), failed: None };
                Ok(dialed?)
            }
            Err(failed) => {
                slot.failed = Some((began, failed.to_string()));
                Err(failed)
            }
        }
    }

    /// What is there now is not to be trusted: the next connection is a new one. Streams on it go on.
    pub async fn forget(&self) {
        self.slot.lock().await.carrier = None;
    }

    fn carries_streams(&self) -> bool {
        self.settings.mux.is_some() || matches!(self.settings.layer, Layer::Http2(_) | Layer::Quic(_))
    }

    /// What lies on it, but for what makes it many.
    async fn layers<E>(
        &self,
        addr: &HostPort,
        below: impl Future<Output = Result<Dialed, E>>,
    ) -> Result<Dialed, Failed<E>> {
        let Dialed { mut stream, local, way } = below.await.map_err(Failed::Below)?;
        let handshake = async {
            if let Some(tls) = &self.tls {
                stream = Box::new(tls.connect(stream, &addr.host, self.settings.kind.alpn()).await?);
            }
            if self.carries_streams() || self.settings.layer != Layer::Bare {
                stream = FirstBytes::of_server(stream);
            }
            if let Layer::WebSocket(settings) = &self.settings.layer {
                stream = Box::new(websocket::connect(stream, &addr.to_string(), settings).await?);
            }
            Ok(stream)
        };
        Ok(Dialed { stream: self.limited(handshake).await?, local, way })
    }

    async fn carry<E>(
        &self,
        addr: &HostPort,
        below: impl Future<Output = Result<Dialed, E>>,
    ) -> Result<Carrier, Failed<E>> {
        if let (Layer::Quic(settings), Some(tls)) = (&self.settings.layer, &self.tls) {
            let client =
                quic::Client::connect(addr, tls, self.settings.kind.alpn(), settings, &self.shutdown);
            let client = self.limited(async { Ok(client.await?) }).await?;
            let (local, way) = (client.local(), Way::default());
            return Ok(Carrier { streams: Streams::Quic(client), local, way, asked: None });
        }
        let Dialed { stream, local, way } = self.layers(addr, below).await?;
        let streams = match (&self.settings.layer, &self.settings.mux) {
            (Layer::Http2(settings), _) => {
                let (tls, authority) = (self.tls.is_some(), addr.to_string());
                let client = http2::Client::connect(stream, tls, authority, settings, &self.shutdown);
                Streams::Http2(self.limited(async { Ok(client.await?) }).await?)
            }
            (_, mux) => {
                let default = mux::Settings::tunnel();
                let settings = mux.as_ref().unwrap_or(&default);
                let (session, incoming, driver) =
                    mux::start(stream, Bytes::new(), mux::Role::Client, settings);
                // A server opens no streams.
                drop(incoming);
                let (used, ending) = (self.shutdown.child(), session.clone());
                let unused = used.stop.clone().drop_guard();
                self.shutdown.tasks.spawn(async move {
                    tokio::join!(driver, ending.drain(&used));
                });
                Streams::Mux { session, _in_use: unused }
            }
        };
        Ok(Carrier { streams, local, way, asked: None })
    }

    async fn limited<T>(
        &self,
        handshake: impl Future<Output = Result<T, ChannelError>>,
    ) -> Result<T, ChannelError> {
        let limit = self.settings.handshake_timeout;
        timeout(limit, handshake).await.unwrap_or(Err(ChannelError::Timeout(limit)))
    }
}

impl Carrier {
    async fn open(&mut self) -> Result<Dialed, ChannelError> {
        let heard = self.streams.heard();
        if self.asked.is_none_or(|(_, before)| before != heard) {
            self.asked = Some((Instant::now(), heard));
        }
        let stream: BoxStream = match &self.streams {
            Streams::Mux { session, .. } => Box::new(session.open(Bytes::new())?),
            Streams::Http2(client) => client.open().await?,
            Streams::Quic(client) => client.open()?,
        };
        Ok(Dialed { stream, local: self.local, way: self.way.clone() })
    }

    fn is_silent(&self) -> bool {
        self.asked.is_some_and(|(at, heard)| at.elapsed() >= SILENCE && heard == self.streams.heard())
    }
}

impl Streams {
    fn heard(&self) -> Heard {
        match self {
            Self::Mux { session, .. } => Heard::At(session.last_heard()),
            Self::Http2(client) => Heard::At(client.heard()),
            Self::Quic(client) => Heard::Count(client.heard()),
        }
    }
}
