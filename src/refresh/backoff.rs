#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! The back-off after failed token requests. Pure: jitter is a hash.

use super::schedule::{SKEW, spread};
use crate::time::seconds_between;
use jiff::Timestamp;
use token_endpoint::Class;

/// The waits after rejections, in seconds. They are long because repeated attempts with a wrong secret lock accounts.
const REJECTED_WAITS: [u64; 4] = [30, 2 * 60, 10 * 60, 30 * 60];
/// The wait after a lock-out, and the longest one after rejections, in seconds.
const LOCKED_OUT_WAIT: u64 = 30 * 60;

/// The inputs of the back-off.
#[derive(Clone, Copy, Debug)]
pub struct FailedAttempt<'a> {
    /// The class of the failure.
    pub class: Class,
    /// The number of attempts that failed in a row, including this one; at least 1.
    pub count: u32,
    /// `Retry-After` of the response, in seconds.
    pub retry_after: Option<u64>,
    /// When the token in the target expires, if it is one for the present spec.
    pub expires_at: Option<Timestamp>,
    /// The longest time by which a mounted file lags behind the Secret, in seconds.
    pub propagation_delay: u64,
    /// The uid of the source, for jitter.
    pub uid: &'a str,
}

/// The seconds to wait before the next attempt; `None` where no attempt is made before something changes.
#[must_use]
pub fn wait(now: Timestamp, failed: &FailedAttempt<'_>) -> Option<u64> {
    let remaining = failed.expires_at.map_or(0, |at| seconds_between(now, at));
    let nth = failed.count.max(1) - 1;
    match failed.class {
        Class::Transient => {
            Some(jittered(now, failed.uid, transient(nth, remaining)).max(failed.retry_after.unwrap_or(0)))
        }
        Class::Limited => {
            let least = failed.retry_after.unwrap_or(0).max(30);
            Some(least.saturating_add(spread(failed.uid, now, least / 4)))
        }
        Class::Unclear if remaining > 0 => {
            Some(jittered(now, failed.uid, transient(nth, remaining)).clamp(15, 60))
        }
        Class::Unclear => Some(5 * 60),
        Class::Rejected | Class::Malformed => {
            let wait = REJECTED_WAITS.get(nth as usize).copied().unwrap_or(LOCKED_OUT_WAIT);
            // One attempt early enough for readers of the file, in case the issuer accepts the client by then.
            let last_chance = remaining.saturating_sub(failed.propagation_delay.saturating_add(SKEW)).max(30);
            Some(if remaining > 0 { wait.min(last_chance) } else { wait })
        }
        Class::LockedOut => Some(LOCKED_OUT_WAIT.max(failed.retry_after.unwrap_or(0))),
        Class::Configuration => None,
    }
}

/// The timeout of one token request, in seconds, where the old token lives for `remaining` more seconds.
#[must_use]
pub fn attempt_timeout(remaining: u64) -> u64 {
    (remaining / 8).clamp(5, 30)
}

fn transient(nth: u32, remaining: u64) -> u64 {
    let doubled = |first: u64| first.saturating_mul(1u64.checked_shl(nth).unwrap_or(u64::MAX));
    if remaining > 0 { doubled(2).min((remaining / 6).clamp(5, 300)) } else { doubled(5).min(60) }
}

/// A time between half and all of `wait`, at least 1 s.
fn jittered(now: Timestamp, uid: &str, wait: u64) -> u64 {
    (wait - spread(uid, now, wait / 2)).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::plus;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn failed(class: Class, count: u32, remaining: u64) -> FailedAttempt<'static> {
        let expires_at = (remaining > 0).then(|| plus(NOW, remaining));
        FailedAttempt { class, count, retry_after: None, expires_at, propagation_delay: 90, uid: "u" }
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

    #[test]
    fn wait_after_rate_limits_is_at_least_retry_after() {
        between(Class::Limited, 1, 100, 30, 37);
        let limited = FailedAttempt { retry_after: Some(120), ..failed(Class::Limited, 1, 100) };
        assert!((120..=150).contains(&wait(NOW, &limited).unwrap()));
        let unavailable = FailedAttempt { retry_after: Some(120), ..failed(Class::Transient, 1, 100) };
        assert_eq!(wait(NOW, &unavailable), Some(120), "Retry-After of a 503 holds too");
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
            assert_eq!(attempt_timeout(remaining), seconds);
        }
    }

    proptest! {
        #[test]
        fn wait_of_any_numbers_is_at_least_a_second(count in any::<u32>(), remaining in any::<u64>(), retry_after in proptest::option::of(any::<u64>()), delay in any::<u64>()) {
            for class in [Class::Transient, Class::Limited, Class::Unclear, Class::Rejected, Class::LockedOut, Class::Malformed] {
                let failed = FailedAttempt { retry_after, propagation_delay: delay, ..failed(class, count, remaining) };
                prop_assert!(wait(NOW, &failed).unwrap() >= 1);
            }
        }
    }
}
