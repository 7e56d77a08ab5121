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

use super::{AGENT, StartError, api_server_addresses};
use crate::api::TokenSource;
use crate::controller::Pulse;
use crate::metrics::{CountRequests, Metrics};

/// A cluster, and the ways to it.
pub(super) struct Cluster {
    pub(super) client: Client,
    /// Another connection, for leader election alone.
    pub(super) lease_client: Client,
    /// The API server's own addresses.
    pub(super) addresses: Vec<IpAddr>,
    /// The pod's namespace, or that of the kubeconfig's context.
    pub(super) namespace: String,
}

impl Cluster {
    pub(super) async fn of_environment(
        pulse: &Arc<Pulse>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, StartError> {
        let mut configuration =
            Config::infer().await.map_err(|error| StartError::Configuration(Box::new(error)))?;
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
        let pulse = Arc::clone(pulse);
        let client = ClientBuilder::try_from(configuration)
            .map_err(unusable)?
            .with_layer(&MapRequestLayer::new(move |request: http::Request<Body>| {
                pulse.request(request.uri());
                request
            }))
            .with_layer(&counts)
            .build();
        Ok(Cluster { client, lease_client, addresses, namespace })
    }

    /// Fails early, with the remedy, where watching would only fail again and again.
    pub(super) async fn check_sources(&self, namespaces: &[String]) -> Result<(), StartError> {
        let api: Api<TokenSource> = match namespaces.first() {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let listed = api.list_metadata(&ListParams::default().limit(1)).await;
        listed.map(drop).map_err(|error| StartError::Sources(Box::new(error)))
    }

    /// The same for the namespaces that a selector selects.
    pub(super) async fn check_namespaces(&self, selector: &str) -> Result<(), StartError> {
        let api: Api<Namespace> = Api::all(self.client.clone());
        let listed = api.list_metadata(&ListParams::default().limit(1).labels(selector)).await;
        listed.map(drop).map_err(|error| StartError::Namespaces(Box::new(error)))
    }
}

fn unusable(error: kube::Error) -> StartError {
    StartError::Kubernetes(Box::new(error))
}
