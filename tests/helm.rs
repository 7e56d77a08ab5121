//! Installs, upgrades and uninstalls the chart and the plain manifests with Helm and kubectl. The operator runs with the
//! ServiceAccount and the arguments of the rendered Deployment.
//!
//! The control plane has no nodes and no Deployment controller: no pod is created, so nothing waits for pods
//! (`helm --wait`), and the test starts the operator with the arguments of the Deployment.
#![cfg(test)] // so that clippy lets helpers panic, too

mod support;

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use support::chart::{Account, CHART, NAMESPACE, RELEASE, helm, objects, template};
use support::control_plane::ControlPlane;
use support::definitions;
use support::eventually;
use support::gitops::argocd_diff;
use support::helm_test::HelmTest;
use support::operator::Operator;
use support::program::result;
use support::scene::{SOON, Scene};

const CRD: &str = "tokensources.tokensource.dev";

async fn kubectl(arguments: &[&str], stdin: &str) -> String {
    try_kubectl(arguments, stdin).await.unwrap_or_else(|said| panic!("kubectl {arguments:?}: {said}"))
}

async fn try_kubectl(arguments: &[&str], stdin: &str) -> Result<String, String> {
    result(&ControlPlane::shared().kubectl(arguments, stdin).await)
}

async fn get(kind: &str, name: &str) -> Value {
    serde_json::from_str(&kubectl(&["-n", NAMESPACE, "get", kind, name, "-o", "json"], "").await).unwrap()
}

async fn exists(kind: &str, name: &str) -> bool {
    !kubectl(&["-n", NAMESPACE, "get", kind, name, "--ignore-not-found", "-o", "name"], "").await.is_empty()
}

/// Runs Helm on another thread, so that the operator continues.
async fn run_helm(arguments: &[&str], values: Value) -> String {
    let kubeconfig = ControlPlane::shared().kubeconfig_path();
    let mut arguments: Vec<String> = arguments.iter().map(|it| (*it).to_owned()).collect();
    arguments.extend(["--namespace".into(), NAMESPACE.into()]);
    if !values.is_null() {
        arguments.extend(["--values".into(), "-".into()]);
    }
    tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        helm(Some(&kubeconfig), &arguments, &values.to_string())
            .unwrap_or_else(|said| panic!("helm {arguments:?}: {said}"))
    })
    .await
    .unwrap()
}

/// A chart of an earlier version, whose CustomResourceDefinition lacks `spec.suspend`.
fn earlier_chart(folder: &Path) -> String {
    let copied = Command::new("cp").args(["-R", CHART]).arg(folder).status().unwrap();
    assert!(copied.success());
    let chart = folder.join("tokensource-operator");
    let change = |file: &str, change: &dyn Fn(&mut Value)| {
        let path = chart.join(file);
        let mut yaml: Value = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        change(&mut yaml);
        std::fs::write(path, yaml.to_string()).unwrap();
    };
    change("Chart.yaml", &|chart| chart["version"] = json!("0.0.9"));
    change("files/crd.yaml", &|crd| {
        spec_of(crd).remove("suspend").expect("spec.suspend");
    });
    chart.to_str().unwrap().to_owned()
}

fn spec_of(crd: &mut Value) -> &mut serde_json::Map<String, Value> {
    let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";
    crd.pointer_mut(schema).and_then(Value::as_object_mut).expect("a schema of spec")
}

async fn crd_has_suspend() -> bool {
    spec_of(&mut get("crd", CRD).await).contains_key("suspend")
}

/// Starts the operator as the pods of the Deployment would.
async fn pod() -> Operator {
    let deployment = get("deployment", RELEASE).await;
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let mut arguments: Vec<&str> =
        container["args"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    // The port may be in use on this machine.
    arguments.retain(|argument| !argument.starts_with("--admin-address"));
    // It lies in a volume of the pod.
    arguments.retain(|argument| !argument.starts_with("--probe-socket"));
    arguments.push("--admin-address=127.0.0.1:0");
    // A pod has this from its environment.
    let namespace = format!("--leader-election-namespace={NAMESPACE}");
    arguments.push(&namespace);
    Operator::launch(&Account::of(NAMESPACE).await.kubeconfig(), "pod", &arguments).await
}

/// The API server admits the Deployment's pods under the restricted Pod Security Standard.
async fn pods_are_restricted() {
    kubectl(
        &["label", "namespace", NAMESPACE, "--overwrite", "pod-security.kubernetes.io/enforce=restricted"],
        "",
    )
    .await;
    let deployment = get("deployment", RELEASE).await;
    let mut pod = deployment["spec"]["template"].clone();
    pod["apiVersion"] = json!("v1");
    pod["kind"] = json!("Pod");
    pod["metadata"]["name"] = json!("restricted");
    kubectl(&["-n", NAMESPACE, "create", "--dry-run=server", "-f", "-"], &pod.to_string()).await;
    // The standard is enforced: a pod without security context is refused.
    pod["spec"]["containers"][0]["securityContext"] = json!({});
    let said =
        try_kubectl(&["-n", NAMESPACE, "create", "--dry-run=server", "-f", "-"], &pod.to_string()).await;
    assert!(said.unwrap_err().contains("violates PodSecurity"));
}

/// Rights of users with a default role of Kubernetes in the scene's namespace.
async fn default_roles_grant_tokensources(scene: &Scene) {
    for (role, may, may_not) in [
        (
            "view",
            &["get tokensources", "list tokensources"][..],
            &["create tokensources", "patch tokensources", "get secrets"][..],
        ),
        (
            "edit",
            &["get tokensources", "create tokensources", "delete tokensources"],
            &["patch tokensources/status"],
        ),
        (
            "admin",
            &["get tokensources", "patch tokensources", "deletecollection tokensources"],
            &["patch tokensources/status"],
        ),
    ] {
        let user = format!("--user={role}-person");
        scene.kubectl(&["create", "rolebinding", role, &format!("--clusterrole={role}"), &user], "").await;
        let can = async |what: &str| {
            let (verb, resource) = what.split_once(' ').unwrap();
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            let (person, subresource) =
                (format!("--as={role}-person"), format!("--subresource={subresource}"));
            let asked =
                scene.try_kubectl(&["auth", "can-i", verb, resource, &subresource, &person], "").await;
            asked.is_ok()
        };
        eventually(&format!("role {role} is aggregated"), SOON, async || {
            for what in may {
                if !can(what).await {
                    return Err(*what);
                }
            }
            Ok(())
        })
        .await;
        for what in may_not {
            assert!(!can(what).await, "{role}: {what}");
        }
    }
}

async fn plain_manifests() {
    let root = env!("CARGO_MANIFEST_DIR");
    let all = [
        ("deployment", RELEASE),
        ("clusterrole", "tokensource-operator.tokensource-system"),
        ("validatingadmissionpolicy", "tokensource-operator.tokensource-system"),
        ("crd", CRD),
    ];
    let deploy = format!("{root}/deploy");
    kubectl(&["apply", "-k", &deploy], "").await;
    for (kind, name) in all {
        assert!(exists(kind, name).await, "{kind} {name}");
    }
    pods_are_restricted().await;
    assert_eq!(kubectl(&["diff", "-k", &deploy], "").await, "", "kustomize sees no difference");
    // Applying install.yaml again changes nothing.
    let install = format!("{deploy}/install.yaml");
    let said = kubectl(&["apply", "-f", &install], "").await;
    assert!(
        said.lines().count() > 8
            && said.lines().all(|line| line.ends_with(" unchanged") || line.ends_with(" configured")),
        "{said}"
    );

    // `make undeploy` keeps the CustomResourceDefinition.
    kubectl(&["delete", "-f", &install, "-l", "app.kubernetes.io/component!=crd"], "").await;
    for (kind, name) in all {
        assert_eq!(exists(kind, name).await, kind == "crd", "{kind} {name}");
    }
    kubectl(&["delete", "crd", CRD], "").await;

    // Namespaced mode, by a user with rights in one namespace only.
    kubectl(&["create", "-f", &format!("{root}/crds")], "").await;
    kubectl(&["create", "namespace", NAMESPACE], "").await;
    kubectl(&["create", "rolebinding", "-n", NAMESPACE, "owner", "--clusterrole=admin", "--user=owner"], "")
        .await;
    // A user may grant only rights that it has; the role admin lacks these.
    let grant = [
        "create",
        "role",
        "-n",
        NAMESPACE,
        "sources",
        "--verb=*",
        "--resource=tokensources.tokensource.dev,tokensources.tokensource.dev/status",
    ];
    kubectl(&grant, "").await;
    let events =
        ["create", "role", "-n", NAMESPACE, "events", "--verb=create", "--resource=events.events.k8s.io"];
    kubectl(&events, "").await;
    for role in ["sources", "events"] {
        kubectl(
            &["create", "rolebinding", "-n", NAMESPACE, role, &format!("--role={role}"), "--user=owner"],
            "",
        )
        .await;
    }
    let overlay = format!("{deploy}/overlays/team");
    eventually("the owner may apply the overlay", SOON, async || {
        try_kubectl(&["apply", "--as=owner", "-k", &overlay], "").await
    })
    .await;
    assert!(exists("role", "tokensource-operator.tokensource-system").await);
    // With the admission policy, by an administrator.
    let overlay = format!("{deploy}/overlays/namespaced");
    kubectl(&["apply", "-k", &overlay], "").await;
    assert_eq!(kubectl(&["diff", "-k", &overlay], "").await, "", "kustomize sees no difference");
    let policy = "validatingadmissionpolicy";
    assert!(exists(policy, "tokensource-operator.tokensource-system").await);
    kubectl(&["delete", &format!("{policy}binding,{policy}"), "--all"], "").await;
    kubectl(&["delete", "namespace", NAMESPACE], "").await;
    kubectl(&["delete", "crd", CRD], "").await;
}

/// `helm test`, in the scene's namespace.
async fn helm_test_succeeds_or_says_why_not(scene: &Scene, values: &Value) {
    let mut values = values.clone();
    let mut spec = scene.source(json!({}))["spec"].clone();
    spec.as_object_mut().unwrap().remove("target");
    values["helmTest"] = json!({"namespace": scene.namespace, "spec": spec});
    let test = HelmTest::create(NAMESPACE, &values).await;
    // Under the restricted Pod Security Standard, as the operator's pods are.
    let mut restricted = test.pod.clone();
    restricted["spec"].as_object_mut().unwrap().remove("serviceAccountName");
    kubectl(&["create", "--dry-run=server", "-f", "-"], &restricted.to_string()).await;
    test.says(0, &["nothing is wrong"]).await;
    scene.credentials("wrong").await;
    test.again().await;
    test.says(2, &["ClientRejected"]).await;
    test.delete().await;
}

/// What GitOps tools do, with everything that the chart renders: they apply it, and compare, again and again.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "builds Argo CD's diff with Kubernetes' types: minutes"]
async fn gitops_tools_see_no_difference() {
    ControlPlane::shared_without_crds();
    definitions::install(ControlPlane::shared()).await;
    let values = json!({
        "promptPropagation": {"enabled": true},
        "metrics": {
            "from": [{"podSelector": {}}], "secure": true, "serviceMonitor": {"enabled": true},
            "prometheusRule": {"enabled": true}, "dashboard": {"enabled": true},
        },
        "rbac": {"mode": "perNamespace", "bind": [NAMESPACE]},
        "verticalPodAutoscaler": {"enabled": true},
        "networkPolicy": {"egress": [{"ports": [{"port": 443}]}]},
    });
    let manifests = template(NAMESPACE, &values).unwrap();
    let rendered = objects(&manifests);
    kubectl(&["create", "namespace", NAMESPACE], "").await;
    for how in [
        &["apply", "-f", "-"][..],
        &["apply", "--server-side", "--field-manager=argocd-controller", "-f", "-"],
    ] {
        for round in ["first", "second"] {
            kubectl(how, &manifests).await;
            let live = kubectl(&["get", "-o", "json", "-f", "-"], &manifests).await;
            let mut live: Value = serde_json::from_str(&live).unwrap();
            let live = live["items"].as_array_mut().unwrap().drain(..);
            let pairs: Vec<_> = rendered.iter().cloned().zip(live).collect();
            assert!(pairs.len() > 15 && pairs.iter().all(|(config, live)| config["kind"] == live["kind"]));
            assert_eq!(argocd_diff(&pairs).await, "", "{how:?}, the {round} time");
        }
        // Flux compares with a server-side dry run; kubectl with its own diff.
        let side = &how[1..how.len() - 2];
        let said = try_kubectl(&[&["diff"], side, &["-f", "-"]].concat(), &manifests).await;
        assert_eq!(said.as_deref(), Ok(""), "{how:?}");
        kubectl(&["delete", "-f", "-"], &manifests).await;
    }
    // The diff is not blind.
    let mut changed = rendered.iter().find(|it| it["kind"] == "Deployment").unwrap().clone();
    let live = changed.clone();
    changed["spec"]["replicas"] = json!(5);
    assert!(argocd_diff(&[(changed, live)]).await.starts_with("Deployment "));
    kubectl(&["delete", "namespace", NAMESPACE], "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chart_and_manifests_install_upgrade_and_uninstall() {
    ControlPlane::shared_without_crds();
    plain_manifests().await;

    // An earlier version, in all namespaces.
    let folder = tempfile::tempdir().unwrap();
    let earlier = earlier_chart(folder.path());
    let mut values = json!({"allowHTTP": true, "egress": {"allow": ["127.0.0.0/8"]}});
    // A TokenSource can be installed together with its definition, and belongs to the release from the next upgrade on.
    values["extraObjects"] = json!([{
        "apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource", "metadata": {"name": "extra"},
        "spec": {
            "provider": {"oauth2": {"tokenURL": "https://idp.example.com/token"}},
            "credentials": {"secretRef": {"name": "none"}}, "target": {"name": "extra"},
        },
    }]);
    let notes = run_helm(&["install", RELEASE, &earlier, "--create-namespace"], values.clone()).await;
    assert!(notes.contains("It serves all namespaces."), "{notes}");
    assert!(!crd_has_suspend().await);
    let extra = get("tokensource", "extra").await["metadata"]["uid"].clone();
    pods_are_restricted().await;

    let scene = Scene::new("helm", 600).await;
    default_roles_grant_tokensources(&scene).await;
    let operator = pod().await;
    scene.apply(scene.source(json!({}))).await;
    let token = scene.new_token(None).await;
    scene.ready("True TokenValid").await;

    // Another client of its own, so that the first one's requests can be counted.
    let other = Scene::new("helm-test", 600).await;
    helm_test_succeeds_or_says_why_not(&other, &values).await;

    // The upgrade upgrades the CustomResourceDefinition, and the new pods request no token.
    let mut other = values.clone();
    other["replicaCount"] = json!(3);
    other["log"] = json!({"level": "debug"});
    let elsewhere = json!({"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [NAMESPACE]});
    other["namespaceSelector"] = json!({"matchExpressions": [elsewhere]});
    run_helm(&["upgrade", RELEASE, CHART], other).await;
    assert!(crd_has_suspend().await, "the CustomResourceDefinition is upgraded");
    assert_eq!(get("deployment", RELEASE).await["spec"]["replicas"], 3);
    assert_eq!(get("tokensource", "extra").await["metadata"]["uid"], extra);
    operator.stop().await;
    let operator = pod().await;
    scene.source_is_seen().await;
    scene.secrets_are_seen().await;

    run_helm(&["rollback", RELEASE, "1"], Value::Null).await;
    assert_eq!(get("deployment", RELEASE).await["spec"]["replicas"], 2);
    operator.stop().await;
    let operator = pod().await;
    scene.source_is_seen().await;
    assert_eq!((scene.mints().await, scene.token().await.as_ref()), (1, Some(&token)));

    // TokenSources and tokens outlive the operator.
    operator.stop().await;
    run_helm(&["uninstall", RELEASE], Value::Null).await;
    for (kind, name, stays) in [
        ("crd", CRD, true),
        // As after the first installation.
        ("tokensource", "extra", true),
        ("deployment", RELEASE, false),
        ("serviceaccount", RELEASE, false),
        ("clusterrole", "tokensource-operator.tokensource-system", false),
        ("validatingadmissionpolicy", "tokensource-operator.tokensource-system", false),
    ] {
        assert_eq!(exists(kind, name).await, stays, "{kind} {name}");
    }
    assert_eq!(scene.token().await.as_ref(), Some(&token));
    assert!(scene.server.is_valid(&token).await);
    assert!(scene.status().await.token.is_some());

    // A new installation takes them over.
    run_helm(&["install", RELEASE, CHART], values).await;
    assert!(crd_has_suspend().await);
    let _operator = pod().await;
    scene.source_is_seen().await;
    assert_eq!((scene.mints().await, scene.token().await.as_ref()), (1, Some(&token)));
    scene.force_refresh("again").await;

    // With crds.keep=false, uninstalling removes all of it.
    run_helm(
        &["upgrade", RELEASE, CHART, "--reset-then-reuse-values", "--set", "crds.keep=false"],
        Value::Null,
    )
    .await;
    run_helm(&["uninstall", RELEASE], Value::Null).await;
    eventually("the CustomResourceDefinition is gone", SOON, async || {
        if exists("crd", CRD).await { Err("there") } else { Ok(()) }
    })
    .await;
}
