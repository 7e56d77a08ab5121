//! Every path to a spec: after each of a sequence of valid and invalid changes of a TokenSource, its Secrets and its target,
//! the outcome is that of a fresh object with the same spec.

mod outcome;
mod schema;
mod walk;
mod world;

use std::time::Instant;

use futures::future::join_all;
use walk::Walk;

use crate::random::{SEED, seed_of_environment};
use crate::support::control_plane::ControlPlane;
use crate::support::operator::Operator;

/// Walks side by side, and the transitions of each.
const LONG: (u64, usize) = (40, 27);
const SAMPLE: (u64, usize) = (16, 1);

/// Runs walks with the seeds from `first` on, or the one that the environment names.
async fn walks(label: &str, first: u64, (count, transitions): (u64, usize)) {
    let begun = Instant::now();
    ControlPlane::shared();
    let operator = Operator::start_selecting(&format!("{label}=true")).await;
    let seeds: Vec<u64> = match seed_of_environment() {
        Some(seed) => vec![seed],
        None => (first..first + count).collect(),
    };
    let results = join_all(seeds.iter().map(async |&seed| {
        let mut walk = Walk::start(seed, label).await.map_err(|error| format!("{SEED}={seed}: {error}"))?;
        walk.go(transitions).await.map_err(|error| {
            eprintln!("FAILED {SEED}={seed}: {error}");
            format!("{SEED}={seed}: {error}")
        })
    }))
    .await;
    let made: usize = results.iter().filter_map(|result| result.as_ref().ok()).sum();
    let failed: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    eprintln!(
        "{} walks, {made} transitions in those that ended well, {} failed; {:.0} s",
        seeds.len(),
        failed.len(),
        begun.elapsed().as_secs_f64()
    );
    operator.stop().await;
    assert!(
        failed.is_empty(),
        "repeat one with {SEED}=NUMBER cargo test --test perturbation -- --include-ignored --nocapture specs:\n{}",
        failed.join("\n")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn spec_after_seeded_sample_of_changes_is_as_that_of_fresh_object() {
    walks("walk-sample", 1, SAMPLE).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-long"]
async fn spec_after_a_thousand_changes_is_as_that_of_fresh_object() {
    walks("walk-long", 1000, LONG).await;
}
