//! What a thief of the operator's token can do, with the chart's own roles and policy: docs/security.md lists it.

use serde_json::{Value, json};

use super::admission_policy::{apply, refused, secret};
use super::support::chart::{Account, install};
use super::support::eventually;
use super::support::scene::{SOON, Scene};

/// Installs a release in the scene's namespace, and steals the token of its ServiceAccount.
async fn thief(scene: &Scene, mut values: Value) -> Account {
    values["crds"] = json!({"enabled": false});
    install(&scene.namespace, values).await;
    let account = Account::of(&scene.namespace).await;
    eventually("the roles and the admission policy take effect", SOON, async || {
        let create = ["-n", &scene.namespace, "create", "secret", "generic", "any", "--dry-run=server"];
        let said = account.kubectl(&create, "").await;
        refused(&said, "must have the label app.kubernetes.io/managed-by=tokensource-operator")
    })
    .await;
    account
}

/// A Secret as the operator writes it, with these further members of its metadata.
fn ours(name: &str, metadata: Value) -> Value {
    let mut manifest = secret(name, "Opaque", true);
    for (member, value) in metadata.as_object().unwrap() {
        match (&mut manifest["metadata"][member], value) {
            (Value::Object(into), Value::Object(from)) => into.extend(from.clone()),
            (into, value) => *into = value.clone(),
        }
    }
    manifest
}

/// What the thief writes, and the words of the refusal.
fn forgeries() -> Vec<(Value, &'static str)> {
    let label = |key: &str, value: &str| ours("forged", json!({"labels": {key: value}}));
    let annotation = |key: &str, value: &str| ours("forged", json!({"annotations": {key: value}}));
    let typed = |kind: &str| {
        let mut manifest = ours("forged", json!({}));
        manifest["type"] = json!(kind);
        manifest
    };
    let reference = |api_version: &str, kind: &str| json!({"apiVersion": api_version, "kind": kind, "name": "a", "uid": "b"});
    let labels = "may not set the label";
    let annotations = "may not set the annotation";
    vec![
        // A release of Helm's, which `helm rollback` applies: found by name and label, of any type.
        (ours("sh.helm.release.v1.cilium.v1", json!({})), "may not write a release of Helm"),
        (label("owner", "helm"), labels),
        (typed("helm.sh/release.v1"), "may not write a Secret of type"),
        // Replicators write copies into namespaces that the operator does not serve.
        (annotation("reflector.v1.k8s.emberstack.com/reflection-auto-enabled", "true"), annotations),
        (annotation("replicator.v1.mittwald.de/replicate-to", "*"), annotations),
        (annotation("kubed.appscode.com/sync", ""), annotations),
        // Tools that trust a Secret for its label.
        (label("istio/multiCluster", "true"), labels),
        (annotation("Security.Istio.io/a", "true"), annotations),
        (label("sealedsecrets.bitnami.com/sealed-secrets-key", "active"), labels),
        (label("cluster.x-k8s.io/cluster-name", "production"), labels),
        (label("argocd.argoproj.io/secret-type", "cluster"), labels),
        (label("jenkins.io/credentials-type", "usernamePassword"), labels),
        (label("provisioning.cattle.io/a", "true"), labels),
        (annotation("cert-manager.io/allow-direct-injection", "true"), annotations),
        (annotation("kubernetes.io/service-account.name", "default"), annotations),
        // Releases it for use as credentials, or hands it over.
        (label("tokensource.dev/credentials", "true"), labels),
        (annotation("tokensource.dev/adopt", "source"), annotations),
        (typed("cluster.x-k8s.io/secret"), "may not write a Secret of type"),
        (typed("rke.cattle.io/machine-plan"), "may not write a Secret of type"),
        (ours("forged", json!({"finalizers": ["example.com/never"]})), "may not change finalizers"),
        (ours("forged", json!({"ownerReferences": [reference("v1", "Node")]})), "ownerReferences"),
        (
            ours("forged", json!({"ownerReferences": [reference("example.com/v1", "TokenSource")]})),
            "ownerReferences",
        ),
    ]
}

fn event(changes: Value) -> Value {
    let mut event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"generateName": "said-"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal", "reason": "TokenValid", "action": "Refresh",
        "reportingController": "tokensource.dev/tokensource-operator", "reportingInstance": "b",
        "regarding": {"apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource", "name": "source"},
    });
    event.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    event
}

#[tokio::test(flavor = "multi_thread")]
async fn thief_cannot_forge_secrets_with_a_meaning_to_others() {
    let scene = Scene::bare("thief").await;
    let account = thief(&scene, json!({})).await;
    apply(&scene, &account, &ours("target", json!({"labels": {"team": "a"}}))).await.unwrap();
    let write = ["-n", "kube-system", "apply", "--server-side", "--force-conflicts"];
    let mut succeeded = vec![];
    for (manifest, words) in forgeries() {
        // In another namespace, as a new Secret, and as a change of the operator's own.
        let said = account.kubectl(&[&write[..], &["-f", "-"]].concat(), &manifest.to_string()).await;
        let mut change = manifest.clone();
        if change["metadata"]["name"] == "forged" && change["type"] == "Opaque" {
            change["metadata"]["name"] = json!("target");
        }
        for said in [said, apply(&scene, &account, &change).await] {
            if let Err(problem) = refused(&said, words) {
                succeeded.push(format!("{manifest}: {problem}"));
            }
        }
    }
    // The name of a release may be generated.
    let mut generated = ours("", json!({"generateName": "sh.helm.release.v1.a"}));
    generated["metadata"].as_object_mut().unwrap().remove("name");
    let said = account.kubectl(&["-n", "kube-system", "create", "-f", "-"], &generated.to_string()).await;
    succeeded.extend(refused(&said, "may not write a release of Helm").err());
    assert!(succeeded.is_empty(), "{}", succeeded.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn thief_cannot_publish_events_of_others() {
    let scene = Scene::bare("thief-events").await;
    let account = thief(&scene, json!({})).await;
    let publish = async |namespace: &str, mut event: Value| {
        event["regarding"]["namespace"] = json!(namespace);
        account.kubectl(&["-n", namespace, "create", "-f", "-"], &event.to_string()).await
    };
    publish(&scene.namespace, event(json!({}))).await.unwrap();
    let node = json!({"apiVersion": "v1", "kind": "Node", "name": "a"});
    let stranger = json!({"apiVersion": "example.com/v1", "kind": "TokenSource", "name": "source"});
    for forged in [
        json!({"reportingController": "kubelet"}),
        json!({"regarding": node}),
        json!({"regarding": stranger}),
    ] {
        let namespace = if forged["regarding"]["kind"] == "Node" { "default" } else { &scene.namespace };
        let said = publish(namespace, event(forged.clone())).await;
        refused(&said, "its own events about TokenSources only")
            .unwrap_or_else(|it| panic!("{forged}: {it}"));
    }
    let lasting = json!({"metadata": {"generateName": "said-", "finalizers": ["example.com/never"]}});
    let said = publish(&scene.namespace, event(lasting)).await;
    refused(&said, "may not change finalizers").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn secret_that_was_handed_over_keeps_the_metadata_of_others() {
    let scene = Scene::bare("thief-adopted").await;
    let account = thief(&scene, json!({})).await;
    let node = json!({"apiVersion": "v1", "kind": "Node", "name": "a", "uid": "b"});
    let source =
        json!({"apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource", "name": "a", "uid": "c"});
    // The most metadata that fits: judging it must stay within the API server's limits on cost.
    let many: serde_json::Map<_, _> = (0..1000)
        .map(|number| {
            (
                format!("example-{number}.{}.kubernetes.io/{}", "a".repeat(180), "b".repeat(60)),
                json!("c".repeat(60)),
            )
        })
        .collect();
    let mut theirs = secret("theirs", "Opaque", false);
    theirs["metadata"] = json!({
        "name": "theirs",
        "labels": {"owner": "helm", "istio/multiCluster": "true"},
        "annotations": {"tokensource.dev/adopt": "source", "meta.helm.sh/release-name": "a"},
        "finalizers": ["kubernetes.io/theirs"],
        "ownerReferences": [node],
    });
    theirs["metadata"]["labels"].as_object_mut().unwrap().extend(many);
    scene.kubectl(&["create", "-f", "-"], &theirs.to_string()).await;

    let target = ours("theirs", json!({"labels": {"team": "a"}, "ownerReferences": [source]}));
    apply(&scene, &account, &target).await.unwrap();
    // Takes its own reference back.
    apply(&scene, &account, &ours("theirs", json!({}))).await.unwrap();
    let patch = async |patch: Value| {
        let patch = patch.to_string();
        let arguments = ["-n", &scene.namespace, "patch", "secret", "theirs", "--type=merge", "-p", &patch];
        account.kubectl(&arguments, "").await
    };
    for (change, words) in [
        (json!({"metadata": {"finalizers": null}}), "may not change finalizers"),
        (json!({"metadata": {"ownerReferences": null}}), "ownerReferences"),
        (
            json!({"metadata": {"labels": {"istio/multiCluster": "false"}}}),
            "may not set the label istio/multiCluster",
        ),
    ] {
        refused(&patch(change).await, words).unwrap();
    }
    scene
        .kubectl(
            &["patch", "secret", "theirs", "--type=merge", "-p", r#"{"metadata": {"finalizers": null}}"#],
            "",
        )
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thief_can_change_nothing_outside_of_selected_namespaces() {
    let scene = Scene::bare("thief-selected").await;
    let team = &scene.namespace;
    let selector = json!({
        "matchLabels": {"team": team},
        "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["one", "two"]},
            {"key": "tier", "operator": "NotIn", "values": ["two"]},
            {"key": "serve", "operator": "Exists"},
            {"key": "stop", "operator": "DoesNotExist"},
        ],
    });
    let label = async |labels: &[&str]| {
        scene.kubectl(&[&["label", "--overwrite", "namespace", team][..], labels].concat(), "").await;
    };
    label(&[&format!("team={team}"), "tier=one", "serve=", "stop-"]).await;
    let account = thief(&scene, json!({"namespaceSelector": selector})).await;
    let stored = ours("a-refresh-token", json!({"annotations": {"tokensource.dev/refresh-token-of": "a"}}));
    apply(&scene, &account, &ours("target", json!({}))).await.unwrap();
    apply(&scene, &account, &stored).await.unwrap();
    let unserved = "does not serve the namespace";
    // Its own Lease lies in a namespace that need not be selected.
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "tokensource-operator"}, "spec": {},
    });
    for change in ["team=other", "tier=two", "tier-", "serve-", "stop=now"] {
        label(&[change]).await;
        eventually(&format!("after {change} the namespace is not served"), SOON, async || {
            refused(&apply(&scene, &account, &ours("target", json!({}))).await, unserved)
        })
        .await;
        apply(&scene, &account, &stored).await.expect("a rotated refresh token is still saved");
        let create = ["-n", team, "create", "--dry-run=server", "-f", "-"];
        account.kubectl(&create, &lease.to_string()).await.expect("its own Lease");
        let new = ours("b-refresh-token", json!({"annotations": {"tokensource.dev/refresh-token-of": "b"}}));
        refused(&apply(&scene, &account, &new).await, unserved).unwrap();
        let event = event(
            json!({"regarding": {"apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource", "namespace": team, "name": "a"}}),
        );
        let said = account.kubectl(&["-n", team, "create", "-f", "-"], &event.to_string()).await;
        refused(&said, unserved).unwrap();
        label(&[&format!("team={team}"), "tier=one", "serve=", "stop-"]).await;
        eventually("the namespace is served again", SOON, async || {
            apply(&scene, &account, &ours("target", json!({}))).await
        })
        .await;
    }
}
