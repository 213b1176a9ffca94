//! Services whose visitors come by datagrams.

use super::door::Door;
use super::{App, Task};
use crate::config::{Listener as ListenerConfig, Service};
use crate::forward::Forward;
use crate::net::udp::port::Port;
use crate::shutdown::Shutdown;
use crate::tunnel::client::{Accepted, Client};
use anyhow::{Result, bail};
use std::sync::Arc;
use tracing::info;

impl App<'_> {
    /// The task of a service whose flows go to nodes, its port open.
    pub(super) async fn flows(&self, service: &Service, forward: Arc<Forward>) -> Result<Task> {
        match &service.listener {
            ListenerConfig::Udp { addr, flows } => {
                let mut port = Port::bind(addr, flows.clone()).await?;
                info!(service = service.name, role = "service", addr = %port.local_addr(), network = "udp", "listening");
                let admissions = self.admissions(&service.admissions)?;
                let door = Door { service: service.name.clone(), admissions };
                let shutdown = self.shutdown.clone();
                Ok(Box::pin(async move {
                    shutdown
                        .stop
                        .clone()
                        .run_until_cancelled(accept(&mut port, &door, &forward, &shutdown))
                        .await;
                    port.drain().await;
                }))
            }
            ListenerConfig::Rtcp { client: settings, chain } => {
                let (settings, chain) = (settings.clone(), self.chain(chain)?);
                let (service, shutdown) = (service.name.clone(), self.shutdown.clone());
                let client = Client { service, settings, chain, shutdown };
                Ok(Box::pin(async move {
                    let serve = move |accepted| {
                        let forward = Arc::clone(&forward);
                        async move {
                            if let Accepted::Flow(flow) = accepted {
                                forward.serve_flow(flow).await;
                            }
                        }
                    };
                    client.run(serve).await;
                }))
            }
            ListenerConfig::Port { .. } => bail!("this handler needs a listener of type udp or rudp"),
        }
    }
}

/// Serves each flow that begins, for as long as it is polled.
async fn accept(port: &mut Port, door: &Door, forward: &Arc<Forward>, shutdown: &Shutdown) {
    loop {
        let flow = port.accept().await;
        if door.admits(flow.client) {
            let forward = Arc::clone(forward);
            shutdown.spawn_connection(async move { forward.serve_flow(flow).await });
        }
    }
}
