//! Programs that are run to their end, and progress.

#![allow(clippy::print_stderr)] // progress is for people

use std::{
    error::Error,
    process::Command,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crate::process::output_within;

/// For one program; helm waits for less.
const LIMIT: Duration = Duration::from_secs(600);

pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Prints a line of progress.
pub fn say(text: &str) {
    eprintln!("e2e: {text}");
}

/// The standard output of a program that must succeed; `input` is its standard input.
pub fn output(program: &str, arguments: &[&str], input: &str) -> Result<String> {
    let mut command = Command::new(program);
    command.args(arguments);
    let output = output_within(command, input, LIMIT);
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{program} {}: {}: {}", arguments.join(" "), output.status, error.trim()).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// Repeats until there is a result. The last error is part of the message when `within` has passed.
pub fn eventually<T>(what: &str, within: Duration, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match attempt() {
            Ok(done) => return Ok(done),
            Err(error) if Instant::now() >= deadline => {
                return Err(format!("{what}: not within {} s: {error}", within.as_secs()).into());
            }
            Err(_) => thread::sleep(Duration::from_millis(200)),
        }
    }
}

/// In milliseconds since 1970, as readers print it.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
