//! Hanging endpoints delay no other TokenSources.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::support::authorization_server::{Behaviour, ClientSpec};
use super::support::eventually;
use super::support::operator::Operator;
use super::support::scene::{SOON, Scene};
use super::support::scripted_server::{Reply, ScriptedServer};

#[tokio::test(flavor = "multi_thread")]
async fn twenty_hanging_endpoints_on_same_host_do_not_delay_healthy_one() {
    // Refreshed after 12 s, with 12 s left.
    let scene = Scene::new("hanging", 24).await;
    let client = |n| format!("{}-hangs-{n}", scene.namespace);
    let hangs = Behaviour { delay_ms: 600_000, ..Behaviour::default() };
    for n in 0..20 {
        let spec = ClientSpec {
            id: client(n),
            token_endpoint_auth_method: "client_secret_post",
            ..ClientSpec::default()
        };
        scene.server.client(spec).await;
        scene.server.behave(&client(n), Some(hangs.clone())).await;
        scene
            .secret(&format!("hanging-{n}"), &[("client_id", &client(n)), ("client_secret", "secret")])
            .await;
    }
    let _operator = Operator::start(&scene.namespace).await;

    let items: Vec<Value> = (0..20)
        .map(|n| {
            let mut source = scene.source(json!({
                "credentials": {"secretRef": {"name": format!("hanging-{n}")}}, "target": {"name": format!("target-{n}")},
            }));
// Twenty endpoints, each with limits of its own.
            source["spec"]["provider"]["vgs"]["tokenURL"] = json!(format!("{}?{n}", scene.server.vgs_token_url()));
            source["metadata"]["name"] = json!(format!("hanging-{n}"));
            source
        })
        .collect();
    scene.apply(json!({"apiVersion": "v1", "kind": "List", "items": items})).await;
    for n in 0..20 {
        eventually(&format!("{n} hangs"), SOON, async || {
            match scene.server.requests(&client(n)).await.total {
                1.. => Ok(()),
                none => Err(none),
            }
        })
        .await;
    }

    scene.apply(scene.source(json!({}))).await;
    let mut token = scene.new_token(None).await;
    // Three refreshes, each in time.
    let begun = Instant::now();
    let mut refreshes = 0;
    while refreshes < 3 {
        assert!(begun.elapsed() < Duration::from_secs(90), "{}", scene.status_text("source").await);
        let now = scene.token().await.unwrap();
        let expires = scene.server.introspect(&now).await.exp.expect("an expired token was seen");
        let left = expires - Timestamp::now().as_second();
        assert!(left >= 3, "{left} s left: the refresh was late");
        if now != token {
            refreshes += 1;
            token = now;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for n in 0..20 {
        let message = scene.condition(&format!("hanging-{n}"), "Ready", "False EndpointUnavailable").await;
        assert!(message.contains("gave no complete answer within 5 s"), "{message}");
    }
    // They recover by themselves.
    scene.server.behave(&client(0), None).await;
    eventually("hanging-0 recovers", Duration::from_secs(90), async || {
        let words = scene.status_text("hanging-0").await;
        if words.contains("TokenValid") { Ok(()) } else { Err(words) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dripping_endpoint_times_out() {
    let scene = Scene::bare("dripping").await;
    scene.secret("credentials", &[("client_id", "id"), ("client_secret", "secret")]).await;
    let body = json!({"access_token": "a", "expires_in": 300}).to_string();
    for (name, reply) in [
        ("drips", Reply::Drip(body, Duration::from_millis(500))),
        ("stops", Reply::HangAfterHeaders),
        ("silent", Reply::HangBeforeHeaders),
    ] {
        let server = ScriptedServer::start([reply]).await;
        let operator = Operator::start(&scene.namespace).await;
        let begun = Instant::now();
        let mut source = scene.source(json!({"target": {"name": name}}));
        source["metadata"]["name"] = json!(name);
        source["spec"]["provider"] = json!({"vgs": {"tokenURL": server.url("/token")}});
        scene.apply(source).await;
        let message = scene.condition(name, "Ready", "False EndpointUnavailable").await;
        assert!(message.contains("within 5 s"), "{name}: {message}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{name}: {:?}", begun.elapsed());
        // Each attempt is one request, and a stop does not wait for the next attempt.
        let attempts = server.requests().len();
        assert!((1..=3).contains(&attempts), "{name}: {attempts}");
        operator.stop().await;
        scene.kubectl(&["delete", "tokensource", name], "").await;
    }
}
