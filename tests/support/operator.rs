//! The operator as a process, which can be killed and whose output is kept.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::authorization_server::http_client;
use super::control_plane::ControlPlane;
use super::eventually;
use super::process;
use super::program::PROGRAM;

/// A running operator. Dropping it kills it.
pub struct Operator {
    child: Child,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Operator {
    /// Starts the operator for one namespace, allowed to reach the servers of the tests.
    pub async fn start(namespace: &str) -> Self {
        Self::start_with(namespace, &["--allow-http", "--egress-allow", "127.0.0.0/8"]).await
    }

    /// The same with these flags, and waits until it has started.
    pub async fn start_with(namespace: &str, flags: &[&str]) -> Self {
        Self::start_at(&ControlPlane::shared().kubeconfig_path(), namespace, flags).await
    }

    /// The same with this kubeconfig, without leader election.
    pub async fn start_at(kubeconfig: &Path, namespace: &str, flags: &[&str]) -> Self {
        let flags = [&["--leader-elect=false"], flags].concat();
        Self::run(kubeconfig, "alone", &["--namespace", namespace], &flags).await
    }

    /// Starts the operator for the namespaces with this label.
    pub async fn start_selecting(label: &str) -> Self {
        let flags = ["--leader-elect=false", "--allow-http", "--egress-allow", "127.0.0.0/8"];
        let scope = ["--namespace-selector", label];
        Self::run(&ControlPlane::shared().kubeconfig_path(), "alone", &scope, &flags).await
    }

    /// One of several replicas for one namespace, allowed to reach the servers of the tests. Its name must be unique.
    pub async fn replica(kubeconfig: &Path, namespace: &str, name: &str, flags: &[&str]) -> Self {
        let usual =
            ["--allow-http", "--egress-allow", "127.0.0.0/8", "--leader-election-namespace", namespace];
        Self::run(kubeconfig, name, &["--namespace", namespace], &[&usual, flags].concat()).await
    }

    async fn run(kubeconfig: &Path, name: &str, scope: &[&str], flags: &[&str]) -> Self {
        let arguments = ["run", "--admin-address", "127.0.0.1:0"];
        Self::launch(kubeconfig, name, &[&arguments, scope, flags].concat()).await
    }

    /// Starts the operator for one namespace, allowed to reach the servers of the tests, with these variables.
    pub async fn start_in(namespace: &str, environment: &[(&str, &str)]) -> Self {
        let arguments = [
            &["run", "--admin-address", "127.0.0.1:0", "--leader-elect=false", "--allow-http"][..],
            &["--egress-allow", "127.0.0.0/8", "--namespace", namespace],
        ];
        let kubeconfig = ControlPlane::shared().kubeconfig_path();
        Self::launch_in(&kubeconfig, "alone", &arguments.concat(), environment).await
    }

    /// Starts a pod of this name with these arguments, and waits until it has started.
    pub async fn launch(kubeconfig: &Path, name: &str, arguments: &[&str]) -> Self {
        Self::launch_in(kubeconfig, name, arguments, &[]).await
    }

    /// The same with these variables.
    pub async fn launch_in(
        kubeconfig: &Path,
        name: &str,
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let operator = Self::spawn_in(kubeconfig, name, arguments, environment);
        eventually("the operator starts", Duration::from_secs(20), async || {
            let log = operator.log();
            if log.contains("starting") { Ok(()) } else { Err(log) }
        })
        .await;
        operator
    }

    /// Starts a pod of this name with these arguments, which may fail to start.
    pub fn spawn(kubeconfig: &Path, name: &str, arguments: &[&str]) -> Self {
        Self::spawn_in(kubeconfig, name, arguments, &[])
    }

    fn spawn_in(kubeconfig: &Path, name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let child = Command::new(PROGRAM)
            .args(arguments)
            .env("TOKENSOURCE_LOG_LEVEL", "debug,hyper=info,h2=info")
            .env("KUBECONFIG", kubeconfig)
            .env("POD_NAME", name)
            // Tests change credentials, specs and refresh requests more often than people do.
            .env("TOKENSOURCE_CHANGE_INTERVAL", "0s")
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(File::create(folder.path().join("stdout")).unwrap())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Operator { child, log, _folder: folder }
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// How often its log contains this text.
    pub fn said(&self, words: &str) -> usize {
        self.log().matches(words).count()
    }

    /// The address of its admin server.
    pub fn admin_address(&self) -> String {
        let log = self.log();
        let line =
            log.lines().find(|line| line.contains("serving /livez")).expect("a log line with the address");
        line.split_once("address=").expect("an address").1.trim().to_owned()
    }

    /// A request to its admin server: status, media type and body.
    pub async fn admin(&self, path: &str) -> (u16, String, String) {
        let address = self.admin_address();
        let response = http_client().get(format!("http://{address}{path}")).send().await.unwrap();
        let media_type = response.headers()["content-type"].to_str().unwrap().to_owned();
        (response.status().as_u16(), media_type, response.text().await.unwrap())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name, for example STOP.
    pub fn signal(&self, name: &str) {
        assert!(process::signal(name, &self.pid().to_string()), "the operator has ended:\n{}", self.log());
    }

    /// SIGKILL, as after a failure of the node. Returns the log.
    pub fn kill(mut self) -> String {
        process::kill(&mut self.child);
        self.log()
    }

    /// SIGTERM, as Kubernetes stops a pod. Returns the log after it has ended.
    pub async fn stop(self) -> String {
        self.signal("TERM");
        self.ends().await
    }

    /// Waits until it has ended by itself, with exit code 0, and returns the log.
    pub async fn ends(mut self) -> String {
        eventually("the operator stops", Duration::from_secs(45), async || {
            self.exit_status().map(|status| assert!(status.success(), "{status}")).ok_or("still running")
        })
        .await;
        self.log()
    }

    /// Its exit status, if it has ended.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        process::kill(&mut self.child);
        if std::thread::panicking() {
            // Only the end: at level trace the log has megabytes.
            let log = self.log();
            let end = &log.as_bytes()[log.len().saturating_sub(64 * 1024)..];
            eprintln!("--- the operator's log\n{}---", String::from_utf8_lossy(end));
        }
    }
}
