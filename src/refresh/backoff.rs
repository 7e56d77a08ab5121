#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! The back-off after failed token requests. Pure: jitter is a hash.

use super::schedule::{SKEW, spread};
use crate::time::seconds_between;
use crate::uid::Uid;
use jiff::Timestamp;
use token_endpoint::Class;
use token_endpoint::limiter::{LOCK_OUT_WAIT, rejection_wait};

/// The first wait after "too many requests", in seconds; it doubles.
const LIMITED_WAIT: u64 = 30;
/// Likewise, where the endpoint asks for a wait of its own, which it may ask for again and again.
const LIMITED_WAIT_IF_ASKED: u64 = 5;
/// Bounds those two, in seconds.
const MAX_LIMITED_WAIT: u64 = 10 * 60;
/// The wait after a server error with a code of refusal, where nothing is known of the client, in seconds.
const AMBIGUOUS_WAIT: u64 = 10;
/// The shortest wait before the last attempt in the lifetime of a token, in seconds.
const MIN_LAST_WAIT: u64 = 30;
/// The longest wait between the attempts that may still be in time for readers, though only by the difference that is allowed
/// to clocks, in seconds.
const LATE_WAIT: u64 = 2;
/// The shortest timeout of an attempt, in seconds.
const MIN_TIMEOUT: u64 = 5;

/// The inputs of the back-off.
#[derive(Clone, Copy, Debug)]
pub struct FailedAttempt<'a> {
    /// The class of the failure.
    pub class: Class,
    /// The number of attempts that failed in a row, including this one; at least 1.
    pub count: u32,
    /// `Retry-After` of the response, in seconds.
    pub retry_after: Option<u64>,
    /// How long requests like this one are held back for all sources that send them, in seconds. It replaces the wait by
    /// `count`.
    pub held_back: Option<u64>,
    /// When the token in the target expires, if it is one for the present spec.
    pub expires_at: Option<Timestamp>,
    /// The longest time by which a mounted file lags behind the Secret, in seconds.
    pub propagation_delay: u64,
    /// The endpoint may have spent the refresh token: each repetition may have it revoke the grant.
    pub may_be_spent: bool,
    /// The uid of the source, for jitter.
    pub uid: &'a Uid,
}

/// The seconds to wait before the next attempt; `None` where no attempt is made before something changes.
#[must_use]
pub fn wait(now: Timestamp, failed: &FailedAttempt<'_>) -> Option<u64> {
    let remaining = failed.expires_at.map_or(0, |at| seconds_between(now, at));
    let nth = failed.count.max(1) - 1;
    let asked = failed.retry_after.unwrap_or(0);
    let wait = |own: u64| failed.held_back.unwrap_or(own).max(asked);
    // One attempt early enough for readers of the file, in case the issuer accepts the client by then.
    let at_the_latest = |wait: u64| match last_attempt_in(remaining, failed.propagation_delay) {
        Some(last) => wait.min(last.max(MIN_LAST_WAIT)),
        // Another source's answer: the one attempt of all may still be due.
        None if failed.held_back.is_some() && remaining > MIN_LAST_WAIT => wait.min(MIN_LAST_WAIT),
        None => wait,
    };
    match failed.class {
        Class::Transient => {
            let wait = wait(jittered(now, failed.uid, transient(nth, remaining)));
            let wait = if remaining > 0 { wait.min(patience(remaining)) } else { wait };
            let is_asked = failed.retry_after.is_some() || failed.held_back.is_some();
            Some(match last_attempt_in(remaining, failed.propagation_delay) {
                // By then the longest outage that readers of the file need not notice is over.
                Some(last) => wait.min(last),
                // An attempt was under way at that moment.
                None if remaining > failed.propagation_delay && !is_asked && !failed.may_be_spent => {
                    wait.min(LATE_WAIT)
                }
                None => wait,
            })
        }
        Class::Limited => {
            let first = if failed.retry_after.is_some() { LIMITED_WAIT_IF_ASKED } else { LIMITED_WAIT };
            let wait = wait(doubled(first, nth).min(MAX_LIMITED_WAIT));
            Some(at_the_latest(wait.saturating_add(spread(failed.uid, now, wait / 4))))
        }
        Class::Unclear if remaining > 0 => {
            Some(at_the_latest(wait(jittered(now, failed.uid, transient(nth, remaining)).clamp(15, 60))))
        }
        Class::Unclear => Some(wait(5 * 60)),
        Class::Ambiguous => Some(at_the_latest(wait(AMBIGUOUS_WAIT))),
        Class::Rejected | Class::Malformed => {
            let own = rejection_wait(nth as usize).as_secs();
            Some(at_the_latest(wait(own)))
        }
        Class::LockedOut => Some(wait(LOCK_OUT_WAIT.as_secs())),
        Class::Configuration => None,
    }
}

/// How long a token that lives for `remaining` more seconds may wait for an endpoint that fails by itself, in seconds.
#[must_use]
pub fn patience(remaining: u64) -> u64 {
    (remaining / 6).max(5)
}

/// The seconds until the last attempt with which readers of the file never find an expired token; `None` once that has
/// passed.
fn last_attempt_in(remaining: u64, propagation_delay: u64) -> Option<u64> {
    remaining.checked_sub(propagation_delay.saturating_add(SKEW)).filter(|seconds| *seconds > 0)
}

/// Whether an attempt now is the last one, or a later one, in the lifetime of a token.
#[must_use]
pub fn is_last_attempt(remaining: u64, propagation_delay: u64) -> bool {
    remaining > 0 && last_attempt_in(remaining, propagation_delay).is_none()
}

/// The timeout of one token request, in seconds, where the old token lives for `remaining` more seconds. One that hangs
/// ends soon enough for another one that is in time for readers, but not where it `spends` a refresh token: a new one may be on its
/// way.
#[must_use]
pub fn attempt_timeout(remaining: u64, propagation_delay: u64, spends: bool) -> u64 {
    let longest = last_attempt_in(remaining, propagation_delay).filter(|_| !spends).unwrap_or(u64::MAX);
    (remaining / 8).min(longest).clamp(MIN_TIMEOUT, 30)
}

fn transient(nth: u32, remaining: u64) -> u64 {
    if remaining > 0 { doubled(2, nth).min(patience(remaining).min(300)) } else { doubled(5, nth).min(60) }
}

fn doubled(first: u64, nth: u32) -> u64 {
    first.saturating_mul(1u64.checked_shl(nth).unwrap_or(u64::MAX))
}

/// A time between half and all of `wait`, at least 1 s.
fn jittered(now: Timestamp, uid: &Uid, wait: u64) -> u64 {
    (wait - spread(uid, now, wait / 2)).max(1)
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::refresh::schedule::{DEFAULT_MAX_INTERVAL, Policy};
    use crate::time::plus;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);
    static UID: LazyLock<Uid> = LazyLock::new(|| "u".into());

    fn failed(class: Class, count: u32, remaining: u64) -> FailedAttempt<'static> {
        let expires_at = (remaining > 0).then(|| plus(NOW, remaining));
        FailedAttempt {
            class,
            count,
            retry_after: None,
            held_back: None,
            expires_at,
            propagation_delay: 90,
            may_be_spent: false,
            uid: &UID,
        }
    }

    fn between(class: Class, count: u32, remaining: u64, low: u64, high: u64) {
        let wait = wait(NOW, &failed(class, count, remaining)).unwrap();
        assert!((low..=high).contains(&wait), "{class:?} {count} {remaining}: {wait} not in {low}..={high}");
    }

    #[test]
    fn wait_after_transient_failures_doubles_within_the_remaining_lifetime() {
        between(Class::Transient, 1, 150, 1, 2);
        between(Class::Transient, 3, 150, 4, 8);
        between(Class::Transient, 9, 150, 13, 25);
        between(Class::Transient, 64, 7200, 150, 300);
        between(Class::Transient, 1, 0, 3, 5);
        between(Class::Transient, 9, 0, 30, 60);
    }

    #[test]
    fn wait_after_rejections_ends_before_the_token_expires() {
        for (count, expected) in [(1, 30), (2, 120), (3, 600), (4, 1800), (99, 1800)] {
            assert_eq!(wait(NOW, &failed(Class::Rejected, count, 0)), Some(expected));
            assert_eq!(wait(NOW, &failed(Class::Malformed, count, 0)), Some(expected));
        }
        assert_eq!(
            wait(NOW, &failed(Class::Rejected, 4, 700)),
            Some(600),
            "no later than P+S before the end"
        );
        assert_eq!(wait(NOW, &failed(Class::Rejected, 4, 110)), Some(30), "but not sooner than 30 s");
        assert_eq!(wait(NOW, &failed(Class::LockedOut, 1, 700)), Some(1800));
    }

    fn asked(class: Class, count: u32, remaining: u64, retry_after: u64) -> FailedAttempt<'static> {
        FailedAttempt { retry_after: Some(retry_after), ..failed(class, count, remaining) }
    }

    #[test]
    fn wait_after_rate_limits_is_retry_after_or_doubles_from_half_a_minute_to_ten_minutes() {
        between(Class::Limited, 1, 0, 30, 37);
        between(Class::Limited, 2, 0, 60, 75);
        between(Class::Limited, 9, 0, 600, 750);
        for (count, retry_after, low, high) in [
            (1, 120, 120, 150),
            (1, 3600, 3600, 4500),
            (1, 0, 5, 6),
            (1, 1, 5, 6),
            (4, 1, 40, 50),
            (9, 1, 600, 750),
        ] {
            let wait = wait(NOW, &asked(Class::Limited, count, 0, retry_after)).unwrap();
            assert!((low..=high).contains(&wait), "{count} {retry_after}: {wait}");
        }
    }

    /// Sources of tokens that live for an hour and less lose them by a `Retry-After` of an hour.
    #[test]
    fn wait_after_rate_limits_allows_one_attempt_before_readers_see_an_expired_token() {
        let wait = |remaining| wait(NOW, &asked(Class::Limited, 1, remaining, 3600)).unwrap();
        assert_eq!(wait(700), 600, "P+S before the end");
        assert_eq!(wait(110), 30, "but not sooner than 30 s");
        assert!(wait(100) >= 3600 && wait(40) >= 3600, "and once");
    }

    /// The table of docs/how-it-decides.md: a longest outage without effect on readers.
    #[test]
    fn attempt_after_the_longest_outage_that_is_promised_comes_in_time_for_readers() {
        let uids: Vec<Uid> = (0..50).map(|number| format!("uid {number}").into()).collect();
        for (lifetime, delay) in
            [(150, 90), (300, 90), (1800, 90), (7200, 90), (60, 15), (150, 15), (300, 15), (7200, 15)]
        {
            let policy = Policy {
                before: None,
                max_interval: DEFAULT_MAX_INTERVAL,
                propagation_delay: delay,
                min_interval: 0,
            };
            let outage = policy.longest_unnoticed_outage(lifetime);
            let (due, expires_at) = (plus(NOW, policy.refresh_after(lifetime)), plus(NOW, lifetime));
            // Answered at once, not connected, and silent for as long as it may.
            for (took, least) in [(0, delay + SKEW), (5, delay + SKEW / 4), (14, delay + SKEW / 4)] {
                for uid in &uids {
                    let (mut at, mut count) = (due, 0);
                    while seconds_between(due, at) < outage {
                        count += 1;
                        let took = attempt_timeout(seconds_between(at, expires_at), delay, false).min(took);
                        at = plus(at, took);
                        let expires_at = Some(expires_at);
                        let attempt = FailedAttempt {
                            uid,
                            propagation_delay: delay,
                            expires_at,
                            ..failed(Class::Transient, count, 0)
                        };
                        at = plus(at, wait(at, &attempt).unwrap());
                    }
                    let left = seconds_between(at, expires_at);
                    assert!(
                        left >= least,
                        "{lifetime} s, {delay} s, {took} s, {uid}: {left} s before its end"
                    );
                }
            }
        }
    }

    /// A server error waits a sixth of the remaining life at most; only 429 obeys an hour.
    #[test]
    fn wait_after_server_errors_is_retry_after_and_at_most_a_sixth_of_the_remaining_lifetime() {
        for (remaining, retry_after, expected) in [
            (150, 3600, 25),
            (6000, 120, 120),
            (6000, 3600, 1000),
            (20, 3600, 5),
            (86_400, 3600, 3600),
            (0, 3600, 3600),
        ] {
            let failed = asked(Class::Transient, 1, remaining, retry_after);
            assert_eq!(wait(NOW, &failed), Some(expected), "{remaining} {retry_after}");
        }
    }

    #[test]
    fn wait_of_requests_that_are_held_back_lasts_as_long_and_ends_before_the_token_expires() {
        let held = |class, held_back, remaining| {
            wait(NOW, &FailedAttempt { held_back: Some(held_back), ..failed(class, 1, remaining) })
        };
        assert_eq!(held(Class::Rejected, 1700, 0), Some(1700));
        assert_eq!(held(Class::Rejected, 1700, 700), Some(600));
        assert_eq!(held(Class::Rejected, 7, 0), Some(7), "a person asked for an attempt");
        assert_eq!(
            held(Class::Rejected, 1700, 90),
            Some(30),
            "nothing was sent: asks again in vain, or as the last"
        );
        assert_eq!(held(Class::Rejected, 1700, 30), Some(1700));
        assert_eq!(held(Class::Transient, 3600, 150), Some(25));
        assert_eq!(held(Class::Ambiguous, 120, 0), Some(120));
        assert_eq!(held(Class::LockedOut, 1900, 150), Some(1900), "no attempt sooner");
        assert_eq!(wait(NOW, &failed(Class::Ambiguous, 1, 0)), Some(10));
    }

    #[test]
    fn last_attempt_is_due_once_readers_may_see_an_expired_token() {
        let due: Vec<bool> = [0, 1, 100, 101, 300].map(|remaining| is_last_attempt(remaining, 90)).into();
        assert_eq!(due, [false, true, true, false, false]);
    }

    #[test]
    fn wait_after_unclear_responses_is_bounded_and_after_configuration_errors_none() {
        between(Class::Unclear, 1, 1000, 15, 60);
        between(Class::Unclear, 9, 1000, 15, 60);
        assert_eq!(wait(NOW, &failed(Class::Unclear, 1, 0)), Some(300));
        assert_eq!(wait(NOW, &failed(Class::Configuration, 1, 0)), None);
    }

    #[test]
    fn attempt_timeout_is_an_eighth_of_the_remaining_lifetime_within_bounds() {
        for (remaining, seconds) in [(0, 5), (40, 5), (80, 10), (240, 30), (u64::MAX, 30)] {
            assert_eq!(attempt_timeout(remaining, 90, false), seconds);
        }
        for (remaining, seconds, of_spent) in [(100, 12, 12), (102, 5, 12), (108, 8, 13), (120, 15, 15)] {
            let timeouts = [false, true].map(|spends| attempt_timeout(remaining, 90, spends));
            assert_eq!(timeouts, [seconds, of_spent], "{remaining}");
        }
    }

    proptest! {
        #[test]
        fn wait_of_any_numbers_is_at_least_a_second(count in any::<u32>(), remaining in any::<u64>(), retry_after in proptest::option::of(any::<u64>()), delay in any::<u64>()) {
            for class in [Class::Transient, Class::Limited, Class::Unclear, Class::Ambiguous, Class::Rejected, Class::LockedOut, Class::Malformed] {
                let failed = FailedAttempt { retry_after, held_back: retry_after, propagation_delay: delay, ..failed(class, count, remaining) };
                prop_assert!(wait(NOW, &failed).unwrap() >= 1);
            }
        }
    }
}
