//! A fleet of TokenSources on a real control plane, with a real authorization server.
#![allow(dead_code, unreachable_pub, reason = "each benchmark uses its own part of this")]

pub mod bare_loop;
pub mod cost;
pub mod lateness;
pub mod operator;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokensource_api::TokenSource;

use crate::support::authorization_server::{AuthorizationServer, ClientSpec};
use crate::support::control_plane::ControlPlane;

/// The concurrent calls of the benchmark itself.
pub const AT_ONCE: usize = 32;
/// The fleet's client at the authorization server.
pub const CLIENT: &str = "fleet";
/// The operator's command line: all namespaces, one replica.
pub const RUN: [&str; 7] = [
    "run",
    "--allow-http",
    "--egress-allow=127.0.0.0/8",
    "--log-level=error",
    "--leader-elect=false",
    "--admin-address",
    ADMIN,
];
const ADMIN: &str = "127.0.0.1:18080";

/// So many TokenSources, all with the same credentials Secret.
pub struct Fleet {
    pub client: Client,
    pub namespace: String,
    pub server: &'static AuthorizationServer,
    pub sources: usize,
}

/// A number from the environment.
pub fn setting(name: &str, default: usize) -> usize {
    std::env::var(name)
        .map_or(default, |number| number.parse().unwrap_or_else(|_| panic!("{name}: not a number")))
}

/// Sets the secret that the authorization server accepts of a client, and the lifetime of its tokens in seconds.
pub async fn accept(client: &str, secret: &str, lifetime: u32) {
    let client = ClientSpec {
        id: client.to_owned(),
        secret: Some(secret.to_owned()),
        token_endpoint_auth_method: "client_secret_post",
        grant_types: vec!["client_credentials"],
        access_token_ttl: lifetime,
        ..ClientSpec::default()
    };
    AuthorizationServer::shared().client(client).await;
}

/// Writes Secret `credentials` of a client whose secret is `secret`.
pub async fn write_credentials(secrets: &Api<Secret>, client: &str) {
    let credentials = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "credentials"},
        "stringData": {"client_id": client, "client_secret": "secret"}});
    secrets.patch("credentials", &PatchParams::apply("bench"), &Patch::Apply(&credentials)).await.unwrap();
}

/// Creates TokenSources, `source-0` and so on, each where `api` says.
pub async fn create_sources(
    count: usize,
    api: impl Fn(usize) -> Api<TokenSource>,
    spec: impl Fn(usize) -> Value,
) {
    stream::iter(0..count)
        .for_each_concurrent(AT_ONCE, async |n| {
            let source = json!({"apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource",
                "metadata": {"name": format!("source-{n}")}, "spec": spec(n)});
            let source = serde_json::from_value(source).unwrap();
            api(n).create(&PostParams::default(), &source).await.unwrap();
        })
        .await;
}

/// Requests a refresh of the first `count` TokenSources that [`create_sources`] made; `request` must be new.
pub async fn request_refreshes(count: usize, api: impl Fn(usize) -> Api<TokenSource>, request: &str) {
    let body = json!({"metadata": {"annotations": {"tokensource.dev/refresh-requested-at": request}}});
    let patch = Patch::Merge(body);
    stream::iter(0..count)
        .for_each_concurrent(AT_ONCE, async |n| {
            api(n).patch(&format!("source-{n}"), &PatchParams::default(), &patch).await.unwrap();
        })
        .await;
}

impl Fleet {
    /// Creates the TokenSources; their tokens have a lifetime of `lifetime` seconds.
    pub async fn create(sources: usize, lifetime: u32) -> Self {
        Self::create_at(&[AuthorizationServer::shared().vgs_token_url()], sources, lifetime).await
    }

    /// The same, spread over these token endpoints.
    pub async fn create_at(urls: &[String], sources: usize, lifetime: u32) -> Self {
        let fleet = Self::empty(sources, lifetime).await;
        write_credentials(&fleet.secrets(), CLIENT).await;
        let spec = |n: usize| {
            json!({"provider": {"vgs": {"tokenURL": urls[n % urls.len()]}},
                "credentials": {"secretRef": {"name": "credentials"}}, "target": {"name": format!("token-{n}")}})
        };
        create_sources(sources, |_| fleet.api(), spec).await;
        fleet
    }

    /// Its namespace and its client, for so many TokenSources that are to be created.
    pub async fn empty(sources: usize, lifetime: u32) -> Self {
        let control_plane = ControlPlane::shared();
        let fleet = Fleet {
            client: control_plane.client().await,
            namespace: control_plane.namespace("fleet").await,
            server: AuthorizationServer::shared(),
            sources,
        };
        fleet.accept("secret", lifetime).await;
        fleet
    }

    /// Sets the secret that the authorization server accepts (the fleet's is `secret`) and the tokens' lifetime in seconds.
    pub async fn accept(&self, secret: &str, lifetime: u32) {
        accept(CLIENT, secret, lifetime).await;
    }

    /// Requests a refresh of the first `refreshes` TokenSources; `request` must be new.
    pub async fn request_refreshes(&self, refreshes: usize, request: &str) {
        request_refreshes(refreshes, |_| self.api(), request).await;
    }

    pub fn api(&self) -> Api<TokenSource> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The number of token requests so far.
    pub async fn mints(&self) -> usize {
        usize::try_from(self.server.requests(CLIENT).await.total).unwrap()
    }

    /// How many token requests were answered with a token so far.
    pub async fn answered(&self) -> usize {
        usize::try_from(self.server.requests(CLIENT).await.succeeded).unwrap()
    }

    /// How many TokenSources have a token in their Secret.
    pub async fn written(&self) -> usize {
        let list = self.secrets().list_metadata(&ListParams::default().limit(1)).await.unwrap();
        let others = list.metadata.remaining_item_count.unwrap_or(0);
        // One of them holds the credentials.
        list.items.len() + usize::try_from(others).unwrap() - 1
    }

    /// Waits for so many token requests.
    pub async fn until_minted(&self, total: usize) {
        let begun = Instant::now();
        let limit = Duration::from_secs(900.max(total as u64 / 40));
        while self.mints().await < total {
            assert!(begun.elapsed() < limit, "not all were minted within {limit:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// The operator's metrics, as it serves them.
pub async fn metrics() -> reqwest::Result<String> {
    let page = crate::support::authorization_server::http_client().get(format!("http://{ADMIN}/metrics"));
    page.send().await?.text().await
}

/// The largest part of its slack that a refresh used within so long a time.
pub async fn latest_refresh(time: Duration) -> f64 {
    let (begun, mut latest) = (Instant::now(), 0_f64);
    while begun.elapsed() < time {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let metrics = metrics().await.unwrap();
        latest = series(&metrics, "tokensource_refresh_lateness_ratio").fold(latest, f64::max);
    }
    latest
}

/// Whether the operator says that it is ready.
pub async fn is_ready() -> bool {
    let page = crate::support::authorization_server::http_client().get(format!("http://{ADMIN}/readyz"));
    page.send().await.is_ok_and(|page| page.status().is_success())
}

/// Waits until the operator is ready.
pub async fn until_ready() {
    let begun = Instant::now();
    while !is_ready().await {
        assert!(begun.elapsed() < Duration::from_secs(300), "not ready within 5 minutes");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The values of all series of a metric.
pub fn series<'m>(metrics: &'m str, name: &'m str) -> impl Iterator<Item = f64> + 'm {
    series_of(metrics, name, "")
}

/// The values of those series of a metric that have this label.
pub fn series_of<'m>(metrics: &'m str, name: &'m str, label: &'m str) -> impl Iterator<Item = f64> + 'm {
    let of_it = move |line: &&str| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{') && rest.contains(label))
    };
    metrics.lines().filter(of_it).map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
}

/// The value of a metric that has no labels, if there is one of this name.
pub fn value(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// How many calls to the API server the operator has counted, by verb and resource.
pub fn calls(metrics: &str) -> BTreeMap<String, f64> {
    let mut calls = BTreeMap::new();
    let lines =
        metrics.lines().filter_map(|line| line.strip_prefix("tokensource_kubernetes_requests_total{"));
    for line in lines {
        let label = |name: &str| line.split_once(&format!("{name}=\"")).unwrap().1.split('"').next().unwrap();
        let number: f64 = line.rsplit_once(' ').unwrap().1.parse().unwrap();
        *calls.entry(format!("{} {}", label("verb"), label("resource"))).or_default() += number;
    }
    calls
}
