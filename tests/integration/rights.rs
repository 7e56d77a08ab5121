//! The operator under the chart's own ServiceAccount: the permissions of the chart suffice for everything that it does, and
//! none is unused.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};

use super::prompt::{folder, pod};
use super::rotation::{director, director_source};
use super::support::account;
use super::support::authorization_server::ClientSpec;
use super::support::chart::{Account, install, render};
use super::support::control_plane::{AuditLine, ControlPlane};
use super::support::eventually;
use super::support::operator::Operator;
use super::support::program::{PROGRAM, output_beside, text};
use super::support::scene::{SOON, Scene};

/// Verb and resource of all rules of the chart's Roles.
fn granted(namespace: &str, values: &Value) -> BTreeSet<String> {
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect()
    };
    let mut granted = BTreeSet::new();
    for role in render(namespace, values).iter().filter(|object| object["kind"] == "Role") {
        for rule in role["rules"].as_array().unwrap() {
            for resource in texts(&rule["resources"]) {
                granted.extend(texts(&rule["verbs"]).iter().map(|verb| format!("{verb} {resource}")));
            }
        }
    }
    granted
}

/// The permissions that a request needed.
fn used(line: &AuditLine) -> Vec<String> {
    let separator = if line.subresource.is_empty() { "" } else { "/" };
    let resource = format!("{}{separator}{}", line.resource, line.subresource);
    let mut used = vec![format!("{} {resource}", line.verb)];
    if line.verb == "patch" && line.code == 201 {
        // An apply that creates an object needs `create`, too.
        used.push(format!("create {resource}"));
    }
    used
}

#[tokio::test(flavor = "multi_thread")]
async fn chart_permissions_are_exactly_those_the_operator_uses() {
    // A rotating refresh token, a refresh, and a certificate authority.
    let scene = director("rights", 20, true).await;
    let namespace = &scene.namespace;
    let values = json!({
        "crds": {"enabled": false},
        "namespaces": [namespace],
        "promptPropagation": {"enabled": true},
    });
    install(namespace, values.clone()).await;
    let account = Account::of(namespace).await;
    let _operator = Operator::replica(&account.kubeconfig(), namespace, "replica", &[]).await;

    pod(&scene, "reader", "Running", folder()).await;
    let mut source = director_source(&scene, "source");
    source["spec"]["target"]["propagation"] = json!("Prompt");
    scene.apply(source).await;
    let first = scene.new_token(None).await;
    scene.new_token(Some(&first)).await;
    scene.ready("True TokenValid").await;
    scene.secrets_are_seen().await;
    // A changed type needs a deletion.
    scene
        .patch(
            "tokensource",
            "source",
            json!({"spec": {"target": {"template": {"type": "example.com/token"}}}}),
        )
        .await;
    scene.ready("True TokenValid").await;

    // Handover of a Secret.
    let id = format!("{namespace}-adopter");
    let method = "client_secret_post";
    let client = ClientSpec { id: id.clone(), token_endpoint_auth_method: method, ..ClientSpec::default() };
    scene.server.client(client).await;
    scene.secret("adopter", &[("client_id", &id), ("client_secret", "secret")]).await;
    scene.secret("theirs", &[("kept", "theirs")]).await;
    scene.kubectl(&["annotate", "secret", "theirs", "tokensource.dev/adopt=adopter"], "").await;
    let mut adopter = scene.source(json!({
        "credentials": {"secretRef": {"name": "adopter"}},
        "target": {"name": "theirs"},
    }));
    adopter["metadata"]["name"] = json!("adopter");
    scene.apply(adopter).await;
    scene.condition("adopter", "Ready", "True TokenValid").await;

    let mut private = scene.source(json!({
        "provider": {"vgs": {"tokenURL": "https://127.0.0.1:1/token"}},
        "tls": {"caBundle": {"configMapKeyRef": {"name": "authorities", "key": "ca.crt"}}},
        "target": {"name": "private-token"},
    }));
    private["metadata"]["name"] = json!("private");
    scene.secret("client", &[("client_id", "a"), ("client_secret", "b")]).await;
    private["spec"]["credentials"]["secretRef"]["name"] = json!("client");
    scene.apply(private).await;
    scene.condition("private", "Ready", "False SpecInvalid").await;

    let granted = granted(namespace, &values);
    eventually("each permission is used", SOON, async || {
        let lines = ControlPlane::shared().audit(namespace);
        let ours: Vec<_> = lines.iter().filter(|line| line.user == account.user).collect();
        let refused: Vec<_> = ours.iter().filter(|line| line.code == 403).collect();
        assert!(refused.is_empty(), "{refused:?}");
        let used: BTreeSet<_> = ours.iter().flat_map(|line| used(line)).collect();
        if used == granted { Ok(()) } else { Err((used, granted.clone())) }
    })
    .await;

    let runbook = include_str!("../../docs/runbooks/TokenSourceNoLeader.md");
    let question = runbook.split("auth can-i").nth(1).unwrap().split("```").next().unwrap();
    let question = question.replace('\\', " ").replace("NAMESPACE", namespace);
    let question: Vec<_> = ["auth", "can-i"].into_iter().chain(question.split_whitespace()).collect();
    assert_eq!(scene.kubectl(&question, "").await.trim(), "yes", "{question:?}");
}

/// The operator of the namespace cannot start with the rights of this account, and says all of `words`.
async fn start_ends(scene: &Scene, account: &account::TestAccount<'_>, words: &[&str]) {
    let namespace = scene.namespace.as_str();
    let mut command = Command::new(PROGRAM);
    let scope = ["--namespace", namespace, "--leader-election-namespace", namespace];
    command.args(["run", "--admin-address", "127.0.0.1:0"]).args(scope);
    command.env("KUBECONFIG", account.kubeconfig()).env("POD_NAME", "poor");
    let ended = output_beside(command, "").await;
    let said = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    for words in words {
        assert!(said.contains(words), "{words:?} is not in:\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_sources_end_start_with_remedy() {
    let scene = Scene::bare("no-sources").await;
    let account = account::TestAccount::new(&scene, "poor").await;
    let forbidden = "TokenSources cannot be listed: tokensources.tokensource.dev is forbidden";
    start_ends(&scene, &account, &[forbidden, "kubectl apply -f crds/", "may list and watch them"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_lease_ends_start_with_remedy() {
    let scene = Scene::bare("no-lease").await;
    let account = account::TestAccount::new(&scene, "poor").await;
    let sources =
        json!({"apiGroups": ["tokensource.dev"], "resources": ["tokensources"], "verbs": ["list", "watch"]});
    account.may(json!([sources])).await;
    let namespace = &scene.namespace;
    let lease =
        format!("the Lease {namespace}/tokensource-operator for leader election cannot be read: leases");
    let words =
        [lease.as_str(), "is forbidden", "grant get, create and update of leases", "--leader-elect=false"];
    start_ends(&scene, &account, &words).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn target_without_label_and_record_is_refused_until_handover() {
    let scene = Scene::new("lost-both", 600).await;
    let namespace = &scene.namespace;
    install(namespace, json!({"crds": {"enabled": false}, "namespaces": [namespace]})).await;
    let account = Account::of(namespace).await;
    eventually("the admission policies are in effect", SOON, async || {
        let label = ["-n", namespace, "label", "secret", "credentials", "a=b", "--dry-run=server"];
        match account.kubectl(&label, "").await {
            Err(said) if said.contains("did not create") => Ok(()),
            other => Err(other),
        }
    })
    .await;
    let _operator = Operator::replica(&account.kubeconfig(), namespace, "replica", &[]).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    let token = scene.token().await;

    let both = json!({"labels": {"app.kubernetes.io/managed-by": null}, "annotations": {"tokensource.dev/record": null}});
    scene.patch("secret", "token", json!({"metadata": both})).await;
    let remedy = "annotate it with tokensource.dev/adopt and the name of the TokenSource";
    scene.reports("False TargetRefused", &["Secret token", "did not create", remedy]).await;
    scene.condition("source", "Reconciling", "True TargetRefused").await;
    assert_eq!(
        (scene.mints().await, scene.token().await),
        (1, token.clone()),
        "refused before a token is asked for"
    );

    scene.kubectl(&["annotate", "secret", "token", "tokensource.dev/adopt=source"], "").await;
    scene.new_token(token.as_deref()).await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 2);
}
