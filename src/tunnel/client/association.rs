//! The port that a relay server has opened for `rudp`: the datagrams of all its peers come by one connection, each with its
//! address (section 1.4, form B), and are taken apart here into one flow for each peer.

use super::{Accepted, Bound};
use crate::net::Via;
use crate::net::listen::canonical;
use crate::net::udp::Flow;
use crate::net::udp::flows::{Flows, Settings, Sink};
use crate::shutdown::Shutdown;
use crate::wire::relay::RelayAddr;
use crate::wire::relay::datagram::{put_addressed, take_addressed};
use bytes::{Bytes, BytesMut};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::PollSender;

/// Answers of all flows that wait for the connection; then the flows wait.
const QUEUE: usize = 64;
/// Read from the connection at once.
const READ_SIZE: usize = 4096;
/// How often is looked whether the last flow has gone, when the process stops.
const LOOK: Duration = Duration::from_millis(50);

/// Serves the flows until the connection ends, or the process stops and there are none. Says why.
pub(super) async fn run<S, F>(bound: Bound, settings: &Settings, shutdown: &Shutdown, serve: &S) -> String
where
    S: Fn(Accepted) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send,
{
    let Bound { stream, received, local, tunnel, connector, .. } = bound;
    let via = Arc::new(Via { tunnel, connector, destination: None });
    let (mut read, write) = tokio::io::split(stream);
    let (answers, queue) = mpsc::channel(QUEUE);
    let mut flows = Flows::new(settings.clone());
    let mut buf = BytesMut::from(received);
    let mut read = async || -> io::Result<()> {
        loop {
            let malformed = |error| io::Error::new(io::ErrorKind::InvalidData, error);
            while let Some((peer, datagram)) = take_addressed(&mut buf).map_err(malformed)? {
                // Servers name the peers of their ports by address.
                let Some(peer) = peer.to_host_port().and_then(|peer| peer.socket_addr()) else { continue };
                let new = !shutdown.stop.is_cancelled();
                let sink = || Sink::Queue(PollSender::new(answers.clone()));
                if let Some(flow) = flows.deliver(peer, datagram, new, sink) {
                    let datagrams = Box::new(flow);
                    let (client, ttl, via) = (canonical(peer), Some(flows.ttl()), Some(Arc::clone(&via)));
                    let (flow, serve) = (Flow { datagrams, client, local, ttl, via }, serve.clone());
                    shutdown.spawn_connection(async move { serve(Accepted::Flow(flow)).await });
                }
            }
            buf.reserve(READ_SIZE);
            tokio::select! {
                n = read.read_buf(&mut buf) => if n? == 0 { return Ok(()) },
                () = sleep(LOOK), if shutdown.stop.is_cancelled() => if flows.is_empty() { return Ok(()) },
                () = shutdown.stop.cancelled(), if !shutdown.stop.is_cancelled() => {}
            }
        }
    };
    let end = tokio::select! { end = read() => end, end = write_all(queue, write) => end };
    end.map_or_else(|error| error.to_string(), |()| "the connection was closed".to_owned())
}

/// Writes answers, each as soon as it is there.
async fn write_all(
    mut queue: mpsc::Receiver<(SocketAddr, Bytes)>,
    mut write: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let mut frame = BytesMut::new();
    while let Some((peer, datagram)) = queue.recv().await {
        // What does not fit a frame is lost.
        if put_addressed(&RelayAddr::from(&peer.into()), &datagram, &mut frame).is_ok() {
            write.write_all(&frame).await?;
            write.flush().await?;
            frame.clear();
        }
    }
    Ok(())
}
