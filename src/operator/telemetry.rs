//! Log lines, and traces if they are enabled.

use std::io::{self, IsTerminal};

use clap::ValueEnum;
use tracing::warn;
use tracing_subscriber::filter::{Directive, ParseError};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use super::traces::Traces;
use crate::controller::SPANS;

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object on each line.
    Json,
}

/// Starts logging to standard error, and the export of traces. A failure of the latter is only a warning, because tokens must
/// be refreshed without traces too.
pub(super) fn start(format: LogFormat, filter: &str) -> Result<Option<Traces>, ParseError> {
    // kube logs the whole of a response that it cannot parse as a warning, and that may be a Secret.
    let no_responses: Directive = "kube_client=error".parse()?;
    // The spans of traces are not for log lines, which name the source themselves.
    let no_spans: Directive = format!("{SPANS}=off").parse()?;
    let filter = EnvFilter::builder()
        .parse(format!("kube_runtime=warn,{filter}"))?
        .add_directive(no_responses)
        .add_directive(no_spans);
    let lines = fmt::layer().with_ansi(io::stderr().is_terminal()).with_writer(io::stderr);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Text => lines.with_target(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).boxed(),
    };
    let traces = Traces::of_environment();
    let mut layers = vec![lines.with_filter(filter).boxed()];
    layers.extend(traces.iter().flatten().map(|traces| traces.layer().boxed()));
    // A subscriber that was set before, for example by a test, stays.
    let _ = tracing_subscriber::registry().with(layers).try_init();
    Ok(traces.unwrap_or_else(|error| {
        warn!("no traces are exported: {error}");
        None
    }))
}
