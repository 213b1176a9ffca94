//! Two byte streams without a socket between them: what is written to one is read from the other.

use super::ByteStream;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, BufReader, DuplexStream, ReadBuf, duplex};

/// One end. Its drop is the end of both directions; after [`abort`](ByteStream::abort) the other end reads an error instead.
#[derive(Debug)]
pub struct MemoryStream {
    inner: BufReader<DuplexStream>,
    aborted: Arc<AtomicBool>,
    far_aborted: Arc<AtomicBool>,
}

/// Two ends; `size`: bytes of each direction that may be under way.
pub fn pair(size: usize) -> (MemoryStream, MemoryStream) {
    let (near, far) = duplex(size);
    let [one, other] = [Arc::<AtomicBool>::default(), Arc::default()];
    let end = |inner, aborted: &Arc<AtomicBool>, far_aborted: &Arc<AtomicBool>| MemoryStream {
        inner: BufReader::with_capacity(size, inner),
        aborted: Arc::clone(aborted),
        far_aborted: Arc::clone(far_aborted),
    };
    (end(near, &one, &other), end(far, &other, &one))
}

impl ByteStream for MemoryStream {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let empty = ready!(Pin::new(&mut self.inner).poll_fill_buf(cx))?.is_empty();
        if empty && self.far_aborted.load(Ordering::Acquire) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Poll::Ready(Ok(()))
    }

    fn half_close(&self) -> bool {
        false
    }

    fn abort(&mut self) {
        self.aborted.store(true, Ordering::Release);
    }
}

impl AsyncRead for MemoryStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_readable(cx))?;
        Pin::new(&mut self.inner).poll_read(cx, out)
    }
}

impl AsyncWrite for MemoryStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self.inner.get_mut()).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.inner.get_mut()).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.inner.get_mut()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn an_end_is_orderly_unless_it_was_aborted() {
        for aborted in [false, true] {
            let (mut near, mut far) = pair(16);
            near.write_all(b"all of it").await.unwrap();
            if aborted {
                near.abort();
            }
            drop(near);
            let mut got = Vec::new();
            let end = far.read_to_end(&mut got).await;
            assert_eq!((got.as_slice(), end.is_err()), (&b"all of it"[..], aborted));
        }
    }
}
