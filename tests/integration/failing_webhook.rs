//! An API server that fails for Secrets alone, because of an admission webhook that does not answer.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::rotation::request_refresh;
use super::support::eventually;
use super::support::operator::Operator;
use super::support::scene::{SOON, Scene};
use super::support::scripted_server::{Reply, ScriptedServer};

/// The longest wait of the operator before it tries again.
const RETRIED: Duration = Duration::from_secs(70);

fn name(scene: &Scene) -> String {
    format!("fails-{}", scene.namespace)
}

async fn add_webhook(scene: &Scene) {
    let webhook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name(scene)},
        "webhooks": [{
            "name": "nobody.example.com",
            "clientConfig": {"url": "https://127.0.0.1:1/"},
            "rules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"], "resources": ["secrets"],
            }],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": scene.namespace}},
            "failurePolicy": "Fail", "sideEffects": "None", "timeoutSeconds": 1, "admissionReviewVersions": ["v1"],
        }],
    });
    scene.apply(webhook).await;
    eventually("the webhook is called", SOON, async || {
        let tried = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tried"}});
        match scene.try_kubectl(&["create", "--dry-run=server", "-f", "-"], &tried.to_string()).await {
            Err(said) if said.contains("failed calling webhook") => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

async fn remove_webhook(scene: &Scene) {
    scene.kubectl(&["delete", "validatingwebhookconfiguration", &name(scene)], "").await;
}

fn token(value: &str, expires_in: u32) -> Reply {
    let answer = json!({"access_token": value, "token_type": "Bearer", "expires_in": expires_in});
    Reply::Json(200, answer.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn webhook_that_fails_is_reported_and_what_waits_is_written_after_it() {
    let scene = Scene::new("webhook", 600).await;
    let server = ScriptedServer::start([token("first", 25), token("second", 3600)]).await;
    add_webhook(&scene).await;
    let _operator = Operator::start(&scene.namespace).await;
    let oauth2 = json!({"tokenURL": server.url("/token")});
    scene.apply(scene.source(json!({"provider": {"vgs": null, "oauth2": oauth2}}))).await;
    let said = scene.ready("False KubernetesAPIError").await;
    assert!(said.contains("status 500") && said.contains("admission webhook"), "{said}");
    assert_eq!(server.requests().len(), 0, "no token is requested that cannot be written");
    remove_webhook(&scene).await;
    eventually("the first token", RETRIED, async || scene.token().await.ok_or("no token")).await;
    scene.ready("True TokenValid").await;

    add_webhook(&scene).await;
    request_refresh(&scene, "1").await;
    let expires_at = scene.status().await.token.unwrap().expires_at;
    scene.ready("False KubernetesAPIError").await;
    let late = Timestamp::now().duration_since(expires_at).as_secs();
    assert!((0..10).contains(&late), "{late} s after the expiry");
    remove_webhook(&scene).await;
    eventually("the second token", RETRIED, async || match scene.token().await.as_deref() {
        Some("second") => Ok(()),
        other => Err(other.map(str::to_owned)),
    })
    .await;
    scene.ready("True TokenValid").await;
    assert_eq!(server.requests().len(), 2, "it waited in memory");
}
