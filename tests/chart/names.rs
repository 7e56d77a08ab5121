//! Names, labels and selectors.

use serde_json::{Value, json};

use super::identities;
use super::support::chart::{NAMESPACE, find, render, template};

#[test]
fn deployment_selector_is_independent_of_values() {
    let selector = |values: Value| {
        let objects = render(NAMESPACE, &values);
        find(&objects, "Deployment", "")["spec"]["selector"]["matchLabels"].clone()
    };
    let plain = selector(json!({}));
    assert_eq!(
        plain,
        json!({"app.kubernetes.io/name": "tokensource-operator", "app.kubernetes.io/instance": "tokensource-operator"})
    );
    let changed = json!({"commonLabels": {"team": "a"}, "podLabels": {"role": "b"}, "image": {"tag": "2"}});
    assert_eq!(selector(changed.clone()), plain);
    let labels =
        &find(&render(NAMESPACE, &changed), "Deployment", "")["spec"]["template"]["metadata"]["labels"]
            .clone();
    for (name, value) in plain.as_object().unwrap() {
        assert_eq!(&labels[name], value, "the selector matches its pods");
    }
    assert_eq!(labels["team"], "a");
}

#[test]
fn names_and_labels_of_long_releases_stay_within_kubernetes_limits() {
    let long = "x".repeat(63);
    for values in [json!({"fullnameOverride": long}), json!({"nameOverride": long})] {
        let objects = render(&long, &values);
        for [kind, namespace, name] in identities(&objects).into_keys() {
            let limit = if namespace.is_empty() { 253 } else { 63 };
            assert!(name.len() <= limit && !name.ends_with('-'), "{kind} {name}");
        }
        for label in objects[0]["metadata"]["labels"].as_object().unwrap().values() {
            assert!(label.as_str().unwrap().len() <= 63, "{label}");
        }
    }
}

#[test]
fn labels_that_selectors_use_are_refused_and_others_replace_the_charts() {
    for (values, words) in [
        (
            json!({"commonLabels": {"app.kubernetes.io/name": "a"}}),
            "commonLabels may not set app.kubernetes.io/name",
        ),
        (json!({"podLabels": {"app.kubernetes.io/instance": "a"}}), "podLabels may not set"),
        (
            json!({"global": {"commonLabels": {"app.kubernetes.io/managed-by": "a"}}}),
            "global.commonLabels may not set",
        ),
        (
            json!({"metrics": {"service": {"labels": {"app.kubernetes.io/component": "a"}}}}),
            "metrics.service.labels may not set",
        ),
    ] {
        let said = template(NAMESPACE, &values).unwrap_err();
        assert!(said.contains(words), "{values}: {said}");
    }
    let part_of = "app.kubernetes.io/part-of";
    let values = json!({"commonLabels": {part_of: "platform", "app.kubernetes.io/component": "controller"}});
    for object in render(NAMESPACE, &values) {
        assert_eq!(object["metadata"]["labels"][part_of], "platform", "{object}");
    }
}

/// Everything that the chart renders.
fn all() -> Value {
    json!({
        "leaderElection": {"enabled": true},
        "metrics": {
            "from": [{"podSelector": {}}], "secure": true, "tls": {"secretName": "certificate"},
            "serviceMonitor": {"enabled": true}, "prometheusRule": {"enabled": true}, "dashboard": {"enabled": true},
        },
        "rbac": {"mode": "perNamespace", "bind": ["a"]},
        "verticalPodAutoscaler": {"enabled": true},
    })
}

#[test]
fn namespace_override_leaves_no_trace_of_the_release_namespace() {
    let mut values = all();
    values["namespaceOverride"] = json!("elsewhere");
    let text = template("of-the-release", &values).unwrap();
    assert!(!text.contains("of-the-release"), "{text}");
    let by_release = template("elsewhere", &all()).unwrap();
    assert_eq!(text, by_release);
}

#[test]
fn objects_for_prometheus_and_grafana_can_be_in_namespaces_of_their_own() {
    let mut values = all();
    for (object, namespace) in [("serviceMonitor", "a"), ("prometheusRule", "b"), ("dashboard", "c")] {
        values["metrics"][object]["namespace"] = json!(namespace);
    }
    let objects = render(NAMESPACE, &values);
    for (kind, namespace) in [("ServiceMonitor", "a"), ("PrometheusRule", "b"), ("ConfigMap", "c")] {
        assert_eq!(find(&objects, kind, "")["metadata"]["namespace"], namespace);
    }
}
