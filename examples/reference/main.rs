//! Prints the reference pages, which `make generate` writes into `docs/reference/`: `api` or `flags`.
#![expect(clippy::print_stdout, reason = "the output of the program")]

mod api;
mod flags;

use std::process::ExitCode;

/// The width of a line.
const MAX_COLUMNS: usize = 126;

fn main() -> ExitCode {
    let page = match std::env::args().nth(1).as_deref() {
        Some("api") => api::page(),
        Some("flags") => flags::page(),
        _ => return ExitCode::FAILURE,
    };
    print!("{page}");
    ExitCode::SUCCESS
}

/// Text as the cell of a table. It may contain code between backticks.
fn cell(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "\\|");
    let parts = line.split('`').enumerate();
    let escaped = parts.map(|(n, part)| if n % 2 == 0 { part.replace('<', "&lt;") } else { part.to_owned() });
    escaped.collect::<Vec<_>>().join("`")
}

/// Breaks a paragraph into lines, where further ones are indented.
fn wrap(text: &str, indentation: &str) -> String {
    let mut lines = String::new();
    let mut columns = 0;
    for word in text.split(' ') {
        if columns > 0 && columns + 1 + word.chars().count() > MAX_COLUMNS {
            lines.push('\n');
            lines.push_str(indentation);
            columns = indentation.len();
        } else if columns > 0 {
            lines.push(' ');
            columns += 1;
        }
        lines.push_str(word);
        columns += word.chars().count();
    }
    lines
}

/// Code in the cell of a table.
fn code(text: &str) -> String {
    format!("`{}`", text.replace('|', "\\|"))
}
