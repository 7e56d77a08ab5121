//! What one server is asked for at most, and what the process has under way.

/// The least number of requests that the process may have under way.
const MIN_UNDERWAY: usize = 320;

/// The limits of one origin (scheme, host and port).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests in flight.
    pub in_flight: usize,
    /// Requests that begin in one second, evenly spread.
    pub per_second: u32,
}

impl Limits {
    /// Each is 1 at least.
    pub(super) fn at_least_one(self) -> Self {
        Self { in_flight: self.in_flight.max(1), per_second: self.per_second.max(1) }
    }

    /// Requests to all origins that are in flight, or whose answers are still [under way](super::Underway): one origin that has
    /// all that it may leaves room for others.
    pub(super) fn underway(&self) -> usize {
        self.in_flight.saturating_mul(5).max(MIN_UNDERWAY)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { in_flight: 64, per_second: 100 }
    }
}
