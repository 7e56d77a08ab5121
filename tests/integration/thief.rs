//! What a thief of the operator's token can do, with the chart's own roles and policy: docs/security.md lists it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::admission_policy::{apply, refused, secret};
use super::issuers::{issuer, names};
use super::support::chart::{Account, RELEASE, install};
use super::support::eventually;
use super::support::operator::Operator;
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

fn list(items: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items})
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
    let mut succeeded = vec![];
    let mut forgeries = forgeries();
    let mut targets = vec![];
    for (number, (manifest, _)) in forgeries.iter_mut().enumerate() {
        if manifest["metadata"]["name"] == "forged" {
            let name = format!("forged-{number}");
            manifest["metadata"]["name"] = json!(name);
            // The type of one that exists cannot be changed.
            if manifest["type"] == "Opaque" {
                targets.push(ours(&name, json!({})));
            }
        }
    }
    let manifests: Vec<_> = forgeries.iter().map(|(manifest, _)| manifest.clone()).collect();
    apply(&scene, &account, &list(&targets)).await.unwrap();
    // As new Secrets of another namespace, and as changes of the operator's own.
    for namespace in ["kube-system", scene.namespace.as_str()] {
        let write = ["-n", namespace, "apply", "--server-side", "--force-conflicts", "-f", "-"];
        let said = account.kubectl(&write, &list(&manifests).to_string()).await;
        let said = said.expect_err("all of them are refused");
        for (manifest, words) in &forgeries {
            let name = manifest["metadata"]["name"].as_str().unwrap();
            let line = said.lines().find(|line| line.contains(&format!("secrets \"{name}\" is forbidden")));
            if !line.is_some_and(|line| line.contains("ValidatingAdmissionPolicy") && line.contains(words)) {
                succeeded.push(format!("{namespace}: {manifest}: {line:?}"));
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
async fn thief_cannot_change_issuers_nor_publish_events_about_them_outside_of_default() {
    let scene = Scene::bare("thief-issuers").await;
    let name = scene.namespace.as_str();
    let account = thief(&scene, json!({"issuers": {"enabled": true, "controller": name}})).await;
    scene.apply(issuer(&scene, names(&[&scene]))).await;
    let publish = async |namespace: &str| {
        let about = json!({
            "apiVersion": "tokensource.dev/v1alpha1", "kind": "ClusterTokenIssuer", "name": name, "namespace": namespace,
        });
        let event = event(json!({"regarding": about}));
        account.kubectl(&["-n", namespace, "create", "--dry-run=server", "-f", "-"], &event.to_string()).await
    };
    publish("default").await.unwrap();
    let wide = json!({"names": null, "all": true});
    let wide = json!({"spec": {"namespaces": wide}, "status": {"sources": 7}}).to_string();
    let change = ["patch", "clustertokenissuer", name, "--type=merge", "-p", &wide];
    let new = json!({
        "apiVersion": "tokensource.dev/v1alpha1", "kind": "ClusterTokenIssuer", "metadata": {"name": format!("{name}-new")},
        "spec": issuer(&scene, json!({"all": true}))["spec"],
    });
    let said = account.kubectl(&change, "").await.unwrap_err();
    assert!(said.contains("cannot get resource") || said.contains("cannot patch resource"), "{said}");

    // Whatever the roles grant.
    let subject = format!("--serviceaccount={name}:{RELEASE}");
    scene.kubectl(&["create", "clusterrolebinding", name, "--clusterrole=cluster-admin", &subject], "").await;
    eventually("the policy refuses to change an issuer", SOON, async || {
        refused(
            &account.kubectl(&change, "").await,
            "may not perform clustertokenissuers.tokensource.dev UPDATE",
        )
    })
    .await;
    // With its status no spec is written.
    let with_status = [&change[..], &["--subresource=status"]].concat();
    account.kubectl(&with_status, "").await.unwrap();
    let changed = scene.kubectl(&["get", "clustertokenissuer", name, "-o", "json"], "").await;
    let changed: Value = serde_json::from_str(&changed).unwrap();
    assert_eq!(
        (&changed["spec"]["namespaces"], &changed["status"]["sources"]),
        (&names(&[&scene]), &json!(7))
    );
    let said = account.kubectl(&["create", "-f", "-"], &new.to_string()).await;
    refused(&said, "may not perform clustertokenissuers.tokensource.dev CREATE").unwrap();
    let said = account.kubectl(&["delete", "clustertokenissuer", name], "").await;
    refused(&said, "may not perform clustertokenissuers.tokensource.dev DELETE").unwrap();
    for namespace in [name, "kube-system"] {
        refused(&publish(namespace).await, "about ClusterTokenIssuers in the namespace default").unwrap();
    }
    scene.kubectl(&["delete", "clusterrolebinding", name], "").await;
    scene.kubectl(&["delete", "clustertokenissuer", name], "").await;
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
    for (number, change) in ["team=other", "tier=two", "tier-", "serve-", "stop=now"].into_iter().enumerate()
    {
        label(&[change]).await;
        eventually(&format!("after {change} the namespace is not served"), SOON, async || {
            refused(&apply(&scene, &account, &ours("target", json!({}))).await, unserved)
        })
        .await;
        apply(&scene, &account, &stored).await.expect("a rotated refresh token is still saved");
        let create = ["-n", team, "create", "--dry-run=server", "-f", "-"];
        account.kubectl(&create, &lease.to_string()).await.expect("its own Lease");
        // The operator has created it before it sent the first one: what is new is not its own.
        let new = format!("new-{number}");
        let annotations = json!({"annotations": {"tokensource.dev/refresh-token-of": new}});
        let new = ours(&format!("{new}-refresh-token"), annotations);
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
        apply(&scene, &account, &new).await.expect("one that was deleted is saved from now on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn template_may_set_permitted_keys_only() {
    let scene = Scene::new("thief-allowlist", 600).await;
    let key = "argocd.argoproj.io/secret-type";
    let account = thief(&scene, json!({"templateMetadata": {"only": ["team", key]}})).await;
    let with = async |labels: Value, annotations: Value| {
        let target = ours("target", json!({"labels": labels, "annotations": annotations}));
        apply(&scene, &account, &target).await
    };
    // What the operator writes by itself, too.
    let stored = json!({"labels": {"tokensource.dev/holds": "refresh-token"}, "annotations": {"tokensource.dev/refresh-token-of": "a"}});
    apply(&scene, &account, &ours("stored", stored)).await.unwrap();
    with(json!({"team": "a", key: "repository"}), json!({"team": "a", "tokensource.dev/record": "{}"}))
        .await
        .unwrap();
    for (labels, annotations, words) in [
        (json!({"other": "a"}), json!({}), "may not set the label other=a"),
        (json!({}), json!({"other": "a"}), "may not set the annotation other"),
        (json!({key: "cluster"}), json!({}), "may not set the label argocd.argoproj.io/secret-type=cluster"),
        (json!({}), json!({key: "repository"}), "may not set the annotation argocd"),
    ] {
        refused(&with(labels, annotations).await, words).unwrap();
    }

    // The operator refuses them before it requests a token.
    let flags = ["--template-metadata-only", "team", "--template-metadata-only", key];
    let _operator = Operator::replica(&account.kubeconfig(), &scene.namespace, "replica", &flags).await;
    let source =
        |labels: Value| scene.source(json!({"target": {"template": {"metadata": {"labels": labels}}}}));
    scene.apply(source(json!({"other": "a"}))).await;
    let words = ["spec.target.template.metadata.labels: other is not", "--template-metadata-only"];
    scene.reports("False TemplateInvalid", &words).await;
    assert_eq!(scene.mints().await, 0);
    scene.apply(source(json!({"team": "a"}))).await;
    scene.ready("True TokenValid").await;
}

/// The tables of docs/security.md between `<!-- thief: NAME -->` and the next empty line but one: resource and verbs.
fn documented(name: &str) -> BTreeMap<String, String> {
    let page = include_str!("../../docs/security.md");
    let (_, rest) = page.split_once(&format!("<!-- thief: {name} -->")).unwrap_or_else(|| panic!("{name}"));
    let rows = rest.trim_start().lines().take_while(|line| line.starts_with('|')).skip(2);
    rows.map(|row| {
        let cells: Vec<_> = row.split('|').map(|cell| cell.replace('`', "").trim().to_owned()).collect();
        (cells[1].clone(), cells[2].clone())
    })
    .collect()
}

/// What `kubectl auth can-i --list` says of a namespace, without what every user may do: resource and verbs.
async fn rights(account: &Account, namespace: &str) -> BTreeMap<String, String> {
    let said =
        account.kubectl(&["auth", "can-i", "--list", "-n", namespace, "--no-headers"], "").await.unwrap();
    let mut rights = BTreeMap::<String, Vec<String>>::new();
    for line in said.lines() {
        let (Some((resource, _)), Some((_, verbs))) = (line.split_once(' '), line.rsplit_once('[')) else {
            continue;
        };
        if resource.is_empty()
            || resource.ends_with("reviews.authentication.k8s.io")
            || resource.ends_with("reviews.authorization.k8s.io")
            || resource == "clustertrustbundles.certificates.k8s.io"
        {
            continue; // paths of discovery, questions about oneself, and public certificates (Kubernetes 1.37)
        }
        let verbs = verbs.trim_end_matches(']').split(' ').map(str::to_owned);
        rights.entry(resource.to_owned()).or_default().extend(verbs);
    }
    let text = |mut verbs: Vec<String>| {
        verbs.sort();
        verbs.dedup();
        verbs.join(", ")
    };
    rights.into_iter().map(|(resource, verbs)| (resource, text(verbs))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn thief_has_exactly_the_documented_rights() {
    let (mut served, own) = (documented("served"), documented("own"));
    served.extend(documented("tokens"));
    let everything: BTreeMap<_, _> = served.clone().into_iter().chain(own.clone()).collect();
    let other = Scene::bare("thief-other").await.namespace;
    for (mode, issuers) in [
        ("all", false),
        ("all", true),
        ("namespaces", true),
        ("namespaceSelector", false),
        ("perNamespace", true),
    ] {
        let scene = Scene::bare("thief-rights").await;
        let namespace = &scene.namespace;
        let mut elsewhere = served.clone();
        let mut values = match mode {
            "namespaces" => {
                elsewhere.clear();
                json!({"namespaces": [namespace]})
            }
            "namespaceSelector" => {
                json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}})
            }
            "perNamespace" => {
                elsewhere = documented("unbound");
                json!({"rbac": {"mode": "perNamespace", "bind": [namespace]}})
            }
            _ => json!({}),
        };
        let allowed = json!([{"audience": "https://idp.example.com", "hosts": ["idp.example.com"]}]);
        // In namespaced mode it must name them.
        values["serviceAccountTokens"] = json!({"allowed": allowed, "names": ["payments"]});
        let mut selects: BTreeMap<_, _> =
            if mode == "namespaces" { BTreeMap::new() } else { documented("cluster") };
        if mode == "namespaceSelector" || (issuers && mode != "namespaces") {
            selects.extend(documented("selector"));
        }
        if issuers {
            values["issuers"] = json!({"enabled": true, "controller": namespace});
            selects.extend(documented("issuers"));
        }
        let account = thief(&scene, values).await;
        let with = |rights: &BTreeMap<String, String>| {
            rights.clone().into_iter().chain(selects.clone()).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(rights(&account, namespace).await, with(&everything), "{mode}: where it runs");
        assert_eq!(rights(&account, &other).await, with(&elsewhere), "{mode}: elsewhere");
        let mut of_default = elsewhere.clone();
        if issuers {
            of_default.extend(documented("issuers-default"));
        }
        assert_eq!(rights(&account, "default").await, with(&of_default), "{mode}: default");
        // What the policy leaves of the rights to change.
        let said = account
            .kubectl(
                &["-n", &other, "create", "--dry-run=server", "-f", "-"],
                &ours("a", json!({})).to_string(),
            )
            .await;
        match mode {
            "all" => drop(said.unwrap()),
            "namespaces" | "perNamespace" => {
                assert!(said.unwrap_err().contains("cannot create resource"), "{mode}")
            }
            _ => refused(&said, "does not serve the namespace").unwrap(),
        }
        if issuers && mode == "perNamespace" {
            // Where it runs, and does not serve.
            let binding = format!("tokensource-operator.{namespace}");
            scene.kubectl(&["delete", "rolebinding", &binding], "").await;
            let tables = ["unbound", "own", "issuers-own"].map(documented);
            let expected = with(&tables.into_iter().flatten().collect());
            eventually("the rights without the binding", SOON, async || {
                let rights = rights(&account, namespace).await;
                if rights == expected { Ok(()) } else { Err((rights, expected.clone())) }
            })
            .await;
        }
    }
}
