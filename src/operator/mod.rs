//! The process: configuration, logging, and the order of start and stop.

mod admin;
mod arguments;
mod chunked_text;
mod health;
mod lease;
mod liveness;
mod metrics_access;
mod metrics_tls;
mod review_rate;
mod service_networks;
mod signals;
mod telemetry;
mod traces;
mod work_thread;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{error, info, warn};

pub use admin::{AdminAddress, AdminAddressError};
use admin::{AdminServer, Pages, Security};
pub use arguments::RunArgs;
use chunked_text::ChunkedText;
use lease::{Candidacy, LeaderElection};
pub use lease::{LeaseTimings, LeaseTimingsError, LeaseUnusable};
use liveness::Liveness;
use metrics_access::MetricsAccess;
pub use metrics_tls::MetricsCertificateError;
use metrics_tls::MetricsTls;
use service_networks::ServiceNetworks;
pub use telemetry::LogFormat;
use work_thread::WorkThread;

use crate::binding::Grant;
use crate::clock::Clock;
use crate::cluster::{Cluster, ClusterError, Kubernetes, LeaseName, review};
use crate::controller::{self, Context, Followed, IssuerSettings, Parts};
use crate::heartbeat::Heartbeats;
use crate::leadership::Leadership;
use crate::metrics::Metrics;
use crate::token_request::{EndpointError, ServiceAccountTokens, transport, unused_proxies};
use token_endpoint::Limits;

/// How long the controller may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(35);
/// How long after SIGTERM the process tries to save unsaved refresh tokens. It is less than the 45 s after which Kubernetes
/// kills the pod.
const SAVE_TIMEOUT: Duration = Duration::from_secs(40);

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
    /// The certificate of metrics cannot be used.
    #[error("--metrics-cert-path: {0}")]
    MetricsCertificate(#[from] MetricsCertificateError),
    /// The Unix socket for probes cannot be opened.
    #[error("--probe-socket {path}: {error}", path = path.display())]
    ProbeSocket {
        /// The path of the flag.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        error: std::io::Error,
    },
    /// The thread of the controller cannot be started.
    #[error("no thread can be started: {0}")]
    Thread(#[source] std::io::Error),
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
    let work_thread = WorkThread::start().map_err(StartError::Thread)?;
    let heartbeats = Arc::new(Heartbeats::default());
    let clock = Arc::new(Clock::new());
    let metrics = Arc::new(Metrics::new(Arc::clone(&clock)));
    let cluster = Cluster::of_environment(&heartbeats, &metrics, &clock).await?;
    cluster.check_sources(&arguments.namespaces).await?;
    if let Some(selector) = &arguments.namespace_selector {
        cluster.check_namespaces(selector).await?;
    }

    if arguments.issuers_namespace.is_some() {
        cluster.check_issuers().await?;
    }

    let (lease, leads) = watch::channel(None);
    let leadership = match lease_timings {
        Some(_) => Leadership::new(leads, Arc::clone(&clock), stopping),
        None => Leadership::without_election(Arc::clone(&clock), stopping),
    };
    let process = process_name();
    let lease_duration = lease_timings.map(|timings| timings.duration).unwrap_or_default();
    let parts = parts(&arguments, &cluster, leadership.clone(), Arc::clone(&heartbeats), metrics, &clock)?;
    // In namespaced mode the operator has no right to list what belongs to the cluster.
    let service_networks = match arguments.namespaces.is_empty() {
        true => Some(ServiceNetworks::start(cluster.client.clone(), parts.transport.clone()).await),
        false => None,
    };
    let context = Arc::new(Context::new(Parts { process: process.clone(), lease_duration, ..parts }));
    let liveness = {
        let context = Arc::clone(&context);
        Arc::new(Liveness::new(Arc::clone(&heartbeats), move || context.unsaved_refresh_tokens()))
    };
    let pages = Arc::new(pages(&context, &liveness));
    let probes = arguments.probe_socket.as_ref().map(|path| {
        AdminServer::start_at_socket(path, Arc::clone(&pages))
            .map_err(|error| StartError::ProbeSocket { path: path.clone(), error })
    });
    let probes = probes.transpose()?;
    let admin = AdminServer::start(arguments.admin_address, pages, security(&arguments, &cluster)?)
        .await
        .map_err(|error| StartError::Admin { address: arguments.admin_address, error })?;
    let election = match lease_timings {
        Some(timings) => {
            let candidacy = candidacy(&arguments, &cluster, process, timings, clock).await?;
            let caches = Arc::clone(&context);
            let restorations = Arc::clone(context.restorations());
            let warm = async move { caches.warm().await };
            let may_lead = move || liveness.may_lead(Instant::now());
            Some(LeaderElection::start(candidacy, lease, heartbeats, restorations, warm, may_lead))
        }
        None => None,
    };
    info!(version = env!("CARGO_PKG_VERSION"), namespaces = ?arguments.namespaces, "starting");

    let saver = tokio::spawn({
        let context = Arc::clone(&context);
        async move { context.save_refresh_tokens().await }
    });

    let followed = followed(&arguments, cluster.namespace_client);
    // From SIGTERM on the process is not ready and starts nothing new. Running work ends, and its results are written.
    let deadline = |timeout| {
        let leadership = leadership.clone();
        async move {
            leadership.wait_until_stopping().await;
            tokio::time::sleep(timeout).await;
        }
    };
    let save_deadline = tokio::spawn(deadline(SAVE_TIMEOUT));
    tokio::select! {
        () = work_thread.run(controller::run(cluster.client, followed, Arc::clone(&context))) => info!("stopped"),
        () = deadline(STOP_TIMEOUT) => warn!("stopped, though not every reconciliation had ended"),
    }
    // From here on another process may lead. It sends no refresh token that this one has announced and not saved.
    if let Some(election) = election {
        election.end().await;
    }
    tokio::select! {
        () = context.refresh_tokens_saved() => {}
        _ = save_deadline => {
            let unsaved = context.unsaved_refresh_tokens();
            error!(unsaved, "stopped, though not every refresh token is saved: they are lost");
        }
    }
    saver.abort();
    if let Some(traces) = traces {
        traces.end().await;
    }
    // Last, so that /readyz reports the shutdown until the end.
    drop((admin, probes, service_networks));
    Ok(())
}

/// Where TokenSources are followed.
fn followed(arguments: &RunArgs, namespace_client: Client) -> Followed {
    if arguments.served_role.is_some() {
        let (watches, interval) =
            (arguments.namespace_watches, Duration::from_secs(arguments.namespace_interval));
        return Followed::WhereBound { client: namespace_client, watches, interval };
    }
    match &arguments.namespaces[..] {
        [] => Followed::Everywhere,
        namespaces => Followed::In(namespaces.to_vec()),
    }
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
    process: String,
    timings: LeaseTimings,
    clock: Arc<Clock>,
) -> Result<Candidacy, LeaseUnusable> {
    let lease = LeaseName {
        namespace: arguments.leader_election_namespace.as_ref().unwrap_or(&cluster.namespace).clone(),
        name: arguments.leader_election_lease_name.clone(),
    };
    let candidacy = Candidacy::new(cluster.lease(&lease), lease, process, timings, clock);
    candidacy.check().await?;
    Ok(candidacy)
}

/// How metrics are protected, if they are.
fn security(arguments: &RunArgs, cluster: &Cluster) -> Result<Option<Security>, MetricsCertificateError> {
    if !arguments.metrics_secure {
        return Ok(None);
    }
    let client = cluster.client.clone();
    let access = MetricsAccess::new(move |token| {
        let client = client.clone();
        Box::pin(async move { review(&client, &token, admin::METRICS_PATH).await })
    });
    Ok(Some(Security { tls: MetricsTls::start(arguments.metrics_cert_path.clone())?, access }))
}

/// The pages of the admin server.
fn pages(context: &Arc<Context>, liveness: &Arc<Liveness>) -> Pages {
    Pages {
        live: health::live(Arc::clone(liveness)),
        ready: health::ready(Arc::clone(context)),
        metrics: {
            let context = Arc::clone(context);
            Box::new(move || metrics_page(&context))
        },
    }
}

/// All metrics, in parts: those of a hundred thousand TokenSources are 40 MB.
fn metrics_page(context: &Arc<Context>) -> ChunkedText {
    let context = Arc::clone(context);
    let mut parts = 0..context.metrics_parts();
    ChunkedText::in_parts(Box::new(move |text| {
        parts.next().into_iter().for_each(|part| context.write_metrics(part, text));
        !parts.is_empty()
    }))
}

/// What the shared state of the controller is made of.
fn parts(
    arguments: &RunArgs,
    cluster: &Cluster,
    leadership: Leadership,
    heartbeats: Arc<Heartbeats>,
    metrics: Arc<Metrics>,
    clock: &Arc<Clock>,
) -> Result<Parts, EndpointError> {
    let endpoints = &arguments.endpoints;
    if let Some(unused) = unused_proxies(endpoints) {
        info!(remark = unused, "a proxy is not used");
    }
    let limits =
        Limits { in_flight: arguments.endpoint_max_in_flight, per_second: arguments.endpoint_max_per_second };
    let now = Arc::clone(clock);
    let transport = transport(endpoints, cluster.addresses.clone())?.with_clock(move || now.now());
    Ok(Parts {
        clock: Arc::clone(clock),
        kubernetes: Kubernetes::new(match arguments.served_role {
            Some(_) => cluster.namespace_client.clone(),
            None => cluster.client.clone(),
        }),
        transport,
        limits,
        max_sources_per_namespace: arguments.max_sources_per_namespace,
        watches: arguments.namespaces.len().max(1),
        leadership,
        heartbeats,
        metrics,
        propagation_delay: endpoints.default_propagation_delay,
        change_interval: Duration::from_secs(arguments.change_interval),
        namespace_selector: arguments.namespace_selector.clone(),
        grant: grant(arguments),
        require_credentials_label: arguments.require_credentials_label,
        service_account_tokens: ServiceAccountTokens::new(
            arguments.service_account_tokens_allowed.clone(),
            cluster.token_check.clone(),
        ),
        issuers: issuers(arguments),
        template_metadata_only: arguments.template_metadata_only.clone(),
        instance: instance(),
        process: String::new(),
        lease_duration: Duration::ZERO,
    })
}

/// How ClusterTokenIssuers are served, if they are.
fn issuers(arguments: &RunArgs) -> Option<IssuerSettings> {
    let namespace = arguments.issuers_namespace.as_deref()?;
    let is_followed = match &arguments.namespaces[..] {
        [] => arguments.served_role.is_none(),
        namespaces => namespaces.iter().any(|it| it == namespace),
    };
    Some(IssuerSettings {
        namespace: namespace.into(),
        controller: arguments.issuers_controller.clone(),
        required: arguments.require_issuer,
        names_only: !arguments.namespaces.is_empty(),
        follows_secrets: !is_followed,
    })
}

/// What RoleBindings of namespaces grant. The command line requires both flags together.
fn grant(arguments: &RunArgs) -> Option<Grant> {
    let (role, account) = (arguments.served_role.clone()?, arguments.service_account.clone()?);
    Some(Grant { role, account })
}

/// The name of this replica.
fn instance() -> String {
    std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).unwrap_or_else(|_| "local".into())
}

/// The name of this process: that of the replica with a random suffix, because a process that crashed in the same pod may
/// still hold the Lease, or have announced a request.
fn process_name() -> String {
    // RandomState is seeded by the system in each process.
    let random = RandomState::new().build_hasher().finish();
    format!("{}_{random:016x}", instance())
}
