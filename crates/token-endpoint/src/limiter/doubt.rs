//! A client of which nothing is known but refusals: its secret may be wrong, although the answers speak of scopes.

use super::identity::Identity;
use crate::error::Error;
use std::time::Duration;
use tokio::time::Instant;

/// So many different requests that were refused put a client in doubt that has never succeeded.
const REFUSALS_TO_DOUBT: usize = 3;
/// A client in doubt sends one request in this time.
const DOUBT_INTERVAL: Duration = Duration::from_secs(120);

#[derive(Default)]
pub(super) struct Doubt {
    /// The first different requests that were refused.
    refused: Vec<Identity>,
    /// The last refusal.
    error: Option<Error>,
    /// When the next request may begin.
    next: Option<Instant>,
}

impl Doubt {
    /// A request was refused.
    pub(super) fn refused(&mut self, request: Identity, error: &Error, now: Instant) {
        if self.refused.len() < REFUSALS_TO_DOUBT && !self.refused.contains(&request) {
            self.refused.push(request);
        }
        self.error = Some(error.clone());
        if self.is_doubted() {
            self.next.get_or_insert(now + DOUBT_INTERVAL);
        }
    }

    pub(super) fn is_doubted(&self) -> bool {
        self.refused.len() >= REFUSALS_TO_DOUBT
    }

    /// When the next request may begin, if that is later than now.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        self.next.filter(|at| self.is_doubted() && *at > now)
    }

    /// The last refusal, while the client is in doubt.
    pub(super) fn error(&self) -> Option<&Error> {
        self.error.as_ref().filter(|_| self.is_doubted())
    }

    /// A request begins.
    pub(super) fn begins(&mut self, now: Instant) {
        if self.is_doubted() {
            self.next = Some(now + DOUBT_INTERVAL);
        }
    }
}
