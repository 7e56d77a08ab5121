//! Rotating refresh tokens: the newest one is the only valid copy of a credential, and the authorization server revokes the
//! whole grant when a spent one is presented. So as long as refreshes succeed, no spent token was sent.

mod saving;
mod sharing;

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::support::authorization_server::ClientSpec;
use crate::support::eventually;
use crate::support::operator::Operator;
use crate::support::scene::{COLLECTED, SOON, Scene};
use crate::support::scripted_server::{Reply, ScriptedServer};

const STORED: &str = "source-refresh-token";

/// A namespace with a VMware Cloud Director API token in Secret `credentials`: of a service account (`rotates`), or a user.
pub async fn director(prefix: &str, ttl: u32, rotates: bool) -> Scene {
    let scene = Scene::bare(prefix).await;
    scene
        .server
        .client(ClientSpec {
            access_token_ttl: ttl,
            tenant: Some("my org".into()),
            rotate_refresh_token: rotates,
            ..ClientSpec::public(&scene.namespace, "refresh_token")
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
    let metadata = scene.secrets().get(STORED).await.unwrap().metadata;
    assert_eq!(metadata.owner_references, None, "the stored refresh token survives its TokenSource");
    let labels = metadata.labels.unwrap();
    assert_eq!(labels["tokensource.dev/holds"], "refresh-token", "backups and removals select by it");
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
