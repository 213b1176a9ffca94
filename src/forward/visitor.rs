//! The requests of one HTTP visitor, each to a node of its own.

use super::{Forward, route_of};
use crate::http::failure::Failure;
use crate::http::rewrite::Changes;
use crate::http::{self, Asked, Pool, Way};
use crate::net::Via;
use crate::record::Route;
use crate::route::hop::{Active, Tried};
use crate::route::{Extra, Node, Request};
use std::net::SocketAddr;
use std::sync::Arc;

/// The nodes tried for one request.
#[derive(Debug, Default)]
pub(super) struct Choice {
    tried: Tried,
    node: Option<Arc<Node>>,
    kept: bool,
    active: Option<Active>,
}

/// Routes the requests of one visitor.
pub(super) struct Visitor<'a> {
    pub(super) forward: &'a Forward,
    /// Where the visitor's connection arrived.
    pub(super) local: SocketAddr,
    pub(super) via: Option<Arc<Via>>,
    /// Where there is a forwarder to be told.
    pub(super) extra: Option<Box<Extra>>,
}

impl Visitor<'_> {
    fn request<'r>(&'r self, asked: &Asked<'r>) -> Request<'r> {
        Request {
            hostname: asked.destination().host,
            protocol: asked.protocol,
            client: asked.client,
            service: &self.forward.port.service,
            http: Some(asked.parts),
            extra: self.extra.as_deref().cloned().unwrap_or_default(),
        }
    }
}

impl http::Router for Visitor<'_> {
    type Choice = Choice;

    async fn choose(&self, asked: &Asked<'_>) -> Result<Choice, Failure> {
        if let Some(answer) = self.forward.terminator.as_ref().and_then(|t| t.answer(asked)) {
            return Err(answer);
        }
        // That no node is meant is found when one is looked for.
        Ok(Choice::default())
    }

    async fn open<P: Pool>(
        &self,
        choice: &mut Choice,
        asked: &Asked<'_>,
        pool: &mut P,
    ) -> Result<Way<P::Kept>, Failure> {
        let port = asked.destination().port;
        let Choice { tried, node, kept, active } = choice;
        let mut opened =
            self.forward.reach(&self.request(asked), port, self.local, tried, node, pool).await?;
        *kept = matches!(opened, Way::Kept(_));
        *active = node.as_ref().map(Active::new);
        if let Way::Fresh(fresh) = &mut opened {
            fresh.route = self.route(choice);
        }
        Ok(opened)
    }

    fn report(&self, choice: &mut Choice, answered: Result<u16, &Failure>) {
        let Some(node) = &choice.node else { return };
        let treatment = self.forward.treatments.of(node);
        match answered {
            Ok(status) if treatment.is_some_and(|t| t.is_failure(status)) => {
                node.health.failed(self.forward.since.elapsed());
            }
            Ok(_) => node.health.succeeded(),
            // That a kept connection ended says nothing about the node.
            Err(_) if choice.kept => {}
            Err(_) => node.health.failed(self.forward.since.elapsed()),
        }
    }

    fn route(&self, choice: &Choice) -> Route {
        route_of(choice.node.as_deref(), self.via.as_deref())
    }

    fn changes(&self, choice: &Choice, asked: &Asked<'_>, route: &Route) -> Changes<'_> {
        let wanted = self.forward.port.settings.route_header;
        let fields = wanted.then(|| http::route_field(asked.client, route)).into_iter().collect();
        let treatment = choice.node.as_ref().and_then(|node| self.forward.treatments.of(node));
        Changes { fields, rewrite: treatment.map(|treatment| &treatment.rewrite) }
    }
}
