//! What the scripts of `hack/` do with processes, locks and folders. The demonstration: `tests/demo.rs`.
#![cfg(test)] // so that clippy lets helpers panic, too
#![cfg(unix)]

#[path = "support/process.rs"]
mod process;

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use process::{first_line, kill, output_within, said, signal, wait_within};

/// For a script that must not wait for anything, on a busy machine.
const NO_WAIT: Duration = Duration::from_secs(30);

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("hack").join(name)
}

// ------------------------------------------------------------------------------------------------------------ locks

/// An empty cache of tools, and a Go that fails.
struct Cache {
    folder: tempfile::TempDir,
}

impl Cache {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let go = folder.path().join("go");
        fs::write(&go, "#!/bin/sh\necho no Go here >&2\nexit 1\n").unwrap();
        fs::set_permissions(&go, fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    fn with_settings(&self, mut command: Command) -> Command {
        let path = format!("{}:{}", self.folder.path().display(), std::env::var("PATH").unwrap());
        command.env("PATH", path).env("TOKENSOURCE_CACHE", self.folder.path().join("cache"));
        command
    }

    /// Builds Helm, which fails.
    fn tools(&self) -> Command {
        let mut command = Command::new(script("tools.sh"));
        command.arg("helm");
        self.with_settings(command)
    }

    /// The path of the lock.
    fn lock(&self) -> PathBuf {
        assert_builds(&output_within(self.tools(), "", NO_WAIT));
        let mut folders = fs::read_dir(self.folder.path().join("cache")).unwrap();
        folders.next().unwrap().unwrap().path().join(".lock")
    }
}

/// It had the lock, without waiting for it.
fn assert_builds(output: &Output) {
    let said = said(output);
    assert!(said.contains("no Go here") && !said.contains("waiting for another process"), "{said}");
}

#[test]
fn lock_whose_number_another_process_has_is_taken_over() {
    let cache = Cache::new();
    let lock = cache.lock();
    symlink(std::process::id().to_string(), &lock).unwrap();
    assert_builds(&output_within(cache.tools(), "", NO_WAIT));
    // Of the script itself: exec keeps the number.
    let mut same = Command::new("bash");
    same.args(["-c", "ln -s $$ \"$1\" && exec \"$2\" helm", "bash"]).arg(&lock).arg(script("tools.sh"));
    assert_builds(&output_within(cache.with_settings(same), "", NO_WAIT));
    assert!(fs::symlink_metadata(&lock).is_err(), "the lock is released");
}

#[test]
fn lock_of_a_script_that_builds_is_waited_for() {
    let cache = Cache::new();
    let lock = cache.lock();
    let mut builder = Command::new("bash");
    // As `./tools.sh`, called in hack/, is listed.
    builder.args(["-c", "exec -a 'bash ./tools.sh helm' bash -c 'read -r _'"]).stdin(Stdio::piped());
    let mut builder = builder.spawn().unwrap();
    symlink(builder.id().to_string(), &lock).unwrap();
    let printed = cache.folder.path().join("printed");
    let mut waiting = cache.tools();
    waiting.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&printed).unwrap());
    let mut waiting = waiting.spawn().unwrap();
    let begun = Instant::now();
    let printed = || fs::read_to_string(&printed).unwrap();
    while !printed().contains("waiting for another process") && begun.elapsed() < NO_WAIT {
        thread::sleep(Duration::from_millis(10));
    }
    let has_ended = waiting.try_wait().unwrap().is_some();
    kill(&mut builder);
    wait_within(&mut waiting, "tools.sh", NO_WAIT);
    assert!(!has_ended && printed().contains("waiting for another process"), "{}", printed());
    assert!(printed().contains("no Go here"), "it builds when the other has ended: {}", printed());
}

// -------------------------------------------------------------------------------------------------------- processes

/// A script that sources the library.
fn sourcing_processes(text: &str) -> Command {
    let mut shell = Command::new("bash");
    shell.args(["-c", text, "bash"]).arg(script("lib/processes.sh"));
    shell
}

#[test]
fn cleanup_ends_what_runs_and_nothing_that_was_waited_for() {
    let text = r#"
        set -euo pipefail
        . "$1"
        start /dev/null true
        ended=$pid
        wait "$ended"
        start /dev/null sleep 600
        echo "$ended $pid"
        kill() { echo "killed $*"; builtin kill "$@"; }
    "#;
    let output = output_within(sourcing_processes(text), "", NO_WAIT);
    let printed = String::from_utf8_lossy(&output.stdout);
    let (numbers, killed) = printed.split_once('\n').unwrap_or_else(|| panic!("{}", said(&output)));
    let (_, running) = numbers.split_once(' ').unwrap();
    assert_eq!(killed.trim(), format!("killed -KILL {running}"), "{numbers}");
    assert!(!signal("0", running), "{running} runs");
}

/// A script that watches its stdin has a process for that, too.
#[test]
fn script_whose_stdin_closes_ends_all_that_it_started() {
    let text = r#"
        set -euo pipefail
        . "$1"
        watch_stdin true
        watch=$!
        start /dev/null sleep 600
        echo "$watch $pid"
        wait "$pid"
    "#;
    let mut shell = sourcing_processes(text);
    shell.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut shell = shell.spawn().unwrap();
    let line = first_line(shell.stdout.take().unwrap(), NO_WAIT).unwrap();
    drop(shell.stdin.take());
    let status = wait_within(&mut shell, "bash", NO_WAIT);
    assert_eq!(status.code(), Some(143), "{line}");
    let numbers: Vec<_> = line.split_whitespace().collect();
    assert_eq!(numbers.len(), 2, "{line}");
    for number in numbers {
        assert!(!signal("0", number), "{number} runs");
    }
}

// ---------------------------------------------------------------------------------------------------- control plane

/// Runs the control plane in this folder, up to the build, which fails: `hack/` does not pin this version.
fn control_plane(folder: &Path) -> String {
    let mut command = Command::new(script("control-plane.sh"));
    command.args(["run", "--dir"]).arg(folder).env("KUBERNETES", "none");
    let output = output_within(command, "", NO_WAIT);
    assert!(!output.status.success());
    said(&output)
}

#[test]
fn control_plane_deletes_only_files_of_an_earlier_run() {
    let folder = tempfile::tempdir().unwrap();
    let mine = folder.path().join("bin/mine");
    fs::create_dir(folder.path().join("bin")).unwrap();
    fs::write(&mine, "mine").unwrap();
    let said = control_plane(folder.path());
    assert!(said.contains("name a new or empty folder with --dir"), "{said}");
    assert_eq!(fs::read_to_string(&mine).unwrap(), "mine");

    let (new, empty) = (folder.path().join("new"), folder.path().join("empty"));
    fs::create_dir(&empty).unwrap();
    for folder in [new, empty] {
        // The second time the folder is of an earlier run, though that one came no further than the build.
        for _ in 0..2 {
            let said = control_plane(&folder);
            assert!(said.contains("KUBERNETES is none"), "{said}");
            assert!(!folder.join("bin").exists(), "what an earlier run leaves is deleted");
            fs::create_dir(folder.join("bin")).unwrap();
        }
    }
}
