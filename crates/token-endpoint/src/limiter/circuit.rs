//! Whether an endpoint fails for every client of a tenant that asks it.

use super::identity::Identity;
use crate::error::Error;
use std::time::Duration;
use tokio::time::Instant;

/// Transient failures in a row, of at least two clients, that open the circuit.
const FAILURES_TO_OPEN: u32 = 5;
/// The wait between two probes: it doubles from the first to the second of these.
const PROBE_WAITS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(5)];

/// How long failures count, where no request follows.
const KEPT: Duration = Duration::from_secs(600);

/// While it is open, the endpoint gets one request at a time, and a pause after each that failed.
#[derive(Default)]
pub(super) struct Circuit {
    /// Transient, in a row.
    failures: u32,
    /// The first two clients that they were for.
    clients: Vec<Identity>,
    last: Option<Error>,
    probing: bool,
    next_probe: Option<Instant>,
    failed_at: Option<Instant>,
}

/// Why requests to an endpoint wait: it failed for several clients in a row.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "{error}; the endpoint failed several times in a row, and is asked one request at a time until one succeeds"
)]
pub struct CircuitOpen {
    /// The last failure.
    #[source]
    pub error: Box<Error>,
    /// Transient failures in a row.
    pub failures: u32,
}

/// What the circuit lets through.
pub(super) enum Passage {
    /// Every request.
    Closed,
    /// One request, which is the probe.
    Probe,
    /// None before this time; `None`: none before the probe has ended.
    Blocked(Option<Instant>),
}

impl Circuit {
    pub(super) fn passage(&self, now: Instant) -> Passage {
        match self.next_probe {
            _ if !self.is_open() => Passage::Closed,
            _ if self.probing => Passage::Blocked(None),
            Some(at) if at > now => Passage::Blocked(Some(at)),
            _ => Passage::Probe,
        }
    }

    pub(super) fn open(&self) -> Option<CircuitOpen> {
        let error = self.last.clone().filter(|_| self.is_open())?;
        Some(CircuitOpen { error: Box::new(error), failures: self.failures })
    }

    /// Whether it may be forgotten: no request has failed for long.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        !self.probing && self.failed_at.is_none_or(|at| now.saturating_duration_since(at) >= KEPT)
    }

    pub(super) fn begin_probe(&mut self) {
        self.probing = true;
    }

    pub(super) fn end_probe(&mut self) {
        self.probing = false;
    }

    /// A request failed for a moment.
    pub(super) fn failed(&mut self, client: Option<Identity>, error: &Error, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        if let Some(client) = client
            && self.clients.len() < 2
            && !self.clients.contains(&client)
        {
            self.clients.push(client);
        }
        self.last = Some(error.clone());
        self.failed_at = Some(now);
        let [first, longest] = PROBE_WAITS;
        let doublings = self.failures.saturating_sub(FAILURES_TO_OPEN).min(8);
        self.next_probe = Some(now + (first * (1 << doublings)).min(longest));
    }

    /// The endpoint answered, whatever it said.
    pub(super) fn answered(&mut self) {
        *self = Circuit { probing: self.probing, ..Circuit::default() };
    }

    fn is_open(&self) -> bool {
        self.failures >= FAILURES_TO_OPEN && self.clients.len() >= 2
    }
}
