//! The main use: from `kubectl apply` to a Secret whose token is refreshed.

use serde_json::json;

use super::support::operator::Operator;
use super::support::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn token_is_requested_written_and_refreshed_before_expiry() {
    let scene = Scene::new("main-job", 12).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;

    let first = scene.new_token(None).await;
    assert!(scene.server.is_valid(&first).await);
    assert_eq!(scene.value("token", "token_type").await.as_deref(), Some("Bearer"));
    scene.ready("True TokenValid").await;

    let second = scene.new_token(Some(&first)).await;
    assert!(scene.server.is_valid(&first).await, "refreshed before it expired");
    assert!(scene.server.is_valid(&second).await);
    assert_eq!(scene.mints().await, 2);
}
