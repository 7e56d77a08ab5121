//! Tokens of ServiceAccounts as credentials: under the rights and the admission policy of the chart, against the API server's own
//! keys, and everything that an attacker may try.

use std::process::Command;

use serde_json::{Value, json};

use super::admission_policy::refused;
use super::pernamespace::{self, as_admin, start};
use super::support::authorization_server::ClientSpec;
use super::support::chart::{Account, RELEASE, install};
use super::support::control_plane::ControlPlane;
use super::support::eventually;
use super::support::operator::Operator;
use super::support::program::{PROGRAM, ProgramOutput, run};
use super::support::scene::{SOON, Scene};
use super::support::scripted_server::{Reply, ScriptedServer};

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// The API server's issuer, which is its audience too.
pub(super) async fn cluster_issuer(scene: &Scene) -> String {
    let metadata = scene.kubectl(&["get", "--raw", "/.well-known/openid-configuration"], "").await;
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    metadata["issuer"].as_str().unwrap().to_owned()
}

/// Host and port of a URL, as they are listed: with the scheme, where that is http.
pub(super) fn host(url: &str) -> String {
    let host = url.split('/').nth(2).unwrap();
    if url.starts_with("http://") { format!("http://{host}") } else { host.to_owned() }
}

/// A namespace with a client that exchanges tokens of ServiceAccount `payments` for the issuer.
pub(super) async fn exchanging(prefix: &str) -> Scene {
    let scene = Scene::bare(prefix).await;
    let jwks = scene.kubectl(&["get", "--raw", "/openid/v1/jwks"], "").await;
    let jwks: Value = serde_json::from_str(&jwks).unwrap();
    scene
        .server
        .client(ClientSpec {
            subject_tokens: Some(json!({
                "jwks": jwks, "issuer": cluster_issuer(&scene).await, "audience": scene.server.issuer(),
                "subject": format!("system:serviceaccount:{}:payments", scene.namespace),
            })),
            ..ClientSpec::public(&scene.namespace, EXCHANGE)
        })
        .await;
    account(&scene, "payments", &format!("https://other.example.com, {}", scene.server.issuer())).await;
    scene
}

/// A ServiceAccount that consents to tokens for these audiences.
pub(super) async fn account(scene: &Scene, name: &str, audiences: &str) {
    let annotations = json!({"tokensource.dev/audiences": audiences});
    let metadata = json!({"name": name, "annotations": annotations});
    scene.apply(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})).await;
}

pub(super) fn source(scene: &Scene, name: &str, oauth2: Value, token: Value) -> Value {
    let mut provider =
        json!({"grant": {"tokenExchange": {"subject": "serviceAccountToken", "subjectTokenType": JWT}}});
    provider.as_object_mut().unwrap().extend(oauth2.as_object().unwrap().clone());
    json!({
        "apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource", "metadata": {"name": name},
        "spec": {
            "provider": {"oauth2": provider},
            "credentials": {"clientID": scene.namespace, "serviceAccountToken": token},
        },
    })
}

/// Runs a command about the TokenSources of the namespace, where the operator is too.
async fn command(scene: &Scene, arguments: &[&str]) -> ProgramOutput {
    let mut command = Command::new(PROGRAM);
    let namespaces = ["-n", &scene.namespace, "--operator-namespace", &scene.namespace];
    command.args(arguments).args(namespaces).env("KUBECONFIG", scene.control_plane.kubeconfig_path());
    run(command, "").await
}

pub(super) fn values(scene: &Scene, allowed: Value, names: &[&str]) -> Value {
    json!({
        "crds": {"enabled": false}, "namespaces": [scene.namespace], "allowHTTP": true,
        "egress": {"allow": ["127.0.0.0/8"]}, "log": {"format": "text"},
        "serviceAccountTokens": {"allowed": allowed, "names": names},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn service_account_token_is_exchanged_under_the_charts_rights_and_attempts_of_an_attacker_are_refused()
{
    let scene = exchanging("keyless").await;
    let (issuer, namespace) = (scene.server.issuer(), &scene.namespace);
    let evil = ScriptedServer::start([Reply::Json(200, "{}".into())]).await;
    // An issuer on the list, whose metadata name an endpoint that is not.
    let metadata = ScriptedServer::start([Reply::Close]).await;
    let (evil_token, other_issuer) = (evil.url("/token"), metadata.url(""));
    let members = json!({"issuer": other_issuer, "token_endpoint": evil_token});
    metadata.now(Reply::Json(200, members.to_string()));
    let allowed = json!([
        {"audience": issuer, "hosts": [host(&issuer), host(&other_issuer)]},
        {"audience": other_issuer, "hosts": [host(&other_issuer)]},
    ]);
    let values = values(&scene, allowed, &["payments", "silent", RELEASE]);
    install(namespace, values.clone()).await;
    let operator_account = Account::of(namespace).await;
    let operator = start(namespace, &values, &operator_account).await;

    scene.apply(source(&scene, "source", json!({"issuer": issuer}), json!({"name": "payments"}))).await;
    scene.ready("True TokenValid").await;
    let token = scene.value("source", "access_token").await.unwrap();
    assert!(scene.server.is_valid(&token).await);
    let last = scene.server.requests(namespace).await.last.unwrap();
    assert_eq!(last.parameters, ["grant_type", "subject_token", "subject_token_type", "client_id"]);
    // A second request needs a second token.
    scene.kubectl(&["annotate", "tokensource", "source", "tokensource.dev/refresh-requested-at=1"], "").await;
    eventually("another token", SOON, async || {
        let other = scene.value("source", "access_token").await;
        other.filter(|other| *other != token).ok_or("none")
    })
    .await;
    let facts =
        [&format!("system:serviceaccount:{namespace}:payments"), &issuer, &cluster_issuer(&scene).await];
    let explained = command(&scene, &["explain", "source"]).await;
    explained.assert(0, &["valid for 10 min"]);
    let minted = command(&scene, &["mint", "source", "--allow-http", "--egress-allow", "127.0.0.0/8"]).await;
    minted.assert(0, &["Token of the ServiceAccount", "subject_token: [redacted", "expires   20"]);
    for said in [explained, minted].map(|said| said.all()) {
        assert!(facts.iter().all(|fact| said.contains(fact.as_str())) && !said.contains("eyJ"), "{said}");
    }
    let of_tokens = || {
        let lines = ControlPlane::shared().audit(namespace);
        let ours = lines.into_iter().filter(|line| line.user == operator_account.user);
        let (refused, rest): (Vec<_>, Vec<_>) = ours.partition(|line| line.code == 403);
        assert!(refused.is_empty(), "{refused:?}");
        rest.into_iter().filter(|line| line.subresource == "token").map(|line| line.name).collect::<Vec<_>>()
    };
    // One for each request, and one that found the ServiceAccount too young for its refusal to count, where it was.
    let tokens = of_tokens();
    assert!((2..=3).contains(&tokens.len()) && tokens.iter().all(|name| name == "payments"), "{tokens:?}");

    account(&scene, "silent", "https://other.example.com").await;
    scene
        .kubectl(&["annotate", "serviceaccount", RELEASE, &format!("tokensource.dev/audiences={issuer}")], "")
        .await;
    account(&scene, "payments", &format!("{issuer},{other_issuer}")).await;
    let evil_url = json!({"tokenURL": evil_token});
    let own_url = json!({"tokenURL": scene.server.vgs_token_url()});
    for (name, oauth2, token, expected, words) in [
        (
            "audience",
            own_url.clone(),
            json!({"name": "payments", "audience": "https://vault.example.com"}),
            "False EndpointRefusedByPolicy",
            "for the audience https://vault.example.com are not allowed".to_owned(),
        ),
        (
            "host",
            evil_url.clone(),
            json!({"name": "payments", "audience": issuer}),
            "False EndpointRefusedByPolicy",
            format!("may not be sent to {}", host(&evil_token)),
        ),
        (
            "discovered",
            json!({"issuer": other_issuer}),
            json!({"name": "payments"}),
            "False EndpointRefusedByPolicy",
            format!("may not be sent to {}", host(&evil_token)),
        ),
        (
            "consent",
            own_url.clone(),
            json!({"name": "silent", "audience": issuer}),
            "False CredentialsInvalid",
            format!(
                "kubectl annotate serviceaccount silent -n {namespace} tokensource.dev/audiences={issuer}"
            ),
        ),
        (
            "own",
            own_url.clone(),
            json!({"name": RELEASE, "audience": issuer}),
            "False CredentialsInvalid",
            "belongs to the cluster or to the operator".to_owned(),
        ),
        (
            "absent",
            own_url.clone(),
            json!({"name": "default", "audience": issuer}),
            "False KubernetesAPIError",
            "forbidden".to_owned(),
        ),
    ] {
        scene.apply(source(&scene, name, oauth2, token)).await;
        let said = scene.condition(name, "Ready", expected).await;
        assert!(said.contains(&words), "{name}: {said}");
    }
    let remedy = format!("kubectl annotate serviceaccount silent -n {namespace}");
    let said = command(&scene, &["explain", "consent"]).await.all();
    assert!(said.contains("does not list this audience") && said.contains(&remedy), "{said}");
    assert_eq!(evil.requests().len(), 0, "the attacker's endpoint got nothing");
    let log = operator.stop().await;
    let shown = log + &scene.kubectl(&["get", "tokensources,events,secrets", "-o", "yaml"], "").await;
    assert!(!shown.contains("eyJ"), "a token is shown");
}

/// Asks for a token of a ServiceAccount with the rights of an operator.
async fn ask(operator: &Account, namespace: &str, name: &str, spec: Value) -> Result<String, String> {
    let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec});
    operator.kubectl(&["create", "--raw", &path, "-f", "-"], &request.to_string()).await
}

/// The operator's ServiceAccount as cluster-admin: what its roles grant does not matter. Which host is sent a token, and whether the
/// ServiceAccount consents, admission does not see: that the operator checks alone.
#[tokio::test(flavor = "multi_thread")]
async fn policy_refuses_tokens_that_the_operator_does_not_ask_for() {
    let scene = Scene::bare("keyless-policy").await;
    let (namespace, audience) = (&scene.namespace, "https://idp.example.com/\\\"a&b<c>");
    let allowed = json!([{"audience": audience, "hosts": ["idp.example.com"]}]);
    install(namespace, values(&scene, allowed, &["payments", "bound", RELEASE])).await;
    let binding = format!("cluster-admin-{namespace}");
    let subject = format!("--serviceaccount={namespace}:{RELEASE}");
    scene
        .kubectl(&["create", "clusterrolebinding", &binding, "--clusterrole=cluster-admin", &subject], "")
        .await;
    for name in ["payments", "bound"] {
        account(&scene, name, audience).await;
    }
    let operator = Account::of(namespace).await;
    let ask = async |namespace: &str, name: &str, spec: Value| ask(&operator, namespace, name, spec).await;
    let spec =
        |audiences: &[&str], seconds: u64| json!({"audiences": audiences, "expirationSeconds": seconds});
    eventually("the admission policy and the role take effect", SOON, async || {
        refused(&ask(namespace, "payments", spec(&["a"], 600)).await, "exactly one audience")
    })
    .await;
    for seconds in [600, 3600] {
        ask(namespace, "payments", spec(&[audience], seconds)).await.unwrap();
    }
    let cluster = cluster_issuer(&scene).await;
    let cluster = cluster.as_str();
    let one = "exactly one audience of serviceAccountTokens.allowed";
    for audiences in
        [&[cluster][..], &[audience, cluster], &[audience, audience], &[], &["HTTPS://idp.example.com"]]
    {
        refused(&ask(namespace, "payments", spec(audiences, 600)).await, one).unwrap();
    }
    let lifetime = "a lifetime from 600 to 3600 seconds";
    for seconds in [3601, 86400] {
        refused(&ask(namespace, "payments", spec(&[audience], seconds)).await, lifetime).unwrap();
    }
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "bound"}});
    scene.apply(secret).await;
    let bound = json!({"apiVersion": "v1", "kind": "Secret", "name": "bound"});
    let mut to_object = spec(&[audience], 600);
    to_object["boundObjectRef"] = bound;
    refused(&ask(namespace, "payments", to_object).await, "bound to no object").unwrap();
    refused(&ask(namespace, RELEASE, spec(&[audience], 600)).await, "no tokens of its own ServiceAccount")
        .unwrap();
    refused(&ask(namespace, "default", spec(&[audience], 600)).await, "in serviceAccountTokens.names only")
        .unwrap();
    for other in ["kube-system", "default"] {
        let said = ask(other, "default", spec(&[audience], 600)).await;
        refused(&said, &format!("does not serve the namespace {other}")).unwrap();
    }
    scene.kubectl(&["delete", "clusterrolebinding", &binding], "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn policy_refuses_tokens_of_kube_system_and_of_the_operator_where_all_namespaces_are_served() {
    let (scene, other) = (Scene::bare("keyless-all").await, Scene::bare("keyless-other").await);
    let (namespace, audience) = (&scene.namespace, "https://idp.example.com");
    let allowed = json!([{"audience": audience, "hosts": ["idp.example.com"]}]);
    install(namespace, json!({"crds": {"enabled": false}, "serviceAccountTokens": {"allowed": allowed}}))
        .await;
    let operator = Account::of(namespace).await;
    let spec = || json!({"audiences": [audience], "expirationSeconds": 600});
    let words = "no tokens of its own ServiceAccount and of those in kube-system";
    eventually("the admission policy and the role take effect", SOON, async || {
        refused(&ask(&operator, "kube-system", "default", spec()).await, words)
    })
    .await;
    refused(&ask(&operator, namespace, RELEASE, spec()).await, words).unwrap();
    account(&other, "payments", audience).await;
    ask(&operator, &other.namespace, "payments", spec()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_sends_no_token_that_this_cluster_accepts_and_none_by_default() {
    let scene = exchanging("keyless-cluster").await;
    let cluster = cluster_issuer(&scene).await;
    account(&scene, "payments", &cluster).await;
    let url = scene.server.vgs_token_url();
    let manifest = || {
        source(&scene, "source", json!({"tokenURL": url}), json!({"name": "payments", "audience": cluster}))
    };
    let operator = Operator::start(&scene.namespace).await;
    scene.apply(manifest()).await;
    let off = [
        "sends no tokens of ServiceAccounts",
        "--service-account-tokens-allowed",
        "serviceAccountTokens.allowed",
    ];
    scene.reports("False EndpointRefusedByPolicy", &off).await;
    operator.stop().await;
    scene.kubectl(&["delete", "tokensource", "source"], "").await;

    let pair = format!("{cluster}={}", host(&url));
    let flags = ["--allow-http", "--egress-allow", "127.0.0.0/8", "--service-account-tokens-allowed", &pair];
    let _operator = Operator::start_with(&scene.namespace, &flags).await;
    scene.apply(manifest()).await;
    scene.reports("False CredentialsInvalid", &["API server accepts tokens for the audience"]).await;
    assert_eq!(scene.mints().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn access_token_without_lifetime_is_not_believed_to_outlive_the_token_that_it_was_obtained_for() {
    let scene = Scene::bare("keyless-lifetime").await;
    let audience = "https://idp.example.com";
    account(&scene, "payments", audience).await;
    let answer = json!({"access_token": "opaque-access-token", "token_type": "Bearer"}).to_string();
    let endpoint = ScriptedServer::start([Reply::Json(200, answer)]).await;
    let url = endpoint.url("/token");
    let pair = format!("{audience}={}", host(&url));
    let flags = ["--allow-http", "--egress-allow", "127.0.0.0/8", "--service-account-tokens-allowed", &pair];
    let _operator = Operator::start_with(&scene.namespace, &flags).await;
    // 15 minutes are assumed.
    for (name, expiration, expected) in [("short", "10m", 600), ("long", "1h", 900)] {
        let token = json!({"name": "payments", "audience": audience, "expiration": expiration});
        scene.apply(source(&scene, name, json!({"tokenURL": url}), token)).await;
        scene.condition(name, "Ready", "True TokenValid").await;
        let status = scene.sources().get(name).await.unwrap().status.unwrap().token.unwrap();
        let lives = status.expires_at.as_second() - status.issued_at.as_second();
        assert!((expected - 10..=expected).contains(&lives), "{name}: {lives} s");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn service_account_token_is_exchanged_under_rights_by_namespace_where_there_is_a_binding() {
    let release = Scene::bare("keyless-release").await.namespace;
    let (bound, other) = (exchanging("keyless-bound").await, exchanging("keyless-opened").await);
    let issuer = bound.server.issuer();
    let mut values = pernamespace::values(&[&bound.namespace, &other.namespace], &[&bound.namespace]);
    values["serviceAccountTokens"] =
        json!({"allowed": [{"audience": issuer, "hosts": [host(&issuer)]}], "names": ["payments"]});
    install(&release, values.clone()).await;
    let operator_account = Account::of(&release).await;
    let sources = ["auth", "can-i", "list", "tokensources.tokensource.dev", "-A"];
    eventually("the roles take effect", SOON, async || operator_account.kubectl(&sources, "").await).await;
    for scene in [&bound, &other] {
        scene.apply(source(scene, "source", json!({"issuer": issuer}), json!({"name": "payments"}))).await;
    }
    let _operator = start(&release, &values, &operator_account).await;
    bound.ready("True TokenValid").await;
    let token = bound.value("source", "access_token").await.unwrap();
    assert!(bound.server.is_valid(&token).await);

    // Elsewhere it says what is missing, and may not make the token by itself.
    let message = other.ready("False NamespaceNotOpened").await;
    let spec = json!({"audiences": [issuer], "expirationSeconds": 600});
    let said = ask(&operator_account, &other.namespace, "payments", spec.clone()).await.unwrap_err();
    assert!(said.contains("cannot create resource \"serviceaccounts/token\""), "{said}");
    assert_eq!(other.mints().await, 0);
    as_admin(&other, pernamespace::command(&message)).await;
    other.ready("True TokenValid").await;
    assert_eq!(other.mints().await, 1);
    ask(&operator_account, &other.namespace, "payments", spec).await.unwrap();
    let said = ask(&operator_account, &other.namespace, "default", json!({"audiences": [issuer]})).await;
    assert!(said.unwrap_err().contains("serviceaccounts \"default\" is forbidden"));
}
