//! How many requests may begin in a second.

use std::time::Duration;
use tokio::time::Instant;

/// The lowest rate that "too many requests" leads to, in requests per second.
const MIN_RATE: f64 = 1.0;
/// How long the rate takes to come back from 0 to the limit, in seconds.
const RECOVERY: f64 = 20.0;
/// "Too many requests" lowers the rate once in this time: what was in flight together is answered together.
const SLOW_DOWN_INTERVAL: Duration = Duration::from_secs(1);

/// Requests per second, evenly spread. Halved by "too many requests", and back at the limit within 20 s.
pub(super) struct Rate {
    limit: f64,
    rate: f64,
    changed_at: Instant,
    /// When the next request may begin.
    pub(super) next: Instant,
    slowed_at: Option<Instant>,
}

impl Rate {
    pub(super) fn new(limit: f64, now: Instant) -> Self {
        Self { limit, rate: limit, changed_at: now, next: now, slowed_at: None }
    }

    pub(super) fn is_slow(&self, now: Instant) -> bool {
        self.at(now) < self.limit
    }

    fn at(&self, now: Instant) -> f64 {
        let regained = self.limit / RECOVERY * now.saturating_duration_since(self.changed_at).as_secs_f64();
        (self.rate + regained).min(self.limit)
    }

    /// A request begins.
    pub(super) fn take(&mut self, now: Instant) {
        self.rate = self.at(now);
        self.changed_at = now;
        self.next = self.next.max(now) + self.interval();
    }

    /// The request that began was not sent: the next one may begin in its place.
    pub(super) fn give_back(&mut self, now: Instant) {
        self.next = self.next.checked_sub(self.interval()).map_or(now, |next| next.max(now));
    }

    pub(super) fn slow_down(&mut self, now: Instant) {
        if self.slowed_at.is_some_and(|at| now.saturating_duration_since(at) < SLOW_DOWN_INTERVAL) {
            return;
        }
        self.rate = (self.at(now) / 2.0).max(MIN_RATE.min(self.limit));
        self.changed_at = now;
        self.slowed_at = Some(now);
    }

    /// Changes the limit. A lower rate comes back as after "too many requests".
    pub(super) fn limit_to(&mut self, limit: f64) {
        self.limit = limit;
        self.rate = self.rate.min(limit);
    }

    pub(super) fn interval(&self) -> Duration {
        Duration::from_secs_f64(1.0 / self.rate)
    }
}
