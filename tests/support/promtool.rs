//! Prometheus' own promtool.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use super::chart::tool;

/// Runs it; `Err` is what it said when it failed, or had something to say of what it checked.
pub fn promtool(arguments: &[&str], stdin: &str) -> Result<String, String> {
    static PROMTOOL: OnceLock<PathBuf> = OnceLock::new();
    let mut child = Command::new(PROMTOOL.get_or_init(|| tool("prometheus", "promtool")))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool");
    // One that does not read its stdin may close it.
    let _ = child.stdin.take().expect("stdin").write_all(stdin.as_bytes());
    let output = child.wait_with_output().expect("promtool");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(said) } else { Err(said) }
}
