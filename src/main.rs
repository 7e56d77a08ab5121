//! `tokensource-operator`: parse, dispatch, exit code; nothing else.

use std::process::ExitCode;

use clap::Parser;
use tokensource_operator::cli::{Cli, Command};
use tokensource_operator::{api, explain, mint, operator};

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
    let result = match cli.command {
        Command::Run(arguments) => operator::run(*arguments).await.map_err(|error| error.to_string()),
        Command::Mint(arguments) => return ExitCode::from(mint::run(*arguments).await.code()),
        Command::Explain(arguments) => return ExitCode::from(explain::run(*arguments).await),
        Command::Crd => print_crd(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            #[expect(clippy::print_stderr, reason = "what a person reads who started it")]
            {
                eprintln!("tokensource-operator: {message}");
            }
            ExitCode::FAILURE
        }
    }
}

/// The allocator asks for huge pages, and the kernel may give them unasked: of 2 MiB each, of which a pod may use a few KiB
/// and is charged for all.
fn without_huge_pages() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true); // it costs memory, and nothing else
}

fn print_crd() -> Result<(), String> {
    let yaml = serde_saphyr::to_string(&api::crd()).map_err(|error| error.to_string())?;
    #[expect(clippy::print_stdout, reason = "what it was asked for")]
    {
        print!("{yaml}");
    }
    Ok(())
}
