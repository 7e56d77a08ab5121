//! A fleet of TokenSources on a real control plane, with a real authorization server.
#![allow(dead_code, unreachable_pub, reason = "each benchmark uses its own part of this")]

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
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

impl Fleet {
    /// Creates the TokenSources; their tokens have a lifetime of `lifetime` seconds.
    pub async fn create(sources: usize, lifetime: u32) -> Self {
        let control_plane = ControlPlane::shared();
        let fleet = Fleet {
            client: control_plane.client().await,
            namespace: control_plane.namespace("fleet").await,
            server: AuthorizationServer::shared(),
            sources,
        };
        fleet.accept("secret", lifetime).await;
        let secrets: Api<Secret> = Api::namespaced(fleet.client.clone(), &fleet.namespace);
        let credentials = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "credentials"},
            "stringData": {"client_id": CLIENT, "client_secret": "secret"}});
        secrets
            .patch("credentials", &PatchParams::apply("bench"), &Patch::Apply(&credentials))
            .await
            .unwrap();
        let params = PatchParams::apply("bench");
        let url = fleet.server.vgs_token_url();
        let patch = |n: usize| {
            let name = format!("source-{n}");
            let source = json!({"apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource",
                "metadata": {"name": name},
                "spec": {"provider": {"vgs": {"tokenURL": url}}, "credentials": {"secretRef": {"name": "credentials"}},
                    "target": {"name": format!("token-{n}")}}});
            (name, Patch::Apply(source))
        };
        fleet.patch(sources, &params, patch).await;
        fleet
    }

    /// Sets the secret that the authorization server accepts (the fleet's is `secret`) and the tokens' lifetime in seconds.
    pub async fn accept(&self, secret: &str, lifetime: u32) {
        let client = ClientSpec {
            id: CLIENT.into(),
            secret: Some(secret.into()),
            token_endpoint_auth_method: "client_secret_post",
            grant_types: vec!["client_credentials"],
            access_token_ttl: lifetime,
            ..ClientSpec::default()
        };
        self.server.client(client).await;
    }

    /// Requests a refresh of the first `refreshes` TokenSources; `request` must be new.
    pub async fn request_refreshes(&self, refreshes: usize, request: &str) {
        let body = json!({"metadata": {"annotations": {"tokensource.dev/refresh-requested-at": request}}});
        self.patch(refreshes, &PatchParams::default(), |n| {
            (format!("source-{n}"), Patch::Merge(body.clone()))
        })
        .await;
    }

    async fn patch(
        &self,
        count: usize,
        params: &PatchParams,
        patch: impl Fn(usize) -> (String, Patch<Value>),
    ) {
        let api: Api<TokenSource> = self.api();
        let patches = stream::iter((0..count).map(patch));
        patches
            .for_each_concurrent(AT_ONCE, |(name, patch)| {
                let api = api.clone();
                async move {
                    api.patch(&name, params, &patch).await.unwrap();
                }
            })
            .await;
    }

    pub fn api(&self) -> Api<TokenSource> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The number of token requests so far.
    pub async fn mints(&self) -> usize {
        usize::try_from(self.server.requests(CLIENT).await.total).unwrap()
    }

    /// Waits for so many token requests.
    pub async fn until_minted(&self, total: usize) {
        let begun = Instant::now();
        while self.mints().await < total {
            assert!(begun.elapsed() < Duration::from_secs(900), "not all were minted within 15 minutes");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// The operator's metrics, as it serves them.
pub async fn metrics() -> reqwest::Result<String> {
    let page = crate::support::authorization_server::http_client().get(format!("http://{ADMIN}/metrics"));
    page.send().await?.text().await
}

/// The values of all series of a metric.
pub fn series<'m>(metrics: &'m str, name: &'m str) -> impl Iterator<Item = f64> + 'm {
    let of_it =
        metrics.lines().filter(move |line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')));
    of_it.map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
}
