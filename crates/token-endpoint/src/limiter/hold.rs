//! How long an answer holds requests back that would get it too.

use super::terms::Terms;
use crate::error::{Class, Error, KnownCode};
use http::StatusCode;
use std::time::Duration;
use tokio::time::Instant;

/// After the first rejection, the second, ...
const REJECTION_WAITS: [Duration; 4] = [seconds(30), seconds(120), seconds(600), seconds(1800)];
/// After a server error with a code of refusal, until it is paced as a rejection.
const AMBIGUOUS_WAITS: [Duration; 2] = [seconds(10), seconds(30)];
/// The first wait after such an error for a credential that has succeeded; it doubles.
const FIRST_TRANSIENT_WAIT: Duration = seconds(2);
/// For such a credential, so many of these errors pass as transient.
const TRANSIENT_AMBIGUITIES: usize = 5;
/// The least time for which a lock-out is taken to last.
pub const LOCK_OUT_WAIT: Duration = seconds(1800);
/// How long the count of rejections outlives the wait.
const COUNT_KEPT: Duration = seconds(3600);
/// The wait after a rejection where a person asks for a new attempt: of a client or a grant, which a failed login may lock.
pub(super) const EXPEDITED: Duration = seconds(30);
/// Likewise, of a request with its scopes and parameters alone.
pub(super) const EXPEDITED_REQUEST: Duration = seconds(2);
/// A shorter wait that the endpoint asks for is waited for in the queue, without a word.
const SHORT_WAIT: Duration = seconds(5);

/// The wait after so many rejections in a row before this one.
#[must_use]
pub fn rejection_wait(before: usize) -> Duration {
    REJECTION_WAITS.get(before).copied().unwrap_or(LOCK_OUT_WAIT)
}

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// An answer that holds requests back.
pub(super) struct Hold {
    pub(super) error: Error,
    /// What it is paced as: Transient, Limited, Ambiguous, Rejected or `LockedOut`.
    pub(super) class: Class,
    pub(super) until: Instant,
    /// Rejections in a row.
    count: usize,
    at: Instant,
    /// Until when the endpoint asked to wait: a person cannot shorten that.
    asked_until: Option<Instant>,
    /// Until when it limits requests, while it fails for longer: till then a token's life does not shorten the wait.
    limited_until: Option<Instant>,
    /// When the one attempt began that the end of a token's life allows.
    last_attempt: Option<Instant>,
}

/// Server errors with a code of refusal, by status and code.
#[derive(Default)]
pub(super) struct Ambiguities(Vec<((StatusCode, &'static str), usize)>);

impl Ambiguities {
    /// Counts one, and says what it is paced as, and how long.
    pub(super) fn pace(
        &mut self,
        (status, code): (StatusCode, &'static KnownCode),
        has_succeeded: bool,
        counts: bool,
    ) -> (Class, Duration) {
        let key = (status, code.code);
        let nth = match self.0.iter_mut().find(|(other, _)| *other == key) {
            Some((_, count)) => {
                *count += usize::from(counts);
                *count
            }
            None => {
                self.0.push((key, 1));
                1
            }
        };
        let transient = if has_succeeded { TRANSIENT_AMBIGUITIES } else { 0 };
        if nth <= transient {
            let doublings = u32::try_from(nth - 1).unwrap_or_default();
            return (Class::Transient, FIRST_TRANSIENT_WAIT * (1 << doublings.min(8)));
        }
        let nth = nth - transient - 1;
        match AMBIGUOUS_WAITS.get(nth) {
            Some(wait) => (Class::Ambiguous, *wait),
            None => (Class::Rejected, rejection_wait(nth + 1 - AMBIGUOUS_WAITS.len())),
        }
    }
}

impl Hold {
    /// After a rejection or a lock-out of a request that `began` then.
    pub(super) fn rejected(before: Option<&Hold>, error: &Error, began: Instant, now: Instant) -> Self {
        // What was in flight when the rejection came is rejected for the same reason, and counts once.
        let count = match before {
            Some(before) if before.concerns(began) => before.count.max(1),
            Some(before) => before.count + 1,
            None => 1,
        };
        let class = error.class();
        let wait = if class == Class::LockedOut { LOCK_OUT_WAIT } else { rejection_wait(count - 1) };
        Hold { count, ..Hold::new(before, error, class, wait, began, now) }
    }

    /// For so long. The wait that `before` was asked for goes on: an answer that was on its way then, or to a last attempt,
    /// does not shorten it, and says nothing of the end of a lock-out.
    pub(super) fn new(
        before: Option<&Hold>,
        error: &Error,
        class: Class,
        wait: Duration,
        began: Instant,
        now: Instant,
    ) -> Self {
        let asked = error.shared_retry_after().map(Duration::from_secs);
        let wait = now + asked.unwrap_or_default().max(wait);
        let asked = if class == Class::LockedOut { Some(wait) } else { asked.map(|asked| now + asked) };
        let still_asked = before.and_then(|before| before.asked_until).filter(|until| *until > now);
        let asked_until = asked.max(still_asked);
        let locked_out = before.filter(|before| before.class == Class::LockedOut && before.until > now);
        Hold {
            error: locked_out.map_or(error, |before| &before.error).clone(),
            class: locked_out.map_or(class, |before| before.class),
            until: asked_until.map_or(wait, |asked| asked.max(wait)),
            count: before.map_or(0, |before| before.count),
            at: now,
            asked_until,
            limited_until: None,
            // A request that began before the end of the wait is that attempt, or one by patience.
            last_attempt: before.filter(|before| began < before.until).and_then(|before| before.last_attempt),
        }
    }

    /// Whether a request that began then was on its way when the answer came.
    pub(super) fn concerns(&self, began: Instant) -> bool {
        began <= self.at
    }

    /// Whether a request with these terms is held back now.
    pub(super) fn holds(&self, terms: Terms, now: Instant) -> bool {
        let is_patient = || {
            terms.patience.is_none_or(|patience| {
                self.class != Class::Transient
                    || now.saturating_duration_since(self.at) < patience
                    || self.limited_until.is_some_and(|until| until > now)
            })
        };
        self.until > now && !self.allows_last_attempt(terms, now) && is_patient()
    }

    /// Not sooner than half a minute after the answer, which another request may just have got.
    fn allows_last_attempt(&self, terms: Terms, now: Instant) -> bool {
        terms.is_last_attempt
            && self.last_attempt.is_none()
            && self.class != Class::LockedOut
            && now >= self.at + rejection_wait(0)
    }

    /// The endpoint limits requests meanwhile.
    pub(super) fn limit(&mut self, until: Instant) {
        self.limited_until = self.limited_until.max(Some(until));
    }

    /// A request with these terms begins. Returns the time of the last attempt, if it is that.
    pub(super) fn begins(&mut self, terms: Terms, now: Instant) -> Option<Instant> {
        if self.until <= now || !self.allows_last_attempt(terms, now) {
            return None;
        }
        self.last_attempt = Some(now);
        self.last_attempt
    }

    /// The last attempt that began then was not sent: another request may make it.
    pub(super) fn give_back(&mut self, last_attempt: Instant) {
        self.last_attempt.take_if(|at| *at == last_attempt);
    }

    /// Whether the wait is so short that nothing is reported.
    pub(super) fn is_short(&self, now: Instant) -> bool {
        matches!(self.class, Class::Limited | Class::Transient) && self.until <= now + SHORT_WAIT
    }

    /// Whether the endpoint asked all requests to wait, or locked the client out, which a success of an earlier request
    /// does not end.
    pub(super) fn outlasts_success(&self, began: Instant) -> bool {
        let is_asked = self.asked_until.is_some_and(|asked| asked >= self.until);
        (is_asked || self.class == Class::LockedOut) && self.concerns(began)
    }

    /// The first wait is enough, unless the server itself asked for more. Returns whether the wait is shorter now.
    pub(super) fn expedite(&mut self, least: Duration) -> bool {
        let first = self.at + least;
        let until = self.until.min(self.asked_until.map_or(first, |asked| asked.max(first)));
        std::mem::replace(&mut self.until, until) > until
    }

    /// Whether the answer may have meant other credentials than the client's own.
    pub(super) fn may_mean_values(&self) -> bool {
        self.class == Class::Rejected && !self.error.names_client()
    }

    /// Whether forgetting it would change nothing.
    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until + COUNT_KEPT <= now
    }
}
