//! `tokensource-operator explain`, with the permissions of an administrator and with few.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::prompt::{environment, folder, pod};
use super::support::account::TestAccount;
use super::support::control_plane::ControlPlane;
use super::support::eventually;
use super::support::operator::Operator;
use super::support::program::{PROGRAM, run};
use super::support::scene::{SOON, Scene};

fn everything() -> PathBuf {
    ControlPlane::shared().kubeconfig_path()
}

/// The exit code, and the output.
async fn explain(scene: &Scene, kubeconfig: &Path, name: &str, flags: &[&str]) -> (i32, String) {
    let mut command = Command::new(PROGRAM);
    command.args(["explain", "-n", &scene.namespace, name]).args(flags).env("KUBECONFIG", kubeconfig);
    let said = run(command, "").await;
    (said.code, said.all())
}

/// Waits until it ends with this code and its output contains all of `parts`.
pub(super) async fn explained(scene: &Scene, kubeconfig: &Path, code: i32, parts: &[&str]) -> String {
    eventually("the explanation", SOON, async || {
        let (ended, said) = explain(scene, kubeconfig, "source", &[]).await;
        if ended == code && parts.iter().all(|part| said.contains(part)) {
            Ok(said)
        } else {
            Err((ended, said))
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_follows_source_from_unreconciled_to_used_by_pods() {
    let scene = Scene::new("explain", 300).await;
    scene.apply(scene.source(json!({}))).await;
    let unseen = ["there is no valid token", "no operator has reconciled it", "token does not exist"];
    explained(&scene, &everything(), 2, &unseen).await;

    let operator = Operator::start(&scene.namespace).await;
    pod(&scene, "web", "Running", folder()).await;
    pod(&scene, "waits", "Pending", folder()).await;
    let well = [
        "nothing is wrong",
        "token holds it as it was written, and status agrees",
        "Secret credentials has what is needed",
        "is not running yet (Pending)",
    ];
    let said = explained(&scene, &everything(), 0, &well).await;
    let token = scene.token().await.unwrap();
    assert!(!said.contains(&token) && !said.contains("right"), "{said}");

    pod(&scene, "batch", "Running", environment()).await;
    let started = json!({"status": {"startTime": "2026-01-01T00:00:00Z"}}).to_string();
    scene
        .kubectl(&["patch", "pod", "batch", "--subresource=status", "--type=merge", "-p", &started], "")
        .await;
    let said =
        explained(&scene, &everything(), 3, &["! batch", "environment variable", "has ended by now"]).await;
    assert!(said.contains("valid, but something needs attention"), "{said}");
    let (code, said) = explain(&scene, &everything(), "source", &["-o", "json"]).await;
    let report: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, &report["verdict"]), (3, &json!("attention")));
    let ways: Vec<_> =
        report["readers"].as_array().unwrap().iter().map(|it| (&it["pod"], &it["way"])).collect();
    assert!(ways.contains(&(&json!("batch"), &json!("environment variable"))), "{said}");
    operator.stop().await;
    assert_eq!(scene.mints().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_failure_shows_cause_and_remedy() {
    let scene = Scene::new("explain-failed", 300).await;
    scene.credentials("wrong").await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    let parts = [
        "there is no valid token for the present spec",
        "! Last failure ClientRejected, once",
        "compare client id, client secret and clientAuthentication",
        "another attempt at",
        "Ready           False, ClientRejected",
    ];
    explained(&scene, &everything(), 2, &parts).await;
    scene.kubectl(&["delete", "secret", "credentials"], "").await;
    explained(&scene, &everything(), 2, &["Secret credentials does not exist: create it"]).await;
    let (code, said) = explain(&scene, &everything(), "nobody", &[]).await;
    assert!(
        code == 1 && said.contains(&format!("TokenSource {}/nobody does not exist", scene.namespace)),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn explain_missing_permissions_are_listed_line_by_line() {
    let scene = Scene::new("explain-rights", 300).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    let account = TestAccount::new(&scene, "viewer").await;
    let (code, said) = explain(&scene, &account.kubeconfig(), "source", &[]).await;
    assert!(code == 1 && said.contains("cannot get resource \"tokensources\""), "{code} {said}");

    let sources = json!({"apiGroups": ["tokensource.dev"], "resources": ["tokensources"], "verbs": ["get"]});
    account.may(json!([sources])).await;
    let namespace = &scene.namespace;
    let said = explained(&scene, &account.kubeconfig(), 0, &["is valid until"]).await;
    for part in [
        format!(
            "you may not read Secret token in {namespace}, so what status says of the token is taken for true"
        ),
        format!(
            "you may not read Secret credentials in {namespace}, so whether the credentials are complete is not known"
        ),
        format!("you may not list pods in {namespace}, so who uses Secret token, and how, is not known"),
    ] {
        assert!(said.contains(&part), "{said}");
    }

    let pods = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]});
    account.may(json!([sources, pods])).await;
    let said = explained(&scene, &account.kubeconfig(), 0, &["No pod uses the Secret"]).await;
    assert!(!said.contains("list pods") && said.contains("you may not read Secret token"), "{said}");
}
