//! Log lines, and traces if they are enabled.

use std::io;

use clap::ValueEnum;
use tracing::warn;
use tracing_subscriber::filter::{Directive, ParseError};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use super::traces::Traces;
use crate::controller::SPANS;
use crate::text::{escaped, is_active};

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
    let filter = EnvFilter::builder().parse(filter)?.add_directive(no_responses).add_directive(no_spans);
    let lines = fmt::layer().with_ansi(false).with_writer(|| OneLine(io::stderr()));
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
        warn!(%error, "no traces are exported");
        None
    }))
}

/// Writes each event on one line, whatever its members quote: a line break would forge another event, and ESC would reach the
/// terminal of the reader.
struct OneLine<W>(W);

impl<W: io::Write> io::Write for OneLine<W> {
    /// The subscriber writes an event as a whole.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = escaped(text.strip_suffix('\n').unwrap_or(&text), is_active);
        self.0.write_all(format!("{line}\n").as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::format::FmtSpan;

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn log_event_stays_on_one_line_whatever_it_quotes() {
        let forged = "x\n2026-11-26T00:00:00Z ERROR forged\u{1b}[2J\u{202e}\u{2028}";
        for json in [false, true] {
            let written = Written::default();
            let to = written.clone();
            let lines = fmt::layer().with_ansi(false).with_span_events(FmtSpan::NONE);
            let lines = lines.with_writer(move || OneLine(to.clone()));
            let lines: Box<dyn Layer<Registry> + Send + Sync> =
                if json { lines.json().flatten_event(true).boxed() } else { lines.boxed() };
            tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
                warn!(error = %forged, debugged = ?forged, quoted = forged, "a message: {forged}");
            });
            let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
            let line = text.strip_suffix('\n').unwrap();
            assert!(!line.contains(is_active), "{line:?}");
            if json {
                let event: serde_json::Value = serde_json::from_str(line).unwrap();
                assert_eq!(event["error"], forged);
            }
        }
    }
}
