//! etcd is restored from a snapshot: resourceVersions go back, and a watch that continues from a later one stays silent.

use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::support::authorization_server::http_client;
use super::support::chart::tool;
use super::support::control_plane::ControlPlane;
use super::support::eventually;
use super::support::operator::Operator;
use super::support::program::output;
use super::support::scene::{SOON, Scene};

/// A snapshot of etcd, by its maintenance API (JSON over HTTP; `etcdctl snapshot save` uses the same).
async fn snapshot(control_plane: &ControlPlane) -> Vec<u8> {
    let url = std::fs::read_to_string(control_plane.dir().join("etcd-url")).unwrap();
    let url = format!("{}/v3/maintenance/snapshot", url.trim());
    let parts = http_client().post(url).body("{}").send().await.unwrap().text().await.unwrap();
    let part = |line: &str| {
        let part: serde_json::Value = serde_json::from_str(line).unwrap();
        STANDARD.decode(part["result"]["blob"].as_str().unwrap_or_default()).unwrap()
    };
    parts.lines().flat_map(part).collect()
}

/// Restores it as an administrator does, with etcdutl and all components stopped.
fn restore(control_plane: &ControlPlane, snapshot: &[u8]) {
    let dir = control_plane.dir();
    std::fs::write(dir.join("snapshot"), snapshot).unwrap();
    let mut command = Command::new(tool("etcdutl", "etcdutl"));
    command.args(["snapshot", "restore"]).arg(dir.join("snapshot"));
    command.arg("--data-dir").arg(dir.join("restoring"));
    let output = output(command, "");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // At once for the script that waits for it.
    std::fs::rename(dir.join("restoring"), dir.join("restored")).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-long"]
async fn restored_etcd_is_read_anew_and_costs_no_token_request_by_itself() {
    let control_plane = ControlPlane::of_its_own();
    let scene = Scene::new_in(control_plane, "restored", 600).await;
    let _operator = Operator::replica(&control_plane.kubeconfig_path(), &scene.namespace, "one", &[]).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    let first = scene.token().await.unwrap();
    let snapshot = snapshot(control_plane).await;

    // What is lost with the restoration: other credentials, another TokenSource, and many resourceVersions.
    scene.server.set_secret(&scene.namespace, "lost").await;
    scene.credentials("lost").await;
    scene.new_token(Some(&first)).await;
    let mut later = scene.source(json!({"target": {"name": "later"}}));
    later["metadata"]["name"] = json!("later");
    scene.apply(later).await;
    scene.condition("later", "Ready", "True TokenValid").await;
    for n in 0..100 {
        scene.patch("secret", "credentials", json!({"metadata": {"labels": {"n": n.to_string()}}})).await;
    }
    let mints = scene.mints().await;
    assert_eq!(mints, 3);

    restore(control_plane, &snapshot);
    scene.server.set_secret(&scene.namespace, "right").await;
    eventually("the API server is back with what was before", Duration::from_secs(90), async || match scene
        .secrets()
        .get("token")
        .await
        .map(|secret| secret.data.unwrap_or_default())
    {
        Ok(data) if data["access_token"].0 == first.as_bytes() => Ok(()),
        Ok(_) => Err("the later token".to_owned()),
        Err(error) => Err(error.to_string()),
    })
    .await;
    eventually("the operator notices", SOON, async || match _operator.said("resourceVersions went back") {
        0 => Err(_operator.log()),
        _ => Ok(()),
    })
    .await;
    scene.source_is_seen().await;
    scene.ready("True TokenValid").await;
    assert_eq!((scene.mints().await, scene.token().await), (mints, Some(first.clone())));

    // It follows what happens now, far below the resourceVersion at which its watches had been.
    scene.server.set_secret(&scene.namespace, "new").await;
    scene.credentials("new").await;
    let second = scene.new_token(Some(&first)).await;
    scene.ready("True TokenValid").await;
    assert!(scene.server.is_valid(&second).await);
    assert_eq!(scene.mints().await, mints + 1);
}
