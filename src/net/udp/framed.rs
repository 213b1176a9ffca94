//! Datagrams in form A (the wire specification, section 1.4) on a byte stream.

use super::Datagrams;
use crate::net::BoxStream;
use crate::wire::relay::datagram::{put, take};
use bytes::{Buf, Bytes, BytesMut};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::AsyncWrite;
use tokio_util::io::poll_read_buf;

/// Read at once. What is read of a datagram is kept until it is whole, which takes at most 64 KiB more.
const READ_SIZE: usize = 4096;

/// A stream as an end of a flow.
#[derive(Debug)]
pub struct Framed {
    stream: BoxStream,
    input: BytesMut,
    /// What the stream has not taken yet of the one datagram that is on its way.
    output: BytesMut,
}

impl Framed {
    /// `prefix` has been read from the stream.
    pub fn new(stream: BoxStream, prefix: Bytes) -> Self {
        Self { stream, input: prefix.into(), output: BytesMut::new() }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.output.is_empty() {
            let n = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.output))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.output.advance(n);
        }
        Poll::Ready(Ok(()))
    }
}

impl Datagrams for Framed {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        loop {
            if let Some(datagram) = take(&mut self.input) {
                if self.input.is_empty() {
                    // A silent flow holds no buffer.
                    self.input = BytesMut::new();
                }
                return Poll::Ready(Ok(Some(datagram)));
            }
            ready!(self.stream.poll_readable(cx))?;
            self.input.reserve(READ_SIZE);
            if ready!(poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.input))? == 0 {
                let whole = self.input.is_empty();
                let cut =
                    || io::Error::new(io::ErrorKind::UnexpectedEof, "the stream ends inside a datagram");
                return Poll::Ready(if whole { Ok(None) } else { Err(cut()) });
            }
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, datagram: &Bytes) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        // One that is too long for a frame is lost, as it would be on a network.
        if put(datagram, &mut self.output).is_ok() {
            // What does not go now, goes with the next flush.
            let _ = self.poll_drain(cx)?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::pipe::testing::tcp_pair;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn frames_come_whole_however_they_are_cut() {
        let (near, mut far) = tcp_pair().await;
        let mut framed = Framed::new(Box::new(near), Bytes::from_static(b"\0\x05ab"));
        for piece in [&b"cde\0"[..], b"\0\0", b"\x02x"] {
            far.write_all(piece).await.unwrap();
        }
        assert_eq!(poll_fn(|cx| framed.poll_recv(cx)).await.unwrap().unwrap(), "abcde");
        assert_eq!(poll_fn(|cx| framed.poll_recv(cx)).await.unwrap().unwrap(), "");
        far.write_all(b"y\0\x09cut").await.unwrap();
        far.shutdown().await.unwrap();
        assert_eq!(poll_fn(|cx| framed.poll_recv(cx)).await.unwrap().unwrap(), "xy");
        let error = poll_fn(|cx| framed.poll_recv(cx)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[tokio::test]
    async fn a_full_stream_holds_one_datagram_back_and_loses_none_of_it() {
        let (near, mut far) = tcp_pair().await;
        let mut framed = Framed::new(Box::new(near), Bytes::new());
        let datagram = Bytes::from(vec![7; 60_000]);
        let mut sent = 0;
        while poll_fn(|cx| Poll::Ready(framed.poll_send(cx, &datagram).is_ready())).await {
            sent += 1;
        }
        let read = tokio::spawn(async move {
            let mut got = Vec::new();
            far.read_to_end(&mut got).await.unwrap();
            got
        });
        poll_fn(|cx| framed.poll_close(cx)).await.unwrap();
        let got = read.await.unwrap();
        let mut got = BytesMut::from(&got[..]);
        for _ in 0..sent {
            assert_eq!(take(&mut got).unwrap(), datagram);
        }
        assert!(sent > 1 && got.is_empty());
    }
}
