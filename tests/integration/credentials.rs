//! Changed credentials: every change of the Secret is acted on at once, with one token request if its values differ, and
//! with none if they do not.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::support::authorization_server::Behaviour;
use super::support::eventually;
use super::support::operator::Operator;
use super::support::relay::Relay;
use super::support::scene::{SOON, Scene};

/// A source with a token of ten minutes, after one token request.
async fn started(prefix: &str) -> (Scene, Operator, String) {
    let scene = Scene::new(prefix, 600).await;
    let operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    let token = scene.token().await.unwrap();
    (scene, operator, token)
}

/// Waits until the operator has seen every change, and asserts the number of token requests, none of which failed.
async fn minted(scene: &Scene, expected: u64) {
    scene.source_is_seen().await;
    scene.secrets_are_seen().await;
    scene.ready("True TokenValid").await;
    let requests = scene.server.requests(&scene.namespace).await;
    assert_eq!((requests.total, requests.failed), (expected, 0), "{}", scene.status_text("source").await);
}

/// Sets another client secret at the issuer and in Secret `name`.
async fn another_secret(scene: &Scene, name: &str, value: &str) {
    scene.server.set_secret(&scene.namespace, value).await;
    scene.secret(name, &[("client_id", &scene.namespace), ("client_secret", value)]).await;
}

fn credentials_in(name: &str) -> Value {
    json!({"spec": {"credentials": {"secretRef": {"name": name}}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_changed_values_cost_one_token_request_and_unused_key_none() {
    let (scene, _operator, first) = started("rotated").await;
    another_secret(&scene, "credentials", "second").await;
    let second = scene.new_token(Some(&first)).await;
    another_secret(&scene, "credentials", "third").await;
    scene.new_token(Some(&second)).await;
    minted(&scene, 3).await;

    scene.patch("secret", "credentials", json!({"stringData": {"comment": "rotated by hand"}})).await;
    minted(&scene, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_secret_recreated_costs_token_request_only_if_values_differ() {
    let (scene, operator, token) = started("replaced").await;
    scene.kubectl(&["delete", "secret", "credentials"], "").await;
    minted(&scene, 1).await;
    scene.credentials("right").await;
    minted(&scene, 1).await;
    let uid = scene.secrets().get("credentials").await.unwrap().metadata.uid.unwrap();
    assert_eq!(scene.record().await["inputs"]["credentials"]["uid"], uid, "for the next start");
    operator.kill();
    let _operator = Operator::start(&scene.namespace).await;
    minted(&scene, 1).await;
    assert_eq!(scene.token().await.as_ref(), Some(&token));

    scene.kubectl(&["delete", "secret", "credentials"], "").await;
    another_secret(&scene, "credentials", "second").await;
    scene.new_token(Some(&token)).await;
    minted(&scene, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_changed_while_operator_is_down_cost_one_token_request() {
    let (scene, operator, token) = started("while-down").await;
    operator.kill();
    another_secret(&scene, "credentials", "second").await;
    let operator = Operator::start(&scene.namespace).await;
    let second = scene.new_token(Some(&token)).await;
    minted(&scene, 2).await;

    // Whether the values changed was not observed, and nothing that would show it is stored.
    operator.kill();
    scene.kubectl(&["label", "secret", "credentials", "a=b"], "").await;
    let operator = Operator::start(&scene.namespace).await;
    let third = scene.new_token(Some(&second)).await;
    minted(&scene, 3).await;
    operator.kill();
    let _operator = Operator::start(&scene.namespace).await;
    minted(&scene, 3).await;
    assert_eq!(scene.token().await, Some(third));
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_removed_key_is_reported_and_its_return_costs_token_request_only_if_value_differs() {
    let (scene, _operator, token) = started("lost-key").await;
    let lose = async || scene.patch("secret", "credentials", json!({"data": {"client_secret": null}})).await;
    lose().await;
    scene
        .reports("True RefreshFailing", &["Secret credentials has no key client_secret", "is valid until"])
        .await;
    scene.credentials("right").await;
    minted(&scene, 1).await;
    assert_eq!(scene.token().await.as_ref(), Some(&token));

    lose().await;
    scene.ready("True RefreshFailing").await;
    another_secret(&scene, "credentials", "second").await;
    scene.new_token(Some(&token)).await;
    minted(&scene, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_secret_written_step_by_step_costs_one_token_request() {
    let scene = Scene::new("later", 600).await;
    scene.kubectl(&["delete", "secret", "credentials"], "").await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    scene.reports("False CredentialsNotFound", &["Secret credentials", "does not exist"]).await;

    // As External Secrets does: first the object, then key after key, each by its own field manager.
    let apply = async |data: Value| {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "credentials"}, "stringData": data,
        });
        let arguments = ["apply", "--server-side", "--field-manager=another-operator", "-f", "-"];
        scene.kubectl(&arguments, &secret.to_string()).await;
    };
    apply(json!({})).await;
    scene.reports("False CredentialsNotFound", &["has no key"]).await;
    apply(json!({"client_id": scene.namespace})).await;
    scene.reports("False CredentialsNotFound", &["has no key client_secret"]).await;
    scene.condition("source", "Reconciling", "True CredentialsNotFound").await;
    assert_eq!(scene.mints().await, 0);
    apply(json!({"client_id": scene.namespace, "client_secret": "right"})).await;
    scene.ready("True TokenValid").await;
    minted(&scene, 1).await;

    // As such operators do at each of their intervals.
    scene.kubectl(&["annotate", "secret", "credentials", "example.com/synced-at=later"], "").await;
    minted(&scene, 1).await;
}

/// The read of one TokenSource shows the change, and the watch event of it is no change then.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_corrected_while_the_watch_is_silent_are_used_by_all_once_one_has_read_them() {
    let scene = Scene::new("silent", 600).await;
    scene.patch("secret", "credentials", json!({"data": {"client_secret": null}})).await;
    let relay = Relay::start(scene.client.clone()).await;
    let flags = ["--allow-http", "--egress-allow", "127.0.0.0/8"];
    let _operator = Operator::start_at(&relay.kubeconfig_path(), &scene.namespace, &flags).await;
    scene.apply(scene.source(json!({}))).await;
    let mut other = scene.source(json!({"target": {"name": "other"}}));
    other["metadata"]["name"] = json!("other");
    scene.apply(other).await;
    for source in ["source", "other"] {
        scene.condition(source, "Ready", "False CredentialsNotFound").await;
    }
    // The list and the watch; single Secrets have no question mark.
    relay.hold("/secrets?");
    scene.credentials("right").await;
    scene.kubectl(&["annotate", "tokensource", "source", "tokensource.dev/refresh-requested-at=1"], "").await;
    for source in ["source", "other"] {
        scene.condition(source, "Ready", "True TokenValid").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_reference_changed_follows_new_secret_only() {
    let (scene, _operator, token) = started("swapped").await;
    scene.patch("tokensource", "source", credentials_in("other")).await;
    scene.reports("False CredentialsNotFound", &["Secret other", "does not exist"]).await;
    assert_eq!(scene.token().await.as_ref(), Some(&token), "the token stays in the target");
    scene.patch("tokensource", "source", credentials_in("credentials")).await;
    minted(&scene, 1).await;

    scene.patch("tokensource", "source", credentials_in("other")).await;
    scene.ready("False CredentialsNotFound").await;
    another_secret(&scene, "other", "second").await;
    let second = scene.new_token(Some(&token)).await;
    minted(&scene, 2).await;

    // The former Secret is not used any more.
    scene.credentials("whatever").await;
    scene.kubectl(&["delete", "secret", "credentials"], "").await;
    minted(&scene, 2).await;
    another_secret(&scene, "other", "third").await;
    scene.new_token(Some(&second)).await;
    minted(&scene, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_changed_end_any_wait() {
    let scene = Scene::new("wait-ends", 600).await;
    scene.credentials("wrong").await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("False ClientRejected").await;

    // The same values: no reason for another attempt.
    scene.kubectl(&["delete", "secret", "credentials"], "").await;
    scene.ready("False CredentialsNotFound").await;
    scene.credentials("wrong").await;
    scene.ready("False ClientRejected").await;
    scene.source_is_seen().await;
    assert_eq!(scene.mints().await, 1);

    // After a rejection, and after a Retry-After of the issuer.
    scene.kubectl(&["delete", "secret", "credentials"], "").await;
    scene.credentials("right").await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 2);

    let mut headers = serde_json::Map::new();
    headers.insert("retry-after".into(), "600".into());
    let busy = Behaviour { status: Some(429), headers, ..Behaviour::default() };
    scene.server.behave(&scene.namespace, Some(busy)).await;
    let token = scene.token().await;
    scene.kubectl(&["annotate", "tokensource", "source", "tokensource.dev/refresh-requested-at=1"], "").await;
    eventually("the endpoint limits the rate", SOON, async || match scene.status().await.last_failure {
        Some(last) if last.reason == "RateLimited" && last.count > 0 => Ok(()),
        other => Err(other),
    })
    .await;
    scene.server.behave(&scene.namespace, None).await;
    another_secret(&scene, "other", "second").await;
    scene.patch("tokensource", "source", credentials_in("other")).await;
    scene.new_token(token.as_deref()).await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 4, "the limited one, and the one with other credentials");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_flap_cost_few_token_requests_and_the_last_ones_win() {
    let scene = Scene::new("flapping", 600).await;
    let _operator = Operator::start_in(&scene.namespace, &[("TOKENSOURCE_CHANGE_INTERVAL", "3s")]).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    let first = scene.status().await.token.unwrap().issued_at;
    // Without kubectl: so many runs of it may take longer than the intervals.
    let change = async |secret: &str| {
        let patch = Patch::Merge(json!({"stringData": {"client_secret": secret}}));
        scene.secrets().patch("credentials", &PatchParams::default(), &patch).await.unwrap();
    };
    change("wrong").await;
    eventually("the first change is acted on", SOON, async || match scene.mints().await {
        2.. => Ok(()),
        few => Err(few),
    })
    .await;
    for n in 0..19 {
        change(&format!("wrong {n}")).await;
    }
    scene.server.set_secret(&scene.namespace, "last").await;
    change("last").await;
    scene.issued_at_other_than(first).await;
    // The first token, the first change at once, then after 3, 6 and 12 s at the latest.
    let mints = scene.mints().await;
    assert!((3..=5).contains(&mints), "{mints}");
}
