//! What one failure saves the others.

use serde_json::{Value, json};

use super::support::operator::Operator;
use super::support::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn many_with_one_wrong_secret_are_one_failed_login_and_recover_together() {
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
    assert_eq!(scene.mints().await, 1, "one of them was rejected for all");

    scene.credentials("right").await;
    for n in 0..10 {
        scene.condition(&format!("source-{n}"), "Ready", "True TokenValid").await;
    }
    assert_eq!(scene.mints().await, 11, "and each has a token of its own");
}
