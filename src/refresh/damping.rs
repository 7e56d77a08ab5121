#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! How often the changes of others lead to token requests: the first after a quiet time at once, then at least an interval
//! apart, which doubles while they come faster than that. Times are monotonic, because a wall clock can be set.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

/// The longest interval.
const MAX_INTERVAL: Duration = Duration::from_secs(10 * 60);
/// The time without a change and without a token request after which all is forgotten.
const QUIET: Duration = Duration::from_secs(10 * 60);

/// What others have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The target: it is restored.
    Target,
    /// The credentials.
    Credentials,
    /// The annotation that requests a refresh.
    Request,
    /// The spec.
    Spec,
}

/// The damping of one TokenSource, for each cause that there was: few have any.
#[derive(Debug, Default)]
pub struct Dampings {
    /// When the token is refreshed that was written last, also where it is not in the target any more.
    pub refresh_at: Option<Timestamp>,
    target: Option<Box<Damping>>,
    credentials: Option<Box<Damping>>,
    request: Option<Box<Damping>>,
    spec: Option<Box<Damping>>,
}

impl Dampings {
    /// The damping of a cause.
    pub fn of(&mut self, cause: Cause) -> &mut Damping {
        let damping = match cause {
            Cause::Target => &mut self.target,
            Cause::Credentials => &mut self.credentials,
            Cause::Request => &mut self.request,
            Cause::Spec => &mut self.spec,
        };
        damping.get_or_insert_default()
    }

    /// Drops what a quiet time has ended. Returns whether nothing is left.
    pub fn forget_quiet(&mut self, now: Instant) -> bool {
        let all = [&mut self.target, &mut self.credentials, &mut self.request, &mut self.spec];
        all.into_iter().fold(true, |nothing_left, damping| {
            damping.take_if(|damping| damping.is_quiet(now));
            nothing_left && damping.is_none()
        })
    }
}

/// The damping of one cause.
#[derive(Debug, Default)]
pub struct Damping {
    /// When a change last led to a token request.
    requested_at: Option<Instant>,
    /// The least time until the next one.
    interval: Duration,
    /// When the last change came.
    changed_at: Option<Instant>,
    /// A digest of it, while it waits.
    change: Option<u64>,
    /// Since the last token request, two changes came faster than `least`.
    is_crowded: bool,
    /// The longest `least` so far. It may be longer than [`QUIET`].
    least: Duration,
}

impl Damping {
    /// The time before which `change`, a digest of what it leads to, is not to cause a token request; `None`: now. `least` is
    /// the shortest interval, and the longest one where the refresh `is_overdue`.
    pub fn holds(&mut self, change: u64, least: Duration, is_overdue: bool, now: Instant) -> Option<Instant> {
        self.least = self.least.max(least);
        if self.change != Some(change) {
            if self.is_quiet(now) {
                *self = Damping { least, ..Damping::default() };
            }
            let apart = self.changed_at.map(|at| now.saturating_duration_since(at));
            self.is_crowded |= apart.is_some_and(|apart| apart < least);
            self.change = Some(change);
            self.changed_at = Some(now);
        }
        let until = self.requested_at? + if is_overdue { least } else { self.interval.max(least) };
        (now < until).then_some(until)
    }

    fn is_quiet(&self, now: Instant) -> bool {
        let last = self.changed_at.max(self.requested_at);
        last.is_none_or(|last| now.saturating_duration_since(last) >= QUIET.max(self.least))
    }

    /// The change leads to a token request now.
    pub fn requested(&mut self, least: Duration, now: Instant) {
        let interval = if self.is_crowded { self.interval.max(least) * 2 } else { self.interval / 2 };
        self.interval = interval.clamp(least, MAX_INTERVAL.max(least));
        self.requested_at = Some(now);
        self.change = None;
        self.is_crowded = false;
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "an Instant has no other constructor")]
mod tests {
    use super::*;

    const LEAST: Duration = Duration::from_secs(30);

    /// The seconds at which changes that come at these seconds lead to token requests.
    fn requests(changes: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let (mut damping, start) = (Damping::default(), Instant::now());
        let (mut requests, mut pending) = (vec![], None::<(u64, u64)>);
        let mut changes = changes.into_iter().peekable();
        for second in 0..20_000 {
            while let Some(change) = changes.next_if(|change| *change <= second) {
                pending = Some((change, second));
            }
            let now = start + Duration::from_secs(second);
            if let Some((change, _)) = pending
                && damping.holds(change, LEAST, false, now).is_none()
            {
                damping.requested(LEAST, now);
                requests.push(second);
                pending = None;
            }
        }
        requests
    }

    #[test]
    fn damping_first_change_acts_at_once_and_a_flood_less_and_less_often() {
        assert_eq!(requests(0..30), [0, 30], "the last one wins");
        assert_eq!(requests(0..2000), [0, 30, 90, 210, 450, 930, 1530, 2130]);
    }

    #[test]
    fn damping_changes_that_are_30_s_apart_never_escalate() {
        let chain: Vec<u64> = (0..100).map(|n| n * 30).collect();
        assert_eq!(requests(chain.clone()), chain);
    }

    #[test]
    fn dampings_keep_nothing_of_causes_that_are_quiet() {
        let (mut dampings, start) = (Dampings::default(), Instant::now());
        dampings.of(Cause::Spec).requested(LEAST, start);
        assert!(!dampings.forget_quiet(start + QUIET - LEAST) && dampings.spec.is_some());
        assert!(dampings.forget_quiet(start + QUIET) && dampings.spec.is_none());
    }

    #[test]
    fn damping_whose_shortest_interval_is_an_hour_outlasts_a_quiet_time() {
        let (mut dampings, start) = (Dampings::default(), Instant::now());
        let (hour, later) = (Duration::from_secs(3600), start + 2 * QUIET);
        assert_eq!(dampings.of(Cause::Request).holds(0, hour, false, start), None);
        dampings.of(Cause::Request).requested(LEAST, start);
        assert!(!dampings.forget_quiet(later));
        assert_eq!(dampings.of(Cause::Request).holds(1, hour, false, later), Some(start + hour));
        assert!(dampings.forget_quiet(later + hour));
    }

    #[test]
    fn damping_of_an_overdue_refresh_is_the_shortest_interval() {
        let (mut damping, start) = (Damping::default(), Instant::now());
        for change in 0..9 {
            damping.holds(change, LEAST, false, start + Duration::from_secs(change));
            damping.requested(LEAST, start + Duration::from_secs(change));
        }
        let after = |until: Option<Instant>| until.map(|until| (until - start).as_secs());
        let now = start + Duration::from_secs(9);
        assert_eq!(after(damping.holds(9, LEAST, false, now)), Some(8 + 600));
        assert_eq!(after(damping.holds(9, LEAST, true, now)), Some(8 + 30));
    }

    #[test]
    fn damping_is_forgotten_after_ten_quiet_minutes_and_calms_down_before() {
        let after = |quiet: u64| requests((0..200).chain([449 + 1 + quiet, 449 + 1 + quiet + 5]));
        assert_eq!(requests(0..200), [0, 30, 90, 210]);
        assert_eq!(after(600)[4..], [1050, 1080], "as in the beginning");
        assert_eq!(after(200)[4..], [650, 770], "the interval of 240 s had passed, and is halved");
    }
}
