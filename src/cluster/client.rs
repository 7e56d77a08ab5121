//! The client of the operator, for the cluster of its environment.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use http::header::USER_AGENT;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config, Resource};
use tokensource_api::ClusterTokenIssuer;
use tokio::time::timeout;
use tower::util::{MapRequestLayer, MapResponseLayer};
use tracing::warn;

use super::body::list_one;
use super::date::ReadDate;
use super::lease::{LeaseClient, LeaseName};
use super::message::{is_outage, message};
use super::objects::SourceMetadata;
use super::retry_after::as_status;
use super::service_accounts::TokenCheck;
use crate::clock::Clock;
use crate::heartbeat::Heartbeats;
use crate::metrics::{CountRequests, Metrics};

/// The `User-Agent` of requests to the API server and to token endpoints.
pub(crate) const AGENT: &str = concat!("tokensource-operator/", env!("CARGO_PKG_VERSION"));

/// How long a check at the start may take.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// The cluster cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// No cluster is configured.
    #[error("no cluster: neither in a pod, nor by KUBECONFIG or ~/.kube/config: {0}")]
    Configuration(#[source] Box<kube::config::InferConfigError>),
    /// The API server cannot be used.
    #[error("the Kubernetes API server cannot be used: {}", message(.0))]
    Kubernetes(#[source] Box<kube::Error>),
    /// The CustomResourceDefinition is missing, or RBAC does not permit to list TokenSources.
    #[error(
        "TokenSources cannot be listed: {}; install the CustomResourceDefinition with `kubectl apply -f crds/`, and see that the operator may list and watch them",
        message(.0)
    )]
    Sources(#[source] Box<kube::Error>),
    /// The CustomResourceDefinition is missing, or RBAC does not permit to list ClusterTokenIssuers.
    #[error(
        "--issuers-namespace: ClusterTokenIssuers cannot be listed: {}; install the CustomResourceDefinition with `kubectl apply -f crds/`, and see that the operator may list and watch them",
        message(.0)
    )]
    Issuers(#[source] Box<kube::Error>),
    /// The selector is invalid, or RBAC does not permit to list namespaces.
    #[error(
        "--namespace-selector: namespaces cannot be listed: {}; write labels as for `kubectl get namespaces -l`, and see that the operator may list and watch namespaces",
        message(.0)
    )]
    Namespaces(#[source] Box<kube::Error>),
}

/// The clients for a cluster.
pub(crate) struct Cluster {
    pub(crate) client: Client,
    /// A client with its own connections, for all calls about objects of single namespaces where rights are given by namespace.
    /// Its watches are no heartbeats: they come and go. Its refusals are not counted: a namespace that its owner has not opened,
    /// or has closed, is no fault.
    pub(crate) namespace_client: Client,
    /// A client with its own connections, for leader election only.
    lease_client: Client,
    /// Tries tokens of ServiceAccounts.
    pub(crate) token_check: TokenCheck,
    /// The API server's own addresses.
    pub(crate) addresses: Vec<IpAddr>,
    /// The pod's namespace, or that of the kubeconfig's context.
    pub(crate) namespace: String,
}

impl Cluster {
    pub(crate) async fn of_environment(
        heartbeats: &Arc<Heartbeats>,
        metrics: &Arc<Metrics>,
        clock: &Arc<Clock>,
    ) -> Result<Self, ClusterError> {
        let mut configuration =
            Config::infer().await.map_err(|error| ClusterError::Configuration(Box::new(error)))?;
        // The operator schedules retries itself: one call of a reconciliation must not last minutes.
        configuration.default_retry = false;
        // A watch ends after 290 s. Without this timeout, a list over a dead connection would never end.
        configuration.read_timeout = Some(Duration::from_secs(295));
        configuration.headers.push((USER_AGENT, HeaderValue::from_static(AGENT)));
        let addresses = api_server_addresses(&configuration);
        let pod_namespace = std::env::var("POD_NAMESPACE").ok().filter(|namespace| !namespace.is_empty());
        let namespace = pod_namespace.unwrap_or_else(|| configuration.default_namespace.clone());
        let counts = CountRequests::new(Arc::clone(metrics));
        let dates = ReadDate(Arc::clone(clock));
        let without_heartbeats = |counts: &CountRequests| {
            let builder = ClientBuilder::try_from(configuration.clone()).map_err(unusable)?;
            let builder = builder.with_layer(counts).with_layer(&dates);
            Ok(builder.with_layer(&MapResponseLayer::new(as_status)).build())
        };
        let lease_client = without_heartbeats(&counts)?;
        let namespace_client = without_heartbeats(&counts.clone().without_refusals())?;
        let token_check = TokenCheck::new(&configuration).map_err(unusable)?;
        let heartbeats = Arc::clone(heartbeats);
        let client = ClientBuilder::try_from(configuration.clone())
            .map_err(unusable)?
            .with_layer(&MapRequestLayer::new(move |request: http::Request<Body>| {
                heartbeats.request(request.uri());
                request
            }))
            .with_layer(&counts)
            .with_layer(&dates)
            .with_layer(&MapResponseLayer::new(as_status))
            .build();
        Ok(Cluster { client, namespace_client, lease_client, token_check, addresses, namespace })
    }

    /// The calls of leader election. They do not wait behind other calls.
    pub(crate) fn lease(&self, name: &LeaseName) -> LeaseClient {
        LeaseClient::new(self.lease_client.clone(), name)
    }

    /// Lists TokenSources once, so that missing rights stop the process at its start instead of failing every watch.
    pub(crate) async fn check_sources(&self, namespaces: &[String]) -> Result<(), ClusterError> {
        let path = SourceMetadata::url_path(&(), namespaces.first().map(String::as_str));
        check(list_one(&self.client, path, ListParams::default()), ClusterError::Sources).await
    }

    /// Lists ClusterTokenIssuers once, for the same purpose.
    pub(crate) async fn check_issuers(&self) -> Result<(), ClusterError> {
        let path = ClusterTokenIssuer::url_path(&(), None);
        check(list_one(&self.client, path, ListParams::default()), ClusterError::Issuers).await
    }

    /// Lists namespaces by the selector once, for the same purpose.
    pub(crate) async fn check_namespaces(&self, selector: &str) -> Result<(), ClusterError> {
        let path = Namespace::url_path(&(), None);
        let params = ListParams::default().labels(selector);
        check(list_one(&self.client, path, params), ClusterError::Namespaces).await
    }
}

/// Makes a call that shows whether the cluster can be used. An outage is no reason to end: Kubernetes would start the operator
/// again ever later, while tokens expire. The watches go on trying.
async fn check<T>(
    call: impl Future<Output = kube::Result<T>>,
    unusable: impl FnOnce(Box<kube::Error>) -> ClusterError,
) -> Result<(), ClusterError> {
    match timeout(CHECK_TIMEOUT, call).await {
        Ok(Err(error)) if is_outage(&error) => {
            warn!(error = %message(&error), "the API server does not answer at the start");
            Ok(())
        }
        Ok(listed) => listed.map(drop).map_err(|error| unusable(Box::new(error))),
        Err(_) => {
            warn!(error = "no answer in time", "the API server does not answer at the start");
            Ok(())
        }
    }
}

fn unusable(error: kube::Error) -> ClusterError {
    ClusterError::Kubernetes(Box::new(error))
}

/// The API server's own addresses, which no token endpoint may have. In a pod it is the address of the Service.
pub(super) fn api_server_addresses(configuration: &Config) -> Vec<IpAddr> {
    let host = configuration.cluster_url.host().map(|host| host.trim_matches(['[', ']']).to_owned());
    let service = std::env::var("KUBERNETES_SERVICE_HOST").ok();
    [host, service].into_iter().flatten().filter_map(|host| host.parse().ok()).collect()
}
