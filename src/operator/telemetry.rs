//! Log lines.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{Directive, ParseError};

use crate::cli::LogFormat;

/// Starts logging to standard error.
pub(super) fn start(format: LogFormat, filter: &str) -> Result<(), ParseError> {
    // kube logs an answer that it cannot parse, whole, as a warning: it could be a Secret.
    let never: Directive = "kube_client=error".parse()?;
    // kube wraps every look in a span of its own; ours name the source themselves.
    let filter = EnvFilter::builder().parse(format!("kube_runtime=warn,{filter}"))?.add_directive(never);
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr);
    // A subscriber that somebody has set before (a test) stays.
    let _ = match format {
        LogFormat::Text => lines.with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).try_init(),
    };
    Ok(())
}
