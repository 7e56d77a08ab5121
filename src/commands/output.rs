//! The output of `mint` and `explain`. Errors of closed streams are ignored.

use std::borrow::Cow;
use std::io::Write as _;

use clap::ValueEnum;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::Serialize;

use crate::text::{escaped, is_active, shown_message};

/// The format of a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// A condition, with its remedy.
#[derive(Debug, Serialize)]
pub(crate) struct ConditionReport {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) status: String,
    pub(crate) reason: String,
    pub(crate) message: String,
    /// `None` where nothing is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<&'static str>,
}

impl From<Condition> for ConditionReport {
    fn from(condition: Condition) -> Self {
        let Condition { type_: kind, status, reason, message, .. } = condition;
        let shown = |text: String| shown_message(&text).into_owned();
        let (kind, status, reason, message) = (shown(kind), shown(status), shown(reason), shown(message));
        ConditionReport { kind, status, reason, message, remedy: None }
    }
}

/// Writes a report to standard output.
pub(crate) fn report<R: Serialize>(format: OutputFormat, report: &R, text: impl Fn(&R) -> String) {
    print(&match format {
        OutputFormat::Text => text(report),
        OutputFormat::Json => format!("{}\n", serde_json::to_string_pretty(report).unwrap_or_default()),
    });
}

/// Writes text to standard output. What it quotes must not reach the terminal as more than text.
pub(crate) fn print(text: &str) {
    let text = on_lines(text);
    let mut stdout = std::io::stdout();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

fn on_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| is_active(c) && !matches!(c, '\n' | '\t'))
}

/// Writes an error message to standard error. It is not cut: it may be the only place of a refresh token.
pub(crate) fn print_error(message: &str) {
    let message = on_lines(message);
    let _ = std::io::stderr().write_all(format!("tokensource-operator: {message}\n").as_bytes());
}
