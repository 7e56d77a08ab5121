//! A real control plane (etcd, kube-apiserver, kube-controller-manager), one for each test binary.
//!
//! `hack/control-plane.sh` builds and runs it, and ends it when its stdin closes, a pipe whose other end this process
//! holds: however this process ends, by a panic, Ctrl-C or SIGKILL, the pipe closes.

use std::collections::HashSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use super::process::{self, BUILD_LIMIT, RUN_LIMIT, first_line, wait_within};
use super::program::output_beside;

/// The script that builds, starts and ends the control plane.
pub const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/hack/control-plane.sh");

/// A running control plane.
pub struct ControlPlane {
    dir: PathBuf,
    namespaces: AtomicUsize,
    /// Open until this process ends: statics are not dropped.
    _lifeline: ChildStdin,
}

/// One request to the API server, from its audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditLine {
    pub verb: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// The user name.
    pub user: String,
    pub user_agent: String,
    pub code: u16,
    pub request_uri: String,
}

impl ControlPlane {
    /// The control plane of this test binary, started at the first call.
    pub fn shared() -> &'static Self {
        Self::shared_with(true)
    }

    /// The same for a test binary that installs the CustomResourceDefinition itself. To be called first.
    pub fn shared_without_crds() -> &'static Self {
        Self::shared_with(false)
    }

    fn shared_with(crds: bool) -> &'static Self {
        static SHARED: OnceLock<Result<ControlPlane, String>> = OnceLock::new();
        // A failed start is kept: it would fail again for each test, each time after minutes of building.
        match SHARED.get_or_init(|| Self::start(crds)) {
            Ok(control_plane) => control_plane,
            Err(why) => {
                panic!(
                    "no control plane to test against: {why}. `make doctor` reports what this machine lacks"
                )
            }
        }
    }

    /// A control plane for one test, whose effects would disturb all others. It runs until the test binary ends.
    pub fn of_its_own() -> &'static Self {
        Box::leak(Box::new(Self::start(true).expect("a control plane")))
    }

    fn start(with_crds: bool) -> Result<Self, String> {
        let mut command = Command::new(SCRIPT);
        command.args(["run", "--until-stdin-closes"]);
        // So that the garbage collector knows the kind from its start.
        let crds = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
        if with_crds && crds.is_dir() {
            command.arg("--crds").arg(crds);
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // stderr is inherited, not captured by the test harness: a first build takes minutes and prints its progress.
            // Ctrl-C goes to the tests; the pipe then ends the control plane.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("{SCRIPT}: {error}"))?;
        let lifeline = child.stdin.take().ok_or("no stdin")?;
        let Some(line) = first_line(child.stdout.take().ok_or("no stdout")?, BUILD_LIMIT) else {
            process::kill(&mut child);
            return Err(format!(
                "{SCRIPT} was not ready within {BUILD_LIMIT:?}; its own messages are on stderr"
            ));
        };
        let Some(kubeconfig) = line.trim_end().strip_prefix("READY ") else {
            let status = wait_within(&mut child, SCRIPT, RUN_LIMIT);
            return Err(format!("{SCRIPT} ended with {status}; its own messages are on stderr"));
        };
        let dir = Path::new(kubeconfig).parent().ok_or("no directory")?.to_owned();
        Ok(Self { dir, namespaces: AtomicUsize::new(1), _lifeline: lifeline })
    }

    /// Where it keeps its files.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A kubeconfig of an administrator.
    pub fn kubeconfig_path(&self) -> PathBuf {
        self.dir.join("kubeconfig")
    }

    /// A client of an administrator. It belongs to the runtime of the caller: each `#[tokio::test]` needs its own.
    pub async fn client(&self) -> Client {
        let kubeconfig = Kubeconfig::read_from(self.kubeconfig_path()).expect("kubeconfig");
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .expect("configuration of the client");
        // 127.0.0.1 is not reachable through the machine's proxy.
        config.proxy_url = None;
        Client::try_from(config).expect("client")
    }

    /// A new namespace, whose default ServiceAccount exists.
    pub async fn namespace(&self, prefix: &str) -> String {
        let client = self.client().await;
        let name = format!("{prefix}-{}", self.namespaces.fetch_add(1, Ordering::Relaxed));
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.clone());
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await.expect("namespace");
        let accounts: Api<ServiceAccount> = Api::namespaced(client, &name);
        super::eventually("the namespace's default ServiceAccount", Duration::from_secs(30), async || {
            accounts.get("default").await
        })
        .await;
        name
    }

    /// Runs the kubectl of this control plane. The caller judges whether it succeeded.
    pub async fn kubectl(&self, args: &[&str], stdin: &str) -> Output {
        let mut command = Command::new(self.dir.join("bin/kubectl"));
        command.arg("--kubeconfig").arg(self.kubeconfig_path()).args(args);
        output_beside(command, stdin).await
    }

    /// The requests for objects in a namespace (and for the namespace itself) so far, in order, of every user except the
    /// control plane itself. A line is written before its response is sent, unless the response is longer than the
    /// server's buffer (4 KiB): then perhaps shortly after it.
    pub fn audit(&self, namespace: &str) -> Vec<AuditLine> {
        let log = fs::read_to_string(self.dir.join("audit.log")).expect("audit log");
        // A watch has two lines: for its start and its end.
        let mut seen = HashSet::new();
        let of_it = format!("\"namespace\":\"{namespace}\"");
        log.split_inclusive('\n')
            .filter(|line| line.ends_with('\n')) // the last one may be incomplete
            .filter(|line| line.contains(&of_it)) // parsing all of them would take long
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("audit line"))
            .filter(|event| event["objectRef"]["namespace"] == namespace)
            .filter(|event| seen.insert(event["auditID"].to_string()))
            .map(|event| {
                let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
                let object = &event["objectRef"];
                AuditLine {
                    verb: text(&event["verb"]),
                    resource: text(&object["resource"]),
                    subresource: text(&object["subresource"]),
                    name: text(&object["name"]),
                    user: text(&event["user"]["username"]),
                    user_agent: text(&event["userAgent"]),
                    code: event["responseStatus"]["code"]
                        .as_u64()
                        .and_then(|code| code.try_into().ok())
                        .unwrap_or(0),
                    request_uri: text(&event["requestURI"]),
                }
            })
            .collect()
    }
}
