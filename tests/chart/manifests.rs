//! The plain manifests of `deploy/`, by kustomize.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::{Value, json};

use super::support;
use super::support::chart::{NAMESPACE, find, objects, render};
use super::support::process::{BUILD_LIMIT, output_within};
use super::support::program::{output, result};
use super::{arguments, identities};

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
    let opt_in = include_str!("../../deploy/overlays/pernamespace/opt-in.yaml");
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

/// As docs/gitops.md shows it. The definition decides which fields name a Secret or a ConfigMap.
#[test]
fn kustomize_component_reaches_each_name_in_a_token_source_and_pods_that_use_its_target() {
    let page = include_str!("../../docs/gitops.md");
    let fragment =
        page.split("# fragment of kustomization.yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let mut kustomization: Value = serde_saphyr::from_str(fragment).unwrap();
    let component = kustomization["components"][0].as_str().unwrap();
    let version = concat!("?ref=v", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        component,
        format!("https://github.com/tokensource/tokensource-operator//deploy/kustomize{version}")
    );
    kustomization["components"] = json!(["component"]);
    kustomization["configMapGenerator"] = json!([{"name": "names", "literals": ["ca.crt=a"]}]);
    kustomization["secretGenerator"][0]["name"] = json!("names");

    // Every reference of the definition, to one name.
    let references = references();
    let expected = [
        "/credentials/secretRef",
        "/credentials/serviceAccountToken",
        "/issuerRef",
        "/tls/caBundle/configMapKeyRef",
        "/tls/caBundle/secretKeyRef",
        "/tls/clientCertificateRef",
    ];
    assert_eq!(references, expected, "add it to deploy/kustomize/name-references.yaml");
    let reference = json!({"name": "names"});
    let source = json!({
        "apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource", "metadata": {"name": "my-api"},
        "spec": {
            "credentials": {"secretRef": reference, "serviceAccountToken": reference},
            "tls": {
                "caBundle": {"configMapKeyRef": reference, "secretKeyRef": reference}, "clientCertificateRef": reference,
            },
            "issuerRef": reference,
        },
    });
    let pod = json!({
        "containers": [{"name": "a", "env": [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "my-api", "key": "token"}}}]}],
        "volumes": [
            {"name": "a", "secret": {"secretName": "my-api"}},
            {"name": "b", "projected": {"sources": [{"secret": {"name": "my-api"}}]}},
            {"name": "c", "secret": {"secretName": "another"}},
        ],
    });
    let workloads = [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "names"}}),
        json!({"apiVersion": "tokensource.dev/v1alpha1", "kind": "ClusterTokenIssuer", "metadata": {"name": "names"}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": pod}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": {"template": {"spec": pod}}}),
        json!({
            "apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "a"},
            "spec": {"jobTemplate": {"spec": {"template": {"spec": pod}}}},
        }),
    ];
    let folder = tempfile::tempdir().unwrap();
    let copied = Command::new("cp")
        .args(["-R", concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/kustomize")])
        .arg(folder.path().join("component"))
        .status()
        .unwrap();
    assert!(copied.success());
    let write = |file: &str, text: String| std::fs::write(folder.path().join(file), text).unwrap();
    write("kustomization.yaml", kustomization.to_string());
    write("vgs-client.env", "client_id=a\n".into());
    write("token-source.yaml", source.to_string());
    write("deployment.yaml", workloads.map(|it| it.to_string()).join("\n---\n"));
    let mut command = Command::new(kubectl_of_control_plane());
    command.arg("kustomize").arg(folder.path());
    let built = objects(&result(&output(command, "")).unwrap());

    let name = |kind: &str| find(&built, kind, "")["metadata"]["name"].clone();
    let spec = &find(&built, "TokenSource", "")["spec"];
    for reference in references {
        let kind = match reference.rsplit('/').next().unwrap() {
            "configMapKeyRef" => "ConfigMap",
            "serviceAccountToken" => "ServiceAccount",
            "issuerRef" => "ClusterTokenIssuer",
            _ => "Secret",
        };
        let named = &spec.pointer(&reference).unwrap()["name"];
        assert_eq!(named, &name(kind), "{reference}");
        assert!(named.as_str().unwrap().starts_with("names-eu"), "{named}");
    }
    for (kind, place) in [
        ("Pod", "/spec"),
        ("Deployment", "/spec/template/spec"),
        ("CronJob", "/spec/jobTemplate/spec/template/spec"),
    ] {
        let pod = find(&built, kind, "").pointer(place).unwrap();
        let target = json!("my-api-eu");
        assert_eq!(pod["containers"][0]["env"][0]["valueFrom"]["secretKeyRef"]["name"], target);
        assert_eq!(pod["volumes"][0]["secret"]["secretName"], target);
        assert_eq!(pod["volumes"][1]["projected"]["sources"][0]["secret"]["name"], target);
        assert_eq!(pod["volumes"][2]["secret"]["secretName"], "another");
    }
}

/// Where a spec names another object: members that end in `Ref`, or `target`, which the operator writes.
fn references() -> Vec<String> {
    fn walk(path: &str, schema: &Value, found: &mut Vec<String>) {
        for (name, member) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}/{name}");
            if !member["properties"]["name"].is_null() && path != "/target" {
                found.push(path.clone());
            }
            walk(&path, member, found);
        }
    }
    let definition: Value =
        serde_saphyr::from_str(include_str!("../../crds/tokensource.dev_tokensources.yaml")).unwrap();
    let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut found = vec![];
    walk("", spec, &mut found);
    found.sort();
    found
}
