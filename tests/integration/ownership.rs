//! Ownership of target Secrets: what is restored, kept and deleted; and writes that the API server refuses.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::deletion::namespace_is_gone;
use super::support::eventually;
use super::support::operator::Operator;
use super::support::scene::{SOON, Scene};

/// A source with a token of ten minutes; `change` is merged into its spec.
pub async fn started(prefix: &str, change: Value) -> (Scene, Operator, String) {
    let scene = Scene::new(prefix, 600).await;
    let operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(change)).await;
    scene.ready("True TokenValid").await;
    let token = scene.token().await.unwrap();
    (scene, operator, token)
}

pub fn base64(text: &str) -> String {
    use ::base64::Engine as _;
    ::base64::engine::general_purpose::STANDARD.encode(text)
}

/// Another TokenSource in the namespace.
pub fn named(name: &str, target: &str, scene: &Scene) -> Value {
    let mut source = scene.source(json!({"target": {"name": target}}));
    source["metadata"]["name"] = json!(name);
    source
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_secret_is_not_modified() {
    let scene = Scene::new("foreign", 600).await;
    scene.secret("token", &[("theirs", "precious")]).await;
    let before = scene.secrets().get("token").await.unwrap();
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    scene
        .reports("False TargetConflict", &["Secret token", "this operator did not create it", "delete it"])
        .await;
    scene.condition("source", "Stalled", "True TargetConflict").await;
    scene.kubectl(&["label", "secret", "token", "a=b"], "").await;
    scene.source_is_seen().await;
    let after = scene.secrets().get("token").await.unwrap();
    assert_eq!((after.data, after.metadata.uid), (before.data, before.metadata.uid));
    assert!(after.metadata.annotations.is_none_or(|all| !all.contains_key("tokensource.dev/record")));
    assert_eq!(scene.mints().await, 0);

    scene.kubectl(&["delete", "secret", "token"], "").await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_sources_with_one_target_first_keeps_it() {
    let (scene, operator, token) = started("two", json!({})).await;
    scene.apply(named("second", "token", &scene)).await;
    let said = scene.condition("second", "Ready", "False TargetConflict").await;
    assert!(said.contains("it belongs to TokenSource source"), "{said}");
    operator.kill();
    let _operator = Operator::start(&scene.namespace).await;
    scene.source_is_seen().await;
    scene.secrets_are_seen().await;
    assert_eq!(scene.mints().await, 1);
    assert_eq!(scene.token().await.as_ref(), Some(&token));

    // When the first one and its Secret are deleted, the second one gets the target.
    scene.kubectl(&["delete", "tokensource", "source"], "").await;
    scene.condition("second", "Ready", "True TokenValid").await;
    assert_eq!(scene.mints().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_target_is_recreated_at_once_by_one_token_request() {
    let (scene, _operator, token) = started("deleted", json!({})).await;
    scene.kubectl(&["delete", "secret", "token"], "").await;
    scene.new_token(Some(&token)).await;
    scene.ready("True TokenValid").await;
    scene.secrets_are_seen().await;
    assert_eq!(scene.mints().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn edited_target_is_restored_at_once_then_at_most_every_30_s() {
    let (scene, _operator, token) = started("edited", json!({})).await;
    let edit = json!({"data": {"access_token": base64("theirs")}});
    scene.patch("secret", "token", edit.clone()).await;
    eventually("it is restored", SOON, async || match scene.token().await {
        Some(now) if now != "theirs" && now != token => Ok(()),
        other => Err(other),
    })
    .await;
    let restored = Timestamp::now();
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 2);

    // A second edit is a conflict with another writer, which must not cost further token requests.
    scene.patch("secret", "token", edit).await;
    let said = scene.ready("False ConflictingWriter").await;
    assert!(said.contains("changed again by \"kubectl-patch\" after it had been restored"), "{said}");
    scene.condition("source", "Reconciling", "True ConflictingWriter").await;
    assert_eq!(scene.token().await.as_deref(), Some("theirs"), "{said}");
    assert_eq!(scene.mints().await, 2);
    let events =
        scene.kubectl(&["get", "events.v1.events.k8s.io", "-o", "jsonpath={.items[*].reason}"], "").await;
    assert!(events.contains("ConflictingWriter"), "{events}");
    eventually("it is restored again", 2 * SOON, async || match scene.token().await {
        Some(now) if now != "theirs" => Ok(()),
        other => Err(other),
    })
    .await;
    let waited = Timestamp::now().duration_since(restored);
    assert!(waited.as_secs() >= 27, "{waited:?}");
    let said = "\"kubectl-patch\" changes Secret token or deletes it again and again (2 times";
    scene.reports("True TokenValid", &[said, "let only one of them write it"]).await;
    assert_eq!(scene.mints().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_key_is_restored() {
    let (scene, _operator, token) = started("removed-key", json!({})).await;
    scene.patch("secret", "token", json!({"data": {"token_type": null}})).await;
    scene.new_token(Some(&token)).await;
    assert_eq!(scene.value("token", "token_type").await.as_deref(), Some("Bearer"));
    scene.secrets_are_seen().await;
    assert_eq!(scene.mints().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_record_is_restored() {
    let (scene, _operator, token) = started("removed-record", json!({})).await;
    scene.kubectl(&["annotate", "secret", "token", "tokensource.dev/record-"], "").await;
    scene.new_token(Some(&token)).await;
    scene.ready("True TokenValid").await;
    scene.secrets_are_seen().await;
    assert_eq!(scene.mints().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn target_additions_of_others_are_kept() {
    let (scene, _operator, token) = started("others", json!({})).await;
    let theirs = json!({
        "metadata": {"labels": {"team": "payments"}, "annotations": {"example.com/note": "keep"}},
        "data": {"ca.crt": base64("theirs")},
    });
    scene.patch("secret", "token", theirs).await;
    scene.secrets_are_seen().await;
    assert_eq!(scene.token().await, Some(token));
    assert_eq!(scene.mints().await, 1);

    scene.force_refresh("1").await;
    let secret = scene.secrets().get("token").await.unwrap();
    assert_eq!(scene.value("token", "ca.crt").await.as_deref(), Some("theirs"));
    assert_eq!(secret.metadata.labels.unwrap()["team"], "payments");
    assert_eq!(secret.metadata.annotations.unwrap()["example.com/note"], "keep");
    assert_eq!(scene.mints().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_label_or_owner_is_restored_without_token_request() {
    let (scene, _operator, token) = started("mended", json!({})).await;
    scene.secrets_are_seen().await; // removes the label
    scene.patch("secret", "token", json!({"metadata": {"ownerReferences": null}})).await;
    // 30 s after the label: repeated conflicts are not answered faster.
    eventually("the ownerReference is restored", 2 * SOON, async || {
        scene.secrets().get("token").await.unwrap().metadata.owner_references.ok_or("none")
    })
    .await;
    scene.source_is_seen().await;
    let said = "another writer changes Secret token in its metadata again and again (2 times";
    scene.reports("True TokenValid", &[said]).await;
    assert_eq!(scene.mints().await, 1);
    assert_eq!(scene.token().await, Some(token));
}

#[tokio::test(flavor = "multi_thread")]
async fn retained_secret_is_kept_and_reused_without_token_request() {
    let retain = json!({"target": {"deletionPolicy": "Retain"}});
    let (scene, _operator, token) = started("retained", retain.clone()).await;
    let first = scene.record().await["owner"]["uid"].clone();
    scene.kubectl(&["delete", "tokensource", "source"], "").await;
    scene.gone("tokensource", "source").await;

    scene.apply(scene.source(retain)).await;
    scene.ready("True TokenValid").await;
    let again = scene.record().await["owner"]["uid"].clone();
    assert_ne!(first, again);
    assert_eq!(scene.sources().get("source").await.unwrap().metadata.uid.unwrap(), again);
    scene.source_is_seen().await;
    scene.secrets_are_seen().await;
    assert_eq!(scene.token().await, Some(token));
    assert_eq!(scene.mints().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn deleted_source_deletes_its_secret() {
    let (scene, _operator, _) = started("collected", json!({})).await;
    scene.kubectl(&["delete", "tokensource", "source"], "").await;
    scene.gone("secret", "token").await;
    it_stays_gone(&scene).await;
}

/// Waits until the operator has seen the change, and asserts that it neither recreated the Secret nor requested a token.
async fn it_stays_gone(scene: &Scene) {
    scene.apply(named("later", "later", scene)).await;
    scene.condition("later", "Ready", "True TokenValid").await;
    assert!(scene.secrets().get_opt("token").await.unwrap().is_none());
    assert_eq!(scene.mints().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn foreground_deletion_does_not_recreate_target() {
    let (scene, _operator, _) = started("foreground", json!({})).await;
    // The finalizer keeps it in deletion, as a dependent that others hold would.
    let finalizer = json!({"metadata": {"finalizers": ["example.com/held"]}});
    scene.patch("tokensource", "source", finalizer).await;
    scene.kubectl(&["delete", "tokensource", "source", "--cascade=foreground", "--wait=false"], "").await;
    scene.gone("secret", "token").await;
    scene.kubectl(&["label", "tokensource", "source", "a=b"], "").await;
    it_stays_gone(&scene).await;
    scene.patch("tokensource", "source", json!({"metadata": {"finalizers": null}})).await;
    scene.gone("tokensource", "source").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn source_being_deleted_is_not_refreshed_and_its_secret_not_restored() {
    let (scene, _operator, token) = started("deleting", json!({})).await;
    scene.patch("tokensource", "source", json!({"metadata": {"finalizers": ["example.com/held"]}})).await;
    scene.kubectl(&["delete", "tokensource", "source", "--wait=false"], "").await;
    scene.kubectl(&["annotate", "tokensource", "source", "tokensource.dev/refresh-requested-at=1"], "").await;
    assert_eq!(scene.token().await, Some(token));
    scene.kubectl(&["delete", "secret", "token"], "").await;
    it_stays_gone(&scene).await;
    scene.patch("tokensource", "source", json!({"metadata": {"finalizers": null}})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orphan_deletion_keeps_secret() {
    let (scene, _operator, token) = started("orphan", json!({})).await;
    scene.kubectl(&["delete", "tokensource", "source", "--cascade=orphan"], "").await;
    scene.gone("tokensource", "source").await;
    scene.apply(named("later", "later", &scene)).await;
    scene.condition("later", "Ready", "True TokenValid").await;
    let secret = scene.secrets().get("token").await.unwrap();
    assert_eq!(secret.metadata.owner_references, None);
    assert_eq!(scene.token().await.as_ref(), Some(&token));

    // A source of the same name uses it again.
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    scene.source_is_seen().await;
    assert_eq!(scene.token().await, Some(token));
    assert_eq!(scene.mints().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn source_recreated_at_once_recovers() {
    let (scene, _operator, token) = started("again", json!({})).await;
    for n in 2..5 {
        let before = scene.token().await;
        scene.kubectl(&["delete", "tokensource", "source"], "").await;
        scene.apply(scene.source(json!({}))).await;
        scene.new_token(before.as_deref().or(Some(&token))).await;
        scene.ready("True TokenValid").await;
        assert_eq!(scene.mints().await, n);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secret_of_deleted_predecessor_is_waited_for() {
    let (scene, operator, token) = started("predecessor", json!({})).await;
    // A finalizer keeps it, as a slow garbage collector would.
    scene.patch("secret", "token", json!({"metadata": {"finalizers": ["example.com/held"]}})).await;
    scene.kubectl(&["delete", "tokensource", "source"], "").await;
    scene.apply(scene.source(json!({}))).await;
    scene.reports("False TargetConflict", &["is being deleted", "created again when it has gone"]).await;
    scene.condition("source", "Reconciling", "True TargetConflict").await;
    operator.kill();
    let _operator = Operator::start(&scene.namespace).await;
    scene.source_is_seen().await;
    assert_eq!(scene.mints().await, 1);
    scene.patch("secret", "token", json!({"metadata": {"finalizers": null}})).await;
    scene.new_token(Some(&token)).await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn namespace_deletion_costs_no_token_request() {
    let (scene, operator, _) = started("namespace", json!({})).await;
    scene.kubectl(&["delete", "namespace", &scene.namespace, "--wait=false"], "").await;
    namespace_is_gone(&scene).await;
    assert_eq!(scene.mints().await, 1);
    let log = operator.stop().await;
    assert!(!log.contains("panicked"));
    assert!(log.lines().count() < 1000, "{} lines", log.lines().count());
}

/// Waits until the last write was refused at least `count` times, and returns the message of Ready.
async fn refused(scene: &Scene, ready: &str, count: i32) -> String {
    eventually(&format!("refused {count} times"), SOON, async || match scene.status().await.last_failure {
        Some(last) if last.reason == "TargetRefused" && last.count >= count => Ok(()),
        other => Err(other),
    })
    .await;
    scene.ready(ready).await
}

#[tokio::test(flavor = "multi_thread")]
async fn exceeded_quota_costs_no_token_request() {
    let scene = Scene::new("quota", 600).await;
    scene
        .apply(json!({
            "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"},
            "spec": {"hard": {"count/secrets": "1"}},
        }))
        .await;
    // As the quota controller would count: this control plane runs without it.
    let counted =
        json!({"status": {"hard": {"count/secrets": "1"}, "used": {"count/secrets": "1"}}}).to_string();
    scene
        .kubectl(
            &["patch", "resourcequota", "few", "--subresource=status", "--type=merge", "-p", &counted],
            "",
        )
        .await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    let said = refused(&scene, "False TargetRefused", 2).await;
    assert!(said.contains("Secret token") && said.contains("exceeded quota: few"), "{said}");
    scene.condition("source", "Reconciling", "True TargetRefused").await;
    assert_eq!(scene.mints().await, 0);

    scene.kubectl(&["delete", "resourcequota", "few"], "").await;
    eventually("it recovers", Duration::from_secs(70), async || scene.token().await.ok_or("no token")).await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 1);
}

/// A ValidatingAdmissionPolicy that refuses every write of data to Secret `token`.
async fn deny_token(scene: &Scene) {
    deny(scene, &["CREATE", "UPDATE"]).await;
}

/// The same for these operations.
pub async fn deny(scene: &Scene, operations: &[&str]) {
    let name = format!("deny-{}", scene.namespace);
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": operations, "resources": ["secrets"],
            }]},
            "matchConditions": [{"name": "token", "expression": "object.metadata.name == 'token'"}],
            "validations": [{"expression": "false", "message": "not on a Friday"}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {
            "policyName": name,
            "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": scene.namespace}}},
        },
    });
    scene.apply(policy).await;
    scene.apply(binding).await;
    eventually("the policy is in effect", SOON, async || {
        let tried = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token", "labels": {"a": "b"}}});
        match scene.try_kubectl(&["create", "--dry-run=server", "-f", "-"], &tried.to_string()).await {
            Err(said) if said.contains("not on a Friday") => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

pub async fn allow(scene: &Scene) {
    let name = format!("deny-{}", scene.namespace);
    scene.kubectl(&["delete", "validatingadmissionpolicybinding", &name], "").await;
    scene.kubectl(&["delete", "validatingadmissionpolicy", &name], "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn admission_policy_refusing_first_write_costs_no_token_request() {
    let scene = Scene::new("denied", 600).await;
    deny_token(&scene).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    let said = refused(&scene, "False TargetRefused", 2).await;
    assert!(said.contains("Secret token") && said.contains("not on a Friday"), "{said}");
    assert_eq!(scene.mints().await, 0);
    allow(&scene).await;
    eventually("it recovers", Duration::from_secs(70), async || scene.token().await.ok_or("no token")).await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn admission_policy_refusing_refresh_costs_one_token_request() {
    let (scene, _operator, token) = started("denied-later", json!({})).await;
    deny_token(&scene).await;
    scene.kubectl(&["annotate", "tokensource", "source", "tokensource.dev/refresh-requested-at=1"], "").await;
    let said = refused(&scene, "True RefreshFailing", 3).await;
    assert!(said.contains("not on a Friday") && said.contains("is valid until"), "{said}");
    assert_eq!(scene.token().await.as_ref(), Some(&token));
    assert_eq!(scene.mints().await, 2);

    allow(&scene).await;
    eventually("it recovers", Duration::from_secs(70), async || match scene.token().await {
        Some(now) if now != token => Ok(()),
        other => Err(other),
    })
    .await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 2, "the received token was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_metadata_update_is_reported_and_costs_no_token_request() {
    let (scene, operator, token) = started("denied-mend", json!({})).await;
    operator.kill();
    scene.kubectl(&["label", "secret", "token", "app.kubernetes.io/managed-by-"], "").await;
    deny_token(&scene).await;
    let operator = Operator::start(&scene.namespace).await;
    let said = refused(&scene, "True RefreshFailing", 2).await;
    assert!(said.contains("not on a Friday"), "{said}");
    assert!(operator.said("token not written") < 20, "{} attempts", operator.said("token not written"));
    allow(&scene).await;
    eventually("it recovers", Duration::from_secs(70), async || {
        let labels = scene.secrets().get("token").await.unwrap().metadata.labels;
        labels.ok_or("no label")
    })
    .await;
    scene.ready("True TokenValid").await;
    assert!(scene.server.is_valid(&token).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn immutable_target_costs_one_token_request() {
    let (scene, _operator, token) = started("immutable", json!({})).await;
    scene.patch("secret", "token", json!({"immutable": true})).await;
    scene.kubectl(&["annotate", "tokensource", "source", "tokensource.dev/refresh-requested-at=1"], "").await;
    let said = refused(&scene, "True RefreshFailing", 1).await;
    assert!(
        said.contains("Secret token: it is immutable; delete it, and it is made anew at once (kubectl"),
        "{said}"
    );
    assert!(said.contains("restart the pods that mount it, because the kubelet does not look"), "{said}");
    assert_eq!(scene.status().await.last_failure.unwrap().next_attempt_at, None, "it stays immutable");
    scene.source_is_seen().await;
    assert_eq!(scene.token().await.as_ref(), Some(&token));
    assert_eq!(scene.mints().await, 2);

    scene.kubectl(&["delete", "secret", "token"], "").await;
    scene.new_token(Some(&token)).await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 2, "the received token was written");
}
