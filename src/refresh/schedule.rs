#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! The refresh schedule of a token. Whole seconds, saturating arithmetic, no clock.

use std::hash::{Hash, Hasher};

use jiff::Timestamp;

use crate::time::plus;
use crate::uid::Uid;

/// The propagation delay where pods are annotated, in seconds.
pub const PROMPT_DELAY: u64 = 15;
/// Allowance for the difference of clocks, in seconds.
pub const SKEW: u64 = 10;
/// Time for failed attempts before a reader could see an expired token, in seconds.
pub const RETRY_ROOM: u64 = 50;
/// The shortest interval between two refreshes, in seconds, for tokens that live at least twice as long.
pub const MIN_REFRESH_INTERVAL: u64 = 30;
/// The shortest interval between two token requests for any lifetime, in seconds.
pub const MIN_REQUEST_INTERVAL: u64 = 5;
/// The default of `refresh.maxInterval`, in seconds.
pub const DEFAULT_MAX_INTERVAL: u64 = 24 * 60 * 60;

/// The settings of the schedule, in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// `spec.refresh.before`: refresh when this much of the lifetime is left.
    pub before: Option<u64>,
    /// `spec.refresh.maxInterval`: refresh at least this often.
    pub max_interval: u64,
    /// The longest time by which a mounted file lags behind the Secret.
    pub propagation_delay: u64,
    /// The shortest time between two refreshes that a ClusterTokenIssuer allows, as far as half of the lifetime; 0: the general one.
    pub min_interval: u64,
}

/// Whether a token's lifetime is long enough for readers of mounted files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PropagationSafety {
    /// Long enough for propagation and for retries.
    Safe,
    /// Long enough for propagation only: after one failed attempt the file may hold an expired token.
    NoRetryRoom,
    /// The file may hold an expired token without any failure.
    TooShort,
}

impl Policy {
    /// The seconds that are left of `lifetime` when the token is refreshed, before jitter.
    fn reserve(&self, lifetime: u64) -> u64 {
        if let Some(before) = self.before.filter(|before| *before < lifetime) {
            return before;
        }
        let room = self.propagation_delay.saturating_add(SKEW).saturating_add(RETRY_ROOM);
        let most = lifetime.saturating_sub(MIN_REFRESH_INTERVAL).max(lifetime / 2);
        (lifetime / 3).max(most.min(room))
    }

    /// The seconds from issue to refresh of a token of `lifetime` seconds, before jitter; at least
    /// [`MIN_REQUEST_INTERVAL`], so that a very short lifetime does not cause a flood of requests.
    #[must_use]
    pub fn refresh_after(&self, lifetime: u64) -> u64 {
        let least = MIN_REFRESH_INTERVAL.max(self.min_interval).min(lifetime / 2);
        let after = lifetime.saturating_sub(self.reserve(lifetime)).max(least).min(lifetime);
        after.min(self.max_interval.max(least)).max(MIN_REQUEST_INTERVAL)
    }

    /// A remark on a `spec.refresh.before` that cannot be applied to a token of `lifetime` seconds.
    #[must_use]
    pub fn remark(&self, lifetime: u64) -> Option<String> {
        let before = self.before?;
        if before >= lifetime {
            return Some(format!(
                "spec.refresh.before is not less than the token's lifetime of {lifetime} s, so the default rule holds"
            ));
        }
        let (asked, after) = (lifetime - before, self.refresh_after(lifetime));
        (asked < after).then(|| {
            format!("spec.refresh.before asks for a refresh after {asked} s, which is too often: it is after {after} s")
        })
    }

    /// Whether the default rule leaves readers of a mounted file more time than `spec.refresh.before`.
    #[must_use]
    pub fn before_is_too_short(&self, lifetime: u64) -> bool {
        let without = Policy { before: None, ..*self };
        without.longest_unnoticed_outage(lifetime) > self.longest_unnoticed_outage(lifetime)
    }

    /// When a token that was issued at `issued_at` and lives for `lifetime` seconds is refreshed.
    ///
    /// Refreshes are spread by a jitter that depends on `uid` and `issued_at` only. It makes a refresh earlier by at most
    /// a tenth of the interval and at most half an hour.
    #[must_use]
    pub fn refresh_at(&self, uid: &Uid, issued_at: Timestamp, lifetime: u64) -> Timestamp {
        let after = self.refresh_after(lifetime);
        let least = MIN_REFRESH_INTERVAL.max(self.min_interval);
        let most = (after / 10).min(30 * 60).min(after.saturating_sub(self.min_interval.min(after)));
        let jitter = if after <= least { 0 } else { spread(uid, issued_at, most) };
        plus(issued_at, after.saturating_sub(jitter))
    }

    /// Whether tokens of `lifetime` seconds live long enough for readers of a mounted file.
    #[must_use]
    pub fn propagation(&self, lifetime: u64) -> PropagationSafety {
        let left = lifetime.saturating_sub(self.refresh_after(lifetime));
        let needed = self.propagation_delay.saturating_add(SKEW);
        if left >= needed.saturating_add(RETRY_ROOM) {
            PropagationSafety::Safe
        } else if left >= needed {
            PropagationSafety::NoRetryRoom
        } else {
            PropagationSafety::TooShort
        }
    }

    /// The longest outage of the endpoint, in seconds, that does not affect readers of a mounted file.
    #[must_use]
    pub fn longest_unnoticed_outage(&self, lifetime: u64) -> u64 {
        let left = lifetime.saturating_sub(self.refresh_after(lifetime));
        left.saturating_sub(self.propagation_delay).saturating_sub(SKEW)
    }
}

/// The seconds until the next request after the issuer returned the same token, `remaining` seconds before its expiry.
#[must_use]
pub fn cached_retry_after(remaining: u64) -> u64 {
    (remaining / 2).max(MIN_REFRESH_INTERVAL).min(remaining.saturating_add(1)).max(MIN_REQUEST_INTERVAL)
}

/// A number from 0 to `max` that is the same for the same source and time.
#[must_use]
pub fn spread(uid: &Uid, at: Timestamp, max: u64) -> u64 {
    // DefaultHasher::new() has fixed keys: its result is the same in every process of one build, which suffices for jitter.
    let mut hasher = std::hash::DefaultHasher::new();
    (uid, at.as_second()).hash(&mut hasher);
    hasher.finish() % max.saturating_add(1).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEFAULT: Policy =
        Policy { before: None, max_interval: DEFAULT_MAX_INTERVAL, propagation_delay: 90, min_interval: 0 };

    #[test]
    fn schedule_keeps_the_interval_of_an_issuer_up_to_half_of_the_lifetime() {
        let policy = |before, max_interval| Policy { before, max_interval, min_interval: 600, ..DEFAULT };
        // lifetime, policy, refresh after
        for (lifetime, policy, after) in [
            (3600, policy(Some(3599), DEFAULT_MAX_INTERVAL), 600),
            (3600, policy(None, 60), 600),
            (3600, policy(None, DEFAULT_MAX_INTERVAL), 2400),
            (600, policy(Some(599), 60), 300),
        ] {
            assert_eq!(policy.refresh_after(lifetime), after, "{policy:?}");
            for second in 0..100 {
                let issued = Timestamp::from_second(second).unwrap();
                let earliest = plus(issued, 600.min(lifetime / 2));
                assert!(
                    policy.refresh_at(&"uid".into(), issued, lifetime) >= earliest.min(plus(issued, after))
                );
            }
        }
        let remark = policy(Some(3599), DEFAULT_MAX_INTERVAL).remark(3600).unwrap();
        assert!(remark.ends_with("too often: it is after 600 s"), "{remark}");
    }

    #[test]
    fn schedule_matches_the_documented_table() {
        // lifetime, refresh after, longest outage that no reader of the file notices
        for (lifetime, after, outage, propagation) in [
            (60, 30, 0, PropagationSafety::TooShort),
            (129, 30, 0, PropagationSafety::TooShort),
            (130, 30, 0, PropagationSafety::NoRetryRoom),
            (150, 30, 20, PropagationSafety::NoRetryRoom),
            (179, 30, 49, PropagationSafety::NoRetryRoom),
            (180, 30, 50, PropagationSafety::Safe),
            (300, 150, 50, PropagationSafety::Safe),
            (1800, 1200, 500, PropagationSafety::Safe),
            (7200, 4800, 2300, PropagationSafety::Safe),
        ] {
            assert_eq!(DEFAULT.refresh_after(lifetime), after, "{lifetime} s");
            assert_eq!(DEFAULT.longest_unnoticed_outage(lifetime), outage, "{lifetime} s");
            assert_eq!(DEFAULT.propagation(lifetime), propagation, "{lifetime} s");
        }
        let prompt = Policy { propagation_delay: PROMPT_DELAY, ..DEFAULT };
        for (lifetime, after, outage, propagation) in [
            (49, 25, 0, PropagationSafety::TooShort),
            (50, 25, 0, PropagationSafety::NoRetryRoom),
            (60, 30, 5, PropagationSafety::NoRetryRoom),
            (104, 30, 49, PropagationSafety::NoRetryRoom),
            (105, 30, 50, PropagationSafety::Safe),
            (300, 200, 75, PropagationSafety::Safe),
        ] {
            assert_eq!(prompt.refresh_after(lifetime), after, "{lifetime} s");
            assert_eq!(prompt.longest_unnoticed_outage(lifetime), outage, "{lifetime} s");
            assert_eq!(prompt.propagation(lifetime), propagation, "{lifetime} s");
        }
        let vcd = Policy { max_interval: 15 * 60, ..DEFAULT };
        assert_eq!(vcd.refresh_after(30 * 24 * 3600), 15 * 60);
    }

    #[test]
    fn schedule_refresh_before_longer_than_lifetime_uses_default_rule() {
        let before = |before| Policy { before: Some(before), ..DEFAULT };
        assert_eq!(before(120).refresh_after(300), 180);
        assert_eq!(before(299).refresh_after(300), 30, "the shortest interval holds");
        assert_eq!(
            before(300).refresh_after(300),
            150,
            "a margin as large as the lifetime: the default rule"
        );
        assert_eq!(before(9000).refresh_after(300), 150);
        let remark = |seconds| before(seconds).remark(300).unwrap_or_default();
        assert!(remark(300).contains("not less than the token's lifetime of 300 s"));
        assert!(remark(299).contains("asks for a refresh after 1 s, which is too often: it is after 30 s"));
        assert_eq!((remark(270), remark(1), DEFAULT.remark(300)), (String::new(), String::new(), None));
        assert!(before(20).before_is_too_short(300) && !before(150).before_is_too_short(300));
        assert!(!before(300).before_is_too_short(300) && !DEFAULT.before_is_too_short(300));
        assert_eq!(before(20).propagation(300), PropagationSafety::TooShort, "the refresh is too late");
    }

    #[test]
    fn schedule_of_tiny_lifetimes_and_intervals_keeps_the_shortest_intervals() {
        for lifetime in 0..=10 {
            assert_eq!(DEFAULT.refresh_after(lifetime), MIN_REQUEST_INTERVAL);
        }
        assert_eq!(Policy { max_interval: 1, ..DEFAULT }.refresh_after(3600), MIN_REFRESH_INTERVAL);
    }

    #[test]
    fn cached_retry_after_is_half_of_the_remaining_lifetime_within_bounds() {
        for (remaining, after) in [(0, 5), (1, 5), (10, 11), (40, 30), (100, 50), (3600, 1800)] {
            assert_eq!(cached_retry_after(remaining), after, "{remaining} s left");
        }
    }

    fn any_u64() -> impl Strategy<Value = u64> {
        prop_oneof![any::<u64>(), 0..4000u64, Just(u64::MAX), Just(0)]
    }

    proptest! {
        #[test]
        fn schedule_of_any_numbers_refreshes_within_the_lifetime(lifetime in any_u64(), before in proptest::option::of(any_u64()), max_interval in any_u64(), propagation_delay in any_u64()) {
            let policy = Policy { before, max_interval, propagation_delay, min_interval: 0 };
            let after = policy.refresh_after(lifetime);
            prop_assert!(after >= MIN_REQUEST_INTERVAL);
            prop_assert!(after <= lifetime.max(MIN_REQUEST_INTERVAL));
            let _ = (policy.propagation(lifetime), policy.longest_unnoticed_outage(lifetime), cached_retry_after(lifetime));
        }

        #[test]
        fn schedule_jitter_is_earlier_by_at_most_a_tenth(uid in ".{0,40}", issued in -62_135_596_800i64..253_402_200_000, lifetime in any_u64()) {
            let (uid, issued) = (Uid::from(uid), Timestamp::from_second(issued).unwrap());
            let at = DEFAULT.refresh_at(&uid, issued, lifetime);
            let after = DEFAULT.refresh_after(lifetime);
            prop_assert!(at <= plus(issued, after));
            prop_assert!(at >= plus(issued, after - (after / 10).min(1800)));
            prop_assert_eq!(at, DEFAULT.refresh_at(&uid, issued, lifetime));
        }
    }
}
