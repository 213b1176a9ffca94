//! The side that listens: makes one connection of an accepted socket, or as many as the peer has streams on it.

use super::first::FirstBytes;
use super::{ChannelError, Kind, Layer, http2, tls, websocket};
use crate::mux::{self, CloseReason};
use crate::net::BoxStream;
use crate::net::listen::{Permit, Permits};
use crate::net::probation::Probation;
use crate::shutdown::Shutdown;
use bytes::Bytes;
use std::io;
use std::time::Duration;
use tokio::time::timeout;
use tracing::debug;

/// `listener` of a service, but for its address and bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// `type`.
    pub kind: Kind,
    /// `tls`, for the kinds that have it.
    pub tls: Option<tls::ServerSettings>,
    /// The layer on TCP or TLS.
    pub layer: Layer,
    /// `mux.*`, for the kinds that have it.
    pub mux: Option<mux::Settings>,
    /// `handshakeTimeout`: for everything between the connection and the first byte of what it carries.
    pub handshake_timeout: Duration,
}

/// The channel of one port.
#[derive(Debug)]
pub struct Acceptor {
    settings: ServerSettings,
    tls: Option<tls::Acceptor>,
    /// Of the port: streams count like connections.
    permits: Permits,
    shutdown: Shutdown,
}

/// All that a peer asked for was answered, and none of it with a stream.
fn no_such_path() -> ChannelError {
    let text =
        "HTTP/2: the client asks for another path, or by another method: is the path the same at both ends?";
    io::Error::other(text).into()
}

impl Acceptor {
    /// Reads the files that the settings name, or makes a certificate.
    pub fn new(
        settings: &ServerSettings,
        service: &str,
        permits: Permits,
        shutdown: &Shutdown,
    ) -> Result<Self, tls::TlsError> {
        let tls = settings.tls.as_ref().map(|tls| tls::Acceptor::new(tls, service, settings.kind.alpn()));
        Ok(Self { settings: settings.clone(), tls: tls.transpose()?, permits, shutdown: shutdown.clone() })
    }

    /// Does the handshakes on a socket and serves what comes through it: by `serve` one connection, or each stream in a task
    /// of its own until the last has ended.
    pub async fn accept<S, F>(&self, stream: BoxStream, permit: Permit, serve: S) -> Result<(), ChannelError>
    where
        S: Fn(BoxStream, Permit) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        let stream = self.layers(stream).await?;
        if self.settings.mux.is_none() && !matches!(self.settings.layer, Layer::Http2(_)) {
            serve(stream, permit).await;
            return Ok(());
        }
        let (probation, limit) = (Probation::new(permit), self.settings.handshake_timeout);
        let in_time = async {
            if probation.passes(limit).await {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            ended = self.streams(stream, &probation, &serve) => ended,
            () = in_time => Err(ChannelError::Unused(limit)),
        }
    }

    async fn layers(&self, mut stream: BoxStream) -> Result<BoxStream, ChannelError> {
        let limit = self.settings.handshake_timeout;
        let handshake = async {
            if let Some(tls) = &self.tls {
                stream = Box::new(tls.accept(stream).await?);
            }
            if self.settings.mux.is_some() || self.settings.layer != Layer::Bare {
                stream = FirstBytes::of_client(stream);
            }
            if let Layer::WebSocket(settings) = &self.settings.layer {
                stream = Box::new(websocket::accept(stream, settings).await?);
            }
            Ok(stream)
        };
        timeout(limit, handshake).await.unwrap_or(Err(ChannelError::Timeout(limit)))
    }

    async fn streams<S, F>(
        &self,
        stream: BoxStream,
        probation: &Probation,
        serve: &S,
    ) -> Result<(), ChannelError>
    where
        S: Fn(BoxStream, Permit) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        if let Layer::Http2(settings) = &self.settings.layer {
            let limit = self.settings.handshake_timeout;
            let mut delivered = false;
            let deliver = |stream| {
                delivered = true;
                self.spawn(stream, probation, serve);
            };
            http2::serve(stream, settings, limit, &self.shutdown, deliver).await?;
            let ended =
                if delivered || self.shutdown.stop.is_cancelled() { Ok(()) } else { Err(no_such_path()) };
            return ended;
        }
        let default = mux::Settings::tunnel();
        let mux = self.settings.mux.as_ref().unwrap_or(&default);
        let (session, mut incoming, driver) = mux::start(stream, Bytes::new(), mux::Role::Server, mux);
        let mut asked = false;
        let accept = async {
            while let Some(stream) = incoming.accept().await {
                asked = true;
                self.spawn(Box::new(stream), probation, serve);
            }
        };
        tokio::join!(mux::drive(driver), accept, session.drain(&self.shutdown));
        match session.closed().await {
            CloseReason::Local => Ok(()),
            CloseReason::Ended if asked => Ok(()),
            CloseReason::Ended => Err(ChannelError::unused()),
            reason if probation.is_over() => Err(ChannelError::Lost(io::Error::other(reason))),
            reason => Err(io::Error::other(reason).into()),
        }
    }

    /// Starts the task of one stream, if there is room for another connection.
    fn spawn<S, F>(&self, stream: BoxStream, probation: &Probation, serve: &S)
    where
        S: Fn(BoxStream, Permit) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        if self.shutdown.stop.is_cancelled() {
            return;
        }
        match self.permits.take_on(probation) {
            Ok(permit) => self.shutdown.spawn_connection(serve(stream, permit)),
            Err(setting) => debug!(setting, "stream refused"),
        }
    }
}
