//! Failures: the output, and the exit codes.

use std::process::Command;

use serde_json::json;

use super::support::authorization_server::ClientSpec;
use super::support::program::{PROGRAM, program, run};
use super::support::scripted_server::{Reply, ScriptedServer};
use super::{SECRET, client, documents, mint, oauth2, register, scripted, secret};

#[tokio::test(flavor = "multi_thread")]
async fn mint_failures_have_reason_and_exit_code() {
    let server = register("failures", ClientSpec::default()).await;
    let url = server.vgs_token_url();
    let wrong = secret(json!({"client_id": "failures", "client_secret": "wrong"}));
    let said = mint(&[oauth2(&url, json!({})), wrong], &[]).await;
    said.assert(
        3,
        &["ClientRejected: the token endpoint answered HTTP 401, invalid_client", "would try again after"],
    );

    let echo = ScriptedServer::start(vec![Reply::Echo]).await;
    let said = mint(&[oauth2(&echo.url("/token"), json!({})), client("c")], &[]).await;
    said.assert(4, &["EndpointUnavailable"]);
    assert!(!said.all().contains(SECRET), "{}", said.all());

    let body = r#"{"access_token":"","expires_in":300}"#;
    let empty = scripted(200, body).await;
    let said = mint(&[oauth2(&empty.url("/token"), json!({})), client("c")], &[]).await;
    said.assert(
        3,
        &["ResponseMalformed: the token endpoint answered HTTP 200, but with an empty access_token"],
    );

    let cut = ScriptedServer::start(vec![Reply::Reset]).await;
    mint(&[oauth2(&cut.url("/token"), json!({})), client("c")], &[])
        .await
        .assert(4, &["EndpointUnavailable: "]);
    let closed = oauth2("http://127.0.0.1:1/token", json!({}));
    mint(&[closed, client("c")], &[]).await.assert(4, &["EndpointUnavailable: cannot connect to 127.0.0.1"]);

    let typo = oauth2(&url, json!({"scope": "a"}));
    mint(&[typo, client("c")], &[]).await.assert(1, &["spec.provider.oauth2.scope is no field"]);
    mint(&[client("c")], &[]).await.assert(1, &["no TokenSource in these files"]);
    mint(&[oauth2(&url, json!({}))], &[]).await.assert(
        2,
        &["CredentialsNotFound: Secret client does not exist", "the keys client_id, client_secret"],
    );
    let lent = json!({
        "apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource", "metadata": {"name": "lent"},
        "spec": {"issuerRef": {"name": "idp"}},
    });
    mint(&[lent], &[]).await.assert(1, &["ClusterTokenIssuer idp, which is read from the cluster alone"]);
    let half = secret(json!({"client_id": "failures"}));
    mint(&[oauth2(&url, json!({})), half], &[])
        .await
        .assert(2, &["CredentialsNotFound: Secret client has no key client_secret (it has client_id)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn mint_applies_egress_policy() {
    let server = scripted(200, r#"{"access_token":"t"}"#).await;
    let text =
        [oauth2(&server.url("/token"), json!({})), client("c")].map(|it| it.to_string()).join("\n---\n");
    for flags in [
        &[][..],
        &["--allow-http"],
        &["--allow-http", "--egress-only", "idp.example.com"],
        &["--allow-http", "--egress-allow", "127.0.0.1", "--egress-deny", "127.0.0.0/8"],
    ] {
        let said = program(&[&["mint", "-f", "-"], flags].concat(), &text).await;
        said.assert(1, &["EndpointRefusedByPolicy: ", "mint takes the same flag"]);
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn mint_uses_proxies_of_environment_on_request() {
    let proxy = scripted(200, r#"{"access_token":"t","token_type":"Bearer","expires_in":300}"#).await;
    let mint = async |url: &str, flags: &[&str], no_proxy: &str| {
        let mut command = Command::new(PROGRAM);
        command.args(["mint", "-f", "-", "--allow-http"]).args(flags);
        command.env("HTTP_PROXY", proxy.url("")).env("NO_PROXY", no_proxy);
        run(command, &documents(&[oauth2(url, json!({})), client("c")])).await
    };
    let flag = "--proxy-from-environment";
    // A name that does not resolve here.
    mint("http://idp.example.com/token", &[flag], "other.example.com").await.assert(0, &["300 s"]);
    assert!(proxy.requests()[0].head.starts_with("POST http://idp.example.com/token HTTP/1.1"));
    let direct = "http://127.0.0.1:1/token";
    mint(direct, &[flag, "--egress-allow", "127.0.0.1"], "127.0.0.0/8")
        .await
        .assert(4, &["cannot connect to"]);
    let said = mint(direct, &["--egress-allow", "127.0.0.1"], "").await;
    said.assert(4, &["cannot connect to", "directly, though HTTP_PROXY is set: --proxy-from-environment"]);
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn mint_usage_error_has_one_exit_code_and_help_lists_all() {
    program(&["mint"], "").await.assert(1, &["<NAME>"]);
    program(&["mint", "--no-such-flag"], "").await.assert(1, &["--no-such-flag"]);
    program(&["mint", "-f", "/nonexistent/file"], "").await.assert(1, &["/nonexistent/file: No such file"]);
    program(&["mint", "-n", "payments", "api"], "").await.assert(1, &["no cluster"]);
    program(&["mint", "--help"], "").await.assert(0, &["Exit codes:", "  5  a refresh token came back"]);
}
