//! What the administrator decides: which namespaces are served, and which Secrets may be used as credentials.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::api::ListParams;
use serde_json::{Value, json};

use super::rotation::{director, director_source, request_refresh};
use super::support::authority::Authority;
use super::support::authorization_server::Behaviour;
use super::support::control_plane::ControlPlane;
use super::support::eventually;
use super::support::operator::Operator;
use super::support::scene::{SOON, Scene};

async fn label_namespace(scene: &Scene, label: &str) {
    let output = ControlPlane::shared().kubectl(&["label", "namespace", &scene.namespace, label], "").await;
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn namespace_selector_follows_label_changes() {
    let (ours, theirs) = (Scene::new("selected", 3600).await, Scene::new("unselected", 3600).await);
    let label = format!("tenancy-test={}", ours.namespace);
    label_namespace(&ours, &label).await;
    let operator = Operator::start_selecting(&label).await;
    theirs.apply(theirs.source(json!({}))).await;
    ours.apply(ours.source(json!({}))).await;
    ours.ready("True TokenValid").await;
    assert_eq!(theirs.mints().await, 0);
    assert!(theirs.status().await.conditions.is_empty());

    label_namespace(&theirs, &label).await;
    theirs.ready("True TokenValid").await;
    assert_eq!(theirs.mints().await, 1);

    label_namespace(&theirs, "tenancy-test-").await;
    label_namespace(&theirs, "tenancy-test=other").await;
    eventually("the namespace is no longer selected", SOON, async || {
        match operator.said("no longer selected") {
            1 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    theirs.kubectl(&["delete", "secret", "token"], "").await;
    // One watch has both, in order: this is seen after the deletion.
    ours.secrets_are_seen().await;
    assert_eq!(theirs.token().await, None, "targets in other namespaces are not restored");
    assert_eq!(theirs.mints().await, 1);

    let overwrite = ["label", "namespace", &theirs.namespace, "--overwrite", &label];
    assert!(ControlPlane::shared().kubectl(&overwrite, "").await.status.success());
    theirs.new_token(None).await;
    assert_eq!((theirs.mints().await, ours.mints().await), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn namespace_deselected_during_token_request_gets_no_token_but_keeps_refresh_token() {
    let scene = director("let-go", 2_592_000, true).await;
    let label = format!("tenancy-test={}", scene.namespace);
    label_namespace(&scene, &label).await;
    let operator = Operator::start_selecting(&label).await;
    scene.apply(director_source(&scene, "source")).await;
    let token = scene.new_token(None).await;
    scene.ready("True TokenValid").await;
    let kept = async || scene.value("source-refresh-token", "refresh_token").await;
    let before = kept().await;

    let slow = Behaviour { delay_ms: 8_000, times: Some(1), ..Behaviour::default() };
    scene.server.behave(&scene.namespace, Some(slow)).await;
    request_refresh(&scene, "1").await;
    eventually("the request is under way", SOON, async || match scene.mints().await {
        2 => Ok(()),
        other => Err(other),
    })
    .await;
    label_namespace(&scene, "tenancy-test-").await;
    eventually("the namespace is no longer selected", SOON, async || {
        match operator.said("no longer selected") {
            1 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    assert_eq!(kept().await, before, "the request is still in flight");
    eventually("the new refresh token is stored", SOON, async || match kept().await {
        now if now != before => Ok(()),
        same => Err(same.is_some()),
    })
    .await;
    assert_eq!(scene.token().await.as_deref(), Some(token.as_str()));

    // The token was not written, so it is requested again: with the stored refresh token.
    label_namespace(&scene, &label).await;
    scene.new_token(Some(&token)).await;
    assert_eq!(scene.mints().await, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_label_missing_is_refused_and_message_has_remedy() {
    let scene = Scene::new("unlabelled", 3600).await;
    let flags = ["--allow-http", "--egress-allow", "127.0.0.0/8", "--require-credentials-label"];
    let _operator = Operator::start_with(&scene.namespace, &flags).await;
    scene.apply(scene.source(json!({}))).await;
    let message = scene.ready("False CredentialsInvalid").await;
    assert_eq!(scene.mints().await, 0);

    // The exact remedy of the message.
    let remedy = message.split_once("kubectl ").unwrap().1.to_owned();
    assert!(remedy.contains(&format!("-n {}", scene.namespace)), "{remedy}");
    let label = async || scene.kubectl(&remedy.split(' ').collect::<Vec<_>>(), "").await;
    label().await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 1);

    // The existing token stays without the label; a new one needs it.
    scene.kubectl(&["label", "secret", "credentials", "tokensource.dev/credentials-"], "").await;
    let request = "tokensource.dev/refresh-requested-at=1";
    scene.kubectl(&["annotate", "tokensource", "source", request], "").await;
    scene.reports("True RefreshFailing", &[&remedy]).await;
    assert_eq!(scene.mints().await, 1);
    let before = scene.token().await;
    label().await;
    scene.new_token(before.as_deref()).await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_beyond_the_limit_of_a_namespace_name_it_and_are_served_when_an_older_one_is_gone() {
    let scene = Scene::new("limited", 3600).await;
    let flags = ["--allow-http", "--egress-allow", "127.0.0.0/8", "--max-sources-per-namespace", "1"];
    let _operator = Operator::start_with(&scene.namespace, &flags).await;
    for name in ["a", "b"] {
        let mut source = scene.source(json!({"target": {"name": format!("token-{name}")}}));
        source["metadata"]["name"] = json!(name);
        scene.apply(source).await;
    }
    scene.condition("a", "Ready", "True TokenValid").await;
    let message = scene.condition("b", "Stalled", "True TooManySources").await;
    assert!(message.contains("--max-sources-per-namespace 1"), "{message}");
    assert_eq!(scene.mints().await, 1);
    scene.kubectl(&["delete", "tokensource", "a"], "").await;
    scene.condition("b", "Ready", "True TokenValid").await;
    assert_eq!(scene.mints().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_label_is_required_for_tls_secrets() {
    let scene = Scene::new("unlabelled-tls", 3600).await;
    let flags = ["--allow-http", "--egress-allow", "127.0.0.0/8", "--require-credentials-label"];
    let _operator = Operator::start_with(&scene.namespace, &flags).await;
    scene.kubectl(&["label", "secret", "credentials", "tokensource.dev/credentials=true"], "").await;
    scene.secret("roots", &[("ca.crt", &Authority::new("roots").pem)]).await;
    let tls = json!({"caBundle": {"secretKeyRef": {"name": "roots", "key": "ca.crt"}}});
    scene.apply(scene.source(json!({"tls": tls}))).await;
    scene.reports("False CredentialsInvalid", &["kubectl label secret roots"]).await;
    assert_eq!(scene.mints().await, 0);

    // That Secret is not watched: it is read again when the next attempt is due.
    scene.kubectl(&["label", "secret", "roots", "tokensource.dev/credentials=true"], "").await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 1);
}

/// The way to share the namespaces of a large cluster among releases.
#[tokio::test(flavor = "multi_thread")]
async fn namespace_moved_between_two_releases_has_a_valid_token_always_and_each_refresh_once() {
    const LIFETIME: u32 = 20;
    const SOURCES: usize = 6;
    let scene = Scene::new("moved", LIFETIME).await;
    let label = format!("shard-{}", scene.namespace);
    let move_to = async |shard: &str| {
        let label = format!("{label}={shard}");
        let arguments = ["label", "namespace", &scene.namespace, "--overwrite", &label];
        assert!(ControlPlane::shared().kubectl(&arguments, "").await.status.success());
    };
    let [of_a, of_b] = ["a", "b"].map(|shard| format!("{label}={shard}"));
    let (a, b) = tokio::join!(Operator::start_selecting(&of_a), Operator::start_selecting(&of_b));
    let names: Vec<_> = (0..SOURCES).map(|number| format!("token-{number}")).collect();
    for name in &names {
        let mut source = scene.source(json!({"target": {"name": name}}));
        source["metadata"]["name"] = json!(name);
        scene.apply(source).await;
    }

    // What a reader of each target sees, while the namespace moves before a refresh is due, and once when it is.
    let mut issued: BTreeMap<String, Vec<Timestamp>> = BTreeMap::new();
    for (round, shard, before_due) in [(1, "a", 2000), (2, "b", 2000), (3, "a", 50), (4, "b", 2000)] {
        move_to(shard).await;
        let sources = async || scene.sources().list(&ListParams::default()).await.unwrap();
        let refreshed = |issued: &BTreeMap<String, Vec<Timestamp>>| {
            names.iter().all(|name| issued.get(name).is_some_and(|issued| issued.len() >= round))
        };
        let begun = Instant::now();
        while !refreshed(&issued) {
            assert!(begun.elapsed() < Duration::from_secs(20), "{round}: {issued:?}\n{}{}", a.log(), b.log());
            tokio::time::sleep(Duration::from_millis(200)).await;
            observe(&scene, &mut issued).await;
        }
        let tokens = sources().await.into_iter().filter_map(|source| source.status?.token);
        let due = tokens.map(|token| token.refresh_at).min().unwrap();
        // Nothing, where it is overdue.
        let wait = Duration::try_from(due.duration_since(Timestamp::now())).unwrap_or_default();
        tokio::time::sleep(wait.saturating_sub(Duration::from_millis(before_due))).await;
    }

    for (name, issued) in &issued {
        assert_eq!(issued.len(), 4, "{name} was refreshed once in each round: {issued:?}");
        for pair in issued.windows(2) {
            let apart = pair[1].duration_since(pair[0]).as_secs();
            assert!(apart >= i64::from(LIFETIME) / 3, "{name} was refreshed twice in {apart} s: {issued:?}");
        }
    }
    // What they have begun ends, and is written.
    let logs = [a.stop().await, b.stop().await];
    observe(&scene, &mut issued).await;
    for log in &logs {
        assert!(log.contains("reason=refresh due"), "both releases refreshed:\n{log}");
    }
    let requested: usize = logs.iter().map(|log| log.matches("token received").count()).sum();
    let written: usize = issued.values().map(Vec::len).sum();
    // A token that is requested while its namespace moves is not written.
    assert!((written..=written + SOURCES).contains(&requested), "{requested} requests: {issued:?}");
}

/// Notes when the token of each target was issued; it must not have expired.
async fn observe(scene: &Scene, issued: &mut BTreeMap<String, Vec<Timestamp>>) {
    for secret in scene.secrets().list(&ListParams::default()).await.unwrap() {
        let annotations = secret.metadata.annotations.unwrap_or_default();
        let Some(record) = annotations.get("tokensource.dev/record") else { continue };
        let record: Value = serde_json::from_str(record).unwrap();
        let at = |member: &str| record[member].as_str().unwrap().parse::<Timestamp>().unwrap();
        let name = secret.metadata.name.unwrap();
        assert!(at("expiresAt") > Timestamp::now(), "{name} holds an expired token");
        let issued = issued.entry(name).or_default();
        if issued.last() != Some(&at("issuedAt")) {
            issued.push(at("issuedAt"));
        }
    }
}
