//! What the tests run against: real servers, started once for each test binary.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of this")]
#![allow(clippy::print_stderr, reason = "progress, for whoever waits")]

pub mod account;
pub mod authority;
pub mod authorization_server;
pub mod chart;
pub mod control_plane;
pub mod definitions;
pub mod gitops;
pub mod operator;
pub mod policy;
pub mod program;
pub mod promtool;
pub mod relay;
pub mod scene;
pub mod scripted_server;

use std::fmt::Debug;
use std::time::{Duration, Instant};

/// Asks again and again until there is an answer; panics with the last refusal when `limit` has passed.
pub async fn eventually<T, E: Debug>(
    what: &str,
    limit: Duration,
    mut ask: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let start = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(refusal) if start.elapsed() > limit => {
                panic!("{what}: not within {limit:?}; last: {refusal:?}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
