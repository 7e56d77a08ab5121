//! The validation rules of the CRD, through `kubectl apply`: the message of a refusal says what to write instead.

mod accepted;
mod keyless;
mod refused;

use serde_json::{Value, json};

use super::support::control_plane::ControlPlane;
use super::support::scene::Scene;
use accepted::accepted;
use refused::refused;

const IMMUTABLE: &str = "spec.target.name cannot be changed";

fn source(spec: Value) -> Value {
    named("source", spec)
}

fn named(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource", "metadata": {"name": name}, "spec": spec})
}

fn of(provider: Value) -> Value {
    json!({"provider": provider, "credentials": {"secretRef": {"name": "credentials"}}})
}

fn vgs(more: Value) -> Value {
    with(of(json!({"vgs": {}})), more)
}

fn vcd(vcd: Value) -> Value {
    of(json!({"vmwareCloudDirector": vcd}))
}

fn oauth2(more: Value) -> Value {
    of(json!({"oauth2": with(json!({"tokenURL": "https://idp.example.com/oauth/token"}), more)}))
}

fn credentials(credentials: Value) -> Value {
    let credentials = with(json!({"secretRef": {"name": "credentials"}}), credentials);
    json!({"provider": {"vgs": {}}, "credentials": credentials})
}

fn with(mut into: Value, from: Value) -> Value {
    into.as_object_mut().unwrap().extend(from.as_object().unwrap().clone());
    into
}

async fn dry_run(scene: &Scene, manifest: &Value) -> std::process::Output {
    let arguments = ["-n", &scene.namespace, "apply", "--dry-run=server", "-o", "name", "-f", "-"];
    ControlPlane::shared().kubectl(&arguments, &manifest.to_string()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_manifest_message_says_what_to_write_instead() {
    let scene = Scene::bare("refused").await;
    let mut wrong = vec![];
    for (manifest, sentence) in refused() {
        let output = dry_run(&scene, &manifest).await;
        // The words of Kubernetes 1.31.
        let said =
            String::from_utf8_lossy(&output.stderr).replace("may not be longer than", "may not be more than");
        if output.status.success() || !said.contains(sentence) {
            wrong.push(format!("{manifest}\n  should say: {sentence}\n  said: {said}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn valid_manifest_is_accepted_without_warning() {
    let scene = Scene::bare("accepted").await;
    for manifest in accepted().into_iter().chain(keyless::accepted().into_iter().map(source)) {
        let output = dry_run(&scene, &manifest).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{manifest}\n{said}");
        assert_eq!(said, "", "{manifest}");
    }
    let crd = include_str!("../../crds/tokensource.dev_tokensources.yaml");
    let arguments = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"];
    let output = ControlPlane::shared().kubectl(&arguments, crd).await;
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

/// Transition rules need an existing object.
#[tokio::test(flavor = "multi_thread")]
async fn target_name_cannot_be_changed() {
    let scene = Scene::bare("renamed").await;
    scene.apply(source(vgs(json!({})))).await;
    let mut refused = vec![source(vgs(json!({"target": {"name": "other"}})))];
    scene.apply(named("named", vgs(json!({"target": {"name": "token"}})))).await;
    refused.push(named("named", vgs(json!({"target": {"name": "other"}}))));
    refused.push(named("named", vgs(json!({}))));
    for manifest in refused {
        let output = dry_run(&scene, &manifest).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(IMMUTABLE), "{manifest}\n{said}");
    }
    // Writing out the default is no change.
    scene.apply(source(vgs(json!({"target": {"name": "source"}})))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_validation_rule_is_broken_by_a_manifest() {
    let crd = include_str!("../../crds/tokensource.dev_tokensources.yaml");
    let crd: Value = serde_saphyr::from_str(crd).unwrap();
    let mut messages = vec![];
    rule_messages(&crd, &mut messages);
    assert!(messages.len() > 15, "{messages:?}");
    let sentences: Vec<_> = refused().into_iter().map(|(_, sentence)| sentence).chain([IMMUTABLE]).collect();
    for message in messages {
        assert!(sentences.iter().any(|sentence| message.contains(sentence)), "no manifest breaks: {message}");
    }
}

fn rule_messages(schema: &Value, messages: &mut Vec<String>) {
    match schema {
        Value::Object(members) => {
            for rule in
                members.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten()
            {
                messages.push(rule["message"].as_str().expect("every rule has a message").to_owned());
            }
            members.values().for_each(|member| rule_messages(member, messages));
        }
        Value::Array(items) => items.iter().for_each(|item| rule_messages(item, messages)),
        _ => {}
    }
}
