//! What one server is asked for at most.

/// The limits of one origin (scheme, host and port).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests in flight.
    pub in_flight: usize,
    /// Requests that begin in one second, evenly spread.
    pub per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { in_flight: 64, per_second: 100 }
    }
}
