//! Ports of channel `quic`: who is let in, and what becomes of their streams.

use super::door::{Door, conn};
use super::{App, Task};
use crate::channel::ServerSettings;
use crate::channel::quic::{Arrival, Port, Settings};
use crate::config::Service;
use crate::net::Conn;
use crate::net::listen::{self, Permit};
use crate::record::Record;
use anyhow::Result;
use std::future::Future;
use std::sync::Arc;
use tokio::time::Instant;
use tracing::info;

impl App<'_> {
    /// Takes connections until the process stops; each stream on them is what a connection is to other ports.
    pub(super) async fn quic<S, F>(
        &self,
        service: &Service,
        listen: &listen::Settings,
        channel: &ServerSettings,
        quic: &Settings,
        serve: S,
    ) -> Result<Task>
    where
        S: Fn(Conn, Permit) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = ()> + Send,
    {
        let port = Arc::new(Port::bind(listen, channel, quic, &service.name, self.shutdown).await?);
        info!(service = service.name, role = "service", addr = %port.local_addr(), channel = channel.kind.name, "listening");
        let door = Door { service: service.name.clone(), admissions: self.admissions(&service.admissions)? };
        let (door, shutdown) = (Arc::new(door), self.shutdown.clone());
        Ok(Box::pin(async move {
            loop {
                let arrival = tokio::select! {
                    arrival = port.accept() => arrival,
                    () = shutdown.stop.cancelled() => None,
                };
                let Some(arrival) = arrival else { break };
                if door.admits(arrival.client) {
                    let (port, door, serve) = (Arc::clone(&port), Arc::clone(&door), serve.clone());
                    shutdown.spawn_connection(async move { connection(&port, &door, arrival, serve).await });
                } else {
                    arrival.ignore();
                }
            }
            port.close().await;
        }))
    }
}

async fn connection<S, F>(port: &Port, door: &Door, arrival: Arrival, serve: S)
where
    S: Fn(Conn, Permit) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = ()> + Send,
{
    let (client, local, since) = (arrival.client, arrival.local, Instant::now());
    let each = |stream, permit| {
        let serve = serve.clone();
        async move { serve(conn(stream, client, local), permit).await }
    };
    if let Err(error) = port.serve(arrival, each).await {
        Record::new(&door.service, client, since).failed(error.outcome(), &error).connection();
    }
}
