//! The report of a successful token request, and what it must not contain.

use rcgen::KeyPair;
use serde_json::{Value, json};

use super::support::authority::Authority;
use super::support::authorization_server::{AuthorizationServer, ClientSpec};
use super::support::scripted_server::{Reply, ScriptedServer};
use super::{SECRET, client, mint, oauth2, register, scripted, secret, source};

#[tokio::test(flavor = "multi_thread")]
async fn mint_report_of_preset_shows_no_secret() {
    let spec = ClientSpec { token_endpoint_auth_method: "client_secret_post", ..ClientSpec::default() };
    let server = register("preset", spec).await;
    let vgs = source(json!({"vgs": {"tokenURL": server.vgs_token_url()}}));
    let said = mint(&[client("preset"), vgs.clone()], &[]).await;
    said.assert(
        0,
        &[
            "TokenSource payments/api, provider vgs",
            &format!("POST {}", server.vgs_token_url()),
            "content-type: application/x-www-form-urlencoded",
            "grant_type: client_credentials",
            "client_id: [redacted, 6 characters]",
            "client_secret: [redacted, 17 characters]",
            "300 s: the answer says so (expires_in)",
            "150 s after issue at the latest",
            "PropagationSafe  True, LifetimeSufficient: tokens live 300 s",
            "Target Secret api-token (Opaque)",
            "token_type    Bearer",
            "access_token  [redacted, ",
        ],
    );
    assert!(!said.all().contains(SECRET) && said.stderr.is_empty(), "{}", said.all());

    let shown = mint(&[client("preset"), vgs], &["--show-secrets"]).await;
    shown.assert(0, &[&format!("client_secret: {SECRET}")]);
    let token =
        shown.stdout.lines().rev().find_map(|line| line.trim().strip_prefix("access_token  ")).unwrap();
    assert!(server.is_valid(token).await, "{token}");
}

#[tokio::test(flavor = "multi_thread")]
async fn mint_json_report_covers_success_and_failure() {
    let server = register("machines", ClientSpec::default()).await;
    let url = server.vgs_token_url();
    let said = mint(&[oauth2(&url, json!({})), client("machines")], &["--output", "json"]).await;
    said.assert(0, &[]);
    let report: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!(report["answer"]["lifetimeSeconds"], 300);
    assert_eq!(report["answer"]["lifetimeSource"], "answer");
    assert_eq!(report["schedule"]["refreshAfterSeconds"], 150);
    assert_eq!(report["target"]["name"], "api-token");
    let authorization = &report["request"]["headers"].as_array().unwrap();
    assert!(authorization.iter().any(|it| it["value"].as_str().unwrap().starts_with("Basic [redacted, ")));

    let wrong = secret(json!({"client_id": "machines", "client_secret": "wrong"}));
    let said = mint(&[oauth2(&url, json!({})), wrong], &["-o", "json"]).await;
    let report: Value = serde_json::from_str(&said.stdout).unwrap();
    assert_eq!((said.code, &report["error"]["reason"]), (3, &json!("ClientRejected")));
    assert_eq!(report["error"]["exitCode"], 3);
    assert!(report["request"].is_object() && report.get("answer").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn mint_report_names_source_of_lifetime() {
    let jwt = ClientSpec { access_token_format: "jwt", access_token_ttl: 60, ..ClientSpec::default() };
    let server = register("a-jwt", jwt).await;
    let objects = [oauth2(&server.vgs_token_url(), json!({})), client("a-jwt")];
    mint(&objects, &[]).await.assert(0, &["form          JWT", "False, LifetimeTooShort"]);

    let server = scripted(200, r#"{"access_token":"opaque-token"}"#).await;
    let mut source = oauth2(&server.url("/token"), json!({}));
    mint(&[source.clone(), client("c")], &[]).await.assert(
        0,
        &["900 s: neither the answer nor the token says, so that this is assumed", "no token_type"],
    );
    source["spec"]["refresh"] = json!({"defaultLifetime": "1h"});
    mint(&[source, client("c")], &[])
        .await
        .assert(0, &["3600 s: neither the answer nor the token says; spec."]);
}

#[tokio::test(flavor = "multi_thread")]
async fn mint_report_shows_no_keys_assertions_or_exchanged_tokens() {
    let key = KeyPair::generate().unwrap().serialize_pem();
    let values = json!({
        "client_id": "c", "private_key.pem": key, "subject_token": "hunter2-subject", "pin": "hunter2-pin", "header": "hunter2-header",
    });
    let subject = "urn:ietf:params:oauth:token-type:jwt";
    for (way, sent) in [
        (json!({"clientAuthentication": {"privateKeyJWT": {"algorithm": "ES256"}}}), "client_assertion="),
        (json!({"grant": {"jwtBearer": {"algorithm": "ES256"}}}), "assertion="),
        (
            json!({"grant": {"tokenExchange": {"subjectTokenType": subject}}, "clientAuthentication": {"none": {}}}),
            "subject_token=",
        ),
        (
            json!({
                "grant": {"custom": {"grantType": "vendor"}}, "clientAuthentication": {"none": {}},
                "secretParameters": {"pin": "pin"}, "secretHeaders": {"X-Api-Key": "header"},
            }),
            "pin=",
        ),
    ] {
        let good = Reply::Json(200, r#"{"access_token":"t","expires_in":300}"#.to_owned());
        for (reply, code) in [(good, 0), (Reply::Echo, 4), (Reply::EchoAsError(sent), 3)] {
            let server = ScriptedServer::start([reply]).await;
            let said = mint(&[oauth2(&server.url("/token"), way.clone()), secret(values.clone())], &[]).await;
            said.assert(code, &["[redacted"]);
            assert!(!said.all().contains("hunter2"), "{}", said.all());
            for line in key.lines().filter(|line| !line.starts_with('-')) {
                assert!(!said.all().contains(line), "{}", said.all());
            }
            let body = server.requests().remove(0).body;
            for (_, jwt) in url::form_urlencoded::parse(&body).filter(|(name, _)| name.ends_with("assertion"))
            {
                assert!(!said.all().contains(jwt.rsplit('.').next().unwrap()), "{}", said.all());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn mint_issuer_with_private_authority_and_mutual_tls_works() {
    let (servers, clients) = (Authority::new("servers"), Authority::new("clients"));
    let server = AuthorizationServer::start_tls(&servers, &clients);
    let pair = clients.issue_client("client.example.com");
    let spec = ClientSpec {
        id: "mutual".into(),
        secret: None,
        token_endpoint_auth_method: "tls_client_auth",
        tls_client_auth_san_dns: Some("client.example.com".into()),
        ..ClientSpec::default()
    };
    server.client(spec).await;

    let mut source =
        source(json!({"oauth2": {"issuer": server.issuer(), "clientAuthentication": {"tls": {}}}}));
    source["spec"]["credentials"]["clientID"] = json!("mutual");
    source["spec"]["tls"] = json!({
        "caBundle": {"configMapKeyRef": {"name": "roots", "key": "ca.crt"}},
        "clientCertificateRef": {"name": "pair"},
    });
    let object = |kind: &str, name: &str, field: &str, data: Value| json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, field: data});
    let roots = object("ConfigMap", "roots", "data", json!({"ca.crt": servers.pem}));
    let pair =
        object("Secret", "pair", "stringData", json!({"tls.crt": pair.pem, "tls.key": pair.key_pem()}));
    let said = mint(&[source.clone(), secret(json!({})), roots.clone(), pair.clone()], &[]).await;
    said.assert(0, &[&format!("as the metadata of {} says", server.issuer()), "client_id: mutual", "300 s"]);

    let flags = ["--egress-tenant-ca-bundle=false"];
    let said = mint(&[source.clone(), secret(json!({})), roots.clone(), pair.clone()], &flags).await;
    said.assert(1, &["EndpointRefusedByPolicy: ", "remove spec.tls.caBundle", "egress.tenantCABundle"]);

    let said = mint(&[source.clone(), secret(json!({})), pair.clone()], &[]).await;
    said.assert(
        1,
        &["SpecInvalid: spec.tls.caBundle, key ca.crt of ConfigMap roots: there is no such ConfigMap"],
    );
    source["spec"]["tls"].as_object_mut().unwrap().remove("caBundle");
    let said = mint(&[source, secret(json!({})), roots, pair], &[]).await;
    said.assert(4, &["EndpointUnavailable: the certificate of 127.0.0.1 is not trusted"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn mint_template_is_rendered_and_checked_before_token_request() {
    let answer =
        r#"{"access_token": "hunter2-token", "expires_in": 600, "url": "https://hunter2.example.com"}"#;
    let server = scripted(200, answer).await;
    let mut api =
        oauth2(&server.url("/token"), json!({"response": {"values": {"url": "/url", "none": "/none"}}}));
    let set = |api: &mut Value, template: Value| api["spec"]["target"]["template"] = template;
    set(&mut api, json!({"data": {"a": "\n{{ nothing }}"}}));
    let said = mint(&[client("template"), api.clone()], &[]).await;
    said.assert(
        1,
        &["TemplateInvalid: spec.target.template.data, key a, line 2: the name nothing is not defined"],
    );
    assert!(server.requests().is_empty());

    set(
        &mut api,
        json!({"type": "example.com/token", "data": {
            ".netrc": "machine api.example.com\npassword {{ access_token }}\n",
            "url": "{{ values.url }}",
        }}),
    );
    let said = mint(&[client("template"), api.clone()], &[]).await;
    said.assert(
        0,
        &[
            "Target Secret api-token (example.com/token)\n  .netrc  machine api.example.com\n          password [redacted, 13 characters]\n  url     [redacted, 27 characters]\n",
        ],
    );
    assert!(!said.all().contains("hunter2"), "{}", said.all());

    let server = scripted(200, answer).await;
    api["spec"]["provider"]["oauth2"]["tokenURL"] = json!(server.url("/token"));
    set(&mut api, json!({"data": {"none": "{{ values.none }}"}}));
    let said = mint(&[client("template"), api], &[]).await;
    said.assert(3, &["Answer: a token", "TemplateInvalid", "key none, line 1: a value is not defined"]);
}
