//! When the newest refresh token is saved, and what holds while it cannot be.

use std::time::Duration;

use serde_json::json;

use super::{
    STORED, assert_no_failure, director, director_source, mints, new_kept, new_original, refreshed,
    request_refresh, scripted, sent, sha256, stored,
};
use crate::support::authorization_server::Behaviour;
use crate::support::control_plane::ControlPlane;
use crate::support::eventually;
use crate::support::operator::Operator;
use crate::support::policy::Refusal;
use crate::support::relay::Relay;
use crate::support::scene::{SOON, Scene};
use crate::support::scripted_server::{Reply, ScriptedServer};

#[tokio::test(flavor = "multi_thread")]
async fn rotation_refresh_token_is_saved_before_target_is_written() {
    let scene = director("rotation-first", 2_592_000, true).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(director_source(&scene, "source")).await;
    let old = scene.new_token(None).await;
    let before = stored(&scene).await.unwrap();

    let refusal = Refusal::of(&scene, "token", "'no targets today'").await;
    request_refresh(&scene, "now").await;
    new_kept(&scene, Some(&before)).await;
    let message = scene.ready("True RefreshFailing").await;
    assert!(message.contains("Secret token") && message.contains("no targets today"), "{message}");
    assert_eq!(scene.token().await, Some(old.clone()));

    refusal.lift().await;
    scene.new_token(Some(&old)).await;
    scene.ready("True TokenValid").await;
    mints(&scene, 2).await;
    assert_no_failure(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_unsaved_refresh_token_stays_in_memory_and_blocks_token_requests() {
    let scene = director("rotation-memory", 2_592_000, true).await;
    let operator = Operator::start(&scene.namespace).await;
    scene.apply(director_source(&scene, "source")).await;
    let old = scene.new_token(None).await;
    let before = stored(&scene).await.unwrap();

    // The announcement passes, and the save does not.
    let refusal = Refusal::of_data(&scene, STORED, "'not today'").await;
    request_refresh(&scene, "now").await;
    let message = scene.ready("True RefreshFailing").await;
    assert!(message.contains(STORED) && message.contains("not today"), "{message}");
    eventually("the save is retried", SOON, async || match operator.said("refresh token not saved") {
        0 | 1 => Err(operator.log()),
        _ => Ok(()),
    })
    .await;
    assert!(operator.admin("/metrics").await.2.contains("\ntokensource_unsaved_refresh_tokens 1\n"));
    request_refresh(&scene, "again").await;
    assert_eq!(stored(&scene).await, Some(before.clone()));
    assert_eq!(scene.token().await, Some(old.clone()), "nothing is written before the refresh token");
    mints(&scene, 2).await;

    // As users do: delete it and apply it again.
    scene.kubectl(&["delete", "tokensource", "source"], "").await;
    scene.apply(director_source(&scene, "source")).await;
    scene.condition("source", "Ready", "False TargetRefused").await;
    mints(&scene, 2).await;

    refusal.lift().await;
    new_kept(&scene, Some(&before)).await;
    scene.ready("True TokenValid").await;
    refreshed(&scene, "afterwards").await;
    assert_no_failure(&scene).await;
}

/// A quota, or a policy, that only the request for the next token would meet.
#[tokio::test(flavor = "multi_thread")]
async fn rotation_refused_secret_is_found_before_a_refresh_token_is_spent() {
    let scene = director("rotation-refused", 2_592_000, true).await;
    let refusal = Refusal::of(&scene, STORED, "'no room'").await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(director_source(&scene, "source")).await;
    scene.reports("False TargetRefused", &[STORED, "no room"]).await;
    assert_eq!((scene.mints().await, scene.token().await), (0, None));

    refusal.lift().await;
    request_refresh(&scene, "now").await;
    scene.ready("True TokenValid").await;
    assert_no_failure(&scene).await;
}

/// A person has written another original refresh token, and labels the Secret while it is sent.
#[tokio::test(flavor = "multi_thread")]
async fn rotation_of_new_original_is_saved_although_its_secret_is_labelled_meanwhile() {
    let scene = director("rotation-label", 2_592_000, true).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(director_source(&scene, "source")).await;
    let old = scene.new_token(None).await;
    let slow = Behaviour { delay_ms: 3_000, times: Some(1), ..Behaviour::default() };
    scene.server.behave(&scene.namespace, Some(slow)).await;
    let new = new_original(&scene).await;
    mints(&scene, 2).await;
    scene.kubectl(&["label", "secret", STORED, "a=label"], "").await;
    let announcement = scene.secrets().get(STORED).await.unwrap().metadata.annotations.unwrap();
    let announced = &announcement["tokensource.dev/refresh-token-sent"];
    assert!(announced.starts_with(&sha256(&new)) && announced.contains(" alone_"), "{announced}");

    scene.new_token(Some(&old)).await;
    assert_eq!(scene.value(STORED, "seed_sha256").await, Some(sha256(&new)));
    let metadata = scene.secrets().get(STORED).await.unwrap().metadata;
    assert!(metadata.labels.unwrap().contains_key("a"));
    assert!(!metadata.annotations.unwrap().contains_key("tokensource.dev/refresh-token-sent"));
    refreshed(&scene, "with its successor").await;
    assert_no_failure(&scene).await;
}

/// The leader loses the lease while packets vanish, with a new refresh token in memory.
#[tokio::test(flavor = "multi_thread")]
async fn rotation_successor_waits_for_the_refresh_token_in_its_predecessors_memory() {
    let scene = director("rotation-successor", 2_592_000, true).await;
    let relay = Relay::start(scene.client.clone()).await;
    let lease = ["--leader-election-lease-duration", "10s", "--leader-election-renew-deadline", "6s"];
    let first = Operator::replica(&relay.kubeconfig_path(), &scene.namespace, "first", &lease).await;
    scene.apply(director_source(&scene, "source")).await;
    let old = scene.new_token(None).await;
    let before = stored(&scene).await.unwrap();
    let slow = Behaviour { delay_ms: 2_000, times: Some(1), ..Behaviour::default() };
    scene.server.behave(&scene.namespace, Some(slow)).await;
    request_refresh(&scene, "now").await;
    mints(&scene, 2).await;
    relay.hold("/");
    let kubeconfig = ControlPlane::shared().kubeconfig_path();
    let second = Operator::replica(&kubeconfig, &scene.namespace, "second", &lease).await;
    scene.reports("True RefreshFailing", &["(first_", "may hold the next one"]).await;
    eventually("the saver of the first one tries", SOON, async || {
        match first.said("refresh token not saved") {
            0 => Err(first.log()),
            _ => Ok(()),
        }
    })
    .await;
    assert_eq!(stored(&scene).await, Some(before.clone()));
    mints(&scene, 2).await;

    relay.release();
    new_kept(&scene, Some(&before)).await;
    scene.new_token(Some(&old)).await;
    scene.ready("True TokenValid").await;
    refreshed(&scene, "again").await;
    assert_no_failure(&scene).await;
    let saved_by_second = u64::try_from(second.said("refresh token saved")).unwrap();
    assert_eq!(saved_by_second + 2, scene.mints().await, "the first one saved two: {}", first.log());
}

/// An operator that will not be able to save the refresh token that it has requested, and the one before it.
async fn unsaved(prefix: &str, delay_ms: u64) -> (Scene, Relay, Operator, String) {
    let scene = director(prefix, 2_592_000, true).await;
    let relay = Relay::start(scene.client.clone()).await;
    let flags = ["--allow-http", "--egress-allow", "127.0.0.0/8"];
    let operator = Operator::start_at(&relay.kubeconfig_path(), &scene.namespace, &flags).await;
    scene.apply(director_source(&scene, "source")).await;
    scene.new_token(None).await;
    let before = stored(&scene).await.unwrap();
    let slow = Behaviour { delay_ms, times: Some(1), ..Behaviour::default() };
    scene.server.behave(&scene.namespace, Some(slow)).await;
    request_refresh(&scene, "now").await;
    mints(&scene, 2).await;
    relay.hold("/secrets");
    (scene, relay, operator, before)
}

/// Longer than the writes of tokens are tried.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-long"]
async fn rotation_refresh_token_is_saved_until_forty_seconds_after_sigterm() {
    let (scene, relay, operator, before) = unsaved("rotation-end", 2_000).await;
    operator.signal("TERM");
    // By then everything else is given up.
    eventually("the controller stops", 2 * SOON, async || match operator.said("INFO stopped") {
        0 => Err(operator.log()),
        _ => Ok(()),
    })
    .await;
    assert_eq!(stored(&scene).await, Some(before.clone()));
    relay.release();
    operator.ends().await;
    assert_ne!(stored(&scene).await, Some(before));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-long"]
async fn rotation_refresh_token_that_cannot_be_saved_is_lost_forty_seconds_after_sigterm() {
    // So late that the writes are tried for longer than the controller may take to stop.
    let (scene, _relay, mut operator, before) = unsaved("rotation-lost", 25_000).await;
    operator.signal("TERM");
    let status = eventually("the operator stops", Duration::from_secs(50), async || {
        operator.exit_status().ok_or("still running")
    })
    .await;
    let log = operator.log();
    assert!(status.success(), "{status}: {log}");
    for words in ["not every reconciliation had ended", "not every refresh token is saved: they are lost"] {
        assert!(log.contains(words), "{words:?} is not in:\n{log}");
    }
    assert_eq!(stored(&scene).await, Some(before));
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_refresh_token_of_unusable_response_is_saved_at_once() {
    let scene = Scene::bare("rotation-useless").await;
    let server = ScriptedServer::start([
        Reply::Json(200, json!({"access_token": "", "refresh_token": "r1"}).to_string()),
        Reply::Json(
            200,
            json!({"access_token": "a2", "expires_in": 3600, "refresh_token": "r2"}).to_string(),
        ),
    ])
    .await;
    scene.secret("credentials", &[("refresh_token", "seed")]).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scripted(&server)).await;
    scene.ready("False ResponseMalformed").await;
    assert_eq!(stored(&scene).await.as_deref(), Some("r1"), "before the next attempt is due");
    assert_eq!(server.requests().len(), 1);

    request_refresh(&scene, "now").await;
    scene.ready("True TokenValid").await;
    assert_eq!(sent(&server, 1), "r1");
    assert_eq!(stored(&scene).await.as_deref(), Some("r2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_unknown_outcome_is_retried_once_with_same_token() {
    let scene = Scene::bare("rotation-unknown").await;
    let server = ScriptedServer::start([
        Reply::Close,
        Reply::Json(
            200,
            json!({"access_token": "a1", "expires_in": 3600, "refresh_token": "r1"}).to_string(),
        ),
    ])
    .await;
    scene.secret("credentials", &[("refresh_token", "seed")]).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scripted(&server)).await;
    scene.ready("True TokenValid").await;
    assert_eq!([sent(&server, 0), sent(&server, 1)], ["seed", "seed"]);
    assert_eq!(stored(&scene).await.as_deref(), Some("r1"));
}
