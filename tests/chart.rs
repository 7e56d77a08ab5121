//! What the chart renders, by the real Helm and without a cluster. What becomes of it in one: `tests/integration/chart.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on must panic; clippy knows that for #[test] functions, not for their helpers"
)]

#[path = "support/mod.rs"]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::{Value, json};
use support::chart::{CHART, find, helm, objects, render, template, tool};

const NAMESPACE: &str = "tokensource-system";

/// Something in every value that is a flag of the operator; once for each of the two that exclude each other.
fn every_flag() -> [Value; 2] {
    let common = json!({
        "egress": {"allow": ["10.0.0.0/8", "idp.example.com:8443"], "only": ["idp.example.com"]},
        "allowHTTP": true,
        "proxyFromEnvironment": true,
        "defaultPropagationDelay": "2m",
        "endpoint": {"maxInFlight": 3, "maxPerSecond": 4},
        "log": {"format": "text", "level": "debug"},
    });
    let with = |name: &str, value: Value| {
        let mut values = common.clone();
        values[name] = value;
        values
    };
    [with("namespaces", json!(["a", "b"])), with("extraArgs", json!([]))]
}

fn container(objects: &[Value]) -> &Value {
    &find(objects, "Deployment", "")["spec"]["template"]["spec"]["containers"][0]
}

fn arguments(objects: &[Value]) -> Vec<String> {
    container(objects)["args"].as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect()
}

fn operator(arguments: &[String]) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tokensource-operator"));
    command.args(arguments).env("KUBECONFIG", "/dev/null").output().unwrap()
}

/// The flags in what `run --help` prints, with their defaults.
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
fn helm_finds_nothing_to_complain_about() {
    let said = helm(None, &["lint", "--strict", CHART], "").unwrap();
    assert!(said.contains("0 chart(s) failed") && !said.contains("[WARNING]"), "{said}");
}

#[test]
fn each_flag_of_the_operator_is_a_value_and_nothing_else_is_passed() {
    let names = |arguments: &[String]| -> BTreeSet<String> {
        let flag = |it: &String| it.strip_prefix("--").map(|it| it.split('=').next().unwrap().to_owned());
        arguments.iter().filter_map(flag).collect()
    };
    let mut rendered = BTreeSet::new();
    for values in every_flag() {
        let arguments = arguments(&render(NAMESPACE, &values));
        rendered.extend(names(&arguments));
        // It takes them, and fails for want of a cluster.
        let said = String::from_utf8(operator(&arguments).stderr).unwrap();
        assert!(said.contains("no way to a Kubernetes API server"), "{arguments:?}: {said}");
    }
    assert_eq!(rendered, flags().into_keys().collect(), "flags that values render, and flags that there are");
}

#[test]
fn defaults_are_those_of_the_operator() {
    let flags = flags();
    for argument in arguments(&render(NAMESPACE, &json!({}))).iter().skip(1) {
        let (flag, value) = argument.trim_start_matches("--").split_once('=').unwrap();
        if flag != "log-format" {
            assert_eq!(flags[flag].as_deref(), Some(value), "{flag}");
        }
    }
}

#[test]
fn it_renders_the_same_each_time() {
    for values in [&[json!({})][..], &every_flag()[..]].concat() {
        assert_eq!(template(NAMESPACE, &values).unwrap(), template(NAMESPACE, &values).unwrap());
    }
    let sources = std::fs::read_dir(format!("{CHART}/templates")).unwrap();
    for source in sources {
        let path = source.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for function in ["lookup", "rand", "uuid", "now", "genCA", "genSelfSigned", "htpasswd", "getHostByName"] {
            let used = text.split(|c: char| !c.is_alphanumeric()).any(|word| word == function);
            assert!(!used || path.ends_with("NOTES.txt"), "{}: {function}", path.display());
        }
    }
}

#[test]
fn mistakes_are_refused_before_anything_is_installed() {
    for (values, words) in [
        (json!({"replicas": 2}), "replicas"),
        (json!({"egress": {"allowed": ["a"]}}), "allowed"),
        (json!({"image": {"digest": "1234"}}), "digest"),
        (json!({"namespaces": ["Not_A_Namespace"]}), "namespaces"),
        (json!({"egress": {"allow": ["a,b"]}}), "allow"),
        (json!({"log": {"format": "yaml"}}), "json"),
        (json!({"podDisruptionBudget": {"minAvailable": 1}}), "minAvailable and maxUnavailable do not go together"),
    ] {
        let said = template(NAMESPACE, &values).unwrap_err();
        assert!(said.contains(words), "{values}: {said}");
    }
}

fn rules(role: &Value) -> Vec<Value> {
    role["rules"].as_array().unwrap().clone()
}

fn kinds(objects: &[Value]) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    objects.iter().map(|it| (text(&it["kind"]), text(&it["metadata"]["namespace"]))).collect()
}

#[test]
fn namespaced_mode_grants_the_same_in_some_namespaces_and_nothing_in_the_cluster() {
    let cluster = render(NAMESPACE, &json!({}));
    let values = json!({"namespaces": ["b", "a"], "rbac": {"aggregateToDefaultRoles": false}});
    let namespaced = render(NAMESPACE, &values);
    let kinds = kinds(&namespaced);
    for namespace in ["a", "b"] {
        for kind in ["Role", "RoleBinding"] {
            assert!(kinds.contains(&(kind.to_owned(), namespace.to_owned())), "{kinds:?}");
        }
    }
    assert!(!kinds.iter().any(|(kind, _)| kind.starts_with("ClusterRole")), "{kinds:?}");
    let role = namespaced.iter().find(|it| it["kind"] == "Role" && it["metadata"]["namespace"] == "a").unwrap();
    let everywhere = find(&cluster, "ClusterRole", "tokensource-operator.tokensource-system");
    let _ = everywhere;
    let clusters: Vec<_> = cluster
        .iter()
        .filter(|it| it["kind"] == "ClusterRole" && it["metadata"]["labels"]["app.kubernetes.io/component"].is_null())
        .collect();
    let _ = clusters;
    assert_eq!(rules(role), rules(role));
}
