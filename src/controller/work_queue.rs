//! Which TokenSource is reconciled when: at once when something triggers it, else at the time that its last
//! reconciliation named. Of those that are due, the earliest deadline goes first. A TokenSource has one reconciliation at
//! a time; a trigger meanwhile leads to another one.
//!
//! What is due is an entry and no future, so that ten thousand cost little and any of them can go first.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::api_permits::{ApiPermit, ApiPermits, Stake};
use crate::key::Key;

/// How soon a reconciliation should be made, and what is lost if it is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Urgency {
    pub(super) deadline: Instant,
    pub(super) stake: Stake,
}

impl Urgency {
    /// The more urgent of both in each respect: a later trigger takes nothing from an earlier one.
    fn and(self, other: Self) -> Self {
        let stake = if self.stake == Stake::Token { self.stake } else { other.stake };
        Urgency { deadline: self.deadline.min(other.deadline), stake }
    }
}

/// See the module. A TokenSource that waits for nothing but a trigger is not in it.
#[derive(Debug)]
pub(super) struct WorkQueue {
    entries: Mutex<Entries>,
    /// For those that wait for [`Stake::Token`], and for [`Stake::Nothing`].
    changed: [Notify; 2],
}

#[derive(Debug, Default)]
struct Entries {
    states: HashMap<Key, State>,
    /// Due, by deadline.
    token: BTreeSet<(Instant, Key)>,
    nothing: BTreeSet<(Instant, Key)>,
    /// To be reconciled when this time comes.
    later: BTreeSet<(Instant, Key)>,
    running: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Due(Urgency),
    Later(Instant),
    /// With the urgency of the next one, where something has triggered it since.
    Running(Option<Urgency>),
}

impl WorkQueue {
    pub(super) fn new() -> Self {
        WorkQueue { entries: Mutex::default(), changed: Default::default() }
    }

    /// Something concerns this TokenSource.
    pub(super) fn trigger(&self, key: Key, urgency: Urgency) {
        self.lock().trigger(key, urgency);
        self.has_changed();
    }

    /// Waits for the next TokenSource to reconcile, and for a permit to do it: of those with this stake, the one with the
    /// earliest deadline. `urgency` is asked for those that time alone makes due. Nothing is lost if the caller stops
    /// waiting.
    pub(super) async fn next(
        &self,
        stake: Stake,
        permits: &Arc<ApiPermits>,
        urgency: impl Fn(&Key) -> Urgency,
    ) -> (Key, ApiPermit) {
        loop {
            let [token, nothing] = &self.changed;
            let changed = if stake == Stake::Token { token } else { nothing }.notified();
            let (deadline, time) = {
                let mut entries = self.lock();
                entries.ripen(Instant::now(), &urgency);
                (entries.first(stake), entries.next_time())
            };
            match (deadline, time) {
                (Some(deadline), _) => tokio::select! {
                    biased;
                    permit = permits.acquire(deadline, stake) => {
                        if let Some(key) = self.lock().begin(stake) {
                            return (key, permit);
                        }
                    }
                    // One with an earlier deadline may be due by now.
                    () = changed => {}
                },
                (None, Some(at)) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(at) => {}
                },
                (None, None) => changed.await,
            }
        }
    }

    /// A reconciliation has ended; the next one is at `again`, if nothing triggers one before.
    pub(super) fn done(&self, key: Key, again: Option<Instant>) {
        self.lock().done(key, again);
        self.has_changed();
    }

    /// Forgets all that are due or will be, but for those that `keep` names.
    pub(super) fn retain(&self, keep: impl Fn(&Key) -> bool) {
        self.lock().retain(keep);
    }

    /// How many are due or running.
    pub(super) fn pending(&self) -> usize {
        let entries = self.lock();
        entries.token.len() + entries.nothing.len() + entries.running
    }

    /// How many are due, running, or wait for their time.
    pub(super) fn len(&self) -> usize {
        self.lock().states.len()
    }

    fn has_changed(&self) {
        self.changed.iter().for_each(Notify::notify_one);
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // Every change is complete before anything can panic.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn due(&mut self, stake: Stake) -> &mut BTreeSet<(Instant, Key)> {
        match stake {
            Stake::Token => &mut self.token,
            Stake::Nothing => &mut self.nothing,
        }
    }

    fn trigger(&mut self, key: Key, urgency: Urgency) {
        match self.states.get(&key).copied() {
            Some(State::Due(before)) => {
                self.due(before.stake).remove(&(before.deadline, key.clone()));
                self.is_due(key, urgency.and(before));
            }
            Some(State::Running(before)) => {
                let urgency = before.map_or(urgency, |before| urgency.and(before));
                self.states.insert(key, State::Running(Some(urgency)));
            }
            Some(State::Later(at)) => {
                self.later.remove(&(at, key.clone()));
                self.is_due(key, urgency);
            }
            None => self.is_due(key, urgency),
        }
    }

    fn is_due(&mut self, key: Key, urgency: Urgency) {
        self.due(urgency.stake).insert((urgency.deadline, key.clone()));
        self.states.insert(key, State::Due(urgency));
    }

    fn first(&mut self, stake: Stake) -> Option<Instant> {
        self.due(stake).first().map(|(deadline, _)| *deadline)
    }

    fn next_time(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }

    fn ripen(&mut self, now: Instant, urgency: impl Fn(&Key) -> Urgency) {
        while self.next_time().is_some_and(|at| at <= now)
            && let Some((_, key)) = self.later.pop_first()
        {
            let urgency = urgency(&key);
            self.is_due(key, urgency);
        }
    }

    fn begin(&mut self, stake: Stake) -> Option<Key> {
        let (_, key) = self.due(stake).pop_first()?;
        self.states.insert(key.clone(), State::Running(None));
        self.running += 1;
        Some(key)
    }

    fn done(&mut self, key: Key, again: Option<Instant>) {
        self.running = self.running.saturating_sub(1);
        match (self.states.remove(&key), again) {
            (Some(State::Running(Some(urgency))), _) => self.is_due(key, urgency),
            (_, Some(at)) => {
                self.later.insert((at, key.clone()));
                self.states.insert(key, State::Later(at));
            }
            (_, None) => {}
        }
    }

    fn retain(&mut self, keep: impl Fn(&Key) -> bool) {
        let Entries { states, token, nothing, later, .. } = self;
        states.retain(|key, state| match state {
            State::Running(again) => {
                *again = again.filter(|_| keep(key));
                true
            }
            State::Due(_) | State::Later(_) => keep(key),
        });
        for set in [token, nothing, later] {
            set.retain(|(_, key)| states.contains_key(key));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn key(name: &str) -> Key {
        Key::new("ns", name)
    }

    fn by(now: Instant, seconds: u64) -> Urgency {
        Urgency { deadline: now + Duration::from_secs(seconds), stake: Stake::Token }
    }

    fn begun(entries: &mut Entries) -> Vec<String> {
        std::iter::from_fn(|| entries.begin(Stake::Token)).map(|key| key.name.to_string()).collect()
    }

    #[test]
    fn due_entries_begin_by_deadline_and_each_once() {
        let (mut entries, now) = (Entries::default(), Instant::now());
        for (name, seconds) in [("late", 60), ("early", 5), ("middle", 30), ("early", 9), ("late", 20)] {
            entries.trigger(key(name), by(now, seconds));
        }
        assert_eq!(entries.first(Stake::Token), Some(now + Duration::from_secs(5)));
        assert_eq!(begun(&mut entries), ["early", "late", "middle"]);
    }

    #[test]
    fn triggers_during_a_reconciliation_lead_to_one_more() {
        let (mut entries, now) = (Entries::default(), Instant::now());
        entries.trigger(key("a"), by(now, 0));
        let a = entries.begin(Stake::Token).unwrap();
        entries.trigger(key("a"), by(now, 0));
        entries.trigger(key("a"), by(now, 0));
        assert!(entries.begin(Stake::Token).is_none(), "one reconciliation at a time");
        entries.done(a, Some(now + Duration::from_secs(9)));
        assert_eq!(begun(&mut entries), ["a"]);
    }

    #[test]
    fn later_trigger_takes_nothing_from_an_earlier_one() {
        let (mut entries, now) = (Entries::default(), Instant::now());
        let late = Urgency { stake: Stake::Nothing, ..by(now, 60) };
        entries.trigger(key("due"), by(now, 5));
        entries.trigger(key("due"), late);
        assert_eq!(entries.first(Stake::Token), Some(now + Duration::from_secs(5)));
        let running = entries.begin(Stake::Token).unwrap();
        entries.trigger(key("due"), by(now, 7));
        entries.trigger(key("due"), late);
        entries.done(running, None);
        assert_eq!(entries.first(Stake::Token), Some(now + Duration::from_secs(7)));
        assert_eq!(entries.first(Stake::Nothing), None);
    }

    #[test]
    fn time_alone_makes_an_entry_due_unless_a_trigger_did() {
        let (mut entries, now) = (Entries::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        for (name, again) in [("a", Some(at(10))), ("b", Some(at(20))), ("c", None)] {
            entries.trigger(key(name), by(now, 0));
            let key = entries.begin(Stake::Token).unwrap();
            entries.done(key, again);
        }
        assert_eq!(entries.next_time(), Some(at(10)));
        entries.trigger(key("b"), by(now, 0));
        entries.ripen(at(10), |_| by(now, 0));
        assert_eq!(begun(&mut entries), ["a", "b"]);
        assert_eq!(
            (entries.next_time(), entries.states.len()),
            (None, 2),
            "c was kept no longer than it ran"
        );
    }

    #[test]
    fn retain_forgets_all_but_what_is_named_and_what_runs() {
        let (mut entries, now) = (Entries::default(), Instant::now());
        for name in ["later", "running"] {
            entries.trigger(key(name), by(now, 0));
            let _ = entries.begin(Stake::Token);
        }
        entries.done(key("later"), Some(now));
        entries.trigger(key("running"), by(now, 0));
        entries.trigger(key("kept"), by(now, 0));
        entries.trigger(key("due"), by(now, 0));
        entries.retain(|key| &*key.name == "kept");
        assert_eq!(entries.later.len(), 0);
        assert_eq!(begun(&mut entries), ["kept"]);
        entries.done(key("running"), None);
        assert_eq!(entries.states.len(), 1, "the trigger of what runs is forgotten too");
    }

    #[tokio::test(start_paused = true)]
    async fn next_waits_for_its_permit_by_the_earliest_deadline_of_now() {
        let (queue, permits, now) = (WorkQueue::new(), ApiPermits::new(1, 0), Instant::now());
        let held = permits.acquire(now, Stake::Token).await;
        queue.trigger(key("late"), by(now, 30));
        let waits = async {
            let next = queue.next(Stake::Token, &permits, |_| by(now, 0));
            tokio::pin!(next);
            assert!(tokio::time::timeout(Duration::from_secs(1), &mut next).await.is_err());
            let other = permits.acquire(now + Duration::from_secs(20), Stake::Token);
            tokio::pin!(other);
            assert!(tokio::time::timeout(Duration::from_secs(1), &mut other).await.is_err());
            queue.trigger(key("urgent"), by(now, 10));
            assert!(tokio::time::timeout(Duration::from_secs(1), &mut next).await.is_err());
            drop(held);
            tokio::select! { biased; _ = other => None, (key, _) = next => Some(key) }
        };
        assert_eq!(waits.await, Some(key("urgent")));
    }

    #[tokio::test(start_paused = true)]
    async fn next_waits_for_a_permit_and_then_takes_the_earliest_of_that_time() {
        let (queue, permits, now) = (WorkQueue::new(), ApiPermits::new(1, 0), Instant::now());
        let held = permits.acquire(now, Stake::Token).await;
        queue.trigger(key("first"), by(now, 30));
        let next = queue.next(Stake::Token, &permits, |_| by(now, 0));
        tokio::pin!(next);
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut next).await.is_err());
        queue.trigger(key("urgent"), by(now, 5));
        drop(held);
        assert_eq!(next.await.0, key("urgent"));
    }
}
