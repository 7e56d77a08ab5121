//! The members of log lines that docs/metrics.md documents.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::support::operator::Operator;
use super::support::scene::Scene;

const OF_EVERY_LINE: [&str; 4] = ["timestamp", "level", "target", "message"];

/// The only line with this message, without the members of every line.
fn line(lines: &[Map<String, Value>], message: &str, level: &str) -> Map<String, Value> {
    let of_it: Vec<_> = lines.iter().filter(|line| line["message"] == message).collect();
    let [line] = of_it[..] else { panic!("{message}: {} lines", of_it.len()) };
    assert_eq!(line["level"], level, "{message}");
    let mut line = line.clone();
    OF_EVERY_LINE.iter().for_each(|member| drop(line.remove(*member)));
    line
}

#[track_caller]
fn has(line: &Map<String, Value>, members: &[&str]) {
    let (found, expected): (BTreeSet<_>, BTreeSet<_>) =
        (line.keys().map(String::as_str).collect(), members.iter().copied().collect());
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_log_lines_have_documented_members() {
    let scene = Scene::new("logs", 600).await;
    scene.kubectl(&["delete", "secret", "credentials"], "").await;
    let flags = ["--allow-http", "--egress-allow", "127.0.0.0/8", "--log-format", "json"];
    let operator = Operator::start_with(&scene.namespace, &flags).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("False CredentialsNotFound").await;
    scene.credentials("wrong").await;
    scene.ready("False ClientRejected").await;
    scene.credentials("right").await;
    scene.ready("True TokenValid").await;
    let log = operator.stop().await;
    let lines: Vec<Map<String, Value>> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect();
    for line in &lines {
        OF_EVERY_LINE.iter().for_each(|member| assert!(line[*member].is_string(), "{member}: {line:?}"));
    }

    let source = format!("{}/source", scene.namespace);
    let blocked = line(&lines, "token request blocked", "WARN");
    has(&blocked, &["source", "host", "reason", "error"]);
    assert_eq!((&blocked["source"], &blocked["reason"]), (&json!(source), &json!("CredentialsNotFound")));

    let failed = line(&lines, "token request failed", "WARN");
    has(&failed, &["source", "host", "reason", "error", "count", "next_attempt_at"]);
    assert_eq!((&failed["count"], &failed["host"]), (&json!(1), &json!("127.0.0.1")));
    assert!(failed["error"].as_str().unwrap().contains("invalid_client"));

    let received = line(&lines, "token received", "INFO");
    let members = ["source", "host", "reason", "duration_ms", "lifetime_seconds", "token_id", "refresh_at"];
    has(&received, &members);
    let status = scene.status().await.token.unwrap();
    assert_eq!((&received["token_id"], &received["lifetime_seconds"]), (&json!(status.id), &json!(600)));
    assert_eq!(received["refresh_at"], json!(status.refresh_at));
    assert!(received["duration_ms"].is_u64() && received["reason"] == "target missing", "{received:?}");
}
