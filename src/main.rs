//! `tokensource-operator`: parse, dispatch, exit code; nothing else.

use std::process::ExitCode;

use clap::Parser;
use tokensource_operator::cli::Cli;

/// Looks come and go beside what stays, which leaves glibc's heap full of holes: after ten thousand first mints it held
/// 104 MiB where this held 67 (docs/sizing.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    without_huge_pages();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print(); // whoever closed the stream does not read it
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    cli.run().await
}

/// The allocator asks for huge pages, and the kernel may give them unasked: of 2 MiB each, of which a pod may use a few KiB
/// and is charged for all.
fn without_huge_pages() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true); // it costs memory, and nothing else
}
