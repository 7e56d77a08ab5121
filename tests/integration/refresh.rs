//! Refreshes without a failure: what causes one, and what does not.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::eventually;
use super::support::operator::Operator;
use super::support::scene::{SOON, Scene};
use super::support::scripted_server::{Reply, ScriptedServer};

async fn started(prefix: &str, ttl: u32) -> (Scene, Operator, String) {
    let scene = Scene::new(prefix, ttl).await;
    let operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    let token = scene.token().await.unwrap();
    (scene, operator, token)
}

/// Requests a refresh, as a user would.
async fn request(scene: &Scene, value: &str) {
    let annotation = format!("tokensource.dev/refresh-requested-at={value}");
    scene.kubectl(&["annotate", "tokensource", "source", "--overwrite", &annotation], "").await;
}

/// The same endpoint and client through another provider.
fn as_oauth2(scene: &Scene, more: Value) -> Value {
    let mut oauth2 = json!({"tokenURL": scene.server.vgs_token_url(), "clientAuthentication": {"post": {}}});
    if let (Value::Object(oauth2), Value::Object(more)) = (&mut oauth2, more) {
        oauth2.extend(more);
    }
    json!({"provider": {"vgs": null, "oauth2": oauth2}})
}

#[tokio::test(flavor = "multi_thread")]
async fn requested_refresh_costs_one_token_request_per_value_and_replaces_token() {
    let (scene, operator, first) = started("requested", 600).await;
    let second = scene.force_refresh("1").await;
    assert_ne!(first, second);
    let third = scene.force_refresh("2").await;
    assert_ne!(second, third);
    assert_eq!(scene.mints().await, 3);

    let again = "tokensource.dev/refresh-requested-at=2";
    scene.kubectl(&["annotate", "tokensource", "source", "--overwrite", again], "").await;
    operator.kill();
    let _operator = Operator::start(&scene.namespace).await;
    scene.kubectl(&["label", "tokensource", "source", "a=b"], "").await;
    scene.source_is_seen().await;
    assert_eq!(scene.mints().await, 3, "handled, and recorded");

    let taken_back = "tokensource.dev/refresh-requested-at-";
    scene.kubectl(&["annotate", "tokensource", "source", taken_back], "").await;
    scene.source_is_seen().await;
    assert_eq!(scene.mints().await, 3);
    assert_eq!(scene.token().await, Some(third));
}

/// Some issuers return the token of the session that lives, without a lifetime.
#[tokio::test(flavor = "multi_thread")]
async fn token_that_the_issuer_repeats_is_written_where_a_new_one_would_be() {
    let scene = Scene::new("repeated", 600).await;
    let answer = json!({"access_token": "the-only-token", "token_type": "Bearer"});
    let server = ScriptedServer::start([Reply::Json(200, answer.to_string())]).await;
    let _operator = Operator::start(&scene.namespace).await;
    let oauth2 = json!({"tokenURL": server.url("/token")});
    scene.apply(scene.source(json!({"provider": {"vgs": null, "oauth2": oauth2}}))).await;
    scene.ready("True TokenValid").await;
    let first = scene.status().await.token.unwrap().issued_at;

    // Its times are whole seconds.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    request(&scene, "1").await;
    scene.issued_at_other_than(first).await;
    scene.ready("True TokenValid").await;
    assert_eq!(server.requests().len(), 2, "it fulfils the request");

    scene.patch("secret", "token", json!({"stringData": {"access_token": "another"}})).await;
    eventually("it is restored", SOON, async || match scene.token().await.as_deref() {
        Some("the-only-token") => Ok(()),
        other => Err(other.map(str::to_owned)),
    })
    .await;
    scene.source_is_seen().await;
    assert_eq!(server.requests().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn suspended_source_requests_token_only_after_resume_when_due() {
    // Refreshed after 6 s.
    let (scene, _operator, token) = started("suspended", 12).await;
    scene.patch("tokensource", "source", json!({"spec": {"suspend": true}})).await;
    let said = scene.ready("True TokenValid").await;
    assert!(said.contains("suspended"), "{said}");
    scene.kubectl(&["annotate", "tokensource", "source", "tokensource.dev/refresh-requested-at=1"], "").await;

    // Past the refresh and past expiry.
    let said = scene.ready("False Suspended").await;
    assert!(said.contains("spec.suspend"), "{said}");
    scene.source_is_seen().await;
    assert_eq!(scene.token().await.as_ref(), Some(&token));
    assert_eq!(scene.mints().await, 1);

    scene.server.set_ttl(&scene.namespace, 600).await;
    scene.patch("tokensource", "source", json!({"spec": {"suspend": false}})).await;
    let second = scene.new_token(Some(&token)).await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 2);

    // Not due: neither suspending nor resuming costs a token request.
    scene.patch("tokensource", "source", json!({"spec": {"suspend": true}})).await;
    scene.ready("True TokenValid").await;
    scene.kubectl(&["label", "secret", "credentials", "a=b"], "").await;
    scene.source_is_seen().await;
    scene.patch("tokensource", "source", json!({"spec": {"suspend": null}})).await;
    scene.ready("True TokenValid").await;
    scene.source_is_seen().await;
    assert_eq!(scene.token().await, Some(second));
    assert_eq!(scene.mints().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_requests_while_suspended_are_answered_by_one_token_request_after_resume() {
    let (scene, operator, token) = started("asked-suspended", 600).await;
    scene.patch("tokensource", "source", json!({"spec": {"suspend": true}})).await;
    for value in ["1", "2"] {
        request(&scene, value).await;
        scene.source_is_seen().await;
    }
    // Nothing is restored either.
    scene.kubectl(&["delete", "secret", "token"], "").await;
    scene.ready("False Suspended").await;
    assert_eq!(scene.mints().await, 1);
    scene.patch("tokensource", "source", json!({"spec": {"suspend": false}})).await;
    scene.new_token(Some(&token)).await;
    scene.ready("True TokenValid").await;
    operator.kill();
    let _operator = Operator::start(&scene.namespace).await;
    scene.source_is_seen().await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 2, "one for all reasons");
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_request_any_value_counts_and_initial_one_is_answered_by_first_token() {
    let scene = Scene::new("any-value", 600).await;
    let operator = Operator::start(&scene.namespace).await;
    let mut source = scene.source(json!({}));
    source["metadata"]["annotations"] = json!({"tokensource.dev/refresh-requested-at": ""});
    scene.apply(source).await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 1);
    // Long values that differ only at their end.
    let long = "2026-11-24T05:00:00.000000000+07:00[Asia/Ho_Chi_Minh] asked for by the person on call, ";
    scene.force_refresh(&format!("{long}first")).await;
    scene.force_refresh(&format!("{long}second")).await;
    scene.ready("True TokenValid").await;
    operator.kill();
    let _operator = Operator::start(&scene.namespace).await;
    scene.source_is_seen().await;
    assert_eq!(scene.mints().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_request_during_failures_is_tried_at_once_and_one_success_answers_all() {
    let (scene, operator, token) = started("asked-failing", 600).await;
    // The wait is 30 s after the first failure, and 2 min after the second.
    scene.server.change(&scene.namespace, json!({"scope": "read"})).await;
    scene
        .patch("tokensource", "source", json!({"spec": as_oauth2(&scene, json!({"scopes": ["write"]}))}))
        .await;
    scene.ready("False ScopeRejected").await;
    for (value, mints) in [("1", 3), ("2", 4)] {
        request(&scene, value).await;
        eventually("another attempt", SOON, async || match scene.mints().await {
            made if made == mints => Ok(()),
            other => Err(other),
        })
        .await;
        scene.source_is_seen().await;
    }
    // The same value is no request: the wait continues, also after a restart.
    operator.kill();
    let _operator = Operator::start(&scene.namespace).await;
    request(&scene, "2").await;
    scene.source_is_seen().await;
    assert_eq!(scene.mints().await, 4);
    assert_eq!(scene.token().await.as_ref(), Some(&token));

    scene.server.change(&scene.namespace, json!({"scope": "read write"})).await;
    request(&scene, "3").await;
    scene.new_token(Some(&token)).await;
    scene.ready("True TokenValid").await;
    scene.source_is_seen().await;
    assert_eq!(scene.mints().await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_request_while_client_is_rejected_shortens_wait_to_30_s() {
    let (scene, _operator, token) = started("asked-rejected", 3600).await;
    scene.server.set_secret(&scene.namespace, "another").await;
    let failed = async |count: i32| {
        eventually(&format!("{count} failures"), 2 * SOON, async || match scene.status().await.last_failure {
            Some(last) if last.count == count => Ok(last),
            other => Err(other),
        })
        .await
    };
    request(&scene, "1").await;
    failed(1).await;
    let second = failed(2).await;
    let wait = second.next_attempt_at.unwrap().duration_since(second.at).as_secs();
    assert!(wait > 60, "{wait} s");

    // Corrected at the issuer, which the operator cannot observe.
    scene.server.set_secret(&scene.namespace, "right").await;
    request(&scene, "2").await;
    scene.source_is_seen().await;
    assert_eq!(scene.mints().await, 3, "fast attempts with a wrong secret lock accounts");
    eventually("a new token", 2 * SOON, async || match scene.token().await {
        Some(now) if now != token => Ok(()),
        _ => Err(scene.status_text("source").await),
    })
    .await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 4);
    let issued_at = scene.status().await.token.unwrap().issued_at;
    let waited = issued_at.duration_since(second.at).as_secs();
    assert!((29..wait).contains(&waited), "{waited} s instead of {wait} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_before_longer_than_lifetime_does_not_loop_and_is_reported() {
    let scene = Scene::new("margin", 20).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({"refresh": {"before": "1h"}}))).await;
    scene
        .reports("True TokenValid", &["spec.refresh.before is not less than the token's lifetime of 20 s"])
        .await;
    let first = scene.status().await.token.unwrap().issued_at;
    let second = scene.issued_at_other_than(first).await;
    assert_eq!(scene.mints().await, 2);
    assert!(second.duration_since(first).as_secs() >= 10, "half of its lifetime, as without a margin");

    // A margin that barely fits, and one shorter than the propagation to pods.
    scene.server.set_ttl(&scene.namespace, 300).await;
    scene.patch("tokensource", "source", json!({"spec": {"refresh": {"before": "299s"}}})).await;
    scene.force_refresh("1").await;
    scene.reports("True TokenValid", &["asks for a refresh after 1 s", "it is after 30 s"]).await;
    scene.patch("tokensource", "source", json!({"spec": {"refresh": {"before": "20s"}}})).await;
    let said = scene.condition("source", "PropagationSafe", "False LifetimeTooShort").await;
    assert!(said.contains("remove spec.refresh.before"), "{said}");
    scene.patch("tokensource", "source", json!({"spec": {"refresh": null}})).await;
    scene.condition("source", "PropagationSafe", "True LifetimeSufficient").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deletion_policy_changes_cost_no_token_request() {
    let (scene, operator, token) = started("policy", 600).await;
    let owned = async |expected: bool| {
        eventually("the ownerReference", SOON, async || {
            let owners = scene.secrets().get("token").await.unwrap().metadata.owner_references;
            if owners.is_some_and(|owners| !owners.is_empty()) == expected { Ok(()) } else { Err(expected) }
        })
        .await;
    };
    owned(true).await;
    for _ in 0..2 {
        scene.patch("tokensource", "source", json!({"spec": {"target": {"deletionPolicy": "Retain"}}})).await;
        owned(false).await;
        scene.patch("tokensource", "source", json!({"spec": {"target": {"deletionPolicy": "Delete"}}})).await;
        owned(true).await;
    }
    operator.kill();
    scene.patch("tokensource", "source", json!({"spec": {"target": {"deletionPolicy": "Retain"}}})).await;
    let _operator = Operator::start(&scene.namespace).await;
    owned(false).await;
    scene.source_is_seen().await;
    assert_eq!(scene.mints().await, 1);
    assert_eq!(scene.token().await, Some(token));

    // A write of the token removes it, too: no other field manager holds the reference.
    scene.patch("tokensource", "source", json!({"spec": {"target": {"deletionPolicy": "Delete"}}})).await;
    owned(true).await;
    scene.force_refresh("1").await;
    scene.patch("tokensource", "source", json!({"spec": {"target": {"deletionPolicy": "Retain"}}})).await;
    owned(false).await;
    scene.force_refresh("2").await;
    owned(false).await;
    assert_eq!(scene.mints().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_refresh_settings_cost_token_request_only_if_due() {
    let (scene, _operator, token) = started("settings", 3600).await;
    let refresh_at = async || scene.status().await.token.unwrap().refresh_at;
    let before = refresh_at().await;
    scene.patch("tokensource", "source", json!({"spec": {"refresh": {"before": "30m"}}})).await;
    scene.ready("True TokenValid").await;
    assert!(refresh_at().await < before);
    let settings =
        json!({"before": null, "propagationDelay": "5s", "defaultLifetime": "1m", "maxInterval": "59m"});
    scene.patch("tokensource", "source", json!({"spec": {"refresh": settings}})).await;
    scene.ready("True TokenValid").await;
    scene.source_is_seen().await;
    assert_eq!(scene.mints().await, 1);
    assert_eq!(scene.token().await.as_ref(), Some(&token));

    // The minimum interval between two refreshes is 30 s, whatever is configured.
    let issued_at = scene.status().await.token.unwrap().issued_at;
    scene.patch("tokensource", "source", json!({"spec": {"refresh": {"maxInterval": "30s"}}})).await;
    eventually("a refresh", 2 * SOON, async || match scene.token().await {
        Some(other) if other != token => Ok(()),
        _ => Err(scene.status_text("source").await),
    })
    .await;
    assert_eq!(scene.mints().await, 2);
    let second = scene.issued_at_other_than(issued_at).await;
    assert!(second.duration_since(issued_at).as_secs() >= 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_provider_costs_one_token_request_at_once() {
    let (scene, _operator, token) = started("provider", 600).await;
    scene.patch("tokensource", "source", json!({"spec": as_oauth2(&scene, json!({}))})).await;
    scene.new_token(Some(&token)).await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 2);
    assert_eq!(scene.status().await.provider.as_deref(), Some("oauth2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_provider_that_fails_is_not_ready_and_keeps_token_in_target() {
    let (scene, operator, token) = started("broken", 600).await;
    let broken = as_oauth2(&scene, json!({"scopes": ["no-such-scope"]}));
    scene.patch("tokensource", "source", json!({"spec": broken})).await;
    scene.ready("False ScopeRejected").await;
    scene.condition("source", "Stalled", "True ScopeRejected").await;
    assert_eq!(scene.token().await.as_ref(), Some(&token));
    assert!(scene.server.is_valid(&token).await);
    operator.kill();
    let _operator = Operator::start(&scene.namespace).await;
    scene.source_is_seen().await;
    scene.ready("False ScopeRejected").await;
    assert_eq!(scene.mints().await, 2, "the second for the broken spec, and none for the restart");

    // Back to the provider for which the token was issued.
    let back = json!({"provider": {"oauth2": null, "vgs": {"tokenURL": scene.server.vgs_token_url()}}});
    scene.patch("tokensource", "source", json!({"spec": back})).await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 2);
    assert_eq!(scene.token().await, Some(token));
}
