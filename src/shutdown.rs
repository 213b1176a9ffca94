//! The way out: a first signal stops accepting, open connections get a grace period, a second signal ends at once.

use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// What every task needs to end well: a token that says "stop", and a tracker that counts who has not.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Cancelled by the first signal.
    pub stop: CancellationToken,
    /// Every task that the grace period waits for.
    pub tasks: TaskTracker,
}

impl Shutdown {
    /// Waits for a signal, then for the tasks, at most `grace` long.
    pub async fn run(self, grace: Duration) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        info!(connections = self.tasks.len(), ?grace, "stopping");
        self.stop.cancel();
        self.tasks.close();
        tokio::select! {
            ended = timeout(grace, self.tasks.wait()) => match ended {
                Ok(()) => info!("stopped"),
                Err(_) => warn!(connections = self.tasks.len(), "grace period over: open connections are cut"),
            },
            _ = terminate.recv() => warn!(connections = self.tasks.len(), "second signal: open connections are cut"),
            _ = interrupt.recv() => warn!(connections = self.tasks.len(), "second signal: open connections are cut"),
        }
        Ok(())
    }
}
