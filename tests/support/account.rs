//! A ServiceAccount with the permissions that a test grants, for the operator or a command to run as.

use std::path::PathBuf;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use super::chart::{find, render};
use super::control_plane::ControlPlane;
use super::eventually;
use super::scene::Scene;

/// A ServiceAccount of a scene's namespace.
pub struct TestAccount<'a> {
    scene: &'a Scene,
    name: String,
    folder: tempfile::TempDir,
}

impl<'a> TestAccount<'a> {
    /// Creates one without permissions.
    pub async fn new(scene: &'a Scene, name: &str) -> Self {
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
        scene.apply(account).await;
        TestAccount { scene, name: name.to_owned(), folder: kubeconfig_of(&scene.namespace, name).await }
    }

    /// Replaces its permissions in the namespace by these; returns when they have taken effect.
    pub async fn may(&self, rules: Value) {
        let metadata = json!({"name": self.name});
        let group = "rbac.authorization.k8s.io";
        let role = json!({"apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": metadata, "rules": rules});
        let binding = json!({
            "apiVersion": format!("{group}/v1"),
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": self.name},
            "subjects": [{"kind": "ServiceAccount", "name": self.name, "namespace": self.scene.namespace}],
        });
        self.scene.apply(role).await;
        self.scene.apply(binding).await;
        for rule in rules.as_array().unwrap() {
            let text = |name: &str| rule[name][0].as_str().unwrap_or_default().to_owned();
            let (group, resource, verb) = (text("apiGroups"), text("resources"), text("verbs"));
            let (resource, part) = resource.split_once('/').unwrap_or((&resource, ""));
            let resource = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
            let named = rule["resourceNames"][0].as_str().map(|name| format!("{resource}/{name}"));
            let (part, who) = (
                format!("--subresource={part}"),
                format!("--as=system:serviceaccount:{}:{}", self.scene.namespace, self.name),
            );
            let question = ["auth", "can-i", &verb, &named.unwrap_or(resource), &part, &who];
            eventually("the permissions take effect", Duration::from_secs(30), async || {
                self.scene.try_kubectl(&question, "").await
            })
            .await;
        }
    }

    /// A kubeconfig with its token.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }
}

/// A folder with a kubeconfig, with a token as the kubelet requests it for a pod of that ServiceAccount.
pub async fn kubeconfig_of(namespace: &str, name: &str) -> tempfile::TempDir {
    let control_plane = ControlPlane::shared();
    let accounts: Api<ServiceAccount> = Api::namespaced(control_plane.client().await, namespace);
    let request = TokenRequest {
        spec: TokenRequestSpec { audiences: vec![], ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let answer = accounts.create_token_request(name, &PostParams::default(), &request).await.unwrap();
    let text = std::fs::read_to_string(control_plane.kubeconfig_path()).unwrap();
    let mut kubeconfig: Value = serde_saphyr::from_str(&text).unwrap();
    kubeconfig["users"][0]["user"] = json!({"token": answer.status.unwrap().token});
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
    folder
}

/// The rules that the chart grants the operator in a namespace.
pub fn operator_rules() -> Value {
    let objects = render("a", &json!({"namespaces": ["a"]}));
    find(&objects, "Role", "tokensource-operator.a")["rules"].clone()
}
