//! Which TokenSource is looked at when: at once when something concerns it, else at the time that its last look named;
//! of those that are due, the one with the earliest deadline first. One look at a TokenSource at a time; what concerns it
//! meanwhile leads to another look.
//!
//! What is due but has not begun is an entry here and no future: kube's own scheduler holds a future for each, and polls
//! all of them whenever one of them gets on.

use std::collections::{BTreeSet, HashMap};

use tokio::time::Instant;

use crate::key::Key;

/// See the module. A TokenSource that waits for nothing but a change is not in it.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    states: HashMap<Key, State>,
    due: BTreeSet<(Instant, Key)>,
    later: BTreeSet<(Instant, Key)>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// To be looked at, by this deadline.
    Due(Instant),
    /// To be looked at, at this time.
    Later(Instant),
    /// Being looked at; by which deadline again, where something has concerned it since.
    Looking(Option<Instant>),
}

impl Agenda {
    /// Something concerns this TokenSource: it is to be looked at by `deadline`.
    pub(super) fn concern(&mut self, key: Key, deadline: Instant) {
        match self.states.get(&key).copied() {
            Some(State::Due(before)) => {
                self.due.remove(&(before, key.clone()));
                self.is_due(key, deadline.min(before));
            }
            Some(State::Looking(_)) => {
                self.states.insert(key, State::Looking(Some(deadline)));
            }
            Some(State::Later(at)) => {
                self.later.remove(&(at, key.clone()));
                self.is_due(key, deadline);
            }
            None => self.is_due(key, deadline),
        }
    }

    fn is_due(&mut self, key: Key, deadline: Instant) {
        self.due.insert((deadline, key.clone()));
        self.states.insert(key, State::Due(deadline));
    }

    /// How many are due.
    pub(super) fn due(&self) -> usize {
        self.due.len()
    }

    /// The deadline of the look that comes next.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.due.first().map(|(deadline, _)| *deadline)
    }

    /// The look that comes next begins.
    pub(super) fn begin(&mut self) -> Option<Key> {
        let (_, key) = self.due.pop_first()?;
        self.states.insert(key.clone(), State::Looking(None));
        Some(key)
    }

    /// A look has ended; the next one is at `again`, if nothing concerns the TokenSource before.
    pub(super) fn end(&mut self, key: Key, again: Option<Instant>) {
        match (self.states.remove(&key), again) {
            (Some(State::Looking(Some(deadline))), _) => self.is_due(key, deadline),
            (_, Some(at)) => {
                self.later.insert((at, key.clone()));
                self.states.insert(key, State::Later(at));
            }
            (_, None) => {}
        }
    }

    /// When time alone makes the next TokenSource due.
    pub(super) fn next_time(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }

    /// The TokenSources for which the time has come; they are to be looked at by `deadline`.
    pub(super) fn ripen(&mut self, now: Instant, deadline: impl Fn(&Key) -> Instant) {
        while self.next_time().is_some_and(|at| at <= now)
            && let Some((_, key)) = self.later.pop_first()
        {
            let deadline = deadline(&key);
            self.is_due(key, deadline);
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

    fn begun(agenda: &mut Agenda) -> Vec<String> {
        std::iter::from_fn(|| agenda.begin()).map(|key| key.name.to_string()).collect()
    }

    #[test]
    fn the_earliest_deadline_first_and_each_once() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        for (name, seconds) in [("late", 60), ("early", 5), ("middle", 30), ("early", 9), ("late", 20)] {
            agenda.concern(key(name), now + Duration::from_secs(seconds));
        }
        assert_eq!(agenda.next_deadline(), Some(now + Duration::from_secs(5)));
        assert_eq!(begun(&mut agenda), ["early", "late", "middle"]);
    }

    #[test]
    fn what_concerns_it_during_a_look_leads_to_one_more() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        agenda.concern(key("a"), now);
        let a = agenda.begin().unwrap();
        agenda.concern(key("a"), now);
        agenda.concern(key("a"), now);
        assert!(agenda.begin().is_none(), "one look at a time");
        agenda.end(a, Some(now + Duration::from_secs(9)));
        assert_eq!(begun(&mut agenda), ["a"]);
    }

    #[test]
    fn time_alone_makes_due_unless_something_else_did() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        let at = |seconds| now + Duration::from_secs(seconds);
        for (name, again) in [("a", Some(at(10))), ("b", Some(at(20))), ("c", None)] {
            agenda.concern(key(name), now);
            let key = agenda.begin().unwrap();
            agenda.end(key, again);
        }
        assert_eq!(agenda.next_time(), Some(at(10)));
        agenda.concern(key("b"), now);
        agenda.ripen(at(10), |_| now);
        assert_eq!(begun(&mut agenda), ["a", "b"]);
        assert_eq!((agenda.next_time(), agenda.states.len()), (None, 2), "c is kept no longer than its look");
    }
}
