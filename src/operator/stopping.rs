//! SIGTERM and SIGINT.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::info;

/// Whether the process was told to stop. A second signal ends it at once.
#[derive(Clone)]
pub(super) struct Stopping(watch::Receiver<bool>);

impl Stopping {
    /// Listens to the signals from now on.
    pub(super) fn on_signals() -> io::Result<Self> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (sender, receiver) = watch::channel(false);
        tokio::spawn(async move {
            for first in [true, false] {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                if first {
                    info!("stopping: token requests under way end first; a second signal ends them too");
                    sender.send_replace(true);
                }
            }
            std::process::exit(1);
        });
        Ok(Stopping(receiver))
    }

    /// Whether it has been told.
    pub(super) fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is told.
    pub(super) async fn begun(mut self) {
        // The sender lives as long as the process.
        let _ = self.0.wait_for(|stopping| *stopping).await;
    }
}
