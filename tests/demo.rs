//! `hack/demo.sh`: all of its checks hold, and it leaves nothing behind, however it ends.
#![cfg(test)] // so that clippy lets helpers panic, too
#![cfg(unix)]

#[path = "support/process.rs"]
mod process;

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use process::{BUILD_LIMIT, RUN_LIMIT, Sigint, end_within, output_within, signal, with_sigint};

/// For the cleanup after the end of the demonstration.
const CLEANUP_LIMIT: Duration = Duration::from_secs(10);

/// A demonstration in a process group of its own, as a terminal starts it.
struct Demo {
    child: Child,
    folder: tempfile::TempDir,
}

impl Demo {
    fn start(seconds: u32, sigint: Sigint) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("tmp")).unwrap();
        let child = with_sigint(sigint, concat!(env!("CARGO_MANIFEST_DIR"), "/hack/demo.sh"))
            .env("DEMO_SECONDS", seconds.to_string())
            .env("DEMO_OPERATOR", env!("CARGO_BIN_EXE_tokensource-operator"))
            .env("TMPDIR", folder.path().join("tmp"))
            .stdin(Stdio::null())
            .stdout(File::create(folder.path().join("stdout")).unwrap())
            .stderr(File::create(folder.path().join("stderr")).unwrap())
            .process_group(0)
            .spawn()
            .expect("python3, which starts hack/demo.sh");
        Demo { child, folder }
    }

    fn printed(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.folder.path().join(name)).unwrap();
        read("stdout") + &read("stderr")
    }

    fn wait_until_printed(&mut self, words: &str) {
        let started = Instant::now();
        while !self.printed().contains(words) {
            assert!(
                self.child.try_wait().unwrap().is_none(),
                "ended before it printed {words:?}:\n{}",
                self.printed()
            );
            assert!(started.elapsed() < BUILD_LIMIT, "did not print {words:?}:\n{}", self.printed());
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn end(&mut self) -> ExitStatus {
        let status = end_within(&mut self.child, BUILD_LIMIT);
        status.unwrap_or_else(|| panic!("not ended within {BUILD_LIMIT:?}:\n{}", self.printed()))
    }

    /// Sends a signal to the script (`to` is empty), or to its process group, as Ctrl-C does (`-`).
    fn signal(&self, name: &str, to: &str) {
        assert!(signal(name, &format!("{to}{}", self.child.id())), "{}", self.printed());
    }

    /// The processes of its group, as `ps` shows them.
    fn processes(&self) -> Vec<String> {
        let mut list = Command::new("ps");
        list.args(["-A", "-o", "pgid=,stat=,pid=,args="]);
        let listed = output_within(list, "", RUN_LIMIT);
        let group = self.child.id().to_string();
        String::from_utf8_lossy(&listed.stdout)
            .lines()
            .filter(|line| {
                let mut words = line.split_whitespace();
                // A zombie has ended; collecting it is its parent's task.
                words.next() == Some(&group) && words.next().is_some_and(|state| !state.starts_with('Z'))
            })
            .map(str::to_owned)
            .collect()
    }

    fn assert_nothing_is_left(&self) {
        let started = Instant::now();
        loop {
            let processes = self.processes();
            let files: Vec<PathBuf> = fs::read_dir(self.folder.path().join("tmp"))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            if processes.is_empty() && files.is_empty() {
                return;
            }
            assert!(started.elapsed() < CLEANUP_LIMIT, "left: {processes:#?} {files:?}\n{}", self.printed());
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if !self.processes().is_empty() {
            signal("KILL", &format!("-{}", self.child.id()));
        }
        process::kill(&mut self.child);
    }
}

#[test]
fn demo_all_checks_hold() {
    let mut demo = Demo::start(45, Sigint::Default);
    let status = demo.end();
    let said = demo.printed();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("16 of 16 held"), "{said}");
    assert!(!said.contains("DID NOT HOLD"), "{said}");
    for shown in ["| vgs    True    RefreshFailing", "mints nothing", "export KUBECONFIG=", "$ kubectl apply"]
    {
        assert!(said.contains(shown), "{shown}:\n{said}");
    }
    let wide = said.lines().find(|line| line.chars().count() > 105 && !line.contains("tokensource-demo."));
    assert_eq!(wide, None);
    demo.assert_nothing_is_left();
}

#[test]
fn demo_ctrl_c_leaves_nothing_behind() {
    let mut demo = Demo::start(300, Sigint::Default);
    demo.wait_until_printed("ok: three TokenSources are Ready");
    assert!(demo.processes().len() > 5, "{:?}", demo.processes());
    demo.signal("INT", "-");
    assert_eq!(demo.end().code(), Some(130), "{}", demo.printed());
    demo.assert_nothing_is_left();
}

#[test]
fn demo_signal_to_script_alone_leaves_nothing_behind() {
    for (signal, code) in [("INT", Some(130)), ("TERM", Some(143)), ("KILL", None)] {
        let mut demo = Demo::start(300, Sigint::Default);
        // During the start.
        demo.wait_until_printed("Start the control plane");
        demo.signal(signal, "");
        assert_eq!(demo.end().code(), code, "SIG{signal}: {}", demo.printed());
        demo.assert_nothing_is_left();
    }
}

/// As `sh -c 'make demo &'` starts it: bash cannot undo an ignored SIGINT.
#[test]
fn demo_ignoring_sigint_prints_how_to_end_it_and_ends_on_sigterm() {
    let mut demo = Demo::start(300, Sigint::Ignored);
    demo.wait_until_printed("Start the control plane");
    assert!(demo.printed().contains(&format!("kill {}", demo.child.id())), "{}", demo.printed());
    demo.signal("INT", "");
    assert_eq!(end_within(&mut demo.child, Duration::from_secs(1)), None, "SIGINT is ignored");
    demo.signal("TERM", "");
    assert_eq!(demo.end().code(), Some(143), "{}", demo.printed());
    demo.assert_nothing_is_left();
}
