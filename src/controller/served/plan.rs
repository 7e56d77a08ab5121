//! When which namespace is read next, and from when on an answer is believed.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::controller::cache::bindings::Access;

/// Of the interval between two reads of a namespace, so much: 10 of 60 s. A refusal is believed after a second one this much later:
/// an API server that starts may refuse before it has read its roles.
const DOUBT: u32 = 6;
/// Likewise the wait after the second refusal, and after a failure: 5 of 60 s. It doubles, up to the interval.
const MIN_WAIT: u32 = 12;

/// What a read of a namespace has shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// Its Secrets may be read.
    Granted,
    /// 403: they may not.
    Refused,
    /// The API server has not answered as expected, which says nothing of rights.
    Failed,
}

/// The namespaces that are read in turn.
#[derive(Debug)]
pub(super) struct Plan {
    interval: Duration,
    due: BTreeSet<(Instant, Arc<str>)>,
    standings: HashMap<Arc<str>, Standing>,
}

#[derive(Debug, Default)]
struct Standing {
    /// `None` while it is read.
    due: Option<Instant>,
    answered_at: Option<Instant>,
    /// Whether it was read before.
    was_granted: bool,
    /// Refusals in a row.
    refusals: u32,
    /// Failures in a row.
    failures: u32,
}

impl Plan {
    /// Each namespace is read once in an `interval`.
    pub(super) fn new(interval: Duration) -> Self {
        Plan { interval, due: BTreeSet::new(), standings: HashMap::new() }
    }

    /// Has a namespace read at `due` at the latest. One that is being read, or about to be read in doubt, stays as it is, and one
    /// that was just read waits for some seconds: tenants can cause this.
    pub(super) fn ask(&mut self, namespace: &Arc<str>, due: Instant) {
        let due = match self.standings.get(namespace) {
            None => {
                self.standings.insert(Arc::clone(namespace), Standing::default());
                due
            }
            Some(Standing { due: Some(planned), refusals, answered_at, .. }) if *refusals != 1 => {
                let earliest = answered_at.map_or(due, |at| due.max(at + self.interval / MIN_WAIT));
                earliest.min(*planned)
            }
            Some(_) => return,
        };
        self.unplan(namespace);
        self.plan(namespace, due);
    }

    /// A namespace is read no more.
    pub(super) fn forget(&mut self, namespace: &Arc<str>) {
        self.unplan(namespace);
        self.standings.remove(namespace);
    }

    /// A namespace that is due. It is being read until [`Self::answered`] or [`Self::forget`] is called.
    pub(super) fn next(&mut self, now: Instant) -> Option<Arc<str>> {
        let (due, namespace) = self.due.first()?;
        if *due > now {
            return None;
        }
        let namespace = Arc::clone(namespace);
        self.unplan(&namespace);
        Some(namespace)
    }

    /// When a namespace is due next.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// A namespace was read. Returns what is believed of it from now on, where the answer decides that.
    pub(super) fn answered(&mut self, namespace: &Arc<str>, answer: Answer, now: Instant) -> Option<Access> {
        let interval = self.interval;
        let standing = self.standings.get_mut(namespace)?;
        standing.answered_at = Some(now);
        let doubled = |times: u32| (interval / MIN_WAIT).saturating_mul(1 << times.min(8)).min(interval);
        let (wait, access) = match answer {
            Answer::Granted => {
                let is_first = !std::mem::replace(&mut standing.was_granted, true);
                (standing.refusals, standing.failures) = (0, 0);
                (if is_first { spread(namespace, interval) } else { interval }, Some(Access::Granted))
            }
            Answer::Refused => {
                (standing.refusals, standing.failures) = (standing.refusals.saturating_add(1), 0);
                match standing.refusals {
                    1 => (interval / DOUBT, None),
                    more => (doubled(more - 2), Some(Access::Refused)),
                }
            }
            Answer::Failed => {
                standing.failures = standing.failures.saturating_add(1);
                (doubled(standing.failures - 1), None)
            }
        };
        self.plan(namespace, now + wait);
        access
    }

    /// Whether the last read of a namespace was the first in a row that failed.
    pub(super) fn began_to_fail(&self, namespace: &str) -> bool {
        self.standings.get(namespace).is_some_and(|standing| standing.failures == 1)
    }

    fn plan(&mut self, namespace: &Arc<str>, due: Instant) {
        if let Some(standing) = self.standings.get_mut(namespace) {
            standing.due = Some(due);
            self.due.insert((due, Arc::clone(namespace)));
        }
    }

    fn unplan(&mut self, namespace: &Arc<str>) {
        if let Some(due) = self.standings.get_mut(namespace).and_then(|standing| standing.due.take()) {
            self.due.remove(&(due, Arc::clone(namespace)));
        }
    }
}

/// The wait after the first list: those that were listed together are apart from then on.
fn spread(namespace: &str, interval: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    namespace.hash(&mut hasher);
    interval.mul_f64(0.5 + (hasher.finish() % 1000) as f64 / 2000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    /// The waits after these answers to a namespace, in seconds, and what is believed after each.
    fn waits(answers: &[Answer]) -> Vec<(u64, Option<Access>)> {
        let (mut plan, namespace, mut now) = (Plan::new(seconds(60)), Arc::from("a"), Instant::now());
        plan.ask(&namespace, now);
        let answered = answers.iter().map(|answer| {
            assert_eq!(plan.next(now).as_ref(), Some(&namespace));
            assert_eq!(plan.next(now), None, "it is being read");
            let access = plan.answered(&namespace, *answer, now);
            let wait = plan.next_due().unwrap() - now;
            now += wait;
            (wait.as_secs(), access)
        });
        answered.collect()
    }

    #[test]
    fn plan_believes_a_second_refusal_ten_seconds_after_the_first() {
        let refused = Some(Access::Refused);
        let expected = [
            (10, None),
            (5, refused),
            (10, refused),
            (20, refused),
            (40, refused),
            (60, refused),
            (60, refused),
        ];
        assert_eq!(waits(&[Answer::Refused; 7]), expected);
        let granted = waits(&[Answer::Refused, Answer::Granted, Answer::Refused]);
        assert_eq!((granted[0], granted[1].1, granted[2]), ((10, None), Some(Access::Granted), (10, None)));
    }

    #[test]
    fn plan_believes_nothing_by_failures() {
        assert_eq!(waits(&[Answer::Failed; 5]), [(5, None), (10, None), (20, None), (40, None), (60, None)]);
        let between = waits(&[Answer::Refused, Answer::Failed, Answer::Refused]);
        assert_eq!(between[2].1, Some(Access::Refused), "a failure between two refusals takes nothing back");
    }

    #[test]
    fn plan_spreads_namespaces_over_the_interval_after_their_first_list() {
        let (mut plan, now) = (Plan::new(seconds(60)), Instant::now());
        let names: Vec<Arc<str>> = (0..100).map(|number| format!("team-{number}").into()).collect();
        for name in &names {
            plan.ask(name, now);
            assert!(plan.next(now).is_some());
            assert_eq!(plan.answered(name, Answer::Granted, now), Some(Access::Granted));
        }
        let within = |from: u64, to: u64| {
            let range = now + seconds(from)..now + seconds(to);
            plan.due.iter().filter(|(due, _)| range.contains(due)).count()
        };
        assert_eq!(within(30, 60), 100);
        let buckets: Vec<_> = (30..60).step_by(10).map(|from| within(from, from + 10)).collect();
        assert!(buckets.iter().all(|count| (15..55).contains(count)), "{buckets:?}");
        let first = plan.next(now + seconds(60)).unwrap();
        plan.answered(&first, Answer::Granted, now + seconds(60));
        assert_eq!(plan.standings[&first].due, Some(now + seconds(120)), "then once a minute");
    }

    #[test]
    fn plan_reads_a_namespace_soon_when_asked_and_never_when_forgotten() {
        let (mut plan, namespace, now) = (Plan::new(seconds(60)), Arc::from("a"), Instant::now());
        plan.ask(&namespace, now);
        assert!(plan.next(now).is_some());
        plan.ask(&namespace, now);
        assert_eq!(plan.next_due(), None, "it is being read");
        plan.answered(&namespace, Answer::Granted, now);
        plan.ask(&namespace, now + seconds(1));
        assert_eq!(plan.next_due(), Some(now + seconds(5)), "it was just read");
        plan.ask(&namespace, now + seconds(7));
        assert_eq!(plan.next_due(), Some(now + seconds(5)), "it is due sooner");

        let then = now + seconds(5);
        assert!(plan.next(then).is_some());
        plan.answered(&namespace, Answer::Refused, then);
        plan.ask(&namespace, then + seconds(6));
        assert_eq!(plan.next_due(), Some(then + seconds(10)), "a second refusal counts ten seconds later");

        plan.forget(&namespace);
        assert_eq!((plan.next(now), plan.answered(&namespace, Answer::Granted, now)), (None, None));
        assert_eq!(plan.next_due(), None);
    }
}
