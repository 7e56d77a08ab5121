//! What is known of a client: whether its credential works, and how fast it may ask.

use super::entry::{Parked, Turn};
use super::rate::Rate;
use crate::error::{Class, Error, Reach};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;

/// How long a rejected client is left alone: after the first rejection, the second, ...
const REJECTION_WAITS: [Duration; 4] =
    [Duration::from_secs(30), Duration::from_secs(120), Duration::from_secs(600), Duration::from_secs(1800)];
/// The least time for which a lock-out is taken to last.
const LOCK_OUT: Duration = Duration::from_secs(1800);
/// How long the count of rejections outlives the wait.
const REJECTION_COUNT_KEPT: Duration = Duration::from_secs(3600);

pub(super) struct Client<K> {
    /// The endpoint has given it a token, and has not rejected it since.
    pub(super) proven: bool,
    pub(super) in_flight: usize,
    rejection: Option<Rejection>,
    pub(super) rate: Rate,
    /// Entries that wait for this client, and for nothing else.
    pub(super) parked: BTreeMap<Turn, Parked<K>>,
    /// When the next of them goes back into its queue by time alone.
    pub(super) timer: Option<Instant>,
}

struct Rejection {
    error: Error,
    /// In a row.
    count: usize,
    at: Instant,
    until: Instant,
}

/// What a client may do now.
pub(super) enum Standing<'a> {
    Free,
    /// Another request finds out whether the credential works, or its result is about to be stored.
    Busy,
    /// Not before this time.
    Slow(Instant),
    Rejected {
        error: &'a Error,
        retry_in: Duration,
    },
}

impl<K> Client<K> {
    pub(super) fn new(limit: f64, now: Instant) -> Self {
        Self {
            proven: false,
            in_flight: 0,
            rejection: None,
            rate: Rate::new(limit, now),
            parked: BTreeMap::new(),
            timer: None,
        }
    }

    /// `exclusive`: a request that spends its credential goes alone.
    pub(super) fn standing(&self, exclusive: bool, now: Instant) -> Standing<'_> {
        match &self.rejection {
            Some(Rejection { error, until, .. }) if *until > now => {
                Standing::Rejected { error, retry_in: *until - now }
            }
            _ if self.in_flight > 0 && (exclusive || !self.proven) => Standing::Busy,
            // At full speed the origin's rate is limit enough.
            _ if self.rate.is_slow(now) && self.rate.next > now => Standing::Slow(self.rate.next),
            _ => Standing::Free,
        }
    }

    pub(super) fn succeeded(&mut self) {
        self.proven = true;
        self.rejection = None;
    }

    /// `began`: when the request was sent that was rejected.
    pub(super) fn rejected(&mut self, error: &Error, began: Instant, now: Instant) {
        self.proven = false;
        // What was in flight when the rejection came is rejected for the same reason, and counts once.
        let count = match &self.rejection {
            Some(before) if began <= before.at => before.count,
            Some(before) => before.count + 1,
            None => 1,
        };
        let wait = REJECTION_WAITS.get(count - 1).copied().unwrap_or(LOCK_OUT);
        let wait = if error.class() == Class::LockedOut { LOCK_OUT } else { wait };
        let wait = wait.max(Duration::from_secs(error.shared_retry_after().unwrap_or_default()));
        self.rejection = Some(Rejection { error: error.clone(), count, at: now, until: now + wait });
    }

    /// The first wait is enough, unless the server itself asked for more.
    pub(super) fn expedite(&mut self) {
        if let Some(rejection) = &mut self.rejection
            && rejection.error.class() != Class::LockedOut
            && rejection.error.shared_retry_after().is_none()
        {
            let [first, ..] = REJECTION_WAITS;
            rejection.until = rejection.until.min(rejection.at + first);
        }
    }

    /// Whether forgetting it would change nothing.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        let rejection = self.rejection.as_ref();
        self.in_flight == 0
            && self.parked.is_empty()
            && !self.rate.is_slow(now)
            && rejection.is_none_or(|rejection| rejection.until + REJECTION_COUNT_KEPT <= now)
    }
}

/// Whether every request with this credential would get the same rejection. A scope or a parameter is not the client's.
pub(super) fn is_about_the_client(error: &Error) -> bool {
    matches!(error.class(), Class::Ambiguous | Class::Rejected | Class::LockedOut)
        && matches!(error.reach(), Reach::Client | Reach::Grant)
}
