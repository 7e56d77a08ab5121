//! The back-off after calls to the API server that failed. Pure: jitter is a hash.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

use jiff::Timestamp;

use super::schedule::spread;
use crate::uid::Uid;

/// The wait after the first failure, before jitter.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// The longest wait, whatever the API server asks for, in seconds.
const MAX_WAIT: u64 = 60;
/// The longest wait is not shortened below this by a token that expires soon, in seconds.
const LEAST_MAX_WAIT: u64 = 5;
/// The longest wait while a token is not written, in seconds.
const MAX_WAIT_TOKEN: u64 = 15;

/// What waits for the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaiting {
    /// An access token is in memory alone.
    Token,
    /// Nothing that is in memory alone; the token in the target lives for so many seconds.
    Nothing(u64),
}

/// The wait before a call is repeated, after `count` failures in a row. `asked` is what the API server asks to wait.
#[must_use]
pub fn api_server_wait(
    now: Timestamp,
    uid: &Uid,
    count: u32,
    asked: Option<Duration>,
    awaiting: Awaiting,
) -> Duration {
    let most = Duration::from_secs(match awaiting {
        Awaiting::Token => MAX_WAIT_TOKEN,
        Awaiting::Nothing(0) => MAX_WAIT,
        Awaiting::Nothing(remaining) => (remaining / 6).clamp(LEAST_MAX_WAIT, MAX_WAIT),
    });
    let doubled = FIRST_WAIT.saturating_mul(1u32.checked_shl(count.max(1) - 1).unwrap_or(u32::MAX));
    let jitter = |most: Duration| {
        Duration::from_millis(spread(uid, now, u64::try_from(most.as_millis()).unwrap_or(u64::MAX)))
    };
    let wait = doubled.min(most);
    // Of what was asked for no part is left out, unless it is longer than can be waited.
    let asked = asked.map_or(Duration::ZERO, |asked| asked + jitter(asked.min(most) / 4));
    (wait - jitter(wait / 2)).max(asked).min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::constant(1_800_000_000, 0);
    const NOTHING: Awaiting = Awaiting::Nothing(0);

    fn waits(count: u32, asked: Option<u64>, awaiting: Awaiting) -> Vec<u64> {
        let wait = |uid: u32| {
            let asked = asked.map(Duration::from_secs);
            u64::try_from(api_server_wait(NOW, &uid.to_string().into(), count, asked, awaiting).as_millis())
                .unwrap()
        };
        let mut waits: Vec<u64> = (0..100).map(wait).collect();
        waits.sort_unstable();
        waits
    }

    fn between(waits: &[u64], least: u64, most: u64) {
        assert!(waits[0] >= least && waits[99] <= most, "{least} {most} {waits:?}");
    }

    #[test]
    fn api_server_wait_doubles_up_to_a_minute_with_jitter() {
        between(&waits(1, None, NOTHING), 2500, 5000);
        between(&waits(3, None, NOTHING), 10_000, 20_000);
        between(&waits(u32::MAX, None, NOTHING), 30_000, 60_000);
        let spread = waits(1, None, NOTHING);
        assert!(spread[99] - spread[0] > 1500, "not all at once: {spread:?}");
    }

    #[test]
    fn api_server_wait_obeys_the_api_server_within_what_can_be_waited() {
        between(&waits(1, Some(20), NOTHING), 20_000, 25_000);
        between(&waits(1, Some(1), NOTHING), 2500, 5000);
        between(&waits(1, Some(3600), NOTHING), 60_000, 60_000);
        between(&waits(9, None, Awaiting::Token), 7500, 15_000);
        between(&waits(9, None, Awaiting::Nothing(120)), 10_000, 20_000);
    }
}
