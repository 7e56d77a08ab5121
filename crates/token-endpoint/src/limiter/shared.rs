//! What all clones of a limiter and its permits share.

use super::limits::Limits;
use super::queue::Queue;
use crate::digest::DigestKey;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

pub(super) struct Shared<K> {
    pub(super) digest_key: DigestKey,
    queue: Mutex<Queue<K>>,
    /// An entry may have become the next one.
    pub(super) changed: Notify,
    /// For how many seconds the machine was suspended, which tokio's clock does not count.
    slept: AtomicU64,
}

impl<K: Clone + Eq + Hash> Shared<K> {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            digest_key: DigestKey::new(),
            queue: Mutex::new(Queue::new(limits)),
            changed: Notify::new(),
            slept: AtomicU64::new(0),
        }
    }

    /// The time by the limiter's clock, which goes on while the machine is suspended.
    pub(super) fn now(&self) -> Instant {
        Instant::now() + self.slept()
    }

    /// By how much the limiter's clock is ahead of tokio's.
    pub(super) fn slept(&self) -> Duration {
        Duration::from_secs(self.slept.load(Ordering::Relaxed))
    }

    pub(super) fn has_slept(&self, seconds: u64) {
        self.slept.fetch_add(seconds, Ordering::Relaxed);
        self.changed.notify_one();
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue<K>> {
        // Nothing in there panics; and if it did, the queue is of more use than none.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
