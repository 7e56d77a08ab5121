//! Whether an endpoint fails for every client of a tenant that asks it.

use super::identity::Identity;
use crate::error::Error;
use std::time::Duration;
use tokio::time::Instant;

/// Transient failures in a row, of at least two clients, that open the circuit.
const FAILURES_TO_OPEN: u32 = 5;
/// The wait between two probes: it doubles from the first to the second of these. A probe that is prepared or hangs holds up the
/// next one for the second.
const PROBE_WAITS: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(5)];

/// How long failures count, where no request follows.
const KEPT: Duration = Duration::from_secs(600);

/// While it is open, the endpoint gets single requests that begin seconds apart, also where one hangs: it may take longer than
/// readers of other tokens can wait.
#[derive(Default)]
pub(super) struct Circuit {
    /// Transient, in a row.
    failures: u32,
    /// The first two clients that they were for.
    clients: Vec<Identity>,
    last: Option<Error>,
    /// Since when a probe is prepared.
    preparing: Option<Instant>,
    /// Probes that were sent and not answered.
    in_flight: usize,
    /// When the last probe was sent, and the one before it.
    probed_at: Option<Instant>,
    probed_before: Option<Instant>,
    /// When it opened. What was on its way then, and fails later, puts no probe off.
    opened_at: Option<Instant>,
    failed_at: Option<Instant>,
}

/// Why requests to an endpoint wait: it failed for several clients in a row.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "{error}; the endpoint failed several times in a row, and gets single requests, seconds apart, until one succeeds"
)]
pub struct CircuitOpen {
    /// The last failure.
    #[source]
    pub error: Box<Error>,
    /// Transient failures in a row.
    pub failures: u32,
}

/// What became of a probe.
#[derive(Clone, Copy)]
pub(super) enum ProbeEnd {
    /// It took no turn.
    Unsent,
    /// What it needs to be sent could not be had: an issuer's metadata, for example.
    FailedUnsent,
    /// It was sent, and says whether the endpoint works.
    Answered,
    /// It was to be sent at this time, and says nothing of the endpoint: it took no turn.
    Useless(Instant),
}

/// What the circuit lets through.
pub(super) enum Passage {
    /// Every request.
    Closed,
    /// One request, which is the probe.
    Probe,
    /// None before this time.
    Blocked(Instant),
}

impl Circuit {
    pub(super) fn passage(&self, now: Instant) -> Passage {
        match self.next_probe() {
            _ if !self.is_open() => Passage::Closed,
            Some(at) if at > now => Passage::Blocked(at),
            _ => Passage::Probe,
        }
    }

    fn next_probe(&self) -> Option<Instant> {
        let [first, longest] = PROBE_WAITS;
        let doublings = self.failures.saturating_sub(FAILURES_TO_OPEN).min(8);
        let pause = if self.in_flight > 0 { longest } else { (first * (1 << doublings)).min(longest) };
        let after_last = self.probed_at.or(self.opened_at).map(|at| at + pause);
        after_last.max(self.preparing.map(|since| since + longest))
    }

    pub(super) fn open(&self) -> Option<CircuitOpen> {
        let error = self.last.clone().filter(|_| self.is_open())?;
        Some(CircuitOpen { error: Box::new(error), failures: self.failures })
    }

    /// Whether it may be forgotten: no request has failed for long.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.preparing.is_none()
            && self.in_flight == 0
            && self.failed_at.is_none_or(|at| now.saturating_duration_since(at) >= KEPT)
    }

    pub(super) fn prepare_probe(&mut self, now: Instant) {
        self.preparing = Some(now);
    }

    pub(super) fn probe_sent(&mut self, now: Instant) {
        self.preparing = None;
        self.in_flight += 1;
        self.probed_before = self.probed_at.replace(now);
    }

    pub(super) fn probe_ended(&mut self, end: ProbeEnd) {
        match end {
            ProbeEnd::Unsent => self.preparing = None,
            ProbeEnd::FailedUnsent => self.probed_at = self.preparing.take(),
            ProbeEnd::Answered => self.in_flight = self.in_flight.saturating_sub(1),
            ProbeEnd::Useless(at) => {
                self.in_flight = self.in_flight.saturating_sub(1);
                if self.probed_at == Some(at) {
                    self.probed_at = self.probed_before;
                }
            }
        }
    }

    /// A request failed for a moment.
    pub(super) fn failed(&mut self, client: Option<Identity>, error: &Error, now: Instant) {
        let was_open = self.is_open();
        self.failures = self.failures.saturating_add(1);
        if let Some(client) = client
            && self.clients.len() < 2
            && !self.clients.contains(&client)
        {
            self.clients.push(client);
        }
        self.last = Some(error.clone());
        self.failed_at = Some(now);
        if !was_open && self.is_open() {
            self.opened_at = Some(now);
        }
    }

    /// The endpoint answered, whatever it said.
    pub(super) fn answered(&mut self) {
        let Circuit { preparing, in_flight, .. } = *self;
        *self = Circuit { preparing, in_flight, ..Circuit::default() };
    }

    fn is_open(&self) -> bool {
        self.failures >= FAILURES_TO_OPEN && self.clients.len() >= 2
    }
}
