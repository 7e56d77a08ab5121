//! What tenants store in the API server costs the operator a bounded amount of memory. It has the rights that the chart grants, but
//! where a control plane of an older schema is needed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, ApiResource, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokensource_api::TokenSource;

use super::support::account::{TestAccount, operator_rules};
use super::support::control_plane::{AuditLine, ControlPlane};
use super::support::eventually;
use super::support::operator::Operator;
use super::support::scene::{SOON, Scene};

const MIB: u64 = 1 << 20;

/// The memory of a process that is its own, without pages of files: the largest value since this was started.
struct Peak {
    kib: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Peak {
    fn of(pid: u32) -> Self {
        let (kib, ends) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (largest, is_over) = (Arc::clone(&kib), Arc::clone(&ends));
        let sample = move || {
            while !is_over.load(Ordering::Relaxed) {
                largest.fetch_max(own_memory(pid), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        Peak { kib, ends, thread: Some(std::thread::spawn(sample)) }
    }

    fn bytes(&self) -> u64 {
        let kib = self.kib.load(Ordering::Relaxed);
        assert!(kib > 0, "nothing was measured: only Linux has /proc");
        kib << 10
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
}

/// Starts the operator with the chart's rights.
async fn start(scene: &Scene) -> Operator {
    let account = TestAccount::new(scene, "operator").await;
    account.may(operator_rules()).await;
    let flags = ["--allow-http", "--egress-allow", "127.0.0.0/8"];
    Operator::start_at(&account.kubeconfig(), &scene.namespace, &flags).await
}

/// In KiB; 0 of a process that has ended.
fn own_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok()).unwrap_or(0)
}

/// As many as an object can have: with managedFields, which names them again, some 1 MiB.
fn labels() -> BTreeMap<String, String> {
    let prefix = format!("{}.example.com", ["a"; 59].concat());
    (0..1500).map(|n| (format!("{prefix}.{}/l{n:0>62}", "b".repeat(63)), "v".repeat(63))).collect()
}

/// Creates Secrets with as much metadata as the API server accepts.
async fn labelled_secrets(scene: &Scene, count: usize) {
    let labels = labels();
    let create = |n: usize| {
        let name = Some(format!("labelled-{n}"));
        let metadata = ObjectMeta { name, labels: Some(labels.clone()), ..ObjectMeta::default() };
        let secret = Secret { metadata, ..Secret::default() };
        let secrets = scene.secrets();
        async move { secrets.create(&PostParams::default(), &secret).await.map(drop).unwrap() }
    };
    stream::iter(0..count).map(create).buffer_unordered(4).collect::<()>().await;
}

/// Starts the operator beside Secrets with large metadata. Returns its largest memory until a token was requested, and until a
/// watch has shown one of them.
async fn beside_labelled_secrets(count: usize) -> u64 {
    let scene = Scene::new("labelled", 600).await;
    labelled_secrets(&scene, count).await;
    scene.apply(scene.source(json!({}))).await;
    let operator = start(&scene).await;
    let peak = Peak::of(operator.pid());
    scene.ready("True TokenValid").await;
    // The watch shows a line of 1 MiB, and what follows it.
    let patch = Patch::Merge(json!({"metadata": {"labels": labels()}}));
    scene.secrets().patch("credentials", &PatchParams::default(), &patch).await.unwrap();
    scene.secrets_are_seen().await;
    scene.force_refresh("now").await;
    peak.bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_with_large_metadata_cost_bounded_memory() {
    let peak = beside_labelled_secrets(30).await;
    assert!(peak < 32 * MIB, "{} MiB", peak / MIB);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-long"]
async fn many_secrets_with_large_metadata_cost_bounded_memory() {
    let peak = beside_labelled_secrets(110).await;
    assert!(peak < 32 * MIB, "{} MiB", peak / MIB);
}

/// Such a spec is not cached: each reconciliation and each token request reads it.
#[tokio::test(flavor = "multi_thread")]
async fn source_with_a_long_spec_is_refreshed_and_follows_its_edits() {
    let scene = Scene::new("long-spec", 600).await;
    let source = |text: &str| {
        let data = json!({"access_token": "{{ access_token }}", "long": text.repeat(10 << 10)});
        scene.source(json!({"target": {"template": {"data": data}}}))
    };
    let _operator = start(&scene).await;
    scene.apply(source("a")).await;
    scene.ready("True TokenValid").await;
    scene.force_refresh("now").await;
    scene.apply(source("b")).await;
    eventually("the target has the new template", SOON, async || {
        let long = scene.value("token", "long").await.unwrap_or_default();
        if long.starts_with('b') { Ok(()) } else { Err(long.len()) }
    })
    .await;
    assert_eq!(scene.mints().await, 3);
}

/// A control plane whose CustomResourceDefinition bounds nothing, as one of an older version, and a namespace in it.
async fn without_schema() -> Scene {
    let scene = Scene::new_in(ControlPlane::of_its_own(), "old", 600).await;
    let anything = json!([
        {"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": {
            "type": "object",
            "properties": {"spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
        }},
    ]);
    let definition = "tokensources.tokensource.dev";
    scene.kubectl(&["patch", "crd", definition, "--type=json", "-p", &anything.to_string()], "").await;
    scene
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-long"]
async fn large_specs_of_older_schemas_cost_bounded_memory_and_are_named() {
    let scene = without_schema().await;
    let large = |n: usize| {
        let mut source = scene.source(json!({
            "suspend": true, "target": {"name": format!("t{n}"), "template": {"data": {"k": "x".repeat(600_000 + 1200 * n)}}},
        }));
        source["metadata"]["name"] = json!(format!("large-{n}"));
        source
    };
    let created = |source: Value| {
        let resource = ApiResource::erase::<TokenSource>(&());
        let sources: Api<DynamicObject> =
            Api::namespaced_with(scene.client.clone(), &scene.namespace, &resource);
        eventually("the definition is changed", SOON, async move || {
            let object = serde_json::from_value(source.clone()).unwrap();
            sources.create(&PostParams::default(), &object).await.map(drop)
        })
    };
    created(large(0)).await;
    stream::iter(1..150).map(|n| created(large(n))).buffer_unordered(4).collect::<()>().await;
    // Some that are as long as the schema permits, and that are nevertheless not kept.
    let mut long = scene.source(json!({"suspend": true}));
    let text = "x".repeat(15 << 10);
    let data = json!({"access_token": "{{ access_token }}", "a": text, "b": text, "c": text, "d": text});
    long["spec"]["target"]["template"] = json!({"data": data});
    let long = |n: usize| {
        let mut source = long.clone();
        source["metadata"]["name"] = json!(format!("long-{n}"));
        source["spec"]["target"]["name"] = json!(format!("long-{n}"));
        source
    };
    stream::iter(0..600).map(|n| created(long(n))).buffer_unordered(4).collect::<()>().await;

    scene.apply(scene.source(json!({}))).await;
    let kubeconfig = scene.control_plane.kubeconfig_path();
    let flags = ["--allow-http", "--egress-allow", "127.0.0.0/8"];
    let operator = Operator::start_at(&kubeconfig, &scene.namespace, &flags).await;
    let peak = Peak::of(operator.pid());
    eventually("150 MB are listed, and 750 TokenSources report", 6 * SOON, async || {
        let status = scene.status().await;
        let ready = status.conditions.iter().find(|it| it.type_ == "Ready" && it.status == "True");
        ready.map(drop).ok_or(status.conditions)
    })
    .await;
    for large in ["large-0", "large-149"] {
        let said = scene.condition(large, "Ready", "False SpecInvalid").await;
        assert!(said.contains("spec has more than 256 KiB as JSON"), "{said}");
    }
    scene.condition("long-599", "Ready", "False Suspended").await;
    assert!(peak.bytes() < 48 * MIB, "{} MiB", peak.bytes() / MIB);
}

/// `count` TokenSources that name a ConfigMap of 1 MiB as their CA bundle, and as many with a Secret of 1 MiB as credentials.
async fn beside_large_objects(count: usize) -> u64 {
    let scene = Scene::new("large-objects", 600).await;
    let filler = "x".repeat((1 << 20) - 200);
    let create = async |n: usize| {
        let named = |name: String| ObjectMeta { name: Some(name), ..ObjectMeta::default() };
        let data = Some(BTreeMap::from([("ca.crt".to_owned(), filler.clone())]));
        let map = ConfigMap { metadata: named(format!("bundle-{n}")), data, ..ConfigMap::default() };
        let maps: Api<ConfigMap> = Api::namespaced(scene.client.clone(), &scene.namespace);
        maps.create(&PostParams::default(), &map).await.unwrap();
        let values = [("client_id", &*scene.namespace), ("client_secret", "right"), ("filler", &*filler)];
        let data = values.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let metadata = named(format!("credentials-{n}"));
        let secret = Secret { metadata, string_data: Some(data), ..Secret::default() };
        scene.secrets().create(&PostParams::default(), &secret).await.unwrap();
        let bundle = json!({"tls": {"caBundle": {"configMapKeyRef": {"name": format!("bundle-{n}"), "key": "ca.crt"}}}});
        let large = json!({"credentials": {"secretRef": {"name": format!("credentials-{n}")}}});
        for (kind, change) in [("bundled", bundle), ("filled", large)] {
            let mut source = scene.source(change);
            source["metadata"]["name"] = json!(format!("{kind}-{n}"));
            source["spec"]["target"]["name"] = json!(format!("{kind}-{n}"));
            let source = serde_json::from_value(source).unwrap();
            scene.sources().create(&PostParams::default(), &source).await.unwrap();
        }
    };
    stream::iter(0..count).map(create).buffer_unordered(4).collect::<()>().await;
    let operator = start(&scene).await;
    let peak = Peak::of(operator.pid());
    for n in 0..count {
        let said = scene.condition(&format!("bundled-{n}"), "Ready", "False SpecInvalid").await;
        assert!(said.contains("524288 bytes"), "{said}");
        scene.condition(&format!("filled-{n}"), "Ready", "True TokenValid").await;
    }
    peak.bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn large_objects_that_sources_name_cost_bounded_memory() {
    let peak = beside_large_objects(12).await;
    assert!(peak < 48 * MIB, "{} MiB", peak / MIB);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-long"]
async fn many_large_objects_that_sources_name_cost_bounded_memory() {
    let peak = beside_large_objects(64).await;
    assert!(peak < 64 * MIB, "{} MiB", peak / MIB);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-long"]
async fn secret_of_many_sources_that_changes_each_second_is_read_once_for_all_of_them() {
    const SOURCES: usize = 500;
    let scene = Scene::new("shared", 3600).await;
    let create = async |n: usize| {
        let mut source = scene.source(json!({"target": {"name": format!("t{n}")}}));
        source["metadata"]["name"] = json!(format!("s{n}"));
        let source = serde_json::from_value(source).unwrap();
        scene.sources().create(&PostParams::default(), &source).await.unwrap();
    };
    stream::iter(0..SOURCES).map(create).buffer_unordered(4).collect::<()>().await;
    let _operator = start(&scene).await;
    for n in 0..SOURCES {
        scene.condition(&format!("s{n}"), "Ready", "True TokenValid").await;
    }
    let reads = || {
        let log = scene.control_plane.audit(&scene.namespace);
        let of_it = |line: &&AuditLine| line.verb == "get" && line.name == "credentials";
        log.iter().filter(of_it).filter(|line| line.user_agent.starts_with("tokensource-operator")).count()
    };
    let before = reads();
    for n in 0..10 {
        scene
            .patch("secret", "credentials", json!({"metadata": {"annotations": {"n": n.to_string()}}}))
            .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let read = reads() - before;
    assert!((10..SOURCES * 10 / 8).contains(&read), "{read} reads");
}

/// Others may add so much to a target that the operator cannot know whose keys it holds.
#[tokio::test(flavor = "multi_thread")]
async fn target_whose_managers_or_owners_are_too_many_is_named_and_counted() {
    let scene = Scene::new("many-owners", 600).await;
    let operator = start(&scene).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    let counted = async || {
        let (_, _, metrics) = operator.admin("/metrics").await;
        let of_it = |line: &str| {
            line.strip_prefix("tokensource_too_large_objects_total{resource=\"secrets\"} ")?.parse().ok()
        };
        metrics.lines().find_map(of_it).unwrap_or(0_u64)
    };
    assert_eq!(counted().await, 0);
    // The names of data keys, of which managedFields keep those of each manager.
    let managed = async |present: bool| {
        for manager in 0..4 {
            let keys = (0..if present { 250 } else { 0 }).map(|n| (format!("{manager}-{n:0>230}"), ""));
            let data: BTreeMap<_, _> = keys.collect();
            let data = Patch::Apply(json!({"apiVersion": "v1", "kind": "Secret", "data": data}));
            let params = PatchParams::apply(&format!("manager-{manager}"));
            scene.secrets().patch("token", &params, &data).await.unwrap();
        }
    };
    // One of them exists, or the garbage collector deletes the target.
    let owner = scene.sources().get("source").await.unwrap().metadata.uid;
    let owned = async |present: bool| {
        let mut owners = scene.secrets().get("token").await.unwrap().metadata.owner_references.unwrap();
        owners.retain(|it| it.uid == *owner.as_ref().unwrap());
        let another = json!({"apiVersion": "example.com/v1", "kind": "Any", "name": "n".repeat(250)});
        let others = (0..if present { 500 } else { 0 }).map(|n| {
            let mut another = another.clone();
            another["uid"] = json!(format!("00000000-0000-0000-0000-{n:0>12}"));
            another
        });
        let all: Vec<_> = owners.iter().map(|it| json!(it)).chain(others).collect();
        let patch = Patch::Merge(json!({"metadata": {"ownerReferences": all}}));
        scene.secrets().patch("token", &PatchParams::default(), &patch).await.unwrap();
    };
    managed(true).await;
    let said = scene.ready("False TargetConflict").await;
    assert!(said.contains("metadata.managedFields of Secret token has more than 128 KiB"), "{said}");
    assert!(counted().await > 0);
    managed(false).await;
    scene.ready("True TokenValid").await;
    owned(true).await;
    // The record and the keys are known: the token is valid.
    let said = scene.ready("True RefreshFailing").await;
    assert!(said.contains("metadata.ownerReferences of Secret token has more than 128 KiB"), "{said}");
    owned(false).await;
    scene.ready("True TokenValid").await;
}
