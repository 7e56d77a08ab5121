//! Programs that end by themselves, ours among them.

use std::process::{Command, Output};

use super::process::{RUN_LIMIT, output_within};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_tokensource-operator");

/// Runs it to its end, with this text as its stdin. Whether it succeeded is the caller's to judge.
pub fn output(command: Command, stdin: &str) -> Output {
    output_within(command, stdin, RUN_LIMIT)
}

/// The same off this thread: what the test runs beside it (an operator, say) shall go on meanwhile.
pub async fn output_beside(command: Command, stdin: &str) -> Output {
    let stdin = stdin.to_owned();
    tokio::task::spawn_blocking(move || output(command, &stdin)).await.unwrap()
}

/// What stands on its stdout, or on stderr where it failed.
pub fn result(output: &Output) -> Result<String, String> {
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// How `tokensource-operator` ended, and what it said.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Said {
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
pub async fn program(arguments: &[&str], stdin: &str) -> Said {
    let mut command = Command::new(PROGRAM);
    command.args(arguments);
    run(command, stdin).await
}

/// Runs it by a command that may set a cluster and proxies; it sees no others.
pub async fn run(mut command: Command, stdin: &str) -> Said {
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
    Said { code: output.status.code().unwrap(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}
