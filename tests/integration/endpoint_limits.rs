//! The limiter of token endpoints: known rejections are shared, and rates are kept.

use serde_json::{Value, json};

use super::support::eventually;
use super::support::operator::Operator;
use super::support::scene::{SOON, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn sources_sharing_wrong_secret_cost_one_failed_login_and_recover_together() {
    let scene = Scene::new("polite", 300).await;
    scene.credentials("wrong").await;
    let _operator = Operator::start(&scene.namespace).await;
    let items: Vec<Value> = (0..10)
        .map(|n| {
            let mut source = scene.source(json!({"target": {"name": format!("token-{n}")}}));
            source["metadata"]["name"] = json!(format!("source-{n}"));
            source
        })
        .collect();
    scene.apply(json!({"apiVersion": "v1", "kind": "List", "items": items})).await;
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
    let scene = Scene::new("pace", 300).await;
    let flags = ["--allow-http", "--egress-allow", "127.0.0.0/8", "--endpoint-max-per-second", "1"];
    let operator = Operator::start_with(&scene.namespace, &flags).await;
    for name in ["one", "two", "three"] {
        let mut source = scene.source(json!({"target": {"name": format!("{name}-token")}}));
        source["metadata"]["name"] = json!(name);
        scene.apply(source).await;
    }
    for name in ["one", "two", "three"] {
        scene.condition(name, "Ready", "True TokenValid").await;
    }
    eventually("the wait is logged", SOON, async || {
        match operator.said("waited for a turn at the endpoint") {
            0 => Err(operator.log()),
            _ => Ok(()),
        }
    })
    .await;
}
