//! `report`: a support bundle without secrets: what `check`, `get` and `explain` say, the TokenSources, the metadata of their
//! Secrets, events, and the operator's logs, metrics and objects, as far as the user's rights permit. Nothing is written to the
//! cluster.

mod archive;
mod gather;
mod hidden;
mod secret_keys;
mod views;

use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueHint};
use jiff::Timestamp;
use tokio::time::Instant;

use super::installation::InstallationArgs;
use super::kubectl::{ClusterArgs, SelectionArgs, request_timeout};
use super::{output, private_file};
use crate::cluster::{CallError, UserCluster, UserClusterError};
use archive::TextFile;
use gather::Files;

/// The text below the flags in the help of `report`.
pub const HELP: &str = "Exit codes:
  0  the report is written, and everything was read
  1  no report is written: wrong flags, no cluster, or a file that cannot be written
  3  the report is written, and something could not be read, or is left out: the report says what

It reads with your rights. Of a Secret the report has the names of keys, the sizes, and labels and annotations of the operator,
and no value: values are read only to be taken out of all texts, in every encoding. Names of hosts, namespaces, Secrets, keys and
pods are in it: read it before you send it.";

/// The flags of `report`.
#[derive(Debug, Args)]
pub struct ReportArgs {
    /// Which TokenSources; default: all of the namespace. The 100 most urgent are shown in full.
    #[command(flatten)]
    pub selection: SelectionArgs,

    /// The file, a .tar.gz; `-`: standard output. Default: tokensource-report-TIME.tar.gz in the current folder.
    #[arg(short = 'o', long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,

    /// The longest that reading may take, for example 90s or 5m. What was not read until then is left out.
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = request_timeout)]
    pub timeout: Duration,

    /// Which operator.
    #[command(flatten)]
    pub installation: InstallationArgs,

    /// The flags of kubectl.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}

/// There is no report.
#[derive(Debug, thiserror::Error)]
enum ReportError {
    #[error("a terminal cannot show an archive: write -o FILE, or redirect the output")]
    Terminal,
    #[error(transparent)]
    Cluster(#[from] UserClusterError),
    #[error("the cluster cannot be asked: {0}")]
    Unanswered(#[source] CallError),
    #[error("{path} cannot be written: {error}", path = path.display())]
    Output {
        path: PathBuf,
        #[source]
        error: io::Error,
    },
}

/// Writes a report. Returns the exit code, see [`HELP`].
pub async fn run(arguments: ReportArgs) -> u8 {
    token_endpoint::transport::install_crypto_provider();
    match report(&arguments).await {
        Ok(code) => code,
        Err(error) => output::report_error(&error).into(),
    }
}

async fn report(arguments: &ReportArgs) -> Result<u8, ReportError> {
    let now = Timestamp::now();
    let folder = format!("tokensource-report-{}", now.strftime("%Y%m%dT%H%M%SZ"));
    let path = arguments.output.clone().unwrap_or_else(|| format!("{folder}.tar.gz").into());
    let is_stdout = path == Path::new("-");
    if is_stdout && io::stdout().is_terminal() {
        return Err(ReportError::Terminal);
    }
    let cluster = UserCluster::connect(&arguments.cluster.connection()).await?;
    let version = cluster.server_version().await.map(|(_, text)| text);
    if let Err(error @ CallError::Unavailable(_)) = version {
        return Err(ReportError::Unanswered(error));
    }
    let until = Instant::now() + arguments.timeout.min(MAX_TIMEOUT);
    let Files { mut files, unread } =
        gather::gather(&cluster, &arguments.selection, &arguments.installation, until).await.hide();
    let version = version.unwrap_or_else(|error| error.to_string());
    files.insert(0, TextFile { path: "report.txt".to_owned(), text: summary(now, &version, &unread) });
    let failed = |error| ReportError::Output { path: path.clone(), error };
    let archive = archive::pack(&folder, now, &files).map_err(failed)?;
    if is_stdout {
        io::stdout().write_all(&archive).and_then(|()| io::stdout().flush()).map_err(failed)?;
    } else {
        let mut options = private_file::options();
        // The default name can be foreseen: in a folder of others it may be a link.
        match arguments.output {
            Some(_) => options.create(true).truncate(true),
            None => options.create_new(true),
        };
        let file = options.open(&path);
        file.and_then(|mut file| file.write_all(&archive)).map_err(failed)?;
    }
    for sentence in &unread {
        output::print_note(&format!("not in the report: {sentence}"));
    }
    let place = if is_stdout { "standard output".to_owned() } else { path.display().to_string() };
    output::print_note(&format!(
        "{} files, {} kB: {place}. It contains no secrets, but names: read it before you send it",
        files.len(),
        archive.len().div_ceil(1000),
    ));
    Ok(if unread.is_empty() { 0 } else { 3 })
}

/// Bounds `--timeout`.
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

/// The first file: what the report is, and what is not in it.
fn summary(now: Timestamp, version: &str, unread: &[String]) -> String {
    let mut text = format!(
        "A report of kubectl tokensource {}, made at {now}, of Kubernetes {version}.\n\
         Values of Secrets, and what looks like a token, are replaced by [redacted].\n",
        env!("CARGO_PKG_VERSION")
    );
    if unread.is_empty() {
        text += "\nEverything could be read.\n";
    } else {
        text += "\nNot in the report:\n";
        for sentence in unread {
            let _ = writeln!(text, "- {sentence}");
        }
    }
    text
}
