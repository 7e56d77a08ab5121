//! A client of which nothing is known but refusals: its secret may be wrong, although the answers speak of scopes.

use super::identity::Identity;
use super::terms::Terms;
use crate::error::Error;
use std::time::Duration;
use tokio::time::Instant;

/// So many different requests that were refused put a client in doubt that has never succeeded.
const REFUSALS_TO_DOUBT: usize = 3;
/// A client in doubt sends one request in this time, and beside that one last attempt.
const DOUBT_INTERVAL: Duration = Duration::from_secs(120);

#[derive(Default)]
pub(super) struct Doubt {
    /// The first different requests that were refused.
    refused: Vec<Identity>,
    /// The last refusal.
    error: Option<Error>,
    /// When the next request may begin.
    next: Option<Instant>,
    /// When the next last attempt may begin in spite of that.
    next_last_attempt: Option<Instant>,
}

/// What a request of a client in doubt takes: until when the next one waits.
#[derive(Clone, Copy)]
pub(super) enum DoubtTurn {
    Regular(Instant),
    LastAttempt(Instant),
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

    /// Likewise for a request with these terms: a token that readers have is not lost to others' refusals.
    pub(super) fn next_with(&self, terms: Terms, now: Instant) -> Option<Instant> {
        let passes = terms.is_last_attempt && self.next_last_attempt(now) <= now;
        self.next(now).filter(|_| !passes)
    }

    /// When the next last attempt may begin.
    pub(super) fn next_last_attempt(&self, now: Instant) -> Instant {
        self.next_last_attempt.unwrap_or(now)
    }

    /// The last refusal, while the client is in doubt.
    pub(super) fn error(&self) -> Option<&Error> {
        self.error.as_ref().filter(|_| self.is_doubted())
    }

    /// A request begins, which [`Self::next_with`] lets through.
    pub(super) fn begins(&mut self, now: Instant) -> Option<DoubtTurn> {
        let next = now + DOUBT_INTERVAL;
        if !self.is_doubted() {
            return None;
        }
        if self.next(now).is_some() {
            self.next_last_attempt = Some(next);
            return Some(DoubtTurn::LastAttempt(next));
        }
        self.next = Some(next);
        Some(DoubtTurn::Regular(next))
    }

    /// The request that took this turn was not sent: the next one may begin in its place.
    pub(super) fn give_back(&mut self, turn: DoubtTurn, now: Instant) {
        let (next, taken) = match turn {
            DoubtTurn::Regular(until) => (&mut self.next, until),
            DoubtTurn::LastAttempt(until) => (&mut self.next_last_attempt, until),
        };
        if *next == Some(taken) {
            *next = Some(now);
        }
    }
}
