//! What all clones of a limiter and its permits share.

use super::limits::Limits;
use super::queue::Queue;
use crate::digest::DigestKey;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

pub(super) struct Shared<K> {
    pub(super) digest_key: DigestKey,
    queue: Mutex<Queue<K>>,
    /// An entry may have become the next one.
    pub(super) changed: Notify,
}

impl<K: Clone + Eq + Hash> Shared<K> {
    pub(super) fn new(limits: Limits) -> Self {
        Self { digest_key: DigestKey::new(), queue: Mutex::new(Queue::new(limits)), changed: Notify::new() }
    }

    pub(super) fn queue(&self) -> MutexGuard<'_, Queue<K>> {
        // Nothing in there panics; and if it did, the queue is of more use than none.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
