//! Prometheus' own promtool.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use super::chart::tool;
use super::program::{output, text};

/// Runs it; `Err` is its output if it failed.
pub fn promtool(arguments: &[&str], stdin: &str) -> Result<String, String> {
    static PROMTOOL: OnceLock<PathBuf> = OnceLock::new();
    let mut command = Command::new(PROMTOOL.get_or_init(|| tool("prometheus", "promtool")));
    command.args(arguments);
    let output = output(command, stdin);
    let said = text(&output.stdout) + &text(&output.stderr);
    if output.status.success() { Ok(said) } else { Err(said) }
}
