//! The command line.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::oauth::{EgressRule, Limits};
use crate::operator::AdminAddress;

const MINT_USAGE: &str = "tokensource-operator mint -f FILE [-f FILE]... [NAME]
       tokensource-operator mint [-n NS] NAME";

/// Keeps short-lived OAuth 2.0 access tokens fresh in Kubernetes Secrets.
#[derive(Debug, Parser)]
#[command(name = "tokensource-operator", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Reconcile TokenSources, in the cluster of the pod or of KUBECONFIG.
    Run(Box<RunArgs>),
    /// Mint once and tell about it: from manifests without a cluster (-f), or as the cluster has it (-n NS NAME).
    #[command(after_help = crate::mint::HELP, override_usage = MINT_USAGE)]
    Mint(Box<MintArgs>),
    /// Tell whether the token is valid, who reads it, what failed last and what to do, with your own rights.
    #[command(after_help = crate::explain::HELP)]
    Explain(Box<ExplainArgs>),
    /// Print the CustomResourceDefinition.
    Crd,
}

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

    /// Read credentials only from Secrets that are labelled tokensource.dev/credentials=true. The same holds for the
    /// Secrets that spec.tls names.
    #[arg(long, env = "TOKENSOURCE_REQUIRE_CREDENTIALS_LABEL")]
    pub require_credentials_label: bool,

    /// What holds at token endpoints.
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

    /// How long the others wait after the leader's last sign of life before one of them takes over. A token request must end
    /// within what is left of it.
    #[arg(long, value_name = "DURATION", env = "TOKENSOURCE_LEADER_ELECTION_LEASE_DURATION", default_value = "15s", value_parser = seconds)]
    pub leader_election_lease_duration: u64,

    /// How long the leader tries to renew its lease before it stops acting.
    #[arg(long, value_name = "DURATION", env = "TOKENSOURCE_LEADER_ELECTION_RENEW_DEADLINE", default_value = "10s", value_parser = seconds)]
    pub leader_election_renew_deadline: u64,

    /// How often the leader renews its lease. The others look at it twice as often.
    #[arg(long, value_name = "DURATION", env = "TOKENSOURCE_LEADER_ELECTION_RETRY_PERIOD", default_value = "2s", value_parser = seconds)]
    pub leader_election_retry_period: u64,

    /// Serve /livez, /readyz and /metrics here, over plain HTTP: an IP address and a port, a port alone for all addresses
    /// (:8080), or off.
    #[arg(long, value_name = "ADDRESS", env = "TOKENSOURCE_ADMIN_ADDRESS", default_value = ":8080")]
    pub admin_address: AdminAddress,

    /// How log lines are written.
    #[arg(long, value_enum, env = "TOKENSOURCE_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// Which log lines are written: error, warn, info, debug, trace, or a filter such as info,tokensource_operator=debug.
    #[arg(long, value_name = "FILTER", env = "TOKENSOURCE_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
}

/// The flags of `mint`.
#[derive(Debug, Args)]
pub struct MintArgs {
    /// Read the TokenSource, the Secret with its credentials and what spec.tls names from this file (- is stdin), YAML or JSON with any number of
    /// documents; may be repeated. No cluster is asked.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// The namespace; default: that of the kubeconfig.
    #[arg(short = 'n', long, value_name = "NS")]
    pub namespace: Option<String>,

    /// The TokenSource's name. With -f it is needed only where the files hold several.
    #[arg(value_name = "NAME", required_unless_present = "files")]
    pub name: Option<String>,

    /// Save the refresh token that comes back in this file (mode 0600), which must not exist yet. The grant refreshToken needs
    /// it: what comes back may be the only valid one from then on.
    #[arg(long, value_name = "FILE")]
    pub save_refresh_token: Option<PathBuf>,

    /// Show secrets: the credentials, the token, the whole request.
    #[arg(long)]
    pub show_secrets: bool,

    /// How the result is written to stdout.
    #[arg(long, short = 'o', value_enum, default_value = "text")]
    pub output: OutputFormat,

    /// What holds at token endpoints.
    #[command(flatten)]
    pub endpoints: EndpointArgs,
}

/// The flags of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The namespace; default: that of the kubeconfig.
    #[arg(short = 'n', long, value_name = "NS")]
    pub namespace: Option<String>,

    /// The TokenSource's name.
    #[arg(value_name = "NAME")]
    pub name: String,

    /// How the result is written to stdout.
    #[arg(long, short = 'o', value_enum, default_value = "text")]
    pub output: OutputFormat,

    /// What the operator was started with: how long a mounted file may lag behind its Secret, where the TokenSource does not
    /// say.
    #[arg(long, value_name = "DURATION", env = "TOKENSOURCE_DEFAULT_PROPAGATION_DELAY", default_value = "90s", value_parser = propagation_delay)]
    pub default_propagation_delay: u64,
}

/// How a result is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// The flags about token endpoints, which mean the same for `run` and `mint`. Each is an environment variable too.
#[derive(Debug, Args)]
pub struct EndpointArgs {
    /// Allow token endpoints at this host or network, beyond the public addresses that are allowed anyway; may be repeated.
    #[arg(long, value_name = "HOST[:PORT]|CIDR", env = "TOKENSOURCE_EGRESS_ALLOW", value_delimiter = ',')]
    pub egress_allow: Vec<EgressRule>,

    /// Allow token endpoints at these hosts and networks and nowhere else; may be repeated.
    #[arg(long, value_name = "HOST[:PORT]|CIDR", env = "TOKENSOURCE_EGRESS_ONLY", value_delimiter = ',')]
    pub egress_only: Vec<EgressRule>,

    /// Allow token endpoints without TLS, for tests and demos: credentials then cross the network in the clear.
    #[arg(long, env = "TOKENSOURCE_ALLOW_HTTP")]
    pub allow_http: bool,

    /// Go to token endpoints through the proxies that HTTPS_PROXY and HTTP_PROXY name, but for the hosts in NO_PROXY. Without
    /// this flag those variables are not looked at. A proxy resolves names by itself, so that the addresses behind them are
    /// not judged.
    #[arg(long, env = "TOKENSOURCE_PROXY_FROM_ENVIRONMENT")]
    pub proxy_from_environment: bool,

    /// How long a mounted file may lag behind its Secret, where a TokenSource does not say: the kubelet takes 60 to 90 s.
    #[arg(long, value_name = "DURATION", env = "TOKENSOURCE_DEFAULT_PROPAGATION_DELAY", default_value = "90s", value_parser = propagation_delay)]
    pub default_propagation_delay: u64,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// In seconds, within what the API server allows in `spec.refresh.propagationDelay`.
fn propagation_delay(value: &str) -> Result<u64, String> {
    let seconds = value.parse::<jiff::SignedDuration>().ok().and_then(|it| u64::try_from(it.as_secs()).ok());
    let seconds = seconds.filter(|seconds| (1..=3600).contains(seconds));
    seconds.ok_or_else(|| "write a duration from 1s to 1h, for example 90s".to_owned())
}

fn seconds(value: &str) -> Result<u64, String> {
    let duration = value.parse::<jiff::SignedDuration>().ok().and_then(|it| u64::try_from(it.as_secs()).ok());
    duration.ok_or_else(|| "write a duration in whole seconds, for example 15s or 1m".to_owned())
}

fn at_least_one<N: FromStr + Default + PartialEq>(value: &str) -> Result<N, String> {
    value
        .parse()
        .ok()
        .filter(|it| *it != N::default())
        .ok_or_else(|| "write a whole number from 1 on".to_owned())
}

/// A misspelt namespace would be watched for ever, and nothing would say why nothing happens.
fn namespace(value: &str) -> Result<String, String> {
    let known = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-';
    let fits = (1..=63).contains(&value.len()) && value.bytes().all(known);
    if fits && !value.starts_with('-') && !value.ends_with('-') {
        Ok(value.to_owned())
    } else {
        Err("a namespace's name has at most 63 lower-case letters, digits and, inside, hyphens".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn each_flag_of_run_is_an_environment_variable() {
        let cli = Cli::command();
        let run = cli.find_subcommand("run").unwrap();
        for flag in
            run.get_arguments().filter_map(|argument| argument.get_long().map(|long| (argument, long)))
        {
            let (argument, long) = flag;
            let variable = argument.get_env().unwrap().to_str().unwrap();
            assert_eq!(variable, format!("TOKENSOURCE_{}", long.replace('-', "_").to_uppercase()));
        }
    }

    #[test]
    fn flags_are_read_and_refused_with_a_reason() {
        let run = |arguments: &[&str]| {
            let arguments = ["tokensource-operator", "run"].iter().chain(arguments);
            match Cli::try_parse_from(arguments) {
                Ok(Cli { command: Command::Run(arguments) }) => Ok(arguments),
                Ok(other) => panic!("{other:?}"),
                Err(error) => Err(error.to_string()),
            }
        };
        let arguments =
            run(&["--namespace", "a,b", "--egress-allow", "10.0.0.0/8", "--default-propagation-delay", "2m"]);
        let arguments = arguments.unwrap();
        assert_eq!(arguments.namespaces, ["a", "b"]);
        assert_eq!(arguments.endpoints.default_propagation_delay, 120);
        assert_eq!((arguments.endpoint_max_in_flight, arguments.endpoint_max_per_second), (64, 100));
        assert!(!arguments.endpoints.proxy_from_environment);
        assert!(
            run(&["--namespace", "a", "--namespace-selector", "team=a"])
                .unwrap_err()
                .contains("'--namespace <NS>' cannot be used with '--namespace-selector <LABELS>'")
        );
        assert!(run(&["--namespace-selector", ""]).is_err());
        for wrong in ["A_b", "", "a,", "-a", "a-", &"a".repeat(64)] {
            assert!(
                run(&[&format!("--namespace={wrong}")]).unwrap_err().contains("a namespace's name"),
                "{wrong}"
            );
        }
        assert!(run(&["--egress-allow", "10.0.0.0/99"]).unwrap_err().contains("--egress-allow"));
        assert!(run(&["--endpoint-max-per-second", "0"]).unwrap_err().contains("a whole number from 1 on"));
        assert_eq!(run(&["--endpoint-max-in-flight", "2"]).unwrap().endpoint_max_in_flight, 2);
        assert!(arguments.leader_elect && run(&["--leader-elect"]).unwrap().leader_elect);
        assert!(!run(&["--leader-elect=false"]).unwrap().leader_elect);
        assert_eq!(
            run(&["--leader-election-lease-duration", "1m"]).unwrap().leader_election_lease_duration,
            60
        );
        assert!(run(&["--leader-election-retry-period", "often"]).unwrap_err().contains("for example 15s"));
        for wrong in ["soon", "0s", "61m"] {
            let said = run(&["--default-propagation-delay", wrong]).unwrap_err();
            assert!(said.contains("from 1s to 1h, for example 90s"), "{said}");
        }
    }
}
