//! When a status is written. An outage of an issuer that many TokenSources share must not become one of the API server: what
//! they all would report at once is spread, and what repeats itself is left out.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The status patches a second that report problems.
const PER_SECOND: u32 = 50;
/// The patches beyond that rate after a quiet time.
const BURST: u32 = 100;
/// The longest time for which numbers of failed attempts are not reported.
const MAX_SILENCE: Duration = Duration::from_secs(5 * 60);
/// The longest time that any other report waits.
const MAX_WAIT: Duration = MAX_SILENCE;
/// The longest time that a report waits by which Ready turns False: people and programs act on it.
const MAX_WAIT_NOT_READY: Duration = Duration::from_secs(60);
/// Waits from this length on are reported each: they are rare, and the next process continues them.
const LONG_WAIT: Duration = Duration::from_secs(2 * 60);

/// The rate of reports about problems, of all TokenSources together.
#[derive(Debug, Default)]
pub(super) struct ReportRate(Arc<Mutex<Line>>);

/// The places for reports.
#[derive(Debug, Default)]
struct Line {
    /// The place behind the last one.
    next: Option<Instant>,
    /// Places that were given back.
    free: BinaryHeap<Reverse<Instant>>,
}

impl ReportRate {
    /// A place for one report, which waits for `longest` at most: where the line is longer than that, another one begins
    /// beside it.
    fn reserve(&self, longest: Duration, now: Instant) -> Place {
        let each = Duration::from_secs(1) / PER_SECOND;
        let mut line = lock(&self.0);
        while line.free.peek().is_some_and(|free| free.0 <= now) {
            line.free.pop();
        }
        let earliest = now.checked_sub(each * BURST).unwrap_or(now);
        let next = line.next.map_or(earliest, |next| next.max(earliest));
        let latest = now + longest;
        let at = if line.free.peek().is_some_and(|free| free.0 <= next.min(latest)) {
            line.free.pop().map_or(next, |free| free.0)
        } else {
            let at = if next > latest { now } else { next };
            line.next = Some(at + each);
            at
        };
        Place { at: at.max(now), line: Arc::clone(&self.0) }
    }
}

/// A place for one report. It is given back when it is dropped, which means nothing where its time has come.
#[derive(Debug)]
struct Place {
    /// When the report may be written.
    at: Instant,
    line: Arc<Mutex<Line>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.line).free.push(Reverse(self.at));
    }
}

fn lock(line: &Mutex<Line>) -> MutexGuard<'_, Line> {
    // Every change is complete before anything can panic.
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The reports of one TokenSource about what prevents its token.
#[derive(Debug, Default)]
pub struct ReportTimes {
    written_at: Option<Instant>,
    /// The place of a report for which there was no room.
    reserved: Option<Place>,
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
    /// When to write a report of a problem; `repeated`: it only repeats what these attempts are about; `ends_ready`: by it
    /// Ready turns False.
    pub(super) fn due(
        &mut self,
        repeated: Option<Attempts>,
        ends_ready: bool,
        rate: &ReportRate,
        now: Instant,
    ) -> Due {
        if repeated.is_some_and(|attempts| !self.numbers_are_due(attempts, now)) {
            self.nothing_is_due();
            return Due::Never;
        }
        let longest = if ends_ready { MAX_WAIT_NOT_READY } else { MAX_WAIT };
        drop(self.reserved.take_if(|place| place.at > now + longest));
        let at = self.reserved.get_or_insert_with(|| rate.reserve(longest, now)).at;
        if at <= now {
            self.reserved = None;
            Due::Now
        } else {
            Due::In(at - now)
        }
    }

    /// There is nothing to report. A later report needs a place of its own: this one may have passed by then.
    pub(super) fn nothing_is_due(&mut self) {
        self.reserved = None;
    }

    #[cfg(test)]
    pub(super) fn is_waiting(&self) -> bool {
        self.reserved.is_some()
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
    use std::collections::BTreeSet;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn reports_of_an_outage_are_spread_and_each_is_written_once() {
        let (rate, start) = (ReportRate::default(), Instant::now());
        let mut all: Vec<ReportTimes> = (0..10_000).map(|_| ReportTimes::default()).collect();
        let mut written = vec![0_u32; 300];
        let mut due: BTreeSet<(Instant, usize)> = (0..all.len()).map(|at| (start, at)).collect();
        while let Some((now, at)) = due.pop_first() {
            match all[at].due(None, false, &rate, now) {
                Due::Now => written[usize::try_from((now - start).as_secs()).unwrap()] += 1,
                Due::In(wait) => assert!(due.insert((now + wait, at))),
                Due::Never => panic!("it is news"),
            }
        }
        assert_eq!(written.iter().sum::<u32>(), 10_000);
        assert!(written[0] <= BURST + PER_SECOND + 1 && written[1..].iter().all(|it| *it <= PER_SECOND + 1));
        assert!(written[190] > 0, "{written:?}");
    }

    /// Ten thousand tokens of 300 s, whose refresh fails once and then works.
    #[tokio::test(start_paused = true)]
    async fn places_of_failures_that_pass_before_their_report_are_given_back() {
        let (rate, start) = (ReportRate::default(), Instant::now());
        let mut all: Vec<ReportTimes> = (0..10_000).map(|_| ReportTimes::default()).collect();
        let at = |n: usize| start + Duration::from_millis(15) * u32::try_from(n).unwrap();
        for n in 0..40_000 {
            if n >= 700 {
                all[(n - 700) % 10_000] = ReportTimes::default();
            }
            all[n % 10_000].due(None, false, &rate, at(n));
        }
        let due = ReportTimes::default().due(None, false, &rate, at(40_000));
        assert!(matches!(due, Due::In(wait) if wait < Duration::from_secs(15)), "{due:?}");
        assert!(lock(&rate.0).free.len() < 1000);
    }

    #[tokio::test(start_paused = true)]
    async fn place_is_given_back_where_there_is_nothing_to_report() {
        let (rate, now) = (ReportRate::default(), Instant::now());
        while rate.reserve(MAX_WAIT, now).at <= now {}
        let mut times = ReportTimes::default();
        let Due::In(wait) = times.due(None, false, &rate, now) else { panic!("no room") };
        times.nothing_is_due();
        assert_eq!(rate.reserve(MAX_WAIT, now).at, now + wait);
        let later = now + wait + Duration::from_secs(1);
        let places: Vec<Place> = (0..1000).map(|_| rate.reserve(MAX_WAIT, later)).collect();
        assert!(places.last().unwrap().at > later);
        assert_ne!(times.due(None, false, &rate, later), Due::Now, "it has no place of its own any more");
    }

    #[tokio::test(start_paused = true)]
    async fn report_waits_for_minutes_at_most_and_one_that_ends_ready_for_one() {
        let (rate, now) = (ReportRate::default(), Instant::now());
        let mut all: Vec<ReportTimes> = (0..40_000).map(|_| ReportTimes::default()).collect();
        let mut last_second = 0;
        for times in &mut all {
            match times.due(None, false, &rate, now) {
                Due::In(wait) if wait > MAX_WAIT - Duration::from_secs(1) => last_second += 1,
                due => assert!(due != Due::Never),
            }
            let at = times.reserved.as_ref().map_or(now, |place| place.at);
            assert!(at <= now + MAX_WAIT);
        }
        assert!(last_second <= 3 * PER_SECOND, "{last_second}: no flood at the end");
        for times in [&mut all[14_000], &mut ReportTimes::default()] {
            let due = times.due(None, true, &rate, now);
            assert!(matches!(due, Due::In(wait) if wait <= MAX_WAIT_NOT_READY) || due == Due::Now, "{due:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn report_of_numbers_alone_is_rare_unless_the_wait_is_long() {
        let (rate, now) = (ReportRate::default(), Instant::now());
        let mut times = ReportTimes::default();
        times.written(now);
        let mut due = |count, seconds, later| {
            let attempts = Attempts { count, wait: Duration::from_secs(seconds) };
            times.due(Some(attempts), false, &rate, now + Duration::from_secs(later))
        };
        assert_eq!(due(2, 30, 1), Due::Now);
        assert_eq!([due(3, 30, 1), due(6, 60, 299)], [Due::Never; 2]);
        assert_eq!([due(3, 600, 1), due(6, 60, 300)], [Due::Now; 2]);
    }
}
