//! The process: configuration, logging, and the order of starting and stopping.

mod admin;
mod arguments;
mod health;
mod lease;
mod stopping;
mod telemetry;
mod text;
mod traces;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

pub use admin::AdminAddress;
use admin::{Admin, Pages};
pub use arguments::RunArgs;
use lease::{Election, Standing};
pub use lease::{LeaseName, LeaseUnusable, Terms};
pub use telemetry::LogFormat;

use crate::cluster::{Cluster, ClusterError, Kubernetes};
use crate::controller::{self, Context, Parts};
use crate::heartbeat::Heartbeats;
use crate::leadership::Leadership;
use crate::metrics::Metrics;
use crate::token_request::{EndpointError, transport, unused_proxies};
use token_endpoint::Limits;

/// How long running reconciles may take to end. With what the release of the lease may take, that is less than the 45 s
/// after which Kubernetes kills the pod.
const GRACE: Duration = Duration::from_secs(35);

/// Why the operator does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Log lines cannot be written as asked.
    #[error("--log-level: {0}")]
    LogLevel(#[from] tracing_subscriber::filter::ParseError),
    /// The cluster cannot be used.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The flags of leader election contradict each other.
    #[error("{0}")]
    Terms(&'static str),
    /// The Lease may not be read, or is nowhere.
    #[error(transparent)]
    Lease(LeaseUnusable),
    /// No HTTP client for token endpoints can be built.
    #[error(transparent)]
    Transport(#[from] EndpointError),
    /// The admin server cannot listen.
    #[error("--admin-address {address}: {error}")]
    Admin {
        /// Where.
        address: AdminAddress,
        /// MintReason.
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
    token_endpoint::transport::install_crypto_provider();
    let traces = telemetry::start(arguments.log_format, &arguments.log_level)?;
    let terms = election_terms(&arguments)?;
    let stopping = stopping::on_signals()?;
    let heartbeats = Arc::new(Heartbeats::default());
    let metrics = Arc::new(Metrics::new());
    let cluster = Cluster::of_environment(&heartbeats, &metrics).await?;
    cluster.check_sources(&arguments.namespaces).await?;
    if let Some(selector) = &arguments.namespace_selector {
        cluster.check_namespaces(selector).await?;
    }

    let (lease, leads) = watch::channel(None);
    let leadership = match terms {
        Some(_) => Leadership::new(leads, stopping),
        None => Leadership::alone(stopping),
    };
    let context = context(&arguments, &cluster, leadership.clone(), Arc::clone(&heartbeats), metrics)?;
    let admin = Admin::start(arguments.admin_address, pages(&context))
        .await
        .map_err(|error| StartError::Admin { address: arguments.admin_address, error })?;
    let election = match terms {
        Some(terms) => {
            let standing = standing(&arguments, &cluster, terms).await?;
            let knowing = Arc::clone(&context);
            Some(Election::start(standing, lease, heartbeats, async move { knowing.warm().await }))
        }
        None => None,
    };
    info!(version = env!("CARGO_PKG_VERSION"), namespaces = ?arguments.namespaces, "starting");

    // From SIGTERM on: not ready; nothing new is begun; what runs ends, and is written.
    let deadline = async {
        leadership.stops().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        () = controller::run(cluster.client, &arguments.namespaces, context) => info!("stopped"),
        () = deadline => warn!("stopped, though not every reconcile had ended"),
    }
    // Now another process may begin.
    if let Some(election) = election {
        election.end().await;
    }
    if let Some(traces) = traces {
        traces.end().await;
    }
    // Somebody may still want to know why it is not ready.
    drop(admin);
    Ok(())
}

/// How a lease is held, where one is wanted.
fn election_terms(arguments: &RunArgs) -> Result<Option<Terms>, StartError> {
    let terms = Terms {
        duration: Duration::from_secs(arguments.leader_election_lease_duration),
        renew_deadline: Duration::from_secs(arguments.leader_election_renew_deadline),
        retry_period: Duration::from_secs(arguments.leader_election_retry_period),
    };
    if !arguments.leader_elect {
        return Ok(None);
    }
    terms.check().map(Some).map_err(StartError::Terms)
}

/// What this process stands for election with.
async fn standing(arguments: &RunArgs, cluster: &Cluster, terms: Terms) -> Result<Standing, StartError> {
    let lease = LeaseName {
        namespace: arguments.leader_election_namespace.as_ref().unwrap_or(&cluster.namespace).clone(),
        name: arguments.leader_election_lease_name.clone(),
    };
    let standing = Standing::new(cluster.lease_client.clone(), lease, &instance(), terms);
    standing.check().await.map_err(StartError::Lease)?;
    Ok(standing)
}

/// What the admin server tells.
fn pages(context: &Arc<Context>) -> Pages {
    Pages {
        live: health::live(Arc::clone(context)),
        ready: health::ready(Arc::clone(context)),
        metrics: {
            let context = Arc::clone(context);
            Box::new(move |text| context.write_metrics(text))
        },
    }
}

/// What the reconciles of these flags share.
fn context(
    arguments: &RunArgs,
    cluster: &Cluster,
    leadership: Leadership,
    heartbeats: Arc<Heartbeats>,
    metrics: Arc<Metrics>,
) -> Result<Arc<Context>, EndpointError> {
    let endpoints = &arguments.endpoints;
    if let Some(unused) = unused_proxies(endpoints) {
        info!("{unused}");
    }
    let limits =
        Limits { in_flight: arguments.endpoint_max_in_flight, per_second: arguments.endpoint_max_per_second };
    Ok(Arc::new(Context::new(Parts {
        kubernetes: Kubernetes::new(cluster.client.clone()),
        transport: transport(endpoints, cluster.addresses.clone())?,
        limits,
        watches: arguments.namespaces.len().max(1),
        leadership,
        heartbeats,
        metrics,
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
