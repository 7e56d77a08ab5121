//! What the tests run against: real servers, started once for each test binary.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of this")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must panic; clippy knows that for #[test] functions, not for their helpers"
)]
#![allow(clippy::print_stderr, reason = "progress, for whoever waits")]

pub mod authorization_server;
pub mod scripted_server;
