//! When a status is written. An outage of an issuer that many TokenSources share must not become one of the API server: what
//! they all would report at once is spread, and what repeats itself is left out.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tenant_shares::has_share;
use tokio::time::Instant;

/// The status patches a second that report problems.
const PER_SECOND: usize = 50;
/// The same, to divide a second by.
const EACH: u32 = 50;
const SECOND: Duration = Duration::from_secs(1);
/// So much of a quiet time is made up for at once.
const BURST: Duration = Duration::from_secs(2);
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

/// The places for reports, second by second.
#[derive(Debug, Default)]
struct Line {
    /// When the first of these seconds begins.
    start: Option<Instant>,
    seconds: VecDeque<Second>,
}

#[derive(Debug, Default)]
struct Second {
    /// Which places are taken, [`PER_SECOND`] in each line.
    taken: Vec<bool>,
    count: usize,
    namespaces: HashMap<Arc<str>, usize>,
}

impl ReportRate {
    /// A place for one report, which waits for `longest` at most: where the line is longer than that, another one begins
    /// beside it. Of the places of a second, a namespace has its share.
    fn reserve(&self, namespace: &Arc<str>, longest: Duration, now: Instant) -> Place {
        let mut line = lock(&self.0);
        line.move_on(now);
        let start = line.start.unwrap_or(now);
        // Those that end in time.
        let seconds = (now + longest).saturating_duration_since(start).as_secs();
        let seconds = usize::try_from(seconds).unwrap_or(usize::MAX).max(1);
        for lines in 1.. {
            let places = PER_SECOND * lines;
            for (second, begins) in (0..seconds).zip((0..).map(|n| start + SECOND * n)) {
                if line.seconds.len() <= second {
                    line.seconds.push_back(Second::default());
                }
                let Some(of) = line.seconds.get_mut(second) else { continue };
                let Some(nth) = of.take(namespace, places) else { continue };
                let within = SECOND / EACH * u32::try_from(nth % PER_SECOND).unwrap_or_default();
                let (namespace, line) = (Arc::clone(namespace), Arc::clone(&self.0));
                return Place { at: (begins + within).max(now), begins, nth, namespace, line };
            }
        }
        unreachable!("there is always room beside")
    }
}

impl Line {
    /// Forgets seconds that are over, but for those whose unused places are a burst.
    fn move_on(&mut self, now: Instant) {
        let earliest = now.checked_sub(BURST).unwrap_or(now);
        let start = self.start.get_or_insert(earliest);
        while *start + SECOND <= earliest && self.seconds.pop_front().is_some() {
            *start += SECOND;
        }
        if self.seconds.is_empty() {
            *start = earliest;
        }
    }
}

impl Second {
    fn take(&mut self, namespace: &Arc<str>, places: usize) -> Option<usize> {
        let has = self.namespaces.get(namespace).copied().unwrap_or_default();
        if !has_share(has, places.saturating_sub(self.count)) {
            return None;
        }
        if self.taken.len() < places {
            self.taken.resize(places, false);
        }
        let (nth, taken) = self.taken.iter_mut().enumerate().find(|(_, taken)| !**taken)?;
        *taken = true;
        self.count += 1;
        *self.namespaces.entry(Arc::clone(namespace)).or_default() += 1;
        Some(nth)
    }

    fn give_back(&mut self, namespace: &Arc<str>, nth: usize) {
        if let Some(taken) = self.taken.get_mut(nth) {
            *taken = false;
            self.count -= 1;
        }
        if let Some(has) = self.namespaces.get_mut(namespace) {
            *has -= 1;
        }
    }
}

/// A place for one report. It is given back when it is dropped, unless its time has come.
#[derive(Debug)]
struct Place {
    /// When the report may be written.
    at: Instant,
    /// The second, the place in it, and for whom.
    begins: Instant,
    nth: usize,
    namespace: Arc<str>,
    line: Arc<Mutex<Line>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut line = lock(&self.line);
        if let Some(start) = line.start.filter(|start| *start <= self.begins && self.at > Instant::now()) {
            let second = usize::try_from((self.begins - start).as_secs()).unwrap_or(usize::MAX);
            if let Some(second) = line.seconds.get_mut(second) {
                second.give_back(&self.namespace, self.nth);
            }
        }
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
        namespace: &Arc<str>,
        now: Instant,
    ) -> Due {
        if repeated.is_some_and(|attempts| !self.numbers_are_due(attempts, now)) {
            self.nothing_is_due();
            return Due::Never;
        }
        let longest = if ends_ready { MAX_WAIT_NOT_READY } else { MAX_WAIT };
        drop(self.reserved.take_if(|place| place.at > now + longest));
        let at = self.reserved.get_or_insert_with(|| rate.reserve(namespace, longest, now)).at;
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

    fn ns() -> Arc<str> {
        "ns".into()
    }

    #[tokio::test(start_paused = true)]
    async fn reports_of_an_outage_are_spread_and_each_is_written_once() {
        let (rate, start) = (ReportRate::default(), Instant::now());
        let mut all: Vec<ReportTimes> = (0..10_000).map(|_| ReportTimes::default()).collect();
        let mut written = vec![0_u32; 300];
        let mut due: BTreeSet<(Instant, usize)> = (0..all.len()).map(|at| (start, at)).collect();
        while let Some((now, at)) = due.pop_first() {
            match all[at].due(None, false, &rate, &ns(), now) {
                Due::Now => written[usize::try_from((now - start).as_secs()).unwrap()] += 1,
                Due::In(wait) => assert!(due.insert((now + wait, at))),
                Due::Never => panic!("it is news"),
            }
        }
        assert_eq!(written.iter().sum::<u32>(), 10_000);
        assert!(written[0] <= 151 && written[1..].iter().all(|it| *it <= 51));
        assert!(written[190] > 0, "{written:?}");
    }

    /// Ten thousand tokens of 300 s, whose refresh fails once and then works.
    #[tokio::test(start_paused = true)]
    async fn places_of_failures_that_pass_before_their_report_are_given_back() {
        let rate = ReportRate::default();
        let mut all: Vec<ReportTimes> = (0..10_000).map(|_| ReportTimes::default()).collect();
        for n in 0..40_000 {
            tokio::time::advance(Duration::from_millis(15)).await;
            if n >= 700 {
                all[(n - 700) % 10_000] = ReportTimes::default();
            }
            all[n % 10_000].due(None, false, &rate, &ns(), Instant::now());
        }
        let due = ReportTimes::default().due(None, false, &rate, &ns(), Instant::now());
        assert!(matches!(due, Due::In(wait) if wait < Duration::from_secs(15)), "{due:?}");
        assert!(lock(&rate.0).seconds.len() <= 304);
    }

    #[tokio::test(start_paused = true)]
    async fn place_is_given_back_where_there_is_nothing_to_report() {
        let (rate, now) = (ReportRate::default(), Instant::now());
        while rate.reserve(&ns(), MAX_WAIT, now).at <= now {}
        let mut times = ReportTimes::default();
        let Due::In(wait) = times.due(None, false, &rate, &ns(), now) else { panic!("no room") };
        times.nothing_is_due();
        assert_eq!(rate.reserve(&ns(), MAX_WAIT, now).at, now + wait);
        let later = now + wait + Duration::from_secs(1);
        let places: Vec<Place> = (0..1000).map(|_| rate.reserve(&ns(), MAX_WAIT, later)).collect();
        assert!(places.last().unwrap().at > later);
        assert_ne!(
            times.due(None, false, &rate, &ns(), later),
            Due::Now,
            "it has no place of its own any more"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn report_waits_for_minutes_at_most_and_one_that_ends_ready_for_one() {
        let (rate, now) = (ReportRate::default(), Instant::now());
        let mut all: Vec<ReportTimes> = (0..40_000).map(|_| ReportTimes::default()).collect();
        let mut last_second = 0;
        for times in &mut all {
            match times.due(None, false, &rate, &ns(), now) {
                Due::In(wait) if wait > MAX_WAIT - Duration::from_secs(1) => last_second += 1,
                due => assert!(due != Due::Never),
            }
            let at = times.reserved.as_ref().map_or(now, |place| place.at);
            assert!(at <= now + MAX_WAIT);
        }
        assert!(last_second <= 150, "{last_second}: no flood at the end");
        for times in [&mut all[14_000], &mut ReportTimes::default()] {
            let due = times.due(None, true, &rate, &ns(), now);
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
            times.due(Some(attempts), false, &rate, &ns(), now + Duration::from_secs(later))
        };
        assert_eq!(due(2, 30, 1), Due::Now);
        assert_eq!([due(3, 30, 1), due(6, 60, 299)], [Due::Never; 2]);
        assert_eq!([due(3, 600, 1), due(6, 60, 300)], [Due::Now; 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn reports_of_a_crowd_leave_places_to_other_namespaces() {
        let (rate, now) = (ReportRate::default(), Instant::now());
        let mut crowd: Vec<ReportTimes> = (0..10_000).map(|_| ReportTimes::default()).collect();
        for times in &mut crowd {
            times.due(None, false, &rate, &"crowd".into(), now);
        }
        for n in 0..20 {
            let due = ReportTimes::default().due(None, false, &rate, &"other".into(), now);
            assert!(due == Due::Now || matches!(due, Due::In(wait) if wait <= SECOND), "{n}: {due:?}");
        }
    }
}
