//! `helm test` on a control plane without nodes: what the chart renders for it, with the container of its pod as a process.

use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::account::kubeconfig_of;
use super::chart::{objects, template_with_tests_in};
use super::control_plane::ControlPlane;
use super::eventually;
use super::program::{PROGRAM, result, run};
use super::scene::SOON;

/// The objects of `helm test`, which exist, except for its pod.
pub struct HelmTest {
    pub pod: Value,
    others: Vec<Value>,
    account: TempDir,
}

impl HelmTest {
    /// Creates what a release in this namespace has with these values.
    pub async fn create(namespace: &str, values: &Value) -> Self {
        let objects = objects(&template_with_tests_in(namespace, values));
        let tests = objects.into_iter().filter(|it| it["metadata"]["annotations"]["helm.sh/hook"] == "test");
        let (pods, others): (Vec<_>, Vec<_>) = tests.partition(|it| it["kind"] == "Pod");
        let [pod] = &pods[..] else { panic!("{} pods", pods.len()) };
        // Helm reads the pod's log in the release's namespace.
        assert_eq!(pod["metadata"]["namespace"], namespace);
        kubectl(&["apply", "-f", "-"], &others).await;
        let account = kubeconfig_of(namespace, pod["spec"]["serviceAccountName"].as_str().unwrap()).await;
        HelmTest { pod: pod.clone(), others, account }
    }

    /// Creates the TokenSource anew, as another run does.
    pub async fn again(&self) {
        let source = self.others.iter().find(|it| it["kind"] == "TokenSource").unwrap();
        kubectl(&["delete", "-f", "-"], std::slice::from_ref(source)).await;
        kubectl(&["apply", "-f", "-"], &self.others).await;
    }

    /// Runs the container until it ends with this exit code and these words. It has all rights that it needs.
    pub async fn says(&self, code: i32, words: &[&str]) {
        let arguments = self.pod["spec"]["containers"][0]["args"].as_array().unwrap();
        eventually(&format!("the test ends with {code}"), SOON, async || {
            let mut command = Command::new(PROGRAM);
            command.args(arguments.iter().map(|it| it.as_str().unwrap()));
            command.env("KUBECONFIG", self.account.path().join("kubeconfig"));
            let said = run(command, "").await;
            let all = said.all();
            let fits =
                said.code == code && words.iter().all(|word| all.contains(word)) && !all.contains("may not");
            if fits { Ok(()) } else { Err((said.code, all)) }
        })
        .await;
    }

    /// Deletes its objects.
    pub async fn delete(self) {
        kubectl(&["delete", "-f", "-"], &self.others).await;
    }
}

async fn kubectl(arguments: &[&str], objects: &[Value]) {
    let text = objects.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n");
    let output = ControlPlane::shared().kubectl(arguments, &text).await;
    result(&output).unwrap_or_else(|said| panic!("kubectl {arguments:?}: {said}"));
}
