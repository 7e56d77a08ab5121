//! The flags in the operator's Deployment, which `mint` and `explain` need too.

use std::collections::BTreeSet;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container, EnvVar};
use tokensource_api::DEFAULT_CONTROLLER;

use crate::token_request::EndpointArgs;

/// A proxy of the operator's environment is not that of the user's.
const NOT_TAKEN: &str = "proxy-from-environment";

/// The container of the operator.
fn container(deployment: &Deployment) -> Option<&Container> {
    let pod = deployment.spec.as_ref()?.template.spec.as_ref()?;
    let runs = |container: &&Container| container.args.iter().flatten().any(|argument| argument == "run");
    pod.containers.iter().find(runs)
}

/// The values of a flag of the operator, in its arguments or its environment.
pub(crate) fn flag(deployment: &Deployment, name: &str) -> Vec<String> {
    let prefix = format!("--{name}=");
    let all = container(deployment).map(flags_of).unwrap_or_default();
    all.iter().filter_map(|flag| flag.strip_prefix(&prefix)).map(str::to_owned).collect()
}

/// Whether a switch of the operator is set, in its arguments or its environment.
pub(crate) fn has_switch(deployment: &Deployment, name: &str) -> bool {
    let all = container(deployment).map(flags_of).unwrap_or_default();
    let mut all = all.iter().filter(|flag| name_of(flag) == name);
    // It has no value on the command line, and one in the environment.
    all.any(|flag| flag.split_once('=').is_none_or(|(_, value)| value == "true"))
}

/// The ClusterTokenIssuers that an operator serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServedIssuers {
    /// Their `spec.controller`.
    pub(crate) controller: String,
    /// The namespace with their Secrets.
    pub(crate) namespace: String,
}

impl ServedIssuers {
    /// As the flags of its Deployment say; `None`: it serves none.
    pub(crate) fn of(deployment: &Deployment) -> Option<Self> {
        let value = |name: &str| flag(deployment, name).pop();
        let namespace = value("issuers-namespace")?;
        let controller = value("issuers-controller").unwrap_or_else(|| DEFAULT_CONTROLLER.to_owned());
        Some(ServedIssuers { controller, namespace })
    }
}

/// The flags of a container as `--name=value`; the arguments precede, and variables count where a flag is absent.
fn flags_of(container: &Container) -> Vec<String> {
    let mut flags: Vec<String> = vec![];
    for argument in container.args.iter().flatten().skip_while(|argument| !argument.starts_with("--")) {
        match flags.last_mut() {
            // `--name value`
            Some(last) if !argument.starts_with("--") => *last = format!("{last}={argument}"),
            _ => flags.push(argument.clone()),
        }
    }
    let names: BTreeSet<String> = flags.iter().map(|flag| name_of(flag).to_owned()).collect();
    let variables = container.env.iter().flatten();
    flags.extend(variables.filter_map(flag_of).filter(|flag| !names.contains(name_of(flag))));
    flags
}

fn name_of(flag: &str) -> &str {
    flag.trim_start_matches('-').split('=').next().unwrap_or_default()
}

fn flag_of(variable: &EnvVar) -> Option<String> {
    let name = variable.name.strip_prefix("TOKENSOURCE_")?.to_lowercase().replace('_', "-");
    Some(format!("--{name}={}", variable.value.as_ref()?))
}

/// The flags about token endpoints, and which of them the user gave.
#[derive(Debug)]
pub struct GivenEndpointArgs {
    /// The flags, with defaults.
    pub args: EndpointArgs,
    given: Vec<String>,
}

impl GivenEndpointArgs {
    /// The user's flags, and those of the operator where they gave none. What cannot be read of those has its default.
    pub(crate) fn over(&self, deployment: &Deployment) -> EndpointArgs {
        let of_operator = container(deployment).map(flags_of).unwrap_or_default();
        let definition = EndpointArgs::augment_args(Command::new("operator").no_binary_name(true));
        let names: BTreeSet<&str> = self.given.iter().map(|flag| name_of(flag)).collect();
        let is_known = |flag: &&String| {
            let name = name_of(flag);
            name != NOT_TAKEN && definition.get_arguments().any(|argument| argument.get_long() == Some(name))
        };
        let mut flags: Vec<String> = self.given.clone();
        for flag in of_operator.iter().filter(is_known).filter(|flag| !names.contains(name_of(flag))) {
            // A switch has no value on the command line, and one in the environment.
            match definition.get_arguments().find(|argument| argument.get_long() == Some(name_of(flag))) {
                Some(argument) if !argument.get_action().takes_values() => {
                    let value = flag.split_once('=').map_or("true", |(_, value)| value);
                    if value == "true" {
                        flags.push(format!("--{}", name_of(flag)));
                    }
                }
                _ => flags.push(flag.clone()),
            }
        }
        let parse = |flags: &[String]| {
            let matches = definition.clone().try_get_matches_from(flags).ok()?;
            EndpointArgs::from_arg_matches(&matches).ok()
        };
        parse(&flags).or_else(|| parse(&self.given)).unwrap_or_else(|| self.args.clone())
    }
}

impl Args for GivenEndpointArgs {
    fn augment_args(command: Command) -> Command {
        EndpointArgs::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        EndpointArgs::augment_args_for_update(command)
    }
}

impl FromArgMatches for GivenEndpointArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let args = EndpointArgs::from_arg_matches(matches)?;
        let mut given = vec![];
        for argument in EndpointArgs::augment_args(Command::new("given")).get_arguments() {
            let (id, Some(long)) = (argument.get_id().as_str(), argument.get_long()) else { continue };
            let source = matches.value_source(id);
            if !matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable)) {
                continue;
            }
            if !argument.get_action().takes_values() {
                if matches.get_flag(id) {
                    given.push(format!("--{long}"));
                }
                continue;
            }
            let values = matches.get_raw(id).into_iter().flatten();
            given.extend(values.map(|value| format!("--{long}={}", value.to_string_lossy())));
        }
        Ok(GivenEndpointArgs { args, given })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn deployment(arguments: Value, variables: Value) -> Deployment {
        serde_json::from_value(json!({
            "metadata": {"name": "o", "namespace": "s"},
            "spec": {"selector": {}, "template": {"spec": {"containers": [
                {"name": "sidecar", "args": ["--allow-http"]},
                {"name": "operator", "args": arguments, "env": variables},
            ]}}},
        }))
        .unwrap()
    }

    fn given(arguments: &[&str]) -> GivenEndpointArgs {
        let definition = GivenEndpointArgs::augment_args(Command::new("mint").no_binary_name(true));
        GivenEndpointArgs::from_arg_matches(&definition.try_get_matches_from(arguments).unwrap()).unwrap()
    }

    fn over(user: &[&str], deployment: &Deployment) -> EndpointArgs {
        given(user).over(deployment)
    }

    #[test]
    fn flags_of_the_operator_count_where_the_user_gave_none() {
        let operator = deployment(
            json!([
                "run",
                "--namespace=a",
                "--egress-allow=10.0.0.0/8",
                "--egress-allow",
                "idp.test",
                "--allow-http",
                "--proxy-from-environment",
                "--default-propagation-delay=2m"
            ]),
            json!([
                {"name": "TOKENSOURCE_EGRESS_TENANT_CA_BUNDLE", "value": "false"},
                {"name": "TOKENSOURCE_DEFAULT_PROPAGATION_DELAY", "value": "5m"},
                {"name": "TOKENSOURCE_EGRESS_DENY", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}},
                {"name": "PATH", "value": "/bin"},
            ]),
        );
        let taken = over(&[], &operator);
        assert_eq!((taken.egress_allow.len(), taken.allow_http), (2, true));
        assert_eq!((taken.default_propagation_delay, taken.egress_tenant_ca_bundle), (120, false));
        assert!(!taken.proxy_from_environment, "the proxy of another environment");
        let own = over(&["--egress-allow=192.168.0.0/16", "--default-propagation-delay=3s"], &operator);
        assert_eq!((own.egress_allow.len(), own.default_propagation_delay, own.allow_http), (1, 3, true));
    }

    #[test]
    fn switch_is_set_by_its_name_or_by_a_variable_that_says_so() {
        let is_set = |arguments: Value, variables: Value| {
            has_switch(&deployment(arguments, variables), "require-issuer")
        };
        let variable = |value: &str| json!([{"name": "TOKENSOURCE_REQUIRE_ISSUER", "value": value}]);
        assert!(is_set(json!(["run", "--require-issuer"]), json!([])));
        assert!(is_set(json!(["run"]), variable("true")));
        assert!(!is_set(json!(["run"]), variable("false")));
        assert!(!is_set(
            json!(["run", "--require-issuers=a", "--issuers-namespace=require-issuer"]),
            json!([])
        ));
    }

    #[test]
    fn issuers_are_served_by_their_controller_where_their_namespace_is_said() {
        let of = |arguments: Value| ServedIssuers::of(&deployment(arguments, json!([])));
        let served = |controller: &str| {
            Some(ServedIssuers { controller: controller.to_owned(), namespace: "a".to_owned() })
        };
        assert_eq!(of(json!(["run", "--issuers-controller=example.com/b"])), None);
        assert_eq!(of(json!(["run", "--issuers-namespace=a"])), served("tokensource.dev/operator"));
        let own = json!(["run", "--issuers-namespace=a", "--issuers-controller=example.com/b"]);
        assert_eq!(of(own), served("example.com/b"));
    }

    #[test]
    fn flags_that_another_version_has_are_left_out() {
        let later = deployment(json!(["run", "--egress-magic=9", "--egress-proxied=maybe"]), json!([]));
        assert_eq!(over(&["--allow-http"], &later).default_propagation_delay, 90);
        assert!(over(&["--allow-http"], &later).allow_http);
    }
}
