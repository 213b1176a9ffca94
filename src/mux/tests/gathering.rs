//! What several streams write at one time goes out as one.

use super::*;
use std::io::IoSlice;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Barrier;

/// Counts the writes.
#[derive(Debug)]
struct Counted {
    inner: MemoryStream,
    writes: Arc<AtomicUsize>,
}

impl ByteStream for Counted {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_readable(cx)
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_write(cx, &bufs.iter().flat_map(|buf| buf.to_vec()).collect::<Vec<_>>())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Each round all streams have something to say at the same moment, each in a task of its own.
async fn writes(streams: usize, rounds: usize) -> usize {
    let (ours, mut theirs) = memory::pair(1 << 20);
    let writes = Arc::new(AtomicUsize::new(0));
    let io = Box::new(Counted { inner: ours, writes: Arc::clone(&writes) });
    let (session, _incoming, driver) = start(io, Bytes::new(), Role::Client, &settings(Kind::SmuxV2));
    tokio::spawn(driver);
    let barrier = Arc::new(Barrier::new(streams + 1));
    let mut tasks = JoinSet::new();
    for _ in 0..streams {
        let (mut stream, barrier) = (session.open(Bytes::new()).unwrap(), Arc::clone(&barrier));
        tasks.spawn(async move {
            for _ in 0..rounds {
                barrier.wait().await;
                stream.write_all(b"said").await.unwrap();
            }
            barrier.wait().await;
        });
    }
    let opened = v2(Command::Syn, 3, b"").len() * streams;
    theirs.read_exact(&mut vec![0; opened]).await.unwrap();
    let before = writes.load(Ordering::Relaxed);
    for _ in 0..rounds {
        barrier.wait().await;
        let said = v2(Command::Psh, 3, b"said").len() * streams;
        theirs.read_exact(&mut vec![0; said]).await.unwrap();
    }
    writes.load(Ordering::Relaxed) - before
}

/// All on one worker, which runs a task that another one has woken before those that were ready already.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn streams_that_write_at_one_time_share_a_write() {
    assert_eq!(tokio::spawn(writes(1, 10)).await.unwrap(), 10);
    // A few more, for once in a while the worker looks for other work in the middle of a round.
    assert!(tokio::spawn(writes(20, 10)).await.unwrap() < 20);
}
