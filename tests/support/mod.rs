//! The servers and helpers of the tests. Servers are real ones, started once for each test binary.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of this")]
#![allow(clippy::print_stderr, reason = "progress of long builds")]

pub mod account;
pub mod authority;
pub mod authorization_server;
pub mod chart;
pub mod control_plane;
pub mod definitions;
pub mod gitops;
pub mod helm_test;
pub mod keycloak;
pub mod keycloak_realm;
pub mod operator;
pub mod policy;
pub mod process;
pub mod program;
pub mod promtool;
pub mod relay;
pub mod scene;
pub mod scripted_server;
pub mod wall_clock;

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Beyond the limit of [`eventually`], for an attempt that has begun within it.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(60);

/// Repeats `ask` until it succeeds; panics with the last error when `limit` has passed, or when an attempt hangs.
pub async fn eventually<T, E: Debug>(
    what: &str,
    limit: Duration,
    mut ask: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let start = Instant::now();
    let mut last = None;
    loop {
        let left = (limit + ATTEMPT_LIMIT).saturating_sub(start.elapsed());
        match tokio::time::timeout(left, ask()).await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(error)) if start.elapsed() > limit => {
                panic!("{what}: not within {limit:?}; last: {error:?}")
            }
            Ok(Err(error)) => last = Some(error),
            Err(_) => {
                panic!("{what}: an attempt hangs, {:?} after the first; last: {last:?}", start.elapsed())
            }
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
