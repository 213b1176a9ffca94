//! Tunnels and the connectors that registered with them.
//!
//! A tunnel exists while it has a connector. [`Registry::choose`] picks one by weight (the wire specification, section
//! 2.4), passing over the dead and those that the caller has tried; opening a stream on it is the caller's next step.

use super::TunnelId;
use super::server::stream_header;
use crate::addr::HostPort;
use crate::http::Intermediary;
use crate::mux;
use crate::net::BoxStream;
use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::time::Instant;
use tracing::{debug, warn};
use uuid::Uuid;

/// A connector with this weight takes all the traffic while it lives.
const EXCLUSIVE_WEIGHT: u8 = 255;

/// One client session in a tunnel's pool.
#[derive(Debug)]
pub(crate) struct Connector {
    /// Its name, made here and told to the client in the BIND reply.
    pub(crate) id: Uuid,
    /// From the client's request; 0 counts as 1.
    pub(crate) weight: u8,
    /// Registered for UDP: never chosen for a TCP visitor.
    pub(crate) udp: bool,
    /// The session that streams are opened on.
    pub(crate) session: mux::Session,
    /// Where it is registered, and for which tunnel.
    pub(crate) registry: Weak<Registry>,
    pub(crate) tunnel: TunnelId,
    pub(crate) service: String,
    /// `tunnel.silence`: how long it may give no sign of reading.
    pub(crate) silence: Duration,
    /// When it last gave none in time.
    pub(crate) silent: Mutex<Option<Instant>>,
    /// When it was last asked for one.
    pub(crate) probed: Mutex<Option<Instant>>,
}

impl Intermediary for Connector {
    /// Half of what it has to give a sign in, as the other half is for the probe.
    fn patience(&self) -> Duration {
        self.silence / 2
    }

    fn has_other(&self) -> bool {
        self.registry.upgrade().is_some_and(|registry| registry.has_other(self.tunnel, self.udp, &[self.id]))
    }

    fn is_heard(&self) -> bool {
        self.session.last_heard().elapsed() < self.patience()
    }

    fn hangs(&self) -> bool {
        let since = *lock(&self.silent);
        since.is_some_and(|since| self.session.last_heard() <= since)
    }

    /// A stream for nobody: its header is read, and version 2 of smux and yamux tell of that.
    fn probe(&self) -> Option<BoxStream> {
        let now = Instant::now();
        let before = lock(&self.probed).replace(now);
        if before.is_some_and(|before| now - before < self.silence) {
            return None;
        }
        let nobody = HostPort::from(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        let header = stream_header(&nobody, &nobody).ok()?;
        Some(Box::new(self.session.open(header).ok()?))
    }

    fn pass_over(&self) {
        *lock(&self.silent) = Some(Instant::now());
        let Self { service, id, silence, .. } = self;
        warn!(service, connector = %id, after = ?silence, "connector passed over: no sign of reading (tunnel.silence)");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A tunnel has as many connectors as it may have.
#[derive(Debug, thiserror::Error)]
#[error("tunnel has {0} connectors already (tunnel.maxConnectors)")]
pub(crate) struct TunnelFull(usize);

/// All tunnels of one server.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    tunnels: Mutex<HashMap<TunnelId, Pool>>,
}

#[derive(Debug, Default)]
struct Pool {
    /// Those that are in, and those that are being let in.
    places: usize,
    connectors: Vec<Arc<Connector>>,
}

impl Registry {
    /// Keeps a place for a connector in its tunnel; it is given up when the guard is dropped.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        tunnel: TunnelId,
        max_connectors: usize,
    ) -> Result<Registration, TunnelFull> {
        let mut tunnels = self.lock();
        let pool = tunnels.entry(tunnel).or_default();
        if pool.places >= max_connectors {
            return Err(TunnelFull(pool.places));
        }
        pool.places += 1;
        Ok(Registration { registry: Arc::clone(self), tunnel, connector: None })
    }

    /// A live connector of the tunnel for that network, not in `tried`, by weighted chance; silent ones only when no other is
    /// left. A connector of the other network is never chosen, not even when it is the only one.
    pub(crate) fn choose(&self, tunnel: TunnelId, udp: bool, tried: &[Uuid]) -> Option<Arc<Connector>> {
        let tunnels = self.lock();
        let usable = |c: &&Arc<Connector>| c.udp == udp && !c.session.is_closed() && !tried.contains(&c.id);
        let pool: Vec<_> = tunnels.get(&tunnel)?.connectors.iter().filter(usable).collect();
        let lively = pool.iter().any(|c| !c.hangs());
        let pool = pool.into_iter().filter(|c| !lively || !c.hangs()).collect();
        weighted(pool, |total| fastrand::u32(0..total)).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TunnelId, Pool>> {
        lock(&self.tunnels)
    }
}

/// Picks by weight; `draw` gives a number below its argument.
fn weighted(mut pool: Vec<&Arc<Connector>>, draw: impl FnOnce(u32) -> u32) -> Option<&Arc<Connector>> {
    if pool.iter().any(|c| c.weight == EXCLUSIVE_WEIGHT) {
        pool.retain(|c| c.weight == EXCLUSIVE_WEIGHT);
    }
    let weight = |c: &Connector| u32::from(c.weight.max(1));
    if pool.len() < 2 {
        return pool.pop();
    }
    let mut point = draw(pool.iter().map(|c| weight(c)).sum());
    pool.into_iter().find(|c| {
        let hit = point < weight(c);
        point = point.saturating_sub(weight(c));
        hit
    })
}

/// A place in a tunnel's pool; dropping it gives the place up.
#[derive(Debug)]
pub(crate) struct Registration {
    registry: Arc<Registry>,
    tunnel: TunnelId,
    connector: Option<Uuid>,
}

impl Registration {
    /// Takes the place: from now on the connector gets streams.
    pub(crate) fn enter(&mut self, connector: Arc<Connector>) {
        self.connector = Some(connector.id);
        if let Some(pool) = self.registry.lock().get_mut(&self.tunnel) {
            pool.connectors.push(connector);
        }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut tunnels = self.registry.lock();
        if let Some(pool) = tunnels.get_mut(&self.tunnel) {
            pool.connectors.retain(|c| Some(c.id) != self.connector);
            pool.places -= 1;
            if pool.places == 0 {
                tunnels.remove(&self.tunnel);
            }
        }
    }
}

/// Why no stream to a tunnel could be had.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum NoConnector {
    /// No client serves it, or all that do have been tried.
    #[error("tunnel {0} is not connected")]
    Gone(TunnelId),
    /// The last one that was asked took no stream.
    #[error("no connector of tunnel {0} takes a stream: {1}")]
    Refused(TunnelId, mux::OpenError),
}

/// A stream on a connector, its header under way.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) stream: mux::Stream,
    pub(crate) connector: Arc<Connector>,
}

impl Registry {
    /// Opens a stream that begins with `header`, trying one connector after the other; those that were tried are added to `tried`.
    pub(crate) fn open(
        &self,
        tunnel: TunnelId,
        udp: bool,
        header: &bytes::Bytes,
        tried: &mut Vec<Uuid>,
    ) -> Result<Opened, NoConnector> {
        let mut none = NoConnector::Gone(tunnel);
        while let Some(connector) = self.choose(tunnel, udp, tried) {
            tried.push(connector.id);
            match connector.session.open(header.clone()) {
                Ok(stream) => return Ok(Opened { stream, connector }),
                Err(error) => {
                    debug!(%tunnel, connector = %connector.id, %error, "connector passed over");
                    none = NoConnector::Refused(tunnel, error);
                }
            }
        }
        Err(none)
    }

    /// Whether a connector for that network is left that was not tried.
    pub(crate) fn has_other(&self, tunnel: TunnelId, udp: bool, tried: &[Uuid]) -> bool {
        self.choose(tunnel, udp, tried).is_some()
    }
}
