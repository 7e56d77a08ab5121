//! The process: configuration, logging, and the order of start and stop.

mod admin;
mod arguments;
mod chunked_text;
mod health;
mod lease;
mod signals;
mod telemetry;
mod traces;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

pub use admin::{AdminAddress, AdminAddressError};
use admin::{AdminServer, Pages};
pub use arguments::RunArgs;
use lease::{Candidacy, LeaderElection};
pub use lease::{LeaseTimings, LeaseTimingsError, LeaseUnusable};
pub use telemetry::LogFormat;

use crate::cluster::{Cluster, ClusterError, Kubernetes, LeaseName};
use crate::controller::{self, Context, Parts};
use crate::heartbeat::Heartbeats;
use crate::leadership::Leadership;
use crate::metrics::Metrics;
use crate::token_request::{EndpointError, transport, unused_proxies};
use token_endpoint::Limits;

/// How long the controller may take to stop. Together with the release of the Lease it is less than the 45 s after which
/// Kubernetes kills the pod.
const STOP_TIMEOUT: Duration = Duration::from_secs(35);

/// The operator cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The filter of log lines is invalid.
    #[error("--log-level: {0}")]
    LogLevel(#[from] tracing_subscriber::filter::ParseError),
    /// The cluster cannot be used.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// The flags of leader election contradict each other.
    #[error(transparent)]
    LeaseTimings(#[from] LeaseTimingsError),
    /// The Lease cannot be read.
    #[error(transparent)]
    Lease(#[from] LeaseUnusable),
    /// No HTTP client for token endpoints can be built.
    #[error(transparent)]
    Transport(#[from] EndpointError),
    /// The admin server cannot listen.
    #[error("--admin-address {address}: {error}")]
    Admin {
        /// The address of the flag.
        address: AdminAddress,
        /// The error of the operating system.
        #[source]
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
    let lease_timings = lease_timings(&arguments)?;
    let stopping = signals::stop_requested()?;
    let heartbeats = Arc::new(Heartbeats::default());
    let metrics = Arc::new(Metrics::new());
    let cluster = Cluster::of_environment(&heartbeats, &metrics).await?;
    cluster.check_sources(&arguments.namespaces).await?;
    if let Some(selector) = &arguments.namespace_selector {
        cluster.check_namespaces(selector).await?;
    }

    let (lease, leads) = watch::channel(None);
    let leadership = match lease_timings {
        Some(_) => Leadership::new(leads, stopping),
        None => Leadership::without_election(stopping),
    };
    let context = context(&arguments, &cluster, leadership.clone(), Arc::clone(&heartbeats), metrics)?;
    let admin = AdminServer::start(arguments.admin_address, pages(&context))
        .await
        .map_err(|error| StartError::Admin { address: arguments.admin_address, error })?;
    let election = match lease_timings {
        Some(timings) => {
            let candidacy = candidacy(&arguments, &cluster, timings).await?;
            let caches = Arc::clone(&context);
            Some(LeaderElection::start(candidacy, lease, heartbeats, async move { caches.warm().await }))
        }
        None => None,
    };
    info!(version = env!("CARGO_PKG_VERSION"), namespaces = ?arguments.namespaces, "starting");

    // From SIGTERM on the process is not ready and starts nothing new. Running work ends, and its results are written.
    let deadline = async {
        leadership.wait_until_stopping().await;
        tokio::time::sleep(STOP_TIMEOUT).await;
    };
    tokio::select! {
        () = controller::run(cluster.client, &arguments.namespaces, context) => info!("stopped"),
        () = deadline => warn!("stopped, though not every reconciliation had ended"),
    }
    // From here on another process may lead.
    if let Some(election) = election {
        election.end().await;
    }
    if let Some(traces) = traces {
        traces.end().await;
    }
    // Last, so that /readyz reports the shutdown until the end.
    drop(admin);
    Ok(())
}

/// The timings of the flags; `None` without leader election.
fn lease_timings(arguments: &RunArgs) -> Result<Option<LeaseTimings>, LeaseTimingsError> {
    let timings = LeaseTimings {
        duration: Duration::from_secs(arguments.leader_election_lease_duration),
        renew_deadline: Duration::from_secs(arguments.leader_election_renew_deadline),
        retry_period: Duration::from_secs(arguments.leader_election_retry_period),
    };
    if !arguments.leader_elect {
        return Ok(None);
    }
    timings.check().map(Some)
}

/// The settings of this process in the leader election, after a check that the Lease can be read.
async fn candidacy(
    arguments: &RunArgs,
    cluster: &Cluster,
    timings: LeaseTimings,
) -> Result<Candidacy, LeaseUnusable> {
    let lease = LeaseName {
        namespace: arguments.leader_election_namespace.as_ref().unwrap_or(&cluster.namespace).clone(),
        name: arguments.leader_election_lease_name.clone(),
    };
    let candidacy = Candidacy::new(cluster.lease(&lease), lease, &instance(), timings);
    candidacy.check().await?;
    Ok(candidacy)
}

/// The pages of the admin server.
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

/// The shared state of the controller.
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

/// The name of this replica.
fn instance() -> String {
    std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).unwrap_or_else(|_| "local".into())
}
