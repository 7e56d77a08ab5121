//! Rights by namespace in thousands of them, under the chart's own rights.
//! `OPERATOR_WRAPPER=hack/limit-memory.sh MEMORY_LIMIT=128M SCENARIO=pernamespace make bench` is the run of docs/sizing.md.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokensource_api::TokenSource;

use super::{calls, print_calls};
use crate::fleet::lateness::Lateness;
use crate::fleet::operator::{Operator, Usage};
use crate::fleet::{self, AT_ONCE, CLIENT, Fleet, setting};
use crate::support::authorization_server::AuthorizationServer;
use crate::support::chart::{Account, RELEASE, install};
use crate::support::control_plane::ControlPlane;

/// Namespaces whose target is deleted by another writer, to see when that is noticed.
const DELETED: usize = 20;
/// When that is noticed at the latest: each namespace is listed every minute.
const NOTICED: Duration = Duration::from_secs(75);
/// The lists of a minute for each namespace at most, and other calls a second, while nothing is due.
const MAX_LISTS: f64 = 1.3;
const MAX_OTHER_CALLS: f64 = 3.0;
/// How late the 99th percentile of refreshes may be, in seconds.
const MAX_LATENESS: i64 = 30;

/// `NAMESPACES` (2,000) with `SOURCES` (10,000) TokenSources together: first tokens, a restart, nothing to do for `IDLE` (120)
/// seconds, Secrets that others delete, and `SECONDS` (300) with tokens of `LIFETIME` (600) seconds.
pub async fn run() -> Result<(), String> {
    let (namespaces, sources) = (setting("NAMESPACES", 2000), setting("SOURCES", 10_000));
    let control_plane = ControlPlane::shared();
    let release = control_plane.namespace("pernamespace").await;
    let values = json!({"crds": {"enabled": false}, "rbac": {"mode": "perNamespace"}});
    install(&release, values).await;
    let account = Account::of(&release).await;
    let client = control_plane.client().await;
    let server = AuthorizationServer::shared();
    let fleet = Fleet { client: client.clone(), namespace: served(0), server, sources };
    fleet.accept("secret", 3600).await;
    let begun = Instant::now();
    create(&client, &release, namespaces, sources).await;
    println!(
        "{namespaces} namespaces with {sources} TokenSources are there after {:.0} s",
        begun.elapsed().as_secs_f64()
    );

    let (role, of) = (format!("tokensource-operator.{release}-served"), format!("{release}:{RELEASE}"));
    let start =
        || Operator::start_at(&account.kubeconfig(), &["--served-role", &role, "--service-account", &of]);
    let (mut operator, begun) = (start(), Instant::now());
    fleet.until_minted(sources).await;
    println!(
        "first tokens: {:.0}/s; {}",
        sources as f64 / begun.elapsed().as_secs_f64(),
        operator.usage().memory()
    );
    tokio::time::sleep(Duration::from_secs(10)).await;
    operator.stop(Duration::from_secs(60)).await;

    let (mut operator, begun) = (start(), Instant::now());
    fleet::until_ready().await;
    let ready = begun.elapsed().as_secs_f64();
    println!("after a restart: ready after {ready:.1} s; {}", operator.usage().memory());
    idle(&mut operator, namespaces).await?;
    if fleet.mints().await != sources {
        return Err("tokens were requested though all were valid".to_owned());
    }
    deleted_targets(&client, namespaces).await?;

    let lifetime = u32::try_from(setting("LIFETIME", 600)).unwrap();
    fleet.accept("secret", lifetime).await;
    let mints = fleet.mints().await;
    request_refreshes(&client, namespaces, sources).await;
    fleet.until_minted(mints + sources).await;
    let (seconds, before, api) = (setting("SECONDS", 300), operator.usage(), Usage::of_api_server());
    let expired = expired().await;
    let late = Lateness::observe(Api::all(client), Duration::from_secs(seconds as u64)).await;
    let (usage, expired) = (operator.usage(), self::expired().await - expired);
    println!(
        "tokens of {lifetime} s for {seconds} s: {late}; {expired:.0} s expired; {:.1} s of CPU, kube-apiserver {:.1} s; {}",
        usage.cpu - before.cpu,
        Usage::of_api_server().cpu - api.cpu,
        usage.memory()
    );
    operator.stop(Duration::from_secs(60)).await;
    match late.at(99) {
        _ if expired > 0.0 => Err(format!("{expired:.0} s of expired tokens")),
        late if late > MAX_LATENESS => Err(format!("refreshes were {late} s late")),
        _ => Ok(()),
    }
}

fn served(number: usize) -> String {
    format!("served-{number}")
}

/// The namespace and name of each TokenSource.
fn names(namespaces: usize, sources: usize) -> impl Iterator<Item = (String, String)> {
    (0..sources).map(move |n| (served(n % namespaces), format!("source-{}", n / namespaces)))
}

/// Each namespace with its RoleBinding and credentials, and then the TokenSources.
async fn create(client: &Client, release: &str, namespaces: usize, sources: usize) {
    let all: Api<Namespace> = Api::all(client.clone());
    stream::iter(0..namespaces)
        .for_each_concurrent(AT_ONCE, |n| {
            let (all, name) = (all.clone(), served(n));
            async move {
                let namespace = object(json!({"metadata": {"name": name}}));
                all.create(&PostParams::default(), &namespace).await.unwrap();
                let binding = object(json!({
                    "metadata": {"name": RELEASE},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
                        "name": format!("tokensource-operator.{release}-served")},
                    "subjects": [{"kind": "ServiceAccount", "name": RELEASE, "namespace": release}],
                }));
                let bindings: Api<RoleBinding> = Api::namespaced(client.clone(), &name);
                bindings.create(&PostParams::default(), &binding).await.unwrap();
                let credentials = object(json!({"metadata": {"name": "credentials"},
                    "stringData": {"client_id": CLIENT, "client_secret": "secret"}}));
                secrets(client, &name).create(&PostParams::default(), &credentials).await.unwrap();
            }
        })
        .await;
    let url = AuthorizationServer::shared().vgs_token_url();
    stream::iter(names(namespaces, sources))
        .for_each_concurrent(AT_ONCE, |(namespace, name)| {
            let source = object(json!({
                "metadata": {"name": name},
                "spec": {"provider": {"vgs": {"tokenURL": url}},
                    "credentials": {"secretRef": {"name": "credentials"}},
                    "target": {"name": target(&name)}},
            }));
            async move {
                let api: Api<TokenSource> = Api::namespaced(client.clone(), &namespace);
                api.create(&PostParams::default(), &source).await.unwrap();
            }
        })
        .await;
}

fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn target(source: &str) -> String {
    source.replace("source", "token")
}

fn secrets(client: &Client, namespace: &str) -> Api<Secret> {
    Api::namespaced(client.clone(), namespace)
}

/// What following the namespaces costs while no token is due.
async fn idle(operator: &mut Operator, namespaces: usize) -> Result<(), String> {
    // The first interval is shorter: it spreads the namespaces over the minute.
    tokio::time::sleep(Duration::from_secs(60)).await;
    let seconds = setting("IDLE", 120) as f64;
    let (before, api, calls_before) = (operator.usage(), Usage::of_api_server(), calls().await);
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    let (usage, calls_after) = (operator.usage(), calls().await);
    println!(
        "idle for {seconds:.0} s: {:.2} s of CPU, kube-apiserver {:.1} s; {}",
        usage.cpu - before.cpu,
        Usage::of_api_server().cpu - api.cpu,
        usage.memory()
    );
    print_calls("second", seconds, &calls_before, &calls_after);
    let all = |calls: &std::collections::BTreeMap<String, f64>| calls.values().sum::<f64>();
    let rate = (all(&calls_after) - all(&calls_before)) / seconds;
    let most = namespaces as f64 / 60.0 * MAX_LISTS + MAX_OTHER_CALLS;
    if rate > most { Err(format!("{rate:.1} calls a second, and {most:.1} at most")) } else { Ok(()) }
}

/// Deletes targets in namespaces of which most are not watched, and waits until they are there again.
async fn deleted_targets(client: &Client, namespaces: usize) -> Result<(), String> {
    let chosen = (0..DELETED).map(|n| served(n * namespaces / DELETED));
    let restored = stream::iter(chosen).map(|namespace| async move {
        let secrets = secrets(client, &namespace);
        secrets.delete("token-0", &DeleteParams::default()).await.unwrap();
        let begun = Instant::now();
        while secrets.get_opt("token-0").await.unwrap().is_none() {
            if begun.elapsed() > 2 * NOTICED {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        begun.elapsed()
    });
    let mut restored: Vec<Duration> = restored.buffer_unordered(DELETED).collect().await;
    restored.sort_unstable();
    let (median, last) = (restored[DELETED / 2], restored[DELETED - 1]);
    println!(
        "a target that another writer deleted is back after {:.0} s (50 %), {:.0} s at most",
        median.as_secs_f64(),
        last.as_secs_f64()
    );
    if last > NOTICED { Err(format!("a deleted target was back after {last:?}")) } else { Ok(()) }
}

async fn request_refreshes(client: &Client, namespaces: usize, sources: usize) {
    let patch =
        Patch::Merge(json!({"metadata": {"annotations": {"tokensource.dev/refresh-requested-at": "1"}}}));
    stream::iter(names(namespaces, sources))
        .for_each_concurrent(AT_ONCE, |(namespace, name)| {
            let (api, patch) = (Api::<TokenSource>::namespaced(client.clone(), &namespace), patch.clone());
            async move {
                api.patch(&name, &PatchParams::default(), &patch).await.unwrap();
            }
        })
        .await;
}

/// Seconds without a valid token, of all TokenSources.
async fn expired() -> f64 {
    let metrics = fleet::metrics().await.unwrap();
    fleet::series(&metrics, "tokensource_token_expired_seconds_total").sum()
}
