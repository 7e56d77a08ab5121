//! The command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{bindings, explain, mint, probe};
use crate::operator;

const MINT_USAGE: &str = "tokensource-operator mint -f FILE [-f FILE]... [NAME]
       tokensource-operator mint [-n NS] NAME";

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
    Run(Box<operator::RunArgs>),
    /// Request one token and report on it: for manifests without a cluster (-f), or for a TokenSource of the cluster (-n NS
    /// NAME).
    #[command(after_help = mint::HELP, override_usage = MINT_USAGE)]
    Mint(Box<mint::MintArgs>),
    /// Report whether the token is valid, which pods read it, what failed last and what to do, with your own rights.
    #[command(after_help = explain::HELP)]
    Explain(Box<explain::ExplainArgs>),
    /// Ask the operator of this pod whether it is live or ready; exit code 0: yes. For exec probes.
    Probe(probe::ProbeArgs),
    /// Print the RoleBindings for all namespaces that have TokenSources, to be applied before the operator has its rights by
    /// namespace (the chart's rbac.mode perNamespace). Lists TokenSources with your own rights.
    Bindings(bindings::BindingsArgs),
    /// Print the CustomResourceDefinition.
    Crd,
}

impl Cli {
    /// Runs the subcommand. Returns the exit code of the process.
    pub async fn run(self) -> ExitCode {
        match self.command {
            Command::Run(arguments) => match operator::run(*arguments).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failure(&error.to_string()),
            },
            Command::Mint(arguments) => ExitCode::from(mint::run(*arguments).await.code()),
            Command::Explain(arguments) => ExitCode::from(explain::run(*arguments).await),
            Command::Probe(arguments) => match probe::run(&arguments).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failure(&error.to_string()),
            },
            Command::Bindings(arguments) => match bindings::run(arguments).await {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => failure(&error.to_string()),
            },
            Command::Crd => match serde_saphyr::to_string(&tokensource_api::crd()) {
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

fn failure(message: &str) -> ExitCode {
    #[expect(clippy::print_stderr, reason = "the exit message")]
    {
        eprintln!("tokensource-operator: {message}");
    }
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

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
        assert!(run(&["--leader-election-retry-period", "often"]).unwrap_err().contains("for example 15s"));
        for wrong in ["soon", "0s", "61m"] {
            let error = run(&["--default-propagation-delay", wrong]).unwrap_err();
            assert!(error.contains("from 1s to 1h, for example 90s"), "{error}");
        }
    }
}
