//! How fast.

use std::time::Duration;
use tokio::time::Instant;

/// The slowest that an endpoint is asked which answers "too many requests", per second.
const SLOWEST: f64 = 1.0;

/// Requests per second: halved by "too many requests", back to the limit within 20 s.
pub(super) struct Pace {
    limit: f64,
    rate: f64,
    at: Instant,
    pub(super) next: Instant,
    slowed: Option<Instant>,
}

impl Pace {
    pub(super) fn new(limit: f64, now: Instant) -> Self {
        Self { limit, rate: limit, at: now, next: now, slowed: None }
    }

    pub(super) fn is_slow(&self, now: Instant) -> bool {
        self.rate_at(now) < self.limit
    }

    pub(super) fn rate_at(&self, now: Instant) -> f64 {
        let regained = self.limit / 20.0 * now.duration_since(self.at).as_secs_f64();
        (self.rate + regained).min(self.limit)
    }

    pub(super) fn take(&mut self, now: Instant) {
        self.rate = self.rate_at(now);
        self.at = now;
        self.next = self.next.max(now) + Duration::from_secs_f64(1.0 / self.rate);
    }

    /// Once per second: what is under way together is told together.
    pub(super) fn slow(&mut self, now: Instant) {
        if self.slowed.is_some_and(|at| now - at < Duration::from_secs(1)) {
            return;
        }
        self.rate = (self.rate_at(now) / 2.0).max(SLOWEST.min(self.limit));
        self.at = now;
        self.slowed = Some(now);
    }
}
