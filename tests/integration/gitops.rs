//! The operator beside GitOps tools: applied objects stay as written.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::support::operator::Operator;
use super::support::scene::{SOON, Scene};
use super::support::{eventually, gitops};

#[tokio::test(flavor = "multi_thread")]
async fn gitops_applied_objects_have_no_drift() {
    let scene = Scene::new("gitops-diff", 3600).await;
    let operator = Operator::start(&scene.namespace).await;
    // Durations that a library would normalize, explicit defaults, and the metadata of tools.
    let mut manifest = scene.source(json!({
        "refresh": {"before": "150s", "maxInterval": "1h0m90s", "defaultLifetime": "0h15m", "propagationDelay": "90s"},
        "credentials": {"clientIDKey": "client_id"},
        "target": {"deletionPolicy": "Delete"},
        "suspend": false,
    }));
    manifest["metadata"]["labels"] = json!({"app.kubernetes.io/instance": "payments"});
    manifest["metadata"]["annotations"] = json!({
        "argocd.argoproj.io/tracking-id": "payments:tokensource.dev/TokenSource:payments/source",
        "tokensource.dev/refresh-requested-at": "1",
    });
    let text = manifest.to_string();
    let applied = ["apply", "--server-side", "--field-manager=kustomize-controller", "-f", "-"];
    scene.kubectl(&applied, &text).await;
    scene.ready("True TokenValid").await;
    let spec = async || {
        let object = scene.kubectl(&["get", "tokensource", "source", "-o", "json"], "").await;
        serde_json::from_str::<serde_json::Value>(&object).unwrap()["spec"].clone()
    };
    assert_eq!(spec().await, manifest["spec"]);

    // After a failure, a refresh, a restart and a restored target.
    scene.credentials("wrong").await;
    scene.ready("True RefreshFailing").await;
    scene.credentials("right").await;
    scene.ready("True TokenValid").await;
    scene.secrets_are_seen().await;
    operator.stop().await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.source_is_seen().await;
    scene.ready("True TokenValid").await;
    let object = scene.sources().get("source").await.unwrap();
    let ours = |entry: &&k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry| {
        entry.manager.as_deref() == Some("tokensource-operator")
    };
    let managed = object.metadata.managed_fields.unwrap();
    assert!(managed.iter().any(|entry| ours(&entry)), "the status is the operator's");
    for entry in managed.iter().filter(ours) {
        assert_eq!(entry.subresource.as_deref(), Some("status"), "the operator manages status only");
    }
    assert_eq!(spec().await, manifest["spec"]);
    // Of one version: kubectl reads the object twice, and shows a status that was written in between as a difference.
    let diff = ["diff", "--server-side", "--field-manager=kustomize-controller", "-f", "-"];
    let difference = eventually("a diff of one version", SOON, async || {
        let version = async || scene.sources().get("source").await.unwrap().metadata.resource_version;
        let before = version().await;
        let difference = scene.try_kubectl(&diff, &text).await;
        if version().await == before { Ok(difference) } else { Err(difference) }
    });
    assert_eq!(difference.await, Ok(String::new()));
    // Applied again, as at every interval: no new generation.
    scene.kubectl(&applied, &text).await;
    assert_eq!(scene.sources().get("source").await.unwrap().metadata.generation, object.metadata.generation);
    scene.source_is_seen().await;
    assert_eq!(scene.mints().await, 2, "the first one, and the one with the wrong secret");

    // No tool considers the target its own and prunes it.
    let target = scene.secrets().get("token").await.unwrap().metadata;
    let labels: Vec<_> = target.labels.unwrap().into_keys().collect();
    assert_eq!(labels, ["app.kubernetes.io/managed-by"]);
    let annotations: Vec<_> = target.annotations.unwrap().into_keys().collect();
    assert_eq!(annotations, ["tokensource.dev/record"]);
    assert_eq!(target.owner_references.unwrap().len(), 1, "tools show it below its TokenSource");
}

/// Where the pull request to Argo CD has its files.
fn customization(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("contrib/argo-cd/resource_customizations/tokensource.dev/TokenSource")
        .join(file)
}

fn read(file: &str) -> Value {
    serde_saphyr::from_str(&fs::read_to_string(customization(file)).unwrap()).unwrap()
}

#[test]
fn argocd_pull_request_has_the_scripts_of_the_page() {
    for (file, script) in gitops::argocd_files() {
        assert_eq!(
            fs::read_to_string(customization(&file)).unwrap(),
            script,
            "docs/argocd.md and {file} differ"
        );
    }
}

/// The cases in a member of a file, at least one.
fn cases<'a>(file: &'a Value, member: &str) -> &'a [Value] {
    let cases = file[member].as_array().unwrap();
    assert!(!cases.is_empty(), "{member}");
    cases
}

/// As Argo CD's own tests do with these files.
#[tokio::test(flavor = "multi_thread")]
async fn argocd_pull_request_passes_its_cases() {
    for case in cases(&read("health_test.yaml"), "tests") {
        let input = case["inputPath"].as_str().unwrap();
        assert_eq!(gitops::health(&read(input).to_string()).await, case["healthStatus"], "{input}");
    }
    let file = read("actions/action_test.yaml");
    for case in cases(&file, "discoveryTests") {
        let input = format!("actions/{}", case["inputPath"].as_str().unwrap());
        let offered = gitops::offered(&read(&input).to_string()).await;
        for action in case["result"].as_array().unwrap() {
            let disabled = &offered[action["name"].as_str().unwrap()]["disabled"];
            assert_eq!(*disabled, action["disabled"], "{input}: {action}");
        }
        assert_eq!(offered.as_object().unwrap().len(), case["result"].as_array().unwrap().len(), "{input}");
    }
    for case in cases(&file, "actionTests") {
        let path = |member: &str| format!("actions/{}", case[member].as_str().unwrap());
        let (action, mut object) = (case["action"].as_str().unwrap(), read(&path("inputPath")));
        let patch = gitops::action(action, &object.to_string()).await;
        merge(&mut object, &patch);
        let requested = object.pointer_mut("/metadata/annotations/tokensource.dev~1refresh-requested-at");
        if let Some(requested) = requested {
            assert!(requested.as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{requested}");
            *requested = json!("0001-01-01T00:00:00Z");
        }
        assert_eq!(object, read(&path("expectedOutputPath")), "{action}");
    }
}

/// RFC 7396.
fn merge(object: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = json!({});
    }
    let members = object.as_object_mut().unwrap();
    for (key, value) in patch {
        if value.is_null() {
            members.remove(key);
        } else {
            merge(members.entry(key).or_insert(Value::Null), value);
        }
    }
}
