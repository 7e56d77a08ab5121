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
