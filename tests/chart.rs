//! What the chart renders, by Helm and without a cluster. In a cluster: `tests/helm.rs`, `tests/integration/chart_objects.rs`.
#![cfg(test)] // so that clippy lets helpers panic, too

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::{Value, json};
use support::chart::{CHART, NAMESPACE, find, helm, objects, render, template};
use support::process::{BUILD_LIMIT, output_within};
use support::program::{PROGRAM, output, result};

/// Sets every value that is a flag of the operator; two sets, because some of the values exclude each other.
fn every_flag() -> [Value; 2] {
    let common = json!({
        "egress": {
            "allow": ["10.0.0.0/8", "idp.example.com:8443"], "only": ["idp.example.com"],
            "deny": ["34.118.224.0/20", "2001:db8::/32"], "proxied": "listed", "tenantCABundle": false,
        },
        "allowHTTP": true,
        "proxyFromEnvironment": true,
        "maxSourcesPerNamespace": 100,
        "requireCredentialsLabel": true,
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

fn container(objects: &[Value]) -> &Value {
    &find(objects, "Deployment", "")["spec"]["template"]["spec"]["containers"][0]
}

fn arguments(objects: &[Value]) -> Vec<String> {
    container(objects)["args"].as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect()
}

fn operator(arguments: &[String]) -> std::process::Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env("KUBECONFIG", "/dev/null");
    output(command, "")
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
fn chart_passes_helm_lint_strict() {
    let said = helm(None, &["lint", "--strict", CHART], "").unwrap();
    assert!(said.contains("0 chart(s) failed") && !said.contains("[WARNING]"), "{said}");
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
fn chart_rendering_is_deterministic() {
    for values in [vec![json!({})], every_flag().to_vec()].concat() {
        assert_eq!(template(NAMESPACE, &values).unwrap(), template(NAMESPACE, &values).unwrap());
    }
    let sources = std::fs::read_dir(format!("{CHART}/templates")).unwrap();
    for source in sources {
        let path = source.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        for function in
            ["lookup", "rand", "uuid", "now", "genCA", "genSelfSigned", "htpasswd", "getHostByName"]
        {
            let used = text.split(|c: char| !c.is_alphanumeric()).any(|word| word == function);
            assert!(!used || path.ends_with("NOTES.txt"), "{}: {function}", path.display());
        }
    }
}

#[test]
fn invalid_values_are_refused_when_rendering() {
    for (values, words) in [
        (json!({"replicas": 2}), "replicas"),
        (json!({"egress": {"allowed": ["a"]}}), "allowed"),
        (json!({"image": {"digest": "1234"}}), "digest"),
        (json!({"namespaces": ["Not_A_Namespace"]}), "namespaces"),
        (json!({"egress": {"allow": ["a,b"]}}), "allow"),
        (json!({"egress": {"deny": ["idp.example.com"]}}), "deny"),
        (json!({"log": {"format": "yaml"}}), "json"),
        (
            json!({"namespaces": ["a"], "namespaceSelector": {"matchLabels": {"a": "b"}}}),
            "namespaces and namespaceSelector exclude each other",
        ),
        (json!({"namespaces": ["a"], "rbac": {"mode": "perNamespace"}}), "set rbac.mode to cluster"),
        (json!({"rbac": {"bind": ["a"]}}), "rbac.bind is for rbac.mode perNamespace"),
        (json!({"rbac": {"mode": "namespace"}}), "mode"),
        (json!({"leaderElection": {"enabled": false}}), "set replicaCount to 1"),
        (
            json!({"podDisruptionBudget": {"minAvailable": 1}}),
            "minAvailable and maxUnavailable exclude each other",
        ),
    ] {
        let said = template(NAMESPACE, &values).unwrap_err();
        assert!(said.contains(words), "{values}: {said}");
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

#[test]
fn chart_rules_for_secrets_equal_those_of_templates() {
    let file = std::fs::read_to_string(format!("{CHART}/files/secret-rules.json")).unwrap();
    let rules: Value = serde_json::from_str(&file).unwrap();
    assert_eq!(rules, tokensource_api::permitted::secret_rules(), "run `make generate`");
}

/// The objects by kind, namespace and name.
fn identities(objects: &[Value]) -> BTreeMap<[String; 3], &Value> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let identity =
        |it: &Value| [text(&it["kind"]), text(&it["metadata"]["namespace"]), text(&it["metadata"]["name"])];
    objects.iter().map(|it| (identity(it), it)).collect()
}

#[test]
fn namespaced_mode_grants_the_same_rules_by_roles_and_no_cluster_role() {
    let everywhere = render(NAMESPACE, &json!({}));
    let everywhere = identities(&everywhere);
    let name = format!("tokensource-operator.{NAMESPACE}");
    let granted = |kind: &str, namespace: &str| [kind.to_owned(), namespace.to_owned(), name.clone()];
    let values = json!({"namespaces": ["b", "a"], "rbac": {"aggregateToDefaultRoles": false}});
    let namespaced = render(NAMESPACE, &values);
    let namespaced = identities(&namespaced);
    for namespace in ["a", "b"] {
        let role = namespaced[&granted("Role", namespace)];
        let mut rules = everywhere[&granted("ClusterRole", "")]["rules"].as_array().unwrap().clone();
        // What belongs to the cluster.
        rules.retain(|rule| rule["resources"] != json!(["servicecidrs"]));
        assert_eq!(role["rules"], json!(rules));
        let binding = namespaced[&granted("RoleBinding", namespace)];
        assert_eq!(binding["subjects"], everywhere[&granted("ClusterRoleBinding", "")]["subjects"]);
    }
    assert!(!namespaced.keys().any(|[kind, ..]| kind.starts_with("ClusterRole")), "{namespaced:?}");
}

#[test]
fn rights_by_namespace_are_the_same_in_roles_of_which_one_is_bound_in_the_cluster() {
    let everywhere = render(NAMESPACE, &json!({}));
    let bind = json!(["b", "a", "b"]);
    let bound = render(NAMESPACE, &json!({"rbac": {"mode": "perNamespace", "bind": bind}}));
    let name = format!("tokensource-operator.{NAMESPACE}");
    let rules = |objects: &[Value], name: &str| {
        let role = |it: &&Value| it["kind"] == "ClusterRole" && it["metadata"]["name"] == name;
        objects.iter().find(role).unwrap()["rules"].as_array().unwrap().clone()
    };
    let served = format!("{name}-served");
    let (in_cluster, in_namespace) = (rules(&bound, &name), rules(&bound, &served));
    let text = |rules: &[Value]| rules.iter().map(Value::to_string).collect::<BTreeSet<_>>();
    assert_eq!(
        text(&[in_cluster.clone(), in_namespace].concat()),
        text(&rules(&everywhere, &name)),
        "together they are those of the other mode"
    );
    let resources = in_cluster.iter().flat_map(|rule| rule["resources"].as_array().unwrap().clone());
    let resources: BTreeSet<_> = resources.map(|it| it.as_str().unwrap().to_owned()).collect();
    let expected = ["servicecidrs", "tokensources", "tokensources/status"].map(str::to_owned);
    assert_eq!(resources, BTreeSet::from(expected));

    let bindings = |kind: &str| -> Vec<_> {
        let of_kind = bound.iter().filter(|it| it["kind"] == kind && it["roleRef"]["kind"] == "ClusterRole");
        of_kind.map(|it| (it["metadata"]["namespace"].clone(), it["roleRef"]["name"].clone())).collect()
    };
    assert_eq!(bindings("ClusterRoleBinding"), [(Value::Null, json!(name))], "no other role, `bind` least");
    assert_eq!(bindings("RoleBinding"), ["a", "b"].map(|it| (json!(it), json!(served))));
    let may_bind = find(&bound, "ClusterRole", "-bind");
    assert_eq!(may_bind["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-admin"], "true");
    assert_eq!(may_bind["rules"][0]["resourceNames"], json!([served]));
}

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
    let changed = json!({"commonLabels": {"team": "a"}, "podLabels": {"app.kubernetes.io/name": "other"}, "image": {"tag": "2"}});
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
fn image_reference_with_digest_omits_tag() {
    let image = |values: Value| container(&render(NAMESPACE, &json!({"image": values})))["image"].clone();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(image(json!({})), format!("ghcr.io/tokensource/tokensource-operator:{version}"));
    assert_eq!(image(json!({"registry": "", "repository": "op", "tag": "1"})), "op:1");
    let digest = format!("sha256:{}", "0".repeat(64));
    assert_eq!(
        image(json!({"registry": "r:5000", "repository": "a/b", "tag": "1", "digest": digest})),
        format!("r:5000/a/b@{digest}")
    );
}

#[test]
fn every_value_changes_a_rendered_object() {
    let marked: Value = serde_saphyr::from_str(include_str!("chart-values.yaml")).unwrap();
    let text = template(NAMESPACE, &marked).unwrap();
    for number in 1..=43 {
        assert!(text.contains(&format!("marker-{number}")), "marker-{number}");
    }
    for words in [
        "pullPolicy: Always",
        "replicas: 3",
        "minAvailable: 51%",
        "fsGroup: 1234",
        "runAsUser: 4321",
        "129Mi",
        "dnsPolicy: Default",
        "PeriodSeconds: 99",
        "updateMode: \"Recreate\"",
        "controlledValues: RequestsOnly",
        "RequireDualStack",
        "- IPv6",
        "HistoryLimit: 7",
        "of-tokensource-operator-marker-29",
    ] {
        assert!(text.to_lowercase().contains(&words.to_lowercase()), "{words}");
    }
    for (identity, object) in identities(&objects(&text)) {
        if identity[0] != "ConfigMap" {
            assert_eq!(object["metadata"]["labels"]["team"], "marker-1", "{identity:?}");
        }
    }
    let off = json!({
        "crds": {"enabled": false}, "rbac": {"create": false, "aggregateToDefaultRoles": false},
        "serviceAccount": {"create": false, "name": "mine"}, "admissionPolicy": {"enabled": false},
        "podDisruptionBudget": {"enabled": false}, "networkPolicy": {"enabled": false},
        "metrics": {"service": {"enabled": false}},
    });
    let objects = render(NAMESPACE, &off);
    assert_eq!(objects.len(), 1, "only the Deployment: {:?}", identities(&objects).keys());
    assert_eq!(objects[0]["spec"]["template"]["spec"]["serviceAccountName"], "mine");
}

#[test]
fn monitors_select_the_service_and_port_of_the_operator() {
    let from = json!([{"namespaceSelector": {}}]);
    let metrics =
        |kind: &str| render(NAMESPACE, &json!({"metrics": {"from": from, kind: {"enabled": true}}}));
    let objects = metrics("serviceMonitor");
    let monitor = find(&objects, "ServiceMonitor", "");
    let service = find(&objects, "Service", "metrics");
    for (name, value) in monitor["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(&service["metadata"]["labels"][name], value);
    }
    assert_eq!(monitor["spec"]["endpoints"][0]["port"], service["spec"]["ports"][0]["name"]);
    let port = container(&objects)["ports"][0]["name"].clone();
    assert_eq!(service["spec"]["ports"][0]["targetPort"], port);
    let objects = metrics("podMonitor");
    assert_eq!(find(&objects, "PodMonitor", "")["spec"]["podMetricsEndpoints"][0]["port"], port);
}

#[test]
fn secure_metrics_have_their_port_rights_and_monitors() {
    let secure = |mut metrics: Value| {
        metrics["secure"] = json!(true);
        metrics["from"] = json!([{"namespaceSelector": {}}]);
        json!({"metrics": metrics})
    };
    let objects = render(NAMESPACE, &secure(json!({"serviceMonitor": {"enabled": true}})));
    let operator = container(&objects);
    let arguments = arguments(&objects);
    for argument in ["--admin-address=:8443", "--metrics-secure"] {
        assert!(arguments.iter().any(|it| it == argument), "{argument}: {arguments:?}");
    }
    assert_eq!(operator["ports"][0], json!({"name": "admin", "containerPort": 8443}));
    let ports = &find(&objects, "NetworkPolicy", "")["spec"]["ingress"][0]["ports"];
    assert_eq!(ports, &json!([{"port": "admin", "protocol": "TCP"}]));
    let endpoint = |objects: &[Value], kind: &str, endpoints: &str| {
        find(objects, kind, "")["spec"][endpoints][0].clone()
    };
    let scraped = endpoint(&objects, "ServiceMonitor", "endpoints");
    assert_eq!(scraped["scheme"], "https");
    assert_eq!(scraped["tlsConfig"], json!({"insecureSkipVerify": true}));
    assert_eq!(scraped["bearerTokenFile"], "/var/run/secrets/kubernetes.io/serviceaccount/token");
    let reader = find(&objects, "ClusterRole", "-metrics-reader");
    assert_eq!(reader["rules"], json!([{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]));

    let files = json!({"tls": {"secretName": "certificate"}, "serviceMonitor": {"enabled": true}});
    let objects = render(NAMESPACE, &secure(files));
    let mounts = container(&objects)["volumeMounts"].as_array().unwrap();
    let mount = mounts.iter().find(|it| it["name"] == "metrics-certificate").unwrap();
    let flag = format!("--metrics-cert-path={}", mount["mountPath"].as_str().unwrap());
    assert!(self::arguments(&objects).contains(&flag), "{flag}");
    let tls = &endpoint(&objects, "ServiceMonitor", "endpoints")["tlsConfig"];
    let service = find(&objects, "Service", "metrics")["metadata"]["name"].as_str().unwrap();
    assert_eq!(tls["serverName"], format!("{service}.{NAMESPACE}.svc"));
    assert_eq!(tls["ca"]["secret"], json!({"name": "certificate", "key": "ca.crt"}));

    let authorization = json!({"credentials": {"name": "token", "key": "token"}});
    let pods = json!({"podMonitor": {"enabled": true}, "serviceMonitor": {"authorization": authorization}});
    let objects = render(NAMESPACE, &secure(pods));
    let scraped = endpoint(&objects, "PodMonitor", "podMetricsEndpoints");
    assert_eq!((&scraped["authorization"], &scraped["bearerTokenFile"]), (&authorization, &Value::Null));

    for (values, words) in [
        (secure(json!({"podMonitor": {"enabled": true}})), "metrics.serviceMonitor.authorization"),
        (
            json!({"namespaces": ["a"], "metrics": {"secure": true}}),
            "metrics.secure needs rights in the cluster",
        ),
    ] {
        let said = template(NAMESPACE, &values).unwrap_err();
        assert!(said.contains(words), "{said}");
    }
    // Off by default, with no further rights.
    let objects = render(NAMESPACE, &json!({}));
    assert!(!self::arguments(&objects).iter().any(|it| it.contains("--metrics")));
    assert!(!format!("{objects:?}").contains("tokenreviews"));
}

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

#[test]
fn network_policy_admits_scrapers_and_a_monitor_asks_for_them() {
    let from = |values: Value| {
        find(&render(NAMESPACE, &values), "NetworkPolicy", "")["spec"]["ingress"][0]["from"].clone()
    };
    let peer = |name: &str| json!({"podSelector": {"matchLabels": {"app": name}}});
    assert_eq!(from(json!({})), Value::Null);
    let both = json!({"metrics": {"from": [peer("prometheus")]}, "networkPolicy": {"from": [peer("a")]}});
    assert_eq!(from(both), json!([peer("a"), peer("prometheus")]));
    for monitor in ["serviceMonitor", "podMonitor"] {
        let values = |from: Value| json!({"metrics": {"from": from, monitor: {"enabled": true}}});
        let said = template(NAMESPACE, &values(json!([]))).unwrap_err();
        assert!(said.contains("metrics.from is empty") && said.contains("ipBlock"), "{said}");
        assert_eq!(from(values(json!([peer("prometheus")]))), json!([peer("prometheus")]));
        let off = json!({"networkPolicy": {"enabled": false}, "metrics": {monitor: {"enabled": true}}});
        template(NAMESPACE, &off).unwrap();
    }
}

#[test]
fn alerts_and_dashboard_are_rendered_unchanged() {
    let values = json!({"metrics": {"prometheusRule": {"enabled": true}, "dashboard": {"enabled": true}}});
    let objects = render(NAMESPACE, &values);
    let read = |file: &str| std::fs::read_to_string(format!("{CHART}/files/{file}")).unwrap();
    let alerts: Value = serde_saphyr::from_str(&read("alerts.yaml")).unwrap();
    assert_eq!(find(&objects, "PrometheusRule", "")["spec"], alerts);
    let dashboard = find(&objects, "ConfigMap", "");
    assert_eq!(dashboard["metadata"]["labels"]["grafana_dashboard"], "1");
    let text = dashboard["data"]["tokensource-operator.json"].as_str().unwrap();
    assert_eq!(text.trim(), read("dashboard.json").trim());
}

#[test]
fn every_value_is_in_readme_and_schema() {
    let readme = std::fs::read_to_string(format!("{CHART}/README.md")).unwrap();
    let mut rows = 0;
    for row in readme.lines().filter(|line| line.starts_with("| `")) {
        let description = row.rsplit('|').nth(1).unwrap().trim();
        assert!(!description.is_empty(), "a value without a comment `# --`: {row}");
        rows += 1;
    }
    assert!(rows > 40, "{rows}");
    // Otherwise a default would be refused or missing.
    let read = |file: &str| std::fs::read_to_string(format!("{CHART}/{file}")).unwrap();
    let values: Value = serde_saphyr::from_str(&read("values.yaml")).unwrap();
    let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    same_members("", &values, &schema);
}

fn same_members(path: &str, values: &Value, schema: &Value) {
    let (Some(values), Some(properties)) = (values.as_object(), schema["properties"].as_object()) else {
        return;
    };
    if values.is_empty() {
        return; // no member has a default
    }
    assert_eq!(schema["additionalProperties"], false, "{path}");
    let names = |map: &serde_json::Map<String, Value>| -> BTreeSet<String> {
        map.keys()
            .filter(|name| !["global", "enabled"].contains(&name.as_str()) || !path.is_empty())
            .cloned()
            .collect()
    };
    assert_eq!(names(values), names(properties), "{path}");
    for (name, value) in values {
        same_members(&format!("{path}.{name}"), value, &properties[name]);
    }
}

#[test]
fn plain_manifests_equal_the_rendered_chart() {
    let kubectl = kubectl_of_control_plane();
    let kustomize = |folder: &str| {
        let root = env!("CARGO_MANIFEST_DIR");
        let mut command = Command::new(&kubectl);
        command.args(["kustomize", &format!("{root}/{folder}")]);
        objects(&result(&output(command, "")).unwrap_or_else(|error| panic!("{folder}: {error}")))
    };
    // Without the labels of Helm.
    let plain = |mut objects: Vec<Value>| {
        for object in &mut objects {
            for place in ["/metadata/labels", "/spec/template/metadata/labels"] {
                if let Some(labels) = object.pointer_mut(place).and_then(Value::as_object_mut) {
                    labels.remove("helm.sh/chart");
                    labels.retain(|name, value| name != "app.kubernetes.io/managed-by" || value != "Helm");
                }
            }
        }
        objects
    };
    let chart = plain(render(NAMESPACE, &json!({"crds": {"keep": false}})));
    let mut cluster = kustomize("deploy");
    let install = objects(
        &std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/install.yaml")).unwrap(),
    );
    assert_eq!(identities(&install), identities(&cluster), "install.yaml and `kubectl kustomize deploy`");
    cluster.retain(|object| object["kind"] != "Namespace");
    assert_eq!(identities(&cluster), identities(&chart), "deploy/ and the chart");

    let values = |policy: bool| {
        json!({
            "namespaces": [NAMESPACE], "crds": {"enabled": false}, "admissionPolicy": {"enabled": policy},
            "rbac": {"aggregateToDefaultRoles": false},
        })
    };
    let chart = plain(render(NAMESPACE, &values(true)));
    let namespaced = kustomize("deploy/overlays/namespaced");
    assert!(arguments(&namespaced).contains(&"--namespace=$(POD_NAMESPACE)".to_owned()));
    let without_arguments = |objects: Vec<Value>| -> Vec<Value> {
        objects
            .into_iter()
            .map(|mut object| {
                if let Some(container) = object.pointer_mut("/spec/template/spec/containers/0") {
                    container["args"] = Value::Null;
                }
                object
            })
            .collect()
    };
    assert_eq!(identities(&without_arguments(namespaced)), identities(&without_arguments(chart)));
    let bound = kustomize("deploy/overlays/pernamespace");
    let chart = json!({"rbac": {"mode": "perNamespace"}, "crds": {"keep": false}});
    let mut bound_objects = without_arguments(bound.clone());
    bound_objects.retain(|object| object["kind"] != "Namespace");
    assert_eq!(identities(&bound_objects), identities(&without_arguments(plain(render(NAMESPACE, &chart)))));
    let flags = |arguments: Vec<String>| arguments.into_iter().collect::<BTreeSet<_>>();
    let mut expected = flags(arguments(&render(NAMESPACE, &chart)));
    expected.remove("--namespace-watches=200"); // the default
    assert_eq!(flags(arguments(&bound)), expected);
    let opt_in = include_str!("../deploy/overlays/pernamespace/opt-in.yaml");
    let opt_in: Value = serde_saphyr::from_str(opt_in).unwrap();
    let by_chart = render(NAMESPACE, &json!({"rbac": {"mode": "perNamespace", "bind": ["a"]}}));
    let by_chart =
        by_chart.iter().find(|it| it["kind"] == "RoleBinding" && it["metadata"]["namespace"] == "a").unwrap();
    assert_eq!([&opt_in["roleRef"], &opt_in["subjects"]], [&by_chart["roleRef"], &by_chart["subjects"]]);

    let team = without_arguments(kustomize("deploy/overlays/team"));
    let chart = without_arguments(plain(render(NAMESPACE, &values(false))));
    assert_eq!(identities(&team), identities(&chart));
}

/// As docs/namespaced.md says.
#[test]
fn namespaced_overlay_in_another_namespace_has_the_policy_of_its_service_account() {
    let folder = tempfile::tempdir().unwrap();
    let copied = Command::new("cp")
        .args(["-R", concat!(env!("CARGO_MANIFEST_DIR"), "/deploy")])
        .arg(folder.path())
        .status()
        .unwrap();
    assert!(copied.success());
    let overlay = folder.path().join("deploy/overlays/namespaced");
    let file = folder.path().join("deploy/overlays/team/kustomization.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("namespace: tokensource-system", "namespace: payments")).unwrap();
    let mut command = Command::new(kubectl_of_control_plane());
    command.arg("kustomize").arg(&overlay);
    let overlay = objects(&result(&output(command, "")).unwrap());
    let chart = render("payments", &json!({"namespaces": ["payments"]}));
    for kind in ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"] {
        let [overlay, chart] = [&overlay, &chart].map(|objects| find(objects, kind, "payments"));
        assert_eq!(overlay["metadata"]["name"], chart["metadata"]["name"]);
        assert_eq!(overlay["spec"], chart["spec"]);
    }
    let user = "request.userInfo.username == 'system:serviceaccount:payments:tokensource-operator'";
    let policy = find(&overlay, "ValidatingAdmissionPolicy", "payments");
    assert_eq!(policy["spec"]["matchConditions"][0]["expression"], user);
}

fn kubectl_of_control_plane() -> std::path::PathBuf {
    let mut build = Command::new(support::control_plane::SCRIPT);
    build.arg("build");
    let folder = result(&output_within(build, "", BUILD_LIMIT)).unwrap_or_else(|error| panic!("{error}"));
    std::path::Path::new(folder.trim()).join("kubectl")
}
