//! What a refresh costs, beside a bare loop of the same calls at the same rate in the same run.

use std::process::Command;
use std::time::{Duration, Instant};

use super::{calls, print_calls};
use crate::fleet::bare_loop;
use crate::fleet::cost::Sample;
use crate::fleet::operator::Operator;
use crate::fleet::{self, Fleet, setting};

/// No limit that any of these reaches.
pub const UNLIMITED: [&str; 2] = ["--endpoint-max-per-second=100000", "--endpoint-max-in-flight=10000"];
/// Lines of the table begin with it.
const ROW: &str = "| ";

/// The scenarios one after the other, each in a process with a control plane of its own.
pub fn table() -> Result<(), String> {
    println!("{ROW}load | refreshes/s | operator | kube-apiserver | etcd | memory | latest |");
    println!("|---|---|---|---|---|---|---|");
    for scenario in ["full", "overload", "steady"] {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let output = Command::new(program).env("SCENARIO", scenario).output();
        let output = output.map_err(|error| error.to_string())?;
        let lines = String::from_utf8_lossy(&output.stdout);
        lines.lines().filter(|line| line.starts_with(ROW)).for_each(|line| println!("{line}"));
        if !output.status.success() {
            return Err(format!("{scenario}: {}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    Ok(())
}

/// The machine is the limit, and no token expires, which its status would report: each lives a little longer than a round of
/// refreshes takes, and for 10 s at least.
pub async fn full() {
    let fleet = Fleet::create(setting("SOURCES", 2000), 10).await;
    let operator = warmed_up("full speed", &fleet, &UNLIMITED, 2).await;
    let begun = Instant::now();
    fleet.until_minted(3 * fleet.sources).await;
    let lifetime = (begun.elapsed().as_secs_f64() * 1.1).ceil().max(10.0) as u32;
    fleet.accept("secret", lifetime).await;
    fleet.until_minted(5 * fleet.sources).await;
    let name = format!("full speed: {} tokens of {lifetime} s, no limit", fleet.sources);
    measure(&name, &fleet, operator, false, setting("SECONDS", 60)).await;
}

/// 2,000 sources want 400 tokens a second. A comparison of operators wants a `RATE` that both reach on the machine.
pub async fn overload() {
    let fleet = Fleet::create(setting("SOURCES", 2000), 10).await;
    let rate = setting("RATE", 100);
    let name = format!("overload: {} tokens of 10 s, {rate} requests a second", fleet.sources);
    let operator = warmed_up(&name, &fleet, &[&format!("--endpoint-max-per-second={rate}")], 4).await;
    measure(&name, &fleet, operator, true, setting("SECONDS", 60)).await;
}

/// The first tokens at the default limit, then refreshes by schedule.
pub async fn steady() {
    let fleet = Fleet::create(setting("SOURCES", 10_000), 300).await;
    let name = format!("{} tokens of 300 s", fleet.sources);
    let operator = warmed_up(&name, &fleet, &[], 2).await;
    measure(&name, &fleet, operator, true, setting("SECONDS", 300)).await;
}

/// Starts an operator, and waits for so many `rounds` of requests: the first refresh of a TokenSource is dearer, and the first
/// expiries are reported.
async fn warmed_up(name: &str, fleet: &Fleet, flags: &[&str], rounds: usize) -> Operator {
    let operator = Operator::start_with(flags);
    let begun = Instant::now();
    fleet.until_minted(fleet.sources).await;
    println!("{name}: first tokens: {:.0}/s", fleet.sources as f64 / begun.elapsed().as_secs_f64());
    fleet.until_minted(rounds * fleet.sources).await;
    operator
}

/// Measures what a refresh costs; the loop is held back to the rate of the operator where that `is_held_back`.
async fn measure(name: &str, fleet: &Fleet, mut operator: Operator, is_held_back: bool, seconds: usize) {
    let (before, calls_before, answered) =
        (Sample::take(operator.usage()), calls().await, fleet.answered().await);
    let latest = fleet::latest_refresh(Duration::from_secs(seconds as u64)).await;
    let refreshes = fleet.answered().await - answered;
    let usage = operator.usage();
    let cost = before.cost(&usage, refreshes);
    println!(
        "{name}: {cost}; the latest refresh used {:.0} % of its time; {}",
        latest * 100.0,
        usage.memory()
    );
    print_calls("refresh", refreshes as f64, &calls_before, &calls().await);
    operator.stop(Duration::from_secs(60)).await;

    let rate = if is_held_back { cost.rate } else { 1e6 };
    let bare = bare_loop::run(fleet, refreshes, rate).await;
    println!("a bare loop of the same calls: {bare}");
    println!(
        "{ROW}{name} | {:.0} ({:.0}) | {} | {} | {} | {} MiB | {:.0} % |",
        cost.rate,
        bare.rate,
        ratio(cost.cpu, bare.cpu),
        ratio(cost.api_server, bare.api_server),
        ratio(cost.etcd, bare.etcd),
        usage.peak,
        latest * 100.0,
    );
}

/// Milliseconds of both, and how often one is the other.
fn ratio(operator: f64, bare: f64) -> String {
    format!("{:.2} ms ({:.2}): {:.2}", operator * 1e3, bare * 1e3, operator / bare)
}
