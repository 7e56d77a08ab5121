#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! One moment, as the clocks of this machine show it. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

/// One moment, as the clocks of this machine show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// What the monotonic clock counted since the process started. It stands still while the machine is suspended.
    pub awake: Duration,
    /// For how long the machine was suspended since the process started, in whole seconds.
    pub slept: Duration,
    /// The wall clock, which may be set at any time.
    pub wall: Timestamp,
}

impl Moment {
    /// The time since the process started.
    #[must_use]
    pub fn uptime(self) -> Duration {
        self.awake.saturating_add(self.slept)
    }

    /// This moment, if all clocks continue evenly for `duration`.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let wall = SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
        Moment {
            awake: self.awake.saturating_add(duration),
            slept: self.slept,
            wall: self.wall.saturating_add(wall).unwrap_or(Timestamp::MAX),
        }
    }

    /// The time from `earlier` to this moment, by what was awake and slept.
    #[must_use]
    pub fn since(self, earlier: Moment) -> Duration {
        self.uptime().saturating_sub(earlier.uptime())
    }

    /// The time from this moment to `end`, by the clock that shows less. A virtual machine that was paused may have noticed
    /// nothing but a step of its wall clock.
    #[must_use]
    pub fn left_until(self, end: Moment) -> Duration {
        let by_wall = Duration::try_from(end.wall.duration_since(self.wall)).unwrap_or_default();
        end.since(self).min(by_wall)
    }

    /// Whether `end` has come, by any of the clocks.
    #[must_use]
    pub fn has_reached(self, end: Moment) -> bool {
        self.left_until(end).is_zero()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn moment_has_reached_an_end_by_the_clock_that_shows_more() {
        let start = Moment { wall: Timestamp::from_second(1_800_000_000).unwrap(), ..Moment::default() };
        let end = start.plus(15 * SECOND);
        assert!(!start.plus(14 * SECOND).has_reached(end) && start.plus(15 * SECOND).has_reached(end));
        let suspended = Moment { slept: 15 * SECOND, ..start };
        assert!(suspended.has_reached(end), "the monotonic clock stood still");
        let paused = Moment { wall: end.wall, ..start.plus(SECOND) };
        assert!(paused.has_reached(end), "only the wall clock was corrected after a pause");
        let set_back = Moment { wall: Timestamp::UNIX_EPOCH, ..start.plus(15 * SECOND) };
        assert!(set_back.has_reached(end), "the wall clock was set back");
        assert_eq!(Moment { wall: Timestamp::UNIX_EPOCH, ..start }.left_until(end), 15 * SECOND);
    }
}
