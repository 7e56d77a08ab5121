//! The validation rules of the CRD, through `kubectl apply`: the message of a refusal says what to write instead.

mod accepted;
mod issuers;
mod keyless;
mod refused;

use serde_json::{Value, json};

use super::support::control_plane::ControlPlane;
use super::support::scene::Scene;
use accepted::accepted;
use refused::refused;

const CRDS: [&str; 2] = [
    include_str!("../../crds/tokensource.dev_tokensources.yaml"),
    include_str!("../../crds/tokensource.dev_clustertokenissuers.yaml"),
];
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
    for (manifest, sentence) in refused().into_iter().chain(issuers::refused()) {
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
    let sources = keyless::accepted().into_iter().chain(issuers::accepted_sources()).map(source);
    for manifest in accepted().into_iter().chain(sources).chain(issuers::accepted()) {
        let output = dry_run(&scene, &manifest).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{manifest}\n{said}");
        assert_eq!(said, "", "{manifest}");
    }
    for crd in CRDS {
        let arguments = ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-"];
        let output = ControlPlane::shared().kubectl(&arguments, crd).await;
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
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
async fn controller_of_an_issuer_cannot_be_changed() {
    let scene = Scene::bare("controller").await;
    scene.apply(issuers::of_controller(&scene.namespace, &scene.namespace)).await;
    let output = dry_run(&scene, &issuers::of_controller(&scene.namespace, "example.com/other")).await;
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(issuers::IMMUTABLE), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_validation_rule_is_broken_by_a_manifest() {
    let broken = [refused(), issuers::refused()];
    let mut everywhere = vec![];
    for ((crd, broken), immutable) in CRDS.iter().zip(broken).zip([IMMUTABLE, issuers::IMMUTABLE]) {
        let crd: Value = serde_saphyr::from_str(crd).unwrap();
        let mut messages = vec![];
        rule_messages(&crd, &mut messages);
        assert!(messages.len() > 15, "{messages:?}");
        // Fields that both kinds have are of one type, whose rules one of them breaks.
        everywhere.extend(broken.into_iter().map(|(_, sentence)| sentence).chain([immutable]));
        for message in messages {
            let is_broken = everywhere.iter().any(|sentence| message.contains(sentence));
            assert!(is_broken, "no manifest breaks: {message}");
        }
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
