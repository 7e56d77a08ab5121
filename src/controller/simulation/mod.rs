//! A simulation of the queues, the decisions, the back-off and the limiter in paused time: outages, throttling, rejected
//! clients and crowds, from a seed. What must hold is checked at every token request, write and reconciliation.
//! `SEED=n cargo test --lib simulation_of_seeded -- --nocapture` repeats a seed, and prints its plan and every step.
#![allow(clippy::print_stdout, reason = "how much was simulated")]

mod endpoint;
mod plan;
mod run;
mod source;
mod users;

use std::time::Instant;

use plan::Plan;

/// How many seeds `make test` simulates, and `make test-long`.
const SAMPLE: u64 = 30;
const ALL: u64 = 1000;

fn simulate(seeds: impl Iterator<Item = u64>) {
    let repeated = std::env::var("SEED").ok();
    let seeds: Vec<u64> = match &repeated {
        Some(seed) => vec![seed.parse().expect("SEED is a whole number")],
        None => seeds.collect(),
    };
    let (begun, mut requests, mut reconciliations) = (Instant::now(), 0, 0);
    let mut failed = String::new();
    for &seed in &seeds {
        let plan = Plan::of(seed);
        if repeated.is_some() {
            println!("{plan:#?}");
        }
        let outcome = run::run(plan, repeated.is_some());
        requests += outcome.requests;
        reconciliations += outcome.reconciliations;
        if !outcome.violations.is_empty() {
            failed += &format!("SEED={seed}: {:#?}\n", outcome.violations);
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{} seeds, {requests} token requests, {reconciliations} reconciliations, {seconds:.1} s",
        seeds.len()
    );
    assert!(
        failed.is_empty(),
        "repeat one with SEED=NUMBER cargo test --lib simulation_of_seeded -- --nocapture\n{failed}"
    );
}

#[test]
fn simulation_of_seeded_sample_keeps_tokens_fresh_and_limits() {
    simulate(1..=SAMPLE);
}

#[test]
#[ignore = "make test-long"]
fn simulation_of_a_thousand_seeds_keeps_tokens_fresh_and_limits() {
    simulate(1..=ALL);
}
