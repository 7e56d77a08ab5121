//! `explain`: whether the token is valid, which pods read it, what failed last and what to do, as far as the user's rights
//! permit. Nothing is written.

mod assess;
mod cluster;
mod report;

use clap::Args;
use jiff::Timestamp;

use super::output::{self, OutputFormat};
use crate::text::shown_message;
use crate::token_request::propagation_delay;
use report::{ExplainReport, Level};

/// The text below the flags in the help of `explain`.
pub const HELP: &str = "Exit codes:
  0  the token is valid, and nothing is wrong
  1  nothing could be read: wrong flags or cluster, or the TokenSource does not exist or may not be read
  2  there is no valid token for the present spec
  3  the token is valid, but something needs attention: a refresh that fails, a pod that reads an old token, a
     mistake in the spec or the credentials

It reads with your kubeconfig and your rights: the TokenSource (`get`), the metadata of the target Secret and the keys of the
credentials Secret (`get`), and the namespace's pods (`list`). What you may not read is named, and the rest is reported
without it. It needs nothing of the operator, prints no value of a Secret, and writes nothing.";

/// The flags of `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// The namespace; default: that of the kubeconfig.
    #[arg(short = 'n', long, value_name = "NS")]
    pub namespace: Option<String>,

    /// The TokenSource's name.
    #[arg(value_name = "NAME")]
    pub name: String,

    /// The format of the result on standard output.
    #[arg(long, short = 'o', value_enum, default_value = "text")]
    pub output: OutputFormat,

    /// The operator's flag of this name: how long a mounted file may lag behind its Secret, where the TokenSource does not
    /// say.
    #[arg(long, value_name = "DURATION", env = "TOKENSOURCE_DEFAULT_PROPAGATION_DELAY", default_value = "90s", value_parser = propagation_delay)]
    pub default_propagation_delay: u64,
}

/// Explains one TokenSource. Returns the exit code, see [`HELP`].
pub async fn run(arguments: ExplainArgs) -> u8 {
    token_endpoint::transport::install_crypto_provider();
    let ExplainArgs { namespace, name, output: format, default_propagation_delay } = arguments;
    let (namespace, found) = match cluster::read(namespace, &name).await {
        Ok(found) => found,
        Err(error) => {
            output::print_error(&shown_message(&error.to_string()));
            return 1;
        }
    };
    let report = assess::assess(Timestamp::now(), &namespace, &found, default_propagation_delay);
    output::report(format, &report, ExplainReport::to_string);
    report.verdict.exit_code()
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
