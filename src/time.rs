//! Arithmetic with timestamps, in whole seconds. It saturates and never panics.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use jiff::{SignedDuration, Timestamp};

/// `at` plus `seconds`, at most [`Timestamp::MAX`].
#[must_use]
pub fn plus(at: Timestamp, seconds: u64) -> Timestamp {
    let seconds = SignedDuration::from_secs(i64::try_from(seconds).unwrap_or(i64::MAX));
    at.saturating_add(seconds).unwrap_or(Timestamp::MAX)
}

/// `at` less `seconds`.
#[must_use]
pub fn minus(at: Timestamp, seconds: u64) -> Timestamp {
    moved(at, i64::try_from(seconds).unwrap_or(i64::MAX).saturating_neg())
}

/// `at` moved by `seconds`, which may be negative.
#[must_use]
pub fn moved(at: Timestamp, seconds: i64) -> Timestamp {
    at.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(at)
}

/// `at` without the part of a second.
#[must_use]
pub fn in_whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The whole seconds from `from` to `to`; 0 where `to` is earlier.
#[must_use]
pub fn seconds_between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.as_second().saturating_sub(from.as_second())).unwrap_or(0)
}
