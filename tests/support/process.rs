//! Processes that a test starts. Every wait for one has a limit; a process that exceeds it is killed, and the test fails
//! with the command and its output so far.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of this")]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// For a program that normally takes seconds, on a busy machine.
pub const RUN_LIMIT: Duration = Duration::from_secs(180);
/// For what may have to be downloaded and built first.
pub const BUILD_LIMIT: Duration = Duration::from_secs(30 * 60);
/// For the kernel to end a process after SIGKILL.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// Runs the command to its end with this text as its stdin. The caller judges whether it succeeded.
pub fn output_within(mut command: Command, stdin: &str, limit: Duration) -> Output {
    let start = Instant::now();
    let called = format!("{command:?}");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{called}: {error}. `make doctor` reports what this machine lacks"));
    let (mut pipe, text) = (child.stdin.take().expect("stdin is a pipe"), stdin.to_owned());
    // A process that does not read its stdin would block this thread; one that ends before reading is no error.
    thread::spawn(move || pipe.write_all(text.as_bytes()));
    let stdout = Collected::from(child.stdout.take().expect("stdout is a pipe"));
    let stderr = Collected::from(child.stderr.take().expect("stderr is a pipe"));
    for pipe in [&stdout, &stderr] {
        if pipe.closed.recv_timeout(limit.saturating_sub(start.elapsed())).is_err() {
            kill(&mut child);
            panic!(
                "{called}: not finished within {limit:?}; output so far:\n{}{}",
                stdout.text(),
                stderr.text()
            );
        }
    }
    let status = wait_within(&mut child, &called, limit.saturating_sub(start.elapsed()).max(KILL_LIMIT));
    Output { status, stdout: stdout.take(), stderr: stderr.take() }
}

/// All that a process printed, stdout first.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned()
}

/// Waits for the end of a process. `what` names it in the message.
pub fn wait_within(child: &mut Child, what: &str, limit: Duration) -> ExitStatus {
    end_within(child, limit).unwrap_or_else(|| {
        kill(child);
        panic!("{what}: not ended within {limit:?}; it was killed");
    })
}

/// The same; `None` when the process still runs after `limit`.
pub fn end_within(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("the state of a child process") {
            return Some(status);
        }
        if start.elapsed() > limit {
            return None;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

/// Sends SIGKILL and collects the process. Never panics: destructors call it.
pub fn kill(child: &mut Child) {
    let _ = child.kill();
    let _ = end_within(child, KILL_LIMIT);
}

/// The first line of a stream, with its end of line; `None` when none arrived within `limit`, empty at the stream's end.
pub fn first_line(stream: impl Read + Send + 'static, limit: Duration) -> Option<String> {
    let (sender, line) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(stream).read_line(&mut line);
        let _ = sender.send(line);
    });
    line.recv_timeout(limit).ok()
}

/// Sends a signal by its name (`TERM`; `0` only asks) to a process id, or to a group (`-ID`). False: there is none.
pub fn signal(name: &str, target: &str) -> bool {
    let mut command = Command::new("kill");
    command.args(["-s", name, "--", target]);
    output_within(command, "", RUN_LIMIT).status.success()
}

/// What a process does on SIGINT when it starts.
#[derive(Debug, Clone, Copy)]
pub enum Sigint {
    Default,
    /// As in what a script starts in the background: `sh -c 'make test &'`. A shell cannot undo it.
    Ignored,
}

/// A command that runs `program` with this disposition, whatever the test process itself inherited.
pub fn with_sigint(sigint: Sigint, program: &str) -> Command {
    let disposition = match sigint {
        Sigint::Default => "SIG_DFL",
        Sigint::Ignored => "SIG_IGN",
    };
    // Python itself ignores SIGPIPE and SIGXFSZ, which its successor would inherit.
    let exec = format!(
        "import os, signal as s, sys
s.signal(s.SIGINT, s.{disposition}); s.signal(s.SIGPIPE, s.SIG_DFL); s.signal(s.SIGXFSZ, s.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])"
    );
    let mut command = Command::new("python3");
    command.args(["-c", &exec, program]);
    command
}

/// What a thread has read from a pipe so far.
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    /// One message, at the pipe's end.
    closed: Receiver<()>,
}

impl Collected {
    fn from(mut pipe: impl Read + Send + 'static) -> Self {
        let (sender, closed) = mpsc::channel();
        let bytes = Arc::<Mutex<Vec<u8>>>::default();
        let shared = Arc::clone(&bytes);
        thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(read @ 1..) = pipe.read(&mut buffer) {
                shared.lock().expect("the bytes").extend_from_slice(&buffer[..read]);
            }
            let _ = sender.send(());
        });
        Collected { bytes, closed }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("the bytes")).into_owned()
    }

    fn take(self) -> Vec<u8> {
        std::mem::take(&mut self.bytes.lock().expect("the bytes"))
    }
}
