//! The side that listens: one UDP port, and as many connections on it as come.

use super::failure::{Side, ended, handshake};
use super::stream::QuicStream;
use super::{CANCELLED, Settings, drain};
use crate::channel::tls::{self, TlsError};
use crate::channel::{ChannelError, ServerSettings};
use crate::net::listen::{self, BindError, Permit, Permits};
use crate::net::probation::Probation;
use crate::net::{BoxStream, ByteStream};
use crate::shutdown::Shutdown;
use quinn::{
    Connection, Endpoint, EndpointConfig, Incoming, RecvStream, SendStream, ServerConfig, TokioRuntime,
};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use tracing::debug;

/// First packets of connections that wait to be looked at; more are refused.
const MAX_INCOMING: usize = 1024;
/// What such a connection may have sent besides, in bytes.
const INCOMING_BUFFER: u64 = 64 * 1024;
/// The same for all of them.
const INCOMING_BUFFERS: u64 = 16 * 1024 * 1024;

/// A port that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The address.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The socket.
    #[error("cannot use the UDP socket: {0}")]
    Socket(#[from] io::Error),
}

/// An open port.
#[derive(Debug)]
pub struct Port {
    endpoint: Endpoint,
    local: SocketAddr,
    tls: tls::Acceptor,
    /// What all connections have but their certificate.
    config: ServerConfig,
    handshake_timeout: Duration,
    /// Streams count like connections.
    permits: Permits,
    shutdown: Shutdown,
}

/// A connection that has begun, and that there is room for. Dropped it is refused.
#[derive(Debug)]
pub struct Arrival {
    incoming: Incoming,
    permit: Permit,
    /// Who is at the other end, if it is not made up.
    pub client: SocketAddr,
    /// Our own address, as the peer sees it.
    pub local: SocketAddr,
}

impl Arrival {
    /// Leaves the peer without an answer.
    pub fn ignore(self) {
        self.incoming.ignore();
    }
}

impl Port {
    /// Opens the port, and reads the files that the settings name or makes a certificate. `quic` is what its `layer` says.
    pub async fn bind(
        listen: &listen::Settings,
        settings: &ServerSettings,
        quic: &Settings,
        service: &str,
        shutdown: &Shutdown,
    ) -> Result<Self, PortError> {
        let default = tls::ServerSettings::default();
        let tls = settings.tls.as_ref().unwrap_or(&default);
        let tls = tls::Acceptor::new(tls, service, settings.kind.alpn())?;
        let mut config = ServerConfig::with_crypto(Arc::new(tls.quic()));
        config
            .transport_config(quic.transport(quic.max_streams))
            .max_incoming(MAX_INCOMING)
            .incoming_buffer_size(INCOMING_BUFFER)
            .incoming_buffer_size_total(INCOMING_BUFFERS);
        let socket = listen::bind_udp(&listen.addr).await?;
        let runtime = Arc::new(TokioRuntime);
        let endpoint = Endpoint::new(EndpointConfig::default(), Some(config.clone()), socket, runtime)?;
        Ok(Self {
            local: endpoint.local_addr()?,
            endpoint,
            tls,
            config,
            handshake_timeout: settings.handshake_timeout,
            permits: Permits::new(listen),
            shutdown: shutdown.clone(),
        })
    }

    /// The address that was bound, with the port that the kernel chose for 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The next connection that there is room for; `None`: never again. While many handshakes are unfinished, peers have to
    /// prove first that they are where they say.
    pub async fn accept(&self) -> Option<Arrival> {
        loop {
            let incoming = self.endpoint.accept().await?;
            if self.permits.is_busy() && !incoming.remote_address_validated() {
                // May be done once, which has not been.
                drop(incoming.retry());
                continue;
            }
            match self.permits.take() {
                Ok(permit) => {
                    let client = listen::canonical(incoming.remote_address());
                    let ip = incoming.local_ip().unwrap_or_else(|| self.local.ip()).to_canonical();
                    let local = SocketAddr::new(ip, self.local.port());
                    return Some(Arrival { incoming, permit, client, local });
                }
                Err(setting) => {
                    debug!(addr = %self.local, setting, "connection refused");
                    incoming.refuse();
                }
            }
        }
    }

    /// Does the handshake and serves each stream by `serve` in a task of its own, until the last has ended. With the process's
    /// end it takes no more and waits for those it has.
    pub async fn serve<S, F>(&self, arrival: Arrival, serve: S) -> Result<(), ChannelError>
    where
        S: Fn(BoxStream, Permit) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let Arrival { incoming, permit, .. } = arrival;
        let limit = self.handshake_timeout;
        let shake = async { incoming.accept_with(self.current())?.await };
        let connected = timeout(limit, shake).await.map_err(|_| ChannelError::Timeout(limit))?;
        let connection = connected.map_err(|error| handshake(error, Side::Server))?;
        let (probation, streams) = (Probation::new(permit), TaskTracker::new());
        let mut in_time = pin!(probation.passes(limit));
        let mut waiting = true;
        loop {
            tokio::select! {
                opened = connection.accept_bi() => match opened {
                    Ok(stream) => self.spawn(stream, (&streams, &probation), &serve),
                    Err(error) => return ended(error).map_or(Ok(()), |lost| Err(ChannelError::Lost(lost))),
                },
                () = self.shutdown.stop.cancelled() => break,
                passed = &mut in_time, if waiting => {
                    waiting = false;
                    if !passed {
                        connection.close(CANCELLED, b"no stream was let in");
                        return Err(ChannelError::Unused(limit));
                    }
                }
            }
        }
        tokio::join!(drain(&connection, &streams), refuse(&connection));
        Ok(())
    }
}

impl Port {
    /// Takes no more connections, and ends when those that there are have ended.
    pub async fn close(&self) {
        self.endpoint.set_server_config(None);
        self.endpoint.wait_idle().await;
    }

    /// With the certificate of now.
    fn current(&self) -> Arc<ServerConfig> {
        let mut config = self.config.clone();
        config.crypto = Arc::new(self.tls.quic());
        Arc::new(config)
    }

    /// Starts the task of one stream, if there is room for another connection.
    fn spawn<S, F>(
        &self,
        stream: (SendStream, RecvStream),
        (streams, probation): (&TaskTracker, &Probation),
        serve: &S,
    ) where
        S: Fn(BoxStream, Permit) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let mut stream = QuicStream::new(stream, streams);
        match self.permits.take_on(probation) {
            Ok(permit) => self.shutdown.spawn_connection(serve(Box::new(stream), permit)),
            Err(setting) => {
                debug!(setting, "stream refused");
                stream.abort();
            }
        }
    }
}

/// Streams that come too late.
async fn refuse(connection: &Connection) {
    while let Ok((mut send, mut receive)) = connection.accept_bi().await {
        // The peer may have given up by itself.
        let _ = (send.reset(CANCELLED), receive.stop(CANCELLED));
    }
}
