//! The flags of `run`.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgAction, Args};
use token_endpoint::Limits;
use tokensource_api::DEFAULT_CONTROLLER;

use super::admin::AdminAddress;
use super::telemetry::LogFormat;
use crate::binding::ServiceAccountName;
use crate::token_request::{AllowedToken, EndpointArgs};

/// The flags of `run`. Each is an environment variable too.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Reconcile only in this namespace; may be repeated. Default: all namespaces.
    #[arg(long = "namespace", value_name = "NS", env = "TOKENSOURCE_NAMESPACE", value_delimiter = ',', value_parser = namespace)]
    pub namespaces: Vec<String>,

    /// Reconcile only in namespaces whose labels match, for example tokensource.dev/enabled=true or team in (a,b). A
    /// namespace that gets or loses the label is acted on at once.
    #[arg(long, value_name = "LABELS", env = "TOKENSOURCE_NAMESPACE_SELECTOR", conflicts_with = "namespaces", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub namespace_selector: Option<String>,

    /// Serve at most this many TokenSources of each namespace: the oldest. Default: all.
    #[arg(long, value_name = "NUMBER", env = "TOKENSOURCE_MAX_SOURCES_PER_NAMESPACE", value_parser = at_least_one::<usize>)]
    pub max_sources_per_namespace: Option<usize>,

    /// Have rights by namespace (the chart's rbac.mode perNamespace): serve the namespaces in which a RoleBinding grants this
    /// ClusterRole to the operator. The TokenSources of others say how to grant it.
    #[arg(long, value_name = "CLUSTERROLE", env = "TOKENSOURCE_SERVED_ROLE", conflicts_with = "namespaces", requires = "service_account", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub served_role: Option<String>,

    /// The operator's own ServiceAccount, for the command in these TokenSources.
    #[arg(
        long,
        value_name = "NAMESPACE:NAME",
        env = "TOKENSOURCE_SERVICE_ACCOUNT",
        requires = "served_role"
    )]
    pub service_account: Option<ServiceAccountName>,

    /// With --served-role: watch the Secrets of at most this many namespaces, those with the most TokenSources, so that changes
    /// are seen at once. Each watch is a connection. The others are listed every minute.
    #[arg(long, value_name = "NAMESPACES", env = "TOKENSOURCE_NAMESPACE_WATCHES", default_value_t = 200)]
    pub namespace_watches: usize,

    /// For tests, which do not wait for minutes: with --served-role, how often the Secrets of each namespace are listed.
    #[arg(long, hide = true, value_name = "DURATION", env = "TOKENSOURCE_NAMESPACE_INTERVAL", default_value = "60s", value_parser = seconds)]
    pub namespace_interval: u64,

    /// Read credentials only from Secrets that are labelled tokensource.dev/credentials=true. The same holds for the
    /// Secrets that spec.tls names.
    #[arg(long, env = "TOKENSOURCE_REQUIRE_CREDENTIALS_LABEL")]
    pub require_credentials_label: bool,

    /// Send tokens of ServiceAccounts for this audience to this host (spec.credentials.serviceAccountToken); may be repeated.
    /// They are sent over TLS alone, or without it to a host that is written with http://. Without this flag none are sent. The
    /// operator needs the right to create them, which the chart limits by an admission policy.
    #[arg(
        long,
        value_name = "AUDIENCE=HOST[:PORT]",
        env = "TOKENSOURCE_SERVICE_ACCOUNT_TOKENS_ALLOWED",
        value_delimiter = ','
    )]
    pub service_account_tokens_allowed: Vec<AllowedToken>,

    /// Let TokenSources use ClusterTokenIssuers (spec.issuerRef), whose Secrets are in this namespace: the operator's own. Default:
    /// they may not.
    #[arg(long, value_name = "NS", env = "TOKENSOURCE_ISSUERS_NAMESPACE", value_parser = namespace)]
    pub issuers_namespace: Option<String>,

    /// Serve the ClusterTokenIssuers whose spec.controller is this name. Several operators of a cluster have different ones.
    #[arg(long, value_name = "NAME", env = "TOKENSOURCE_ISSUERS_CONTROLLER", default_value = DEFAULT_CONTROLLER, requires = "issuers_namespace")]
    pub issuers_controller: String,

    /// Request tokens through ClusterTokenIssuers only: TokenSources with a provider of their own get none.
    #[arg(long, env = "TOKENSOURCE_REQUIRE_ISSUER", requires = "issuers_namespace")]
    pub require_issuer: bool,

    /// Let templates set only these labels and annotations, of those that they may set at all; may be repeated.
    #[arg(long, value_name = "KEY", env = "TOKENSOURCE_TEMPLATE_METADATA_ONLY", value_delimiter = ',')]
    pub template_metadata_only: Vec<String>,

    /// The flags about token endpoints.
    #[command(flatten)]
    pub endpoints: EndpointArgs,

    /// Have at most this many token requests under way at one endpoint (scheme, host and port); the earliest deadline goes
    /// first.
    #[arg(long, value_name = "REQUESTS", env = "TOKENSOURCE_ENDPOINT_MAX_IN_FLIGHT", default_value_t = Limits::default().in_flight, value_parser = at_least_one::<usize>)]
    pub endpoint_max_in_flight: usize,

    /// Begin at most this many token requests per second at one endpoint, evenly spread.
    #[arg(long, value_name = "REQUESTS", env = "TOKENSOURCE_ENDPOINT_MAX_PER_SECOND", default_value_t = Limits::default().per_second, value_parser = at_least_one::<u32>)]
    pub endpoint_max_per_second: u32,

    /// Act only while holding a Lease, so that of several replicas one acts at a time. Without it, do
    /// not run a second operator for the same namespaces.
    #[arg(long, value_name = "BOOL", env = "TOKENSOURCE_LEADER_ELECT", default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = ArgAction::Set)]
    pub leader_elect: bool,

    /// The namespace of the Lease. Default: the pod's own, else that of the kubeconfig's context.
    #[arg(long, value_name = "NS", env = "TOKENSOURCE_LEADER_ELECTION_NAMESPACE")]
    pub leader_election_namespace: Option<String>,

    /// The name of the Lease: all operators that use the same one take turns.
    #[arg(
        long,
        value_name = "NAME",
        env = "TOKENSOURCE_LEADER_ELECTION_LEASE_NAME",
        default_value = "tokensource-operator"
    )]
    pub leader_election_lease_name: String,

    /// How long the others wait after the leader's last renewal before one of them takes over. A token request must end
    /// within what is left of it.
    #[arg(long, value_name = "DURATION", env = "TOKENSOURCE_LEADER_ELECTION_LEASE_DURATION", default_value = "15s", value_parser = seconds)]
    pub leader_election_lease_duration: u64,

    /// How long the leader tries to renew its lease before it stops acting.
    #[arg(long, value_name = "DURATION", env = "TOKENSOURCE_LEADER_ELECTION_RENEW_DEADLINE", default_value = "10s", value_parser = seconds)]
    pub leader_election_renew_deadline: u64,

    /// How often the leader renews its lease. The others read it twice as often.
    #[arg(long, value_name = "DURATION", env = "TOKENSOURCE_LEADER_ELECTION_RETRY_PERIOD", default_value = "2s", value_parser = seconds)]
    pub leader_election_retry_period: u64,

    /// For tests, which change a TokenSource more often than people do: the shortest time between two token requests that
    /// changes of credentials, spec or refresh request cause.
    #[arg(long, hide = true, value_name = "DURATION", env = "TOKENSOURCE_CHANGE_INTERVAL", default_value = "30s", value_parser = seconds)]
    pub change_interval: u64,

    /// Serve /livez, /readyz and /metrics here, over plain HTTP unless --metrics-secure is set: an IP address and a port, a port alone for all addresses
    /// (:8080), or off.
    #[arg(long, value_name = "ADDRESS", env = "TOKENSOURCE_ADMIN_ADDRESS", default_value = ":8080")]
    pub admin_address: AdminAddress,

    /// Serve the admin address over TLS, and /metrics only to users who may get it: the API server reviews their tokens. Not with
    /// --namespace, because this needs rights in the cluster.
    #[arg(long, env = "TOKENSOURCE_METRICS_SECURE", conflicts_with = "namespaces")]
    pub metrics_secure: bool,

    /// The folder with tls.crt and tls.key for --metrics-secure, which are read again when they change. Without it, a
    /// certificate is made at the start, which no client can verify.
    #[arg(long, value_name = "FOLDER", env = "TOKENSOURCE_METRICS_CERT_PATH")]
    pub metrics_cert_path: Option<PathBuf>,

    /// Serve the pages at this Unix socket, where tokensource-operator probe asks: no connection from the network can make a
    /// probe fail.
    #[arg(long, value_name = "PATH", env = "TOKENSOURCE_PROBE_SOCKET")]
    pub probe_socket: Option<PathBuf>,

    /// The format of log lines.
    #[arg(long, value_enum, env = "TOKENSOURCE_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// Which log lines are written: error, warn, info, debug, trace, or a filter such as info,tokensource_operator=debug.
    #[arg(long, value_name = "FILTER", env = "TOKENSOURCE_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

fn seconds(value: &str) -> Result<u64, String> {
    let duration = value.parse::<jiff::SignedDuration>().ok().filter(|it| it.subsec_nanos() == 0);
    let seconds = duration.and_then(|it| u64::try_from(it.as_secs()).ok());
    seconds.ok_or_else(|| "write a duration in whole seconds, for example 15s or 1m".to_owned())
}

fn at_least_one<N: FromStr + Default + PartialEq>(value: &str) -> Result<N, String> {
    value
        .parse()
        .ok()
        .filter(|it| *it != N::default())
        .ok_or_else(|| "write a whole number from 1 on".to_owned())
}

/// Refuses names that no namespace can have: their watches would never report anything.
fn namespace(value: &str) -> Result<String, String> {
    let is_allowed = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-';
    let is_label = (1..=63).contains(&value.len()) && value.bytes().all(is_allowed);
    if is_label && !value.starts_with('-') && !value.ends_with('-') {
        Ok(value.to_owned())
    } else {
        Err("a namespace's name has at most 63 lower-case letters, digits and, inside, hyphens".to_owned())
    }
}
