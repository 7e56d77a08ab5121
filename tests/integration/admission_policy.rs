//! The chart's ValidatingAdmissionPolicy refuses changes of the operator's ServiceAccount that its roles would allow.

use serde_json::{Value, json};

use super::support::chart::{Account, RELEASE, install};
use super::support::eventually;
use super::support::scene::{SOON, Scene};

const OURS: (&str, &str) = ("app.kubernetes.io/managed-by", "tokensource-operator");

/// Installs a release with the admission policy in the scene's namespace; its ServiceAccount is cluster-admin.
pub(super) async fn cluster_admin(scene: &Scene, prompt: bool) -> Account {
    let namespace = &scene.namespace;
    let values = json!({
        "crds": {"enabled": false},
        "namespaces": [namespace],
        "promptPropagation": {"enabled": prompt},
    });
    install(namespace, values).await;
    let subject = format!("--serviceaccount={namespace}:{RELEASE}");
    scene
        .kubectl(
            &[
                "create",
                "clusterrolebinding",
                &format!("cluster-admin-{namespace}"),
                "--clusterrole=cluster-admin",
                &subject,
            ],
            "",
        )
        .await;
    let account = Account::of(namespace).await;
    eventually("the admission policy and the role take effect", SOON, async || {
        let said = act(scene, &account, &["create", "configmap", "any", "--dry-run=server"], "").await;
        refused(&said, "may not perform configmaps CREATE")
    })
    .await;
    account
}

pub(super) async fn act(
    scene: &Scene,
    account: &Account,
    arguments: &[&str],
    stdin: &str,
) -> Result<String, String> {
    account.kubectl(&[&["-n", &scene.namespace], arguments].concat(), stdin).await
}

/// Checks that the admission policy refused the request with a message that contains `words`.
pub(super) fn refused(said: &Result<String, String>, words: &str) -> Result<(), String> {
    match said {
        Err(said) if said.contains("ValidatingAdmissionPolicy") && said.contains(words) => Ok(()),
        other => Err(format!("{words:?}: {other:?}")),
    }
}

pub(super) fn secret(name: &str, kind: &str, label: bool) -> Value {
    let labels = if label { json!({OURS.0: OURS.1}) } else { json!({}) };
    let metadata = json!({"name": name, "labels": labels});
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "data": {"a": "Yg=="}})
}

/// Applies a manifest with the operator's field manager.
pub(super) async fn apply(scene: &Scene, account: &Account, manifest: &Value) -> Result<String, String> {
    let apply =
        ["apply", "--server-side", "--force-conflicts", "--field-manager", "tokensource-operator", "-f", "-"];
    act(scene, account, &apply, &manifest.to_string()).await
}

const POD: &str = r#"{
    "apiVersion": "v1", "kind": "Pod",
    "metadata": {"name": "pod", "labels": {"a": "b"}, "annotations": {"theirs": "kept"}},
    "spec": {"containers": [{"name": "c", "image": "image"}]}
}"#;

#[tokio::test(flavor = "multi_thread")]
async fn foreign_secret_change_is_refused() {
    let scene = Scene::bare("policy-secrets").await;
    let account = cluster_admin(&scene, false).await;
    let foreign = "did not create";

    // Create and update of a Secret of the operator.
    apply(&scene, &account, &secret("ours", "Opaque", true)).await.unwrap();
    apply(&scene, &account, &secret("ours", "Opaque", true)).await.unwrap();
    // The label was removed; the record still marks the Secret.
    let record = json!({"metadata": {"annotations": {"tokensource.dev/record": "{}"}}});
    scene.patch("secret", "ours", record).await;
    scene.kubectl(&["label", "secret", "ours", &format!("{}-", OURS.0)], "").await;
    apply(&scene, &account, &secret("ours", "Opaque", true)).await.unwrap();

    scene.secret("theirs", &[("a", "b")]).await;
    let said = apply(&scene, &account, &secret("theirs", "Opaque", true)).await;
    refused(&said, foreign).unwrap();
    for arguments in [
        &["delete", "secret", "theirs"][..],
        &["label", "secret", "theirs", "app.kubernetes.io/managed-by=tokensource-operator"],
        &["annotate", "secret", "theirs", "tokensource.dev/adopt=source"],
        &["patch", "secret", "theirs", "--type=json", "-p", r#"[{"op": "remove", "path": "/data"}]"#],
    ] {
        refused(&act(&scene, &account, arguments, "").await, foreign).unwrap();
    }
    // deletecollection.
    let all = format!("/api/v1/namespaces/{}/secrets", scene.namespace);
    refused(&account.kubectl(&["delete", "--raw", &all], "").await, foreign).unwrap();
    assert_eq!(scene.value("theirs", "a").await.as_deref(), Some("b"));

    // After it was handed over, the operator may change and delete it.
    scene.kubectl(&["annotate", "secret", "theirs", "tokensource.dev/adopt=source"], "").await;
    apply(&scene, &account, &secret("theirs", "Opaque", true)).await.unwrap();
    act(&scene, &account, &["delete", "secret", "theirs"], "").await.unwrap();
    act(&scene, &account, &["delete", "secret", "ours", "--ignore-not-found"], "").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn reserved_secret_type_is_refused() {
    let scene = Scene::bare("policy-types").await;
    let account = cluster_admin(&scene, false).await;
    for kind in [
        "Opaque",
        "kubernetes.io/dockerconfigjson",
        "kubernetes.io/dockercfg",
        "kubernetes.io/basic-auth",
        "example.com/token",
    ] {
        let name = kind.to_lowercase().replace('/', "-");
        let mut manifest = secret(&name, kind, true);
        let data = json!({".dockerconfigjson": "e30=", ".dockercfg": "e30=", "username": "Yg=="});
        manifest["data"] = data;
        apply(&scene, &account, &manifest).await.unwrap();
    }
    for kind in [
        "kubernetes.io/service-account-token",
        "kubernetes.io/tls",
        "kubernetes.io/ssh-auth",
        "bootstrap.kubernetes.io/token",
        "helm.sh/release.v1",
        "anything.k8s.io/x",
    ] {
        let mut manifest = secret("never", kind, true);
        manifest["metadata"]["annotations"] = json!({"kubernetes.io/service-account.name": "default"});
        manifest["data"] = json!({"tls.crt": "", "tls.key": "", "ssh-privatekey": "Yg=="});
        let said = apply(&scene, &account, &manifest).await;
        refused(&said, &format!("may not write a Secret of type {kind}")).unwrap();
    }
    let of_argo_cd = |kind: &str| {
        let mut manifest = secret(&format!("argo-cd-{kind}"), "Opaque", true);
        manifest["metadata"]["labels"]["argocd.argoproj.io/secret-type"] = json!(kind);
        manifest
    };
    apply(&scene, &account, &of_argo_cd("repository")).await.unwrap();
    apply(&scene, &account, &of_argo_cd("repo-creds")).await.unwrap();
    let said = apply(&scene, &account, &of_argo_cd("cluster")).await;
    refused(&said, "may not set the label argocd.argoproj.io/secret-type=cluster").unwrap();
    let said = apply(&scene, &account, &secret("unlabelled", "Opaque", false)).await;
    refused(&said, "must have the label app.kubernetes.io/managed-by=tokensource-operator").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pod_change_is_limited_to_the_refreshed_annotation() {
    let scene = Scene::bare("policy-pods").await;
    let account = cluster_admin(&scene, true).await;
    scene.kubectl(&["create", "-f", "-"], POD).await;
    for value in ["one", "two"] {
        let touch = format!("tokensource.dev/refreshed={value}");
        act(&scene, &account, &["annotate", "pod", "pod", "--overwrite", &touch], "").await.unwrap();
    }
    for arguments in [
        &["annotate", "pod", "pod", "other=value"][..],
        &["annotate", "pod", "pod", "theirs=changed", "--overwrite"],
        &["annotate", "pod", "pod", "theirs-"],
        &["label", "pod", "pod", "other=value"],
        &["label", "pod", "pod", "a-"],
        &["set", "image", "pod/pod", "c=evil"],
        &["patch", "pod", "pod", "-p", r#"{"spec": {"activeDeadlineSeconds": 1}}"#],
    ] {
        let said = act(&scene, &account, arguments, "").await;
        refused(&said, "tokensource.dev/refreshed of a pod and nothing else").unwrap();
    }
    let finalizer = r#"{"metadata": {"finalizers": ["example.com/never"]}}"#;
    let said = act(&scene, &account, &["patch", "pod", "pod", "-p", finalizer], "").await;
    refused(&said, "may not change finalizers").unwrap();

    let scene = Scene::bare("policy-no-pods").await;
    let account = cluster_admin(&scene, false).await;
    scene.kubectl(&["create", "-f", "-"], POD).await;
    let said = act(&scene, &account, &["annotate", "pod", "pod", "tokensource.dev/refreshed=1"], "").await;
    refused(&said, "may not perform pods UPDATE").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn other_change_is_refused() {
    let scene = Scene::new("policy-others", 600).await;
    let account = cluster_admin(&scene, true).await;
    scene.apply(scene.source(json!({"suspend": true}))).await;
    scene.kubectl(&["create", "-f", "-"], POD).await;
    scene.kubectl(&["create", "configmap", "theirs"], "").await;

    let status = ["patch", "tokensource", "source", "--subresource=status", "--type=merge", "-p"];
    act(&scene, &account, &[&status[..], &[r#"{"status": {"observedGeneration": 1}}"#]].concat(), "")
        .await
        .unwrap();
    let binding = ["create", "clusterrolebinding", "evil", "--clusterrole=cluster-admin", "--user=evil"];
    for (arguments, words) in [
        (&["annotate", "tokensource", "source", "a=b"][..], "tokensources.tokensource.dev UPDATE"),
        (&["delete", "tokensource", "source"], "tokensources.tokensource.dev DELETE"),
        (&["delete", "configmap", "theirs"], "configmaps DELETE"),
        (&["delete", "pod", "pod"], "pods DELETE"),
        (&["run", "evil", "--image=evil"], "pods CREATE"),
        (&["exec", "pod", "--", "sh"], "pods/exec CONNECT"),
        (&["debug", "pod", "--image=evil", "--attach=false"], "pods/ephemeralcontainers UPDATE"),
        (&["create", "token", "default"], "serviceaccounts/token CREATE"),
        (&["create", "serviceaccount", "evil"], "serviceaccounts CREATE"),
        (&["create", "deployment", "evil", "--image=evil"], "deployments.apps CREATE"),
        (
            &["create", "role", "evil", "--verb=get", "--resource=secrets"],
            "roles.rbac.authorization.k8s.io CREATE",
        ),
        (&binding, "clusterrolebindings.rbac.authorization.k8s.io CREATE"),
        (&["create", "namespace", "evil"], "namespaces CREATE"),
        (&["delete", "namespace", &scene.namespace], "namespaces DELETE"),
        (
            &["delete", "customresourcedefinition", "tokensources.tokensource.dev"],
            "customresourcedefinitions.apiextensions.k8s.io DELETE",
        ),
    ] {
        refused(&act(&scene, &account, arguments, "").await, words).unwrap();
    }
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "said"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal", "reason": "TokenValid", "action": "Refresh",
        "reportingController": "tokensource.dev/tokensource-operator", "reportingInstance": "b",
        "regarding": {"apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource", "namespace": scene.namespace, "name": "source"},
    });
    act(&scene, &account, &["create", "-f", "-"], &event.to_string()).await.unwrap();
    // Only the operator's own Lease.
    let lease = |name: &str| {
        let metadata = json!({"name": name});
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": {}})
            .to_string()
    };
    scene.kubectl(&["create", "-f", "-"], &lease("theirs")).await;
    act(&scene, &account, &["create", "-f", "-"], &lease("tokensource-operator")).await.unwrap();
    act(&scene, &account, &["annotate", "lease", "tokensource-operator", "a=b"], "").await.unwrap();
    let said = act(&scene, &account, &["create", "-f", "-"], &lease("other")).await;
    refused(&said, "its own Lease only").unwrap();
    let said = act(&scene, &account, &["annotate", "lease", "theirs", "a=b"], "").await;
    refused(&said, "its own Lease only").unwrap();
    // Other users are not affected.
    scene.kubectl(&["annotate", "tokensource", "source", "a=b"], "").await;
}
