//! Tenants behind one issuer: what one of them asks for, and which of them count.

use serde_json::json;

use super::super::support::eventually;
use super::super::support::operator::Operator;
use super::super::support::scene::{SOON, Scene};
use super::{client, health, issuer, issuer_status, names, operator, released, selecting, source, values};

/// A rejected client is asked again after 30 s: others would wait so long for a refused scope, if it were theirs.
const MAX_WAIT: i64 = 20;

/// The value of a series of the operator's metrics.
async fn series(operator: &Operator, series: &str) -> Option<u64> {
    let (_, _, text) = operator.admin("/metrics").await;
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

/// Waits until the Ready issuer counts these TokenSources, namespaces and tokens, and the metrics so many TokenSources.
async fn counted(release: &Scene, operator: &Operator, expected: [i64; 3]) {
    let sources = format!("tokensource_issuer_sources{{issuer=\"{}\"}}", release.namespace);
    eventually(&format!("the counts are {expected:?}"), SOON, async || {
        let (_, counts) = issuer_status(release, "True RequestSucceeded").await;
        let metric = series(operator, &sources).await;
        let agrees = metric == u64::try_from(expected[0]).ok();
        if counts == expected && agrees { Ok(()) } else { Err((counts, metric)) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scope_that_the_endpoint_refuses_to_one_tenant_slows_no_other() {
    let release = Scene::bare("issuer-scope").await;
    let (a, b, c) =
        (Scene::bare("scope-a").await, Scene::bare("scope-b").await, Scene::bare("scope-c").await);
    client(&release).await;
    let name = release.namespace.as_str();
    // The issuer allows a scope that its client does not have.
    release.server.change(name, json!({"scope": "read write"})).await;
    released(&release).await;
    let values = values(&release, json!({"namespaceSelector": selecting(&[&release, &a, &b, &c])}));
    let (operator, _account) = operator(&release, &values).await;
    let mut wide = issuer(&release, names(&[&a, &b, &c]));
    wide["spec"]["allow"]["scopes"] = json!(["read", "write", "admin"]);
    release.apply(wide).await;

    // With a token of its own, or its further requests would wait for longer, as those of a client that has never succeeded.
    a.apply(source(&release, "source", json!({"scopes": ["read"]}))).await;
    a.condition("source", "Ready", "True TokenValid").await;
    // Each of them is another request, which the endpoint refuses.
    let refused =
        [json!(["admin"]), json!(["admin", "read"]), json!(["write", "admin"]), json!(["read", "admin"])];
    for (number, scopes) in refused.iter().enumerate() {
        a.apply(source(&release, &format!("refused-{number}"), json!({"scopes": scopes}))).await;
    }
    let said = a.condition("refused-0", "Ready", "False ScopeRejected").await;
    assert!(said.contains("failed (ScopeRejected)"), "{said}");
    for tenant in [&b, &c] {
        tenant.apply(source(&release, "source", json!({"scopes": ["read"]}))).await;
    }
    for tenant in [&b, &c] {
        tenant.condition("source", "Ready", "True TokenValid").await;
        let source = tenant.sources().get("source").await.unwrap();
        let created = source.metadata.creation_timestamp.unwrap().0.as_second();
        let issued = source.status.unwrap().token.unwrap().issued_at.as_second();
        assert!(issued - created <= MAX_WAIT, "{}: {} s", tenant.namespace, issued - created);
    }
    // Nor when all of them ask again.
    let tokens = async || [b.value("source", "access_token").await, c.value("source", "access_token").await];
    let before = tokens().await;
    for tenant in [&a, &b, &c] {
        let request = "tokensource.dev/refresh-requested-at=1";
        tenant.kubectl(&["annotate", "tokensource", "--all", request], "").await;
    }
    eventually("the others have new tokens", SOON, async || {
        let now = tokens().await;
        let all = now.iter().zip(&before).all(|(now, before)| now.is_some() && now != before);
        if all { Ok(()) } else { Err("old tokens") }
    })
    .await;
    a.condition("refused-3", "Ready", "False ScopeRejected").await;
    // It is no failure of the issuer.
    counted(&release, &operator, [7, 3, 3]).await;
    let of = |result: &str| {
        format!("tokensource_issuer_token_requests_total{{issuer=\"{name}\",result=\"{result}\"}}")
    };
    assert!(series(&operator, &of("ScopeRejected")).await >= Some(4));
    assert!(series(&operator, &of("success")).await >= Some(3));
    assert_eq!(series(&operator, &of("ClientRejected")).await, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn namespace_that_the_operator_does_not_select_is_in_no_count_of_an_issuer() {
    let release = Scene::bare("issuer-counts").await;
    let (inside, outside) = (Scene::bare("inside").await, Scene::bare("outside").await);
    client(&release).await;
    released(&release).await;
    let label = format!("{}/served", release.namespace);
    for scene in [&release, &inside, &outside] {
        scene.kubectl(&["label", "namespace", &scene.namespace, &format!("{label}=yes")], "").await;
    }
    let values = values(&release, json!({"namespaceSelector": {"matchLabels": {label.as_str(): "yes"}}}));
    let (operator, _account) = operator(&release, &values).await;
    release.apply(issuer(&release, names(&[&inside, &outside]))).await;
    issuer_status(&release, "Unknown NotUsedYet").await;
    assert_eq!(health(&release).await, "InProgress Healthy", "as docs/gitops.md says");
    for scene in [&inside, &outside] {
        scene.apply(source(&release, "source", json!({"scopes": ["read"]}))).await;
        scene.condition("source", "Ready", "True TokenValid").await;
    }
    counted(&release, &operator, [2, 2, 2]).await;
    // The issuer names it still, and its token lives.
    outside.kubectl(&["label", "namespace", &outside.namespace, &format!("{label}-")], "").await;
    counted(&release, &operator, [1, 1, 1]).await;
    assert!(outside.value("source", "access_token").await.is_some());
    // One that was never selected does not count either.
    outside.apply(source(&release, "another", json!({"scopes": ["read"]}))).await;
    inside.apply(source(&release, "another", json!({"scopes": ["read"]}))).await;
    counted(&release, &operator, [2, 1, 2]).await;
    let table = release.kubectl(&["get", "clustertokenissuer", &release.namespace], "").await;
    let rows: Vec<Vec<&str>> = table.lines().map(|row| row.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAME", "READY", "REASON", "SOURCES", "NAMESPACES", "TOKENS", "AGE"]);
    assert_eq!(rows[1][1..6], ["True", "RequestSucceeded", "2", "1", "2"]);
}
