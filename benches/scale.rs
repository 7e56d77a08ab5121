//! The cost of a fleet, with a real control plane and a real authorization server: `make bench SOURCES=10000` (default
//! 1000). `STEADY=600` replaces all tokens by some of `LIFETIME=300` seconds and observes their refreshes for so many
//! seconds. `HANGS=60` begins with an endpoint that does not respond for so many seconds. `FAILS=60` rejects the client for
//! so many seconds, and then ends. `SCENARIO=overload` measures one load of `benches/scenarios` instead.
//! `OPERATOR_BINARY=old:new` measures these programs one after the other, each with a control plane of its own.
//! `hack/limit-memory.sh` sets the memory limit of a pod.
//!
//! Memory is absolute; time is compared with a bare loop that makes the same calls in the same run at the same rate, because
//! machines are noisy.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark prints, and stops where it cannot go on"
)]

mod fleet;
mod scenarios;
#[path = "../tests/support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use fleet::cost::Sample;
use fleet::operator::{BINARY, Operator};
use fleet::{Fleet, bare_loop, setting};

fn main() -> ExitCode {
    let binaries = std::env::var_os(BINARY).unwrap_or_default();
    let binaries: Vec<_> = std::env::split_paths(&binaries).collect();
    if binaries.len() > 1 {
        return compare(&binaries);
    }
    match measure() {
        Ok(()) => ExitCode::SUCCESS,
        Err(broken) => {
            println!("FAILED: {broken}");
            ExitCode::FAILURE
        }
    }
}

/// Measures each operator in a process of its own.
fn compare(binaries: &[PathBuf]) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for binary in binaries {
        println!("--- {}", binary.display());
        let run = Command::new(std::env::current_exe().unwrap()).env(BINARY, binary).status();
        if !run.unwrap().success() {
            code = ExitCode::FAILURE;
        }
    }
    code
}

#[tokio::main]
async fn measure() -> Result<(), String> {
    tokio::spawn(scrape());
    match std::env::var("SCENARIO") {
        Ok(scenario) => scenarios::run(&scenario).await,
        Err(_) => {
            figures().await;
            Ok(())
        }
    }
}

async fn figures() {
    let (sources, steady) = (setting("SOURCES", 1000), setting("STEADY", 0));
    println!("creating {sources} TokenSources, all with the same credentials Secret");
    let fleet = Fleet::create(sources, 3600).await;

    let hangs = setting("HANGS", 0);
    if hangs > 0 {
        fleet.server.signal("STOP");
        run_for(hangs, "the endpoint hangs").await;
        fleet.server.signal("CONT");
        tokio::time::sleep(Duration::from_secs(5)).await;
    }

    let fails = setting("FAILS", 0);
    if fails > 0 {
        fleet.accept("another", 3600).await;
        return run_for(fails, "the client is rejected").await;
    }

    let before = fleet.mints().await;
    let mut operator = Operator::start();
    let begun = Instant::now();
    fleet.until_minted(before + sources).await;
    let rate = per_second(sources, begun);
    tokio::time::sleep(Duration::from_secs(5)).await;
    println!("first mints: {rate:.0}/s; {}", operator.usage().memory());
    drop(operator);

    operator = Operator::start();
    tokio::time::sleep(Duration::from_secs(15)).await;
    let restarted = operator.usage();
    let mints = fleet.mints().await - before - sources;
    println!("after a restart: {mints} token requests; {}", restarted.memory());
    tokio::time::sleep(Duration::from_secs(20)).await;
    println!("idle for 20 s: {:.2} s of CPU", operator.usage().cpu - restarted.cpu);

    // The first refresh of a process does a dry run of the write; the second is like all further ones.
    let refreshes = sources.min(2000);
    let (first, _) = refresh(&mut operator, &fleet, refreshes, "1").await;
    let (second, rate) = refresh(&mut operator, &fleet, refreshes, "2").await;
    println!("{refreshes} refreshes at once, twice: {}", operator.usage().memory());

    println!(
        "a refresh: {:.2} ms of CPU at {rate:.0}/s (the first of a process {:.2} ms)",
        second * 1e3,
        first * 1e3
    );
    let rate = if steady > 0 {
        watch(&mut operator, &fleet, u32::try_from(setting("LIFETIME", 300)).unwrap(), steady).await
    } else {
        rate
    };
    operator.stop(Duration::from_secs(60)).await;
    println!("a bare loop of the same calls: {}", bare_loop::run(&fleet, refreshes, rate).await);
}

/// Runs an operator for so many seconds, and prints its usage.
async fn run_for(seconds: usize, what: &str) {
    let mut operator = Operator::start();
    tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
    let usage = operator.usage();
    println!("{what} for {seconds} s: {:.1} s of CPU; {}", usage.cpu, usage.memory());
}

/// Reads the operator's metrics regularly, as Prometheus does.
async fn scrape() {
    loop {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let _ = fleet::metrics().await; // it may be down at the moment
    }
}

/// Requests so many refreshes; returns the operator's CPU seconds for each, and the refreshes per second.
async fn refresh(operator: &mut Operator, fleet: &Fleet, refreshes: usize, request: &str) -> (f64, f64) {
    let mints = fleet.mints().await;
    let (before, begun) = (operator.usage(), Instant::now());
    fleet.request_refreshes(refreshes, request).await;
    fleet.until_minted(mints + refreshes).await;
    let rate = per_second(refreshes, begun);
    tokio::time::sleep(Duration::from_secs(3)).await;
    ((operator.usage().cpu - before.cpu) / refreshes as f64, rate)
}

/// Replaces all tokens by some of `lifetime` seconds, and observes their refreshes for `steady` seconds. Returns the
/// refreshes a second.
async fn watch(operator: &mut Operator, fleet: &Fleet, lifetime: u32, steady: usize) -> f64 {
    fleet.accept("secret", lifetime).await;
    let mints = fleet.mints().await;
    fleet.request_refreshes(fleet.sources, "3").await;
    fleet.until_minted(mints + fleet.sources).await;
    println!("all tokens live for {lifetime} s now; watching for {steady} s");
    let expired_before =
        fleet::series(&fleet::metrics().await.unwrap(), "tokensource_token_expired_seconds_total")
            .sum::<f64>();
    let before = Sample::take(operator.usage());
    let (mints, begun) = (fleet.mints().await, Instant::now());
    let (mut latest, mut unready) = (0_f64, 0);
    while begun.elapsed() < Duration::from_secs(steady as u64) {
        tokio::time::sleep(Duration::from_secs(10)).await;
        let metrics = fleet::metrics().await.unwrap();
        latest = fleet::series(&metrics, "tokensource_refresh_lateness_ratio").fold(latest, f64::max);
        unready =
            unready.max(fleet::series(&metrics, "tokensource_ready").filter(|ready| *ready == 0.0).count());
    }
    let after = operator.usage();
    let cost = before.cost(&after, fleet.mints().await - mints);
    let expired = fleet::series(&fleet::metrics().await.unwrap(), "tokensource_token_expired_seconds_total")
        .sum::<f64>();
    println!(
        "{cost}; the latest refresh used {:.0} % of its time, {unready} at most were not ready, {:.0} s without a valid token in all; {}",
        latest * 100.0,
        expired - expired_before,
        after.memory()
    );
    cost.rate
}

fn per_second(count: usize, begun: Instant) -> f64 {
    count as f64 / begun.elapsed().as_secs_f64()
}
