//! Rotating refresh tokens: the newest one is the only valid copy of a credential, and the authorization server revokes the
//! whole grant when a spent one is presented. So as long as refreshes succeed, no spent token was sent.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::support::authorization_server::{Behaviour, ClientSpec};
use super::support::control_plane::ControlPlane;
use super::support::eventually;
use super::support::operator::Operator;
use super::support::policy::Refusal;
use super::support::relay::Relay;
use super::support::scene::{COLLECTED, SOON, Scene};
use super::support::scripted_server::{Reply, ScriptedServer};

const STORED: &str = "source-refresh-token";

/// A namespace with a VMware Cloud Director API token in Secret `credentials`: of a service account (`rotates`), or a user.
pub async fn director(prefix: &str, ttl: u32, rotates: bool) -> Scene {
    let scene = Scene::bare(prefix).await;
    scene
        .server
        .client(ClientSpec {
            id: scene.namespace.clone(),
            secret: None,
            token_endpoint_auth_method: "none",
            grant_types: vec!["refresh_token"],
            access_token_ttl: ttl,
            tenant: Some("my org".into()),
            rotate_refresh_token: rotates,
            ..ClientSpec::default()
        })
        .await;
    new_original(&scene).await;
    scene
}

/// Writes a new API token to Secret `credentials`, as a user who has created one in the portal.
async fn new_original(scene: &Scene) -> String {
    let original = scene.server.seed_refresh_token(&scene.namespace).await;
    scene.secret("credentials", &[("refresh_token", &original)]).await;
    original
}

/// TokenSource `name` with its target `token`.
pub fn director_source(scene: &Scene, name: &str) -> Value {
    let token_url = scene.server.vcd_token_url("my org");
    let provider = json!({"vmwareCloudDirector": {"host": "vcd.example.com", "tenant": "my org", "tokenURL": token_url}});
    named(name, provider)
}

fn named(name: &str, provider: Value) -> Value {
    json!({
        "apiVersion": "tokensource.dev/v1alpha1",
        "kind": "TokenSource",
        "metadata": {"name": name},
        "spec": {
            "provider": provider,
            "credentials": {"secretRef": {"name": "credentials"}},
            "target": {"name": if name == "source" { "token".into() } else { format!("{name}-token") }},
        },
    })
}

/// A TokenSource at a server that follows a script.
fn scripted(server: &ScriptedServer) -> Value {
    let oauth2 = json!({
        "tokenURL": server.url("/token"),
        "grant": {"refreshToken": {}},
        "clientAuthentication": {"none": {}},
    });
    named("source", json!({"oauth2": oauth2}))
}

/// The refresh token in the body of the nth request.
fn sent(server: &ScriptedServer, nth: usize) -> String {
    let body = String::from_utf8(server.requests()[nth].body.clone()).unwrap();
    body.split("refresh_token=").last().unwrap().to_owned()
}

pub async fn request_refresh(scene: &Scene, value: &str) {
    let annotation = format!("tokensource.dev/refresh-requested-at={value}");
    scene.kubectl(&["annotate", "tokensource", "source", &annotation, "--overwrite"], "").await;
}

/// Requests a refresh, and returns the new token.
pub async fn refreshed(scene: &Scene, value: &str) -> String {
    let before = scene.token().await;
    request_refresh(scene, value).await;
    scene.new_token(before.as_deref()).await
}

async fn stored(scene: &Scene) -> Option<String> {
    scene.value(STORED, "refresh_token").await
}

async fn new_kept(scene: &Scene, before: Option<&str>) -> String {
    eventually("a new refresh token is stored", SOON, async || match stored(scene).await {
        Some(kept) if Some(kept.as_str()) != before => Ok(kept),
        other => Err((other, scene.status_text("source").await)),
    })
    .await
}

async fn assert_no_failure(scene: &Scene) {
    let requests = scene.server.requests(&scene.namespace).await;
    assert_eq!(requests.failed, 0, "{requests:?}");
    assert_eq!(requests.total, requests.succeeded, "{requests:?}");
}

async fn mints(scene: &Scene, expected: u64) {
    eventually(&format!("{expected} token requests"), SOON, async || {
        let mints = scene.mints().await;
        if mints == expected { Ok(()) } else { Err(mints) }
    })
    .await;
}

fn sha256(text: &str) -> String {
    digest(&SHA256, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_newest_refresh_token_survives_everything_and_enters_no_other_secret() {
    let scene = director("rotation", 2_592_000, true).await;
    let original = scene.value("credentials", "refresh_token").await.unwrap();
    let operator = Operator::start(&scene.namespace).await;
    scene.apply(director_source(&scene, "source")).await;
    scene.new_token(None).await;
    let first = stored(&scene).await.expect("saved before the target is written");
    assert_ne!(first, original);
    assert_eq!(scene.value(STORED, "seed_sha256").await, Some(sha256(&original)));
    assert_eq!(
        scene.value("credentials", "refresh_token").await,
        Some(original.clone()),
        "the user's Secret"
    );

    for n in 1..=3 {
        let before = stored(&scene).await;
        let token = refreshed(&scene, &n.to_string()).await;
        assert!(scene.server.is_valid(&token).await);
        assert_ne!(stored(&scene).await, before);
    }
    mints(&scene, 4).await;

    // A label on the credentials Secret changes its resourceVersion only.
    let stamped = operator.said("metadata of the target updated");
    scene.kubectl(&["label", "secret", "credentials", "a=label"], "").await;
    eventually("the record follows the credentials Secret", SOON, async || {
        if operator.said("metadata of the target updated") > stamped { Ok(()) } else { Err(operator.log()) }
    })
    .await;
    mints(&scene, 4).await;

    operator.kill();
    let operator = Operator::start(&scene.namespace).await;
    refreshed(&scene, "after a kill").await;
    mints(&scene, 5).await;

    // Changed while no operator runs: the values may differ, so a token is requested, but not with the spent refresh token.
    operator.kill();
    scene.kubectl(&["label", "secret", "credentials", "another=label"], "").await;
    let before = scene.token().await;
    let operator = Operator::start(&scene.namespace).await;
    scene.new_token(before.as_deref()).await;
    mints(&scene, 6).await;

    let last = stored(&scene).await;
    scene.kubectl(&["delete", "tokensource", "source"], "").await;
    eventually("the target is deleted with its TokenSource", COLLECTED, async || match scene.token().await {
        None => Ok(()),
        Some(_) => Err("still there"),
    })
    .await;
    assert_eq!(stored(&scene).await, last, "the only valid copy is kept");
    scene.apply(director_source(&scene, "source")).await;
    scene.new_token(None).await;
    mints(&scene, 7).await;
    assert_no_failure(&scene).await;

    let before = scene.token().await;
    let new = new_original(&scene).await;
    scene.new_token(before.as_deref()).await;
    assert_eq!(scene.value(STORED, "seed_sha256").await, Some(sha256(&new)));
    refreshed(&scene, "with the new one's successor").await;
    mints(&scene, 9).await;
    assert_no_failure(&scene).await;

    let target = scene.secrets().get("token").await.unwrap();
    let keys: Vec<_> = target.data.unwrap().into_keys().collect();
    assert_eq!(keys, ["access_token", "expires_at", "token_type"]);
    let owners = scene.secrets().get(STORED).await.unwrap().metadata.owner_references;
    assert_eq!(owners, None, "the stored refresh token survives its TokenSource");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_of_confidential_client_refreshes_by_schedule() {
    let scene = Scene::bare("rotation-basic").await;
    scene
        .server
        .client(ClientSpec {
            id: scene.namespace.clone(),
            secret: Some("right".into()),
            grant_types: vec!["refresh_token"],
            access_token_ttl: 10,
            rotate_refresh_token: true,
            ..ClientSpec::default()
        })
        .await;
    let original = scene.server.seed_refresh_token(&scene.namespace).await;
    let data =
        [("client_id", scene.namespace.as_str()), ("client_secret", "right"), ("refresh_token", &original)];
    scene.secret("credentials", &data).await;
    let _operator = Operator::start(&scene.namespace).await;
    let oauth2 = json!({"tokenURL": scene.server.vgs_token_url(), "grant": {"refreshToken": {}}});
    scene.apply(named("source", json!({"oauth2": oauth2}))).await;

    let mut token = scene.new_token(None).await;
    for _ in 0..2 {
        token = scene.new_token(Some(&token)).await;
    }
    assert_no_failure(&scene).await;
    scene.ready("True TokenValid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_refresh_token_is_saved_before_target_is_written() {
    let scene = director("rotation-first", 2_592_000, true).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(director_source(&scene, "source")).await;
    let old = scene.new_token(None).await;
    let before = stored(&scene).await.unwrap();

    let refusal = Refusal::of(&scene, "token", "'no targets today'").await;
    request_refresh(&scene, "now").await;
    new_kept(&scene, Some(&before)).await;
    let message = scene.ready("True RefreshFailing").await;
    assert!(message.contains("Secret token") && message.contains("no targets today"), "{message}");
    assert_eq!(scene.token().await, Some(old.clone()));

    refusal.lift().await;
    scene.new_token(Some(&old)).await;
    scene.ready("True TokenValid").await;
    mints(&scene, 2).await;
    assert_no_failure(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_unsaved_refresh_token_stays_in_memory_and_blocks_token_requests() {
    let scene = director("rotation-memory", 2_592_000, true).await;
    let operator = Operator::start(&scene.namespace).await;
    scene.apply(director_source(&scene, "source")).await;
    let old = scene.new_token(None).await;
    let before = stored(&scene).await.unwrap();

    // The announcement passes, and the save does not.
    let refusal = Refusal::of_data(&scene, STORED, "'not today'").await;
    request_refresh(&scene, "now").await;
    let message = scene.ready("True RefreshFailing").await;
    assert!(message.contains(STORED) && message.contains("not today"), "{message}");
    eventually("the save is retried", SOON, async || match operator.said("refresh token not saved") {
        0 | 1 => Err(operator.log()),
        _ => Ok(()),
    })
    .await;
    assert!(operator.admin("/metrics").await.2.contains("\ntokensource_unsaved_refresh_tokens 1\n"));
    request_refresh(&scene, "again").await;
    assert_eq!(stored(&scene).await, Some(before.clone()));
    assert_eq!(scene.token().await, Some(old.clone()), "nothing is written before the refresh token");
    mints(&scene, 2).await;

    // As users do: delete it and apply it again.
    scene.kubectl(&["delete", "tokensource", "source"], "").await;
    scene.apply(director_source(&scene, "source")).await;
    scene.condition("source", "Ready", "False TargetRefused").await;
    mints(&scene, 2).await;

    refusal.lift().await;
    new_kept(&scene, Some(&before)).await;
    scene.ready("True TokenValid").await;
    refreshed(&scene, "afterwards").await;
    assert_no_failure(&scene).await;
}

/// A quota, or a policy, that only the request for the next token would meet.
#[tokio::test(flavor = "multi_thread")]
async fn rotation_refused_secret_is_found_before_a_refresh_token_is_spent() {
    let scene = director("rotation-refused", 2_592_000, true).await;
    let refusal = Refusal::of(&scene, STORED, "'no room'").await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(director_source(&scene, "source")).await;
    scene.reports("False TargetRefused", &[STORED, "no room"]).await;
    assert_eq!((scene.mints().await, scene.token().await), (0, None));

    refusal.lift().await;
    request_refresh(&scene, "now").await;
    scene.ready("True TokenValid").await;
    assert_no_failure(&scene).await;
}

/// A person has written another original refresh token, and labels the Secret while it is sent.
#[tokio::test(flavor = "multi_thread")]
async fn rotation_of_new_original_is_saved_although_its_secret_is_labelled_meanwhile() {
    let scene = director("rotation-label", 2_592_000, true).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(director_source(&scene, "source")).await;
    let old = scene.new_token(None).await;
    let slow = Behaviour { delay_ms: 3_000, times: Some(1), ..Behaviour::default() };
    scene.server.behave(&scene.namespace, Some(slow)).await;
    let new = new_original(&scene).await;
    mints(&scene, 2).await;
    scene.kubectl(&["label", "secret", STORED, "a=label"], "").await;
    let announcement = scene.secrets().get(STORED).await.unwrap().metadata.annotations.unwrap();
    let announced = &announcement["tokensource.dev/refresh-token-sent"];
    assert!(announced.starts_with(&sha256(&new)) && announced.contains(" alone_"), "{announced}");

    scene.new_token(Some(&old)).await;
    assert_eq!(scene.value(STORED, "seed_sha256").await, Some(sha256(&new)));
    let metadata = scene.secrets().get(STORED).await.unwrap().metadata;
    assert!(metadata.labels.unwrap().contains_key("a"));
    assert!(!metadata.annotations.unwrap().contains_key("tokensource.dev/refresh-token-sent"));
    refreshed(&scene, "with its successor").await;
    assert_no_failure(&scene).await;
}

/// The leader loses the lease while packets vanish, with a new refresh token in memory.
#[tokio::test(flavor = "multi_thread")]
async fn rotation_successor_waits_for_the_refresh_token_in_its_predecessors_memory() {
    let scene = director("rotation-successor", 2_592_000, true).await;
    let relay = Relay::start(scene.client.clone()).await;
    let lease = ["--leader-election-lease-duration", "10s", "--leader-election-renew-deadline", "6s"];
    let first = Operator::replica(&relay.kubeconfig_path(), &scene.namespace, "first", &lease).await;
    scene.apply(director_source(&scene, "source")).await;
    let old = scene.new_token(None).await;
    let before = stored(&scene).await.unwrap();
    let slow = Behaviour { delay_ms: 2_000, times: Some(1), ..Behaviour::default() };
    scene.server.behave(&scene.namespace, Some(slow)).await;
    request_refresh(&scene, "now").await;
    mints(&scene, 2).await;
    relay.hold("/");
    let kubeconfig = ControlPlane::shared().kubeconfig_path();
    let second = Operator::replica(&kubeconfig, &scene.namespace, "second", &lease).await;
    scene.reports("True RefreshFailing", &["(first_", "may hold the next one"]).await;
    eventually("the saver of the first one tries", SOON, async || {
        match first.said("refresh token not saved") {
            0 => Err(first.log()),
            _ => Ok(()),
        }
    })
    .await;
    assert_eq!(stored(&scene).await, Some(before.clone()));
    mints(&scene, 2).await;

    relay.release();
    new_kept(&scene, Some(&before)).await;
    scene.new_token(Some(&old)).await;
    scene.ready("True TokenValid").await;
    refreshed(&scene, "again").await;
    assert_no_failure(&scene).await;
    let saved_by_second = u64::try_from(second.said("refresh token saved")).unwrap();
    assert_eq!(saved_by_second + 2, scene.mints().await, "the first one saved two: {}", first.log());
}

/// Longer than the writes of tokens are tried.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes half a minute"]
async fn rotation_refresh_token_is_saved_until_forty_seconds_after_sigterm() {
    let scene = director("rotation-end", 2_592_000, true).await;
    let relay = Relay::start(scene.client.clone()).await;
    let flags = ["--allow-http", "--egress-allow", "127.0.0.0/8"];
    let operator = Operator::start_at(&relay.kubeconfig_path(), &scene.namespace, &flags).await;
    scene.apply(director_source(&scene, "source")).await;
    scene.new_token(None).await;
    let before = stored(&scene).await.unwrap();
    let slow = Behaviour { delay_ms: 2_000, times: Some(1), ..Behaviour::default() };
    scene.server.behave(&scene.namespace, Some(slow)).await;
    request_refresh(&scene, "now").await;
    mints(&scene, 2).await;
    relay.hold("/secrets");
    operator.signal("TERM");
    // By then everything else is given up.
    eventually("the controller stops", 2 * SOON, async || match operator.said("INFO stopped") {
        0 => Err(operator.log()),
        _ => Ok(()),
    })
    .await;
    assert_eq!(stored(&scene).await, Some(before.clone()));
    relay.release();
    operator.ends().await;
    assert_ne!(stored(&scene).await, Some(before));
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_stored_refresh_token_is_no_credentials_of_another_source() {
    let scene = director("rotation-stolen", 2_592_000, true).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(director_source(&scene, "source")).await;
    scene.new_token(None).await;
    let mut thief = director_source(&scene, "thief");
    thief["spec"]["credentials"]["secretRef"]["name"] = json!(STORED);
    scene.apply(thief).await;
    let message = scene.condition("thief", "Ready", "False CredentialsInvalid").await;
    assert!(message.contains(STORED) && message.contains("TokenSource source"), "{message}");
    refreshed(&scene, "now").await;
    mints(&scene, 2).await;
    assert_no_failure(&scene).await;
}

/// Different client authentication makes different clients, which the limiter does not hold apart.
#[tokio::test(flavor = "multi_thread")]
async fn rotation_refresh_token_of_two_clients_is_sent_by_one_at_a_time() {
    let scene = Scene::bare("rotation-clients").await;
    let answer = json!({"access_token": "a1", "expires_in": 3600, "refresh_token": "r1"}).to_string();
    // Longer than both of them take to begin.
    let server = ScriptedServer::start([Reply::Drip(answer, Duration::from_millis(10))]).await;
    scene
        .secret("credentials", &[("refresh_token", "shared"), ("client_id", "a"), ("client_secret", "b")])
        .await;
    let _operator = Operator::start(&scene.namespace).await;
    let mut other = scripted(&server);
    other["metadata"]["name"] = json!("other");
    other["spec"]["target"]["name"] = json!("other-token");
    other["spec"]["provider"]["oauth2"]["clientAuthentication"] = json!({"basic": {}});
    let both = json!({"apiVersion": "v1", "kind": "List", "items": [scripted(&server), other]});
    scene.apply(both).await;
    eventually("one is ready and the other stalled", SOON, async || {
        let mut ready = vec![];
        for name in ["source", "other"] {
            let status = scene.sources().get(name).await.unwrap().status.unwrap_or_default();
            ready.extend(status.conditions.first().map(|it| format!("{} {}", it.status, it.reason)));
        }
        ready.sort();
        if ready == ["False GrantRejected", "True TokenValid"] { Ok(()) } else { Err(ready) }
    })
    .await;
    assert_eq!(server.requests().len(), 1, "the other one would have spent it again");
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_foreign_secret_is_not_adopted() {
    let scene = director("rotation-foreign", 2_592_000, true).await;
    scene.secret(STORED, &[("refresh_token", "theirs"), ("seed_sha256", "theirs")]).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(director_source(&scene, "source")).await;
    let message = scene.ready("False TargetConflict").await;
    assert!(message.contains(STORED) && message.contains("delete it"), "{message}");
    scene.condition("source", "Stalled", "True TargetConflict").await;
    assert_eq!(scene.mints().await, 0);
    assert_eq!(stored(&scene).await.as_deref(), Some("theirs"));

    scene.kubectl(&["delete", "secret", STORED], "").await;
    scene.ready("True TokenValid").await;
    mints(&scene, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_secrets_created_during_token_request_are_not_overwritten() {
    let scene = director("rotation-meanwhile", 2_592_000, true).await;
    let slow = Behaviour { delay_ms: 4_000, times: Some(1), ..Behaviour::default() };
    scene.server.behave(&scene.namespace, Some(slow)).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(director_source(&scene, "source")).await;
    mints(&scene, 1).await;
    // The announcement has made it.
    scene.kubectl(&["delete", "secret", STORED], "").await;
    scene.secret(STORED, &[("refresh_token", "theirs")]).await;
    scene.secret("token", &[("access_token", "theirs")]).await;

    let message = scene.ready("False TargetConflict").await;
    assert!(message.contains("Secret token") || message.contains(STORED), "{message}");
    eventually("the refresh token was received", SOON, async || {
        let requests = scene.server.requests(&scene.namespace).await;
        if requests.succeeded == 1 { Ok(()) } else { Err(requests) }
    })
    .await;
    eventually("only this process holds it", SOON, async || {
        let words = scene.status_text("source").await;
        if words.contains("only this process") { Ok(()) } else { Err(words) }
    })
    .await;
    assert_eq!(stored(&scene).await.as_deref(), Some("theirs"));
    assert_eq!(scene.token().await.as_deref(), Some("theirs"));

    scene.kubectl(&["delete", "secret", STORED], "").await;
    new_kept(&scene, None).await;
    assert_eq!(scene.token().await.as_deref(), Some("theirs"));
    scene.kubectl(&["delete", "secret", "token"], "").await;
    scene.ready("True TokenValid").await;
    mints(&scene, 1).await;
    assert_no_failure(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_second_source_with_same_refresh_token_is_stalled_and_sends_nothing() {
    let scene = director("rotation-shared", 2_592_000, true).await;
    let _operator = Operator::start(&scene.namespace).await;
    let both = json!({
        "apiVersion": "v1", "kind": "List",
        "items": [director_source(&scene, "source"), director_source(&scene, "other")],
    });
    scene.apply(both).await;
    let ready = async |name: &str| {
        let status = scene.sources().get(name).await.unwrap().status.unwrap_or_default();
        status.conditions.first().map(|it| format!("{} {}", it.status, it.reason)).unwrap_or_default()
    };
    let (first, second) = eventually("one is ready and the other stalled", SOON, async || {
        match (ready("source").await.as_str(), ready("other").await.as_str()) {
            ("True TokenValid", "False GrantRejected") => Ok(("source", "other")),
            ("False GrantRejected", "True TokenValid") => Ok(("other", "source")),
            neither => Err(format!("{neither:?}")),
        }
    })
    .await;
    let message = scene.condition(second, "Stalled", "True GrantRejected").await;
    assert!(message.contains(&format!("TokenSource {first} uses the same refresh token")), "{message}");
    mints(&scene, 1).await;
    assert_no_failure(&scene).await;
    let last_failure = scene.sources().get(second).await.unwrap().status.unwrap().last_failure.unwrap();
    assert!(last_failure.next_attempt_at.is_some(), "no watch reports when the other is deleted");

    // The remedy of the message: a refresh token of its own.
    let own = scene.server.seed_refresh_token(&scene.namespace).await;
    scene.secret("own", &[("refresh_token", &own)]).await;
    let patch = json!({"spec": {"credentials": {"secretRef": {"name": "own"}}}}).to_string();
    scene.kubectl(&["patch", "tokensource", second, "--type=merge", "-p", &patch], "").await;
    scene.condition(second, "Ready", "True TokenValid").await;
    mints(&scene, 2).await;
    assert_no_failure(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refresh_token_without_rotation_may_be_shared() {
    let scene = director("rotation-user", 2_592_000, false).await;
    let operator = Operator::start(&scene.namespace).await;
    scene.apply(director_source(&scene, "source")).await;
    scene.apply(director_source(&scene, "other")).await;
    scene.ready("True TokenValid").await;
    scene.condition("other", "Ready", "True TokenValid").await;
    refreshed(&scene, "again").await;
    assert_eq!(stored(&scene).await, None, "nothing to store");
    let unrotated =
        scene.value(STORED, "unrotated_sha256").await.expect("known, so that it is not announced again");
    assert_eq!(unrotated, sha256(&scene.value("credentials", "refresh_token").await.unwrap()));
    let version = async || scene.secrets().get(STORED).await.unwrap().metadata.resource_version;
    let before = version().await;
    operator.kill();
    let _operator = Operator::start(&scene.namespace).await;
    refreshed(&scene, "after a kill").await;
    assert_eq!(version().await, before);
    assert_no_failure(&scene).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_new_original_token_without_rotation_replaces_stored_one() {
    let scene = Scene::bare("rotation-seed").await;
    let answer = |members: Value| Reply::Json(200, members.to_string());
    let server = ScriptedServer::start([
        answer(json!({"access_token": "a1", "expires_in": 3600, "refresh_token": "r1"})),
        answer(json!({"access_token": "a2", "expires_in": 3600, "refresh_token": null})),
        answer(json!({"access_token": "a3", "expires_in": 3600})),
        answer(json!({"access_token": "a4", "expires_in": 3600})),
    ])
    .await;
    scene.secret("credentials", &[("refresh_token", "seed-1")]).await;
    let operator = Operator::start(&scene.namespace).await;
    scene.apply(scripted(&server)).await;
    let first = scene.new_token(None).await;
    scene.secret("credentials", &[("refresh_token", "seed-2")]).await;
    scene.new_token(Some(&first)).await;
    refreshed(&scene, "once more").await;
    operator.kill();
    let _operator = Operator::start(&scene.namespace).await;
    refreshed(&scene, "after a kill").await;
    let sent: Vec<_> = (0..4).map(|nth| sent(&server, nth)).collect();
    assert_eq!(sent, ["seed-1", "seed-2", "seed-2", "seed-2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_refresh_token_of_unusable_response_is_saved_at_once() {
    let scene = Scene::bare("rotation-useless").await;
    let server = ScriptedServer::start([
        Reply::Json(200, json!({"access_token": "", "refresh_token": "r1"}).to_string()),
        Reply::Json(
            200,
            json!({"access_token": "a2", "expires_in": 3600, "refresh_token": "r2"}).to_string(),
        ),
    ])
    .await;
    scene.secret("credentials", &[("refresh_token", "seed")]).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scripted(&server)).await;
    scene.ready("False ResponseMalformed").await;
    assert_eq!(stored(&scene).await.as_deref(), Some("r1"), "before the next attempt is due");
    assert_eq!(server.requests().len(), 1);

    request_refresh(&scene, "now").await;
    scene.ready("True TokenValid").await;
    assert_eq!(sent(&server, 1), "r1");
    assert_eq!(stored(&scene).await.as_deref(), Some("r2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rotation_unknown_outcome_is_retried_once_with_same_token() {
    let scene = Scene::bare("rotation-unknown").await;
    let server = ScriptedServer::start([
        Reply::Close,
        Reply::Json(
            200,
            json!({"access_token": "a1", "expires_in": 3600, "refresh_token": "r1"}).to_string(),
        ),
    ])
    .await;
    scene.secret("credentials", &[("refresh_token", "seed")]).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scripted(&server)).await;
    scene.ready("True TokenValid").await;
    assert_eq!([sent(&server, 0), sent(&server, 1)], ["seed", "seed"]);
    assert_eq!(stored(&scene).await.as_deref(), Some("r1"));
}
