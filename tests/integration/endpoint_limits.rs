//! The limiter of token endpoints: known rejections are shared, and rates are kept.

use std::time::Duration;

use serde_json::{Value, json};

use super::support::authorization_server::{Behaviour, ClientSpec};
use super::support::eventually;
use super::support::operator::Operator;
use super::support::scene::{SOON, Scene};

/// So many TokenSources with one client, `source-0` and so on, at once.
async fn apply_sources(scene: &Scene, count: usize) {
    let items: Vec<Value> = (0..count)
        .map(|n| {
            let mut source = scene.source(json!({"target": {"name": format!("token-{n}")}}));
            source["metadata"]["name"] = json!(format!("source-{n}"));
            source
        })
        .collect();
    scene.apply(json!({"apiVersion": "v1", "kind": "List", "items": items})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_sharing_wrong_secret_cost_one_failed_login_and_recover_together() {
    let scene = Scene::new("polite", 300).await;
    scene.credentials("wrong").await;
    let _operator = Operator::start(&scene.namespace).await;
    apply_sources(&scene, 10).await;
    for n in 0..10 {
        scene.condition(&format!("source-{n}"), "Ready", "False ClientRejected").await;
    }
    assert_eq!(scene.mints().await, 1, "one rejection for all");

    scene.credentials("right").await;
    for n in 0..10 {
        scene.condition(&format!("source-{n}"), "Ready", "True TokenValid").await;
    }
    assert_eq!(scene.mints().await, 11, "each has a token of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn limiter_keeps_configured_rate() {
    const SOURCES: usize = 5;
    let scene = Scene::new("pace", 300).await;
    let flags = ["--allow-http", "--egress-allow", "127.0.0.0/8", "--endpoint-max-per-second", "1"];
    let operator = Operator::start_with(&scene.namespace, &flags).await;
    apply_sources(&scene, SOURCES).await;
    for n in 0..SOURCES {
        scene.condition(&format!("source-{n}"), "Ready", "True TokenValid").await;
    }
    let times = scene.server.requests(&scene.namespace).await.times;
    assert_eq!(times.len(), SOURCES);
    // Each begins a second after the one before; how long it takes from there to the server differs.
    let shortest = (SOURCES - 1) as f64 - 1.0;
    assert!(times[SOURCES - 1].duration_since(times[0]).as_secs_f64() >= shortest, "{times:?}");
    let words = format!("token request waited for its endpoint source={}/", scene.namespace);
    eventually("the wait is logged", SOON, async || match operator.said(&words) {
        0 => Err(operator.log()),
        _ => Ok(()),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_endpoint_gets_one_request_at_a_time_and_all_sources_recover() {
    const CLIENTS: usize = 8;
    let scene = Scene::new("circuit", 300).await;
    let client = |n| format!("{}-{n}", scene.namespace);
    let fails = Behaviour { status: Some(503), ..Behaviour::default() };
    let mut items = vec![];
    for n in 0..CLIENTS {
        let spec = ClientSpec {
            id: client(n),
            token_endpoint_auth_method: "client_secret_post",
            ..ClientSpec::default()
        };
        scene.server.client(spec).await;
        scene.server.behave(&client(n), Some(fails.clone())).await;
        scene
            .secret(&format!("credentials-{n}"), &[("client_id", &client(n)), ("client_secret", "secret")])
            .await;
        let mut source = scene.source(json!({
            "credentials": {"secretRef": {"name": format!("credentials-{n}")}}, "target": {"name": format!("token-{n}")},
        }));
        // An endpoint of its own: others of this test server are not to be held up.
        source["spec"]["provider"]["vgs"]["tokenURL"] =
            json!(format!("{}?circuit", scene.server.vgs_token_url()));
        source["metadata"]["name"] = json!(format!("source-{n}"));
        items.push(source);
    }
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(json!({"apiVersion": "v1", "kind": "List", "items": items})).await;

    let requests = async || {
        let mut total = 0;
        for n in 0..CLIENTS {
            total += scene.server.requests(&client(n)).await.total;
        }
        total
    };
    eventually("the circuit opens", SOON, async || match requests().await {
        5.. => Ok(()),
        few => Err(few),
    })
    .await;
    // One that waits for the endpoint, and has made no attempt, says why.
    let mut waits = scene.source(json!({
        "credentials": {"secretRef": {"name": "credentials-0"}}, "target": {"name": "token-waits"},
    }));
    waits["spec"]["provider"]["vgs"]["tokenURL"] = json!(format!("{}?circuit", scene.server.vgs_token_url()));
    waits["metadata"]["name"] = json!("waits");
    scene.apply(waits).await;
    eventually("the open circuit is reported", SOON, async || {
        // Anything that triggers it again: its request has been queued.
        let now = format!("now={}", jiff::Timestamp::now().as_millisecond());
        scene.kubectl(&["label", "tokensource", "waits", "--overwrite", &now], "").await;
        let status = scene.sources().get("waits").await.unwrap().status.unwrap_or_default();
        let ready = status.conditions.iter().find(|it| it.type_ == "Ready");
        let reported = ready
            .is_some_and(|ready| ready.reason == "EndpointUnavailable" && ready.message.contains("in a row"));
        if reported && status.last_failure.is_none() { Ok(()) } else { Err(status) }
    })
    .await;
    let before = requests().await;
    tokio::time::sleep(Duration::from_secs(12)).await;
    // Without the circuit, each of eight sources would have asked at least once.
    let since = requests().await - before;
    assert!((1..=7).contains(&since), "{since} requests after {before}");

    for n in 0..CLIENTS {
        scene.server.behave(&client(n), None).await;
    }
    for n in 0..CLIENTS {
        let source = format!("source-{n}");
        eventually(&source, 3 * SOON, async || {
            let text = scene.status_text(&source).await;
            if text.contains("TokenValid") { Ok(()) } else { Err(text) }
        })
        .await;
    }
}
