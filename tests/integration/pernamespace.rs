//! Rights by namespace: the operator under the chart's own roles, with and without the RoleBinding of a namespace.

use std::process::Command;

use serde_json::{Value, json};

use super::rotation::{refreshed, request_refresh};
use super::support::chart::{Account, RELEASE, find, install, objects, render};
use super::support::control_plane::ControlPlane;
use super::support::eventually;
use super::support::operator::Operator;
use super::support::program::{PROGRAM, run};
use super::support::scene::{SOON, Scene};

/// The chart's values for these namespaces alone: others belong to other tests.
pub(super) fn values(served: &[&str], bind: &[&str]) -> Value {
    let these = json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": served});
    json!({
        "crds": {"enabled": false},
        "rbac": {"mode": "perNamespace", "bind": bind},
        "namespaceSelector": {"matchExpressions": [these]},
        "allowHTTP": true,
        "egress": {"allow": ["127.0.0.0/8"]},
        "log": {"format": "text"},
    })
}

/// Starts the operator with the arguments of the chart.
pub(super) async fn start(release: &str, values: &Value, account: &Account) -> Operator {
    let rendered = render(release, values);
    let container =
        &find(&rendered, "Deployment", RELEASE)["spec"]["template"]["spec"]["containers"][0]["args"];
    let arguments = container.as_array().unwrap().iter().map(|it| it.as_str().unwrap());
    let arguments = arguments
        .filter(|it| !["--admin-address", "--probe-socket", "--log-"].iter().any(|of| it.starts_with(of)));
    // A tenth of what it is, and so are the waits that follow from it: `plan.rs` tests those.
    let here =
        ["--admin-address=127.0.0.1:0", "--namespace-interval=6s", "--leader-election-namespace", release];
    let arguments: Vec<_> = arguments.chain(here).collect();
    Operator::launch(&account.kubeconfig(), "replica", &arguments).await
}

/// Runs the command of a condition with the rights of a user who has the role admin in the namespace.
pub(super) async fn as_admin(scene: &Scene, command: &str) {
    let user = format!("owner-of-{}", scene.namespace);
    scene.kubectl(&["create", "rolebinding", "owner", "--clusterrole=admin", "--user", &user], "").await;
    let arguments: Vec<_> = command.strip_prefix("kubectl ").unwrap().split(' ').collect();
    eventually("the owner may bind the role", SOON, async || {
        scene.try_kubectl(&[&["--as", &user], &arguments[..]].concat(), "").await
    })
    .await;
    // Not another role.
    let other = ["--as", &user, "create", "rolebinding", "other", "--clusterrole=cluster-admin", "--user=a"];
    assert!(
        scene.try_kubectl(&other, "").await.unwrap_err().contains("attempting to grant RBAC permissions")
    );
}

/// The command that the condition prints.
pub(super) fn command(message: &str) -> &str {
    message.split('`').nth(1).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn namespace_is_served_from_its_binding_on_until_that_is_gone() {
    let release = Scene::bare("pernamespace").await.namespace;
    let (bound, other) = (Scene::new("bound", 3600).await, Scene::new("opened", 3600).await);
    let values = values(&[&bound.namespace, &other.namespace], &[&bound.namespace]);
    install(&release, values.clone()).await;
    let account = Account::of(&release).await;
    let sources = ["auth", "can-i", "list", "tokensources.tokensource.dev", "-A"];
    eventually("the roles take effect", SOON, async || account.kubectl(&sources, "").await).await;
    bound.apply(bound.source(json!({}))).await;
    other.apply(other.source(json!({}))).await;
    let operator = start(&release, &values, &account).await;

    // One namespace without a binding stops no other.
    bound.ready("True TokenValid").await;
    assert_eq!(operator.admin("/readyz").await.0, 200);
    let message = other.ready("False NamespaceNotOpened").await;
    assert_eq!(other.mints().await, 0);
    let reports = || {
        let lines = ControlPlane::shared().audit(&other.namespace);
        let of_status = |subresource: &str| subresource == "status";
        lines.iter().filter(|it| it.user == account.user && of_status(&it.subresource)).count()
    };
    eventually("the namespace is read again", SOON, async || {
        let lines = ControlPlane::shared().audit(&other.namespace);
        let lists =
            lines.iter().filter(|it| it.user == account.user && it.verb == "list" && it.code == 403).count();
        if lists > 2 { Ok(()) } else { Err(lists) }
    })
    .await;
    assert_eq!(reports(), 1, "it is said once");
    // The alert about the API server pages for refused lists.
    let metrics = operator.admin("/metrics").await.2;
    let lists = |code: &str| {
        let labels = format!("verb=\"list\",resource=\"secrets\",code=\"{code}\"");
        metrics.lines().filter(|line| line.contains(&labels)).count()
    };
    assert_eq!((lists("200"), lists("403")), (1, 0), "{metrics}");

    as_admin(&other, command(&message)).await;
    other.ready("True TokenValid").await;
    assert_eq!(other.mints().await, 1);

    other.kubectl(&["delete", "rolebinding", "tokensource-operator"], "").await;
    // A refused call has the namespace read at once; otherwise that is within a minute.
    request_refresh(&other, "1").await;
    other.ready("False NamespaceNotOpened").await;
    assert_eq!(other.mints().await, 1, "its credentials may not be read");
    let before = bound.token().await;
    request_refresh(&bound, "1").await;
    bound.new_token(before.as_deref()).await;

    // As before a switch of modes.
    let mut printing = Command::new(PROGRAM);
    let role = format!("tokensource-operator.{release}-served");
    let of = format!("{release}:tokensource-operator");
    printing.args(["bindings", "--served-role", &role, "--service-account", &of]);
    printing.env("KUBECONFIG", ControlPlane::shared().kubeconfig_path());
    let printed = run(printing, "").await;
    assert_eq!(printed.code, 0, "{}", printed.all());
    let printed = objects(&printed.stdout);
    for scene in [&bound, &other] {
        let binding = printed.iter().find(|it| it["metadata"]["namespace"] == scene.namespace.as_str());
        scene.apply(binding.unwrap().clone()).await;
    }
    other.ready("True TokenValid").await;
    assert_eq!(other.mints().await, 2, "the refresh that was requested");
}

/// Another release may serve a namespace for a while.
#[tokio::test(flavor = "multi_thread")]
async fn namespace_that_is_selected_again_is_read_before_a_token_is_requested() {
    let release = Scene::bare("reselected").await.namespace;
    let scene = Scene::new("lent", 3600).await;
    let mut values = values(&[&scene.namespace], &[&scene.namespace]);
    let rules = values["namespaceSelector"]["matchExpressions"].as_array_mut().unwrap();
    rules.push(json!({"key": "served-by", "operator": "DoesNotExist"}));
    install(&release, values.clone()).await;
    let account = Account::of(&release).await;
    let sources = ["auth", "can-i", "list", "tokensources.tokensource.dev", "-A"];
    eventually("the roles take effect", SOON, async || account.kubectl(&sources, "").await).await;
    scene.apply(scene.source(json!({}))).await;
    let operator = start(&release, &values, &account).await;
    scene.ready("True TokenValid").await;

    scene.kubectl(&["label", "namespace", &scene.namespace, "served-by=other"], "").await;
    let is_served = async || operator.admin("/metrics").await.2.contains("tokensource_ready{");
    eventually("it is let go", SOON, async || if is_served().await { Err(()) } else { Ok(()) }).await;
    let other = Operator::start(&scene.namespace).await;
    refreshed(&scene, "1").await;
    other.kill();
    assert_eq!(scene.mints().await, 2);

    scene.kubectl(&["label", "namespace", &scene.namespace, "served-by-"], "").await;
    eventually("it is served again", SOON, async || if is_served().await { Ok(()) } else { Err(()) }).await;
    refreshed(&scene, "2").await;
    assert_eq!(scene.mints().await, 3);
}
