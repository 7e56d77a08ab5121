//! Log lines, and traces where they are asked for.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use tracing::warn;
use tracing_subscriber::filter::{Directive, ParseError};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use super::traces::Traces;
use crate::controller::SPANS;

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to standard error, and the export of traces. Traces that cannot be exported are a warning: they are no
/// reason to let tokens expire.
pub(super) fn start(format: LogFormat, filter: &str) -> Result<Option<Traces>, ParseError> {
    // kube logs an answer that it cannot parse, whole, as a warning: it could be a Secret.
    let never: Directive = "kube_client=error".parse()?;
    // kube wraps every look in a span of its own; ours name the source themselves.
    // Spans of traces are not for lines.
    let spans: Directive = format!("{SPANS}=off").parse()?;
    let filter = EnvFilter::builder()
        .parse(format!("kube_runtime=warn,{filter}"))?
        .add_directive(never)
        .add_directive(spans);
    let lines = fmt::layer().with_ansi(io::stderr().is_terminal()).with_writer(io::stderr);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
    };
    let traces = Traces::of_environment();
    let mut layers = vec![lines.with_filter(filter).boxed()];
    layers.extend(traces.iter().flatten().map(|traces| traces.layer().boxed()));
    // A subscriber that somebody has set before (a test) stays.
    let _ = tracing_subscriber::registry().with(layers).try_init();
    Ok(traces.unwrap_or_else(|error| {
        warn!("no traces are exported: {error}");
        None
    }))
}
