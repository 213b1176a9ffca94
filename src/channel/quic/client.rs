//! The side that dials: one connection for as many streams as the server takes.

use super::failure::{Side, handshake};
use super::socket::Connected;
use super::stream::QuicStream;
use super::{CLOSING, Settings, drain};
use crate::addr::HostPort;
use crate::channel::tls;
use crate::net::BoxStream;
use crate::net::dial::{DialError, to_first};
use crate::shutdown::Shutdown;
use futures_util::FutureExt;
use quinn::{ClientConfig, Connection, Endpoint, EndpointConfig, TokioRuntime};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// A connection to a server on which streams are opened. Clones stand for the same one.
#[derive(Debug, Clone)]
pub(in crate::channel) struct Client {
    connection: Connection,
    streams: TaskTracker,
    socket: Arc<Connected>,
    local: SocketAddr,
    /// With the last clone the connection ends, once its streams have.
    _in_use: Arc<DropGuard>,
}

impl Client {
    /// Connects to the first address of the server that answers.
    pub(in crate::channel) async fn connect(
        addr: &HostPort,
        tls: &tls::Connector,
        alpn: &[&str],
        settings: &Settings,
        shutdown: &Shutdown,
    ) -> Result<Self, DialError> {
        let failed = |error| DialError::Connect(addr.clone(), error);
        let (crypto, name) = tls.quic(&addr.host, alpn).map_err(failed)?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(settings.transport(0));
        let (socket, endpoint, connection) =
            to_first(addr, |to| connect_to(to, config.clone(), name.clone())).await?;
        let local = endpoint.local_addr().map_err(failed)?;
        let (streams, unused) = (TaskTracker::new(), CancellationToken::new());
        let (used, shut, tracked) = (connection.clone(), shutdown.clone(), streams.clone());
        let given_up = unused.clone();
        shutdown.tasks.spawn(async move {
            tokio::select! {
                () = shut.stop.cancelled() => {}
                () = given_up.cancelled() => {}
                _ = used.closed() => {}
            }
            drain(&used, &tracked).await;
            drop(timeout(CLOSING, endpoint.wait_idle()).await);
        });
        Ok(Self { connection, streams, socket, local, _in_use: Arc::new(unused.drop_guard()) })
    }

    /// Opens a stream at once. The server sees it when something is written.
    pub(in crate::channel) fn open(&self) -> io::Result<BoxStream> {
        let full =
            || io::Error::other("the connection has no room for another stream (maxStreams of the server)");
        if self.socket.is_refused() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let opened = self.connection.open_bi().now_or_never().ok_or_else(full)?;
        let stream = opened.map_err(|error| handshake(error, Side::Client))?;
        Ok(Box::new(QuicStream::new(stream, &self.streams)))
    }

    /// How often the server has acknowledged something.
    pub(in crate::channel) fn heard(&self) -> u64 {
        self.connection.stats().frame_rx.acks
    }

    /// Our own address.
    pub(in crate::channel) fn local(&self) -> SocketAddr {
        self.local
    }
}

async fn connect_to(
    to: SocketAddr,
    config: ClientConfig,
    name: String,
) -> io::Result<(Arc<Connected>, Endpoint, Connection)> {
    let socket = Connected::new(to)?;
    let runtime = Arc::new(TokioRuntime);
    let endpoint = Endpoint::new_with_abstract_socket(
        EndpointConfig::default(),
        None,
        Arc::clone(&socket) as _,
        runtime,
    )?;
    let connecting = endpoint.connect_with(config, to, &name).map_err(io::Error::other)?;
    tokio::select! {
        connected = connecting => {
            let connection = connected.map_err(|error| handshake(error, Side::Client))?;
            Ok((socket, endpoint, connection))
        }
        refused = socket.refused() => Err(refused),
    }
}
