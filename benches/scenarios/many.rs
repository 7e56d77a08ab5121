//! A hundred thousand TokenSources: what they take, how fast a restart is, and whether refreshes come in time.

use std::time::{Duration, Instant};

use super::{calls, print_calls};
use crate::fleet::cost::Sample;
use crate::fleet::operator::Operator;
use crate::fleet::{self, Fleet, setting};
use crate::scenarios::refreshes::UNLIMITED;

pub async fn run() -> Result<(), String> {
    let (sources, lifetime) = (setting("SOURCES", 100_000), setting("LIFETIME", 1800));
    let fleet = Fleet::create(sources, u32::try_from(lifetime).unwrap()).await;
    let mut operator = Operator::start_with(&UNLIMITED);
    let begun = Instant::now();
    fleet.until_minted(sources).await;
    let seconds = begun.elapsed().as_secs_f64();
    // Refreshes begin at three fifths of the lifetime, spread included.
    if seconds > lifetime as f64 * 0.6 {
        println!(
            "The first requests took so long that refreshes came between them: what follows is a machine that is too slow for this. \
             LIFETIME={} would suit it.",
            (seconds / 0.5 / 600.0).ceil() * 600.0
        );
    }
    // What was answered last is written.
    tokio::time::sleep(Duration::from_secs(3)).await;
    println!(
        "first tokens: {sources} in {seconds:.0} s ({:.0}/s); {}",
        sources as f64 / seconds,
        operator.usage().memory()
    );
    let took = operator.stop(Duration::from_secs(60)).await;
    println!("SIGTERM: ended after {:.1} s", took.as_secs_f64());

    let answered = fleet.answered().await;
    let (mut operator, started) = (Operator::start_with(&UNLIMITED), Instant::now());
    fleet::until_ready().await;
    let ready = started.elapsed().as_secs_f64();
    let usage = operator.usage();
    println!("restart: ready after {ready:.1} s, {:.1} s of CPU; {}", usage.cpu, usage.memory());
    print_calls("restart", 1.0, &Default::default(), &calls().await);
    let reconciled = until_reconciled(sources).await;
    let usage = operator.usage();
    println!(
        "restart: {reconciled} reconciled after {:.1} s, {:.1} s of CPU; {}",
        started.elapsed().as_secs_f64(),
        usage.cpu,
        usage.memory()
    );
    let requests = fleet.answered().await - answered;
    println!(
        "restart: {requests} token requests, {:.0} s after the first token",
        begun.elapsed().as_secs_f64()
    );
    scrape().await;

    let expired = || async { sum("tokensource_token_expired_seconds_total").await };
    let (expired_before, answered, calls_before) = (expired().await, fleet.answered().await, calls().await);
    let before = Sample::take(operator.usage());
    let latest = fleet::latest_refresh(Duration::from_secs(setting("SECONDS", 1200) as u64)).await;
    let refreshes = fleet.answered().await - answered;
    let usage = operator.usage();
    let expired = expired().await - expired_before;
    println!(
        "steady: {refreshes} refreshes; {}; the latest refresh used {:.0} % of its time, {expired:.0} s without a valid token in all; {}",
        before.cost(&usage, refreshes),
        latest * 100.0,
        usage.memory()
    );
    print_calls("refresh", refreshes as f64, &calls_before, &calls().await);
    scrape().await;
    if expired > 0.0 { Err(format!("targets held an expired token for {expired:.0} s")) } else { Ok(()) }
}

async fn sum(name: &str) -> f64 {
    fleet::series(&fleet::metrics().await.unwrap(), name).sum()
}

/// Waits until all are reconciled once, for a minute at most: where first requests take longer than their lifetime allows, refreshes
/// are due, and go first. Returns how many are.
async fn until_reconciled(sources: usize) -> usize {
    let begun = Instant::now();
    loop {
        let reconciled = fleet::series(&fleet::metrics().await.unwrap(), "tokensource_ready").count();
        if reconciled >= sources || begun.elapsed() > Duration::from_secs(60) {
            return reconciled;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn scrape() {
    let mut best = Duration::MAX;
    let mut bytes = 0;
    for _ in 0..5 {
        let begun = Instant::now();
        bytes = fleet::metrics().await.unwrap().len();
        best = best.min(begun.elapsed());
    }
    println!("a scrape: {:.1} MB in {:.2} s", bytes as f64 / 1e6, best.as_secs_f64());
}
