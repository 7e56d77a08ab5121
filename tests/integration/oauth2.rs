//! What `provider.oauth2` can say of a request and its answer, end to end.

use serde_json::{Value, json};

use super::support::authorization_server::ClientSpec;
use super::support::operator::Operator;
use super::support::scene::Scene;
use super::support::scripted_server::{Reply, ScriptedServer};

/// A TokenSource `source` of provider oauth2.
pub fn source(scene: &Scene, oauth2: Value) -> Value {
    let mut source = scene.source(json!({}));
    source["spec"]["provider"] = json!({"oauth2": oauth2});
    source
}

#[tokio::test(flavor = "multi_thread")]
async fn custom_grant_headers_and_response_mapping_work() {
    let scene = Scene::bare("oauth2-own").await;
    let answer = json!({"data": {"token": "vendors-token", "ends": "2999-01-01T00:00:00Z"}});
    let server = ScriptedServer::start([Reply::Json(200, answer.to_string())]).await;
    let values = [("client_id", "id"), ("client_secret", "s3"), ("api_key", "k&y\n"), ("key", "h3ader")];
    scene.secret("credentials", &values).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene
        .apply(source(
            &scene,
            json!({
                "tokenURL": server.url("/token"),
                "grant": {"custom": {"grantType": "account_credentials"}},
                "parameters": {"account_id": "1"},
                "secretParameters": {"apikey": "api_key"},
                "headers": {"X-Tenant": "acme"},
                "secretHeaders": {"X-Api-Key": "key"},
                "audience": "https://api.example.com",
                "resources": ["https://a.example.com", "https://b.example.com"],
                "response": {"accessToken": "/data/token", "expiresAt": "/data/ends"},
            }),
        ))
        .await;
    let said = scene.ready("True TokenValid").await;
    assert!(said.contains("key api_key of Secret credentials ends in a newline"), "{said}");
    assert_eq!(scene.token().await.as_deref(), Some("vendors-token"));
    let request = server.requests().remove(0);
    assert_eq!(
        String::from_utf8_lossy(&request.body),
        "grant_type=account_credentials&audience=https%3A%2F%2Fapi.example.com&resource=https%3A%2F%2Fa.example.com\
         &resource=https%3A%2F%2Fb.example.com&account_id=1&apikey=k%26y"
    );
    assert_eq!((request.header("x-tenant"), request.header("x-api-key")), (Some("acme"), Some("h3ader")));
    // A changed value of a secret header is acted on at once.
    let values = [("client_id", "id"), ("client_secret", "s3"), ("api_key", "k&y"), ("key", "another")];
    scene.secret("credentials", &values).await;
    super::support::eventually("another request", super::support::scene::SOON, async || {
        let requests = server.requests();
        match requests.get(1).and_then(|request| request.header("x-api-key")) {
            Some("another") => Ok(()),
            _ => Err(requests.len()),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_secret_parameter_is_named() {
    let scene = Scene::new("oauth2-key", 300).await;
    let _operator = Operator::start(&scene.namespace).await;
    let oauth2 = json!({"tokenURL": scene.server.vgs_token_url(), "secretParameters": {"apikey": "api_key"}});
    scene.apply(source(&scene, oauth2)).await;
    let said = scene.ready("False CredentialsNotFound").await;
    assert!(
        said.contains("no key api_key") && said.contains("spec.provider.oauth2.secretParameters"),
        "{said}"
    );
    assert_eq!(scene.mints().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn resource_indicators_are_sent() {
    let scene = Scene::bare("oauth2-resource").await;
    let allowed = "https://api.example.com";
    let client = ClientSpec {
        id: scene.namespace.clone(),
        secret: Some("right".into()),
        access_token_format: "jwt",
        resources: Some(vec![allowed.into()]),
        ..ClientSpec::default()
    };
    scene.server.client(client).await;
    scene.credentials("right").await;
    let _operator = Operator::start(&scene.namespace).await;
    let asking = |resource: &str| {
        source(&scene, json!({"tokenURL": scene.server.vgs_token_url(), "resources": [resource]}))
    };
    scene.apply(asking("https://another.example.com")).await;
    let said = scene.ready("False RequestRejected").await;
    assert!(said.contains("invalid_target"), "{said}");
    scene.apply(asking(allowed)).await;
    let token = scene.new_token(None).await;
    assert!(scene.server.is_valid(&token).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn issuer_token_endpoint_is_discovered() {
    let scene = Scene::bare("oauth2-issuer").await;
    let client =
        ClientSpec { id: scene.namespace.clone(), secret: Some("right".into()), ..ClientSpec::default() };
    scene.server.client(client).await;
    scene.credentials("right").await;
    let _operator = Operator::start(&scene.namespace).await;
    let issuer = scene.server.issuer();
    scene.apply(source(&scene, json!({"issuer": format!("{issuer}/")}))).await;
    let said = scene.ready("False ResponseMalformed").await;
    assert!(said.contains("metadata of another issuer") && said.contains(&issuer), "{said}");
    assert_eq!(scene.mints().await, 0);

    scene.apply(source(&scene, json!({"issuer": issuer}))).await;
    let token = scene.new_token(None).await;
    assert!(scene.server.is_valid(&token).await);
    scene.force_refresh("again").await;
    let last = scene.server.requests(&scene.namespace).await.last.unwrap();
    assert_eq!(last.path, "/auth/realms/vgs/protocol/openid-connect/token");
}

#[tokio::test(flavor = "multi_thread")]
async fn issuer_metadata_is_fetched_once_and_its_endpoint_is_subject_to_egress_policy() {
    let scene = Scene::bare("oauth2-metadata").await;
    scene.secret("credentials", &[("client_id", "id"), ("client_secret", "s3")]).await;
    let answer = |token| Reply::Json(200, json!({"access_token": token, "expires_in": 300}).to_string());
    let tokens = ScriptedServer::start([answer("one"), answer("two")]).await;
    let site = ScriptedServer::start([Reply::Close]).await;
    let metadata = json!({"issuer": site.url(""), "token_endpoint": "http://169.254.169.254/token"});
    site.now(Reply::Json(200, metadata.to_string()));
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(source(&scene, json!({"issuer": site.url("")}))).await;
    scene.reports("False EndpointRefusedByPolicy", &["169.254.169.254"]).await;

    // Another issuer, as far as anybody knows: what was found of the first is kept for an hour.
    let site = ScriptedServer::start([Reply::Close]).await;
    let metadata = json!({"issuer": site.url(""), "token_endpoint": tokens.url("/token")});
    site.now(Reply::Json(200, metadata.to_string()));
    scene.apply(source(&scene, json!({"issuer": site.url("")}))).await;
    scene.ready("True TokenValid").await;
    scene.force_refresh("again").await;
    assert_eq!((site.requests().len(), tokens.requests().len()), (1, 2));
}
