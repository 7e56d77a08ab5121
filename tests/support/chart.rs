//! Renders and installs the chart with Helm.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use super::account::kubeconfig_of;
use super::control_plane::ControlPlane;
use super::process::{BUILD_LIMIT, RUN_LIMIT, first_line, kill, wait_within};
use super::program::{output, result};

/// The folder of the chart.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/tokensource-operator");
/// The namespace of the release, except in tests that share a control plane.
pub const NAMESPACE: &str = "tokensource-system";
/// The name of the release in all tests.
pub const RELEASE: &str = "tokensource-operator";
const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/hack/tools.sh");

/// A program that `hack/tools.sh` builds; the first time takes minutes.
pub fn tool(module: &str, name: &str) -> PathBuf {
    let mut command = Command::new(TOOLS);
    // stderr is inherited: a first build prints its progress.
    command.arg(module).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    let mut child = command.spawn().expect(TOOLS);
    let Some(folder) = first_line(child.stdout.take().expect("stdout is a pipe"), BUILD_LIMIT) else {
        kill(&mut child);
        panic!("{TOOLS} {module}: not finished within {BUILD_LIMIT:?}; its output is above");
    };
    let status = wait_within(&mut child, TOOLS, RUN_LIMIT);
    assert!(status.success(), "{TOOLS} {module} failed; its output is above");
    Path::new(folder.trim()).join(name)
}

/// Runs Helm without settings of the environment. Returns its error output if it fails.
pub fn helm(kubeconfig: Option<&Path>, arguments: &[&str], stdin: &str) -> Result<String, String> {
    static HELM: OnceLock<PathBuf> = OnceLock::new();
    let home = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(HELM.get_or_init(|| tool("helm", "helm")));
    command.args(arguments).env_remove("KUBECONFIG");
    for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
        command.env(name, home.path());
    }
    if let Some(kubeconfig) = kubeconfig {
        command.env("KUBECONFIG", kubeconfig);
    }
    result(&output(command, stdin))
}

/// Renders the manifests, without those of `helm test`. Returns Helm's error output if the values are refused.
pub fn template(namespace: &str, values: &Value) -> Result<String, String> {
    let arguments = ["template", RELEASE, CHART, "--namespace", namespace, "--skip-tests", "--values", "-"];
    helm(None, &arguments, &values.to_string())
}

/// Renders the manifests, with those of `helm test`, into the namespace of the release.
pub fn template_with_tests(values: &Value) -> String {
    template_with_tests_in(NAMESPACE, values)
}

/// The same into this namespace.
pub fn template_with_tests_in(namespace: &str, values: &Value) -> String {
    let arguments = ["template", RELEASE, CHART, "--namespace", namespace, "--values", "-"];
    helm(None, &arguments, &values.to_string()).unwrap_or_else(|said| panic!("{values}: {said}"))
}

/// Renders the chart and parses the objects.
pub fn render(namespace: &str, values: &Value) -> Vec<Value> {
    objects(&template(namespace, values).unwrap_or_else(|said| panic!("{values}: {said}")))
}

/// Parses a text of YAML documents.
pub fn objects(yaml: &str) -> Vec<Value> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

/// The only object of this kind whose name contains `name`. Panics if there are none or several.
pub fn find<'o>(objects: &'o [Value], kind: &str, name: &str) -> &'o Value {
    let named = |object: &&Value| {
        object["kind"] == kind && object["metadata"]["name"].as_str().is_some_and(|it| it.contains(name))
    };
    let found: Vec<_> = objects.iter().filter(named).collect();
    match found[..] {
        [object] => object,
        _ => panic!("{} objects {kind} {name}", found.len()),
    }
}

/// The ServiceAccount of a release, with a kubeconfig for it.
pub struct Account {
    /// The user name in the API server.
    pub user: String,
    folder: tempfile::TempDir,
}

impl Account {
    /// Requests a token, as the kubelet does for a pod.
    pub async fn of(namespace: &str) -> Self {
        let folder = kubeconfig_of(namespace, RELEASE).await;
        Account { user: format!("system:serviceaccount:{namespace}:{RELEASE}"), folder }
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Runs kubectl as this ServiceAccount. Returns kubectl's error output if it fails.
    pub async fn kubectl(&self, arguments: &[&str], stdin: &str) -> Result<String, String> {
        let kubeconfig = self.kubeconfig();
        let ours = ["--kubeconfig", kubeconfig.to_str().expect("a path of text")];
        let output = ControlPlane::shared().kubectl(&[&ours, arguments].concat(), stdin).await;
        result(&output)
    }
}

/// Installs the chart into the shared control plane.
pub async fn install(namespace: &str, values: Value) -> String {
    let namespace = namespace.to_owned();
    let helm = move || {
        let kubeconfig = ControlPlane::shared().kubeconfig_path();
        let arguments = ["install", RELEASE, CHART, "--namespace", &namespace, "--values", "-"];
        helm(Some(&kubeconfig), &arguments, &values.to_string())
    };
    // On another thread, so that the operator of a test continues.
    tokio::task::spawn_blocking(helm)
        .await
        .expect("helm")
        .unwrap_or_else(|said| panic!("helm install: {said}"))
}
