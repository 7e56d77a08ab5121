//! `tokensource-operator mint -n NS NAME`: what the cluster has, asked for as a person would.

use std::process::{Command, Output};

use serde_json::json;

use super::rotation::{director, director_source, refreshed};
use super::support::control_plane::ControlPlane;
use super::support::operator::Operator;
use super::support::scene::Scene;

async fn mint(scene: &Scene, name: &str, flags: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokensource-operator"));
    command
        .args(["mint", "-n", &scene.namespace, name, "--allow-http", "--egress-allow", "127.0.0.0/8"])
        .args(flags)
        .env("KUBECONFIG", ControlPlane::shared().kubeconfig_path());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn words(output: &Output) -> (i32, String) {
    let all = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    (output.status.code().unwrap(), String::from_utf8(all).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_cluster_has_is_minted_from_and_not_written_to() {
    let scene = Scene::new("mint", 300).await;
    scene.apply(scene.source(json!({}))).await;
    let (code, said) = words(&mint(&scene, "source", &[]).await);
    assert_eq!(code, 0, "{said}");
    for part in [
        format!("TokenSource {}/source, provider vgs", scene.namespace),
        "150 s after issue at the latest".to_owned(),
        "Target Secret token (Opaque)".to_owned(),
    ] {
        assert!(said.contains(&part), "{said}");
    }
    assert_eq!((scene.mints().await, scene.token().await), (1, None));

    let (code, said) = words(&mint(&scene, "nobody", &[]).await);
    assert!(code == 1 && said.contains("/nobody does not exist"), "{code} {said}");
    scene.kubectl(&["delete", "secret", "credentials"], "").await;
    let (code, said) = words(&mint(&scene, "source", &[]).await);
    assert!(
        code == 2 && said.contains("CredentialsNotFound: Secret credentials does not exist"),
        "{code} {said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_that_the_operator_keeps_is_left_to_it() {
    let scene = director("mint-rotated", 300, true).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(director_source(&scene, "source")).await;
    scene.ready("True TokenValid").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("next");
    let (code, said) =
        words(&mint(&scene, "source", &["--save-refresh-token", file.to_str().unwrap()]).await);
    assert!(code == 1 && said.contains("the operator keeps the refresh token"), "{code} {said}");
    assert!(!file.exists());
    // And goes on with it.
    refreshed(&scene, "1").await;
    assert_eq!(scene.mints().await, 2);
}
