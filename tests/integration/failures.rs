//! Every failure is reported in a condition that names the object, the key and the remedy, costs no needless token request,
//! and ends by itself once the cause is corrected.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::support::authorization_server::{Behaviour, ClientSpec};
use super::support::eventually;
use super::support::operator::Operator;
use super::support::scene::{SOON, Scene};
use super::support::scripted_server::{Reply, ScriptedServer};

/// A response of this status instead of the provider's.
fn answers(status: u16, headers: Value, times: Option<u32>) -> Option<Behaviour> {
    let Value::Object(headers) = headers else { panic!("headers are an object") };
    let body = Some(json!({"error_description": "out of order"}));
    Some(Behaviour { status: Some(status), body, headers, times, ..Behaviour::default() })
}

/// `said` has all of `parts` in it.
#[track_caller]
fn says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{part:?} is missing in: {said}");
    }
}

pub(super) fn token_url(url: &str) -> Value {
    json!({"provider": {"vgs": {"tokenURL": url}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn client_secret_wrong_keeps_token_and_right_one_is_used_at_once() {
    let scene = Scene::new("wrong", 600).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    let token = scene.token().await.unwrap();
    let written = scene.secrets().get("token").await.unwrap();

    scene.server.set_secret(&scene.namespace, "new").await;
    scene.credentials("wrong").await;
    let said = scene.ready("True RefreshFailing").await;
    says(&said, &["invalid_client", "is valid until"]);
    assert_eq!(scene.secrets().get("token").await.unwrap(), written, "not modified");
    assert!(scene.server.is_valid(&token).await);
    let failed = scene.status().await.last_failure.unwrap();
    assert_eq!((failed.reason.as_str(), failed.count), ("ClientRejected", 1));

    // Fast attempts with a wrong secret lock accounts: neither a label nor a rewrite causes one.
    scene.kubectl(&["label", "secret", "credentials", "a=b"], "").await;
    eventually("the label is known to change no value", SOON, async || {
        let last = scene.status().await.last_failure.unwrap();
        if last.inputs == failed.inputs { Err(last) } else { Ok(()) }
    })
    .await;
    scene.source_is_seen().await;
    assert_eq!(scene.mints().await, 2);
    let still = scene.status().await.last_failure.unwrap();
    assert_eq!((still.count, still.next_attempt_at), (1, failed.next_attempt_at));

    // Another wrong secret is tried at once, and counts from one.
    scene.credentials("wrong too").await;
    let again = eventually("the other secret is tried", SOON, async || {
        let last = scene.status().await.last_failure.unwrap();
        if last.at == failed.at { Err(last) } else { Ok(last) }
    })
    .await;
    assert_eq!(again.count, 1);
    assert_eq!(scene.mints().await, 3);

    scene.credentials("new").await;
    scene.new_token(Some(&token)).await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 4);
    let failed = scene.status().await.last_failure.unwrap();
    assert_eq!((failed.reason.as_str(), failed.count, failed.next_attempt_at), ("ClientRejected", 0, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_restored_to_former_values_cost_no_token_request() {
    let scene = Scene::new("put-back", 600).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    let token = scene.token().await;

    scene.credentials("wrong").await;
    scene.ready("True RefreshFailing").await;
    scene.credentials("right").await;
    scene.ready("True TokenValid").await;
    scene.credentials("").await;
    scene.ready("True RefreshFailing").await;
    scene.credentials("right").await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 2);
    assert_eq!(scene.token().await, token);
}

#[tokio::test(flavor = "multi_thread")]
async fn first_token_with_wrong_secret_is_stalled_until_secret_changes() {
    let scene = Scene::new("first-wrong", 600).await;
    scene.credentials("wrong").await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    says(&scene.ready("False ClientRejected").await, &["invalid_client"]);
    scene.condition("source", "Stalled", "True ClientRejected").await;
    assert!(scene.token().await.is_none());

    scene.kubectl(&["annotate", "secret", "credentials", "a=b"], "").await;
    scene.kubectl(&["label", "tokensource", "source", "a=b"], "").await;
    scene.source_is_seen().await;
    assert_eq!(scene.mints().await, 1);

    scene.credentials("right").await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 2);
    let conditions = scene.status().await.conditions;
    assert!(conditions.iter().all(|it| it.type_ != "Stalled" && it.type_ != "Reconciling"), "{conditions:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn outage_is_retried_until_it_ends() {
    let scene = Scene::new("outage", 600).await;
    scene.server.behave(&scene.namespace, answers(503, json!({}), Some(1))).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    let said = scene.ready("False EndpointUnavailable").await;
    says(&said, &["HTTP 503"]);
    scene.condition("source", "Reconciling", "True EndpointUnavailable").await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 2);

    let token = scene.token().await;
    scene.server.behave(&scene.namespace, answers(503, json!({}), Some(2))).await;
    scene.kubectl(&["annotate", "tokensource", "source", "tokensource.dev/refresh-requested-at=1"], "").await;
    scene.ready("True RefreshFailing").await;
    assert_eq!(scene.token().await, token);
    scene.new_token(token.as_deref()).await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_after_is_honoured_across_changed_spec_and_restart() {
    let scene = Scene::new("limited", 600).await;
    scene.server.behave(&scene.namespace, answers(429, json!({"retry-after": "600"}), None)).await;
    let operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("False RateLimited").await;
    let next = scene.status().await.last_failure.unwrap().next_attempt_at.unwrap();
    let wait = next.duration_since(Timestamp::now()).as_secs();
    assert!((560..=760).contains(&wait), "{wait} s");

    scene.patch("tokensource", "source", json!({"spec": {"refresh": {"maxInterval": "1h"}}})).await;
    scene.ready("False RateLimited").await;
    let oauth2 = json!({"tokenURL": scene.server.vgs_token_url(), "clientAuthentication": {"post": {}}});
    scene
        .patch("tokensource", "source", json!({"spec": {"provider": {"vgs": null, "oauth2": oauth2}}}))
        .await;
    scene.ready("False RateLimited").await;
    scene.kubectl(&["annotate", "tokensource", "source", "tokensource.dev/refresh-requested-at=1"], "").await;
    scene.source_is_seen().await;
    let inputs = async || scene.status().await.last_failure.unwrap().inputs;
    let before = inputs().await;
    scene.kubectl(&["label", "secret", "credentials", "a=b"], "").await;
    eventually("status has the version with the label", SOON, async || match inputs().await {
        now if now != before => Ok(()),
        same => Err(same),
    })
    .await;
    operator.kill();
    let _operator = Operator::start(&scene.namespace).await;
    scene.source_is_seen().await;
    assert_eq!(scene.mints().await, 1);
    assert_eq!(scene.status().await.last_failure.unwrap().next_attempt_at, Some(next));

    // Another client ends the wait.
    scene.server.behave(&scene.namespace, None).await;
    scene.server.set_secret(&scene.namespace, "another").await;
    scene.credentials("another").await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn html_response_is_reported_without_its_content() {
    let scene = Scene::new("web-page", 600).await;
    let page = b"<html><body>Welcome, secret-word!</body></html>".to_vec();
    let pages = ScriptedServer::start([Reply::Answer(
        200,
        vec![("content-type", "text/html; charset=utf-8".into())],
        page,
    )])
    .await;
    let operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(token_url(&pages.url("/login")))).await;
    let said = scene.ready("False ResponseMalformed").await;
    says(&said, &["HTTP 200", "text/html", "is tokenURL the token endpoint?"]);
    scene.condition("source", "Stalled", "True ResponseMalformed").await;
    scene.source_is_seen().await;
    assert_eq!(pages.connections(), 1);

    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    assert_eq!(pages.connections(), 1);
    assert!(!operator.log().contains("secret-word"));
    assert!(!scene.status_text("source").await.contains("secret-word"));
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_scope_has_its_own_reason() {
    let scene = Scene::new("scope", 600).await;
    scene.server.change(&scene.namespace, json!({"scope": "read"})).await;
    let _operator = Operator::start(&scene.namespace).await;
    let with_scope = |scope: &str| {
        let oauth2 = json!({
            "tokenURL": scene.server.vgs_token_url(),
            "clientAuthentication": {"post": {}},
            "scopes": [scope],
        });
        scene.source(json!({"provider": {"vgs": null, "oauth2": oauth2}}))
    };
    scene.apply(with_scope("write")).await;
    says(&scene.ready("False ScopeRejected").await, &["invalid_scope"]);
    scene.condition("source", "Stalled", "True ScopeRejected").await;
    scene.apply(with_scope("read")).await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn unresolvable_host_is_named_in_condition() {
    let scene = Scene::new("unknown-host", 600).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(token_url("https://idp.invalid/token"))).await;
    says(&scene.ready("False EndpointUnavailable").await, &["idp.invalid"]);
    scene.condition("source", "Reconciling", "True EndpointUnavailable").await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn private_address_is_refused_and_message_names_flag() {
    let scene = Scene::new("egress", 600).await;
    let operator = Operator::start_with(&scene.namespace, &["--allow-http"]).await;
    for (url, flag) in [
        ("http://169.254.169.254/latest/meta-data", "--egress-allow 169.254.169.254:80"),
        ("https://10.96.0.1/token", "--egress-allow 10.96.0.1:443"),
        ("https://[::ffff:192.168.1.1]:8443/token", "--egress-allow 192.168.1.1:8443"),
        (&scene.server.vgs_token_url(), "--egress-allow 127.0.0.1:"),
    ] {
        scene.apply(scene.source(token_url(url))).await;
        let said = scene.ready("False EndpointRefusedByPolicy").await;
        says(&said, &[flag, "Helm value"]);
        scene.condition("source", "Stalled", "True EndpointRefusedByPolicy").await;
    }
    assert_eq!(scene.mints().await, 0);

    // Corrected by the administrator of the operator.
    operator.stop().await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn token_url_without_tls_is_refused_and_message_names_flag() {
    let scene = Scene::new("plain-http", 600).await;
    let operator = Operator::start_with(&scene.namespace, &["--egress-allow", "127.0.0.0/8"]).await;
    scene.apply(scene.source(json!({}))).await;
    says(&scene.ready("False EndpointRefusedByPolicy").await, &["--allow-http", "https"]);
    assert_eq!(scene.mints().await, 0);
    operator.stop().await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.ready("True TokenValid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_or_unusable_credentials_name_secret_and_key_and_cost_no_token_request() {
    let scene = Scene::new("credentials", 600).await;
    scene.kubectl(&["delete", "secret", "credentials"], "").await;
    let operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    let said = scene.ready("False CredentialsNotFound").await;
    says(&said, &["Secret credentials", "does not exist", "client_id, client_secret"]);
    scene.condition("source", "Reconciling", "True CredentialsNotFound").await;
    scene.source_is_seen().await;
    assert_eq!(
        operator.said("token request blocked source="),
        1,
        "one log line when it begins, not for each reconciliation"
    );

    let id = scene.namespace.as_str();
    let put = async |data: &[(&str, &str)]| scene.secret("credentials", data).await;
    put(&[("client_id", id), ("secret", "right")]).await;
    scene
        .reports(
            "False CredentialsNotFound",
            &["has no key client_secret", "it has client_id, secret", "clientSecretKey"],
        )
        .await;
    put(&[("client_id", id), ("client_secret", "")]).await;
    scene.reports("False CredentialsInvalid", &["key client_secret of Secret credentials is empty"]).await;
    scene.condition("source", "Reconciling", "True CredentialsInvalid").await;
    put(&[("client_id", id), ("client_secret", "right\nright")]).await;
    scene
        .reports("False CredentialsInvalid", &["key client_secret of Secret credentials has several lines"])
        .await;
    assert_eq!(scene.mints().await, 0);

    // A trailing newline, as of `echo | base64`: works, and is reported.
    put(&[("client_id", id), ("client_secret", "right\n")]).await;
    scene.reports("True TokenValid", &["key client_secret of Secret credentials ends in a newline"]).await;
    assert_eq!(scene.mints().await, 1);

    // Missing while the token is valid: no failure until the refresh is due.
    let token = scene.token().await;
    scene.kubectl(&["delete", "secret", "credentials"], "").await;
    scene.secrets_are_seen().await;
    scene.ready("True TokenValid").await;
    scene.kubectl(&["annotate", "tokensource", "source", "tokensource.dev/refresh-requested-at=1"], "").await;
    scene.reports("True RefreshFailing", &["Secret credentials does not exist"]).await;
    assert_eq!(scene.token().await, token);
    put(&[("client_id", id), ("client_secret", "right")]).await;
    scene.new_token(token.as_deref()).await;
    assert_eq!(scene.mints().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn vgs_service_account_template_is_reported_and_applied_one_works() {
    const TEMPLATE: &str =
        "apiVersion: 1.0.0\nkind: ServiceAccount\ndata:\n  name: vgs-cli\n  scopes:\n  - cards:write\n";
    let scene = Scene::bare("service-account").await;
    let id = scene.namespace.clone();
    scene
        .server
        .client(ClientSpec {
            id: id.clone(),
            secret: Some("7b8e-secret".into()),
            token_endpoint_auth_method: "client_secret_post",
            ..ClientSpec::default()
        })
        .await;
    scene.secret("credentials", &[("credentials.yaml", TEMPLATE)]).await;
    let operator = Operator::start(&scene.namespace).await;
    let key = json!({"credentials": {"vgsServiceAccountKey": "credentials.yaml"}});
    scene.apply(scene.source(key)).await;
    let parts = ["key credentials.yaml of Secret credentials", "template", "vgs apply service-account"];
    scene.reports("False CredentialsInvalid", &parts).await;
    scene.secret("credentials", &[("credentials.yaml", "just: [text")]).await;
    scene.reports("False CredentialsInvalid", &["is not YAML (line 1)"]).await;
    assert_eq!(scene.mints().await, 0);

    let applied =
        TEMPLATE.replace("data:\n", &format!("data:\n  clientId: {id}\n  clientSecret: 7b8e-secret\n"));
    scene.secret("credentials", &[("credentials.yaml", &applied)]).await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 1);
    let sent = scene.server.requests(&id).await.last.unwrap();
    assert_eq!(sent.scope, None, "scopes of the file are not sent");
    assert!(!operator.log().contains("7b8e-secret"));
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_token_is_not_ready_without_any_other_event() {
    let scene = Scene::new("expired", 16).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    // The credentials are missing when the refresh is due, so that there are no more attempts.
    scene.kubectl(&["delete", "secret", "credentials"], "").await;
    let token = scene.token().await;
    let status = scene.status().await;
    scene.ready("True RefreshFailing").await;
    scene.ready("False CredentialsNotFound").await;
    let late = Timestamp::now().duration_since(status.token.unwrap().expires_at);
    assert!((0..=5).contains(&late.as_secs()), "{late:?} after expiry");
    assert_eq!(scene.token().await, token, "the token stays in the target");
    assert_eq!(scene.mints().await, 1);
    scene.credentials("right").await;
    scene.ready("True TokenValid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outage_beyond_expiry_is_not_ready_and_keeps_token_in_target() {
    let scene = Scene::new("long-outage", 12).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    scene.server.behave(&scene.namespace, answers(503, json!({}), None)).await;
    let token = scene.token().await;
    scene.ready("True RefreshFailing").await;
    scene.ready("False EndpointUnavailable").await;
    assert_eq!(scene.token().await, token);
    scene.server.behave(&scene.namespace, None).await;
    eventually("it recovers", Duration::from_secs(70), async || match scene.token().await {
        now if now != token => Ok(()),
        _ => Err(scene.status_text("source").await),
    })
    .await;
    scene.ready("True TokenValid").await;
}

/// As ServiceNow answers to a wrong password: the client secret may be what it means.
#[tokio::test(flavor = "multi_thread")]
async fn corrected_password_beside_a_client_secret_is_tried_half_a_minute_after_the_last_rejection() {
    let scene = Scene::bare("corrected-password").await;
    let refusal = || Reply::Json(401, json!({"error": "server_error"}).to_string());
    let answer = json!({"access_token": "t", "token_type": "Bearer", "expires_in": 1800}).to_string();
    let server = ScriptedServer::start([refusal(), refusal(), Reply::Json(200, answer)]).await;
    let write = async |password: &str| {
        let values =
            [("client_id", "me"), ("client_secret", "s3"), ("username", "u"), ("password", password)];
        scene.secret("credentials", &values).await;
    };
    write("wrong").await;
    let _operator = Operator::start(&scene.namespace).await;
    let oauth2 = json!({
        "tokenURL": server.url("/oauth_token.do"),
        "grant": {"custom": {"grantType": "password"}},
        "clientAuthentication": {"post": {}},
        "secretParameters": {"username": "username", "password": "password"},
    });
    scene.apply(super::oauth2::source(&scene, oauth2)).await;
    // The second one is due half a minute after the first, and a third one two minutes after that.
    eventually("it was rejected twice", 2 * SOON, async || {
        let count = scene.status().await.last_failure.map_or(0, |failure| failure.count);
        if count < 2 { Err(count) } else { Ok(()) }
    })
    .await;
    write("right").await;
    eventually("the corrected password is sent", 2 * SOON, async || {
        let requests = server.requests();
        let sent = requests.get(2).map(|request| String::from_utf8_lossy(&request.body).into_owned());
        if sent.is_some_and(|sent| sent.contains("password=right")) { Ok(()) } else { Err(requests.len()) }
    })
    .await;
    scene.ready("True TokenValid").await;
}
