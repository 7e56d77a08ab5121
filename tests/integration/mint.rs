//! `tokensource-operator mint -n NS NAME`: a token request with what is in the cluster.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::issuers::{client, issuer, names, released};
use super::rotation::{director, director_source, refreshed};
use super::support::account::TestAccount;
use super::support::authorization_server::Behaviour;
use super::support::control_plane::ControlPlane;
use super::support::eventually;
use super::support::operator::Operator;
use super::support::program::{PROGRAM, ProgramOutput, run};
use super::support::scene::{SOON, Scene};

async fn mint(scene: &Scene, name: &str, flags: &[&str]) -> ProgramOutput {
    mint_with(&ControlPlane::shared().kubeconfig_path(), scene, name, flags).await
}

async fn mint_with(kubeconfig: &Path, scene: &Scene, name: &str, flags: &[&str]) -> ProgramOutput {
    let mut command = Command::new(PROGRAM);
    command
        .args(["mint", "-n", &scene.namespace, name, "--allow-http", "--egress-allow", "127.0.0.0/8"])
        .args(flags)
        .env("KUBECONFIG", kubeconfig);
    run(command, "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn mint_from_cluster_prints_token_and_writes_nothing() {
    let scene = Scene::new("mint", 300).await;
    scene.apply(scene.source(json!({}))).await;
    let title = format!("TokenSource {}/source, provider vgs", scene.namespace);
    let words = [&title, "150 s after issue at the latest", "Target Secret token (Opaque)"];
    mint(&scene, "source", &[]).await.assert(0, &words);
    assert_eq!((scene.mints().await, scene.token().await), (1, None));

    mint(&scene, "nobody", &[]).await.assert(1, &["/nobody does not exist"]);
    scene.kubectl(&["delete", "secret", "credentials"], "").await;
    let words = "CredentialsNotFound: Secret credentials does not exist";
    mint(&scene, "source", &[]).await.assert(2, &[words]);
}

#[tokio::test(flavor = "multi_thread")]
async fn mint_does_not_use_refresh_token_stored_by_operator() {
    let scene = director("mint-rotated", 300, true).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(director_source(&scene, "source")).await;
    scene.ready("True TokenValid").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("next");
    let said = mint(&scene, "source", &["--save-refresh-token", file.to_str().unwrap()]).await;
    said.assert(1, &["the operator keeps the refresh token"]);
    let mut thief = director_source(&scene, "thief");
    thief["spec"]["credentials"]["secretRef"]["name"] = json!("source-refresh-token");
    scene.apply(thief).await;
    let said = mint(&scene, "thief", &["--save-refresh-token", file.to_str().unwrap()]).await;
    said.assert(2, &["stores the refresh token of TokenSource source"]);
    assert!(!file.exists());
    // The operator continues with it.
    refreshed(&scene, "1").await;
    assert_eq!(scene.mints().await, 2);
}

/// The Deployment of an operator with these arguments, without pods.
async fn deploy_operator(release: &Scene, arguments: &[&str]) {
    let labels = json!({"app.kubernetes.io/part-of": "tokensource-operator"});
    let pods = json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "operator", "image": "o", "args": arguments}]}});
    let spec = json!({"replicas": 0, "selector": {"matchLabels": labels}, "template": pods});
    release
        .apply(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "o", "labels": labels}, "spec": spec}))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mint_refuses_what_the_operator_refuses_by_its_flags() {
    let scene = Scene::new("mint-flags", 300).await;
    scene.apply(scene.source(json!({}))).await;
    let operator = ["--operator-namespace", &scene.namespace];
    deploy_operator(&scene, &["run", "--require-credentials-label"]).await;
    let remedy = format!("label secret credentials -n {} tokensource.dev/credentials=true", scene.namespace);
    mint(&scene, "source", &operator).await.assert(2, &["(--require-credentials-label): kubectl ", &remedy]);
    let issuers = format!("--issuers-namespace={}", scene.namespace);
    deploy_operator(&scene, &["run", &issuers, "--require-issuer"]).await;
    mint(&scene, "source", &operator).await.assert(1, &["EndpointRefusedByPolicy: ", "(--require-issuer"]);
    assert_eq!(scene.mints().await, 0);

    deploy_operator(&scene, &["run", "--require-credentials-label"]).await;
    scene.kubectl(&remedy.split(' ').collect::<Vec<_>>(), "").await;
    mint(&scene, "source", &operator).await.assert(0, &["Answer: a token"]);
}

/// What the issuer lends is read with the user's rights, and judged as by the operator.
#[tokio::test(flavor = "multi_thread")]
async fn mint_through_an_issuer_is_the_platforms_and_keeps_the_issuers_bounds() {
    let (release, tenant) = (Scene::bare("mint-lent").await, Scene::bare("mint-tenant").await);
    let operator = release.namespace.as_str();
    client(&release).await;
    let mut lends = issuer(&release, names(&[&release]));
    release.apply(lends.clone()).await;
    let source = json!({
        "apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource", "metadata": {"name": "source"},
        "spec": {"issuerRef": {"name": operator}, "request": {"scopes": ["read"]}},
    });
    tenant.apply(source.clone()).await;
    let at = ["--operator-namespace", operator];
    let mint = async || mint(&tenant, "source", &at).await;

    // An operator that serves no issuers, those of another one, and those for other namespaces.
    let deployed = async |arguments: &[&str]| deploy_operator(&release, arguments).await;
    deployed(&["run"]).await;
    mint().await.assert(1, &["IssuerNotReady: ", "this operator serves no ClusterTokenIssuers"]);
    let issuers = format!("--issuers-namespace={operator}");
    deployed(&["run", &issuers]).await;
    let not_served =
        format!("NotAllowedByIssuer: ClusterTokenIssuer {operator} does not exist, or is not for");
    mint().await.assert(1, &[&not_served]);
    deployed(&["run", &issuers, &format!("--issuers-controller={operator}")]).await;
    mint().await.assert(1, &[&not_served]);
    lends["spec"]["namespaces"] =
        json!({"selector": {"matchLabels": {"kubernetes.io/metadata.name": tenant.namespace}}});
    release.apply(lends).await;

    mint()
        .await
        .assert(2, &["Secret idp-client is not labelled tokensource.dev/credentials=true, and an issuer"]);
    assert_eq!(release.mints().await, 0);
    released(&release).await;
    let title = format!("TokenSource {}/source, provider oauth2", tenant.namespace);
    mint().await.assert(0, &[&title, "scope: read", "Answer: a token"]);
    assert_eq!(release.mints().await, 1);

    let body =
        json!({"access_token": "wide", "token_type": "Bearer", "expires_in": 300, "scope": "read admin"});
    let wide = Behaviour { status: Some(200), body: Some(body), times: Some(1), ..Behaviour::default() };
    release.server.behave(operator, Some(wide)).await;
    mint().await.assert(
        3,
        &[
            "Answer: a token",
            "NotAllowedByIssuer: the endpoint granted the scope read admin, of which ClusterTokenIssuer",
        ],
    );
    let mut more = source;
    more["spec"]["request"]["scopes"] = json!(["admin"]);
    tenant.apply(more.clone()).await;
    mint().await.assert(1, &["NotAllowedByIssuer: ", "does not allow the scope admin"]);
    more["spec"]["request"]["scopes"] = json!(["read"]);
    tenant.apply(more).await;

    // A tenant, and a person who may read issuers and not the platform's Secrets.
    let owner = TestAccount::new(&tenant, "owner").await;
    let rules = json!([{"apiGroups": ["tokensource.dev"], "resources": ["tokensources"], "verbs": ["get"]}]);
    owner.may(rules).await;
    let kubeconfig = owner.kubeconfig();
    let whose =
        "through a ClusterTokenIssuer `mint` is the platform's: it needs `get` of clustertokenissuers";
    let as_owner = async |flags: &[&str]| mint_with(&kubeconfig, &tenant, "source", flags).await;
    as_owner(&[]).await.assert(1, &["with the Secrets of ClusterTokenIssuers, is not known", whose]);
    let unread = format!("ClusterTokenIssuer {operator} cannot be read: clustertokenissuers");
    as_owner(&at).await.assert(1, &[&unread, "cannot get resource", whose]);
    let subject = format!("--serviceaccount={}:owner", tenant.namespace);
    let may = ["create", "clusterrole", operator, "--verb=get", "--resource=clustertokenissuers,namespaces"];
    release.kubectl(&may, "").await;
    let bound = ["create", "clusterrolebinding", operator, "--clusterrole", operator, &subject];
    release.kubectl(&bound, "").await;
    let unread = format!("Secret {operator}/idp-client cannot be read: secrets");
    eventually("the role takes effect", SOON, async || {
        let said = as_owner(&at).await;
        let is_refused = said.code == 2 && said.all().contains(&unread) && said.all().contains(whose);
        if is_refused { Ok(()) } else { Err(said.all()) }
    })
    .await;
    for kind in ["clusterrolebinding", "clusterrole"] {
        release.kubectl(&["delete", kind, operator], "").await;
    }
}
