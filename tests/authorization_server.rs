//! The servers that other tests rely on work as documented.
#![cfg(test)] // so that clippy lets helpers panic, too

mod support;

use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::RequestBuilder;
use serde_json::{Value, json};
use support::authorization_server::{AuthorizationServer, Behaviour, ClientSpec, http_client};
use support::scripted_server::{Reply, ScriptedServer};

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const VNG_BODY: &str = r#"{"grant_type":"client_credentials","scope":"email"}"#;

fn post(url: String, content_type: &str, body: impl Into<String>) -> RequestBuilder {
    http_client().post(url).header("accept", JSON).header("content-type", content_type).body(body.into())
}

fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{id}:{secret}")))
}

async fn ask(request: RequestBuilder) -> (u16, Value) {
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    (status, serde_json::from_str(&response.text().await.unwrap()).expect("JSON"))
}

async fn vgs(server: &AuthorizationServer, id: &str, secret: &str) -> (u16, Value) {
    let body = format!("grant_type=client_credentials&client_id={id}&client_secret={secret}");
    ask(post(server.vgs_token_url(), FORM, body)).await
}

async fn vcd(server: &AuthorizationServer, tenant: &str, token: &str) -> (u16, Value) {
    let body = format!("grant_type=refresh_token&refresh_token={token}");
    ask(post(server.vcd_token_url(tenant), FORM, body)).await
}

fn text<'a>(answer: &'a Value, member: &str) -> &'a str {
    answer[member].as_str().unwrap_or_else(|| panic!("no {member} in {answer}"))
}

#[tokio::test]
async fn vgs_front_documented_request_returns_token_with_clients_lifetime_and_scopes() {
    let server = AuthorizationServer::shared();
    server
        .client(ClientSpec {
            id: "vgs".to_owned(),
            token_endpoint_auth_method: "client_secret_post",
            scope: "cards:write user_id".to_owned(),
            ..ClientSpec::default()
        })
        .await;

    let (status, answer) = vgs(server, "vgs", "secret").await;
    assert_eq!((status, &answer["expires_in"]), (200, &json!(300)), "{answer}");
    assert_eq!(answer["scope"], "cards:write user_id");
    assert_eq!(answer["refresh_expires_in"], 0);
    let introspection = server.introspect(text(&answer, "access_token")).await;
    assert!(introspection.active);
    assert_eq!(introspection.client_id.as_deref(), Some("vgs"));

    server.change("vgs", json!({ "access_token_format": "jwt" })).await;
    let (_, answer) = vgs(server, "vgs", "secret").await;
    let token = text(&answer, "access_token");
    assert!(token.starts_with("eyJ"), "{token}");
    assert!(server.is_valid(token).await);
    let resource = http_client().get(server.resource_url()).bearer_auth(token);
    assert_eq!(resource.send().await.unwrap().status(), 200);

    // Another one: on a busy machine it expires before any call.
    server.set_ttl("vgs", 3).await;
    let (_, answer) = vgs(server, "vgs", "secret").await;
    let token = text(&answer, "access_token");
    assert_eq!(answer["expires_in"], 3);
    let expired = Instant::now() + Duration::from_secs(30);
    while server.is_valid(token).await {
        assert!(Instant::now() < expired, "a token of 3 s is still valid");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let response = http_client().get(server.resource_url()).bearer_auth(token).send().await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(response.headers()["www-authenticate"], r#"Bearer error="invalid_token""#);
}

#[tokio::test]
async fn vgs_front_unregistered_scope_is_refused() {
    let server = AuthorizationServer::shared();
    let client = ClientSpec { id: "scopes".to_owned(), scope: "a b".to_owned(), ..ClientSpec::default() };
    server.client(client).await;
    let with_scope = |scope: &str| {
        post(server.vgs_token_url(), FORM, format!("grant_type=client_credentials&scope={scope}"))
            .header("authorization", basic("scopes", "secret"))
    };
    let (status, answer) = ask(with_scope("b")).await;
    assert_eq!((status, &answer["scope"]), (200, &json!("b")));
    let (status, answer) = ask(with_scope("b+c")).await;
    assert_eq!((status, &answer["error"]), (400, &json!("invalid_scope")));
}

#[tokio::test]
async fn request_counts_are_exact_for_every_outcome() {
    let server = AuthorizationServer::shared();
    let id = "counted";
    assert_eq!(server.requests(id).await.total, 0);
    // Requests of an unregistered client count, too.
    assert_eq!(vgs(server, id, "secret").await.0, 401);
    server.client(ClientSpec { id: id.to_owned(), ..ClientSpec::default() }).await;
    let answers = futures::future::join_all((0..20).map(|_| vgs(server, id, "secret"))).await;
    assert!(answers.iter().all(|(status, _)| *status == 200));

    server.set_secret(id, "another").await;
    assert_eq!(vgs(server, id, "secret").await.0, 401);
    assert_eq!(vgs(server, id, "another").await.0, 200);

    let headers = serde_json::Map::from_iter([("retry-after".to_owned(), json!("7"))]);
    let outage = Behaviour { status: Some(503), headers, times: Some(1), ..Behaviour::default() };
    server.behave(id, Some(outage)).await;
    let request = post(server.vgs_token_url(), FORM, "grant_type=client_credentials")
        .header("authorization", basic(id, "another"));
    let response = request.try_clone().unwrap().send().await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["retry-after"]),
        (503, &"7".parse().unwrap())
    );
    assert_eq!(ask(request).await.0, 200);

    server.behave(id, Some(Behaviour { delay_ms: 60_000, ..Behaviour::default() })).await;
    let impatient =
        post(server.vgs_token_url(), FORM, format!("client_id={id}")).timeout(Duration::from_millis(300));
    assert!(impatient.send().await.unwrap_err().is_timeout());
    server.behave(id, None).await;

    // The server notices shortly after the client that the client has disconnected.
    let deadline = Instant::now() + Duration::from_secs(10);
    let counted = loop {
        let counted = server.requests(id).await;
        if counted.succeeded + counted.failed == counted.total || Instant::now() > deadline {
            break counted;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!((counted.total, counted.succeeded, counted.failed), (26, 22, 4));
    let last = counted.last.unwrap();
    assert_eq!((last.status, last.path.as_str()), (None, "/auth/realms/vgs/protocol/openid-connect/token"));
}

#[tokio::test]
async fn vng_front_accepts_documented_bytes_only() {
    let server = AuthorizationServer::shared();
    let (id, secret) = ("vng", "raw:+ %");
    server
        .client(ClientSpec {
            id: id.to_owned(),
            secret: Some(secret.to_owned()),
            scope: "email".to_owned(),
            access_token_ttl: 1800,
            lock_after_failures: Some(2),
            ..ClientSpec::default()
        })
        .await;
    let request = |content_type: &str, body: &str, secret: &str| {
        post(server.vng_token_url(), content_type, body).header("authorization", basic(id, secret))
    };

    let (status, answer) = ask(request(JSON, VNG_BODY, secret)).await;
    assert_eq!(status, 200, "{answer}");
    let token = text(&answer, "access_token");
    let documented =
        json!({ "token_type": "Bearer", "access_token": token, "expires_in": 1800, "refresh_expires_in": 0 });
    assert_eq!(answer, documented);
    assert!(server.is_valid(token).await);

    for (content_type, body, named) in [
        (FORM, VNG_BODY, "Content-Type"),
        ("application/json; charset=utf-8", VNG_BODY, "Content-Type"),
        (JSON, r#"{"grant_type":"client_credentials"}"#, "body"),
        (JSON, r#"{"grant_type":"client_credentials","scope":"email","client_id":"vng"}"#, "body"),
    ] {
        let (status, answer) = ask(request(content_type, body, secret)).await;
        assert_eq!((status, &answer["error"]), (400, &json!("undocumented_request")));
        assert!(text(&answer, "error_description").starts_with(named), "{answer}");
    }
    assert_eq!(ask(post(server.vng_token_url(), JSON, VNG_BODY)).await.0, 400);

    for code in ["AUTHENTICATION_FAILED", "AUTHENTICATION_FAILED", "TOO_MANY_FAILED_LOGINS"] {
        let (status, answer) = ask(request(JSON, VNG_BODY, "wrong")).await;
        assert_eq!((status, &answer["errors"][0]["code"]), (401, &json!(code)));
    }
    let locked = ask(request(JSON, VNG_BODY, secret)).await.1;
    assert_eq!(locked["errors"][0]["code"], "TOO_MANY_FAILED_LOGINS");
    let counted = server.requests(id).await;
    assert_eq!((counted.total, counted.succeeded), (9, 1));
}

#[tokio::test]
async fn vcd_front_user_token_is_reusable_and_service_account_token_single_use() {
    let server = AuthorizationServer::shared();
    let client = |id: &str, rotate_refresh_token| ClientSpec {
        access_token_ttl: 2_592_000,
        tenant: Some("my org".to_owned()),
        rotate_refresh_token,
        ..ClientSpec::public(id, "refresh_token")
    };
    server.client(client("user", false)).await;
    let token = server.seed_refresh_token("user").await;
    for _ in 0..2 {
        let (status, answer) = vcd(server, "my org", &token).await;
        assert_eq!((status, &answer["refresh_token"]), (200, &Value::Null), "{answer}");
        assert_eq!((&answer["token_type"], &answer["expires_in"]), (&json!("Bearer"), &json!(2_592_000)));
    }
    let (status, answer) = vcd(server, "other", &token).await;
    assert_eq!((status, &answer["minorErrorCode"]), (400, &json!("invalid_grant")));
    let stray = format!("grant_type=refresh_token&refresh_token={token}&client_id=user");
    let (status, answer) = ask(post(server.vcd_token_url("my org"), FORM, stray)).await;
    assert_eq!((status, &answer["error"]), (400, &json!("undocumented_request")));
    let documented = format!("grant_type=refresh_token&refresh_token={token}");
    let authenticated =
        post(server.vcd_token_url("my org"), FORM, documented).header("authorization", basic("u", "s"));
    assert_eq!(ask(authenticated).await.0, 400);
    let counted = server.requests("user").await;
    assert_eq!((counted.total, counted.succeeded), (5, 2));

    server.client(client("service", true)).await;
    let first = server.seed_refresh_token("service").await;
    let (_, answer) = vcd(server, "my org", &first).await;
    let second = text(&answer, "refresh_token").to_owned();
    let (_, answer) = vcd(server, "my org", &second).await;
    let third = text(&answer, "refresh_token").to_owned();
    let access = text(&answer, "access_token").to_owned();
    assert!(server.is_valid(&access).await);
    // Reuse of a spent token revokes the whole grant.
    for dead in [&first, &third] {
        let (status, answer) = vcd(server, "my org", dead).await;
        assert_eq!((status, &answer["minorErrorCode"]), (400, &json!("invalid_grant")));
        assert_eq!(answer.get("error"), None);
    }
    assert!(!server.is_valid(&access).await);
    assert_eq!(server.requests("service").await.total, 4);
}

#[tokio::test]
async fn authorization_server_ends_when_its_stdin_closes() {
    let server = AuthorizationServer::start();
    let url = server.url().to_owned();
    // Dropping waits for the end of the process.
    drop(server);
    assert!(http_client().get(url).send().await.unwrap_err().is_connect());
}

#[tokio::test]
async fn scripted_server_follows_its_script() {
    let body = r#"{"access_token":"a"}"#;
    let server = ScriptedServer::start([
        Reply::Json(200, body.to_owned()),
        Reply::Drip(body.to_owned(), Duration::from_millis(1)),
        Reply::Redirect("http://127.0.0.1:1/".to_owned()),
        Reply::Oversize { bytes: 3 << 20, chunked: false },
        Reply::Oversize { bytes: 3 << 20, chunked: true },
        Reply::LyingLength { claimed: 5, body: body.to_owned() },
        Reply::Echo,
        Reply::LyingLength { claimed: 500, body: body.to_owned() },
        Reply::HangAfterHeaders,
        Reply::HangBeforeHeaders,
        Reply::Reset,
        Reply::Close,
        Reply::Garbage,
    ])
    .await;
    let send_within = |limit| post(server.url("/token?x=1"), FORM, "a=b").timeout(limit).send();
    let send = || send_within(Duration::from_secs(30));
    let impatiently = || send_within(Duration::from_millis(500));
    let whole = async || {
        let response = send().await.expect("headers");
        (response.status().as_u16(), response.bytes().await.expect("a body"))
    };

    assert_eq!(whole().await, (200, body.into()));
    assert_eq!(whole().await, (200, body.into()));
    assert_eq!(whole().await.0, 307);
    assert_eq!(whole().await.1.len(), 3 << 20);
    assert_eq!(whole().await.1.len(), 3 << 20);
    assert_eq!(whole().await.1, body[..5]);
    let (status, echo) = whole().await;
    assert_eq!(status, 400);
    assert!(echo.starts_with(b"POST /token?x=1 HTTP/1.1\r\n") && echo.ends_with(b"\r\n\r\na=b"));

    assert!(!send().await.unwrap().bytes().await.unwrap_err().is_timeout(), "cut short");
    assert!(impatiently().await.unwrap().bytes().await.unwrap_err().is_timeout(), "hangs after the headers");
    assert!(impatiently().await.unwrap_err().is_timeout(), "hangs before the headers");
    let reset = format!("{:?}", send().await.unwrap_err());
    assert!(reset.contains("ConnectionReset"), "{reset}");
    for _ in 0..3 {
        let error = send().await.unwrap_err();
        assert!(error.is_request() && !error.is_timeout(), "{error:?}");
    }

    assert_eq!((server.connections(), server.requests().len()), (14, 14));
    let last = &server.requests()[13];
    assert_eq!((last.header("Content-Type"), last.body.as_slice()), (Some(FORM), b"a=b".as_slice()));
}
