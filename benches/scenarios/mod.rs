//! Loads for comparing two versions of the controller: `make bench SCENARIO=overload`, with `SOURCES` TokenSources.
//!
//! | scenario | load | must hold |
//! |---|---|---|
//! | `table` | `full`, `overload` and `steady`, each with a control plane of its own: the table of docs/performance.md | |
//! | `full` | tokens that live as long as a round of refreshes takes (10 s at least), at an endpoint without a limit, for `SECONDS` | |
//! | `overload` | 10 s tokens at an endpoint that is asked `RATE` times a second (default: 100), for `SECONDS` | |
//! | `steady` | 10,000 tokens of 300 s, first requested at the default limit, then refreshed for `SECONDS` (default: 300) | |
//! | `many` | 100,000 tokens of `LIFETIME` (1,800) s: first requests, a restart, refreshes for `SECONDS` (default: 1,200) | the restart requests none of those that are valid, none expires |
//! | `lifted` | first mints without a limit, SIGTERM at half of them | every token that was answered is written |
//! | `twenty` | first mints at twenty endpoints at their default limits, SIGTERM at half of them | the same |
//! | `fifty` | 10 s tokens at fifty endpoints, which ask for more than the API server can take, for `SECONDS`; beside them 60 s tokens of another tenant | those of the other tenant are late by 5 s at most (99 %) and none expires |
//! | `slow-api` | new TokenSources, 200 ms for each API call, one refresh that is due | it is written in time |
//! | `hang` | an endpoint that hangs, for `SECONDS` | |
//! | `pernamespace` | rights by namespace: 10,000 sources in 2,000 `NAMESPACES` | `benches/scenarios/pernamespace.rs` says it |
//! | `issuer` | 10,000 sources in 20 `NAMESPACES` at one ClusterTokenIssuer: first tokens, a rejected client, a rotated secret | a rejected client is asked once in each wait, for all namespaces |
//! | `hostile` | tokens of 300 s for `SECONDS`, without and with a hostile tenant | none expires, and the 99th percentile is at most 5 s later |

mod fifty;
mod first_mints;
mod hostile;
mod issuer;
mod many;
mod pernamespace;
mod refreshes;
mod slow_api;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::fleet::operator::{Operator, Usage};
use crate::fleet::{self, Fleet, setting};

/// `Err` says which promise was broken.
pub async fn run(scenario: &str) -> Result<(), String> {
    match scenario {
        "table" => return refreshes::table(),
        "full" => refreshes::full().await,
        "overload" => refreshes::overload().await,
        "steady" => refreshes::steady().await,
        "many" => return many::run().await,
        "lifted" => return first_mints::lifted().await,
        "twenty" => return first_mints::twenty().await,
        "fifty" => return fifty::run().await,
        "issuer" => return issuer::run().await,
        "hostile" => return hostile::run().await,
        "pernamespace" => return pernamespace::run().await,
        "slow-api" => return slow_api::run().await,
        "hang" => hang().await,
        _ => panic!(
            "SCENARIO: write table, full, overload, steady, many, lifted, twenty, fifty, slow-api, hang, issuer, hostile or pernamespace"
        ),
    }
    Ok(())
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
