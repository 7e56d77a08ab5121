//! The command line.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::commands::change::ChangeArgs;
#[cfg(unix)]
use crate::commands::probe;
use crate::commands::{bindings, check, completion, explain, get, mint, refresh, report, suspend};
#[cfg(unix)]
use crate::operator;

/// The name of the binary as a plugin of kubectl.
const PLUGIN: &str = "kubectl-tokensource";

/// Keeps short-lived OAuth 2.0 access tokens fresh in Kubernetes Secrets.
#[derive(Debug, Parser)]
#[command(name = "tokensource-operator", version, about)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Reconcile TokenSources, in the cluster of the pod or of KUBECONFIG.
    #[cfg(unix)]
    Run(Box<operator::RunArgs>),
    /// List TokenSources by urgency, with the first words of the remedy.
    #[command(after_help = get::HELP)]
    Get(Box<get::GetArgs>),
    /// Request new tokens now, and wait for them on request.
    #[command(after_help = refresh::HELP)]
    Refresh(Box<refresh::RefreshArgs>),
    /// Stop the token requests for TokenSources, until they are resumed.
    #[command(after_help = suspend::SUSPEND_HELP)]
    Suspend(Box<ChangeArgs>),
    /// Let the operator request tokens for TokenSources again.
    #[command(after_help = suspend::RESUME_HELP)]
    Resume(Box<ChangeArgs>),
    /// Request one token and report on it: for manifests without a cluster (-f), or for a TokenSource of the cluster (-n NS
    /// NAME).
    #[command(after_help = mint::HELP)]
    Mint(Box<mint::MintArgs>),
    /// Report whether the token is valid, which pods read it, what failed last and what to do, with your own rights.
    #[command(after_help = explain::HELP)]
    Explain(Box<explain::ExplainArgs>),
    /// Check that the cluster is as the operator needs it: versions, definition, leader, rights and policies.
    #[command(after_help = check::HELP)]
    Check(Box<check::CheckArgs>),
    /// Write what others need to help you into an archive: objects, conditions, events, the operator's logs and metrics, without
    /// secrets.
    #[command(after_help = report::HELP)]
    Report(Box<report::ReportArgs>),
    /// Ask the operator of this pod whether it is live or ready; exit code 0: yes. For exec probes.
    #[cfg(unix)]
    Probe(probe::ProbeArgs),
    /// Print the RoleBindings for all namespaces that have TokenSources, to be applied before the operator has its rights by
    /// namespace (the chart's rbac.mode perNamespace). Lists TokenSources with your own rights.
    Bindings(Box<bindings::BindingsArgs>),
    /// Print the CustomResourceDefinitions.
    Crd,
    /// Print the script with which a shell completes commands, flags, namespaces and names.
    #[command(after_help = completion::HELP)]
    Completion(completion::CompletionArgs),
    /// Write a man page for each command into a folder.
    #[command(hide = true)]
    Man(completion::ManArgs),
}

impl Cli {
    /// The definition for the name by which the binary was called: as a plugin of kubectl it is about the cluster alone.
    #[must_use]
    pub fn definition(program: &OsStr) -> clap::Command {
        let is_plugin = Path::new(program).file_stem().is_some_and(|name| name == PLUGIN);
        let name = if is_plugin { "kubectl tokensource" } else { "tokensource-operator" };
        let mint_usage = format!("{name} mint -f FILE [-f FILE]... [NAME]\n       {name} mint [-n NS] NAME");
        let mut definition =
            Cli::command().bin_name(name).mut_subcommand("mint", |it| it.override_usage(mint_usage));
        if is_plugin {
            definition = definition
                .name(PLUGIN)
                .about("Shows and changes TokenSources, and finds out why one has no token");
            #[cfg(unix)]
            for operator_only in ["run", "probe"] {
                definition = definition.mut_subcommand(operator_only, |it| it.hide(true));
            }
        }
        definition
    }

    /// Parses the arguments of the process.
    ///
    /// # Errors
    /// They are wrong, or ask for a help text or the version.
    pub fn parse_arguments() -> Result<Self, clap::Error> {
        let matches = Cli::definition(OsStr::new(called_as())).try_get_matches()?;
        Cli::from_arg_matches(&matches)
    }

    /// Answers a shell or kubectl that asks for completions; `None` where neither does.
    pub fn complete() -> Option<ExitCode> {
        completion::answer(|| Cli::definition(OsStr::new(called_as())))
    }

    /// Runs the subcommand. Returns the exit code of the process.
    pub async fn run(self) -> ExitCode {
        match self.command {
            #[cfg(unix)]
            Command::Run(arguments) => match operator::run(*arguments).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failure(&error.to_string()),
            },
            Command::Get(arguments) => ExitCode::from(get::run(*arguments).await),
            Command::Refresh(arguments) => ExitCode::from(refresh::run(*arguments).await),
            Command::Suspend(arguments) => ExitCode::from(suspend::run(*arguments, true).await),
            Command::Resume(arguments) => ExitCode::from(suspend::run(*arguments, false).await),
            Command::Mint(arguments) => ExitCode::from(mint::run(*arguments).await.code()),
            Command::Explain(arguments) => ExitCode::from(explain::run(*arguments).await),
            Command::Check(arguments) => ExitCode::from(check::run(*arguments).await),
            Command::Report(arguments) => ExitCode::from(report::run(*arguments).await),
            #[cfg(unix)]
            Command::Probe(arguments) => match probe::run(&arguments).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failure(&error.to_string()),
            },
            Command::Bindings(arguments) => match bindings::run(*arguments).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failure(&error.to_string()),
            },
            Command::Completion(arguments) => match completion::script(&arguments, called_as()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failure(&error.to_string()),
            },
            Command::Man(arguments) => {
                match completion::write_man_pages(&arguments, Cli::definition(OsStr::new(called_as()))) {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(error) => failure(&error.to_string()),
                }
            }
            Command::Crd => match definitions() {
                Ok(yaml) => {
                    #[expect(clippy::print_stdout, reason = "the output of the command")]
                    {
                        print!("{yaml}");
                    }
                    ExitCode::SUCCESS
                }
                Err(error) => failure(&error.to_string()),
            },
        }
    }
}

/// The CustomResourceDefinitions, as documents of one stream.
fn definitions() -> Result<String, serde_saphyr::ser_error::Error> {
    let [sources, issuers] = [tokensource_api::crd(), tokensource_api::issuer_crd()];
    Ok(format!("{}---\n{}", serde_saphyr::to_string(&sources)?, serde_saphyr::to_string(&issuers)?))
}

/// The name by which the binary was called.
fn called_as() -> &'static str {
    let program = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&program).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    if name == PLUGIN || name == completion::KUBECTL_COMPLETER { PLUGIN } else { "tokensource-operator" }
}

fn failure(message: &str) -> ExitCode {
    #[expect(clippy::print_stderr, reason = "the exit message")]
    {
        eprintln!("{}: {message}", called_as());
    }
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugin_has_its_name_in_usages_and_no_subcommands_of_the_operator() {
        for program in ["/usr/bin/kubectl-tokensource", "kubectl-tokensource.exe"] {
            let mut plugin = Cli::definition(OsStr::new(program));
            plugin.build();
            let help = plugin.render_help().to_string();
            assert!(help.contains("Usage: kubectl tokensource <COMMAND>"), "{help}");
            assert!(help.contains("\n  get ") && !help.contains("\n  run "), "{help}");
            let mint = plugin.find_subcommand_mut("mint").unwrap().render_usage().to_string();
            assert!(mint.contains("kubectl tokensource mint -f FILE"), "{mint}");
        }
        let help = Cli::definition(OsStr::new("/bin/tokensource-operator")).render_help().to_string();
        assert!(
            help.contains("Usage: tokensource-operator <COMMAND>") && help.contains("\n  run "),
            "{help}"
        );
    }

    #[test]
    fn cli_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn cli_flags_of_run_have_environment_variables() {
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
    fn cli_flags_of_run_are_parsed_and_errors_name_the_remedy() {
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
        for wrong in ["often", "2.5s"] {
            let error = run(&["--leader-election-retry-period", wrong]).unwrap_err();
            assert!(error.contains("in whole seconds, for example 15s"), "{error}");
        }
        for wrong in ["soon", "0s", "61m"] {
            let error = run(&["--default-propagation-delay", wrong]).unwrap_err();
            assert!(error.contains("from 1s to 1h, for example 90s"), "{error}");
        }
    }
}
