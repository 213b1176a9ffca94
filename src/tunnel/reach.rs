//! A stream for a raw visitor, on a connector that reads.
//!
//! A connector may hang without its connection breaking. So while a tunnel has others, what the visitor says at first is
//! kept until the connector gives a sign of reading; without one it is said again to the next. `http` does the same for a
//! request. With a single connector there is no choice, and nothing is kept.

use super::TunnelId;
use super::registry::{Connector, NoConnector, Opened, Registry};
use crate::http::Intermediary;
use crate::mux;
use crate::net::{BoxStream, ByteStream, pipe};
use bytes::{Bytes, BytesMut};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::AsyncWrite;
use tokio::time::{interval, timeout};
use tracing::debug;

/// What is kept of a visitor that goes on without an answer; it is read no further until there is a sign of reading.
const MAX_KEPT: usize = 64 * 1024;
/// How often is looked for a sign that nothing wakes us for.
const LOOK: Duration = Duration::from_millis(20);
/// Read at once while bytes are kept.
const READ_SIZE: usize = 4096;

/// What a raw visitor wants.
#[derive(Debug)]
pub(crate) struct Wanted<'a> {
    pub(crate) service: &'a str,
    pub(crate) registry: &'a Registry,
    pub(crate) tunnel: TunnelId,
    pub(crate) udp: bool,
    /// The first bytes of a stream.
    pub(crate) header: Bytes,
}

/// Visitor and stream, ready to be piped.
#[derive(Debug)]
pub(crate) struct Reached {
    pub(crate) visitor: pipe::Side,
    pub(crate) target: pipe::Side,
    pub(crate) connector: Arc<Connector>,
    /// Bytes of the visitor that the stream has taken.
    pub(crate) sent: u64,
}

/// Why nothing came of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreached {
    #[error("visitor failed: {0}")]
    Visitor(#[from] io::Error),
    #[error(transparent)]
    NoConnector(#[from] NoConnector),
}

impl Unreached {
    /// The word for the log.
    pub(crate) fn outcome(&self) -> &'static str {
        match self {
            Self::Visitor(_) => "visitor_failed",
            Self::NoConnector(_) => "no_connector",
        }
    }
}

impl Wanted<'_> {
    /// Opens a stream on one connector after the other; those that were tried are added to `tried`.
    pub(crate) fn open(&self, tried: &mut Vec<uuid::Uuid>) -> Result<Opened, NoConnector> {
        self.registry.open(self.tunnel, self.udp, &self.header, tried)
    }

    /// Sees to it that `opened` is read at the other end, or another stream in its place.
    pub(crate) async fn reach(
        &self,
        mut opened: Opened,
        tried: &mut Vec<uuid::Uuid>,
        visitor: pipe::Side,
    ) -> Result<Reached, Unreached> {
        let pipe::Side { stream: mut visitor, prefix } = visitor;
        let mut kept = BytesMut::from(prefix);
        while self.registry.has_other(self.tunnel, self.udp, tried) {
            let mut trial =
                Trial { stream: &mut opened.stream, visitor: &mut visitor, kept: &mut kept, sent: 0 };
            match trial.run(opened.connector.silence).await? {
                Sign::Reads(first) => {
                    let sent = trial.sent;
                    drop(kept.split_to(sent));
                    return Ok(reached(visitor, kept, opened, first, sent as u64));
                }
                Sign::Refused => debug!(self.service, connector = %opened.connector.id, "stream refused"),
                Sign::Silent => opened.connector.pass_over(),
            }
            opened = self.open(tried)?;
        }
        Ok(reached(visitor, kept, opened, Bytes::new(), 0))
    }
}

fn reached(visitor: BoxStream, rest: BytesMut, opened: Opened, first: Bytes, sent: u64) -> Reached {
    let Opened { stream, connector } = opened;
    Reached {
        visitor: pipe::Side::new(visitor, rest.freeze()),
        target: pipe::Side::new(Box::new(stream), first),
        connector,
        sent,
    }
}

/// What a connector lets us know.
#[derive(Debug)]
enum Sign {
    /// It has read, or it cannot be known; with what it said.
    Reads(Bytes),
    /// It ended the stream without having read.
    Refused,
    /// Nothing in time.
    Silent,
}

/// A stream on trial.
struct Trial<'a> {
    stream: &'a mut mux::Stream,
    visitor: &'a mut BoxStream,
    /// All that the visitor has said.
    kept: &'a mut BytesMut,
    /// Bytes of it that the stream has taken.
    sent: usize,
}

impl Trial<'_> {
    /// Passes on what the visitor says until there is a sign; an error is the visitor's.
    async fn run(&mut self, silence: Duration) -> io::Result<Sign> {
        let mut ended = false;
        let mut look = interval(LOOK);
        let sign = poll_fn(|cx| {
            while look.poll_tick(cx).is_ready() {}
            if let Poll::Ready(sign) = self.poll_sign(cx) {
                return Poll::Ready(Ok(sign));
            }
            if !ended {
                ended = self.poll_visitor(cx)?.is_ready();
            }
            Poll::Pending
        });
        match timeout(silence, sign).await {
            Ok(sign) => sign,
            Err(_) if self.unread() => Ok(Sign::Silent),
            Err(_) => Ok(Sign::Reads(Bytes::new())),
        }
    }

    fn poll_sign(&mut self, cx: &mut Context<'_>) -> Poll<Sign> {
        match self.stream.poll_read_chunk(cx) {
            Poll::Ready(Ok(first)) if !first.is_empty() => Poll::Ready(Sign::Reads(first)),
            Poll::Ready(_) if self.unread() => Poll::Ready(Sign::Refused),
            Poll::Pending if self.unread() => Poll::Pending,
            _ => Poll::Ready(Sign::Reads(Bytes::new())),
        }
    }

    fn unread(&self) -> bool {
        self.stream.far_end_has_read() == Some(false)
    }

    /// Ready when the visitor has ended its side, or the stream takes no more: its end is seen by who reads it.
    fn poll_visitor(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.sent < self.kept.len() {
                match ready!(Pin::new(&mut *self.stream).poll_write(cx, &self.kept[self.sent..])) {
                    Ok(n) if n > 0 => self.sent += n,
                    _ => return Poll::Ready(Ok(())),
                }
            }
            if ready!(Pin::new(&mut *self.stream).poll_flush(cx)).is_err() {
                return Poll::Ready(Ok(()));
            }
            if self.kept.len() >= MAX_KEPT {
                return Poll::Pending;
            }
            ready!(self.visitor.poll_readable(cx))?;
            self.kept.reserve(READ_SIZE);
            if ready!(tokio_util::io::poll_read_buf(Pin::new(&mut *self.visitor), cx, self.kept))? == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}
