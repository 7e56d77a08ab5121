//! Conditions are right at every moment, events are written for changes only, and Flux, Argo CD and kubectl read both
//! correctly.

use serde_json::{Value, json};

use super::support::authorization_server::Behaviour;
use super::support::eventually;
use super::support::gitops;
use super::support::operator::Operator;
use super::support::policy::Refusal;
use super::support::scene::{SOON, Scene};
use super::support::scripted_server::{Reply, ScriptedServer};

fn unavailable() -> Option<Behaviour> {
    Some(Behaviour { status: Some(503), ..Behaviour::default() })
}

/// The events about `source`, in order: `Warning ClientRejected`.
async fn events(scene: &Scene) -> Vec<String> {
    let list = scene.kubectl(&["get", "events.events.k8s.io", "-o", "json"], "").await;
    let list: Value = serde_json::from_str(&list).unwrap();
    let mut events: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|event| event["regarding"]["name"] == "source")
        .map(|event| {
            let word = |member: &str| event[member].as_str().unwrap().to_owned();
            (word("eventTime"), format!("{} {}", word("type"), word("reason")))
        })
        .collect();
    events.sort();
    events.into_iter().map(|(_, event)| event).collect()
}

async fn has_events(scene: &Scene, expected: &[&str]) {
    eventually(&format!("these events: {expected:?}"), SOON, async || {
        let events = events(scene).await;
        if events == expected { Ok(()) } else { Err(events) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_is_false_from_expiry_on_even_while_endpoint_hangs() {
    // Refreshed after 5 s, by an attempt that may take 5 s: the token expires before the attempt ends.
    let answer = json!({"access_token": "first", "token_type": "Bearer", "expires_in": 7}).to_string();
    let server = ScriptedServer::start([Reply::Json(200, answer), Reply::HangBeforeHeaders]).await;
    let scene = Scene::new("hangs", 600).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({"provider": {"vgs": {"tokenURL": server.url("/token")}}}))).await;
    scene.ready("False EndpointUnavailable").await;
    // First the expiry, during the attempt; then the timeout.
    has_events(&scene, &["Normal TokenValid", "Warning Expired", "Warning EndpointUnavailable"]).await;
    let status = scene.status().await;
    let ready = status.conditions.iter().find(|it| it.type_ == "Ready").unwrap();
    assert!(ready.last_transition_time.0 >= status.token.unwrap().expires_at);
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_written_for_changes_only() {
    let scene = Scene::new("events", 600).await;
    let operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    for n in 1..=3 {
        scene.force_refresh(&n.to_string()).await;
        scene.ready("True TokenValid").await;
    }
    operator.stop().await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.source_is_seen().await;
    // A removed status causes one more event.
    let valid = "Normal TokenValid";
    has_events(&scene, &[valid, valid]).await;

    // Consecutive failures are one event, and so is a failure without an attempt.
    let outage = Behaviour { times: Some(3), ..unavailable().unwrap() };
    scene.server.behave(&scene.namespace, Some(outage)).await;
    scene.force_refresh("4").await;
    let down = "Warning EndpointUnavailable";
    has_events(&scene, &[valid, valid, down, valid]).await;
    scene.kubectl(&["delete", "secret", "credentials"], "").await;
    scene
        .kubectl(&["annotate", "tks", "source", "--overwrite", "tokensource.dev/refresh-requested-at=5"], "")
        .await;
    scene.reports("True RefreshFailing", &["Secret credentials does not exist"]).await;
    has_events(&scene, &[valid, valid, down, valid, "Warning RefreshFailing"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_wait_works_for_conditions_and_fields() {
    let scene = Scene::new("waits", 600).await;
    scene.credentials("wrong").await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    let wait = async |what: &str| scene.kubectl(&["wait", what, "tks/source", "--timeout=60s"], "").await;
    wait("--for=condition=Stalled").await;
    wait("--for=condition=Ready=False").await;
    wait(r#"--for=jsonpath={.status.conditions[?(@.type=="Ready")].reason}=ClientRejected"#).await;
    wait("--for=jsonpath={.status.lastFailure.count}=1").await;
    scene.credentials("right").await;
    wait("--for=condition=Ready").await;
    wait("--for=jsonpath={.status.observedGeneration}=1").await;
    wait("--for=jsonpath={.status.binding.name}=token").await;
    wait("--for=jsonpath={.status.token.expiresAt}").await;
    assert_eq!(scene.mints().await, 2);
}

/// Asserts what Flux and Argo CD make of `source` as it is now.
async fn judged(scene: &Scene, kstatus: &str, argo_cd: &str) {
    judged_of(scene, "source", kstatus, argo_cd).await;
}

/// The same of another TokenSource.
async fn judged_of(scene: &Scene, source: &str, kstatus: &str, argo_cd: &str) {
    let object = scene.kubectl(&["get", "tokensource", source, "-o", "json"], "").await;
    let said = gitops::kstatus(&object).await;
    assert!(said.starts_with(&format!("{kstatus}: ")), "kstatus should say {kstatus}: {said}\n{object}");
    let health = gitops::health(&object).await;
    assert_eq!(health["status"], argo_cd, "{health}\n{object}");
    assert!(health["message"].as_str().is_some_and(|message| !message.is_empty()), "{health}");
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_of_every_documented_state_are_understood_by_flux_and_argo_cd() {
    let scene = Scene::new("rows", 600).await;
    scene.kubectl(&["delete", "secret", "credentials"], "").await;
    scene.apply(scene.source(json!({}))).await;
    judged(&scene, "InProgress", "Progressing").await; // not reconciled yet

    let operator = Operator::start(&scene.namespace).await;
    scene.ready("False CredentialsNotFound").await;
    judged(&scene, "InProgress", "Progressing").await;
    scene.credentials("wrong").await;
    scene.ready("False ClientRejected").await;
    judged(&scene, "Failed", "Degraded").await;
    scene.credentials("right").await;
    scene.ready("True TokenValid").await;
    judged(&scene, "Current", "Healthy").await;

    // Refresh failing, of any class: the token is valid.
    scene.server.behave(&scene.namespace, unavailable()).await;
    let request = async |value: &str| {
        let annotation = format!("tokensource.dev/refresh-requested-at={value}");
        scene.kubectl(&["annotate", "tokensource", "source", "--overwrite", &annotation], "").await;
    };
    request("1").await;
    scene.ready("True RefreshFailing").await;
    judged(&scene, "Current", "Healthy").await;
    scene.server.behave(&scene.namespace, None).await;
    scene.ready("True TokenValid").await;
    scene.credentials("wrong").await;
    scene.ready("True RefreshFailing").await;
    judged(&scene, "Current", "Healthy").await;
    scene.credentials("right").await;
    scene.ready("True TokenValid").await;

    // A spec whose credentials do not exist: the token of the one before is valid.
    let name = |name: &str| json!({"spec": {"credentials": {"secretRef": {"name": name}}}});
    scene.patch("tokensource", "source", name("later")).await;
    scene.ready("False CredentialsNotFound").await;
    judged(&scene, "InProgress", "Progressing").await;
    scene.patch("tokensource", "source", name("credentials")).await;
    scene.ready("True TokenValid").await;

    // A spec that is not reconciled yet, and suspended.
    operator.stop().await;
    scene.patch("tokensource", "source", json!({"spec": {"suspend": true}})).await;
    judged(&scene, "InProgress", "Progressing").await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.ready("True TokenValid").await;
    judged(&scene, "Current", "Suspended").await;

    // Expired: while suspended, while retried, and while a user must act.
    scene.server.set_ttl(&scene.namespace, 8).await;
    scene.patch("tokensource", "source", json!({"spec": {"suspend": null}})).await;
    scene.force_refresh("2").await;
    scene.patch("tokensource", "source", json!({"spec": {"suspend": true}})).await;
    scene.ready("False Suspended").await;
    judged(&scene, "InProgress", "Suspended").await;
    scene.server.behave(&scene.namespace, unavailable()).await;
    scene.patch("tokensource", "source", json!({"spec": {"suspend": null}})).await;
    scene.ready("False EndpointUnavailable").await;
    judged(&scene, "InProgress", "Degraded").await;
    scene.server.behave(&scene.namespace, None).await;
    scene.credentials("wrong").await;
    scene.ready("False ClientRejected").await;
    judged(&scene, "Failed", "Degraded").await;

    // Deletion.
    scene.patch("tokensource", "source", json!({"metadata": {"finalizers": ["example.com/held"]}})).await;
    scene.kubectl(&["delete", "tokensource", "source", "--wait=false"], "").await;
    judged(&scene, "Terminating", "Progressing").await;
    scene.patch("tokensource", "source", json!({"metadata": {"finalizers": null}})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_objects_are_in_progress_and_wrong_configuration_is_failed() {
    let scene = Scene::new("reasons", 600).await;
    let source = |name: &str, change: Value| {
        let mut source = scene.source(json!({"target": {"name": name}}));
        source["metadata"]["name"] = json!(name);
        source["spec"].as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        source
    };
    scene.secret("foreign", &[("theirs", "precious")]).await;
    scene.secret("half", &[("client_id", &scene.namespace)]).await;
    let _refusal = Refusal::of(&scene, "denied", "'not today'").await;
    let endpoint = |url: &str| json!({"provider": {"vgs": {"tokenURL": url}}});
    let credentials = |name: &str| json!({"credentials": {"secretRef": {"name": name}}});
    let scopes = json!({"tokenURL": scene.server.vgs_token_url(), "clientAuthentication": {"post": {}}, "scopes": ["no"]});
    let items = [
        source("foreign", json!({})),
        source("internal", endpoint("https://10.96.0.1/token")),
        source("scopes", json!({"provider": {"oauth2": scopes}})),
        source("half-there", credentials("half")),
        source("not-there", credentials("nothing")),
        source("denied", json!({})),
        source(
            "template",
            json!({"target": {"name": "template", "template": {"data": {"a": "{{ nothing }}"}}}}),
        ),
        source("unknown", endpoint("https://idp.invalid/token")),
        source("collected", json!({})),
    ];
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(json!({"apiVersion": "v1", "kind": "List", "items": items})).await;

    // The Secret of its predecessor still exists.
    scene.condition("collected", "Ready", "True TokenValid").await;
    scene.patch("secret", "collected", json!({"metadata": {"finalizers": ["example.com/held"]}})).await;
    scene.kubectl(&["delete", "tokensource", "collected"], "").await;
    scene.apply(source("collected", json!({}))).await;

    for (name, reason, kstatus, argo_cd) in [
        ("foreign", "TargetConflict", "Failed", "Degraded"),
        ("internal", "EndpointRefusedByPolicy", "Failed", "Degraded"),
        ("scopes", "ScopeRejected", "Failed", "Degraded"),
        ("template", "TemplateInvalid", "Failed", "Degraded"),
        ("half-there", "CredentialsNotFound", "InProgress", "Progressing"),
        ("not-there", "CredentialsNotFound", "InProgress", "Progressing"),
        ("denied", "TargetRefused", "InProgress", "Progressing"),
        ("unknown", "EndpointUnavailable", "InProgress", "Progressing"),
        ("collected", "TargetConflict", "InProgress", "Progressing"),
    ] {
        scene.condition(name, "Ready", &format!("False {reason}")).await;
        judged_of(&scene, name, kstatus, argo_cd).await;
    }
    scene.patch("secret", "collected", json!({"metadata": {"finalizers": null}})).await;
    scene.condition("collected", "Ready", "True TokenValid").await;
    judged_of(&scene, "collected", "Current", "Healthy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn argo_cd_actions_refresh_suspend_and_resume() {
    let scene = Scene::new("actions", 600).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    let object = async || scene.kubectl(&["get", "tokensource", "source", "-o", "json"], "").await;
    let act = async |name: &str| {
        let patch = gitops::action(name, &object().await).await;
        scene.patch("tokensource", "source", patch).await;
    };
    let offered = async || {
        let mut offered = gitops::actions(&object().await).await;
        offered.sort();
        offered
    };

    let token = scene.token().await;
    assert_eq!(offered().await, ["refresh", "suspend"]);
    act("refresh").await;
    let second = scene.new_token(token.as_deref()).await;
    act("suspend").await;
    let said = scene.ready("True TokenValid").await;
    assert!(said.contains("suspended"), "{said}");
    assert_eq!(scene.sources().get("source").await.unwrap().spec.suspend, Some(true));
    assert_eq!(offered().await, ["resume"]);
    act("resume").await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.sources().get("source").await.unwrap().spec.suspend, None, "as it was");
    scene.source_is_seen().await;
    assert_eq!(scene.mints().await, 2);
    assert_eq!(scene.token().await, Some(second));

    // Empty members, which Lua cannot distinguish from lists, stay as they are.
    let bare = json!({
        "apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource", "metadata": {"name": "bare"},
        "spec": {"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "credentials"}}},
    });
    let patch = gitops::action("refresh", &bare.to_string()).await;
    let members: Vec<_> = patch.as_object().unwrap().keys().collect();
    assert_eq!(members, ["metadata"], "{patch}");
}
