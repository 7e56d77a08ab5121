//! The binary `tokensource-operator`: parses the command line, runs it and returns the exit code.

use std::process::ExitCode;

use tokensource_operator::cli::Cli;
use tokio::runtime::Builder;

/// The allocations of reconciliations fragment the heap of glibc: after ten thousand first token requests it used 104 MiB,
/// and mimalloc 67 MiB (docs/sizing.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    disable_huge_pages();
    if let Some(code) = Cli::complete() {
        return code;
    }
    let cli = match Cli::parse_arguments() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print(); // the stream may be closed
            return if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    // The kubelet runs a probe every few seconds: it needs no thread for each core of the node. The operator has one for its
    // controller.
    let mut builder = match cli.command {
        #[cfg(unix)]
        tokensource_operator::cli::Command::Probe(_) | tokensource_operator::cli::Command::Run(_) => {
            Builder::new_current_thread()
        }
        _ => Builder::new_multi_thread(),
    };
    match builder.enable_all().build() {
        Ok(runtime) => runtime.block_on(cli.run()),
        Err(error) => {
            #[expect(clippy::print_stderr, reason = "the exit message")]
            {
                eprintln!("tokensource-operator: {error}");
            }
            ExitCode::FAILURE
        }
    }
}

/// Disables huge pages, which the allocator requests and the kernel may use by itself: a pod may need a few KiB of a page
/// of 2 MiB and is charged for the whole.
fn disable_huge_pages() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true); // a failure costs only memory
}
