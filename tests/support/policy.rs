//! Admission policies that refuse writes of a Secret for a test.

use std::time::Duration;

use serde_json::json;

use super::control_plane::ControlPlane;
use super::eventually;
use super::scene::Scene;

/// An admission policy that refuses every write of one Secret until it is lifted.
pub struct Refusal<'a> {
    scene: &'a Scene,
    name: String,
}

impl<'a> Refusal<'a> {
    /// Refuses writes of Secret `secret` in the scene's namespace. `message` is a CEL expression. Returns when the policy
    /// has taken effect.
    pub async fn of(scene: &'a Scene, secret: &str, message: &str) -> Self {
        Self::unless(scene, secret, "false", message).await
    }

    /// The same, for writes that change the data of an existing Secret.
    pub async fn of_data(scene: &'a Scene, secret: &str, message: &str) -> Self {
        Self::unless(scene, secret, "oldObject == null || object.?data == oldObject.?data", message).await
    }

    async fn unless(scene: &'a Scene, secret: &str, allowed: &str, message: &str) -> Self {
        let namespace = &scene.namespace;
        let name = format!("{namespace}-{secret}");
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name},
            "spec": {
                "matchConstraints": {"resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "resources": ["secrets"],
                    "operations": ["CREATE", "UPDATE"],
                }]},
                "matchConditions": [{"name": "name", "expression": format!("request.name == '{secret}'")}],
                "validations": [{"expression": allowed, "messageExpression": message}],
            },
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name},
            "spec": {
                "policyName": name,
                "validationActions": ["Deny"],
                "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}},
            },
        });
        scene.apply(policy).await;
        scene.apply(binding).await;
        let refusal = Refusal { scene, name };
        let try_it = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": secret}, "stringData": {"probe": "x"}})
            .to_string();
        eventually("the policy takes effect", Duration::from_secs(60), async || {
            let tried = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"];
            match scene.try_kubectl(&tried, &try_it).await {
                Err(said) if said.contains("ValidatingAdmissionPolicy") => Ok(()),
                other => Err(other),
            }
        })
        .await;
        refusal
    }

    /// Removes the policy.
    pub async fn lift(self) {
        for kind in ["validatingadmissionpolicybinding", "validatingadmissionpolicy"] {
            let output = ControlPlane::shared().kubectl(&["delete", kind, &self.name], "").await;
            assert!(output.status.success(), "{} {output:?}", self.scene.namespace);
        }
    }
}
