//! Ports that take connections: who is let in, and the data channel between a port and its handler.

use super::{App, Task};
use crate::admission::Admission;
use crate::channel::{Acceptor, Kind, Layer};
use crate::config::{Listener as ListenerConfig, Service};
use crate::net::listen::{self, Listener, Permit};
use crate::net::proxied::proxied;
use crate::net::{BoxStream, Conn};
use crate::record::Record;
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::time::Instant;
use tracing::info;

impl App<'_> {
    /// A handler that takes connections from a port only.
    pub(super) async fn port<S, F>(&self, service: &Service, serve: S) -> Result<Task>
    where
        S: Fn(Conn, Permit) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        match &service.listener {
            ListenerConfig::Port { listen, channel } => {
                if let Layer::Quic(quic) = &channel.layer {
                    return self.quic(service, listen, channel, quic, serve).await;
                }
                let listener = open(listen, &service.name, "service", channel.kind).await?;
                if channel.kind == Kind::TCP {
                    return self.accept(service, listener, &service.admissions, serve);
                }
                let permits = listener.permits().clone();
                let acceptor = Acceptor::new(channel, &service.name, permits, self.shutdown)?;
                let secure = channel.kind == Kind::TLS;
                let layers = Arc::new(Layers { service: service.name.clone(), acceptor, secure });
                self.accept(service, listener, &service.admissions, move |conn, permit| {
                    let (layers, serve) = (Arc::clone(&layers), serve.clone());
                    async move { layers.serve(conn, permit, serve).await }
                })
            }
            ListenerConfig::Rtcp { .. } | ListenerConfig::Udp { .. } => {
                bail!("this handler needs a listener that opens a port for connections")
            }
        }
    }

    /// Accepts until the process stops; every connection that `admissions` let in has a task of its own.
    pub(super) fn accept<S, F>(
        &self,
        service: &Service,
        mut listener: Listener,
        admissions: &[String],
        serve: S,
    ) -> Result<Task>
    where
        S: Fn(Conn, Permit) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let door = Arc::new(Door { service: service.name.clone(), admissions: self.admissions(admissions)? });
        let shutdown = self.shutdown.clone();
        Ok(Box::pin(async move {
            let (local, is_proxied) = (listener.local_addr(), listener.proxy_protocol());
            loop {
                let (stream, client, permit) = tokio::select! {
                    accepted = listener.accept() => accepted,
                    () = shutdown.stop.cancelled() => return,
                };
                let conn = conn(Box::new(stream), client, local);
                if is_proxied {
                    let (door, serve) = (Arc::clone(&door), serve.clone());
                    shutdown.spawn_connection(async move {
                        if let Some(conn) = door.proxied(conn).await {
                            serve(conn, permit).await;
                        }
                    });
                } else if door.admits(client) {
                    shutdown.spawn_connection(serve(conn, permit));
                }
            }
        }))
    }

    pub(super) fn admissions(&self, names: &[String]) -> Result<Vec<Arc<Admission>>> {
        let find = |name: &String| {
            let admission = self.admissions.get(name.as_str()).cloned();
            admission.with_context(|| format!("there is no admission {name:?}"))
        };
        names.iter().map(find).collect()
    }
}

/// What connections to a port pass before anything is read of what they are for.
pub(super) struct Door {
    pub(super) service: String,
    pub(super) admissions: Vec<Arc<Admission>>,
}

impl Door {
    pub(super) fn admits(&self, client: SocketAddr) -> bool {
        let refusing = self.admissions.iter().find(|admission| !admission.admits(client.ip()));
        if let Some(admission) = refusing {
            let record = Record::new(&self.service, client, Instant::now());
            record.failed("not_admitted", format_args!("admission {:?}", admission.name())).connection();
        }
        refusing.is_none()
    }

    /// A connection without its PROXY header, which says for whom it asks.
    async fn proxied(&self, conn: Conn) -> Option<Conn> {
        let (client, since) = (conn.client, Instant::now());
        match proxied(conn).await {
            Ok(conn) => self.admits(conn.client).then_some(conn),
            Err(error) => {
                Record::new(&self.service, client, since).failed("bad_proxy_header", &error).connection();
                None
            }
        }
    }
}

/// A data channel between a port and its handler.
struct Layers {
    service: String,
    acceptor: Acceptor,
    /// Whether what comes out was TLS and nothing else.
    secure: bool,
}

impl Layers {
    async fn serve<S, F>(&self, conn: Conn, permit: Permit, serve: S)
    where
        S: Fn(Conn, Permit) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send,
    {
        let (client, local) = (conn.client, conn.local);
        let since = Instant::now();
        let secure = self.secure;
        let each = |stream, permit| {
            let serve = serve.clone();
            async move { serve(Conn { secure, ..self::conn(stream, client, local) }, permit).await }
        };
        if let Err(error) = self.acceptor.accept(conn.into_stream(), permit, each).await {
            Record::new(&self.service, client, since).failed(error.outcome(), &error).connection();
        }
    }
}

pub(super) async fn open(
    settings: &listen::Settings,
    service: &str,
    role: &str,
    channel: Kind,
) -> Result<Listener> {
    let listener = Listener::bind(settings).await?;
    info!(service, role, addr = %listener.local_addr(), channel = channel.name, "listening");
    Ok(listener)
}

pub(super) fn conn(stream: BoxStream, client: SocketAddr, local: SocketAddr) -> Conn {
    Conn { stream, prefix: Bytes::new(), client, local, secure: false, via: None }
}
