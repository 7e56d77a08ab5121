//! How a client with a credential stands with a token URL.

use super::super::error::{Class, Error};
use super::pace::Pace;
use crate::ErrorKind;
use std::time::Duration;
use tokio::time::Instant;

/// How long a rejected credential is left alone: the first time, the second, ...
const REJECTED: [Duration; 4] =
    [Duration::from_secs(30), Duration::from_secs(120), Duration::from_secs(600), Duration::from_secs(1800)];
/// So long a lock-out lasts at least.
const LOCKED_OUT: Duration = Duration::from_secs(1800);

pub(super) struct Standing {
    /// The endpoint has given it a token, and has not rejected it since.
    pub(super) proven: bool,
    pub(super) in_flight: usize,
    pub(super) rejection: Option<Rejection>,
    pub(super) pace: Pace,
}

pub(super) struct Rejection {
    pub(super) error: Error,
    /// In a row.
    pub(super) count: usize,
    pub(super) at: Instant,
    pub(super) until: Instant,
}

impl Standing {
    pub(super) fn new(limit: f64, now: Instant) -> Self {
        Self { proven: false, in_flight: 0, rejection: None, pace: Pace::new(limit, now) }
    }

    pub(super) fn reject(&mut self, error: &Error, began: Instant, now: Instant) {
        let before = self.rejection.as_ref();
        // What was under way when the rejection came is rejected for the same reason, and counts once.
        let count = match before {
            Some(before) if began <= before.at => before.count,
            Some(before) => before.count + 1,
            None => 1,
        };
        let wait = REJECTED.get(count - 1).copied().unwrap_or(LOCKED_OUT);
        let wait = if error.class() == Class::LockedOut { LOCKED_OUT } else { wait };
        let wait = wait.max(Duration::from_secs(error.retry_after().unwrap_or_default()));
        self.rejection = Some(Rejection { error: error.clone(), count, at: now, until: now + wait });
    }

    /// The first wait is enough, unless the server itself asked for more.
    pub(super) fn hasten(&mut self) {
        if let Some(rejection) = &mut self.rejection
            && rejection.error.class() != Class::LockedOut
            && rejection.error.retry_after().is_none()
        {
            let [first, ..] = REJECTED;
            rejection.until = rejection.until.min(rejection.at + first);
        }
    }
}

/// A rejection that everybody with this credential would get. Not of a scope or a parameter, which others do not send.
pub(super) fn is_about_the_credential(error: &Error) -> bool {
    match error.class() {
        Class::LockedOut => true,
        Class::Rejected => matches!(error.kind(), ErrorKind::ClientRejected | ErrorKind::GrantRejected),
        _ => false,
    }
}
