//! `check`: whether the cluster is as the operator needs it: versions, CustomResourceDefinition, the operator, its leader, its
//! rights, the admission policies, and your own rights. Nothing is written.

mod findings;
mod read;

use clap::Args;
use jiff::Timestamp;

use super::installation::InstallationArgs;
use super::kubectl::ClusterArgs;
use super::output::{self, Colour, Line, OutputFormat, Progress};
use crate::cluster::UserCluster;
use findings::{Finding, Grade};
pub(crate) use read::{Operator, Seen};

/// The text below the flags in the help of `check`.
pub const HELP: &str = "Exit codes:
  0  everything is as it should be
  1  the cluster cannot be asked: wrong flags or kubeconfig
  2  something is missing or wrong (fail)
  3  nothing is wrong, but something deserves attention (warn) or may not be read with your rights (unknown)

It reads with your rights. All of it can be read by the ClusterRole cluster-admin; a user of one namespace learns from it
whether TokenSources can be used there.";

/// The flags of `check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The format of the result on standard output.
    #[arg(long, short = 'o', value_enum, default_value = "text")]
    pub output: OutputFormat,

    /// Which operator.
    #[command(flatten)]
    pub installation: InstallationArgs,

    /// The flags of kubectl.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// Checks the cluster. Returns the exit code, see [`HELP`].
pub async fn run(arguments: CheckArgs) -> u8 {
    token_endpoint::transport::install_crypto_provider();
    let cluster = match UserCluster::connect(&arguments.cluster.connection()).await {
        Ok(cluster) => cluster,
        Err(error) => return output::report_error(&error).into(),
    };
    let progress = Progress::new();
    let seen = read::read(&cluster, &arguments.installation, |what| progress.show(what)).await;
    progress.clear();
    let findings = findings::findings(Timestamp::now(), &seen);
    match arguments.output {
        OutputFormat::Json => output::report(OutputFormat::Json, &findings, |_| String::new()),
        OutputFormat::Text => output::print_lines(&findings.iter().map(line).collect::<Vec<_>>()),
    }
    findings.iter().map(|finding| finding.grade).max().map_or(0, Grade::exit_code)
}

/// What was read, and what `check` says of it.
pub(super) async fn examined(
    cluster: &UserCluster,
    installation: &InstallationArgs,
    progress: impl Fn(&str),
) -> (Seen, String) {
    let seen = read::read(cluster, installation, progress).await;
    let findings = findings::findings(Timestamp::now(), &seen);
    let text = findings.iter().map(|finding| line(finding).text() + "\n").collect();
    (seen, text)
}

fn line(finding: &Finding) -> Line {
    let (name, colour) = match finding.grade {
        Grade::Ok => ("ok", Colour::Green),
        Grade::Unknown => ("unknown", Colour::Yellow),
        Grade::Warn => ("warn", Colour::Yellow),
        Grade::Fail => ("fail", Colour::Red),
    };
    let mut line = Line::default();
    line.push(Some(colour), name);
    line.push(None, &format!("{:pad$}{:<10}  {}", "", finding.part, finding.message, pad = 9 - name.len()));
    line
}
