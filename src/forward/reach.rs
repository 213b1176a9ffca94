//! From one node to the next until one is reached: for flows, and what a failure says of its node for both kinds.

use super::Forward;
use crate::addr::HostPort;
use crate::chain::{Ask, ChainError};
use crate::http::failure::Failure;
use crate::net::udp::BoxDatagrams;
use crate::route::hop::Tried;
use crate::route::{Node, Request};
use std::sync::Arc;
use tracing::warn;

impl Forward {
    /// Chooses a node and asks for a flow to it until one can be had; `last` becomes the node that was chosen last.
    pub(crate) async fn reach_datagrams(
        &self,
        request: &Request<'_>,
        port: u16,
        last: &mut Option<Arc<Node>>,
    ) -> Result<BoxDatagrams, Failure> {
        let (mut tried, mut failure) = (Tried::new(), None);
        loop {
            let (node, target) = self.next(request, port, &mut tried, last, &mut failure).await?;
            let ask = Ask { request, connect_timeout: self.settings.connect_timeout, visitor: None };
            match self.chain.datagrams(&target, ask).await {
                Ok(datagrams) => return Ok(datagrams),
                Err(error) => failure = Some(self.failed(&node, error)?),
            }
        }
    }

    /// The next node and where it is; those that are nowhere are passed over. `failure`: what went wrong with the ones before.
    pub(super) async fn next(
        &self,
        request: &Request<'_>,
        port: u16,
        tried: &mut Tried,
        last: &mut Option<Arc<Node>>,
        failure: &mut Option<Failure>,
    ) -> Result<(Arc<Node>, HostPort), Failure> {
        loop {
            let Some(node) = self.choose(request, tried).await? else {
                let no_route = || Failure::NoRoute(request.hostname.to_string());
                return Err(failure.take().unwrap_or_else(no_route));
            };
            *last = Some(Arc::clone(&node));
            if let Some(treatment) = self.treatments.of(&node) {
                treatment.admit(request).await?;
            }
            match self.target(&node, request, port) {
                Some(target) => return Ok((node, target)),
                None => *failure = Some(nowhere(&node)),
            }
        }
    }

    /// Marks a node that was not reached, if it is to blame; `Err`: another one would fare no better.
    pub(super) fn failed(&self, node: &Node, error: ChainError) -> Result<Failure, Failure> {
        match error {
            ChainError::Exhausted(error) => Err(Failure::Exhausted(error)),
            // No other node is nearer.
            ChainError::Way(error) | ChainError::Node(error) => {
                warn!(service = self.port.service, %error, "no way to the nodes");
                Err(Failure::Down(error))
            }
            ChainError::Target(error) => {
                node.health.failed(self.since.elapsed());
                warn!(service = self.port.service, node = &*node.name, %error, "node failed");
                Ok(Failure::Down(error))
            }
        }
    }
}

/// A node without a place of its own, for a request without one.
fn nowhere(node: &Node) -> Failure {
    Failure::Down(format!("node {:?} names no host and port, and neither does the request", node.name))
}
