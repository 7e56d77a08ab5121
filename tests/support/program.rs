//! Programs that end by themselves, `tokensource-operator` among them.

use std::process::{Command, Output};

use super::process::{RUN_LIMIT, output_within};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_tokensource-operator");

/// Runs it to its end, with this text as its stdin. The caller judges whether it succeeded.
pub fn output(command: Command, stdin: &str) -> Output {
    output_within(command, stdin, RUN_LIMIT)
}

/// The same on another thread, so that other tasks of the test continue.
pub async fn output_beside(command: Command, stdin: &str) -> Output {
    let stdin = stdin.to_owned();
    tokio::task::spawn_blocking(move || output(command, &stdin)).await.unwrap()
}

/// Its stdout, or stderr if it failed.
pub fn result(output: &Output) -> Result<String, String> {
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The exit code and output of `tokensource-operator`.
#[derive(Debug)]
pub struct ProgramOutput {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl ProgramOutput {
    pub fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    #[track_caller]
    pub fn assert(&self, code: i32, words: &[&str]) {
        let all = self.all();
        assert_eq!(self.code, code, "{all}");
        for words in words {
            assert!(all.contains(words), "{words:?} is not in:\n{all}");
        }
    }
}

/// Runs `tokensource-operator` with these arguments, and without a cluster.
pub async fn program(arguments: &[&str], stdin: &str) -> ProgramOutput {
    let mut command = Command::new(PROGRAM);
    command.args(arguments);
    run(command, stdin).await
}

/// Runs a command. It has no kubeconfig and no proxies except those that the command sets.
pub async fn run(mut command: Command, stdin: &str) -> ProgramOutput {
    let is_set = |command: &Command, name: &str| command.get_envs().any(|(set, _)| set == name);
    if !is_set(&command, "KUBECONFIG") {
        command.env("KUBECONFIG", "/nonexistent");
    }
    for proxy in ["HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy"] {
        if !is_set(&command, proxy) {
            command.env_remove(proxy);
        }
    }
    let output = output_beside(command, stdin).await;
    ProgramOutput {
        code: output.status.code().unwrap(),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    }
}
