//! Loads for comparing two versions of the controller: `make bench SCENARIO=overload`, with `SOURCES` TokenSources.
//!
//! | scenario | load | must hold |
//! |---|---|---|
//! | `overload` | 10 s tokens at an endpoint that is asked `RATE` times a second (default: 100), for `SECONDS` | |
//! | `lifted` | first mints without a limit, SIGTERM at half of them | every token that was answered is written |
//! | `twenty` | first mints at twenty endpoints at their default limits, SIGTERM at half of them | the same |
//! | `slow-api` | new TokenSources, 200 ms for each API call, one refresh that is due | it is written in time |
//! | `hang` | an endpoint that hangs, for `SECONDS` | |
//! | `pernamespace` | rights by namespace: 10,000 sources in 2,000 `NAMESPACES` | `benches/scenarios/pernamespace.rs` says it |
//! | `hostile` | tokens of 300 s for `SECONDS`, without and with a hostile tenant | none expires, and the 99th percentile is at most 5 s later |

mod first_mints;
mod hostile;
mod pernamespace;
mod slow_api;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::fleet::bare_loop::{self, Cost};
use crate::fleet::operator::{Operator, Usage};
use crate::fleet::{self, Fleet, setting};

/// `Err` says which promise was broken.
pub async fn run(scenario: &str) -> Result<(), String> {
    match scenario {
        "overload" => overload().await,
        "lifted" => return first_mints::lifted().await,
        "twenty" => return first_mints::twenty().await,
        "hostile" => return hostile::run().await,
        "pernamespace" => return pernamespace::run().await,
        "slow-api" => return slow_api::run().await,
        "hang" => hang().await,
        _ => panic!("SCENARIO: write overload, lifted, twenty, slow-api, hang, hostile or pernamespace"),
    }
    Ok(())
}

/// 2,000 sources want 400 tokens a second. A comparison wants a `RATE` that both operators reach on the machine.
async fn overload() {
    let (sources, seconds) = (setting("SOURCES", 2000), setting("SECONDS", 60));
    let fleet = Fleet::create(sources, 10).await;
    let rate = format!("--endpoint-max-per-second={}", setting("RATE", 100));
    let mut operator = Operator::start_with(&[&rate]);
    // The first mint of each, and one more round to settle.
    fleet.until_minted(2 * sources).await;

    let (before, api_before) = (operator.usage(), Usage::of_api_server());
    let (calls_before, answered, begun) = (calls().await, fleet.answered().await, Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
    let (usage, api) = (operator.usage(), Usage::of_api_server());
    let refreshes = (fleet.answered().await - answered) as f64;
    let cost = Cost {
        rate: refreshes / begun.elapsed().as_secs_f64(),
        cpu: (usage.cpu - before.cpu) / refreshes,
        api_server: (api.cpu - api_before.cpu) / refreshes,
    };
    println!("overload: {cost}; {}", usage.memory());
    print_calls("refresh", refreshes, &calls_before, &calls().await);
    operator.stop(Duration::from_secs(60)).await;
    println!(
        "a bare loop of the same calls: {}",
        bare_loop::run(&fleet, refreshes as usize, cost.rate).await
    );
}

async fn hang() {
    let (sources, seconds) = (setting("SOURCES", 10_000), setting("SECONDS", 90));
    let fleet = Fleet::create(sources, 3600).await;
    fleet.server.signal("STOP");
    let api_before = Usage::of_api_server();
    let mut operator = Operator::start();
    tokio::time::sleep(Duration::from_secs(seconds as u64)).await;
    let (usage, api) = (operator.usage(), Usage::of_api_server());
    println!(
        "hang: {sources} sources for {seconds} s: {:.1} s of CPU, kube-apiserver {:.1} s; {}",
        usage.cpu,
        api.cpu - api_before.cpu,
        usage.memory()
    );
    print_calls("source", sources as f64, &BTreeMap::new(), &calls().await);
    // A stopped process does not notice that its stdin closes.
    fleet.server.signal("CONT");
}

async fn calls() -> BTreeMap<String, f64> {
    fleet::calls(&fleet::metrics().await.unwrap())
}

fn print_calls(unit: &str, units: f64, before: &BTreeMap<String, f64>, after: &BTreeMap<String, f64>) {
    let each: Vec<_> = after
        .iter()
        .map(|(call, number)| (call, (number - before.get(call).unwrap_or(&0.0)) / units))
        .filter(|(_, number)| *number >= 0.005)
        .collect();
    let all: f64 = each.iter().map(|(_, number)| number).sum();
    let each: Vec<_> = each.iter().map(|(call, number)| format!("{call} {number:.2}")).collect();
    println!("API calls per {unit}: {all:.2} ({})", each.join(", "));
}
