#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! What time it is, if the wall clock cannot be trusted. Pure.
//!
//! Every clock is compared by its *origin*: what it showed, or would have shown, when the process started. The origin of a
//! clock that runs evenly never changes.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::moment::Moment;

/// Clocks that differ by no more than this agree. Between two agreeing clocks lie the whole second of `Date` and half of the
/// time that the response took.
const AGREEMENT: SignedDuration = SignedDuration::from_secs(5);
/// The `Date` of a response that took longer shows too little.
const MAX_RESPONSE_TIME: Duration = Duration::from_secs(4);
/// A difference from the API server's clock that people should know of.
pub const NOTABLE_DIFFERENCE: SignedDuration = SignedDuration::from_secs(30);
/// So many responses in a row must show a notable difference: one may come from another server.
const CONFIRMATIONS: u8 = 2;
/// 2026-01-01 to 2100-01-01. This program is not older, so an earlier time is wrong.
const PLAUSIBLE: std::ops::Range<i64> = 1_767_225_600..4_102_444_800;

/// What has happened to the clocks since this was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The wall clock was set, by so many seconds in total.
    pub stepped: Option<i64>,
    /// The machine was suspended for so many seconds.
    pub slept: u64,
    /// The corrected time was set by so many seconds, because wall clock and API server agree on it.
    pub corrected: i64,
}

impl Changes {
    /// Whether anything has happened.
    #[must_use]
    pub fn any(self) -> bool {
        self != Changes::default()
    }
}

/// What the wall clock is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing speaks against it.
    Trusted,
    /// It differs notably from the API server's.
    Doubtful,
    /// It shows a time before 2026 or after 2099.
    Implausible,
}

/// The corrected time, from the clocks of this machine and the API server's `Date`.
#[derive(Debug)]
pub(super) struct Correction {
    /// Of the corrected time.
    origin: Timestamp,
    /// By how many seconds the corrected time was set in total.
    corrected: i64,
    /// The same, where it was set back.
    rewound: u64,
    /// Of the wall clock, when it was last compared.
    wall: Timestamp,
    slept: Duration,
    /// Of the API server's clock, and the uptime at which it was last heard.
    server: Option<(Timestamp, Duration)>,
    /// So many responses in a row showed a notable difference.
    notable: u8,
    changes: Changes,
}

impl Correction {
    /// At the start there is nothing but the wall clock.
    pub(super) fn new(now: Moment) -> Self {
        let wall = origin(now.wall, now.uptime());
        Correction {
            origin: wall,
            corrected: 0,
            rewound: 0,
            wall,
            slept: now.slept,
            server: None,
            notable: 0,
            changes: Changes::default(),
        }
    }

    /// The corrected time.
    pub(super) fn at(&self, now: Moment) -> Timestamp {
        saturating_add(self.origin, signed(now.uptime()))
    }

    /// By how many seconds the corrected time was set back since the process started. What was dated before is as old as it
    /// was, so its dates move by as much.
    pub(super) fn rewound(&self) -> u64 {
        self.rewound
    }

    /// By how many seconds the corrected time was set since the process started.
    pub(super) fn corrected(&self) -> i64 {
        self.corrected
    }

    /// Compares the clocks. Where wall clock and corrected time disagree, the API server's clock decides: it agrees with the
    /// wall clock, which is then followed, or the wall clock was set and means nothing.
    pub(super) fn compare(&mut self, now: Moment) {
        let wall = origin(now.wall, now.uptime());
        let step = wall.duration_since(self.wall);
        self.wall = wall;
        if !is_small(step) {
            self.changes.stepped = Some(self.changes.stepped.unwrap_or(0).saturating_add(seconds(step)));
        }
        let slept = now.slept.saturating_sub(self.slept);
        self.slept = self.slept.max(now.slept);
        self.changes.slept = self.changes.slept.saturating_add(slept.as_secs());
        if !self.agrees(wall) && self.server.is_some_and(|(server, _)| is_small(server.duration_since(wall)))
        {
            self.follow(wall);
        }
    }

    /// Takes in the `Date` of a response of the API server to a request that was sent at `sent`.
    pub(super) fn server_said(&mut self, date: Timestamp, sent: Moment, now: Moment) {
        let took = now.since(sent);
        if took > MAX_RESPONSE_TIME {
            return;
        }
        // Whole seconds: half a second more, on average; and it was written half-way.
        let server = origin(date, sent.uptime() + took / 2);
        let server = saturating_add(server, SignedDuration::from_millis(500));
        let is_first = self.server.replace((server, now.uptime())).is_none();
        let wall = origin(now.wall, now.uptime());
        self.notable = match wall.duration_since(server).abs() {
            difference if difference >= NOTABLE_DIFFERENCE => self.notable.saturating_add(1),
            _ => 0,
        };
        if is_first && !self.agrees(server) && is_plausible(date) {
            // A process that starts has no age to compare with, and what others recorded is by this clock.
            self.follow(server);
        }
        self.compare(now);
    }

    /// By how many seconds the API server's clock is ahead of the wall clock.
    pub(super) fn difference(&self) -> Option<i64> {
        self.server.map(|(server, _)| seconds(server.duration_since(self.wall)))
    }

    /// Whether the API server's clock agrees with the corrected time.
    pub(super) fn server_agrees(&self) -> bool {
        self.server.is_some_and(|(server, _)| self.agrees(server))
    }

    /// Whether wall clock and corrected time disagree, and the API server was not heard for `age`.
    pub(super) fn is_open(&self, now: Moment, age: Duration) -> bool {
        let heard = self.server.is_some_and(|(_, at)| now.uptime().saturating_sub(at) < age);
        !self.agrees(origin(now.wall, now.uptime())) && !heard
    }

    pub(super) fn standing(&self, now: Moment) -> Standing {
        if !is_plausible(now.wall) {
            Standing::Implausible
        } else if self.notable >= CONFIRMATIONS {
            Standing::Doubtful
        } else {
            Standing::Trusted
        }
    }

    pub(super) fn changes(&self) -> Changes {
        self.changes
    }

    pub(super) fn take_changes(&mut self) -> Changes {
        std::mem::take(&mut self.changes)
    }

    fn agrees(&self, other: Timestamp) -> bool {
        is_small(other.duration_since(self.origin))
    }

    /// Sets the corrected time, by whole seconds.
    fn follow(&mut self, other: Timestamp) {
        let by = seconds(other.duration_since(self.origin));
        self.origin = saturating_add(self.origin, SignedDuration::from_secs(by));
        self.corrected = self.corrected.saturating_add(by);
        self.rewound = self.rewound.saturating_add(u64::try_from(by.saturating_neg()).unwrap_or(0));
        self.changes.corrected = self.changes.corrected.saturating_add(by);
    }
}

fn origin(shown: Timestamp, uptime: Duration) -> Timestamp {
    saturating_add(shown, -signed(uptime))
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

fn saturating_add(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.saturating_add(by).unwrap_or(at)
}

fn is_small(difference: SignedDuration) -> bool {
    difference.abs() <= AGREEMENT
}

/// Rounded to whole seconds.
fn seconds(difference: SignedDuration) -> i64 {
    difference.saturating_add(SignedDuration::from_millis(500 * i64::from(difference.signum()))).as_secs()
}

fn is_plausible(time: Timestamp) -> bool {
    PLAUSIBLE.contains(&time.as_second())
}

#[cfg(test)]
mod tests;
