//! Whether a client may open a tunnel: the question, and whoever answers it before the configuration does.

use super::hosts::HostPattern;
use super::{Decision, Extra};
use crate::addr::Host;
use std::fmt;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use uuid::Uuid;

/// A client that wants to serve a tunnel, and has shown who it is.
#[derive(Debug, Clone)]
pub struct Opening {
    /// The service whose port it came to.
    pub service: Arc<str>,
    /// The tunnel.
    pub tunnel: Uuid,
    /// The user that it is; empty where nobody is asked.
    pub user: Arc<str>,
    /// The name that it asks for; empty when it asks for none.
    pub hostname: Host,
    /// The client's address.
    pub client: SocketAddr,
    /// Whether it serves UDP.
    pub udp: bool,
    /// The service's metadata, and what the client sent of its own.
    pub extra: Extra,
}

/// The names that the client may ask for; none: as the configuration says.
pub type Hostnames = Arc<[HostPattern]>;

/// A decision about a client, when it is there.
pub type Admitting = Pin<Box<dyn Future<Output = Decision<Hostnames>> + Send>>;

/// Tunnel, user and wished name in, yes or no out.
pub trait Admission: fmt::Debug + Send + Sync {
    /// Decides one client. `Pass` leaves it to the configuration; of a refusal the reason names who refuses.
    fn admit(&self, opening: Arc<Opening>) -> Admitting;
}
