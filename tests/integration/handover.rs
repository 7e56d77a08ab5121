//! Handover of existing Secrets, changed types, and changed deletion policies.

use kube::Api;
use serde_json::{Value, json};

use super::ownership::{allow, base64, deny, named, started};
use super::support::eventually;
use super::support::operator::Operator;
use super::support::scene::{SOON, Scene};

const ADOPT: &str = "tokensource.dev/adopt=source";

/// An existing Secret `token`, and a TokenSource with it as target.
async fn foreign(prefix: &str, secret: Value, change: Value) -> (Scene, Operator) {
    let scene = Scene::new(prefix, 600).await;
    let mut manifest = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token"}, "stringData": {"ca.crt": "theirs"}});
    manifest.as_object_mut().unwrap().extend(secret.as_object().unwrap().clone());
    scene.apply(manifest).await;
    let operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(change)).await;
    (scene, operator)
}

/// Waits until the operator has seen `token`, and asserts that it is not modified.
async fn is_left_alone(scene: &Scene, mints: u64) {
    scene.source_is_seen().await;
    let secret = scene.secrets().get("token").await.unwrap();
    let record = "tokensource.dev/record";
    assert!(secret.metadata.annotations.is_none_or(|all| !all.contains_key(record)));
    assert_eq!(scene.mints().await, mints);
}

#[tokio::test(flavor = "multi_thread")]
async fn handover_command_of_message_adopts_secret_and_keeps_its_other_keys() {
    let (scene, operator) = foreign("adopt", json!({}), json!({})).await;
    let said = scene.ready("False TargetConflict").await;
    is_left_alone(&scene, 0).await;

    let command = said.split("kubectl ").nth(1).unwrap().split(';').next().unwrap();
    let arguments: Vec<&str> = command.split(' ').collect();
    scene.kubectl(&arguments, "").await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.value("token", "ca.crt").await.as_deref(), Some("theirs"));
    assert!(scene.server.is_valid(&scene.token().await.unwrap()).await);
    let metadata = scene.secrets().get("token").await.unwrap().metadata;
    assert_eq!(metadata.owner_references.unwrap()[0].name, "source");
    assert_eq!(metadata.labels.unwrap()["app.kubernetes.io/managed-by"], "tokensource-operator");

    // The annotation is needed once; then the record identifies the Secret.
    scene.kubectl(&["annotate", "secret", "token", "tokensource.dev/adopt-"], "").await;
    operator.kill();
    let _operator = Operator::start(&scene.namespace).await;
    scene.source_is_seen().await;
    scene.secrets_are_seen().await;
    assert_eq!(scene.mints().await, 1);
    scene.force_refresh("1").await;
    assert_eq!(scene.value("token", "ca.crt").await.as_deref(), Some("theirs"));
    assert_eq!(scene.mints().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn handover_of_secret_with_other_type_is_reported_and_costs_no_token_request() {
    let (scene, _operator) = foreign("adopt-type", json!({"type": "example.com/theirs"}), json!({})).await;
    scene.kubectl(&["annotate", "secret", "token", ADOPT], "").await;
    let words =
        ["Secret token is of type example.com/theirs", "write this type in spec.target.template.type"];
    scene.reports("False TargetConflict", &words).await;
    scene.condition("source", "Stalled", "True TargetConflict").await;
    is_left_alone(&scene, 0).await;

    scene
        .patch(
            "tokensource",
            "source",
            json!({"spec": {"target": {"template": {"type": "example.com/theirs"}}}}),
        )
        .await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.value("token", "ca.crt").await.as_deref(), Some("theirs"));
    assert_eq!(scene.mints().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn handover_of_service_account_token_is_refused() {
    let scene = Scene::new("adopt-sa", 600).await;
    scene.kubectl(&["create", "serviceaccount", "robot"], "").await;
    scene
        .apply(json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
            "metadata": {"name": "token", "annotations": {"kubernetes.io/service-account.name": "robot", "tokensource.dev/adopt": "source"}},
        }))
        .await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    let words = ["Secret token is of type kubernetes.io/service-account-token", "delete the Secret"];
    scene.reports("False TargetConflict", &words).await;
    assert!(!scene.ready("False TargetConflict").await.contains("spec.target.template.type"));
    is_left_alone(&scene, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handover_of_secret_with_other_controller_is_refused() {
    let scene = Scene::new("adopt-owned", 600).await;
    scene.apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs"}})).await;
    let maps: Api<k8s_openapi::api::core::v1::ConfigMap> =
        Api::namespaced(scene.client.clone(), &scene.namespace);
    let uid = maps.get("theirs").await.unwrap().metadata.uid.unwrap();
    scene
        .apply(json!({
            "apiVersion": "v1", "kind": "Secret", "stringData": {"a": "b"},
            "metadata": {
                "name": "token",
                "annotations": {"tokensource.dev/adopt": "source"},
                "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "theirs", "uid": uid, "controller": true}],
            },
        }))
        .await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    let said = scene.ready("False TargetConflict").await;
    assert!(said.contains("it belongs to ConfigMap theirs") && !said.contains("annotate"), "{said}");
    is_left_alone(&scene, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handover_of_retained_secret_to_other_source_works() {
    let (scene, _operator, token) =
        started("adopt-retained", json!({"target": {"deletionPolicy": "Retain"}})).await;
    scene.kubectl(&["delete", "tokensource", "source"], "").await;
    scene.apply(named("second", "token", &scene)).await;
    let said = scene.condition("second", "Ready", "False TargetConflict").await;
    assert!(said.contains("it belongs to TokenSource source"), "{said}");
    assert_eq!(scene.token().await.as_ref(), Some(&token));
    scene.kubectl(&["annotate", "secret", "token", "tokensource.dev/adopt=second"], "").await;
    scene.condition("second", "Ready", "True TokenValid").await;
    assert_eq!(scene.record().await["owner"]["name"], "second");
    assert_eq!(scene.mints().await, 2);
}

async fn uid_and_type(scene: &Scene) -> (String, String) {
    let secret = scene.secrets().get("token").await.unwrap();
    (secret.metadata.uid.unwrap(), secret.type_.unwrap())
}

async fn set_type(scene: &Scene, kind: &str) {
    scene.patch("tokensource", "source", json!({"spec": {"target": {"template": {"type": kind}}}})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_type_costs_one_token_request_and_replaces_secret() {
    let (scene, operator, token) = started("type", json!({})).await;
    let (uid, _) = uid_and_type(&scene).await;
    set_type(&scene, "example.com/token").await;
    scene.ready("True TokenValid").await;
    let (new_uid, kind) = uid_and_type(&scene).await;
    assert_eq!(kind, "example.com/token");
    assert_ne!(uid, new_uid);
    assert_ne!(scene.token().await.as_ref(), Some(&token));
    operator.kill();
    let _operator = Operator::start(&scene.namespace).await;
    scene.source_is_seen().await;
    scene.secrets_are_seen().await;
    assert_eq!(scene.mints().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_type_keeps_old_secret_until_new_token_exists() {
    let (scene, _operator, token) = started("type-rejected", json!({})).await;
    let before = uid_and_type(&scene).await;
    scene.patch("tokensource", "source", json!({"spec": {"suspend": true}})).await;
    scene.credentials("wrong").await;
    let both = json!({"spec": {"suspend": false, "target": {"template": {"type": "example.com/token"}}}});
    scene.patch("tokensource", "source", both).await;
    scene.ready("False ClientRejected").await;
    assert_eq!((uid_and_type(&scene).await, scene.token().await), (before, Some(token)));
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_type_refused_creation_keeps_token_in_memory() {
    let (scene, _operator, _) = started("type-refused", json!({})).await;
    deny(&scene, &["CREATE"]).await;
    set_type(&scene, "example.com/token").await;
    scene.reports("False TargetRefused", &["Secret token", "not on a Friday"]).await;
    assert!(scene.secrets().get_opt("token").await.unwrap().is_none());
    allow(&scene).await;
    eventually("it is created", 3 * SOON, async || scene.token().await.ok_or("none")).await;
    scene.ready("True TokenValid").await;
    assert_eq!(uid_and_type(&scene).await.1, "example.com/token");
    assert_eq!(scene.mints().await, 2, "the received token was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_type_is_refused_while_secret_has_keys_of_others() {
    let (scene, _operator, token) = started("type-shared", json!({})).await;
    scene.patch("secret", "token", json!({"data": {"ca.crt": base64("theirs")}})).await;
    set_type(&scene, "example.com/token").await;
    let words = ["Secret token is of type Opaque", "written by kubectl-patch", "delete the Secret"];
    scene.reports("False TargetRefused", &words).await;
    scene.condition("source", "Stalled", "True TargetRefused").await;
    assert_eq!(scene.token().await.as_ref(), Some(&token));
    assert_eq!(scene.value("token", "ca.crt").await.as_deref(), Some("theirs"));
    assert_eq!(scene.mints().await, 1);

    scene.patch("secret", "token", json!({"data": {"ca.crt": null}})).await;
    scene.ready("True TokenValid").await;
    assert_eq!(uid_and_type(&scene).await.1, "example.com/token");
    assert_eq!(scene.mints().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_policy_changed_to_retain_keeps_secret() {
    let (scene, _operator, token) = started("retained-later", json!({})).await;
    scene.patch("tokensource", "source", json!({"spec": {"target": {"deletionPolicy": "Retain"}}})).await;
    eventually("it has no owner", SOON, async || {
        let owners = scene.secrets().get("token").await.unwrap().metadata.owner_references;
        if owners.is_none_or(|it| it.is_empty()) { Ok(()) } else { Err("not yet") }
    })
    .await;
    scene.kubectl(&["delete", "tokensource", "source"], "").await;
    scene.gone("tokensource", "source").await;
    scene.apply(named("later", "later", &scene)).await;
    scene.condition("later", "Ready", "True TokenValid").await;
    assert_eq!(scene.token().await, Some(token));
    assert_eq!(scene.mints().await, 2);
}
