//! The output of the commands. Errors of closed streams are ignored.

use std::borrow::Cow;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;

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

/// The name by which the binary was called.
fn program() -> &'static str {
    let program = std::env::args_os().next().unwrap_or_default();
    let is_plugin = Path::new(&program).file_stem().is_some_and(|name| name == "kubectl-tokensource");
    if is_plugin { "kubectl-tokensource" } else { "tokensource-operator" }
}

/// Writes an error message to standard error. It is not cut: it may be the only place of a refresh token.
pub(crate) fn print_error(message: &str) {
    let message = on_lines(message);
    let _ = std::io::stderr().write_all(format!("{}: {message}\n", program()).as_bytes());
}

/// Reports an error on standard error, on a line and cut; true, for the exit code.
pub(crate) fn report_error(error: &impl std::error::Error) -> bool {
    print_error(&shown_message(&error.to_string()));
    true
}

/// Writes a note for people to standard error, which is not part of the result.
pub(crate) fn print_note(message: &str) {
    let _ = std::io::stderr().write_all(format!("{}\n", on_lines(message)).as_bytes());
}

/// A colour of a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Red,
    Yellow,
    Green,
}

impl Colour {
    fn code(self) -> u8 {
        match self {
            Colour::Red => 31,
            Colour::Green => 32,
            Colour::Yellow => 33,
        }
    }
}

/// A line of which parts may be coloured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    parts: Vec<(Option<Colour>, String)>,
}

impl Line {
    /// Adds text, whose active characters are escaped.
    pub(crate) fn push(&mut self, colour: Option<Colour>, text: &str) {
        self.parts.push((colour, escaped(text, is_active).into_owned()));
    }

    /// Without colours.
    pub(crate) fn text(&self) -> String {
        self.parts.iter().map(|(_, text)| text.as_str()).collect()
    }

    /// With colours.
    pub(crate) fn coloured(&self) -> String {
        let part = |(colour, text): &(Option<Colour>, String)| match colour {
            Some(colour) => format!("\u{1b}[{}m{text}\u{1b}[0m", colour.code()),
            None => text.clone(),
        };
        self.parts.iter().map(part).collect()
    }
}

/// Writes lines to standard output: with colours where it is a terminal, and NO_COLOR (no-color.org) is not set.
pub(crate) fn print_lines(lines: &[Line]) {
    let mut stdout = std::io::stdout();
    let colours = stdout.is_terminal() && permits_colours(|name| std::env::var(name).ok());
    let text = |line: &Line| if colours { line.coloured() } else { line.text() };
    let all: String = lines.iter().map(|line| text(line) + "\n").collect();
    let _ = stdout.write_all(all.as_bytes()).and_then(|()| stdout.flush());
}

fn permits_colours(variable: impl Fn(&str) -> Option<String>) -> bool {
    let is_set = |name: &str| variable(name).is_some_and(|value| !value.is_empty());
    !is_set("NO_COLOR") && variable("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// A line on standard error that says how far a long call is, where that is a terminal.
pub(crate) struct Progress {
    is_terminal: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Progress { is_terminal: std::io::stderr().is_terminal() }
    }

    /// Replaces the line.
    pub(crate) fn show(&self, message: &str) {
        if self.is_terminal {
            let message = escaped(message, is_active);
            let _ = std::io::stderr().write_all(format!("\r{message}\u{1b}[K").as_bytes());
        }
    }

    /// Removes the line.
    pub(crate) fn clear(&self) {
        if self.is_terminal {
            let _ = std::io::stderr().write_all(b"\r\x1b[K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_off_with_no_color_and_on_a_dumb_terminal() {
        let permits = |name: &'static str, value: &'static str| {
            permits_colours(|asked| (asked == name).then(|| value.to_owned()))
        };
        assert!(permits("TERM", "xterm") && permits("NO_COLOR", ""));
        assert!(!permits("NO_COLOR", "1") && !permits("TERM", "dumb"));
    }

    #[test]
    fn line_text_of_others_cannot_colour_or_move_the_cursor() {
        let mut line = Line::default();
        line.push(Some(Colour::Red), "a\u{1b}[2J\nb");
        assert_eq!(line.text(), "a\\u001b[2J\\nb");
        assert_eq!(line.coloured(), format!("\u{1b}[31m{}\u{1b}[0m", line.text()));
    }
}
