//! `/metrics` of a running operator, through success, failure and deletion.

use serde_json::json;

use super::support::eventually;
use super::support::operator::Operator;
use super::support::promtool::promtool;
use super::support::scene::{SOON, Scene};

/// The value of the series with this name and these labels, in any order.
fn value(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let found: Vec<_> = text
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .filter(|line| labels.iter().all(|label| line.contains(label)))
        .collect();
    assert!(found.len() < 2, "{found:?}");
    found.first()?.rsplit_once(' ')?.1.parse().ok()
}

/// Scrapes until the series has the value `expected`, and checks the whole page with promtool.
async fn scrape(operator: &Operator, name: &str, labels: &[&str], expected: Option<f64>) -> String {
    let text = eventually(&format!("{name}{labels:?} is {expected:?}"), SOON, async || {
        let (_, _, text) = operator.admin("/metrics").await;
        match value(&text, name, labels) {
            found if found == expected => Ok(text),
            found => Err(found),
        }
    })
    .await;
    promtool(&["check", "metrics"], &text).unwrap_or_else(|said| panic!("{said}\n{text}"));
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_follow_success_failure_and_deletion() {
    let scene = Scene::new("metrics", 3600).await;
    let operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    let namespace = format!("source_namespace=\"{}\"", scene.namespace);
    let source = [namespace.as_str(), "name=\"source\"", "host=\"127.0.0.1\""];
    let because = |reason: &str| [&source[..], &[reason]].concat().join("|");
    let labels = |joined: &str| joined.split('|').map(str::to_owned).collect::<Vec<_>>();
    let ready = async |reason: &str, expected| {
        let labels = labels(&because(&format!("reason=\"{reason}\"")));
        let labels: Vec<_> = labels.iter().map(String::as_str).collect();
        scrape(&operator, "tokensource_ready", &labels, Some(expected)).await
    };
    let mints = |text: &str, result: &str| {
        value(
            text,
            "tokensource_token_requests_total",
            &["host=\"127.0.0.1\"", &format!("result=\"{result}\"")],
        )
    };

    let text = ready("TokenValid", 1.0).await;
    assert_eq!(mints(&text, "success"), Some(1.0));
    assert_eq!(mints(&text, "ClientRejected"), Some(0.0));
    assert_eq!(value(&text, "tokensource_refresh_lateness_ratio", &source), Some(0.0));
    assert_eq!(value(&text, "tokensource_token_expired_seconds_total", &source), Some(0.0));
    let expires_at = scene.status().await.token.unwrap().expires_at;
    #[expect(clippy::cast_precision_loss, reason = "seconds")]
    let expected = Some(expires_at.as_second() as f64);
    assert_eq!(value(&text, "tokensource_token_expiry_timestamp_seconds", &source), expected);
    assert_eq!(
        value(&text, "tokensource_token_request_duration_seconds_count", &["host=\"127.0.0.1\""]),
        Some(1.0)
    );
    assert_eq!(
        value(&text, "tokensource_token_request_wait_seconds_count", &["host=\"127.0.0.1\""]),
        Some(1.0)
    );
    let status = ["verb=\"patch\"", "resource=\"tokensources/status\"", "code=\"200\""];
    assert!(value(&text, "tokensource_kubernetes_requests_total", &status) >= Some(1.0), "{text}");
    let watch = ["verb=\"watch\"", "resource=\"secrets\"", "code=\"200\""];
    assert_eq!(value(&text, "tokensource_kubernetes_requests_total", &watch), Some(1.0));
    assert!(!text.contains("resource=\"other\""), "every request has a resource:\n{text}");
    assert!(value(&text, "tokensource_reconcile_duration_seconds_count", &[]) >= Some(1.0));
    assert_eq!(value(&text, "tokensource_reconcile_overdue", &[]), Some(0.0));
    assert_eq!(value(&text, "tokensource_panics_total", &[]), Some(0.0));
    assert!(value(&text, "process_resident_memory_bytes", &[]).is_some() || cfg!(not(target_os = "linux")));

    scene.credentials("wrong").await;
    scene.ready("True RefreshFailing").await;
    let text = ready("RefreshFailing", 1.0).await;
    assert_eq!((mints(&text, "success"), mints(&text, "ClientRejected")), (Some(1.0), Some(1.0)));
    assert!(!text.contains("reason=\"TokenValid\""), "one reason for each source");

    scene.kubectl(&["delete", "secret", "token"], "").await;
    ready("ClientRejected", 0.0).await;

    scene.kubectl(&["delete", "tokensource", "source"], "").await;
    let gone = scrape(&operator, "tokensource_token_requests_total", &["result=\"success\""], None).await;
    assert!(!gone.contains("name=\"source\"") && !gone.contains("127.0.0.1"), "{gone}");
}
