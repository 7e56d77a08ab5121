//! The process: configuration, logging, and the order of starting and stopping.

mod admin;
mod endpoints;
mod health;
mod stopping;
mod telemetry;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use http::HeaderValue;
use http::header::USER_AGENT;
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tower::util::MapRequestLayer;
use tracing::{info, warn};

pub use admin::AdminAddress;
use admin::{Admin, Pages};
pub use endpoints::EndpointError;
pub(crate) use endpoints::{api_server_addresses, transport, unused_proxies};
use stopping::Stopping;

use crate::cli::RunArgs;
use crate::controller::{self, Context, Kubernetes, Parts, Pulse};
use crate::oauth::{Gate, Limits};

/// How this program names itself to token endpoints and to the API server.
pub(crate) const AGENT: &str = concat!("tokensource-operator/", env!("CARGO_PKG_VERSION"));

/// How long running reconciles may take to end: less than the 45 s after which Kubernetes kills the pod.
const GRACE: Duration = Duration::from_secs(40);

/// Why the operator does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Log lines cannot be written as asked.
    #[error("--log-level: {0}")]
    LogLevel(#[from] tracing_subscriber::filter::ParseError),
    /// No cluster is configured.
    #[error("no cluster: neither in a pod, nor by KUBECONFIG or ~/.kube/config: {0}")]
    Configuration(#[source] Box<kube::config::InferConfigError>),
    /// The API server cannot be used.
    #[error("the Kubernetes API server cannot be used: {0}")]
    Kubernetes(#[source] Box<kube::Error>),
    /// The CustomResourceDefinition is missing, or may not be read.
    #[error(
        "TokenSources cannot be listed: {0}; install the CustomResourceDefinition with `kubectl apply -f crds/`, and see that the operator may list and watch them"
    )]
    Sources(#[source] Box<kube::Error>),
    /// The selector is none, or namespaces may not be read.
    #[error(
        "--namespace-selector: namespaces cannot be listed: {0}; write labels as for `kubectl get namespaces -l`, and see that the operator may list and watch namespaces"
    )]
    Namespaces(#[source] Box<kube::Error>),
    /// No HTTP client for token endpoints can be built.
    #[error(transparent)]
    Transport(#[from] EndpointError),
    /// The admin server cannot listen.
    #[error("--admin-address {address}: {error}")]
    Admin {
        /// Where.
        address: AdminAddress,
        /// Why.
        error: std::io::Error,
    },
    /// Signals cannot be received.
    #[error("signals cannot be received: {0}")]
    Signals(#[from] std::io::Error),
}

/// Runs the operator until SIGTERM or SIGINT.
///
/// # Errors
/// See [`StartError`].
pub async fn run(arguments: RunArgs) -> Result<(), StartError> {
    telemetry::start(arguments.log_format, &arguments.log_level)?;
    crate::oauth::transport::install_crypto_provider();
    let stopping = Stopping::on_signals()?;
    let pulse = Arc::new(Pulse::default());
    let cluster = Cluster::of_environment(&pulse).await?;
    check_sources(&cluster.client, &arguments.namespaces).await?;
    if let Some(selector) = &arguments.namespace_selector {
        check_namespaces(&cluster.client, selector).await?;
    }
    let context = context(&arguments, &cluster, pulse)?;
    let pages = Pages {
        live: health::live(Arc::clone(&context)),
        ready: health::ready(Arc::clone(&context), stopping.clone()),
        metrics: Box::new(|text| text.push_str("# EOF\n")),
    };
    // It answers until all else has ended.
    let _admin = Admin::start(arguments.admin_address, pages)
        .await
        .map_err(|error| StartError::Admin { address: arguments.admin_address, error })?;
    info!(version = env!("CARGO_PKG_VERSION"), namespaces = ?arguments.namespaces, "starting");

    let begun = stopping.begun().boxed().shared();
    let deadline = async {
        begun.clone().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        () = controller::run(cluster.client, &arguments.namespaces, context, begun.clone()) => info!("stopped"),
        () = deadline => warn!("stopped, though not every reconcile had ended"),
    }
    Ok(())
}

/// The cluster that the environment names.
struct Cluster {
    client: Client,
    /// The API server's own addresses.
    addresses: Vec<IpAddr>,
}

impl Cluster {
    async fn of_environment(pulse: &Arc<Pulse>) -> Result<Self, StartError> {
        let mut configuration =
            Config::infer().await.map_err(|error| StartError::Configuration(Box::new(error)))?;
        // Retries belong to the schedule: one call of a reconcile must not last minutes.
        configuration.default_retry = false;
        // A watch ends by itself after 290 s. A list over a connection that died would never.
        configuration.read_timeout = Some(Duration::from_secs(295));
        configuration.headers.push((USER_AGENT, HeaderValue::from_static(AGENT)));
        let addresses = api_server_addresses(&configuration);
        let pulse = Arc::clone(pulse);
        let client = ClientBuilder::try_from(configuration)
            .map_err(|error| StartError::Kubernetes(Box::new(error)))?
            .with_layer(&MapRequestLayer::new(move |request: http::Request<Body>| {
                pulse.request(request.uri());
                request
            }))
            .build();
        Ok(Cluster { client, addresses })
    }
}

/// What the reconciles of these flags share.
fn context(arguments: &RunArgs, cluster: &Cluster, pulse: Arc<Pulse>) -> Result<Arc<Context>, EndpointError> {
    let endpoints = &arguments.endpoints;
    if let Some(unused) = unused_proxies(endpoints) {
        info!("{unused}");
    }
    let limits =
        Limits { in_flight: arguments.endpoint_max_in_flight, per_second: arguments.endpoint_max_per_second };
    Ok(Arc::new(Context::new(Parts {
        kubernetes: Kubernetes::new(cluster.client.clone()),
        transport: transport(endpoints, cluster.addresses.clone())?,
        gate: Gate::new(limits),
        watches: arguments.namespaces.len().max(1),
        pulse,
        propagation_delay: endpoints.default_propagation_delay,
        namespace_selector: arguments.namespace_selector.clone(),
        require_credentials_label: arguments.require_credentials_label,
        instance: instance(),
    })))
}

/// Who this is, among its replicas.
fn instance() -> String {
    std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).unwrap_or_else(|_| "local".into())
}

/// Fails early, with the remedy, where watching would only fail again and again.
async fn check_sources(client: &Client, namespaces: &[String]) -> Result<(), StartError> {
    let api: kube::Api<crate::api::TokenSource> = match namespaces.first() {
        Some(namespace) => kube::Api::namespaced(client.clone(), namespace),
        None => kube::Api::all(client.clone()),
    };
    let one = kube::api::ListParams::default().limit(1);
    api.list_metadata(&one).await.map(drop).map_err(|error| StartError::Sources(Box::new(error)))
}

/// The same for the namespaces that a selector selects.
async fn check_namespaces(client: &Client, selector: &str) -> Result<(), StartError> {
    let api: kube::Api<k8s_openapi::api::core::v1::Namespace> = kube::Api::all(client.clone());
    let one = kube::api::ListParams::default().limit(1).labels(selector);
    api.list_metadata(&one).await.map(drop).map_err(|error| StartError::Namespaces(Box::new(error)))
}
