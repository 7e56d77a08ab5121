//! The calls that a refresh makes, read from the API server's audit log.

use serde_json::{Value, json};

use super::rotation::{director, director_source};
use super::support::control_plane::ControlPlane;
use super::support::eventually;
use super::support::operator::Operator;
use super::support::scene::{SOON, Scene};

/// The operator's calls in the namespace so far, without watches.
fn calls(scene: &Scene) -> Vec<String> {
    ControlPlane::shared()
        .audit(&scene.namespace)
        .into_iter()
        .filter(|line| line.user_agent.starts_with("tokensource-operator/"))
        .filter(|line| line.verb != "watch")
        .map(|line| format!("{} {} {}{}", line.verb, line.resource, line.name, prefixed(&line.subresource)))
        .collect()
}

fn prefixed(subresource: &str) -> String {
    if subresource.is_empty() { String::new() } else { format!("/{subresource}") }
}

/// Waits for three scheduled refreshes of `source`, and compares all calls after its first token.
async fn each_refresh_costs(scene: &Scene, source: Value, expected: &[&str]) {
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(source).await;
    scene.ready("True TokenValid").await;
    let token_id = async || scene.sources().get("source").await.unwrap().status.unwrap().token.unwrap().id;
    let mut id = token_id().await;
    // The last call of the first refresh, after its status.
    let before = eventually("the event about the first token", SOON, async || {
        let made = calls(scene);
        if made.iter().any(|call| call.starts_with("create events")) { Ok(made.len()) } else { Err(made) }
    })
    .await;
    let first = scene.mints().await;
    assert_eq!(first, 1);
    for _ in 0..3 {
        id = eventually("a refresh in status", SOON, async || match token_id().await {
            new if new != id => Ok(new),
            _ => Err(scene.status_text("source").await),
        })
        .await;
    }
    // A line may be written shortly after its response.
    let made = eventually("all calls in the audit log", SOON, async || {
        let made = calls(scene).split_off(before);
        if made.len() >= 3 * expected.len() { Ok(made) } else { Err(made) }
    })
    .await;
    assert_eq!(made, expected.repeat(3), "exactly these calls");
    assert_eq!(scene.mints().await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_with_static_credentials_costs_one_token_request_and_three_calls() {
    let scene = Scene::new("calls", 20).await;
    let source =
        scene.source(json!({"target": {"template": {"data": {"access_token": "{{ access_token }}"}}}}));
    let expected = ["get secrets credentials", "patch secrets token", "patch tokensources source/status"];
    each_refresh_costs(&scene, source, &expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_with_rotating_refresh_token_costs_two_more_calls() {
    let scene = director("calls-rotating", 20, true).await;
    let source = director_source(&scene, "source");
    let expected = [
        "get secrets source-refresh-token",
        // The announcement, and the save.
        "patch secrets source-refresh-token",
        "patch secrets source-refresh-token",
        "patch secrets token",
        "patch tokensources source/status",
    ];
    each_refresh_costs(&scene, source, &expected).await;
}
