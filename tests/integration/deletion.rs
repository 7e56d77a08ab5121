//! Deletion in every order: nothing hangs, no token is requested for it, owned Secrets are deleted, and retained ones stay.
//! (With the operator running: `ownership`.)

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use serde_json::{Value, json};

use super::rotation::{director, director_source};
use super::support::authorization_server::Behaviour;
use super::support::control_plane::ControlPlane;
use super::support::eventually;
use super::support::operator::Operator;
use super::support::scene::{COLLECTED, SOON, Scene};

const FLAGS: [&str; 3] = ["--allow-http", "--egress-allow", "127.0.0.0/8"];
const CRD: &str = include_str!("../../crds/tokensource.dev_tokensources.yaml");

fn retain() -> Value {
    json!({"target": {"name": "kept", "deletionPolicy": "Retain"}})
}

/// A second TokenSource, `retained`, whose target `kept` stays.
async fn apply_retained(scene: &Scene) {
    let mut retained = scene.source(retain());
    retained["metadata"]["name"] = json!("retained");
    scene.apply(retained).await;
    scene.condition("retained", "Ready", "True TokenValid").await;
}

async fn secret_names(scene: &Scene) -> Vec<String> {
    let secrets = scene.secrets().list(&Default::default()).await.unwrap().items;
    secrets.into_iter().filter_map(|secret| secret.metadata.name).collect()
}

pub(super) async fn namespace_is_gone(scene: &Scene) {
    let namespaces: Api<Namespace> = Api::all(scene.client.clone());
    eventually("the namespace is gone", COLLECTED, async || {
        match namespaces.get_opt(&scene.namespace).await.unwrap() {
            None => Ok(()),
            Some(namespace) => Err(namespace.status),
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_source_without_operator_deletes_target_and_does_not_hang() {
    for cascade in ["background", "foreground"] {
        let scene = Scene::new(&format!("dead-{cascade}"), 600).await;
        let operator = Operator::start(&scene.namespace).await;
        scene.apply(scene.source(json!({}))).await;
        scene.ready("True TokenValid").await;
        apply_retained(&scene).await;
        let source = scene.sources().get("source").await.unwrap();
        assert_eq!(source.metadata.finalizers, None);
        operator.kill();

        let cascade = format!("--cascade={cascade}");
        scene.kubectl(&["delete", "tokensource", "source", "retained", &cascade, "--timeout=30s"], "").await;
        scene.gone("secret", "token").await;
        assert_eq!(secret_names(&scene).await, ["credentials", "kept"]);
        assert_eq!(scene.mints().await, 2);

        // A new operator finds nothing to do.
        let operator = Operator::start(&scene.namespace).await;
        scene.apply(scene.source(json!({"suspend": true}))).await;
        scene.ready("False Suspended").await;
        assert_eq!(scene.mints().await, 2);
        operator.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_namespace_without_operator_completes() {
    let scene = director("dead-namespace", 2_592_000, true).await;
    let operator = Operator::start(&scene.namespace).await;
    scene.apply(director_source(&scene, "source")).await;
    scene.ready("True TokenValid").await;
    assert_eq!(secret_names(&scene).await, ["credentials", "source-refresh-token", "token"]);
    operator.kill();
    scene.kubectl(&["delete", "namespace", &scene.namespace, "--wait=false"], "").await;
    namespace_is_gone(&scene).await;
    assert_eq!(scene.mints().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_source_during_first_token_request_leaves_no_secret() {
    let scene = Scene::new("meanwhile", 600).await;
    let slow = Behaviour { delay_ms: 3_000, times: Some(1), ..Behaviour::default() };
    scene.server.behave(&scene.namespace, Some(slow)).await;
    let operator = Operator::start(&scene.namespace).await;
    let mut source = scene.source(retain());
    source["metadata"]["name"] = json!("retained");
    scene.apply(source).await;
    eventually("the request arrives", SOON, async || match scene.mints().await {
        1 => Ok(()),
        other => Err(other),
    })
    .await;
    scene.kubectl(&["delete", "tokensource", "retained"], "").await;
    eventually("the token arrives", SOON, async || {
        if operator.said("token received") == 1 { Ok(()) } else { Err(operator.log()) }
    })
    .await;
    // At a stop, requests in flight end first.
    operator.stop().await;
    assert_eq!(secret_names(&scene).await, ["credentials"]);
    assert_eq!(scene.mints().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_source_during_refresh_deletes_target() {
    let scene = Scene::new("refreshed", 600).await;
    let operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    let slow = Behaviour { delay_ms: 4_000, times: Some(1), ..Behaviour::default() };
    scene.server.behave(&scene.namespace, Some(slow)).await;
    scene.kubectl(&["annotate", "tokensource", "source", "tokensource.dev/refresh-requested-at=1"], "").await;
    eventually("the request arrives", SOON, async || match scene.mints().await {
        2 => Ok(()),
        other => Err(other),
    })
    .await;
    scene.kubectl(&["delete", "tokensource", "source"], "").await;
    scene.gone("secret", "token").await;
    eventually("the token arrives", SOON, async || {
        if operator.said("token received") == 2 { Ok(()) } else { Err(operator.log()) }
    })
    .await;
    operator.stop().await;
    assert_eq!(secret_names(&scene).await, ["credentials"]);
    assert_eq!(scene.mints().await, 2, "no third one for the deleted Secret");
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_crd_deletes_owned_secrets_and_reinstalled_crd_is_served_by_running_operator() {
    let control_plane = ControlPlane::of_its_own();
    let crd = async |arguments: &[&str]| {
        let output = control_plane.kubectl(arguments, CRD).await;
        let said =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), said)
    };
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    // Twice, as GitOps tools do: the second time nothing changes.
    for _ in 0..2 {
        let (code, said) = crd(&apply).await;
        assert_eq!(code, Some(0), "{said}");
    }
    assert_eq!(crd(&["diff", "--server-side", "-f", "-"]).await, (Some(0), String::new()));

    let scene = Scene::new_in(control_plane, "definition", 600).await;
    let operator = Operator::start_at(&control_plane.kubeconfig_path(), &scene.namespace, &FLAGS).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    apply_retained(&scene).await;
    let kept = scene.value("kept", "access_token").await;
    scene.kubectl(&["label", "secret", "credentials", "a=b"], "").await;
    scene.secrets_are_seen().await;

    let (code, said) = crd(&["delete", "--timeout=60s", "-f", "-"]).await;
    assert_eq!(code, Some(0), "{said}");
    scene.gone("secret", "token").await;
    assert_eq!(secret_names(&scene).await, ["credentials", "kept"]);
    assert_eq!(scene.mints().await, 2);

    let (code, said) = crd(&apply).await;
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = crd(&["wait", "--for=condition=Established", "--timeout=60s", "-f", "-"]).await;
    assert_eq!(code, Some(0), "{said}");
    // The watch is retried after a backoff that has grown meanwhile.
    apply_retained(&scene).await;
    assert_eq!(scene.value("kept", "access_token").await, kept, "the retained token is used");
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    assert_eq!(scene.mints().await, 3);
    let log = operator.stop().await;
    assert!(!log.contains("panicked"));
    assert!(log.lines().count() < 1000, "{} lines", log.lines().count());
}
