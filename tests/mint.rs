//! `tokensource-operator mint -f`: the program as people run it, without a cluster, against the certified authorization
//! server and against one that plays tricks.
#![cfg(test)] // so that clippy lets helpers panic, too

mod support;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use serde_json::{Value, json};
use support::authorization_server::{AuthorizationServer, ClientSpec};
use support::scripted_server::{Reply, ScriptedServer};

const FLAGS: [&str; 3] = ["--allow-http", "--egress-allow", "127.0.0.0/8"];
/// As no word of the output looks.
const SECRET: &str = "hunter2-/+&%-4711";

struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Said {
    fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    #[track_caller]
    fn assert(&self, code: i32, words: &[&str]) {
        let all = self.all();
        assert_eq!(self.code, code, "{all}");
        for words in words {
            assert!(all.contains(words), "{words:?} is not in:\n{all}");
        }
    }
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_tokensource-operator");

async fn program(arguments: &[&str], stdin: &str) -> Said {
    let mut command = Command::new(PROGRAM);
    command.args(arguments);
    run(command, stdin).await
}

async fn run(mut command: Command, stdin: &str) -> Said {
    // No cluster: whoever asks one fails.
    command.env("KUBECONFIG", "/nonexistent");
    for proxy in ["HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy"] {
        if command.get_envs().all(|(name, _)| name != proxy) {
            command.env_remove(proxy);
        }
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let stdin = stdin.to_owned();
    let run = move || {
        let mut child = command.spawn().unwrap();
        // Who does not read it may end before it is written.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        child.wait_with_output().unwrap()
    };
    let output = tokio::task::spawn_blocking(run).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code().unwrap(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// `mint -f -` of these objects.
async fn mint(objects: &[Value], flags: &[&str]) -> Said {
    program(&[&["mint", "-f", "-"], &FLAGS[..], flags].concat(), &documents(objects)).await
}

fn documents(objects: &[Value]) -> String {
    objects.iter().map(Value::to_string).collect::<Vec<_>>().join("\n---\n")
}

fn source(provider: Value) -> Value {
    json!({
        "apiVersion": "tokensource.dev/v1alpha1",
        "kind": "TokenSource",
        "metadata": {"name": "api", "namespace": "payments"},
        "spec": {
            "provider": provider,
            "credentials": {"secretRef": {"name": "client"}},
            "target": {"name": "api-token"},
        },
    })
}

fn oauth2(token_url: &str, more: Value) -> Value {
    let mut oauth2 = json!({"tokenURL": token_url});
    oauth2.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    source(json!({"oauth2": oauth2}))
}

fn secret(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "client"}, "stringData": data})
}

fn client(id: &str) -> Value {
    secret(json!({"client_id": id, "client_secret": SECRET}))
}

async fn register(id: &str, spec: ClientSpec) -> &'static AuthorizationServer {
    let server = AuthorizationServer::shared();
    server.client(ClientSpec { id: id.into(), secret: Some(SECRET.into()), ..spec }).await;
    server
}

fn refresh_client() -> ClientSpec {
    ClientSpec { grant_types: vec!["refresh_token"], rotate_refresh_token: true, ..ClientSpec::default() }
}

async fn scripted(status: u16, body: &str) -> ScriptedServer {
    ScriptedServer::start(vec![Reply::Json(status, body.to_owned())]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preset_is_minted_and_told_without_a_secret() {
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
async fn json_for_machines_also_of_failures() {
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
async fn who_says_how_long_it_lives() {
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
async fn failures_say_what_the_condition_would_and_have_their_exit_codes() {
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
    let nobody = oauth2("http://127.0.0.1:1/token", json!({}));
    mint(&[nobody, client("c")], &[]).await.assert(4, &["EndpointUnavailable: cannot connect to 127.0.0.1"]);

    let typo = oauth2(&url, json!({"scope": "a"}));
    mint(&[typo, client("c")], &[]).await.assert(1, &["spec.provider.oauth2.scope is no field"]);
    mint(&[client("c")], &[]).await.assert(1, &["no TokenSource in these files"]);
    mint(&[oauth2(&url, json!({}))], &[]).await.assert(
        2,
        &["CredentialsNotFound: Secret client does not exist", "the keys client_id, client_secret"],
    );
    let half = secret(json!({"client_id": "failures"}));
    mint(&[oauth2(&url, json!({})), half], &[])
        .await
        .assert(2, &["CredentialsNotFound: Secret client has no key client_secret (it has client_id)"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_assertions_and_tokens_to_exchange_are_not_told() {
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
async fn the_egress_policy_is_the_operators() {
    let server = scripted(200, r#"{"access_token":"t"}"#).await;
    let text =
        [oauth2(&server.url("/token"), json!({})), client("c")].map(|it| it.to_string()).join("\n---\n");
    for flags in [&[][..], &["--allow-http"], &["--allow-http", "--egress-only", "idp.example.com"]] {
        let said = program(&[&["mint", "-f", "-"], flags].concat(), &text).await;
        said.assert(1, &["EndpointRefusedByPolicy: ", "mint takes the same flag"]);
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_is_never_lost() {
    let server = register("rotates", refresh_client()).await;
    let seed = server.seed_refresh_token("rotates").await;
    let refresh = |url: &str| oauth2(url, json!({"grant": {"refreshToken": {}}}));
    let with =
        |seed: &str| secret(json!({"client_id": "rotates", "client_secret": SECRET, "refresh_token": seed}));
    let objects = [refresh(&server.vgs_token_url()), with(&seed)];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("next");
    let save = ["--save-refresh-token", path.to_str().unwrap()];

    mint(&objects, &[]).await.assert(1, &["--save-refresh-token FILE"]);
    std::fs::write(&path, "precious").unwrap();
    mint(&objects, &save).await.assert(1, &["File exists", "not spent"]);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_file(&path).unwrap();
    let nowhere = folder.path().join("no/such/folder");
    mint(&objects, &["--save-refresh-token", nowhere.to_str().unwrap()]).await.assert(1, &["not spent"]);
    assert_eq!(server.requests("rotates").await.total, 0, "nothing was asked");

    let said = mint(&objects, &save).await;
    said.assert(0, &["saved in", "refresh_token: [redacted, "]);
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let next = std::fs::read_to_string(&path).unwrap();
    assert!(next != seed && !said.all().contains(&next) && !said.all().contains(&seed), "{}", said.all());
    std::fs::remove_file(&path).unwrap();
    mint(&[refresh(&server.vgs_token_url()), with(&next)], &save).await.assert(0, &["saved in"]);
    std::fs::remove_file(&path).unwrap();

    // Whatever is wrong with the rest.
    for (status, body, code) in [
        (200, r#"{"access_token":"","refresh_token":"hunter2-next"}"#, 3),
        (200, r#"{"error":"server_error","refresh_token":"hunter2-next"}"#, 4),
        (200, r#"{"access_token":"t","token_type":"DPoP","refresh_token":"hunter2-next"}"#, 3),
    ] {
        let tricks = scripted(status, body).await;
        let said = mint(&[refresh(&tricks.url("/token")), with("r")], &save).await;
        said.assert(code, &["saved in"]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "hunter2-next", "{body}");
        assert!(!said.all().contains("hunter2"), "{}", said.all());
        std::fs::remove_file(&path).unwrap();
    }

    // Where none comes back, no empty file stays.
    let refuses = scripted(400, r#"{"error":"invalid_grant"}"#).await;
    let said = mint(&[refresh(&refuses.url("/token")), with("r")], &save).await;
    said.assert(3, &["GrantRejected", "nothing was saved"]);
    assert!(!path.exists());
    let cut = ScriptedServer::start(vec![Reply::Reset]).await;
    mint(&[refresh(&cut.url("/token")), with("r")], &save).await.assert(4, &["try it once more, soon"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_of_a_private_authority_with_mutual_tls() {
    let (mut params, key) = (CertificateParams::default(), KeyPair::generate().unwrap());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "authority");
    let authority = params.self_signed(&key).unwrap().pem();
    let issuer = rcgen::Issuer::new(params, key);
    let issue = |names: &[&str], usage| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages = vec![usage];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name)
    };
    let (certificate, key) = issue(&["127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth);
    let server = AuthorizationServer::start_tls(
        &file("server.crt", &certificate),
        &file("server.key", &key),
        &file("ca.crt", &authority),
        &authority,
    );
    let (certificate, key) = issue(&["client.example.com"], ExtendedKeyUsagePurpose::ClientAuth);
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
    let roots = object("ConfigMap", "roots", "data", json!({"ca.crt": authority}));
    let pair = object("Secret", "pair", "stringData", json!({"tls.crt": certificate, "tls.key": key}));
    let said = mint(&[source.clone(), secret(json!({})), roots.clone(), pair.clone()], &[]).await;
    said.assert(0, &[&format!("as the metadata of {} says", server.issuer()), "client_id: mutual", "300 s"]);

    let said = mint(&[source.clone(), secret(json!({})), pair.clone()], &[]).await;
    said.assert(
        1,
        &["SpecInvalid: spec.tls.caBundle, key ca.crt of ConfigMap roots: there is no such ConfigMap"],
    );
    source["spec"]["tls"].as_object_mut().unwrap().remove("caBundle");
    let said = mint(&[source, secret(json!({})), roots, pair], &[]).await;
    said.assert(4, &["EndpointUnavailable: the certificate of 127.0.0.1 is not trusted"]);
}

/// A grant refreshToken at a server of these replies, with a file to save what comes back.
fn spending(server: &ScriptedServer, file: &Path) -> (Vec<String>, String) {
    let grant = json!({"grant": {"refreshToken": {}}, "clientAuthentication": {"none": {}}});
    let objects = [oauth2(&server.url("/token"), grant), secret(json!({"refresh_token": "r"}))];
    let flags = ["mint", "-f", "-", "--save-refresh-token", file.to_str().unwrap()];
    (flags.iter().chain(&FLAGS).map(|flag| (*flag).to_owned()).collect(), documents(&objects))
}

const NEXT: &str = r#"{"access_token":"t","expires_in":300,"refresh_token":"hunter2-next"}"#;

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_does_not_lose_a_refresh_token_that_is_on_its_way() {
    let pause = Duration::from_millis(10);
    let server = ScriptedServer::start(vec![Reply::Drip(NEXT.to_owned(), pause)]).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("next");
    let (arguments, text) = spending(&server, &file);
    let mut child =
        Command::new(PROGRAM).args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    support::eventually("the request", Duration::from_secs(20), async || {
        if server.requests().is_empty() { Err("none") } else { Ok(()) }
    })
    .await;
    for signal in ["-INT", "-TERM", "-HUP"] {
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    }
    let status = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "hunter2-next");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_that_cannot_be_saved_is_printed() {
    let server = scripted(200, NEXT).await;
    let folder = tempfile::tempdir().unwrap();
    let (arguments, text) = spending(&server, &folder.path().join("next"));
    let mut command = Command::new("bash");
    // As on a full disk: no file may grow.
    command.args(["-c", r#"trap "" XFSZ; ulimit -f 0; exec "$@""#, "bash", PROGRAM]).args(arguments);
    let said = run(command, &text).await;
    said.assert(5, &["could not be saved", "\nhunter2-next\n"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxies_of_the_environment_are_used_when_asked_for() {
    let proxy = scripted(200, r#"{"access_token":"t","token_type":"Bearer","expires_in":300}"#).await;
    let mint = async |url: &str, flags: &[&str], no_proxy: &str| {
        let mut command = Command::new(PROGRAM);
        command.args(["mint", "-f", "-", "--allow-http"]).args(flags);
        command.env("HTTP_PROXY", proxy.url("")).env("NO_PROXY", no_proxy);
        run(command, &documents(&[oauth2(url, json!({})), client("c")])).await
    };
    let flag = "--proxy-from-environment";
    // A name that nobody here could resolve.
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
async fn usage_has_one_exit_code_and_the_help_has_them_all() {
    program(&["mint"], "").await.assert(1, &["<NAME>"]);
    program(&["mint", "--no-such-flag"], "").await.assert(1, &["--no-such-flag"]);
    program(&["mint", "-f", "/nonexistent/file"], "").await.assert(1, &["/nonexistent/file: No such file"]);
    program(&["mint", "-n", "payments", "api"], "").await.assert(1, &["no cluster"]);
    program(&["mint", "--help"], "").await.assert(0, &["Exit codes:", "  5  a refresh token came back"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_template_is_shown_as_it_would_be_rendered_and_checked_before_anything_is_asked() {
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
