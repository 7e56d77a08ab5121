#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! How long to wait after a failure. Pure: jitter is a hash.

use super::schedule::{SKEW, spread};
use crate::time::seconds_between;
use jiff::Timestamp;
use token_endpoint::Class;

/// The waits after a rejection: a wrong secret that is tried fast locks accounts.
const REJECTED: [u64; 4] = [30, 2 * 60, 10 * 60, 30 * 60];
const LOCKED_OUT: u64 = 30 * 60;

/// What a wait depends on.
#[derive(Clone, Copy, Debug)]
pub struct Failed<'a> {
    /// The kind of failure.
    pub class: Class,
    /// How many attempts have failed in a row, with this one: 1 at least.
    pub count: u32,
    /// `Retry-After` of the answer, in seconds.
    pub retry_after: Option<u64>,
    /// When the token that the target holds expires, if it holds one for the present spec.
    pub expires_at: Option<Timestamp>,
    /// How long a mounted file may lag behind the Secret, in seconds.
    pub propagation_delay: u64,
    /// The source, for jitter.
    pub uid: &'a str,
}

/// The seconds to wait before the next attempt; `None` where only a change helps.
#[must_use]
pub fn wait(now: Timestamp, failed: &Failed<'_>) -> Option<u64> {
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
            let wait = REJECTED.get(nth as usize).copied().unwrap_or(LOCKED_OUT);
            // One more attempt in time for readers of the file, should it have been put right at the issuer.
            let last_call = remaining.saturating_sub(failed.propagation_delay.saturating_add(SKEW)).max(30);
            Some(if remaining > 0 { wait.min(last_call) } else { wait })
        }
        Class::LockedOut => Some(LOCKED_OUT.max(failed.retry_after.unwrap_or(0))),
        Class::Configuration => None,
    }
}

/// The most that one token request may take, in seconds, with `remaining` seconds of life in the old token.
#[must_use]
pub fn attempt_timeout(remaining: u64) -> u64 {
    (remaining / 8).clamp(5, 30)
}

fn transient(nth: u32, remaining: u64) -> u64 {
    let doubled = |first: u64| first.saturating_mul(1u64.checked_shl(nth).unwrap_or(u64::MAX));
    if remaining > 0 { doubled(2).min((remaining / 6).clamp(5, 300)) } else { doubled(5).min(60) }
}

/// Between half and all of `wait`, and 1 s at least.
fn jittered(now: Timestamp, uid: &str, wait: u64) -> u64 {
    (wait - spread(uid, now, wait / 2)).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::plus;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);

    fn failed(class: Class, count: u32, remaining: u64) -> Failed<'static> {
        let expires_at = (remaining > 0).then(|| plus(NOW, remaining));
        Failed { class, count, retry_after: None, expires_at, propagation_delay: 90, uid: "u" }
    }

    fn between(class: Class, count: u32, remaining: u64, low: u64, high: u64) {
        let wait = wait(NOW, &failed(class, count, remaining)).unwrap();
        assert!((low..=high).contains(&wait), "{class:?} {count} {remaining}: {wait} not in {low}..={high}");
    }

    #[test]
    fn transient_failures_double_within_what_the_token_has_left() {
        between(Class::Transient, 1, 150, 1, 2);
        between(Class::Transient, 3, 150, 4, 8);
        between(Class::Transient, 9, 150, 13, 25);
        between(Class::Transient, 64, 7200, 150, 300);
        between(Class::Transient, 1, 0, 3, 5);
        between(Class::Transient, 9, 0, 30, 60);
    }

    #[test]
    fn rejections_wait_long_and_come_back_before_the_end() {
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
    fn limits_are_respected_and_spread_upwards() {
        between(Class::Limited, 1, 100, 30, 37);
        let limited = Failed { retry_after: Some(120), ..failed(Class::Limited, 1, 100) };
        assert!((120..=150).contains(&wait(NOW, &limited).unwrap()));
        let unavailable = Failed { retry_after: Some(120), ..failed(Class::Transient, 1, 100) };
        assert_eq!(wait(NOW, &unavailable), Some(120), "a 503 may ask for patience too");
    }

    #[test]
    fn unclear_answers_and_configuration() {
        between(Class::Unclear, 1, 1000, 15, 60);
        between(Class::Unclear, 9, 1000, 15, 60);
        assert_eq!(wait(NOW, &failed(Class::Unclear, 1, 0)), Some(300));
        assert_eq!(wait(NOW, &failed(Class::Configuration, 1, 0)), None);
    }

    #[test]
    fn one_attempt_is_bounded_by_the_life_that_is_left() {
        for (remaining, seconds) in [(0, 5), (40, 5), (80, 10), (240, 30), (u64::MAX, 30)] {
            assert_eq!(attempt_timeout(remaining), seconds);
        }
    }

    proptest! {
        #[test]
        fn no_numbers_panic_or_hammer(count in any::<u32>(), remaining in any::<u64>(), retry_after in proptest::option::of(any::<u64>()), delay in any::<u64>()) {
            for class in [Class::Transient, Class::Limited, Class::Unclear, Class::Rejected, Class::LockedOut, Class::Malformed] {
                let failed = Failed { retry_after, propagation_delay: delay, ..failed(class, count, remaining) };
                prop_assert!(wait(NOW, &failed).unwrap() >= 1);
            }
        }
    }
}
