//! What is wanted behind the last hop of a chain: a stream, or a flow of datagrams.

use crate::addr::HostPort;
use crate::channel::Dialed;
use crate::net::dial::{DialError, dial};
use crate::net::udp::BoxDatagrams;
use crate::net::udp::framed::Framed;
use crate::net::udp::socket::Connected;
use bytes::Bytes;
use std::future::Future;
use std::time::Duration;

/// One of the two.
pub(super) trait Leg: 'static {
    /// Whether servers are asked for UDP.
    const UDP: bool;
    type End: Send;

    /// To a target that no server stands before.
    fn straight(
        target: &HostPort,
        limit: Duration,
    ) -> impl Future<Output = Result<Self::End, DialError>> + Send;

    /// What a server leads to that was asked.
    fn behind(server: Dialed) -> Self::End;
}

#[derive(Debug)]
pub(super) struct Stream;

impl Leg for Stream {
    const UDP: bool = false;
    type End = Dialed;

    async fn straight(target: &HostPort, limit: Duration) -> Result<Dialed, DialError> {
        dial(target, limit).await.map(Dialed::from)
    }

    fn behind(server: Dialed) -> Dialed {
        server
    }
}

#[derive(Debug)]
pub(super) struct Datagrams;

impl Leg for Datagrams {
    const UDP: bool = true;
    type End = BoxDatagrams;

    async fn straight(target: &HostPort, limit: Duration) -> Result<BoxDatagrams, DialError> {
        Ok(Box::new(Connected::dial(target, limit).await?))
    }

    fn behind(server: Dialed) -> BoxDatagrams {
        Box::new(Framed::new(server.stream, Bytes::new()))
    }
}
