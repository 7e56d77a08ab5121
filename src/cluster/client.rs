//! The cluster that the environment names.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::header::USER_AGENT;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::client::{Body, ClientBuilder};
use kube::{Api, Client, Config};
use tower::util::MapRequestLayer;

use crate::heartbeat::Heartbeats;
use crate::metrics::{CountRequests, Metrics};
use tokensource_api::TokenSource;

/// How this program names itself to the API server and to token endpoints.
pub(crate) const AGENT: &str = concat!("tokensource-operator/", env!("CARGO_PKG_VERSION"));

/// Why the cluster cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No cluster is configured.
    #[error("no cluster: neither in a pod, nor by KUBECONFIG or ~/.kube/config: {0}")]
    Configuration(#[source] Box<kube::config::InferConfigError>),
    /// The API server cannot be used.
    #[error("the Kubernetes API server cannot be used: {}", in_short(.0))]
    Kubernetes(#[source] Box<kube::Error>),
    /// The CustomResourceDefinition is missing, or may not be read.
    #[error(
        "TokenSources cannot be listed: {}; install the CustomResourceDefinition with `kubectl apply -f crds/`, and see that the operator may list and watch them",
        in_short(.0)
    )]
    Sources(#[source] Box<kube::Error>),
    /// The selector is none, or namespaces may not be read.
    #[error(
        "--namespace-selector: namespaces cannot be listed: {}; write labels as for `kubectl get namespaces -l`, and see that the operator may list and watch namespaces",
        in_short(.0)
    )]
    Namespaces(#[source] Box<kube::Error>),
}

/// What the API server says, without the whole of its answer.
fn in_short(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    }
}

/// A cluster, and the ways to it.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    /// Another connection, for leader election alone.
    pub(crate) lease_client: Client,
    /// The API server's own addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// The pod's namespace, or that of the kubeconfig's context.
    pub(crate) namespace: String,
}

impl Cluster {
    pub(crate) async fn of_environment(
        heartbeats: &Arc<Heartbeats>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, ClusterError> {
        let mut configuration =
            Config::infer().await.map_err(|error| ClusterError::Configuration(Box::new(error)))?;
        // Retries belong to the schedule: one call of a reconcile must not last minutes.
        configuration.default_retry = false;
        // A watch ends by itself after 290 s. A list over a connection that died would never.
        configuration.read_timeout = Some(Duration::from_secs(295));
        configuration.headers.push((USER_AGENT, HeaderValue::from_static(AGENT)));
        let addresses = api_server_addresses(&configuration);
        let pod_namespace = std::env::var("POD_NAMESPACE").ok().filter(|namespace| !namespace.is_empty());
        let namespace = pod_namespace.unwrap_or_else(|| configuration.default_namespace.clone());
        let counts = CountRequests(Arc::clone(metrics));
        let lease_client =
            ClientBuilder::try_from(configuration.clone()).map_err(unusable)?.with_layer(&counts).build();
        let heartbeats = Arc::clone(heartbeats);
        let client = ClientBuilder::try_from(configuration)
            .map_err(unusable)?
            .with_layer(&MapRequestLayer::new(move |request: http::Request<Body>| {
                heartbeats.request(request.uri());
                request
            }))
            .with_layer(&counts)
            .build();
        Ok(Cluster { client, lease_client, addresses, namespace })
    }

    /// Fails early, with the remedy, where watching would only fail again and again.
    pub(crate) async fn check_sources(&self, namespaces: &[String]) -> Result<(), ClusterError> {
        let api: Api<TokenSource> = match namespaces.first() {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let listed = api.list_metadata(&ListParams::default().limit(1)).await;
        listed.map(drop).map_err(|error| ClusterError::Sources(Box::new(error)))
    }

    /// The same for the namespaces that a selector selects.
    pub(crate) async fn check_namespaces(&self, selector: &str) -> Result<(), ClusterError> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let listed = api.list_metadata(&ListParams::default().limit(1).labels(selector)).await;
        listed.map(drop).map_err(|error| ClusterError::Namespaces(Box::new(error)))
    }
}

fn unusable(error: kube::Error) -> ClusterError {
    ClusterError::Kubernetes(Box::new(error))
}

/// The API server's own addresses, which no token endpoint may have. In a pod that is the Service's address.
pub(crate) fn api_server_addresses(configuration: &Config) -> Vec<IpAddr> {
    let host = configuration.cluster_url.host().map(|host| host.trim_matches(['[', ']']).to_owned());
    let service = std::env::var("KUBERNETES_SERVICE_HOST").ok();
    [host, service].into_iter().flatten().filter_map(|host| host.parse().ok()).collect()
}
