//! What tenants store in the API server costs the operator a bounded amount of memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::json;

use super::support::operator::Operator;
use super::support::scene::Scene;

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
        self.kib.load(Ordering::Relaxed) << 10
    }
}

impl Drop for Peak {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        let _ = self.thread.take().map(std::thread::JoinHandle::join);
    }
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
    let operator = Operator::start(&scene.namespace).await;
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
