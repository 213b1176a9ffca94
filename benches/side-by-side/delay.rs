//! A slow line, in the benchmark's own process: 50 ms each way, 1 Gbit/s in each direction, and buffers so deep that nothing
//! is ever lost.

use anyhow::{Context, Result};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// Bytes a second, in each direction, of all connections together.
pub(crate) const RATE: f64 = 125e6;
/// Each way.
pub(crate) const DELAY: Duration = Duration::from_millis(50);
/// Bytes that are sent at once.
const PIECE: usize = 32 << 10;
/// Pieces that a direction of a connection may have under way: 128 MiB, ten times what the line holds.
const DEPTH: usize = 4096;

/// A running line; it is cut when dropped.
#[derive(Debug)]
pub(crate) struct Line {
    /// Where it begins, at 127.0.0.1.
    pub(crate) port: u16,
    accepting: JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// When the line is free again.
type Free = Arc<Mutex<Instant>>;

impl Line {
    /// Leads to that port.
    pub(crate) async fn start(to: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a port for the slow line")?;
        let port = listener.local_addr()?.port();
        let [up, down]: [Free; 2] = std::array::from_fn(|_| Arc::new(Mutex::new(Instant::now())));
        let accepting = tokio::spawn(async move {
            loop {
                let Ok((near, _)) = listener.accept().await else { continue };
                let Ok(far) = TcpStream::connect(("127.0.0.1", to)).await else { continue };
                for stream in [&near, &far] {
                    drop(stream.set_nodelay(true));
                }
                let ((from_near, to_near), (from_far, to_far)) = (near.into_split(), far.into_split());
                direction(from_near, to_far, Arc::clone(&up));
                direction(from_far, to_near, Arc::clone(&down));
            }
        });
        Ok(Self { port, accepting })
    }
}

fn direction(from: OwnedReadHalf, to: OwnedWriteHalf, free: Free) {
    let (sender, receiver) = mpsc::channel(DEPTH);
    // Each ends when its side of the connection does.
    tokio::spawn(read(from, sender, free));
    tokio::spawn(write(to, receiver));
}

async fn read(mut from: OwnedReadHalf, sender: Sender<(Instant, Vec<u8>)>, free: Free) {
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        let Ok(1..) = from.read_buf(&mut piece).await else { return };
        let due = {
            let mut free = free.lock().unwrap_or_else(PoisonError::into_inner);
            *free = (*free).max(Instant::now()) + Duration::from_secs_f64(piece.len() as f64 / RATE);
            *free + DELAY
        };
        if sender.send((due, piece)).await.is_err() {
            return;
        }
    }
}

async fn write(mut to: OwnedWriteHalf, mut receiver: Receiver<(Instant, Vec<u8>)>) {
    while let Some((due, piece)) = receiver.recv().await {
        sleep_until(due).await;
        if to.write_all(&piece).await.is_err() {
            return;
        }
    }
}
