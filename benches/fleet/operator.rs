//! The operator as a process, and its resource usage.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::RUN;
use crate::support::control_plane::ControlPlane;

/// The environment variable with the operators to measure, separated as in PATH.
pub const BINARY: &str = "OPERATOR_BINARY";

/// A running operator. Dropping it kills it.
pub struct Operator(Child);

impl Operator {
    /// Starts it for all namespaces.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts it with these flags.
    pub fn start_with(flags: &[&str]) -> Self {
        Self::start_at(&ControlPlane::shared().kubeconfig_path(), flags)
    }

    /// Starts `OPERATOR_BINARY` (default: the program that Cargo built), through `OPERATOR_WRAPPER` where that is set.
    pub fn start_at(kubeconfig: &Path, flags: &[&str]) -> Self {
        let program =
            std::env::var_os(BINARY).unwrap_or_else(|| env!("CARGO_BIN_EXE_tokensource-operator").into());
        let mut command = match std::env::var_os("OPERATOR_WRAPPER") {
            None => Command::new(&program),
            Some(wrapper) => {
                let mut command = Command::new(wrapper);
                command.arg(&program);
                command
            }
        };
        let child = command
            .args(RUN)
            .args(flags)
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {}: {error}", program.display()));
        Operator(child)
    }

    pub fn usage(&mut self) -> Usage {
        assert!(
            self.0.try_wait().unwrap().is_none(),
            "the operator has ended: was it killed for its memory?"
        );
        Usage::of(self.0.id())
    }

    /// Sends SIGTERM; returns how long the operator took to end.
    pub async fn stop(mut self, limit: Duration) -> Duration {
        let begun = Instant::now();
        let signalled = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        assert!(signalled.unwrap().success());
        while self.0.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < limit, "the operator runs {limit:?} after SIGTERM");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        begun.elapsed()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The resource usage of a process, from /proc (Linux).
#[derive(Clone, Copy)]
pub struct Usage {
    /// Resident memory, in MiB.
    pub resident: u64,
    /// The part of it that is not pages of a file, in MiB.
    pub own: u64,
    /// The peak of resident memory, in MiB.
    pub peak: u64,
    /// CPU time, in seconds.
    pub cpu: f64,
}

impl Usage {
    pub fn of(process: u32) -> Self {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{process}/{file}")).unwrap();
        let status = read("status");
        let mib = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
        };
        let stat = read("stat");
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        // Clock ticks: 100 a second for user space on Linux.
        let ticks = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        Usage { resident: mib("VmRSS:"), own: mib("RssAnon:"), peak: mib("VmHWM:"), cpu: ticks / 100.0 }
    }

    /// The usage of kube-apiserver.
    pub fn of_api_server() -> Self {
        Self::of_component("kube-apiserver")
    }

    /// The usage of a part of the control plane, whose process ids its script writes to files.
    pub fn of_component(name: &str) -> Self {
        let folder = ControlPlane::shared().kubeconfig_path();
        let process = std::fs::read_to_string(folder.with_file_name("pids").join(name)).unwrap();
        Self::of(process.trim().parse().unwrap())
    }

    pub fn memory(&self) -> String {
        format!("memory {} MiB now, {} of them its own, {} at most", self.resident, self.own, self.peak)
    }
}
