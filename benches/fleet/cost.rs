//! What a refresh costs each process.

use std::time::Instant;

use super::operator::Usage;

/// What each refresh cost.
pub struct Cost {
    /// Refreshes a second.
    pub rate: f64,
    /// CPU of the process that refreshes, in seconds.
    pub cpu: f64,
    /// CPU of kube-apiserver, in seconds.
    pub api_server: f64,
    /// CPU of etcd, in seconds.
    pub etcd: f64,
}

impl std::fmt::Display for Cost {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [cpu, api_server, etcd] = [self.cpu, self.api_server, self.etcd].map(|seconds| seconds * 1e3);
        write!(
            out,
            "{:.1} refreshes/s; each costs {cpu:.2} ms of CPU, kube-apiserver {api_server:.2} ms and etcd {etcd:.2} ms",
            self.rate,
        )
    }
}

/// What was used until a moment.
pub struct Sample {
    process: Usage,
    api_server: Usage,
    etcd: Usage,
    at: Instant,
}

impl Sample {
    /// Now, where `process` is what the process that refreshes has used.
    pub fn take(process: Usage) -> Self {
        let [api_server, etcd] = ["kube-apiserver", "etcd"].map(Usage::of_component);
        Sample { process, api_server, etcd, at: Instant::now() }
    }

    /// What each of so many refreshes has cost since.
    pub fn cost(&self, process: &Usage, refreshes: usize) -> Cost {
        let now = Sample::take(*process);
        let each = |before: &Usage, after: &Usage| (after.cpu - before.cpu) / refreshes as f64;
        Cost {
            rate: refreshes as f64 / now.at.duration_since(self.at).as_secs_f64(),
            cpu: each(&self.process, &now.process),
            api_server: each(&self.api_server, &now.api_server),
            etcd: each(&self.etcd, &now.etcd),
        }
    }
}
