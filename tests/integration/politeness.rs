//! How often one endpoint is asked.

use serde_json::json;

use super::support::eventually;
use super::support::operator::Operator;
use super::support::scene::{SOON, Scene};

#[tokio::test(flavor = "multi_thread")]
async fn the_gate_keeps_the_pace_that_the_flags_say() {
    let scene = Scene::new("politeness", 300).await;
    let flags = ["--allow-http", "--egress-allow", "127.0.0.0/8", "--endpoint-max-per-second", "1"];
    let operator = Operator::start_with(&scene.namespace, &flags).await;
    for name in ["one", "two", "three"] {
        let mut source = scene.source(json!({}));
        source["metadata"]["name"] = json!(name);
        source["spec"]["target"]["name"] = json!(format!("{name}-token"));
        scene.apply(source).await;
    }
    for name in ["one", "two", "three"] {
        scene.condition(name, "Ready", "True TokenValid").await;
    }
    eventually("waiting is told", SOON, async || match operator.said("waited for a turn at the endpoint") {
        0 => Err(operator.log()),
        _ => Ok(()),
    })
    .await;
}
