//! The operator's pod.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::support::chart::{CHART, NAMESPACE, find, render, template, template_with_tests};
use super::{arguments, container, operator};

#[test]
fn probes_use_the_socket_of_the_operator() {
    let objects = render(NAMESPACE, &json!({}));
    let mounts = container(&objects)["volumeMounts"].as_array().unwrap();
    let folder =
        mounts.iter().find(|it| it["name"] == "probe-socket").unwrap()["mountPath"].as_str().unwrap();
    let socket = format!("{folder}/probe.sock");
    assert!(arguments(&objects).contains(&format!("--probe-socket={socket}")));
    for (probe, page) in [("livenessProbe", "livez"), ("readinessProbe", "readyz")] {
        assert_eq!(
            container(&objects)[probe]["exec"]["command"],
            json!(["/tokensource-operator", "probe", page])
        );
        // It asks at that socket.
        let said = String::from_utf8(operator(&["probe".into(), page.into()]).stderr).unwrap();
        assert!(said.contains(&format!("{socket} does not answer")), "{said}");
    }
}

#[test]
fn pod_token_is_valid_for_an_hour_and_mounted_by_the_operator_alone() {
    let values = json!({"extraContainers": [{"name": "other"}], "extraVolumes": [{"name": "a"}]});
    let objects = render(NAMESPACE, &values);
    let pod = &find(&objects, "Deployment", "")["spec"]["template"]["spec"];
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(find(&objects, "ServiceAccount", "")["automountServiceAccountToken"], false);
    let volume =
        pod["volumes"].as_array().unwrap().iter().find(|it| it["name"] == "kube-api-access").unwrap();
    let tokens: Vec<_> = volume["projected"]["sources"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|source| !source["serviceAccountToken"].is_null())
        .collect();
    // 3607 s would be extended to a year.
    assert_eq!(tokens, [&json!({"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}})]);
    let mounts = container(&objects)["volumeMounts"].as_array().unwrap();
    let mount = mounts.iter().find(|it| it["name"] == "kube-api-access").unwrap();
    assert_eq!(mount["mountPath"], "/var/run/secrets/kubernetes.io/serviceaccount");
    assert_eq!(pod["containers"][1], json!({"name": "other"}));
}

fn pod(objects: &[Value]) -> &Value {
    &find(objects, "Deployment", "")["spec"]["template"]["spec"]
}

#[test]
fn fields_of_the_pod_that_the_chart_renders_are_refused_in_extra_pod_spec() {
    let text = std::fs::read_to_string(format!("{CHART}/templates/_pod.tpl")).unwrap();
    let (table, _) = text.split_once("{{- end }}\n\n").unwrap();
    let known: BTreeSet<&str> = table.split([' ', '"', ':', '\n']).collect();
    let everything: Value = serde_saphyr::from_str(include_str!("values.yaml")).unwrap();
    let objects = render(NAMESPACE, &everything);
    let fields = pod(&objects).as_object().unwrap().keys().filter(|it| *it != "shareProcessNamespace");
    let missing: Vec<_> = fields.filter(|field| !known.contains(field.as_str())).collect();
    assert_eq!(missing, Vec::<&String>::new(), "not in valuesOfPod");
    for (field, words) in [
        ("securityContext", "set the value podSecurityContext instead"),
        ("dnsPolicy", "set the value dnsPolicy instead"),
        ("automountServiceAccountToken", "the operator mounts its own token"),
    ] {
        let said = template(NAMESPACE, &json!({"extraPodSpec": {field: {}}})).unwrap_err();
        assert!(
            said.contains(&format!("extraPodSpec.{field}: the chart sets it")) && said.contains(words),
            "{said}"
        );
    }
}

#[test]
fn names_and_paths_that_are_taken_are_refused() {
    for (values, words) in [
        (json!({"extraVolumes": [{"name": "probe-socket"}]}), "there is a volume probe-socket already"),
        (json!({"extraVolumes": [{"name": "a"}, {"name": "a"}]}), "there is a volume a already"),
        (json!({"extraContainers": [{"name": "operator"}]}), "there is a container operator already"),
        (
            json!({"extraContainers": [{"name": "a"}], "extraInitContainers": [{"name": "a"}]}),
            "there is a container a already",
        ),
        (
            json!({"extraVolumeMounts": [{"name": "a", "mountPath": "/run/tokensource-operator/"}]}),
            "something is mounted at /run/tokensource-operator already",
        ),
    ] {
        let said = template(NAMESPACE, &values).unwrap_err();
        assert!(said.contains(words), "{values}: {said}");
    }
}

#[test]
fn no_user_or_group_is_fixed_so_that_openshift_can_assign_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    let mut deployments = vec![];
    for text in yaml_below(&folder).into_iter().chain([template(NAMESPACE, &json!({})).unwrap()]) {
        for field in ["runAsUser", "runAsGroup", "fsGroup", "supplementalGroups", "65532"] {
            assert!(!text.contains(field), "{field} in {text}");
        }
        deployments.extend(text.contains("image: ghcr.io/").then_some(text));
    }
    assert!(deployments.iter().all(|text| text.contains("runAsNonRoot: true")));
    assert!(deployments.len() > 3, "of {} the chart, the manifests and the bundle", deployments.len());
}

/// The text of every file of YAML below a folder.
fn yaml_below(folder: &Path) -> Vec<String> {
    let mut texts = vec![];
    for path in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            texts.extend(yaml_below(&path));
        } else if path.extension().is_some_and(|it| it == "yaml") {
            texts.push(std::fs::read_to_string(path).unwrap());
        }
    }
    texts
}

#[test]
fn another_handler_of_a_probe_and_another_strategy_replace_the_default() {
    let probe = json!({"httpGet": {"port": "admin", "path": "/livez"}, "exec": null});
    let values = json!({"livenessProbe": probe, "readinessProbe": {"tcpSocket": {"port": "admin"}}});
    let objects = render(NAMESPACE, &values);
    for name in ["livenessProbe", "readinessProbe"] {
        let probe = &container(&objects)[name];
        let handlers = ["exec", "httpGet", "tcpSocket", "grpc"].map(|it| usize::from(!probe[it].is_null()));
        assert_eq!(handlers.iter().sum::<usize>(), 1, "{probe}");
        assert!(!probe["periodSeconds"].is_null(), "the rest is kept");
    }
    let objects = render(NAMESPACE, &json!({"strategy": {"type": "Recreate"}}));
    assert_eq!(find(&objects, "Deployment", "")["spec"]["strategy"], json!({"type": "Recreate"}));
}

/// Both would request tokens.
#[test]
fn without_leader_election_no_pod_starts_before_the_old_one_has_ended() {
    let without = json!({"leaderElection": {"enabled": false}, "replicaCount": 1});
    for strategy in [json!({}), json!({"rollingUpdate": {"maxSurge": 2}}), json!({"type": "Recreate"})] {
        let mut values = without.clone();
        values["strategy"] = strategy;
        let objects = render(NAMESPACE, &values);
        let strategy = &find(&objects, "Deployment", "")["spec"]["strategy"];
        assert_eq!(*strategy, json!({"type": "Recreate"}), "{values}");
    }
    let objects = render(NAMESPACE, &json!({}));
    let strategy = &find(&objects, "Deployment", "")["spec"]["strategy"];
    assert_eq!(
        *strategy,
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}})
    );
}

#[test]
fn parts_of_the_pod_that_are_not_enabled_are_left_out() {
    let objects = render(NAMESPACE, &json!({}));
    let rendered = |objects: &[Value]| {
        let probes = ["startupProbe", "livenessProbe", "readinessProbe", "securityContext"];
        let mut parts: Vec<Value> = probes.iter().map(|it| container(objects)[*it].clone()).collect();
        parts.push(pod(objects)["securityContext"].clone());
        parts
    };
    let parts = rendered(&objects);
    assert!(parts[0].is_null() && parts[1..].iter().all(Value::is_object), "{parts:?}");
    assert!(parts.iter().all(|part| part["enabled"].is_null()), "no field of Kubernetes: {parts:?}");
    let off = json!({"enabled": false});
    let values = json!({
        "startupProbe": {"enabled": true}, "livenessProbe": off, "readinessProbe": off, "securityContext": off,
        "podSecurityContext": off,
    });
    let parts = rendered(&render(NAMESPACE, &values));
    assert_eq!(parts[0]["exec"]["command"], json!(["/tokensource-operator", "probe", "livez"]));
    assert!(parts[1..].iter().all(Value::is_null), "{parts:?}");
    // As before there was `enabled`.
    let parts = rendered(&render(NAMESPACE, &json!({"livenessProbe": null, "podSecurityContext": null})));
    assert!(parts[1].is_null() && parts[2].is_object() && parts[4].is_null(), "{parts:?}");
}

#[test]
fn ingress_rules_of_the_values_replace_the_charts() {
    let rules = json!([{"ports": [{"port": 9000}]}]);
    let values =
        json!({"networkPolicy": {"ingress": rules}, "metrics": {"serviceMonitor": {"enabled": true}}});
    assert_eq!(find(&render(NAMESPACE, &values), "NetworkPolicy", "")["spec"]["ingress"], rules);
}

#[test]
fn pod_of_helm_test_has_what_admission_asks_of_the_operators_pods() {
    let values = json!({
        "helmTest": {"spec": {
            "provider": {"oauth2": {"tokenURL": "https://a"}}, "credentials": {"secretRef": {"name": "a"}},
        }},
        "podLabels": {"team": "a"}, "podAnnotations": {"sidecar": "none"}, "priorityClassName": "high",
        "runtimeClassName": "gvisor",
    });
    let objects = super::support::chart::objects(&template_with_tests(&values));
    let pod = find(&objects, "Pod", "");
    assert_eq!(pod["metadata"]["labels"]["team"], "a");
    assert_eq!(pod["metadata"]["annotations"]["sidecar"], "none");
    assert_eq!(pod["metadata"]["annotations"]["helm.sh/hook"], "test");
    assert_eq!(pod["spec"]["priorityClassName"], "high");
    assert_eq!(pod["spec"]["runtimeClassName"], "gvisor");
    let operator = find(&objects, "Deployment", "");
    assert_ne!(
        pod["metadata"]["labels"]["app.kubernetes.io/name"],
        operator["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"],
        "no Service selects it"
    );
}

#[test]
fn values_of_a_parent_chart_apply_and_the_charts_own_win() {
    let constraint =
        |key: &str, when: &str| json!({"topologyKey": key, "whenUnsatisfiable": when, "maxSkew": 1});
    let global = json!({
        "imageRegistry": "registry.example.com/",
        "imagePullSecrets": ["a", {"name": "b"}],
        "nodeSelector": {"pool": "a", "kubernetes.io/os": "windows"},
        "tolerations": [{"key": "dedicated"}],
        "affinity": {"nodeAffinity": {}},
        "topologySpreadConstraints": [
            constraint("topology.kubernetes.io/zone", "DoNotSchedule"), constraint("rack", "DoNotSchedule"),
        ],
        "priorityClassName": "high",
        "hostUsers": false,
        "revisionHistoryLimit": 0,
        "another": "chart's",
    });
    let values = json!({"global": global, "imagePullSecrets": [{"name": "b"}, {"name": "c"}]});
    let objects = render(NAMESPACE, &values);
    let pod = pod(&objects);
    assert_eq!(pod["imagePullSecrets"], json!([{"name": "b"}, {"name": "c"}, {"name": "a"}]));
    assert_eq!(pod["nodeSelector"], json!({"pool": "a", "kubernetes.io/os": "linux"}));
    assert_eq!(pod["tolerations"].as_array().unwrap().len(), 3);
    assert_eq!(pod["affinity"], json!({"nodeAffinity": {}}));
    let spread = pod["topologySpreadConstraints"].as_array().unwrap();
    let spread: Vec<_> = spread.iter().map(|it| (&it["topologyKey"], &it["whenUnsatisfiable"])).collect();
    let expected = [("topology.kubernetes.io/zone", "ScheduleAnyway"), ("rack", "DoNotSchedule")];
    assert_eq!(
        spread,
        expected.map(|(key, when)| (json!(key), json!(when))).iter().map(|(a, b)| (a, b)).collect::<Vec<_>>()
    );
    assert_eq!(pod["priorityClassName"], "high");
    assert_eq!(pod["hostUsers"], false);
    let history = |values: &Value| {
        find(&render(NAMESPACE, values), "Deployment", "")["spec"]["revisionHistoryLimit"].clone()
    };
    assert_eq!([history(&values), history(&json!({}))], [0, 3]);
    let own = json!({"global": {"revisionHistoryLimit": 5}, "revisionHistoryLimit": 0});
    assert_eq!(history(&own), 0);
    let image = container(&objects)["image"].as_str().unwrap();
    assert!(image.starts_with("registry.example.com/tokensource/"), "{image}");
}
