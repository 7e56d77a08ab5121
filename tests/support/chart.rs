//! The chart, and the real Helm for it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use super::account::kubeconfig_of;
use super::control_plane::ControlPlane;
use super::program::{output, result};

/// The chart's folder.
pub const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/tokensource-operator");
/// Where it is installed, in the tests that have a choice.
pub const NAMESPACE: &str = "tokensource-system";
/// The name of every release in the tests.
pub const RELEASE: &str = "tokensource-operator";
const TOOLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/hack/tools.sh");

/// A program that `hack/tools.sh` builds, the first time for minutes.
pub fn tool(module: &str, name: &str) -> PathBuf {
    let output = Command::new(TOOLS).arg(module).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.expect(TOOLS);
    assert!(output.status.success(), "{TOOLS} {module}: its words are above");
    Path::new(String::from_utf8_lossy(&output.stdout).trim()).join(name)
}

/// Runs Helm, with no settings but these; `Err` is what it said when it failed.
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

/// The manifests as text; `Err` is what Helm says of these values.
pub fn template(namespace: &str, values: &Value) -> Result<String, String> {
    let arguments = ["template", RELEASE, CHART, "--namespace", namespace, "--values", "-"];
    helm(None, &arguments, &values.to_string())
}

/// The objects that the chart makes with these values.
pub fn render(namespace: &str, values: &Value) -> Vec<Value> {
    objects(&template(namespace, values).unwrap_or_else(|said| panic!("{values}: {said}")))
}

/// The objects in a text of YAML documents.
pub fn objects(yaml: &str) -> Vec<Value> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

/// The object of this kind, and this part of its name; there must be one.
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

/// The ServiceAccount of a release, with a way to the API server in its name.
pub struct Account {
    /// As the API server calls it.
    pub user: String,
    folder: tempfile::TempDir,
}

impl Account {
    /// Asks for a token as the kubelet does for a pod.
    pub async fn of(namespace: &str) -> Self {
        let folder = kubeconfig_of(namespace, RELEASE).await;
        Account { user: format!("system:serviceaccount:{namespace}:{RELEASE}"), folder }
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Runs kubectl in its name; `Err` is what kubectl said when it failed.
    pub async fn kubectl(&self, arguments: &[&str], stdin: &str) -> Result<String, String> {
        let kubeconfig = self.kubeconfig();
        let ours = ["--kubeconfig", kubeconfig.to_str().expect("a path of text")];
        let output = ControlPlane::shared().kubectl(&[&ours, arguments].concat(), stdin).await;
        result(&output)
    }
}

/// `helm install` of the chart into the shared control plane.
pub async fn install(namespace: &str, values: Value) -> String {
    let namespace = namespace.to_owned();
    let helm = move || {
        let kubeconfig = ControlPlane::shared().kubeconfig_path();
        let arguments = ["install", RELEASE, CHART, "--namespace", &namespace, "--values", "-"];
        helm(Some(&kubeconfig), &arguments, &values.to_string())
    };
    // Off this thread: the operator of a test shall go on meanwhile.
    tokio::task::spawn_blocking(helm)
        .await
        .expect("helm")
        .unwrap_or_else(|said| panic!("helm install: {said}"))
}
