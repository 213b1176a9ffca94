//! Rules that are replaced as a whole while visitors come.

use super::{Endpoint, Table};
use crate::addr::Host;
use crate::route::{Answer, Ingress, Request};
use arc_swap::ArcSwap;
use std::sync::Arc;
use uuid::Uuid;

/// A table that may be another at the next question. Clones stand for the same one.
#[derive(Debug, Clone)]
pub struct Rules(Arc<ArcSwap<Table>>);

impl From<Table> for Rules {
    fn from(table: Table) -> Self {
        Arc::new(table).into()
    }
}

impl From<Arc<Table>> for Rules {
    fn from(table: Arc<Table>) -> Self {
        Self(Arc::new(ArcSwap::new(table)))
    }
}

impl Rules {
    /// Takes the place of what was there; questions under way are answered by that.
    pub fn replace(&self, table: Table) {
        self.0.store(Arc::new(table));
    }

    /// Whether the rules keep this host, or this tunnel, from the public.
    pub fn is_private(&self, host: &Host, tunnel: Uuid) -> bool {
        self.0.load().is_private(host, tunnel)
    }
}

impl Ingress for Rules {
    fn resolve(&self, request: &Request<'_>) -> Answer<Endpoint> {
        self.0.load().resolve(request)
    }
}
