//! What must not cost a token request: restarts, relists, and changes of metadata by users and tools.

use std::time::{Duration, Instant};

use serde_json::json;

use super::support::authorization_server::Behaviour;
use super::support::eventually;
use super::support::operator::Operator;
use super::support::relay::Relay;
use super::support::scene::{SOON, Scene};

/// A source with a token of ten minutes, after one token request.
async fn fresh(prefix: &str) -> (Scene, Operator, String) {
    let scene = Scene::new(prefix, 600).await;
    let operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    let token = scene.token().await.unwrap();
    assert_eq!(scene.mints().await, 1);
    (scene, operator, token)
}

/// Waits until the operator has seen every change, and asserts that it made no token request and changed no data.
async fn no_token_request_was_made(scene: &Scene, token: &str) {
    scene.source_is_seen().await;
    scene.secrets_are_seen().await;
    assert_eq!(scene.mints().await, 1);
    assert_eq!(scene.token().await.as_deref(), Some(token));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_restarted_operator_makes_no_token_request() {
    let (scene, operator, token) = fresh("killed").await;
    let (status, record) = (scene.status().await, scene.record().await);
    operator.kill();
    assert_eq!(scene.status().await, status, "status survives the operator");

    let operator = Operator::start(&scene.namespace).await;
    no_token_request_was_made(&scene, &token).await;
    assert_eq!(scene.record().await, record);
    let after = scene.status().await;
    assert_eq!((&after.token, &after.binding), (&status.token, &status.binding));

    operator.kill();
    let _again = Operator::start(&scene.namespace).await;
    no_token_request_was_made(&scene, &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn terminated_operator_ends_within_seconds_and_successor_makes_no_token_request() {
    let (scene, operator, token) = fresh("terminated").await;
    let begun = Instant::now();
    operator.stop().await; // asserts that it ends by itself, with exit code 0
    assert!(begun.elapsed() < Duration::from_secs(5), "took {:?}", begun.elapsed());

    let _successor = Operator::start(&scene.namespace).await;
    no_token_request_was_made(&scene, &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn token_request_in_flight_is_recorded_before_operator_ends() {
    let scene = Scene::new("under-way", 600).await;
    let slow = Behaviour { delay_ms: 3000, ..Behaviour::default() };
    scene.server.behave(&scene.namespace, Some(slow)).await;
    let operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    eventually("the request arrives", SOON, async || match scene.mints().await {
        1 => Ok(()),
        other => Err(other),
    })
    .await;

    operator.stop().await;
    let token = scene.token().await.expect("the token of the request in flight is written");
    let _successor = Operator::start(&scene.namespace).await;
    scene.ready("True TokenValid").await;
    no_token_request_was_made(&scene, &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_labels_and_annotations_cost_no_token_request() {
    let (scene, _operator, token) = fresh("labels").await;
    for (kind, name) in
        [("tokensource", "source"), ("secret", "token"), ("secret", "credentials"), ("secret", "credentials")]
    {
        let value = format!("example.com/n={}", scene.namespace);
        scene.kubectl(&["label", kind, name, "--overwrite", &value], "").await;
        scene.kubectl(&["annotate", kind, name, "--overwrite", &value], "").await;
        scene.kubectl(&["label", kind, name, "example.com/n-"], "").await;
    }
    no_token_request_was_made(&scene, &token).await;

    let version = scene.secrets().get("credentials").await.unwrap().metadata.resource_version.unwrap();
    let recorded = scene.record().await;
    assert_eq!(recorded["inputs"]["credentials"]["resourceVersion"], version, "for the next start");
}

#[tokio::test(flavor = "multi_thread")]
async fn rewritten_secrets_cost_no_token_request() {
    let (scene, operator, token) = fresh("rewrite").await;
    // As after a rotation of the keys for encryption at rest, and as by tools that annotate everything.
    let all = scene.kubectl(&["get", "secrets", "-o", "json"], "").await;
    scene.kubectl(&["replace", "-f", "-"], &all).await;
    scene.kubectl(&["annotate", "secrets", "--all", "example.com/rewritten=yes"], "").await;
    // Else its write would come between the two lines below.
    eventually("the record follows the credentials", SOON, async || {
        match operator.said("metadata of the target updated") {
            0 => Err(operator.log()),
            _ => Ok(()),
        }
    })
    .await;
    let all = scene.kubectl(&["get", "secrets", "-o", "json"], "").await;
    scene.kubectl(&["replace", "-f", "-"], &all).await;
    no_token_request_was_made(&scene, &token).await;

    operator.kill();
    let _again = Operator::start(&scene.namespace).await;
    no_token_request_was_made(&scene, &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_status_is_rebuilt_without_token_request() {
    let (scene, _operator, token) = fresh("lost-status").await;
    let before = scene.status().await;
    for lost in [json!(null), json!({"token": null, "conditions": [], "observedGeneration": -1})] {
        let patch = json!({"status": lost}).to_string();
        scene
            .kubectl(
                &["patch", "tokensource", "source", "--subresource=status", "--type=merge", "-p", &patch],
                "",
            )
            .await;
        eventually("the status is as before", SOON, async || {
            let after = scene.status().await;
            let token_and_conditions = |status: &tokensource_api::TokenSourceStatus| {
                let words: Vec<_> = status
                    .conditions
                    .iter()
                    .map(|it| (it.type_.clone(), it.status.clone(), it.message.clone()))
                    .collect();
                (words, status.token.clone(), status.provider.clone(), status.observed_generation)
            };
            if token_and_conditions(&after) == token_and_conditions(&before) { Ok(()) } else { Err(after) }
        })
        .await;
    }
    no_token_request_was_made(&scene, &token).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restart_does_not_shorten_wait_after_rejection() {
    let scene = Scene::new("restart-failing", 600).await;
    scene.credentials("wrong").await;
    let operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("False ClientRejected").await;
    let failed = scene.status().await.last_failure.unwrap();
    let next = failed.next_attempt_at.unwrap();
    operator.kill();

    let operator = Operator::start(&scene.namespace).await;
    scene.source_is_seen().await;
    let after = scene.status().await.last_failure.unwrap();
    // On a busy machine the wait may be over by now; the time of the second request is asserted below.
    if scene.mints().await == 1 {
        assert_eq!((after.next_attempt_at, after.count, after.at), (Some(next), 1, failed.at));
    }
    operator.stop().await;

    let _operator = Operator::start(&scene.namespace).await;
    let at = eventually("the second attempt", 2 * SOON, async || {
        let requests = scene.server.requests(&scene.namespace).await;
        if requests.total == 2 { Ok(requests.last.unwrap().at) } else { Err(requests.total) }
    })
    .await;
    assert!(at.parse::<jiff::Timestamp>().unwrap() >= next, "{at} is before {next}");
}

#[tokio::test(flavor = "multi_thread")]
async fn relist_costs_no_token_request_and_finds_deleted_objects() {
    let scene = Scene::new("relist", 600).await;
    let relay = Relay::start(scene.client.clone()).await;
    let flags = ["--allow-http", "--egress-allow", "127.0.0.0/8"];
    let _operator = Operator::start_at(&relay.kubeconfig_path(), &scene.namespace, &flags).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    let token = scene.token().await.unwrap();
    // Of TokenSources and of Secrets.
    let listed_anew = async |before: Vec<usize>| {
        eventually("both are listed again", SOON, async || {
            let now = relay.lists();
            let both = now.len() == 2 && now.iter().zip(&before).all(|(now, before)| now > before);
            if both { Ok(()) } else { Err(now) }
        })
        .await;
    };

    let before = relay.lists();
    relay.cut();
    for (kind, name) in [("tokensource", "source"), ("secret", "token"), ("secret", "credentials")] {
        scene.kubectl(&["label", kind, name, "a=b"], "").await;
    }
    relay.expire();
    listed_anew(before).await;
    no_token_request_was_made(&scene, &token).await;

    let before = relay.lists();
    relay.cut();
    scene.kubectl(&["delete", "secret", "token"], "").await;
    relay.expire();
    listed_anew(before).await;
    scene.new_token(Some(&token)).await;
    assert_eq!(scene.mints().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_started_during_an_outage_of_the_api_server_goes_on_after_it() {
    let scene = Scene::new("startoutage", 600).await;
    scene.apply(scene.source(json!({}))).await;
    let relay = Relay::start(scene.client.clone()).await;
    relay.hold("/");
    let _operator = Operator::replica(&relay.kubeconfig_path(), &scene.namespace, "a", &[]).await;
    relay.release();
    scene.ready("True TokenValid").await;
}
