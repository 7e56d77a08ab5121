//! Which TokenSource is reconciled when: at once when something triggers it, else at the time that its last
//! reconciliation named. Of those of a namespace that are due, the earliest deadline goes first; namespaces take turns, and each
//! has a share of the API permits. A TokenSource has one reconciliation at a time; a trigger meanwhile leads to another one.
//!
//! What is due is an entry and no future, so that ten thousand cost little and any of them can go first.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tenant_shares::Turns;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::api_permits::{ApiPermit, ApiPermits, Stake, State as Permits};
use crate::key::Key;

/// How soon a reconciliation should be made, and what is lost if it is late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Urgency {
    /// Until when it should be made.
    pub deadline: Instant,
    /// What would be lost.
    pub stake: Stake,
}

impl Urgency {
    /// The more urgent of both in each respect: a later trigger takes nothing from an earlier one.
    fn and(self, other: Self) -> Self {
        let stake = if self.stake == Stake::Token { self.stake } else { other.stake };
        Urgency { deadline: self.deadline.min(other.deadline), stake }
    }
}

/// See the module. A TokenSource that waits for nothing but a trigger is not in it.
#[derive(Debug, Default)]
pub struct WorkQueue {
    entries: Mutex<Entries>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Entries {
    states: HashMap<Key, State>,
    token: Due,
    nothing: Due,
    /// To be reconciled when this time comes.
    later: BTreeSet<(Instant, Key)>,
    running: usize,
}

/// Those that are due, by namespace and deadline.
#[derive(Debug, Default)]
struct Due {
    namespaces: HashMap<Arc<str>, BTreeSet<(Instant, Key)>>,
    turns: Turns<Arc<str>, Instant>,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Due(Urgency),
    Later(Instant),
    /// With the urgency of the next one, where something has triggered it since.
    Running(Option<Urgency>),
}

impl WorkQueue {
    /// Something concerns this TokenSource.
    pub fn trigger(&self, key: Key, urgency: Urgency) {
        self.lock().trigger(key, urgency);
        self.changed.notify_one();
    }

    /// Waits for the next TokenSource to reconcile, and for a permit to do it. `urgency` is asked for those that time alone makes
    /// due. For one caller at a time; nothing is lost if it stops waiting.
    pub async fn next(
        &self,
        permits: &Arc<ApiPermits>,
        urgency: impl Fn(&Key) -> Urgency,
    ) -> (Key, ApiPermit) {
        loop {
            let time = {
                let mut entries = self.lock();
                entries.ripen(Instant::now(), &urgency);
                if let Some(permit) = permits.try_acquire(|permits| entries.first(permits))
                    && let Some(key) = entries.begin(&permit)
                {
                    return (key, permit);
                }
                entries.next_time()
            };
            let timer = async {
                match time {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = permits.freed() => {}
                () = timer => {}
            }
        }
    }

    /// A reconciliation has ended; the next one is at `again`, if nothing triggers one before.
    pub fn done(&self, key: Key, again: Option<Instant>) {
        self.lock().done(key, again);
        self.changed.notify_one();
    }

    /// Forgets all that are due or will be, but for those that `keep` names.
    pub fn retain(&self, keep: impl Fn(&Key) -> bool) {
        self.lock().retain(keep);
    }

    /// How many are due or running.
    #[must_use]
    pub fn pending(&self) -> usize {
        let entries = self.lock();
        entries.token.len + entries.nothing.len + entries.running
    }

    /// How many are due, running, or wait for their time.
    #[must_use]
    pub fn known(&self) -> usize {
        self.lock().states.len()
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // Every change is complete before anything can panic.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Due {
    fn insert(&mut self, deadline: Instant, key: Key) {
        let namespace = Arc::clone(&key.namespace);
        self.len +=
            usize::from(self.namespaces.entry(namespace.clone()).or_default().insert((deadline, key)));
        self.set_turn(&namespace);
    }

    fn remove(&mut self, deadline: Instant, key: &Key) {
        if let Some(due) = self.namespaces.get_mut(&key.namespace) {
            self.len -= usize::from(due.remove(&(deadline, key.clone())));
        }
        self.set_turn(&key.namespace);
    }

    /// The earliest of a namespace begins.
    fn begin(&mut self, namespace: &Arc<str>) -> Option<Key> {
        let (_, key) = self.namespaces.get_mut(namespace)?.pop_first()?;
        self.len -= 1;
        self.turns.took(namespace);
        self.set_turn(namespace);
        Some(key)
    }

    fn retain(&mut self, keep: impl Fn(&Key) -> bool) {
        let namespaces: Vec<_> = self.namespaces.keys().cloned().collect();
        for namespace in namespaces {
            if let Some(due) = self.namespaces.get_mut(&namespace) {
                let before = due.len();
                due.retain(|(_, key)| keep(key));
                self.len -= before - due.len();
            }
            self.set_turn(&namespace);
        }
    }

    fn set_turn(&mut self, namespace: &Arc<str>) {
        let due = self.namespaces.get(namespace);
        let first = due.and_then(|due| due.first()).map(|(deadline, _)| *deadline);
        if first.is_none() {
            self.namespaces.remove(namespace);
        }
        self.turns.set(namespace, first);
    }
}

impl Entries {
    fn due(&mut self, stake: Stake) -> &mut Due {
        match stake {
            Stake::Token => &mut self.token,
            Stake::Nothing => &mut self.nothing,
        }
    }

    fn trigger(&mut self, key: Key, urgency: Urgency) {
        // The key as the other tables have it, where it is known.
        let known = self.states.get_key_value(&key).map(|(known, state)| (known.clone(), *state));
        let Some((key, state)) = known else { return self.is_due(key, urgency) };
        match state {
            State::Due(before) => {
                let urgency = urgency.and(before);
                if urgency != before {
                    self.due(before.stake).remove(before.deadline, &key);
                    self.is_due(key, urgency);
                }
            }
            State::Running(before) => {
                let urgency = before.map_or(urgency, |before| urgency.and(before));
                self.states.insert(key, State::Running(Some(urgency)));
            }
            State::Later(at) => {
                self.later.remove(&(at, key.clone()));
                self.is_due(key, urgency);
            }
        }
    }

    fn is_due(&mut self, key: Key, urgency: Urgency) {
        self.states.insert(key.clone(), State::Due(urgency));
        self.due(urgency.stake).insert(urgency.deadline, key);
    }

    /// The namespace and the stake of what begins next, of what may have a permit.
    fn first(&self, permits: &Permits) -> Option<(Arc<str>, Stake)> {
        let first = |due: &Due, stake| {
            let next = due.turns.next(|namespace| permits.may_take(namespace, stake));
            next.map(|(deadline, namespace)| (deadline, Arc::clone(namespace), stake))
        };
        let both = [first(&self.token, Stake::Token), first(&self.nothing, Stake::Nothing)];
        let next = both.into_iter().flatten().min_by_key(|(deadline, ..)| *deadline);
        next.map(|(_, namespace, stake)| (namespace, stake))
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

    fn begin(&mut self, permit: &ApiPermit) -> Option<Key> {
        let (namespace, stake) = permit.of()?;
        let key = self.due(stake).begin(namespace)?;
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
        for due in [token, nothing] {
            due.retain(|key| states.contains_key(key));
        }
        later.retain(|(_, key)| states.contains_key(key));
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

    fn begin(entries: &mut Entries) -> Option<Key> {
        let permit = ApiPermits::new(100, 0).try_acquire(|permits| entries.first(permits))?;
        entries.begin(&permit)
    }

    fn begun(entries: &mut Entries) -> Vec<String> {
        std::iter::from_fn(|| begin(entries)).map(|key| key.name.to_string()).collect()
    }

    fn deadline(entries: &Entries, stake: Stake) -> Option<Instant> {
        let due = if stake == Stake::Token { &entries.token } else { &entries.nothing };
        due.turns.next(|_| true).map(|(deadline, _)| deadline)
    }

    #[test]
    fn due_entries_begin_by_deadline_and_each_once() {
        let (mut entries, now) = (Entries::default(), Instant::now());
        for (name, seconds) in [("late", 60), ("early", 5), ("middle", 30), ("early", 9), ("late", 20)] {
            entries.trigger(key(name), by(now, seconds));
        }
        assert_eq!(deadline(&entries, Stake::Token), Some(now + Duration::from_secs(5)));
        assert_eq!(begun(&mut entries), ["early", "late", "middle"]);
    }

    #[test]
    fn triggers_during_a_reconciliation_lead_to_one_more() {
        let (mut entries, now) = (Entries::default(), Instant::now());
        entries.trigger(key("a"), by(now, 0));
        let a = begin(&mut entries).unwrap();
        entries.trigger(key("a"), by(now, 0));
        entries.trigger(key("a"), by(now, 0));
        assert!(begin(&mut entries).is_none(), "one reconciliation at a time");
        entries.done(a, Some(now + Duration::from_secs(9)));
        assert_eq!(begun(&mut entries), ["a"]);
    }

    #[test]
    fn later_trigger_takes_nothing_from_an_earlier_one() {
        let (mut entries, now) = (Entries::default(), Instant::now());
        let late = Urgency { stake: Stake::Nothing, ..by(now, 60) };
        entries.trigger(key("due"), by(now, 5));
        entries.trigger(key("due"), late);
        assert_eq!(deadline(&entries, Stake::Token), Some(now + Duration::from_secs(5)));
        let running = begin(&mut entries).unwrap();
        entries.trigger(key("due"), by(now, 7));
        entries.trigger(key("due"), late);
        entries.done(running, None);
        assert_eq!(deadline(&entries, Stake::Token), Some(now + Duration::from_secs(7)));
        assert_eq!(deadline(&entries, Stake::Nothing), None);
    }

    #[test]
    fn time_alone_makes_an_entry_due_unless_a_trigger_did() {
        let (mut entries, now) = (Entries::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        for (name, again) in [("a", Some(at(10))), ("b", Some(at(20))), ("c", None)] {
            entries.trigger(key(name), by(now, 0));
            let key = begin(&mut entries).unwrap();
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
            let _ = begin(&mut entries);
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
    async fn next_waits_for_a_permit_and_then_takes_the_earliest_of_that_time() {
        let (queue, permits, now) = (WorkQueue::default(), ApiPermits::new(1, 0), Instant::now());
        let held = permits.acquire(&"ns".into()).await;
        queue.trigger(key("first"), by(now, 30));
        let next = queue.next(&permits, |_| by(now, 0));
        tokio::pin!(next);
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut next).await.is_err());
        queue.trigger(key("urgent"), by(now, 5));
        drop(held);
        assert_eq!(next.await.0, key("urgent"));
    }

    #[tokio::test(start_paused = true)]
    async fn next_takes_new_sources_by_deadline_however_many_tokens_are_at_stake() {
        let (queue, permits, now) = (WorkQueue::default(), ApiPermits::new(8, 2), Instant::now());
        for name in ["later", "later still"] {
            queue.trigger(key(name), by(now, 60));
        }
        queue.trigger(key("new"), Urgency { stake: Stake::Nothing, ..by(now, 30) });
        assert_eq!(queue.next(&permits, |_| by(now, 0)).await.0, key("new"));
    }

    /// How long one waits for a reconciliation while those of a crowd in another namespace take a second each.
    async fn wait(crowd: Urgency, other: Urgency) -> Duration {
        let (queue, permits) = (WorkQueue::default(), ApiPermits::new(40, 10));
        for n in 0..10_000 {
            queue.trigger(Key::new("crowd", &n.to_string()), crowd);
        }
        let mut running = tokio::task::JoinSet::new();
        let mut triggered = Instant::now();
        for begun in 0.. {
            if begun == 100 {
                triggered = Instant::now();
                queue.trigger(Key::new("other", "a"), other);
            }
            let next = tokio::time::timeout(Duration::from_secs(600), queue.next(&permits, |_| crowd));
            let (key, permit) = next.await.expect("none is lost");
            if &*key.namespace == "other" {
                break;
            }
            running.spawn(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                drop(permit);
            });
        }
        triggered.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn next_of_a_namespace_does_not_wait_for_the_crowd_of_another() {
        let now = Instant::now();
        let [passed, later] = [0, 50].map(|seconds| by(now, seconds));
        let nothing = |urgency| Urgency { stake: Stake::Nothing, ..urgency };
        for crowd in [passed, nothing(passed)] {
            for other in [later, nothing(later)] {
                assert_eq!(wait(crowd, other).await, Duration::ZERO, "{crowd:?} {other:?}");
            }
        }
    }
}
