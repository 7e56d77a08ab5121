//! The process: configuration, logging, and the order of starting and stopping.

mod telemetry;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use http::HeaderValue;
use http::header::USER_AGENT;
use kube::{Client, Config};
use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

use crate::cli::{EndpointArgs, RunArgs};
use crate::controller::{self, Context, Kubernetes, Parts};
use crate::oauth::{Egress, Gate, Limits, Proxies, ProxyError, Transport, TransportError};

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
    /// No HTTP client for token endpoints can be built.
    #[error(transparent)]
    Transport(#[from] EndpointError),
    /// Signals cannot be received.
    #[error("signals cannot be received: {0}")]
    Signals(#[from] std::io::Error),
}

/// Runs the operator until SIGTERM or SIGINT.
///
/// # Errors
/// See [`StartError`].
pub async fn run(arguments: RunArgs) -> Result<(), StartError> {
    let RunArgs {
        namespaces,
        endpoints,
        endpoint_max_in_flight,
        endpoint_max_per_second,
        log_format,
        log_level,
    } = arguments;
    telemetry::start(log_format, &log_level)?;
    crate::oauth::transport::install_crypto_provider();

    let mut configuration =
        Config::infer().await.map_err(|error| StartError::Configuration(Box::new(error)))?;
    // Retries belong to the schedule: one call of a reconcile must not last minutes.
    configuration.default_retry = false;
    configuration.headers.push((USER_AGENT, HeaderValue::from_static(AGENT)));
    let api_server = api_server_addresses(&configuration);
    let client = Client::try_from(configuration).map_err(|error| StartError::Kubernetes(Box::new(error)))?;
    check_sources(&client, &namespaces).await?;

    let propagation_delay = endpoints.default_propagation_delay;
    let limits = Limits { in_flight: endpoint_max_in_flight, per_second: endpoint_max_per_second };
    if let Some(unused) = unused_proxies(&endpoints) {
        info!("{unused}");
    }
    let context = Arc::new(Context::new(Parts {
        kubernetes: Kubernetes::new(client.clone()),
        transport: transport(endpoints, api_server)?,
        gate: Gate::new(limits),
        watches: namespaces.len().max(1),
        propagation_delay,
        instance: std::env::var("POD_NAME")
            .or_else(|_| std::env::var("HOSTNAME"))
            .unwrap_or_else(|_| "local".into()),
    }));

    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("stopping: running reconciles end first; a second signal ends them too");
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            std::process::exit(1);
        });
    };
    info!(version = env!("CARGO_PKG_VERSION"), namespaces = ?namespaces, "starting");
    let shutdown = shutdown.boxed().shared();
    let deadline = async {
        shutdown.clone().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        () = controller::run(client, &namespaces, context, shutdown.clone()) => info!("stopped"),
        () = deadline => warn!("stopped, though not every reconcile had ended"),
    }
    Ok(())
}

/// Why token endpoints cannot be reached as the flags say.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// No HTTP client can be built.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A variable names no proxy.
    #[error("--proxy-from-environment: {0}")]
    Proxy(#[from] ProxyError),
}

/// The way to token endpoints that the flags describe, and never to `api_server`.
pub(crate) fn transport(flags: EndpointArgs, api_server: Vec<IpAddr>) -> Result<Transport, EndpointError> {
    let only = (!flags.egress_only.is_empty()).then_some(flags.egress_only);
    let egress = Arc::new(Egress::new(flags.egress_allow, only, flags.allow_http, api_server));
    let proxies = match flags.proxy_from_environment {
        true => Proxies::from_environment(|name| std::env::var(name).ok())?,
        false => Proxies::default(),
    };
    Ok(Transport::with_proxies(egress, AGENT, proxies)?)
}

/// What to say where the environment names proxies and nobody said to use them.
pub(crate) fn unused_proxies(flags: &EndpointArgs) -> Option<String> {
    let set = |name: &&str| std::env::var(name).is_ok_and(|value| !value.trim().is_empty());
    let names: Vec<&str> =
        ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"].into_iter().filter(set).collect();
    (!flags.proxy_from_environment && !names.is_empty()).then(|| {
        format!(
            "token endpoints are connected to directly, though {} is set: --proxy-from-environment goes through the proxy",
            names.join(" and ")
        )
    })
}

/// The API server's own addresses, which no token endpoint may have. In a pod that is the Service's address.
pub(crate) fn api_server_addresses(configuration: &Config) -> Vec<IpAddr> {
    let host = configuration.cluster_url.host().map(|host| host.trim_matches(['[', ']']).to_owned());
    let service = std::env::var("KUBERNETES_SERVICE_HOST").ok();
    [host, service].into_iter().flatten().filter_map(|host| host.parse().ok()).collect()
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
