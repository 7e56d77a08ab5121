//! When a status is written. An outage of an issuer that many TokenSources share must not become one of the API server: what
//! they all would report at once is spread, and what repeats itself is left out.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The status patches a second that report problems.
const PER_SECOND: u32 = 50;
/// The patches beyond that rate after a quiet time.
const BURST: u32 = 100;
/// The longest time for which numbers of failed attempts are not reported.
const MAX_SILENCE: Duration = Duration::from_secs(5 * 60);
/// Waits from this length on are reported each: they are rare, and the next process continues them.
const LONG_WAIT: Duration = Duration::from_secs(2 * 60);

/// The rate of reports about problems, of all TokenSources together.
#[derive(Debug, Default)]
pub(super) struct ReportRate {
    /// When the next report is due, if all before it are made.
    next: Mutex<Option<Instant>>,
}

impl ReportRate {
    /// A place for one report: the time at which it may be written.
    fn reserve(&self, now: Instant) -> Instant {
        let each = Duration::from_secs(1) / PER_SECOND;
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let earliest = now.checked_sub(each * BURST).unwrap_or(now);
        let place = next.map_or(earliest, |next| next.max(earliest));
        *next = Some(place + each);
        place.max(now)
    }
}

/// The reports of one TokenSource about what prevents its token.
#[derive(Debug, Default)]
pub struct ReportTimes {
    written_at: Option<Instant>,
    /// When a report may be written for which there was no room.
    reserved: Option<Instant>,
}

/// What a report is about that only repeats a failure.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Attempts {
    pub(super) count: u32,
    /// The time until the next one.
    pub(super) wait: Duration,
}

/// When to write a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Now,
    In(Duration),
    /// It says nothing that has to be said.
    Never,
}

impl ReportTimes {
    /// When to write a report of a problem; `repeated`: it only repeats what these attempts are about.
    pub(super) fn due(&mut self, repeated: Option<Attempts>, rate: &ReportRate, now: Instant) -> Due {
        if repeated.is_some_and(|attempts| !self.numbers_are_due(attempts, now)) {
            self.reserved = None;
            return Due::Never;
        }
        let place = *self.reserved.get_or_insert_with(|| rate.reserve(now));
        if place <= now {
            self.reserved = None;
            Due::Now
        } else {
            Due::In(place - now)
        }
    }

    /// A report was written.
    pub(super) fn written(&mut self, now: Instant) {
        self.written_at = Some(now);
    }

    fn numbers_are_due(&self, attempts: Attempts, now: Instant) -> bool {
        attempts.count.is_power_of_two()
            || attempts.wait >= LONG_WAIT
            || self.written_at.is_none_or(|at| now.saturating_duration_since(at) >= MAX_SILENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn reports_of_an_outage_are_spread_and_each_is_written_once() {
        let (rate, start) = (ReportRate::default(), Instant::now());
        let mut all: Vec<ReportTimes> = (0..10_000).map(|_| ReportTimes::default()).collect();
        let mut written = vec![0_u32; 300];
        let mut due: Vec<(Instant, usize)> = (0..all.len()).map(|at| (start, at)).collect();
        while let Some((now, at)) = due.pop() {
            match all[at].due(None, &rate, now) {
                Due::Now => written[usize::try_from((now - start).as_secs()).unwrap()] += 1,
                Due::In(wait) => due.push((now + wait, at)),
                Due::Never => panic!("it is news"),
            }
        }
        assert_eq!(written.iter().sum::<u32>(), 10_000);
        assert!(written[0] <= BURST + PER_SECOND + 1 && written[1..].iter().all(|it| *it <= PER_SECOND + 1));
        assert!(written[190] > 0, "{written:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn report_of_numbers_alone_is_rare_unless_the_wait_is_long() {
        let (rate, now) = (ReportRate::default(), Instant::now());
        let mut times = ReportTimes::default();
        times.written(now);
        let mut due = |count, seconds, later| {
            let attempts = Attempts { count, wait: Duration::from_secs(seconds) };
            times.due(Some(attempts), &rate, now + Duration::from_secs(later))
        };
        assert_eq!(due(2, 30, 1), Due::Now);
        assert_eq!([due(3, 30, 1), due(6, 60, 299)], [Due::Never; 2]);
        assert_eq!([due(3, 600, 1), due(6, 60, 300)], [Due::Now; 2]);
    }
}
