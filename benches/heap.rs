//! The heap of a fleet and the allocations of a refresh, counted by DHAT: `make bench-heap SOURCES=1000`.
//! `HEAP_PROFILE=FILE` writes a profile for <https://nnethercote.github.io/dh_view/dh_view.html>.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark prints, and stops where it cannot go on"
)]

mod fleet;
#[path = "../tests/support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use clap::Parser;
use fleet::{Fleet, setting};
use support::control_plane::ControlPlane;
use tokensource_operator::cli::{self, Cli};
use tokensource_operator::operator;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match Cli::try_parse() {
        Ok(Cli { command: cli::Command::Run(arguments) }) => {
            let profiler = match std::env::var_os("HEAP_PROFILE") {
                Some(file) => dhat::Profiler::builder().file_name(file).trim_backtraces(Some(24)).build(),
                None => dhat::Profiler::builder().testing().trim_backtraces(Some(1)).build(),
            };
            std::thread::spawn(report_when_asked);
            runtime.block_on(operator::run(*arguments)).unwrap();
            drop(profiler);
        }
        _ => runtime.block_on(measure()),
    }
}

/// Answers each line of standard input with statistics of the heap.
fn report_when_asked() {
    for _ in std::io::stdin().lines() {
        let heap = dhat::HeapStats::get();
        println!(
            "{} {} {} {} {}",
            heap.curr_bytes, heap.curr_blocks, heap.max_bytes, heap.total_bytes, heap.total_blocks
        );
    }
}

async fn measure() {
    let sources = setting("SOURCES", 1000);
    let refreshes = sources.min(1000);
    let mut without_sources = Operator::start();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let empty = without_sources.heap();
    println!("without TokenSources: {}", empty.kept());
    drop(without_sources);

    println!("creating {sources} TokenSources, all with the same credentials Secret");
    let fleet = Fleet::create(sources, 3600).await;
    let mut operator = Operator::start();
    fleet.until_minted(sources).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    println!("after first mints: {}", operator.heap().kept());
    drop(operator);

    let mut operator = Operator::start();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let restarted = operator.heap();
    println!("after a restart: {}", restarted.kept());
    let each = |bytes: usize| bytes.saturating_sub(empty.bytes) / sources;
    println!("kept for each TokenSource: {} bytes", each(restarted.bytes));

    // The first refresh of a process does a dry run of the write; the second is like all further ones.
    for request in ["1", "2"] {
        let (before, mints) = (operator.heap(), fleet.mints().await);
        fleet.request_refreshes(refreshes, request).await;
        fleet.until_minted(mints + refreshes).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let after = operator.heap();
        println!(
            "a refresh: {} allocations of {} bytes in all; {}",
            (after.all_blocks - before.all_blocks) / refreshes,
            (after.all_bytes - before.all_bytes) / refreshes,
            after.kept()
        );
    }
    operator.stop();
}

/// This program, run as the operator with a counted heap.
struct Operator {
    process: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// See [`dhat::HeapStats`].
struct Heap {
    bytes: usize,
    blocks: usize,
    most_bytes: usize,
    all_bytes: usize,
    all_blocks: usize,
}

impl Operator {
    fn start() -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(fleet::RUN)
            .env("KUBECONFIG", ControlPlane::shared().kubeconfig_path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (ask, answers) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        Operator { process, ask, answers: BufReader::new(answers) }
    }

    fn heap(&mut self) -> Heap {
        self.ask.write_all(b"\n").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        let numbers: Vec<usize> = answer.split_whitespace().map(|number| number.parse().unwrap()).collect();
        let [bytes, blocks, most_bytes, all_bytes, all_blocks] = numbers[..] else { panic!("{answer}") };
        Heap { bytes, blocks, most_bytes, all_bytes, all_blocks }
    }

    fn stop(mut self) {
        let id = self.process.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Heap {
    fn kept(&self) -> String {
        format!("{} KiB in {} blocks, {} KiB at most", self.bytes / 1024, self.blocks, self.most_bytes / 1024)
    }
}
