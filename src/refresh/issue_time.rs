#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! When a token was issued, by the corrected clock of this process. The record says when by the clock of the process that
//! wrote it.

use std::hash::{Hash, Hasher};
use std::num::NonZeroU32;
use std::sync::Arc;

use jiff::Timestamp;

use super::schedule::{Policy, SKEW, cached_retry_after, spread};
use crate::secret::Record;
use crate::time::{minus, moved, plus};
use crate::uid::Uid;

/// How far a record's issue time may lie ahead without a doubt about the token's age, in seconds: this, or a tenth of its
/// lifetime, but no more than [`MAX_AHEAD`].
const MIN_AHEAD: u64 = SKEW;
/// See [`MIN_AHEAD`].
const MAX_AHEAD: u64 = 30;
/// Tokens of doubtful age are replaced within this time, in seconds, or a tenth of their lifetime if that is less.
const MAX_REPLACEMENT_SPREAD: u64 = 5 * 60;

/// What is known of a token's age since this process first saw its record. From then on the age is known, whatever is done
/// to clocks. Small, because there is one for each TokenSource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IssueTime {
    /// A digest of the token's id and of what the record says.
    of: u64,
    /// From the record's issue time to the true one, in seconds.
    offset: i32,
    /// By how much the clock had been set back, in seconds.
    rewound: u32,
    /// When the token is to be replaced, in seconds since 1970.
    replace_at: Option<NonZeroU32>,
}

/// A record with its times by the corrected clock.
#[derive(Clone, Debug, PartialEq)]
pub struct DatedRecord {
    /// The record.
    pub record: Arc<Record>,
    /// When the token is to be replaced because its age is doubtful.
    pub replace_at: Option<Timestamp>,
}

impl DatedRecord {
    /// When the refresh of the token is due.
    #[must_use]
    pub fn refresh_at(&self, uid: &Uid, policy: &Policy) -> Timestamp {
        let due = refresh_at(uid, policy, &self.record);
        self.replace_at.map_or(due, |at| at.min(due))
    }
}

/// When the refresh of the token of `record` is due, by the times of the record.
#[must_use]
pub fn refresh_at(uid: &Uid, policy: &Policy, record: &Record) -> Timestamp {
    let lifetime = record.lifetime();
    if record.cached {
        return plus(record.issued_at, cached_retry_after(lifetime));
    }
    policy.refresh_at(uid, record.issued_at, lifetime)
}

impl IssueTime {
    /// Of a token that this process requested, while its clock had been set back by `rewound` seconds.
    #[must_use]
    pub fn of_own(record: &Record, rewound: u64) -> Self {
        IssueTime { of: digest(record), offset: 0, rewound: small(rewound), replace_at: None }
    }

    /// Of a token that another process requested, first seen at `now`. `stored_at` is when the API server stored the record,
    /// by its own clock: the record may be of a process whose clock was ahead. If both lie ahead, the age is unknown, and
    /// the token is replaced soon.
    #[must_use]
    pub fn of_another(
        uid: &Uid,
        record: &Record,
        stored_at: Option<Timestamp>,
        now: Timestamp,
        rewound: u64,
    ) -> Self {
        let lifetime = record.lifetime();
        // A token is always stored a little later than it was issued: less is no contradiction.
        let contradicts = |stored_at: &Timestamp| plus(*stored_at, SKEW) < record.issued_at;
        let issued_at = stored_at.filter(contradicts).unwrap_or(record.issued_at);
        let may_lie_ahead = (lifetime / 10).clamp(MIN_AHEAD, MAX_AHEAD);
        let replace_at = (issued_at > plus(now, may_lie_ahead))
            .then(|| plus(now, spread(uid, record.issued_at, (lifetime / 10).min(MAX_REPLACEMENT_SPREAD))))
            .and_then(|at| NonZeroU32::new(small(at.as_second())));
        let offset = issued_at.min(now).as_second().saturating_sub(record.issued_at.as_second());
        let offset = i32::try_from(offset).unwrap_or(if offset < 0 { i32::MIN } else { i32::MAX });
        IssueTime { of: digest(record), offset, rewound: small(rewound), replace_at }
    }

    /// Whether this is about the token of `record`.
    #[must_use]
    pub fn is_of(&self, record: &Record) -> bool {
        self.of == digest(record)
    }

    /// The record with its times by a clock that has been set back by `rewound` seconds.
    #[must_use]
    pub fn dated(&self, record: &Arc<Record>, rewound: u64) -> DatedRecord {
        let replace_at = self.replace_at.and_then(|at| Timestamp::from_second(at.get().into()).ok());
        let replace_at = replace_at.map(|at| minus(at, self.since(rewound)));
        let offset = self.offset(rewound);
        if offset == 0 {
            return DatedRecord { record: Arc::clone(record), replace_at };
        }
        let mut dated = Record::clone(record);
        dated.issued_at = moved(record.issued_at, offset);
        dated.expires_at = moved(record.expires_at, offset);
        DatedRecord { record: Arc::new(dated), replace_at }
    }

    /// A time of the record by a clock that has been set back by `rewound` seconds.
    #[must_use]
    pub fn moved(&self, at: Timestamp, rewound: u64) -> Timestamp {
        moved(at, self.offset(rewound))
    }

    fn offset(&self, rewound: u64) -> i64 {
        i64::from(self.offset).saturating_sub_unsigned(self.since(rewound))
    }

    /// By how much the clock was set back since this was known.
    fn since(&self, rewound: u64) -> u64 {
        rewound.saturating_sub(self.rewound.into())
    }
}

fn small(number: impl TryInto<u32>) -> u32 {
    number.try_into().unwrap_or(u32::MAX)
}

fn digest(record: &Record) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    (&record.token_id, record.issued_at.as_second(), record.expires_at.as_second()).hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refresh::DEFAULT_MAX_INTERVAL;
    use crate::secret::{Inputs, Minted, Owner, Version};

    const POLICY: Policy =
        Policy { before: None, max_interval: DEFAULT_MAX_INTERVAL, propagation_delay: 90, min_interval: 0 };
    const DAY: i64 = 24 * 60 * 60;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn record(issued_at: i64, lifetime: i64) -> Arc<Record> {
        let minted = Minted {
            issued_at: at(issued_at),
            expires_at: at(issued_at + lifetime),
            token_id: "3f9a1c0d42be".into(),
            token_type: "Bearer".into(),
            scope: None,
            remarks: vec![],
            is_jwt: false,
            lifetime_is_assumed: false,
        };
        let credentials = Version { uid: "c".into(), resource_version: "7".into() };
        let inputs = Inputs { provider: "p".into(), credentials };
        Arc::new(Record::new(Owner { name: "n".into(), uid: "u".into() }, inputs, None, minted, None))
    }

    /// First seen at 0 by another process.
    fn seen(record: &Arc<Record>, stored_at: Option<i64>) -> DatedRecord {
        IssueTime::of_another(&"u".into(), record, stored_at.map(at), at(0), 0).dated(record, 0)
    }

    fn due(dated: &DatedRecord) -> i64 {
        dated.refresh_at(&"u".into(), &POLICY).as_second() - at(0).as_second()
    }

    #[test]
    fn issue_time_of_another_process_is_what_the_record_says_where_clocks_agree() {
        for (issued_at, stored_at) in [(-100, None), (-100, Some(-99)), (-100, Some(-90)), (-100, Some(-108))]
        {
            let record = record(issued_at, 300);
            let dated = seen(&record, stored_at);
            assert!(Arc::ptr_eq(&dated.record, &record) && dated.replace_at.is_none(), "{stored_at:?}");
        }
    }

    #[test]
    fn issue_time_of_a_writer_whose_clock_was_ahead_is_when_the_api_server_stored_it() {
        for ahead in [20, 2 * 60 * 60, DAY] {
            let dated = seen(&record(-100 + ahead, 300), Some(-100));
            assert_eq!((dated.record.issued_at, dated.record.expires_at), (at(-100), at(200)), "{ahead} s");
            assert_eq!(dated.replace_at, None);
            assert!((35..=50).contains(&due(&dated)), "{}", due(&dated));
        }
    }

    #[test]
    fn issue_time_ahead_of_both_clocks_replaces_the_token_once_and_soon() {
        for (lifetime, tolerated, spread) in [(60, 10, 6), (300, 30, 30), (1800, 30, 180), (DAY, 30, 300)] {
            let within = seen(&record(tolerated, lifetime), None);
            assert_eq!((within.replace_at, within.record.issued_at), (None, at(0)), "{lifetime} s");
            for ahead in [tolerated + 1, DAY, 400 * DAY] {
                let record = record(ahead, lifetime);
                let first = IssueTime::of_another(&"u".into(), &record, Some(at(ahead)), at(0), 0);
                let dated = first.dated(&record, 0);
                assert!(
                    (0..=spread).contains(&due(&dated)),
                    "{lifetime} s, {ahead} s ahead: {}",
                    due(&dated)
                );
                assert_eq!(dated.record.expires_at, at(lifetime), "no later than if it had been issued now");
                assert!(first.is_of(&record), "the time of replacement does not move");
            }
        }
    }

    #[test]
    fn issue_time_of_tokens_of_doubtful_age_is_spread() {
        let record = record(DAY, 3000);
        let due_of = |uid: &Uid| {
            let dated = IssueTime::of_another(uid, &record, None, at(0), 0).dated(&record, 0);
            dated.refresh_at(uid, &POLICY).as_second() - at(0).as_second()
        };
        let early = (0..1000).filter(|n| due_of(&n.to_string().into()) < 30).count();
        assert!((50..200).contains(&early), "{early} of 1000 in a tenth of the time");
    }

    #[test]
    fn issue_time_keeps_the_age_when_the_clock_is_set_back() {
        let record = record(-100, 300);
        for known in
            [IssueTime::of_own(&record, 0), IssueTime::of_another(&"u".into(), &record, None, at(0), 0)]
        {
            let dated = known.dated(&record, DAY.unsigned_abs());
            assert_eq!(dated.record.issued_at, at(-100 - DAY));
            assert_eq!(dated.record.lifetime(), 300);
        }
        let later = IssueTime::of_own(&record, 50).dated(&record, 50);
        assert_eq!(later.record.issued_at, at(-100), "it was issued since");
    }

    #[test]
    fn issue_time_is_of_one_token() {
        let known = IssueTime::of_own(&record(-100, 300), 0);
        assert!(!known.is_of(&record(-99, 300)) && !known.is_of(&record(-100, 301)));
    }
}
