//! Secrets with recognizable values go through every path, failures above all. Afterwards all output of the operator is
//! searched for them, in every encoding.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};

use super::rotation::request_refresh;
use super::support::eventually;
use super::support::operator::Operator;
use super::support::policy::Refusal;
use super::support::scene::{SOON, Scene};
use super::support::scripted_server::{Reply, ScriptedServer};

/// Characters that every encoding writes differently, and short enough to look like words.
const SECRET: &str = "Kanarie/1+a=&%q";
const REFRESH_TOKEN: &str = "Kanarie-2.b~c d";
const ROTATED: &str = "Kanarie:3?d\"e'f";
const TOKEN: &str = "Kanarie,4;e<f>g";
const CANARIES: [&str; 4] = [SECRET, REFRESH_TOKEN, ROTATED, TOKEN];

/// Every encoding in which `value` may appear in a text.
pub(super) fn forms(value: &[u8]) -> Vec<String> {
    let mut forms = vec![value.iter().map(|byte| format!("{byte:02x}")).collect()];
    if let Ok(text) = std::str::from_utf8(value) {
        let json = json!(text).to_string();
        let debug = format!("{text:?}");
        forms.extend([
            text.to_owned(),
            json.trim_matches('"').to_owned(),
            debug.trim_matches('"').to_owned(),
            utf8_percent_encode(text, NON_ALPHANUMERIC).to_string(),
            url::form_urlencoded::byte_serialize(value).collect(),
        ]);
    }
    // Within a longer value base64 has three ways to encode it; the first and last characters depend on the neighbours.
    for before in 0..3 {
        let padded = [vec![0; before], value.to_vec()].concat();
        let whole = padded.len() / 3 * 3;
        for alphabet in [&STANDARD, &URL_SAFE] {
            forms.push(alphabet.encode(&padded[..whole])[if before == 0 { 0 } else { 4 }..].to_owned());
        }
    }
    forms
}

/// Panics if `text` contains one of `secrets` in any encoding, or a part of a canary.
pub(super) fn assert_silent(what: &str, text: &str, secrets: &[Vec<u8>]) {
    let lower = text.to_ascii_lowercase();
    let around = |at: usize| {
        let from = at.saturating_sub(300);
        String::from_utf8_lossy(&text.as_bytes()[from..text.len().min(at + 300)]).into_owned()
    };
    for secret in secrets {
        for form in forms(secret) {
            if let Some(at) = lower.find(&form.to_ascii_lowercase()) {
                panic!(
                    "{what} contains {:?} as {form:?}: ...{}...",
                    String::from_utf8_lossy(secret),
                    around(at)
                );
            }
        }
    }
    if let Some(at) = lower.find("kanarie") {
        panic!("{what}: {}", around(at));
    }
}

fn canaries() -> Vec<Vec<u8>> {
    CANARIES.map(Vec::from).to_vec()
}

/// Searches all output of the operator; its log last, after it has ended.
async fn assert_all_silent(scene: &Scene, operator: Operator, secrets: &[Vec<u8>]) {
    let events: Api<Event> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let events = events.list(&ListParams::default()).await.unwrap().items;
    assert!(events.len() > 10, "{}", events.len());
    assert_silent("an event", &serde_json::to_string(&events).unwrap(), secrets);
    let sources = scene.sources().list(&ListParams::default()).await.unwrap().items;
    assert_silent("a TokenSource", &serde_json::to_string(&sources).unwrap(), secrets);
    for mut secret in scene.secrets().list(&ListParams::default()).await.unwrap() {
        // kubectl's own annotation holds what the user wrote.
        if let Some(annotations) = &mut secret.metadata.annotations {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
        assert_silent("a Secret's metadata", &serde_json::to_string(&secret.metadata).unwrap(), secrets);
        let name = secret.metadata.name.unwrap_or_default();
        let data = secret.data.unwrap_or_default();
        if name.ends_with("token") && !name.ends_with("-refresh-token") {
            let others = data.iter().filter(|(key, _)| *key != "access_token");
            let others: Vec<_> = others.map(|(_, value)| String::from_utf8_lossy(&value.0)).collect();
            assert_silent(&format!("target {name}"), &others.join(" "), secrets);
            if let Some(token) = data.get("access_token") {
                assert_eq!(token.0, TOKEN.as_bytes(), "{name}");
            }
        }
    }
    let (_, _, metrics) = operator.admin("/metrics").await;
    assert!(metrics.contains("tokensource_token_requests_total{host=\"127.0.0.1\""), "{metrics}");
    assert_silent("a metric", &metrics, secrets);
    let log = operator.stop().await;
    assert!(log.contains("TRACE"), "the log has level trace");
    assert_silent("the log", &log, secrets);
}

/// Waits until an attempt of each of these is reported.
async fn all_reported(scene: &Scene, names: &[&str]) {
    for name in names {
        eventually(&format!("{name} is reported"), SOON + Duration::from_secs(30), async || {
            let status = scene.sources().get(name).await.unwrap().status.unwrap_or_default();
            match status.conditions.first() {
                Some(ready) if ready.reason != "Requesting" => Ok(()),
                _ => Err(status),
            }
        })
        .await;
    }
}

/// The refresh token of a TokenSource: with a shared one the second TokenSource would be stalled.
fn refresh_token(name: &str) -> String {
    format!("{REFRESH_TOKEN}{name}")
}

/// A response of a server that repeats every secret.
fn everything() -> String {
    let pair = STANDARD.encode(format!("the-client:{SECRET}"));
    let encoded = CANARIES.map(|canary| {
        format!("{canary} {} {}", STANDARD.encode(canary), utf8_percent_encode(canary, NON_ALPHANUMERIC))
    });
    format!("wrong: {pair} {}", encoded.join(" "))
}

/// What was sent, as a server may repeat it. The server's own tokens were not sent, so they are not redacted.
fn sent(name: &str) -> String {
    let pair = STANDARD.encode(format!("the-client:{SECRET}"));
    let encoded = [SECRET.to_owned(), refresh_token(name)].map(|canary| {
        format!("{canary} {} {}", STANDARD.encode(&canary), utf8_percent_encode(&canary, NON_ALPHANUMERIC))
    });
    format!("wrong: {} {pair}", encoded.join(" "))
}

/// One response for each TokenSource.
fn answers() -> Vec<(&'static str, Reply)> {
    let json = |status, body: Value| Reply::Json(status, body.to_string());
    let html = format!("<html><title>{0}</title>{0}</html>", everything());
    let token = |members: Value| {
        let mut body = json!({"access_token": TOKEN, "expires_in": 300, "token_type": "Bearer"});
        body.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
        Reply::Json(200, body.to_string())
    };
    vec![
        ("echo", Reply::Echo),
        (
            "description",
            json(401, json!({"error": "invalid_client", "error_description": sent("description")})),
        ),
        ("sentence", json(400, json!({"error": sent("sentence")}))),
        ("code", json(400, json!({"error": SECRET, "error_description": everything()}))),
        ("nested", json(400, json!({"error": {"code": SECRET, "message": everything()}}))),
        (
            "errors",
            json(400, json!({"errors": [{"code": "AUTHENTICATION_FAILED", "message": sent("errors")}]})),
        ),
        ("minor", json(400, json!({"minorErrorCode": "invalid_grant", "message": sent("minor")}))),
        ("message", json(403, json!({"message": sent("message")}))),
        ("uri", json(400, json!({"error": "invalid_scope", "error_uri": format!("https://x/{SECRET}")}))),
        ("html", Reply::Answer(502, vec![("content-type", "text/html".into())], html.clone().into_bytes())),
        ("login", Reply::Answer(200, vec![("content-type", "text/html".into())], html.into_bytes())),
        ("media", Reply::Answer(400, vec![("content-type", format!("text/{SECRET}"))], b"{}".to_vec())),
        ("retry", Reply::Answer(429, vec![("retry-after", SECRET.into())], everything().into_bytes())),
        ("redirect", Reply::Redirect(format!("https://x.example.com/?secret={SECRET}"))),
        ("dpop", token(json!({"token_type": "DPoP", "refresh_token": ROTATED}))),
        ("lines", token(json!({"access_token": format!("{TOKEN}\nX: y"), "refresh_token": ROTATED}))),
        ("inside", token(json!({"error": "invalid_grant", "error_description": sent("inside")}))),
        ("cut", Reply::LyingLength { claimed: 4096, body: format!("{{\"access_token\":{TOKEN:?},") }),
        ("half", Reply::Json(200, format!("{{\"access_token\":{TOKEN:?},"))),
        ("garbage", Reply::Raw(format!("{}\r\n\r\n", everything()).into_bytes())),
        ("header", Reply::Raw(format!("HTTP/1.1 200 OK\r\n{SECRET}\r\n\r\n").into_bytes())),
        ("scope", token(json!({"scope": format!("read {SECRET}"), "refresh_token": ROTATED}))),
        ("expiry", token(json!({"expires_in": SECRET}))),
        // Members that status and the record keep.
        ("type", token(json!({"token_type": SECRET}))),
        ("type-encoded", token(json!({"token_type": STANDARD.encode(SECRET)}))),
        ("type-token", token(json!({"token_type": STANDARD.encode(format!("x{TOKEN}"))}))),
        ("scope-token", token(json!({"scope": format!("read {TOKEN} {}", STANDARD.encode(TOKEN))}))),
        ("scope-rotated", token(json!({"scope": STANDARD.encode(ROTATED), "refresh_token": ROTATED}))),
        ("scope-identity", token(json!({"scope": "Kanarie.5", "id_token": "Kanarie.5"}))),
    ]
}

fn source(name: &str, server: &ScriptedServer, authentication: Value) -> Value {
    json!({
        "apiVersion": "tokensource.dev/v1alpha1",
        "kind": "TokenSource",
        "metadata": {"name": name},
        "spec": {
            "provider": {"oauth2": {
                "tokenURL": server.url("/token"),
                "grant": {"refreshToken": {}},
                "clientAuthentication": authentication,
            }},
            "credentials": {"secretRef": {"name": format!("{name}-credentials")}},
            "target": {"name": if name == "source" { "token".into() } else { format!("{name}-token") }},
        },
    })
}

async fn with_credentials(scene: &Scene, name: &str, secret: &str, refresh_token: &str) {
    let data = [("client_id", "the-client"), ("client_secret", secret), ("refresh_token", refresh_token)];
    scene.secret(&format!("{name}-credentials"), &data).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_appear_in_no_output() {
    let scene = Scene::bare("canary").await;
    let flags = ["--allow-http", "--egress-allow", "127.0.0.0/8", "--log-level", "trace"];
    let operator = Operator::start_with(&scene.namespace, &flags).await;

    // Success, rotation, and writes that are refused with a message that quotes the Secret.
    let good = |refresh_token: &str| {
        let body = json!({"access_token": TOKEN, "expires_in": 3600, "refresh_token": refresh_token});
        Reply::Json(200, body.to_string())
    };
    let server = ScriptedServer::start([good(ROTATED), good("Kanarie-another"), good(ROTATED)]).await;
    with_credentials(&scene, "source", SECRET, &refresh_token("source")).await;
    scene.apply(source("source", &server, json!({"basic": {}}))).await;
    scene.ready("True TokenValid").await;
    for (secret, key) in [("token", "access_token"), ("source-refresh-token", "refresh_token")] {
        let quotes = format!("'it holds ' + string(object.?data.{key}.orValue(b''))");
        let refusal = Refusal::of(&scene, secret, &quotes).await;
        request_refresh(&scene, secret).await;
        let message = scene.ready("True RefreshFailing").await;
        assert!(message.contains("it holds"), "{message}");
        refusal.lift().await;
        scene.ready("True TokenValid").await;
    }

    // A refused write of the metadata, which sends no token, and quotes the one that is there.
    let quotes = "'metadata: it holds ' + string(object.?data.access_token.orValue(b''))";
    let refusal = Refusal::of(&scene, "token", quotes).await;
    scene.patch("tokensource", "source", json!({"spec": {"target": {"deletionPolicy": "Retain"}}})).await;
    eventually("the refusal is reported", SOON, async || {
        let said = scene.status_text("source").await;
        if said.contains("metadata: it holds [redacted]") { Ok(()) } else { Err(said) }
    })
    .await;
    refusal.lift().await;
    scene.ready("True TokenValid").await;

    // Failures. That the fixed texts are reported proves that the responses were read at all.
    let mut servers = vec![];
    for (n, (name, reply)) in answers().into_iter().enumerate() {
        let server = ScriptedServer::start([reply]).await;
        let authentication = if n % 2 == 0 { json!({"post": {}}) } else { json!({"basic": {}}) };
        with_credentials(&scene, name, SECRET, &refresh_token(name)).await;
        scene.apply(source(name, &server, authentication)).await;
        servers.push((name, server));
    }
    // Unusable credentials.
    let server = ScriptedServer::start([Reply::Close]).await;
    for (name, secret, refresh_token) in [
        ("lines-in-secret", "Kanarie\nKanarie", REFRESH_TOKEN),
        ("control", "Kanarie\u{7}", REFRESH_TOKEN),
        ("empty", SECRET, ""),
    ] {
        with_credentials(&scene, name, secret, refresh_token).await;
        scene.apply(source(name, &server, json!({"post": {}}))).await;
        servers.push((name, ScriptedServer::start([Reply::Close]).await));
    }
    let broken = "apiVersion: 1.0.0\nkind: ServiceAccount\ndata: [clientSecret: Kanarie";
    scene.secret("yaml-credentials", &[("credentials.yaml", broken)]).await;
    scene
        .apply(json!({
            "apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource", "metadata": {"name": "yaml"},
            "spec": {
                "provider": {"vgs": {"tokenURL": server.url("/token")}},
                "credentials": {
                    "secretRef": {"name": "yaml-credentials"}, "vgsServiceAccountKey": "credentials.yaml",
                },
            },
        }))
        .await;
    servers.push(("yaml", ScriptedServer::start([Reply::Close]).await));

    let names: Vec<&str> = servers.iter().map(|(name, _)| *name).collect();
    all_reported(&scene, &names).await;
    let words = scene.status_text("description").await;
    assert!(words.contains("invalid_client") && words.contains("[redacted]"), "{words}");

    assert_all_silent(&scene, operator, &canaries()).await;
}

const SUBJECT: &str = "Kanarie!5[s]t,u";
const ACTOR: &str = "Kanarie*6(a)b~c";
const PIN: &str = "Kanarie&7=p+i%n";
const HEADER: &str = "Kanarie:8{h}e;a";

/// The private part of a key, in all pieces in which it may be printed.
fn pieces(pem: &str) -> Vec<Vec<u8>> {
    let lines: Vec<&str> = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = STANDARD.decode(lines.concat()).unwrap();
    let lines = lines.into_iter().map(|line| line.as_bytes().to_vec());
    // PKCS#8 of a key on P-256: the scalar, an OCTET STRING of 32 bytes, begins at 36.
    assert_eq!(der[34..36], [0x04, 32]);
    lines.chain([der[36..36 + 32].to_vec()]).collect()
}

/// The secrets that each of these sends, by the text in front of them.
fn ways() -> Vec<(&'static str, Value, Vec<&'static str>)> {
    let token_type = "urn:ietf:params:oauth:token-type:jwt";
    vec![
        (
            "client",
            json!({"clientAuthentication": {"privateKeyJWT": {"algorithm": "ES256"}}}),
            vec!["client_assertion="],
        ),
        ("grant", json!({"grant": {"jwtBearer": {"algorithm": "ES256"}}}), vec!["assertion="]),
        (
            "exchange",
            json!({
                "grant": {"tokenExchange": {
                    "subjectTokenKey": "subject", "subjectTokenType": token_type,
                    "actorTokenKey": "actor", "actorTokenType": token_type,
                }},
                "clientAuthentication": {"none": {}},
            }),
            vec!["subject_token=", "actor_token="],
        ),
        (
            "custom",
            json!({
                "grant": {"custom": {"grantType": "vendor"}}, "clientAuthentication": {"none": {}},
                "secretParameters": {"pin": "pin"}, "secretHeaders": {"X-Api-Key": "header"},
            }),
            vec!["pin=", "X-Api-Key: "],
        ),
    ]
}

fn source_of(
    name: &str,
    credentials: &str,
    server: &ScriptedServer,
    oauth2: &Value,
    tls: Option<&str>,
) -> Value {
    let mut oauth2 = oauth2.clone();
    oauth2["tokenURL"] = json!(server.url("/token"));
    let mut spec = json!({
        "provider": {"oauth2": oauth2},
        "credentials": {"secretRef": {"name": credentials}},
        "target": {"name": format!("{name}-token")},
    });
    if let Some(pair) = tls {
        spec["tls"] = json!({"clientCertificateRef": {"name": pair}});
    }
    let metadata = json!({"name": name});
    json!({
        "apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource", "metadata": metadata, "spec": spec,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_assertions_and_exchanged_tokens_appear_in_no_output() {
    let scene = Scene::bare("canary-keys").await;
    let flags = ["--allow-http", "--egress-allow", "127.0.0.0/8", "--log-level", "trace"];
    let operator = Operator::start_with(&scene.namespace, &flags).await;
    let signing = KeyPair::generate().unwrap();
    let certificate = CertificateParams::default().self_signed(&signing).unwrap().pem();
    let key = signing.serialize_pem();
    let values = [
        ("client_id", "the-client"),
        ("private_key.pem", &key),
        ("subject", SUBJECT),
        ("actor", ACTOR),
        ("pin", PIN),
        ("header", HEADER),
    ];
    scene.secret("all", &values).await;
    let pair = async |name: &str, certificate: &str, key: &str| {
        scene.secret(name, &[("tls.crt", certificate), ("tls.key", key)]).await;
    };
    let token = json!({"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}).to_string();

    let (mut servers, mut names) = (vec![], vec![]);
    for (way, oauth2, secrets) in ways() {
        let echoes = secrets.iter().map(|secret| Reply::EchoAsError(secret));
        let cut = Reply::LyingLength { claimed: 4096, body: "{".to_owned() };
        for (n, reply) in echoes.chain([Reply::Json(200, token.clone()), Reply::Echo, cut]).enumerate() {
            let server = ScriptedServer::start([reply]).await;
            let name = format!("{way}-{n}");
            scene.apply(source_of(&name, "all", &server, &oauth2, None)).await;
            servers.push(server);
            names.push(name);
        }
    }

    // Unusable credentials.
    let server = ScriptedServer::start([Reply::Json(200, token)]).await;
    let body = STANDARD.encode("Kanarie in a key that is none");
    let damaged = format!("-----BEGIN PRIVATE KEY-----\n{body}\n-----END PRIVATE KEY-----\n");
    let google =
        json!({"type": "service_account", "private_key": "Kanarie", "client_email": "robot"}).to_string();
    let [client, exchange, custom] = [0, 2, 3].map(|way| ways()[way].1.clone());
    for (name, oauth2, (secret, value)) in [
        ("no-pem", &client, ("private_key.pem", "Kanarie")),
        ("damaged", &client, ("private_key.pem", damaged.as_str())),
        ("google", &client, ("private_key.pem", google.as_str())),
        ("lines", &exchange, ("subject", "Kanarie\nKanarie")),
        ("control", &custom, ("header", "Kanarie\u{7}")),
        ("empty", &custom, ("pin", "")),
    ] {
        let changed = values.map(|(key, before)| (key, if key == secret { value } else { before }));
        scene.secret(&format!("{name}-credentials"), &changed).await;
        scene.apply(source_of(name, &format!("{name}-credentials"), &server, oauth2, None)).await;
        names.push(name.to_owned());
    }
    let rs256 = json!({"clientAuthentication": {"privateKeyJWT": {}}});
    scene.apply(source_of("another-algorithm", "all", &server, &rs256, None)).await;
    names.push("another-algorithm".to_owned());
    let other = KeyPair::generate().unwrap().serialize_pem();
    for (name, key) in [("good-pair", &key), ("other-pair", &other), ("damaged-pair", &damaged)] {
        pair(name, &certificate, key).await;
        scene.apply(source_of(name, "all", &server, &client, Some(name))).await;
        names.push(name.to_owned());
    }

    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    all_reported(&scene, &names).await;
    let assertions: Vec<Vec<u8>> = servers
        .iter()
        .flat_map(ScriptedServer::requests)
        .flat_map(|request| {
            let members = url::form_urlencoded::parse(&request.body).into_owned();
            members.filter(|(name, _)| name.ends_with("assertion")).collect::<Vec<_>>()
        })
        // The signature, and header with claims: a signed assertion is a credential.
        .flat_map(|(_, jwt)| [jwt.rsplit('.').next().unwrap().as_bytes().to_vec(), jwt.into_bytes()])
        .collect();
    assert!(assertions.len() >= 8, "{}", assertions.len());
    // What a server repeats is redacted, and the rest of its message is reported.
    for name in ["client-0", "grant-0", "exchange-0", "exchange-1", "custom-0", "custom-1"] {
        let words = scene.status_text(name).await;
        assert!(words.contains("invalid_client") && words.contains("[redacted]"), "{name}: {words}");
    }
    let texts = [SUBJECT, ACTOR, PIN, HEADER, TOKEN].map(Vec::from).to_vec();
    let secrets = [texts, pieces(&key), pieces(&other), assertions].concat();
    assert_all_silent(&scene, operator, &secrets).await;
}

#[test]
fn canary_is_found_in_every_encoding() {
    for before in ["", "x", "xy", "xyz"] {
        for canary in CANARIES {
            let text = format!("{before}{canary}zz");
            for text in [
                STANDARD.encode(&text),
                URL_SAFE.encode(&text),
                utf8_percent_encode(&text, NON_ALPHANUMERIC).to_string(),
                json!(text).to_string(),
                text.bytes().map(|byte| format!("{byte:02X}")).collect(),
            ] {
                let found = std::panic::catch_unwind(|| assert_silent("the test", &text, &canaries()));
                assert!(found.is_err(), "{canary} in {text}");
            }
        }
    }
}
