//! Every call spoiled once: the operator runs under a proxy in front of the real API server, through a first mint, a
//! refresh (with rotation), changed credentials, a deleted target, and its deletion. After each fault the source comes to a
//! valid token by itself, no refresh token is sent after its successor was received, at most one token request more is
//! made, no other Secret is written, and the status is true.
//!
//! The only exception: a process that is killed between the moment in which the authorization server spends a refresh token
//! that rotates and the save of its successor has the only copy; no client can make that safe.

mod campaign;
mod endpoint;
mod fault;
mod journal;
mod known;
mod life;
mod proxy;
mod replica;
mod scenario;
mod watch;

use campaign::{Trial, campaign, pairs, recorded};
use fault::{Change, Kind};
use scenario::Scenario;

use crate::random::{Random, seed_of_environment};

/// How many single faults `make test` tries.
const SAMPLE: usize = 16;
const PAIRS: usize = 200;

async fn all_of(kind: Kind) -> Vec<Trial> {
    recorded(&Change::ALL.map(|change| Scenario { kind, change })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn spoiled_calls_of_seeded_sample_leave_no_harm() {
    let scenarios = [
        Scenario { kind: Kind::Static, change: Change::Target },
        Scenario { kind: Kind::Rotating, change: Change::Refresh },
    ];
    let mut trials = recorded(&scenarios).await;
    trials.retain(Trial::is_quick);
    let mut random = Random::new(seed_of_environment().unwrap_or(2));
    let sample = random.sample(&trials, SAMPLE);
    campaign("sample", sample).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-long"]
async fn spoiled_calls_with_client_credentials_leave_no_harm() {
    campaign("client credentials", all_of(Kind::Static).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-long"]
async fn spoiled_calls_with_rotating_refresh_token_leave_no_harm() {
    campaign("rotating refresh token", all_of(Kind::Rotating).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-long"]
async fn spoiled_calls_with_two_replicas_leave_no_harm() {
    campaign("two replicas", all_of(Kind::Replicas).await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-long"]
async fn two_spoiled_calls_at_once_leave_no_harm() {
    let trials = [all_of(Kind::Static).await, all_of(Kind::Rotating).await].concat();
    let seed = seed_of_environment().unwrap_or(1);
    campaign(&format!("pairs, SEED={seed}"), pairs(&trials, &mut Random::new(seed), PAIRS)).await;
}
