//! Locks the state of metrics.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Ignores poisoning: no code panics between the steps of a change.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
