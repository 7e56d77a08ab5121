//! `tokensource-operator mint -n NS NAME`: a token request with what is in the cluster.

use std::process::Command;

use serde_json::json;

use super::rotation::{director, director_source, refreshed};
use super::support::control_plane::ControlPlane;
use super::support::operator::Operator;
use super::support::program::{PROGRAM, ProgramOutput, run};
use super::support::scene::Scene;

async fn mint(scene: &Scene, name: &str, flags: &[&str]) -> ProgramOutput {
    let mut command = Command::new(PROGRAM);
    command
        .args(["mint", "-n", &scene.namespace, name, "--allow-http", "--egress-allow", "127.0.0.0/8"])
        .args(flags)
        .env("KUBECONFIG", ControlPlane::shared().kubeconfig_path());
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
