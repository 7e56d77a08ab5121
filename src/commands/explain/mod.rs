//! `explain`: whether the tokens are valid, which pods read them, what failed last and what to do, as far as the user's rights
//! permit. Nothing is written.

mod assess;
mod cluster;
mod operator_flags;
mod read_error;
mod report;
mod service_account;

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Args;
use futures::{StreamExt, stream};
use jiff::Timestamp;
use kube::api::DynamicObject;

use super::installation::{self, InstallationArgs};
use super::kubectl::{ClusterArgs, SelectionArgs};
use super::output::{self, OutputFormat, Progress};
use crate::cluster::{UserCluster, UserClusterError};
use crate::spec::Resolved;
use crate::text::shown_message;
use crate::token_request::propagation_delay;
use cluster::{ExplainError, Found};
use operator_flags::{DEFAULT_PROPAGATION_DELAY, OperatorFlags};
use report::{ExplainReport, Level};

/// The text below the flags in the help of `explain`.
pub const HELP: &str = "Exit codes, the most severe of all TokenSources:
  0  the token is valid, and nothing is wrong
  1  nothing could be read: wrong flags or cluster, or the TokenSource does not exist or may not be read
  2  there is no valid token for the present spec
  3  the token is valid, but something needs attention: a refresh that fails, a pod that reads an old token, a
     mistake in the spec or the credentials

It reads with your kubeconfig and your rights: the TokenSource (`get`; `list` for more than named ones), the metadata of the
target Secret, the keys of the credentials Secret and of a stored refresh token's (`get`), the ServiceAccount whose tokens are
sent and the ClusterTokenIssuer that says so (`get`), the namespace's pods (`list`), and the operator's flags in its Deployment
(`list`; where that is, it reads in the chart's ValidatingAdmissionPolicy and ClusterRoleBinding, or you say it). What you may not
read is named, and the rest is reported without it. It prints no value of a Secret, and writes nothing.";

/// How many TokenSources are read at once.
const CONCURRENT_READS: usize = 8;

/// The flags of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Which TokenSources; default: all of the namespace.
    #[command(flatten)]
    pub selection: SelectionArgs,

    /// The format of the result on standard output. Several TokenSources are an array in JSON.
    #[arg(long, short = 'o', value_enum, default_value = "text")]
    pub output: OutputFormat,

    /// How long a mounted file may lag behind its Secret, where the TokenSource does not say. Default: that of the operator, as
    /// its Deployment says.
    #[arg(long, value_name = "DURATION", env = "TOKENSOURCE_DEFAULT_PROPAGATION_DELAY", value_parser = propagation_delay)]
    pub default_propagation_delay: Option<u64>,

    /// The operator that serves them.
    #[command(flatten)]
    pub installation: InstallationArgs,

    /// The flags of kubectl.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// Explains TokenSources. Returns the exit code, see [`HELP`].
pub async fn run(arguments: ExplainArgs) -> u8 {
    token_endpoint::transport::install_crypto_provider();
    match explain(&arguments).await {
        Ok(code) => code,
        Err(error) => output::report_error(&error).into(),
    }
}

async fn explain(arguments: &ExplainArgs) -> Result<u8, UserClusterError> {
    let cluster = UserCluster::connect(&arguments.cluster.connection()).await?;
    let selection = &arguments.selection;
    let (sources, mut failed) = selection.objects(&cluster).await?;
    let operator = (arguments.default_propagation_delay, &arguments.installation);
    let reports = reports(&cluster, sources, operator).await;
    let mut explained = vec![];
    for report in reports {
        match report {
            Ok(report) => explained.push(report),
            Err(error) => failed |= output::report_error(&error),
        }
    }
    let verdict = explained.iter().map(|report| report.verdict).max();
    let is_one = selection.names.len() == 1;
    match explained.as_slice() {
        [report] if is_one => output::report(arguments.output, report, ExplainReport::to_string),
        [] if arguments.output == OutputFormat::Text || is_one => {}
        _ => output::report(arguments.output, &explained, |all| {
            all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        }),
    }
    Ok(if failed { 1 } else { verdict.map_or(0, Level::exit_code) })
}

/// What `explain` says of these TokenSources.
pub(super) async fn texts(
    cluster: &UserCluster,
    sources: Vec<DynamicObject>,
    installation: &InstallationArgs,
) -> String {
    let reports = reports(cluster, sources, (None, installation)).await;
    let text = |report: Result<ExplainReport, ExplainError>| match report {
        Ok(report) => format!("{report}\n"),
        Err(error) => format!("{}\n\n", shown_message(&error.to_string())),
    };
    reports.into_iter().map(text).collect()
}

/// Explains each of these TokenSources; `operator`: the user's propagation delay in seconds, and which operator.
async fn reports(
    cluster: &UserCluster,
    sources: Vec<DynamicObject>,
    operator: (Option<u64>, &InstallationArgs),
) -> Vec<Result<ExplainReport, ExplainError>> {
    let mut secrets: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in &sources {
        let target = source.data.pointer("/spec/target/name").and_then(|name| name.as_str());
        let target = target.or(source.metadata.name.as_deref()).unwrap_or_default().to_owned();
        secrets.entry(source.metadata.namespace.clone().unwrap_or_default()).or_default().push(target);
    }
    let (count, progress) = (sources.len(), Progress::new());
    let (mut pods, mut operators) = (BTreeMap::new(), BTreeMap::new());
    for (namespace, secrets) in secrets {
        progress.show(&format!("reading pods of {namespace}"));
        pods.insert(namespace.clone(), Arc::new(cluster::read_pods(cluster, &namespace, &secrets).await));
        operators.insert(namespace.clone(), operator_flags(cluster, &namespace, operator).await);
    }
    let (pods, operators) = (&pods, &operators);
    let one = async |source: DynamicObject| {
        let namespace = source.metadata.namespace.clone().unwrap_or_default();
        let pods = pods.get(&namespace).cloned().unwrap_or_else(|| Arc::new(Ok(vec![])));
        let (operator, unknown) = operators.get(&namespace).cloned().unwrap_or_default();
        let delay = operator.propagation_delay;
        let found = cluster::read(
            cluster,
            source,
            |source| Resolved::of(source, delay).is_ok_and(|resolved| resolved.sends_refresh_token()),
            pods,
        );
        let found = found.await?;
        let mut report = assess::assess(Timestamp::now(), &namespace, &found, operator);
        report.not_known.extend(unknown.filter(|_| depends_on_default(&found)));
        Ok(report)
    };
    let mut ended = 0;
    let mut all = stream::iter(sources).map(one).buffered(CONCURRENT_READS);
    let mut reports = vec![];
    while let Some(report) = all.next().await {
        ended += 1;
        progress.show(&format!("{ended} of {count}"));
        reports.push(report);
    }
    progress.clear();
    reports
}

/// What the operator's flags say, and what is not known of its propagation delay.
async fn operator_flags(
    cluster: &UserCluster,
    namespace: &str,
    (given, installation): (Option<u64>, &InstallationArgs),
) -> (OperatorFlags, Option<String>) {
    let (flags, unknown) = match installation::of_namespace(cluster, namespace, installation).await {
        Ok(installation) => (OperatorFlags::of(&installation.deployment), None),
        Err(error) => {
            let unknown = format!(
                "{}, so {DEFAULT_PROPAGATION_DELAY} s are taken for its --default-propagation-delay",
                shown_message(&error.to_string())
            );
            (OperatorFlags::default(), Some(unknown))
        }
    };
    match given {
        Some(propagation_delay) => (OperatorFlags { propagation_delay, ..flags }, None),
        None => (flags, unknown),
    }
}

/// Whether the report depends on the operator's propagation delay.
fn depends_on_default(found: &Found) -> bool {
    let with = |delay: u64| {
        Resolved::of(&found.source, delay).map(|mut resolved| {
            let prompted = resolved.policy.propagation_delay;
            resolved.use_unprompted_delay();
            (prompted, resolved.policy.propagation_delay)
        })
    };
    let has_readers = found.pods.as_ref().as_ref().is_ok_and(|pods| !pods.is_empty());
    has_readers && with(1).ok() != with(2).ok()
}

impl Level {
    fn exit_code(self) -> u8 {
        match self {
            Level::Well => 0,
            Level::Attention => 3,
            Level::NotValid => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_explains_every_exit_code() {
        for level in [Level::Well, Level::Attention, Level::NotValid] {
            assert!(HELP.contains(&format!("\n  {}  ", level.exit_code())), "{level:?}");
        }
    }
}
