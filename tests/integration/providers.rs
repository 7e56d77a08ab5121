//! Each provider against the authorization server, whose fronts refuse every byte that the vendor does not document.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PublicKeyData as _};
use serde_json::{Value, json};

use super::rotation::{director, director_source, refreshed};
use super::support::authority::Leaf;
use super::support::authorization_server::{AuthorizationServer, ClientSpec, LastRequest};
use super::support::operator::Operator;
use super::support::scene::Scene;
use super::tls;

/// Applies a TokenSource of this provider, waits for its token, and returns the token request.
async fn minted(scene: &Scene, provider: Value) -> LastRequest {
    let _operator = Operator::start(&scene.namespace).await;
    let mut source = scene.source(json!({}));
    source["spec"]["provider"] = provider;
    scene.apply(source).await;
    let token = scene.new_token(None).await;
    assert!(scene.server.is_valid(&token).await);
    scene.ready("True TokenValid").await;
    let requests = scene.server.requests(&scene.namespace).await;
    assert_eq!((requests.total, requests.succeeded), (1, 1), "{requests:?}");
    requests.last.unwrap()
}

const RSA: &str = include_str!("../../crates/token-endpoint/src/tests/keys/rsa.pem");

/// The public half of a key of 2048 bits as a JWK.
fn rsa_jwk() -> Value {
    // RSAPublicKey ::= SEQUENCE { modulus INTEGER, publicExponent INTEGER } (RFC 8017, A.1.1)
    let pair = KeyPair::from_pem(RSA).unwrap();
    let modulus = URL_SAFE_NO_PAD.encode(&pair.der_bytes()[9..265]);
    json!({"kty": "RSA", "n": modulus, "e": "AQAB", "kid": "app"})
}

#[tokio::test(flavor = "multi_thread")]
async fn github_app_token_is_requested_as_documented_and_refusals_are_not_repeated() {
    let leaf = Leaf::self_signed(|_| ());
    let scene = tls::scene("github", AuthorizationServer::start_self_signed(&leaf)).await;
    let client = ClientSpec {
        id: scene.namespace.clone(),
        jwks: Some(json!({"keys": [rsa_jwk()]})),
        tenant: Some("42".into()),
        resources: Some(vec!["website".into()]),
        access_token_ttl: 3600,
        ..basic_client("")
    };
    scene.server.client(client).await;
    scene.secret("credentials", &[("private_key.pem", RSA)]).await;
    scene.secret("github", &[("certificate", &leaf.pem)]).await;
    let _operator = Operator::start_with(&scene.namespace, &["--egress-allow", "127.0.0.0/8"]).await;
    let mut source = scene.source(json!({}));
    source["spec"]["provider"] = json!({"gitHubApp": {
        "installationID": 42,
        "host": scene.server.url().trim_start_matches("https://"),
        "repositories": ["website"],
        "permissions": {"contents": "read"},
    }});
    source["spec"]["credentials"]["clientID"] = json!(scene.namespace);
    source["spec"]["tls"] = json!({"caBundle": {"secretKeyRef": {"name": "github", "key": "certificate"}}});
    scene.apply(source.clone()).await;
    let token = scene.new_token(None).await;
    assert!(scene.server.is_valid(&token).await);
    assert!(!scene.ready("True TokenValid").await.contains("token_type"), "GitHub sends none");
    let last = scene.server.requests(&scene.namespace).await.last.unwrap();
    assert_eq!(last.parameters, ["permissions", "repositories"]);
    assert_eq!(last.authorization.as_deref(), Some("Bearer"));
    let status = scene.sources().get("source").await.unwrap().status.unwrap().token.unwrap();
    let lifetime = status.expires_at.duration_since(status.issued_at).as_secs();
    assert!((3570..=3630).contains(&lifetime), "{lifetime}");

    for (member, value, status) in
        [("installationID", json!(43), "HTTP 404"), ("repositories", json!(["secrets"]), "HTTP 422")]
    {
        let before = scene.server.requests(&scene.namespace).await.total;
        let mut wrong = source.clone();
        wrong["spec"]["provider"]["gitHubApp"][member] = value;
        scene.apply(wrong).await;
        scene.reports("False RequestRejected", &[status, "installed as installationID"]).await;
        scene.condition("source", "Stalled", "True RequestRejected").await;
        assert_eq!(scene.server.requests(&scene.namespace).await.total, before + 1, "{member}");
    }
}

/// A scene with this client, whose id is the namespace's name.
async fn with_client(prefix: &str, spec: ClientSpec) -> Scene {
    let scene = Scene::bare(prefix).await;
    let secret = spec.secret.clone();
    scene.server.client(ClientSpec { id: scene.namespace.clone(), ..spec }).await;
    if let Some(secret) = secret {
        scene.credentials(&secret).await;
    }
    scene
}

fn basic_client(scope: &str) -> ClientSpec {
    ClientSpec { secret: Some("right".into()), scope: scope.into(), ..ClientSpec::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn vng_cloud_token_is_requested_as_documented() {
    let secret = Some("4f1b7a9c-0d2e-4c55-9a43-1b1f7c1d2e3f".into());
    let client = ClientSpec { secret, access_token_ttl: 1800, ..basic_client("email") };
    let scene = with_client("vng", client).await;
    let request = minted(&scene, json!({"vngCloud": {"tokenURL": scene.server.vng_token_url()}})).await;
    assert_eq!(request.content_type.as_deref(), Some("application/json"));
    assert_eq!(request.authorization.as_deref(), Some("Basic"));
    assert_eq!(request.scope.as_deref(), Some("email"));

    let status = scene.sources().get("source").await.unwrap().status.unwrap();
    assert_eq!(status.provider.as_deref(), Some("vngCloud"));
    let token = status.token.unwrap();
    assert_eq!(token.expires_at.duration_since(token.issued_at).as_secs(), 1800);
    let after = token.refresh_at.duration_since(token.issued_at).as_secs();
    assert!((1080..=1200).contains(&after), "refreshed after {after} s");
    scene.condition("source", "PropagationSafe", "True LifetimeSufficient").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vng_cloud_wrong_secret_and_lockout_show_vendor_codes() {
    let client = ClientSpec { lock_after_failures: Some(1), ..basic_client("email") };
    let scene = with_client("vng-wrong", client).await;
    scene.credentials("wrong").await;
    let _operator = Operator::start(&scene.namespace).await;
    let mut source = scene.source(json!({}));
    source["spec"]["provider"] = json!({"vngCloud": {"tokenURL": scene.server.vng_token_url()}});
    scene.apply(source).await;
    let message = scene.ready("False ClientRejected").await;
    assert!(message.contains("AUTHENTICATION_FAILED"), "{message}");
    // Changed values are tried at once, which locks the account.
    scene.credentials("wrong again").await;
    let message = scene.ready("False RateLimited").await;
    assert!(message.contains("TOO_MANY_FAILED_LOGINS") && message.contains("locked out"), "{message}");
    assert_eq!(scene.mints().await, 2);
    let last = scene.sources().get("source").await.unwrap().status.unwrap().last_failure.unwrap();
    let waits = last.next_attempt_at.unwrap().duration_since(last.at).as_secs();
    assert!(waits >= 1800, "{waits}");
}

#[tokio::test(flavor = "multi_thread")]
async fn vmware_cloud_director_user_api_token_is_not_rotated() {
    let scene = director("vcd", 2_592_000, false).await;
    let original = scene.value("credentials", "refresh_token").await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(director_source(&scene, "source")).await;
    let token = scene.new_token(None).await;
    assert!(scene.server.is_valid(&token).await);
    scene.ready("True TokenValid").await;
    refreshed(&scene, "once more").await;

    let requests = scene.server.requests(&scene.namespace).await;
    assert_eq!((requests.total, requests.succeeded), (2, 2), "{requests:?}");
    let last = requests.last.unwrap();
    assert_eq!(last.parameters, ["grant_type", "refresh_token"]);
    assert_eq!((last.authorization, last.accept.as_deref()), (None, Some("application/json")));
    assert_eq!(scene.value("source-refresh-token", "refresh_token").await, None, "it does not rotate");
    assert_eq!(scene.value("credentials", "refresh_token").await, original);

    let status = scene.sources().get("source").await.unwrap().status.unwrap().token.unwrap();
    assert_eq!(
        status.expires_at.duration_since(status.issued_at).as_secs(),
        2_592_000,
        "what the answer says"
    );
    let after = status.refresh_at.duration_since(status.issued_at).as_secs();
    assert!((810..=900).contains(&after), "sessions end when idle, so earlier than after {after} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn vmware_cloud_director_other_tenant_is_rejected() {
    let scene = director("vcd-tenant", 2_592_000, false).await;
    let _operator = Operator::start(&scene.namespace).await;
    let mut source = director_source(&scene, "source");
    source["spec"]["provider"]["vmwareCloudDirector"]["tokenURL"] =
        json!(scene.server.vcd_token_url("other"));
    scene.apply(source).await;
    let message = scene.ready("False GrantRejected").await;
    assert!(message.contains("invalid_grant"), "{message}");
    scene.condition("source", "Stalled", "True GrantRejected").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oauth2_basic_credentials_with_reserved_characters_are_encoded() {
    let scene = Scene::bare("oauth2-basic").await;
    let id = format!("{}: a+b/c=%41~", scene.namespace);
    let secret = "s p:a+c%25/e=&~\"'";
    scene
        .server
        .client(ClientSpec { id: id.clone(), secret: Some(secret.into()), ..ClientSpec::default() })
        .await;
    scene.secret("credentials", &[("client_id", &id), ("client_secret", secret)]).await;
    let _operator = Operator::start(&scene.namespace).await;
    let mut source = scene.source(json!({}));
    source["spec"]["provider"] = json!({"oauth2": {"tokenURL": scene.server.vgs_token_url()}});
    scene.apply(source).await;
    scene.ready("True TokenValid").await;
    let last = scene.server.requests(&id).await.last.unwrap();
    assert_eq!((last.status, last.authorization.as_deref()), (Some(200), Some("Basic")));
    assert_eq!(last.parameters, ["grant_type"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn oauth2_post_sends_scopes_and_parameters() {
    let client =
        ClientSpec { token_endpoint_auth_method: "client_secret_post", ..basic_client("read write admin") };
    let scene = with_client("oauth2-post", client).await;
    let oauth2 = json!({
        "tokenURL": scene.server.vgs_token_url(),
        "clientAuthentication": {"post": {}},
        "scopes": ["read", "write"],
        "parameters": {"organization": "acme & co"},
    });
    let request = minted(&scene, json!({"oauth2": oauth2})).await;
    assert_eq!(request.authorization, None);
    assert_eq!(request.scope.as_deref(), Some("read write"));
    assert_eq!(request.parameters, ["grant_type", "client_id", "client_secret", "scope", "organization"]);
    let token = scene.token().await.unwrap();
    assert_eq!(scene.server.introspect(&token).await.scope.as_deref(), Some("read write"));
    let status = scene.sources().get("source").await.unwrap().status.unwrap();
    assert_eq!(status.token.unwrap().scope.as_deref(), Some("read write"), "{:?}", status.conditions);
}

#[tokio::test(flavor = "multi_thread")]
async fn oauth2_public_client_with_id_in_spec_gets_token() {
    let scene = Scene::bare("oauth2-none").await;
    scene.server.client(ClientSpec::public(&scene.namespace, "refresh_token")).await;
    let original = scene.server.seed_refresh_token(&scene.namespace).await;
    scene.secret("credentials", &[("seed", &original)]).await;
    let _operator = Operator::start(&scene.namespace).await;
    let mut source = scene.source(json!({}));
    source["spec"]["provider"] = json!({"oauth2": {
        "tokenURL": scene.server.vgs_token_url(),
        "grant": {"refreshToken": {}},
        "clientAuthentication": {"none": {}},
    }});
    source["spec"]["credentials"] =
        json!({"clientID": scene.namespace, "refreshTokenKey": "seed", "secretRef": {"name": "credentials"}});
    scene.apply(source).await;
    scene.ready("True TokenValid").await;
    let last = scene.server.requests(&scene.namespace).await.last.unwrap();
    assert_eq!(last.parameters, ["grant_type", "refresh_token", "client_id"]);
    assert_eq!(last.authorization, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn oauth2_json_body_and_raw_basic_are_accepted_by_vng_cloud() {
    let scene = with_client("oauth2-json", basic_client("email")).await;
    let oauth2 = json!({
        "tokenURL": scene.server.vng_token_url(),
        "clientAuthentication": {"basic": {"encoding": "Raw"}},
        "requestEncoding": "JSON",
        "scopes": ["email"],
    });
    let request = minted(&scene, json!({"oauth2": oauth2})).await;
    assert_eq!(request.content_type.as_deref(), Some("application/json"));
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_scope_is_reported_and_recovers() {
    let scene = with_client("oauth2-scope", basic_client("read")).await;
    let _operator = Operator::start(&scene.namespace).await;
    let source = |scopes: Value| {
        let mut source = scene.source(json!({}));
        source["spec"]["provider"] =
            json!({"oauth2": {"tokenURL": scene.server.vgs_token_url(), "scopes": scopes}});
        source
    };
    scene.apply(source(json!(["write"]))).await;
    let message = scene.ready("False ScopeRejected").await;
    assert!(message.contains("invalid_scope"), "{message}");
    scene.apply(source(json!(["read"]))).await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 2);
}
