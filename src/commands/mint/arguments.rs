//! The flags of `mint`.

use std::path::PathBuf;

use clap::Args;

use crate::commands::completion;
use crate::commands::installation::InstallationArgs;
use crate::commands::kubectl::ClusterArgs;
use crate::commands::operator::GivenEndpointArgs;
use crate::commands::output::OutputFormat;

/// The flags of `mint`.
#[derive(Debug, Args)]
pub struct MintArgs {
    /// Read the TokenSource, the Secret with its credentials and what spec.tls names from this file (- is stdin), YAML or
    /// JSON with any number of documents; may be repeated. No cluster is asked.
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// The TokenSource's name. With -f it is needed only where the files hold several.
    #[arg(value_name = "NAME", required_unless_present = "files", add = completion::sources())]
    pub name: Option<String>,

    /// Save the refresh token that comes back in this file (mode 0600), which must not exist yet. The grant refreshToken needs
    /// it: what comes back may be the only valid one from then on.
    #[arg(long, value_name = "FILE")]
    pub save_refresh_token: Option<PathBuf>,

    /// Show secrets: the credentials, the token, the whole request.
    #[arg(long)]
    pub show_secrets: bool,

    /// The format of the result on standard output.
    #[arg(long, short = 'o', value_enum, default_value = "text")]
    pub output: OutputFormat,

    /// The flags about token endpoints. Where none is given, those of the operator's Deployment, if it may be read.
    #[command(flatten)]
    pub endpoints: GivenEndpointArgs,

    /// Whose flags those are.
    #[command(flatten)]
    pub installation: InstallationArgs,

    /// The flags of kubectl.
    #[command(flatten)]
    pub cluster: ClusterArgs,
}
