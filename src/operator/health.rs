//! The checks of `/livez` and `/readyz`.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use super::admin::{HealthCheck, Probe};
use super::liveness::Liveness;
use crate::controller::Context;

/// 2026-01-01: this program is not older, so an earlier time is wrong.
const MIN_TIME: i64 = 1_767_225_600;
/// 2100-01-01.
const MAX_TIME: i64 = 4_102_444_800;

/// Live: this process makes progress, and its clock is plausible. An API server or a token endpoint that is down does not
/// count, because a restart would not help.
pub(super) fn live(liveness: Arc<Liveness>) -> Probe {
    Box::new(move || {
        let parts = liveness.parts(Instant::now());
        // Passes by being answered.
        let mut checks = vec![HealthCheck::passed("ping")];
        checks.extend(parts.into_iter().map(|(name, part)| HealthCheck::new(name, part)));
        checks.push(HealthCheck::new("clock", check_clock(Timestamp::now())));
        checks
    })
}

/// Ready: all TokenSources and their Secrets are known, so this process could act at once. A standby is ready too.
pub(super) fn ready(context: Arc<Context>) -> Probe {
    Box::new(move || {
        let caches = context.is_warm().then_some(()).ok_or(NotReady::Caches);
        let stopping = context.leadership().is_stopping();
        vec![
            HealthCheck::new("caches", caches),
            HealthCheck::new("shutdown", (!stopping).then_some(()).ok_or(NotReady::Stopping)),
        ]
    })
}

#[derive(Debug, thiserror::Error)]
enum NotReady {
    #[error("not all TokenSources, or not the metadata of all Secrets, have been listed yet")]
    Caches,
    #[error("stopping")]
    Stopping,
}

/// A time that cannot be right.
#[derive(Debug, thiserror::Error)]
#[error("it cannot be {0}: the node's clock is wrong, and so would be every expiry")]
struct ImplausibleTime(Timestamp);

fn check_clock(now: Timestamp) -> Result<(), ImplausibleTime> {
    if (MIN_TIME..MAX_TIME).contains(&now.as_second()) { Ok(()) } else { Err(ImplausibleTime(now)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_clock_accepts_this_century_from_2026_on() {
        for (time, plausible) in [
            ("1970-01-01T00:10:00Z", false),
            ("2025-12-31T23:59:59Z", false),
            ("2026-01-01T00:00:00Z", true),
            ("2099-12-31T23:59:59Z", true),
            ("2100-01-01T00:00:00Z", false),
        ] {
            assert_eq!(check_clock(time.parse().unwrap()).is_ok(), plausible, "{time}");
        }
    }
}
