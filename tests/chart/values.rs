//! Values: the schema, the README, and what each changes.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::arguments::every_flag;
use super::support::chart::{
    CHART, NAMESPACE, RELEASE, find, helm, objects, render, template, template_with_tests,
};
use super::{container, identities};

#[test]
fn chart_passes_helm_lint_strict() {
    let said = helm(None, &["lint", "--strict", CHART], "").unwrap();
    assert!(said.contains("0 chart(s) failed") && !said.contains("[WARNING]"), "{said}");
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

/// Values with the spec of a TokenSource for `helm test` that sends a token of ServiceAccount `a`.
fn keyless_test(tokens: Value) -> Value {
    let provider =
        json!({"oauth2": {"issuer": "https://a", "clientAuthentication": {"serviceAccountToken": {}}}});
    let spec = json!({"provider": provider, "credentials": {"serviceAccountToken": {"name": "a"}}});
    json!({"helmTest": {"spec": spec}, "serviceAccountTokens": tokens})
}

fn allowed(audience: &str) -> Value {
    json!({"allowed": [{"audience": audience, "hosts": ["idp.example.com"]}]})
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
        // The namespace's own account would have the operator's rights.
        (
            json!({"serviceAccount": {"create": false}}),
            "name the operator's ServiceAccount in serviceAccount.name",
        ),
        (json!({"serviceAccount": {"create": false, "name": "default"}}), "may not be default"),
        // Rights come with the policy, or not at all.
        (
            json!({"serviceAccountTokens": allowed("https://a"), "admissionPolicy": {"enabled": false}}),
            "serviceAccountTokens.allowed needs admissionPolicy.enabled",
        ),
        (
            json!({"serviceAccountTokens": allowed("https://a"), "namespaces": ["a"]}),
            "name the ServiceAccounts in serviceAccountTokens.names",
        ),
        (
            json!({"serviceAccountTokens": allowed("https://kubernetes.default.svc.cluster.local")}),
            "is an audience of the API server",
        ),
        (json!({"serviceAccountTokens": {"names": ["a"]}}), "serviceAccountTokens.allowed, which is empty"),
        (json!({"serviceAccountTokens": allowed("a,b")}), "audience"),
        (json!({"serviceAccountTokens": {"allowed": [{"audience": "a", "hosts": []}]}}), "hosts"),
        (json!({"serviceAccountTokens": {"allowed": [{"audience": "a", "hosts": ["https://a"]}]}}), "hosts"),
        (json!({"issuers": {"required": true}}), "issuers.required needs issuers.enabled"),
        (
            json!({"issuers": {"enabled": true}, "admissionPolicy": {"enabled": false}}),
            "issuers.enabled needs admissionPolicy.enabled",
        ),
        (json!({"issuers": {"enabled": true, "controller": "a b"}}), "controller"),
        (
            json!({"helmTest": {"spec": {"issuerRef": {"name": "a"}}}}),
            "helmTest.spec.issuerRef needs issuers.enabled",
        ),
        (
            json!({"helmTest": {"spec": {"issuerRef": {"name": "a"}, "tls": {"a": 1}}}, "issuers": {"enabled": true}}),
            "write them, or issuerRef alone",
        ),
        (json!({"helmTest": {"spec": {"issuerRef": {}}}}), "name"),
        (
            json!({"helmTest": {"spec": {"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "a"}}}},
                "issuers": {"enabled": true, "required": true}}),
            "write helmTest.spec.issuerRef",
        ),
        (
            json!({"helmTest": {"spec": {"provider": {"vgs": {}}}}}),
            "helmTest.spec: write provider and credentials, or issuerRef",
        ),
        (
            json!({"helmTest": {"spec": {"provider": {"vgs": {}}, "credentials": {"clientID": "a"}}}}),
            "write secretRef or serviceAccountToken",
        ),
        (keyless_test(json!({})), "needs the audience https://a in serviceAccountTokens.allowed"),
        (keyless_test(allowed("https://b")), "needs the audience https://a in serviceAccountTokens.allowed"),
        (
            keyless_test(json!({"allowed": allowed("https://a")["allowed"], "names": ["b"]})),
            "a is not in serviceAccountTokens.names",
        ),
        (json!({"metrics": {"tls": {"secretName": "a"}}}), "metrics.tls.secretName is for metrics.secure"),
        (json!({"metrics": {"podMonitor": {"tlsConfig": {"a": "b"}}}}), "metrics.podMonitor.tlsConfig"),
        (json!({"global": {"imagePullSecrets": [1]}}), "imagePullSecrets"),
        (json!({"livenessProbe": {"enabled": "no"}}), "enabled"),
        (json!({"podDisruptionBudget": {"nameOverride": "Not_A_Name"}}), "nameOverride"),
        (
            json!({"networkPolicy": {"ingress": [], "from": [{"podSelector": {}}]}}),
            "networkPolicy.ingress replaces the rule",
        ),
        (
            json!({"podDisruptionBudget": {"minAvailable": 1}}),
            "minAvailable and maxUnavailable exclude each other",
        ),
        (
            json!({"podDisruptionBudget": {"maxUnavailable": null}}),
            "podDisruptionBudget: set minAvailable or maxUnavailable",
        ),
    ] {
        let said = template(NAMESPACE, &values).unwrap_err();
        assert!(said.contains(words), "{values}: {said}");
    }
}

#[test]
fn every_value_changes_a_rendered_object() {
    let marked: Value = serde_saphyr::from_str(include_str!("values.yaml")).unwrap();
    let text = template_with_tests(&marked);
    for number in 1..=71 {
        let marker = format!("marker-{number}");
        // Not marker-20 for marker-2.
        let mut after = text.split(&marker).skip(1);
        assert!(after.any(|rest| !rest.starts_with(|c: char| c.is_ascii_digit())), "{marker}");
    }
    for words in [
        "pullPolicy: Always",
        "replicas: 3",
        "minAvailable: 51%",
        "fsGroup: 1234",
        "hostNetwork: true",
        "hostUsers: false",
        "enableServiceLinks: true",
        "IfHealthyBudget",
        "honorLabels: true",
        "scrapeTimeout: 7s",
        "for: 7m",
        "activeDeadlineSeconds: 67",
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
fn chart_without_the_operator_keeps_definitions_rights_and_policies_alone() {
    let everything: Value = serde_saphyr::from_str(include_str!("values.yaml")).unwrap();
    let mut without = everything;
    without["createOperator"] = json!(false);
    let text = template_with_tests(&without);
    let objects = objects(&text);
    let kinds: BTreeSet<&str> = objects.iter().map(|it| it["kind"].as_str().unwrap()).collect();
    for kind in ["CustomResourceDefinition", "ClusterRole", "ServiceAccount", "ValidatingAdmissionPolicy"] {
        assert!(kinds.contains(kind), "{kind} in {kinds:?}");
    }
    for kind in [
        "Deployment",
        "Service",
        "PodDisruptionBudget",
        "NetworkPolicy",
        "ServiceMonitor",
        "Pod",
        "VerticalPodAutoscaler",
        "TokenSource",
    ] {
        assert!(!kinds.contains(kind), "{kind} in {kinds:?}");
    }
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
    let is_open = path == ".global"; // with other charts' members
    assert!(is_open || schema["additionalProperties"] == false, "{path}");
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

/// Whether the chart has a value.
fn is_value(values: &Value, path: &str) -> bool {
    path.split('.').try_fold(values, |values, name| values.get(name)).is_some()
}

/// The rows of the README's two tables of other charts' values: the cells of the first and of the second column.
fn rows_of_other_charts(readme: &str) -> (Vec<[&str; 2]>, Vec<[&str; 2]>) {
    let (_, section) = readme.split_once("## Values of cert-manager's").unwrap();
    let (renamed, left_out) = section.split_once("left out on purpose").unwrap();
    let table = |text| -> Vec<[&str; 2]> {
        let lines = str::lines(text).filter(|line| line.starts_with("| `"));
        lines.map(|line| line.trim_matches('|').split_once(" | ").unwrap().into()).collect()
    };
    (table(renamed), table(left_out))
}

/// What is written as code.
fn codes(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn every_value_of_cert_managers_and_external_secrets_charts_is_here_or_left_out_for_a_reason() {
    let read = |file: &str| std::fs::read_to_string(format!("{CHART}/{file}")).unwrap();
    let (values, readme): (Value, _) =
        (serde_saphyr::from_str(&read("values.yaml")).unwrap(), read("README.md"));
    let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
    let (renamed, left_out) = rows_of_other_charts(&readme);
    let rows: Vec<_> = renamed.iter().chain(&left_out).collect();
    let known: BTreeSet<&str> = rows.iter().flat_map(|[there, _]| codes(there)).collect();
    let is_known = |path: &str| {
        let mut prefixes = path.match_indices('.').map(|(end, _)| &path[..end]).chain([path]);
        // `enabled` has no default.
        is_value(&values, path)
            || !schema["properties"][path].is_null()
            || prefixes.any(|prefix| known.contains(prefix))
    };
    let theirs = include_str!("other-charts.txt").lines().filter(|line| !line.starts_with('#'));
    let theirs: Vec<_> = theirs.map(|line| line.split_once(' ').unwrap()).collect();
    let missing: Vec<_> = theirs.iter().filter(|(_, path)| !is_known(path)).collect();
    assert!(missing.is_empty(), "no row in README.md.gotmpl: {missing:?}");
    for [there, here] in renamed {
        for path in codes(here).filter(|path| !["additionalLabels", "prometheusInstance"].contains(path)) {
            assert!(is_value(&values, path), "{there}: there is no value {path}");
        }
    }
    // A row that is about nothing was renamed there.
    for name in known {
        let is_theirs =
            |path: &str| path == name || path.strip_prefix(name).is_some_and(|it| it.starts_with('.'));
        assert!(theirs.iter().any(|(_, path)| is_theirs(path)), "no chart has a value {name}");
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
    // A mirror's path.
    let values = json!({"global": {"imageRegistry": "mirror.example.com/ghcr.io"}, "image": {"tag": "1"}});
    let objects = render(NAMESPACE, &values);
    assert_eq!(container(&objects)["image"], "mirror.example.com/ghcr.io/tokensource/tokensource-operator:1");
}

#[test]
fn token_source_among_extra_objects_waits_for_its_definition_at_the_first_installation() {
    let object = |name: &str| {
        json!({
            "apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource",
            "metadata": {"name": name, "annotations": {"a": "b"}}, "spec": {},
        })
    };
    let text =
        format!("# text\n{}\n---\n{}", object("b"), json!({"kind": "ConfigMap", "metadata": {"name": "c"}}));
    let values = json!({"extraObjects": [object("a"), text]}).to_string();
    let render = |options: &[&str]| {
        let arguments = ["template", RELEASE, CHART, "--namespace", NAMESPACE, "--values", "-"];
        objects(&helm(None, &[&arguments, options].concat(), &values).unwrap())
    };
    let first = render(&[]);
    for name in ["a", "b"] {
        let metadata = &first.iter().find(|it| it["metadata"]["name"] == name).unwrap()["metadata"];
        assert_eq!(metadata["annotations"]["helm.sh/hook"], "post-install,post-rollback");
        // By these the next upgrade takes it over.
        assert_eq!(metadata["annotations"]["meta.helm.sh/release-name"], RELEASE);
        assert_eq!(metadata["annotations"]["meta.helm.sh/release-namespace"], NAMESPACE);
        assert_eq!(metadata["labels"]["app.kubernetes.io/managed-by"], "Helm");
    }
    assert_eq!(find(&first, "ConfigMap", "c")["metadata"]["annotations"], Value::Null);
    for options in [&["--is-upgrade"][..], &["--api-versions", "tokensource.dev/v1alpha1/TokenSource"]] {
        let later = render(options);
        let source = later.iter().find(|it| it["metadata"]["name"] == "a").unwrap();
        assert_eq!(source["metadata"], object("a")["metadata"], "{options:?}");
    }
}

#[test]
fn template_of_a_token_source_among_extra_objects_is_its_own_and_text_is_helms() {
    let object = json!({
        "apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource", "metadata": {"name": "a"},
        "spec": {"target": {"name": "a", "template": {"data": {
            "header": "Bearer {{ access_token }}", "of": "{{ .Release.Name }}",
        }}}},
    });
    let text = "kind: ConfigMap\nmetadata: {name: 'of-{{ .Release.Name }}'}\n";
    let values = json!({"extraObjects": [object, text]});
    for options in [&[][..], &["--is-upgrade"]] {
        let arguments = ["template", RELEASE, CHART, "--namespace", NAMESPACE, "--values", "-"];
        let objects = objects(&helm(None, &[&arguments, options].concat(), &values.to_string()).unwrap());
        assert_eq!(find(&objects, "TokenSource", "a")["spec"], object["spec"], "{options:?}");
        find(&objects, "ConfigMap", &format!("of-{RELEASE}"));
    }
}

/// Each test that parses objects fails if the chart renders a member twice.
#[test]
fn member_that_is_rendered_twice_is_no_yaml() {
    assert!(serde_saphyr::from_multiple::<Value>("a: {b: 1}\n---\na:\n  b: 1\n  b: 2\n").is_err());
}
