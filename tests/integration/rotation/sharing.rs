//! Who else may use, write or own a refresh token and the Secret that stores it.

use std::time::Duration;

use serde_json::json;

use super::{
    STORED, assert_no_failure, director, director_source, mints, new_kept, refreshed, scripted, sha256,
    stored,
};
use crate::support::authorization_server::Behaviour;
use crate::support::eventually;
use crate::support::operator::Operator;
use crate::support::scene::{SOON, Scene};
use crate::support::scripted_server::{Reply, ScriptedServer};

#[tokio::test(flavor = "multi_thread")]
async fn rotation_stored_refresh_token_is_no_credentials_of_another_source() {
    let scene = director("rotation-stolen", 2_592_000, true).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(director_source(&scene, "source")).await;
    scene.new_token(None).await;
    let mut thief = director_source(&scene, "thief");
    thief["spec"]["credentials"]["secretRef"]["name"] = json!(STORED);
    scene.apply(thief).await;
    let message = scene.condition("thief", "Ready", "False CredentialsInvalid").await;
    assert!(message.contains(STORED) && message.contains("TokenSource source"), "{message}");
    refreshed(&scene, "now").await;
    mints(&scene, 2).await;
    assert_no_failure(&scene).await;
}

/// Different client authentication makes different clients, which the limiter does not hold apart.
#[tokio::test(flavor = "multi_thread")]
async fn rotation_refresh_token_of_two_clients_is_sent_by_one_at_a_time() {
    let scene = Scene::bare("rotation-clients").await;
    let answer = json!({"access_token": "a1", "expires_in": 3600, "refresh_token": "r1"}).to_string();
    // Longer than both of them take to begin.
    let server = ScriptedServer::start([Reply::Drip(answer, Duration::from_millis(10))]).await;
    scene
        .secret("credentials", &[("refresh_token", "shared"), ("client_id", "a"), ("client_secret", "b")])
        .await;
    let _operator = Operator::start(&scene.namespace).await;
    let mut other = scripted(&server);
    other["metadata"]["name"] = json!("other");
    other["spec"]["target"]["name"] = json!("other-token");
    other["spec"]["provider"]["oauth2"]["clientAuthentication"] = json!({"basic": {}});
    let both = json!({"apiVersion": "v1", "kind": "List", "items": [scripted(&server), other]});
    scene.apply(both).await;
    eventually("one is ready and the other stalled", SOON, async || {
        let mut ready = vec![];
        for name in ["source", "other"] {
            let status = scene.sources().get(name).await.unwrap().status.unwrap_or_default();
            ready.extend(status.conditions.first().map(|it| format!("{} {}", it.status, it.reason)));
        }
        ready.sort();
        if ready == ["False GrantRejected", "True TokenValid"] { Ok(()) } else { Err(ready) }
    })
    .await;
    assert_eq!(server.requests().len(), 1, "the other one would have spent it again");
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_foreign_secret_is_not_adopted() {
    let scene = director("rotation-foreign", 2_592_000, true).await;
    scene.secret(STORED, &[("refresh_token", "theirs"), ("seed_sha256", "theirs")]).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(director_source(&scene, "source")).await;
    let message = scene.ready("False TargetConflict").await;
    assert!(message.contains(STORED) && message.contains("delete it"), "{message}");
    scene.condition("source", "Stalled", "True TargetConflict").await;
    assert_eq!(scene.mints().await, 0);
    assert_eq!(stored(&scene).await.as_deref(), Some("theirs"));

    scene.kubectl(&["delete", "secret", STORED], "").await;
    scene.ready("True TokenValid").await;
    mints(&scene, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_secrets_created_during_token_request_are_not_overwritten() {
    let scene = director("rotation-meanwhile", 2_592_000, true).await;
    let slow = Behaviour { delay_ms: 4_000, times: Some(1), ..Behaviour::default() };
    scene.server.behave(&scene.namespace, Some(slow)).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(director_source(&scene, "source")).await;
    mints(&scene, 1).await;
    // The announcement has made it.
    scene.kubectl(&["delete", "secret", STORED], "").await;
    scene.secret(STORED, &[("refresh_token", "theirs")]).await;
    scene.secret("token", &[("access_token", "theirs")]).await;

    let message = scene.ready("False TargetConflict").await;
    assert!(message.contains("Secret token") || message.contains(STORED), "{message}");
    eventually("the refresh token was received", SOON, async || {
        let requests = scene.server.requests(&scene.namespace).await;
        if requests.succeeded == 1 { Ok(()) } else { Err(requests) }
    })
    .await;
    eventually("only this process holds it", SOON, async || {
        let words = scene.status_text("source").await;
        if words.contains("only this process") { Ok(()) } else { Err(words) }
    })
    .await;
    assert_eq!(stored(&scene).await.as_deref(), Some("theirs"));
    assert_eq!(scene.token().await.as_deref(), Some("theirs"));

    scene.kubectl(&["delete", "secret", STORED], "").await;
    new_kept(&scene, None).await;
    assert_eq!(scene.token().await.as_deref(), Some("theirs"));
    scene.kubectl(&["delete", "secret", "token"], "").await;
    scene.ready("True TokenValid").await;
    mints(&scene, 1).await;
    assert_no_failure(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_second_source_with_same_refresh_token_is_stalled_and_sends_nothing() {
    let scene = director("rotation-shared", 2_592_000, true).await;
    let _operator = Operator::start(&scene.namespace).await;
    let both = json!({
        "apiVersion": "v1", "kind": "List",
        "items": [director_source(&scene, "source"), director_source(&scene, "other")],
    });
    scene.apply(both).await;
    let ready = async |name: &str| {
        let status = scene.sources().get(name).await.unwrap().status.unwrap_or_default();
        status.conditions.first().map(|it| format!("{} {}", it.status, it.reason)).unwrap_or_default()
    };
    let (first, second) = eventually("one is ready and the other stalled", SOON, async || {
        match (ready("source").await.as_str(), ready("other").await.as_str()) {
            ("True TokenValid", "False GrantRejected") => Ok(("source", "other")),
            ("False GrantRejected", "True TokenValid") => Ok(("other", "source")),
            neither => Err(format!("{neither:?}")),
        }
    })
    .await;
    let message = scene.condition(second, "Stalled", "True GrantRejected").await;
    assert!(message.contains(&format!("TokenSource {first} uses the same refresh token")), "{message}");
    mints(&scene, 1).await;
    assert_no_failure(&scene).await;
    let last_failure = scene.sources().get(second).await.unwrap().status.unwrap().last_failure.unwrap();
    assert!(last_failure.next_attempt_at.is_some(), "no watch reports when the other is deleted");

    // The remedy of the message: a refresh token of its own.
    let own = scene.server.seed_refresh_token(&scene.namespace).await;
    scene.secret("own", &[("refresh_token", &own)]).await;
    let patch = json!({"spec": {"credentials": {"secretRef": {"name": "own"}}}}).to_string();
    scene.kubectl(&["patch", "tokensource", second, "--type=merge", "-p", &patch], "").await;
    scene.condition(second, "Ready", "True TokenValid").await;
    mints(&scene, 2).await;
    assert_no_failure(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_token_without_rotation_may_be_shared() {
    let scene = director("rotation-user", 2_592_000, false).await;
    let operator = Operator::start(&scene.namespace).await;
    scene.apply(director_source(&scene, "source")).await;
    scene.apply(director_source(&scene, "other")).await;
    scene.ready("True TokenValid").await;
    scene.condition("other", "Ready", "True TokenValid").await;
    refreshed(&scene, "again").await;
    assert_eq!(stored(&scene).await, None, "nothing to store");
    let unrotated =
        scene.value(STORED, "unrotated_sha256").await.expect("known, so that it is not announced again");
    assert_eq!(unrotated, sha256(&scene.value("credentials", "refresh_token").await.unwrap()));
    let version = async || scene.secrets().get(STORED).await.unwrap().metadata.resource_version;
    let before = version().await;
    operator.kill();
    let _operator = Operator::start(&scene.namespace).await;
    refreshed(&scene, "after a kill").await;
    assert_eq!(version().await, before);
    assert_no_failure(&scene).await;
}
