//! The way out: a first signal stops accepting, open connections get a grace period, a second signal ends at once.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// How long the runtime may take to drop the connections that are cut: each writes its line in the log then.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(1);

/// What every task needs to end well: a token that says "stop", and trackers that count who has not.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Cancelled by the first signal.
    pub stop: CancellationToken,
    /// Tasks beside those of connections that the grace period waits for: listeners, sessions with servers.
    pub tasks: TaskTracker,
    connections: TaskTracker,
    /// Set when no more is waited for.
    is_cut: Arc<AtomicBool>,
}

impl Shutdown {
    /// The same for what may be told to stop before the process does, by its own `stop`.
    pub(crate) fn child(&self) -> Self {
        Self { stop: self.stop.child_token(), ..self.clone() }
    }

    /// Starts the task of one connection. When the time is up it goes no further, and ends with the runtime.
    pub(crate) fn spawn_connection(&self, connection: impl Future<Output = ()> + Send + 'static) {
        // In a box, beside which there is no more than fits into the smallest task of the runtime's.
        let (is_cut, mut connection) = (Arc::clone(&self.is_cut), Box::pin(connection));
        self.connections.spawn(poll_fn(move |cx| {
            // In this order: what a connection meets of the end of others is not its visitor's business.
            if is_cut.load(Ordering::Acquire) { Poll::Ready(()) } else { connection.as_mut().poll(cx) }
        }));
    }

    /// Waits for a signal, then for the tasks, at most `grace` long; what is open then is cut by the end of the runtime, which
    /// may take [`LAST_WORDS`].
    pub async fn run(self, grace: Duration) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        info!(connections = self.connections.len(), ?grace, "stopping");
        self.stop.cancel();
        self.tasks.close();
        self.connections.close();
        let ended = async { tokio::join!(self.tasks.wait(), self.connections.wait()) };
        tokio::select! {
            ended = timeout(grace, ended) => match ended {
                Ok(_) => {
                    info!("stopped");
                    return Ok(());
                }
                Err(_) => warn!(connections = self.connections.len(), "grace period over: open connections are cut"),
            },
            _ = terminate.recv() => warn!(connections = self.connections.len(), "second signal: open connections are cut"),
            _ = interrupt.recv() => warn!(connections = self.connections.len(), "second signal: open connections are cut"),
        }
        self.is_cut.store(true, Ordering::Release);
        Ok(())
    }
}
