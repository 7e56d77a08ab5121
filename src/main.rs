//! The binary `tokensource-operator`: parses the command line, runs it and returns the exit code.

use std::process::ExitCode;

use clap::Parser;
use tokensource_operator::cli::Cli;

/// The allocations of reconciliations fragment the heap of glibc: after ten thousand first token requests it used 104 MiB,
/// and mimalloc 67 MiB (docs/sizing.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    disable_huge_pages();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print(); // the stream may be closed
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    cli.run().await
}

/// Disables huge pages, which the allocator requests and the kernel may use by itself: a pod may need a few KiB of a page
/// of 2 MiB and is charged for the whole.
fn disable_huge_pages() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true); // a failure costs only memory
}
