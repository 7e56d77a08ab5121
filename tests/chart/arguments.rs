//! The arguments of the operator, and the values that set them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::support::chart::{CHART, NAMESPACE, render, template};
use super::{arguments, operator};

/// Sets every value that is a flag of the operator; two sets, because some of the values exclude each other.
pub fn every_flag() -> [Value; 2] {
    let common = json!({
        "egress": {
            "allow": ["10.0.0.0/8", "idp.example.com:8443"], "only": ["idp.example.com"],
            "deny": ["34.118.224.0/20", "2001:db8::/32"], "proxied": "listed", "tenantCABundle": false,
        },
        "allowHTTP": true,
        "proxyFromEnvironment": true,
        "maxSourcesPerNamespace": 100,
        "requireCredentialsLabel": true,
        "serviceAccountTokens": {
            "allowed": [{"audience": "https://idp.example.com/?a=b", "hosts": ["idp.example.com", "idp.example.com:8443"]}],
            "names": ["payments"],
        },
        "issuers": {"enabled": true, "controller": "example.com/a", "required": true},
        "templateMetadata": {"only": ["team", "example.com/team"]},
        "defaultPropagationDelay": "2m",
        "endpoint": {"maxInFlight": 3, "maxPerSecond": 4},
        "log": {"format": "text", "level": "debug"},
        "admin": {"port": 9090},
        "leaderElection": {
            "namespace": "leases", "leaseDuration": "1m", "renewDeadline": "40s", "retryPeriod": "10s",
        },
    });
    let with = |name: &str, value: Value| {
        let mut values = common.clone();
        values[name] = value;
        values
    };
    let mut selected = with("namespaceSelector", json!({"matchLabels": {"team": "a"}}));
    selected["metrics"] = json!({"secure": true, "tls": {"port": 9443, "secretName": "certificate"}});
    selected["rbac"] = json!({"mode": "perNamespace", "watches": 5});
    [with("namespaces", json!(["a", "b"])), selected]
}

/// The flags that `run --help` prints, with their defaults.
fn flags() -> BTreeMap<String, Option<String>> {
    let help = operator(&["run".into(), "--help".into()]).stdout;
    let mut flags = BTreeMap::new();
    let mut last = String::new();
    for line in String::from_utf8(help).unwrap().lines().map(str::trim) {
        if let Some(flag) = line.strip_prefix("--") {
            last = flag.split([' ', '=', '[']).next().unwrap().to_owned();
            flags.insert(last.clone(), None);
        } else if let Some((_, default)) = line.split_once("[default: ") {
            flags.insert(last.clone(), default.split_once(']').map(|(default, _)| default.to_owned()));
        }
    }
    assert!(flags.len() > 8, "{flags:?}");
    flags
}

#[test]
fn chart_passes_each_operator_flag_and_no_other() {
    let names = |arguments: &[String]| -> BTreeSet<String> {
        let flag = |it: &String| it.strip_prefix("--").map(|it| it.split('=').next().unwrap().to_owned());
        arguments.iter().filter_map(flag).collect()
    };
    let mut rendered = BTreeSet::new();
    for values in every_flag() {
        let arguments = arguments(&render(NAMESPACE, &values));
        rendered.extend(names(&arguments));
        // The operator accepts the flags and fails only because there is no cluster.
        let said = String::from_utf8(operator(&arguments).stderr).unwrap();
        assert!(said.contains("no cluster"), "{arguments:?}: {said}");
    }
    assert_eq!(rendered, flags().into_keys().collect(), "rendered flags and existing flags");
}

#[test]
fn chart_defaults_equal_operator_defaults() {
    let flags = flags();
    for argument in arguments(&render(NAMESPACE, &json!({"rbac": {"mode": "perNamespace"}}))).iter().skip(1) {
        let (flag, value) = argument.trim_start_matches("--").split_once('=').unwrap();
        if !["log-format", "probe-socket", "served-role", "service-account"].contains(&flag) {
            assert_eq!(flags[flag].as_deref(), Some(value), "{flag}");
        }
    }
}

#[test]
fn namespace_selector_becomes_the_flag() {
    let selector = json!({
        "matchLabels": {"example.com/team": "a"},
        "matchExpressions": [
            {"key": "b", "operator": "In", "values": ["c", "d"]},
            {"key": "e", "operator": "NotIn", "values": ["f"]},
            {"key": "g", "operator": "Exists"},
            {"key": "h", "operator": "DoesNotExist"},
        ],
    });
    let arguments = arguments(&render(NAMESPACE, &json!({"namespaceSelector": selector})));
    let flag = "--namespace-selector=example.com/team=a,b in (c,d),e notin (f),g,!h".to_owned();
    assert!(arguments.contains(&flag), "{arguments:?}");
    for wrong in [
        json!("team=a"),
        json!({"matchLabels": {"team": "a' || 'a"}}),
        json!({"matchExpressions": [{"key": "a", "operator": "In"}]}),
        json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}),
    ] {
        let said = template(NAMESPACE, &json!({"namespaceSelector": wrong})).unwrap_err();
        assert!(said.contains("namespaceSelector"), "{said}");
    }
}

/// `_arguments.tpl`: by flag, the value that sets it.
fn values_of_flags() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(format!("{CHART}/templates/_arguments.tpl")).unwrap();
    let (_, table) = text.split_once("valuesOfFlags\" -}}\n").unwrap();
    let (table, _) = table.split_once("{{- end }}").unwrap();
    serde_saphyr::from_str(table).unwrap()
}

#[test]
fn flags_with_a_value_of_the_chart_are_refused_as_arguments_and_variables() {
    let table = values_of_flags();
    assert_eq!(table.keys().collect::<Vec<_>>(), flags().keys().collect::<Vec<_>>(), "each flag has a value");
    let values = std::fs::read_to_string(format!("{CHART}/values.yaml")).unwrap();
    let values: Value = serde_saphyr::from_str(&values).unwrap();
    for (flag, value) in &table {
        let found = values.pointer(&format!("/{}", value.replace('.', "/")));
        assert!(found.is_some(), "--{flag}: there is no value {value}");
    }
    for (values, words) in [
        (
            json!({"extraArgs": ["--log-level=debug"]}),
            "extraArgs sets --log-level: set the value log.level instead",
        ),
        (json!({"extraArgs": ["--allow-http"]}), "set the value allowHTTP instead"),
        (json!({"extraArgs": ["--log-level", "debug"]}), "set the value log.level instead"),
        // The flag, which the chart passes, would win over it.
        (
            json!({"extraEnv": [{"name": "TOKENSOURCE_LOG_LEVEL", "value": "debug"}]}),
            "extraEnv sets TOKENSOURCE_LOG_LEVEL: set the value log.level instead",
        ),
        (json!({"extraEnv": [{"name": "POD_NAME", "value": "a"}]}), "the variable POD_NAME is set already"),
        (
            json!({"httpsProxy": "http://a", "extraEnv": [{"name": "HTTPS_PROXY", "value": "a"}]}),
            "the variable HTTPS_PROXY is set already",
        ),
    ] {
        let said = template(NAMESPACE, &values).unwrap_err();
        assert!(said.contains(words), "{values}: {said}");
    }
    let arguments =
        arguments(&render(NAMESPACE, &json!({"httpsProxy": "http://a", "extraArgs": ["--new=1"]})));
    assert!(arguments.contains(&"--proxy-from-environment".to_owned()), "{arguments:?}");
    assert_eq!(arguments.last().unwrap(), "--new=1");
}
