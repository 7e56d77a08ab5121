//! Whether the API server's storage was restored from a backup. resourceVersions then go back: a watch that continues from a
//! later one may stay silent for hours, and what was observed before the restoration says nothing about the present.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

/// The shortest time between two restorations. An API server that was not restarted shows objects from before the restoration,
/// and each of them would look like another one.
const MIN_INTERVAL: Duration = Duration::from_secs(60);

/// The restorations that this process has noticed.
#[derive(Debug)]
pub struct Restorations {
    count: watch::Sender<u32>,
    last: Mutex<Option<Instant>>,
}

impl Default for Restorations {
    fn default() -> Self {
        Restorations { count: watch::Sender::new(0), last: Mutex::default() }
    }
}

impl Restorations {
    /// Their number.
    pub(crate) fn count(&self) -> u32 {
        *self.count.borrow()
    }

    /// Receives their number.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u32> {
        self.count.subscribe()
    }

    /// The API server has answered about `object` with a resourceVersion that is lower than an earlier one.
    pub(crate) fn noticed(&self, object: &str, before: u64, now: u64) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|at| at.elapsed() < MIN_INTERVAL) {
            return;
        }
        *last = Some(Instant::now());
        warn!(
            object,
            before,
            now,
            "resourceVersions went back, as after a restoration of etcd: everything is read anew"
        );
        self.count.send_modify(|count| *count += 1);
    }
}

/// A resourceVersion as a number: it increases in every version of Kubernetes, and is documented as a number since 1.35.
pub(crate) fn revision(resource_version: Option<&str>) -> Option<u64> {
    resource_version?.parse().ok()
}

/// The same, to compare with others: what cannot be read counts as newer than everything.
pub(crate) fn comparable(resource_version: Option<&str>) -> u64 {
    revision(resource_version).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn restorations_noticed_by_many_objects_at_once_are_one() {
        let restorations = Restorations::default();
        (0..10).for_each(|_| restorations.noticed("lease", 20, 10));
        assert_eq!(restorations.count(), 1);
        tokio::time::advance(MIN_INTERVAL).await;
        restorations.noticed("lease", 30, 10);
        assert_eq!(restorations.count(), 2);
    }
}
