//! `spec.target.propagation: Prompt`: pods that mount the target are annotated for a new token, in a real API server. There
//! is no kubelet: a pod runs because its status says so.

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use tokensource_operator::cluster::Kubernetes;
use tokensource_operator::secret;

use super::support::account::{TestAccount, operator_rules};
use super::support::control_plane::{AuditLine, ControlPlane};
use super::support::eventually;
use super::support::operator::Operator;
use super::support::scene::{SOON, Scene};

const FLAGS: [&str; 3] = ["--allow-http", "--egress-allow", "127.0.0.0/8"];

fn prompt() -> Value {
    json!({"target": {"propagation": "Prompt"}})
}

/// A pod of one container that mounts Secret `token` as a folder.
pub fn folder() -> Value {
    json!({
        "volumes": [{"name": "token", "secret": {"secretName": "token"}}],
        "containers": [{"name": "app", "image": "app", "volumeMounts": [{"name": "token", "mountPath": "/token"}]}],
    })
}

/// A pod of one container that has a key of Secret `token` in its environment.
pub fn environment() -> Value {
    let variable =
        json!({"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "token", "key": "access_token"}}});
    json!({"containers": [{"name": "app", "image": "app", "env": [variable]}]})
}

/// Creates a pod with this phase in its status.
pub async fn pod(scene: &Scene, name: &str, phase: &str, mut spec: Value) {
    spec["automountServiceAccountToken"] = false.into();
    let metadata = json!({"name": name, "labels": {"app": name}, "annotations": {"kept": "as it is"}});
    scene.apply(json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})).await;
    let status = json!({"status": {"phase": phase}}).to_string();
    scene.kubectl(&["patch", "pod", name, "--subresource=status", "--type=merge", "-p", &status], "").await;
}

fn pods(scene: &Scene) -> Api<Pod> {
    Api::namespaced(scene.client.clone(), &scene.namespace)
}

async fn get(scene: &Scene, name: &str) -> Pod {
    pods(scene).get(name).await.unwrap()
}

/// The pod without what every write changes, and its annotation.
async fn take(scene: &Scene, name: &str) -> (Pod, Option<String>) {
    let mut pod = get(scene, name).await;
    let annotation =
        pod.metadata.annotations.as_mut().and_then(|all| all.remove("tokensource.dev/refreshed"));
    pod.metadata.resource_version = None;
    pod.metadata.managed_fields = None;
    (pod, annotation)
}

/// The first `count` values of the annotation of a pod after this state of it.
async fn annotations(scene: &Scene, since: &Pod, count: usize) -> Vec<String> {
    let pod = format!("metadata.name={}", since.name_any());
    let changes = WatchParams::default().fields(&pod).timeout(60);
    let changes = pods(scene).watch(&changes, &since.resource_version().unwrap()).await.unwrap();
    let mut changes = std::pin::pin!(changes);
    let mut values: Vec<String> = vec![];
    while values.len() < count {
        match changes.try_next().await.unwrap() {
            Some(WatchEvent::Modified(pod)) => {
                let value = pod.annotations().get("tokensource.dev/refreshed");
                values.extend(value.filter(|value| values.last() != Some(value)).cloned());
            }
            other => panic!("{other:?} after {values:?}: {}", scene.status_text("source").await),
        }
    }
    values
}

/// The operator's calls about pods.
fn calls(scene: &Scene) -> Vec<AuditLine> {
    let all = ControlPlane::shared().audit(&scene.namespace);
    let by_the_operator = |it: &AuditLine| it.user_agent.starts_with("tokensource-operator/");
    all.into_iter().filter(by_the_operator).filter(|it| it.resource == "pods").collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn prompt_running_pods_are_annotated_twice_and_otherwise_unchanged() {
    let scene = Scene::new("prompt", 300).await;
    let projected = json!({
        "volumes": [{"name": "all", "projected": {"sources": [{"secret": {"name": "token"}}]}}],
        "containers": [{"name": "app", "image": "app"}],
        "initContainers": [{"name": "proxy", "image": "proxy", "restartPolicy": "Always", "volumeMounts": [{"name": "all", "mountPath": "/all"}]}],
    });
    let mut other = folder();
    other["volumes"][0]["secret"]["secretName"] = "other".into();
    pod(&scene, "folder", "Running", folder()).await;
    pod(&scene, "projected", "Running", projected).await;
    pod(&scene, "pending", "Pending", folder()).await;
    pod(&scene, "ended", "Succeeded", folder()).await;
    pod(&scene, "other", "Running", other).await;
    let before = take(&scene, "folder").await;
    assert_eq!(before.1, None);
    let as_created = [get(&scene, "folder").await, get(&scene, "projected").await];

    let operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(prompt())).await;
    for pod in &as_created {
        let times = annotations(&scene, pod, 2).await;
        let times: Vec<jiff::Timestamp> = times.iter().map(|time| time.parse().unwrap()).collect();
        assert!(times[0] < times[1], "{times:?}");
    }
    assert_eq!(take(&scene, "folder").await.0, before.0);
    for name in ["pending", "ended", "other"] {
        assert_eq!(take(&scene, name).await.1, None, "{name}");
    }
    let said = scene.condition("source", "PropagationSafe", "True LifetimeSufficient").await;
    assert!(said.contains("are refreshed after 200 s at the latest, and take up to 15 s"), "{said}");

    // All calls for the first token precede those for the second.
    scene.force_refresh("1").await;
    for pod in &as_created {
        annotations(&scene, pod, 4).await;
    }
    let mut made: Vec<_> = eventually("all calls in the audit log", SOON, async || {
        let made = calls(&scene);
        if made.len() >= 12 { Ok(made) } else { Err(made) }
    })
    .await
    .into_iter()
    .map(|it| format!("{} {} {}", it.verb, it.name, it.code))
    .collect();
    made.sort();
    let expected = [["list  200"; 4], ["patch folder 200"; 4], ["patch projected 200"; 4]].concat();
    assert_eq!(made, expected, "one list and one patch for each pod, twice for each token");

    // The process may have ended before its rounds.
    operator.kill();
    let before = get(&scene, "folder").await;
    let _operator = Operator::start(&scene.namespace).await;
    annotations(&scene, &before, 1).await;
    assert_eq!(scene.mints().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn prompt_pods_on_every_list_page_are_annotated() {
    let scene = Scene::new("prompt-pages", 300).await;
    let api = pods(&scene);
    let create = |number: usize| {
        let (api, name) = (api.clone(), format!("pod-{number:02}"));
        async move {
            let mut spec = folder();
            spec["automountServiceAccountToken"] = false.into();
            let pod = json!({"metadata": {"name": name}, "spec": spec});
            let pod: Pod = serde_json::from_value(pod).unwrap();
            api.create(&PostParams::default(), &pod).await.unwrap();
            let running = json!({"status": {"phase": "Running"}});
            api.patch_status(&name, &PatchParams::default(), &Patch::Merge(running)).await.unwrap();
        }
    };
    futures::future::join_all((0..60).map(create)).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(prompt())).await;
    eventually("all of them are annotated", SOON, async || {
        let all = api.list(&Default::default()).await.unwrap().items;
        let made =
            all.iter().filter(|pod| pod.annotations().contains_key("tokensource.dev/refreshed")).count();
        if made == 60 { Ok(()) } else { Err(made) }
    })
    .await;
    let lists = calls(&scene).into_iter().filter(|it| it.verb == "list");
    assert!(lists.into_iter().any(|it| it.request_uri.contains("continue=")));
}

#[tokio::test(flavor = "multi_thread")]
async fn prompt_environment_variables_and_subpath_mounts_are_named() {
    let scene = Scene::new("prompt-static", 300).await;
    let mut subpath = folder();
    subpath["containers"][0]["volumeMounts"][0]["subPath"] = "access_token".into();
    pod(&scene, "from-environment", "Running", environment()).await;
    pod(&scene, "subpath", "Running", subpath).await;
    pod(&scene, "good", "Running", folder()).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(prompt())).await;
    let said = scene.condition("source", "PropagationSafe", "False StaticMount").await;
    for part in [
        "pods from-environment (container app: environment variable), subpath (container app: subPath)",
        "mount the Secret as a folder",
        "take up to 15 s",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert!(!said.contains("good"), "{said}");
    scene.ready("True TokenValid").await;

    for name in ["from-environment", "subpath"] {
        scene.kubectl(&["delete", "pod", name, "--grace-period=0", "--force"], "").await;
    }
    scene.force_refresh("1").await;
    scene.condition("source", "PropagationSafe", "True LifetimeSufficient").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prompt_without_permissions_is_reported_token_is_refreshed_and_later_grant_is_noticed() {
    let scene = Scene::new("prompt-denied", 300).await;
    pod(&scene, "first", "Running", folder()).await;
    pod(&scene, "second", "Running", folder()).await;
    let account = TestAccount::new(&scene, "operator").await;
    account.may(operator_rules()).await;
    let operator = Operator::start_at(&account.kubeconfig(), &scene.namespace, &FLAGS).await;
    scene.apply(scene.source(prompt())).await;
    let said = scene.condition("source", "PropagationSafe", "False PromptFailed").await;
    for part in [
        "cannot list resource \"pods\"",
        "promptPropagation.enabled",
        // The schedule allows for the kubelet's own period.
        "are refreshed after 150 s at the latest, and take up to 90 s",
    ] {
        assert!(said.contains(part), "{said}");
    }
    scene.ready("True TokenValid").await;

    // A new process reports it again, and retries by itself.
    operator.stop().await;
    let asked = calls(&scene).len();
    let operator = Operator::start_at(&account.kubeconfig(), &scene.namespace, &FLAGS).await;
    eventually("pods are listed again", SOON, async || {
        let now = calls(&scene).len();
        if now > asked { Ok(()) } else { Err(now) }
    })
    .await;
    scene.condition("source", "PropagationSafe", "False PromptFailed").await;
    assert_eq!(scene.mints().await, 1);

    let with = |rules: &[Value]| Value::from([operator_rules().as_array().unwrap(), rules].concat());
    let rule = |verb: &str| json!({"apiGroups": [""], "resources": ["pods"], "verbs": [verb]});
    let mut one = rule("patch");
    one["resourceNames"] = json!(["first"]);
    account.may(with(&[rule("list"), one])).await;
    scene.force_refresh("1").await;
    let said = eventually("the pod that could not be annotated is named", SOON, async || {
        let said = scene.condition("source", "PropagationSafe", "False PromptFailed").await;
        if said.contains("1 of 2 pods") { Ok(said) } else { Err(said) }
    })
    .await;
    assert!(said.contains("could not be annotated (pod second)") && said.contains("cannot patch"), "{said}");

    account.may(with(&[rule("list"), rule("patch")])).await;
    assert_eq!(take(&scene, "second").await.1, None);
    let unannotated = get(&scene, "second").await;
    scene.force_refresh("2").await;
    scene.condition("source", "PropagationSafe", "True LifetimeSufficient").await;
    annotations(&scene, &unannotated, 1).await;
    assert_eq!(scene.mints().await, 3);
    assert!(operator.said("pods could not be annotated after the new token") > 0);
}

/// The reconciliation and the token request agree on when a refresh is due.
#[tokio::test(flavor = "multi_thread")]
async fn prompt_without_permissions_is_refreshed_as_early_as_without_prompt() {
    let scene = Scene::new("prompt-denied-due", 150).await;
    pod(&scene, "first", "Running", folder()).await;
    let account = TestAccount::new(&scene, "operator").await;
    account.may(operator_rules()).await;
    let operator = Operator::start_at(&account.kubeconfig(), &scene.namespace, &FLAGS).await;
    scene.apply(scene.source(prompt())).await;
    scene.condition("source", "PropagationSafe", "False PromptFailed").await;
    eventually("the token is refreshed after 30 s, and not after 75 s", 2 * SOON, async || {
        match scene.mints().await {
            2 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    let times = scene.server.requests(&scene.namespace).await.times;
    assert!(times[1].duration_since(times[0]).as_secs() < 60, "{times:?}");
    operator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_not_listed_without_prompt() {
    let scene = Scene::new("prompt-unused", 300).await;
    pod(&scene, "folder", "Running", folder()).await;
    let account = TestAccount::new(&scene, "operator").await;
    account.may(operator_rules()).await;
    let _operator = Operator::start_at(&account.kubeconfig(), &scene.namespace, &FLAGS).await;
    scene.apply(scene.source(json!({"target": {"propagation": "Periodic"}}))).await;
    scene.ready("True TokenValid").await;
    scene.force_refresh("1").await;
    scene.condition("source", "PropagationSafe", "True LifetimeSufficient").await;
    // Switched on, it lists pods at once and not only for the next token; switched off, the failure is dropped.
    scene.source_is_seen().await;
    assert_eq!(calls(&scene), []);
    scene.patch("tokensource", "source", json!({"spec": prompt()})).await;
    scene.condition("source", "PropagationSafe", "False PromptFailed").await;
    scene.patch("tokensource", "source", json!({"spec": {"target": {"propagation": null}}})).await;
    scene.condition("source", "PropagationSafe", "True LifetimeSufficient").await;
    assert_eq!(scene.mints().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn prompt_deleted_or_replaced_pod_is_no_failure() {
    let scene = Scene::bare("prompt-gone").await;
    pod(&scene, "replaced", "Running", folder()).await;
    let kubernetes = Kubernetes::new(scene.client.clone());
    for name in ["replaced", "gone"] {
        let known = json!({"name": name, "uid": "00000000-0000-0000-0000-000000000000"});
        let known: secret::PodMetadata = serde_json::from_value(known).unwrap();
        assert_eq!(kubernetes.annotate_pod(&scene.namespace, &known).await, Ok(()), "{name}");
    }
    assert_eq!(take(&scene, "replaced").await.1, None);
}
