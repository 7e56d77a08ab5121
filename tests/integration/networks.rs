//! The networks of Services, which are no public ones.

use std::process::Command;

use serde_json::json;

use super::failures::token_url;
use super::support::chart::{Account, install};
use super::support::eventually;
use super::support::operator::Operator;
use super::support::program::{PROGRAM, run};
use super::support::scene::{SOON, Scene};

/// Starts the operator with the chart's ClusterRole, for this namespace alone.
async fn operator(scene: &Scene, account: &Account, name: &str) -> Operator {
    let selector = format!("kubernetes.io/metadata.name={}", scene.namespace);
    let flags = [
        &["run", "--admin-address", "127.0.0.1:0", "--leader-election-namespace", &scene.namespace][..],
        &["--namespace-selector", &selector],
    ];
    Operator::launch(&account.kubeconfig(), name, &flags.concat()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn network_of_services_is_refused_though_its_addresses_look_public() {
    let scene = Scene::new("networks", 600).await;
    let name = &scene.namespace;
    let network = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": name},
        "spec": {"cidrs": ["34.118.224.0/20"]},
    });
    scene.apply(network).await;
    let values = json!({
        "crds": {"enabled": false},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
    });
    install(name, values).await;
    let account = Account::of(name).await;
    let who = format!("--as={}", account.user);
    let may = ["auth", "can-i", "list", "servicecidrs.networking.k8s.io", &who];
    eventually("the ClusterRole takes effect", SOON, async || scene.try_kubectl(&may, "").await).await;

    let first = operator(&scene, &account, "first").await;
    scene.apply(scene.source(token_url("https://34.118.230.1/token"))).await;
    let flag = "--egress-allow 34.118.230.1:443";
    scene.reports("False EndpointRefusedByPolicy", &["an address of an internal network", flag]).await;
    first.stop().await;
    // `mint` knows them with the user's rights.
    let mut mint = Command::new(PROGRAM);
    mint.args(["mint", "-n", name, "source"]).env("KUBECONFIG", scene.control_plane.kubeconfig_path());
    run(mint, "").await.assert(1, &["EndpointRefusedByPolicy", "an address of an internal network"]);

    // Without the right, the operator works without that knowledge.
    let role = format!("tokensource-operator.{name}");
    let rules = json!([{"apiGroups": ["tokensource.dev"], "resources": ["*"], "verbs": ["*"]},
        {"apiGroups": ["", "events.k8s.io"], "resources": ["secrets", "namespaces", "events"], "verbs": ["*"]}]);
    scene.patch("clusterrole", &role, json!({"rules": rules})).await;
    eventually("the right is gone", SOON, async || match scene.try_kubectl(&may, "").await {
        Ok(said) => Err(said),
        Err(_) => Ok(()),
    })
    .await;
    let second = operator(&scene, &account, "second").await;
    assert_eq!(second.said("ServiceCIDRs cannot be listed"), 1);
    eventually("the operator is ready", SOON, async || match second.admin("/readyz").await {
        (200, ..) => Ok(()),
        other => Err(other),
    })
    .await;
    scene.kubectl(&["delete", "servicecidr", name, "--wait=false"], "").await;
}
