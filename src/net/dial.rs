//! Connecting to a host and port under one deadline.
//!
//! Every address of a name is tried, IPv6 and IPv4 in turn, the next one starting when the one before fails or has said
//! nothing for a while. Which host to dial, and what a failure means for it, is the caller's business.

use super::listen::{out_of_resources, tune};
use crate::addr::HostPort;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// How long one address may be silent before the next is tried beside it (RFC 8305 recommends 250 ms).
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// A target that was not reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name has no address.
    #[error("cannot resolve {0}: {1}")]
    Resolve(HostPort, io::Error),
    /// Refused, reset or unreachable.
    #[error("cannot connect to {0}: {1}")]
    Connect(HostPort, io::Error),
    /// No answer in time.
    #[error("cannot connect to {0}: no answer within {1:?} (connectTimeout)")]
    Timeout(HostPort, Duration),
}

impl DialError {
    /// Whether it was this process that had nothing left to connect with: that says nothing about the target.
    pub fn is_exhausted(&self) -> bool {
        match self {
            Self::Resolve(_, error) | Self::Connect(_, error) => out_of_resources(error),
            Self::Timeout(..) => false,
        }
    }
}

/// Connects to the first address of the target that answers by TCP.
pub async fn dial(target: &HostPort, limit: Duration) -> Result<TcpStream, DialError> {
    let stream = timeout(limit, to_first(target, TcpStream::connect))
        .await
        .map_err(|_| DialError::Timeout(target.clone(), limit))??;
    tune(&stream);
    Ok(stream)
}

/// Connects by `connect` to the first address of the target that answers, without a deadline.
pub async fn to_first<T, F>(target: &HostPort, connect: impl Fn(SocketAddr) -> F) -> Result<T, DialError>
where
    F: Future<Output = io::Result<T>> + Send + 'static,
    T: Send + 'static,
{
    if let Some(addr) = target.socket_addr() {
        return connect(addr).await.map_err(|e| DialError::Connect(target.clone(), e));
    }
    let found = lookup_host((target.host.as_str(), target.port)).await;
    let addrs = interleave(found.map_err(|e| DialError::Resolve(target.clone(), e))?.collect());
    race(addrs, connect).await.map_err(|e| DialError::Connect(target.clone(), e))
}

async fn race<T, F>(addrs: Vec<SocketAddr>, connect: impl Fn(SocketAddr) -> F) -> io::Result<T>
where
    F: Future<Output = io::Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let mut addrs = addrs.into_iter().take(MAX_ADDRESSES);
    let mut tries = JoinSet::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        let more = addrs.next().map(|addr| tries.spawn(connect(addr))).is_some();
        tokio::select! {
            Some(done) = tries.join_next() => match done {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                // A try that was cancelled or panicked says nothing about the address.
                Err(_) => {}
            },
            () = sleep(NEXT_ADDRESS_AFTER), if more => {}
            else => return Err(last),
        }
    }
}

/// Families in turn, beginning with that of the first address.
fn interleave(addrs: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v4 = addrs.first().is_some_and(SocketAddr::is_ipv4);
    let (mut own, mut other): (Vec<_>, Vec<_>) =
        addrs.into_iter().rev().partition(|a| a.is_ipv4() == first_is_v4);
    let mut ordered = Vec::new();
    while !own.is_empty() || !other.is_empty() {
        ordered.extend(own.pop());
        ordered.extend(other.pop());
    }
    ordered
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[test]
    fn families_take_turns() {
        let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
        let addrs = ["1.1.1.1:1", "2.2.2.2:1", "3.3.3.3:1", "[::1]:1"].map(parse).to_vec();
        assert_eq!(interleave(addrs), ["1.1.1.1:1", "[::1]:1", "2.2.2.2:1", "3.3.3.3:1"].map(parse));
    }

    #[tokio::test]
    async fn a_dead_address_does_not_hide_a_live_one() {
        let live = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addrs = vec![dead.local_addr().unwrap(), live.local_addr().unwrap()];
        drop(dead);
        assert_eq!(race(addrs.clone(), TcpStream::connect).await.unwrap().peer_addr().unwrap(), addrs[1]);
        assert!(race(addrs[..1].to_vec(), TcpStream::connect).await.is_err());
        assert!(race(Vec::new(), TcpStream::connect).await.is_err());
    }
}
