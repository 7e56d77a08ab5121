//! When the tokens in the targets were issued, by the clock of this process: see [`IssueTime`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::clock::Clock;
use crate::key::Key;
use crate::refresh::{DatedRecord, IssueTime};
use crate::secret::{Facts, Record};
use crate::uid::Uid;

/// By the TokenSource, of the token that its target held when this was last asked.
#[derive(Debug)]
pub(super) struct IssueTimes {
    clock: Arc<Clock>,
    known: Mutex<HashMap<Key, IssueTime>>,
}

impl IssueTimes {
    pub(super) fn new(clock: Arc<Clock>) -> Self {
        IssueTimes { clock, known: Mutex::default() }
    }

    /// The record on a target of TokenSource `source` (its uid is `uid`), with its times by the corrected clock. The age of a
    /// token that this process did not write is judged once.
    pub(super) fn dated(&self, source: &Key, uid: &Uid, target: &Facts) -> Option<DatedRecord> {
        let record = target.record.as_ref()?;
        let rewound = self.clock.rewound();
        let mut known = self.lock();
        if let Some(known) = known.get(source).filter(|known| known.is_of(record)) {
            return Some(known.dated(record, rewound));
        }
        // The API server's clock is no evidence where it differs from what is taken for the time.
        let stored_at = target.stored_at.filter(|_| self.clock.server_agrees());
        let stored_at = stored_at.and_then(|second| Timestamp::from_second(second.into()).ok());
        let issued = IssueTime::of_another(uid, record, stored_at, self.clock.second(), rewound);
        known.insert(source.clone(), issued);
        Some(issued.dated(record, rewound))
    }

    /// This process has written the record of a token that it requested when the clock had been set back by `rewound`
    /// seconds.
    pub(super) fn wrote(&self, source: &Key, record: &Record, rewound: u64) {
        self.lock().insert(source.clone(), IssueTime::of_own(record, rewound));
    }

    /// When a token of `source` expires whose record says `expires_at`.
    pub(super) fn expiry(&self, source: &Key, expires_at: Timestamp) -> Timestamp {
        let rewound = self.clock.rewound();
        self.lock().get(source).map_or(expires_at, |known| known.moved(expires_at, rewound))
    }

    pub(super) fn forget(&self, source: &Key) {
        self.lock().remove(source);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, IssueTime>> {
        // Ignores poisoning: every change is one step.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::clock::Moment;

    const START: i64 = 1_800_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(START + second).unwrap()
    }

    fn facts(token_id: &str, issued_at: i64, stored_at: i64) -> Facts {
        let record = json!({
            "version": 1, "owner": {"name": "n", "uid": "u"}, "tokenId": token_id, "tokenType": "Bearer",
            "inputs": {"provider": "p", "credentials": {"uid": "c", "resourceVersion": "1"}},
            "issuedAt": at(issued_at), "expiresAt": at(issued_at + 300),
        });
        let metadata = json!({
            "uid": "t", "resourceVersion": "1", "annotations": {"tokensource.dev/record": record.to_string()},
            "managedFields": [{"manager": "tokensource-operator", "operation": "Apply", "time": at(stored_at)}],
        });
        Facts::of(&serde_json::from_value(metadata).unwrap()).unwrap()
    }

    /// Times of a clock that starts at `START` and is set by the returned number; the API server always agrees with it.
    fn times() -> (Arc<AtomicI64>, Arc<Clock>, IssueTimes) {
        let ahead = Arc::new(AtomicI64::new(0));
        let shown = Arc::clone(&ahead);
        let read = move || Moment { wall: at(shown.load(Ordering::Relaxed)), ..Moment::default() };
        let clock = Arc::new(Clock::reading(read));
        clock.server_said(at(0), clock.moment());
        let times = IssueTimes::new(Arc::clone(&clock));
        (ahead, clock, times)
    }

    fn set(ahead: &AtomicI64, clock: &Clock, seconds: i64) {
        ahead.store(seconds, Ordering::Relaxed);
        clock.server_said(at(seconds), clock.moment());
        assert_eq!(clock.check(Duration::ZERO).0.corrected, seconds);
    }

    #[tokio::test]
    async fn issue_times_keep_the_age_of_what_was_seen_when_all_clocks_are_set_back() {
        let (ahead, clock, times) = times();
        let (source, other, new) = (Key::new("ns", "a"), Key::new("ns", "b"), Key::new("ns", "c"));
        let (target, own) = (facts("1", -100, -99), facts("2", -50, -50));
        assert_eq!(times.dated(&source, &"u".into(), &target).unwrap().record.issued_at, at(-100));
        times.wrote(&other, own.record.as_ref().unwrap(), clock.rewound());

        set(&ahead, &clock, -7200);
        assert_eq!(clock.now(), at(-7200));
        let aged = times.dated(&source, &"u".into(), &target).unwrap();
        assert_eq!((aged.record.issued_at, aged.replace_at), (at(-7300), None));
        assert_eq!(times.dated(&other, &"u".into(), &own).unwrap().record.issued_at, at(-7250));
        assert_eq!(times.expiry(&other, at(250)), at(-6950));
        // The clock that dated this one is known to have been wrong, and its age is not.
        let unseen = times.dated(&new, &"u".into(), &target).unwrap();
        assert!(unseen.replace_at.is_some_and(|at_once| at_once <= at(-7200 + 30)));
        assert_eq!(times.dated(&new, &"u".into(), &target), Some(unseen), "judged once");
        times.forget(&new);
        assert_eq!(times.expiry(&new, at(250)), at(250));
    }

    #[tokio::test]
    async fn issue_times_do_not_believe_an_api_server_whose_clock_was_set() {
        let (_, clock, times) = times();
        let source = Key::new("ns", "a");
        clock.server_said(at(-86_400), clock.moment());
        let dated = times.dated(&source, &"u".into(), &facts("1", -10, -86_400)).unwrap();
        assert_eq!((dated.record.issued_at, dated.replace_at), (at(-10), None));
    }
}
