//! `kubectl tokensource` against a real control plane, found by kubectl itself, as users with the roles edit and view and
//! with none.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use serde_json::{Value, json};

use super::prompt::{environment, folder, pod};
use super::support::account::TestAccount;
use super::support::control_plane::ControlPlane;
use super::support::eventually;
use super::support::operator::Operator;
use super::support::process::kill;
use super::support::program::{PROGRAM, ProgramOutput, program, run};
use super::support::relay::Relay;
use super::support::scene::{SOON, Scene};

/// A folder of the PATH in which kubectl finds the plugin.
pub(super) struct Plugin {
    folder: tempfile::TempDir,
}

impl Plugin {
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["kubectl-tokensource", "kubectl_complete-tokensource"] {
            symlink(PROGRAM, folder.path().join(name)).unwrap();
        }
        Plugin { folder }
    }

    pub(super) fn program(&self) -> PathBuf {
        self.folder.path().join("kubectl-tokensource")
    }

    pub(super) fn path(&self) -> OsString {
        let mut path = self.folder.path().as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        path
    }

    /// Runs the plugin with its flags alone, without a kubeconfig in the environment.
    pub(super) async fn run(&self, kubeconfig: &Path, arguments: &[&str]) -> ProgramOutput {
        let mut command = Command::new(self.program());
        command.arg(arguments[0]).arg("--kubeconfig").arg(kubeconfig).args(&arguments[1..]);
        run(command, "").await
    }
}

/// A process that would not end by itself. Dropping it kills it.
pub(super) struct Background(Child);

impl Background {
    pub(super) fn start(command: &mut Command) -> Self {
        Background(command.spawn().unwrap_or_else(|error| panic!("{error}; is it in the PATH?")))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        kill(&mut self.0);
    }
}

pub(super) fn everything() -> PathBuf {
    ControlPlane::shared().kubeconfig_path()
}

/// Reads status until `source` has a token.
async fn has_token(scene: &Scene) {
    scene.ready("True TokenValid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plugin_shows_refreshes_suspends_and_resumes() {
    let scene = Scene::new("plugin", 300).await;
    let (plugin, namespace) = (Plugin::new(), scene.namespace.clone());
    let tokensource = async |arguments: &[&str]| plugin.run(&everything(), arguments).await;
    let said = tokensource(&["get", "-n", &namespace]).await;
    said.assert(0, &[&format!("No resources found in {namespace} namespace.")]);
    assert_eq!(said.stdout, "");

    scene.apply(scene.source(json!({"refresh": {"propagationDelay": "2s"}}))).await;
    let mut broken = scene.source(json!({"credentials": {"secretRef": {"name": "absent"}}}));
    broken["metadata"] = json!({"name": "broken", "labels": {"team": "a"}});
    broken["spec"]["target"]["name"] = "broken".into();
    scene.apply(broken).await;
    tokensource(&["get", "-n", &namespace]).await.assert(0, &["Unseen", "see that the operator runs"]);
    let unseen = tokensource(&["refresh", "-n", &namespace, "source", "--wait", "--timeout=1s"]).await;
    unseen.assert(2, &["no new token in time: see whether the operator runs"]);

    // The API server does not answer for a while, and the operator writes the token meanwhile.
    let relay = Relay::start(scene.client.clone()).await;
    let requested = async || {
        let source = scene.sources().get("source").await.unwrap();
        source.metadata.annotations.unwrap_or_default().remove("tokensource.dev/refresh-requested-at")
    };
    let before = requested().await;
    let kubeconfig = relay.kubeconfig_path();
    let flags = ["refresh", "-n", &namespace, "source", "--wait", "--request-timeout=1s"];
    let (refreshed, _operator) = tokio::join!(plugin.run(&kubeconfig, &flags), async {
        eventually("the token is requested", SOON, async || match requested().await {
            now if now != before => Ok(()),
            now => Err(now),
        })
        .await;
        relay.hold("/tokensources/source");
        let operator = Operator::start(&namespace).await;
        has_token(&scene).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        relay.release();
        operator
    });
    refreshed.assert(0, &["the API server does not answer", "source refreshed: token"]);
    scene.condition("broken", "Ready", "False CredentialsNotFound").await;
    // kubectl finds the plugin.
    let mut kubectl = Command::new(scene.control_plane.dir().join("bin/kubectl"));
    kubectl.args(["tokensource", "get", "-n", &namespace]).env("PATH", plugin.path());
    kubectl.env("KUBECONFIG", everything());
    let table = run(kubectl, "").await;
    table.assert(0, &["create the Secret, or the key, that the message names"]);
    let lines: Vec<_> = table.stdout.lines().collect();
    assert!(lines[0].starts_with("NAME     STATE      REASON"), "{table:?}");
    assert!(
        lines[1].starts_with("broken   NotReady   CredentialsNotFound   -"),
        "the most urgent first: {table:?}"
    );
    assert!(lines[2].starts_with("source   Valid      TokenValid"), "{table:?}");
    let names = tokensource(&["get", "-n", &namespace, "-l", "team=a", "-o", "name"]).await;
    assert_eq!(names.stdout, "tokensource.tokensource.dev/broken\n");
    let wide = tokensource(&["get", "-A", "-o", "wide"]).await;
    wide.assert(0, &["NAMESPACE", &namespace, "SECRET", "the operator sees it by itself"]);
    let list = tokensource(&["get", "-n", &namespace, "-o", "json"]).await;
    let list: Value = serde_json::from_str(&list.stdout).unwrap();
    assert_eq!((&list["kind"], list["items"].as_array().unwrap().len()), (&json!("List"), 2));
    let yaml = tokensource(&["get", "-n", &namespace, "tokensource/source", "-o", "yaml"]).await;
    let one: Value = serde_saphyr::from_str(&yaml.stdout).unwrap();
    assert_eq!((&one["kind"], &one["metadata"]["managedFields"]), (&json!("TokenSource"), &Value::Null));
    assert_eq!(one["spec"]["target"]["name"], "token");

    let before = scene.token().await;
    pod(&scene, "web", "Running", folder()).await;
    let refreshed = tokensource(&["refresh", "-n", &namespace, "source", "--wait", "--pods"]).await;
    refreshed
        .assert(0, &["source refresh requested", "source refreshed: token", "1 container has the new token"]);
    let token = scene.token().await;
    assert!(token != before && !refreshed.all().contains(&token.unwrap()));
    pod(&scene, "batch", "Running", environment()).await;
    let failed = tokensource(&["refresh", "-n", &namespace, "broken", "--wait", "--timeout=1s"]).await;
    failed.assert(2, &["broken: no new token in time: CredentialsNotFound: "]);

    let all = tokensource(&["explain", "-n", &namespace]).await;
    all.assert(
        2,
        &["/broken, provider vgs: there is no valid token", "/source, provider vgs: the token is valid"],
    );
    let all = tokensource(&["explain", "-n", &namespace, "broken", "source", "-o", "json"]).await;
    let all: Value = serde_json::from_str(&all.stdout).unwrap();
    assert_eq!((&all[0]["verdict"], &all[1]["verdict"]), (&json!("notValid"), &json!("attention")));

    // The operator's flags are those of its Deployment, but a Deployment is the operator's only where a cluster-scoped object
    // names its ServiceAccount. Other tests have installed others, for their namespaces or for all.
    let arguments =
        json!(["run", format!("--namespace={namespace}"), "--allow-http", "--egress-allow=127.0.0.0/8"]);
    let labels = json!({"app.kubernetes.io/part-of": "tokensource-operator"});
    let pods = json!({"metadata": {"labels": labels}, "spec": {"serviceAccountName": "o", "containers": [{"name": "operator", "image": "o", "args": arguments}]}});
    let spec = json!({"replicas": 0, "selector": {"matchLabels": labels}, "template": pods});
    scene
        .apply(json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "o", "labels": labels}, "spec": spec}))
        .await;
    let of_a_tenant = tokensource(&["mint", "-n", &namespace, "source"]).await.all();
    assert!(
        !of_a_tenant.contains(&format!("{namespace}/o")) && of_a_tenant.contains("http"),
        "{of_a_tenant}"
    );
    tokensource(&["mint", "-n", &namespace, "source", "--operator-namespace", &namespace])
        .await
        .assert(0, &[&format!("those of Deployment {namespace}/o, found by --operator-namespace, hold")]);
    // As the Operator Lifecycle Manager labels bindings, and as the chart does.
    let group = "rbac.authorization.k8s.io";
    let role = json!({"apiGroup": group, "kind": "ClusterRole", "name": "none"});
    let account = json!([{"kind": "ServiceAccount", "name": "o", "namespace": namespace}]);
    let of_lifecycle_manager =
        json!({"olm.owner": "tokensource-operator.v0.1.0", "olm.owner.kind": "ClusterServiceVersion"});
    for labels in [&of_lifecycle_manager, &labels] {
        scene.kubectl(&["delete", "clusterrolebinding", &namespace, "--ignore-not-found"], "").await;
        scene
            .apply(json!({"apiVersion": format!("{group}/v1"), "kind": "ClusterRoleBinding", "roleRef": role,
                "metadata": {"name": namespace, "labels": labels}, "subjects": account}))
            .await;
        let found_by =
            format!("those of Deployment {namespace}/o, found by ClusterRoleBinding {namespace}, hold");
        tokensource(&["mint", "-n", &namespace, "source"]).await.assert(0, &[&found_by]);
    }

    // A right may be that of the ServiceAccounts of a namespace.
    let rules = json!([{"apiGroups": ["tokensource.dev"], "resources": ["tokensources"], "verbs": ["get"]}]);
    let role = json!({"apiVersion": format!("{group}/v1"), "kind": "Role", "metadata": {"name": "group"}, "rules": rules});
    scene.apply(role).await;
    let of_group = format!("--group=system:serviceaccounts:{namespace}");
    scene.kubectl(&["create", "rolebinding", "group", "--role=group", &of_group], "").await;

    tokensource(&["check"]).await.assert(
        2,
        &[
            "ok       kubernetes  v1.",
            "ok       definition  TokenSources are known, with the schema of version",
            &format!("fail     operator    Deployment {namespace}/o is scaled to 0"),
            "no operator leads",
            &format!("fail     rights      the operator may not list tokensources in {namespace}; "),
            "ok       you         may get tokensources",
        ],
    );

    scene.kubectl(&["delete", "clusterrolebinding", &namespace], "").await;

    // kubectl asks the plugin what to complete.
    let completed = async |words: &[&str]| {
        let mut kubectl = Command::new(scene.control_plane.dir().join("bin/kubectl"));
        kubectl.args(["__complete", "tokensource"]).args(words).env("PATH", plugin.path());
        kubectl.env("KUBECONFIG", everything());
        run(kubectl, "").await.stdout
    };
    assert_eq!(completed(&["refresh", "-n", &namespace, ""]).await.lines().next(), Some("broken"));
    assert_eq!(
        completed(&["get", "-n", &namespace[..namespace.len() - 1]]).await.lines().next(),
        Some(&*namespace)
    );
    assert!(completed(&["sus"]).await.starts_with("suspend\t"));
    // The other shells: shells.rs.
    program(&["completion", "powershell"], "").await.assert(0, &["tokensource-operator", "COMPLETE"]);

    let nothing = tokensource(&["suspend", "-n", &namespace]).await;
    nothing.assert(1, &["name TokenSources, or select them by -l LABELS or --all"]);
    let dry_run = tokensource(&["suspend", "-n", &namespace, "--all", "--dry-run"]).await;
    dry_run.assert(0, &["tokensource.tokensource.dev/source suspended (server dry run)"]);
    tokensource(&["suspend", "-n", &namespace, "source"]).await.assert(0, &["source suspended\n"]);
    tokensource(&["suspend", "-n", &namespace, "--all"])
        .await
        .assert(0, &["source already suspended\n", "broken suspended\n"]);
    let suspended = tokensource(&["refresh", "-n", &namespace, "source", "--wait"]).await;
    suspended.assert(2, &["it is suspended, and the token is asked for after `resume`"]);
    tokensource(&["resume", "-n", &namespace, "-l", "team=a"]).await.assert(0, &["broken resumed\n"]);
    tokensource(&["resume", "-n", &namespace, "source", "absent"])
        .await
        .assert(1, &["source resumed\n", &format!("TokenSource {namespace}/absent does not exist")]);
    let spec = &scene.sources().get("source").await.unwrap().spec;
    assert_eq!(spec.suspend, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn plugin_that_watches_shows_the_list_and_then_each_change() {
    let scene = Scene::new("plugin-watch", 300).await;
    let _operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    scene.ready("True TokenValid").await;
    let (plugin, files) = (Plugin::new(), tempfile::tempdir().unwrap());
    let watch = |name: &str, flags: &[&str]| {
        let shown = files.path().join(name);
        let mut command = Command::new(plugin.program());
        command.args(["get", "-w", "-n", &scene.namespace]).args(flags).env("KUBECONFIG", everything());
        command.stdout(File::create(&shown).unwrap());
        (Background::start(&mut command), shown)
    };
    let (_table, table) = watch("table", &[]);
    let (_documents, documents) = watch("documents", &["-o", "yaml"]);
    let shows = async |file: &Path, words: &str, times: usize| {
        eventually(&format!("{times} times {words:?}"), SOON, async || {
            let shown = fs::read_to_string(file).unwrap();
            if shown.matches(words).count() >= times { Ok(()) } else { Err(shown) }
        })
        .await;
    };
    shows(&table, "\nsource ", 1).await;
    shows(&documents, "kind: List", 1).await;
    scene.force_refresh("watched").await;
    shows(&table, "\nsource ", 2).await;
    shows(&documents, "watched", 1).await;
    shows(&documents, "\n---\n", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plugin_says_in_a_sentence_what_the_role_does_not_permit() {
    let scene = Scene::new("plugin-roles", 300).await;
    scene.apply(scene.source(json!({}))).await;
    let (plugin, namespace) = (Plugin::new(), scene.namespace.as_str());
    let account = TestAccount::new(&scene, "person").await;
    let kubeconfig = account.kubeconfig();
    let tokensource = async |arguments: &[&str]| plugin.run(&kubeconfig, arguments).await;
    let is_one_sentence = |said: &ProgramOutput, words: &str| {
        said.assert(1, &[words]);
        assert_eq!((said.stdout.as_str(), said.stderr.lines().count()), ("", 1), "{said:?}");
    };
    // Nothing.
    let said = tokensource(&["get", "-n", namespace]).await;
    is_one_sentence(&said, "TokenSources cannot be listed: tokensources.tokensource.dev is forbidden: User");
    let said = tokensource(&["get", "-A"]).await;
    is_one_sentence(&said, "at the cluster scope");
    for command in ["get", "explain", "refresh", "suspend", "resume"] {
        let said = tokensource(&[command, "-n", namespace, "source"]).await;
        is_one_sentence(&said, "source cannot be read: tokensources.tokensource.dev \"source\" is forbidden");
    }
    tokensource(&["mint", "-n", namespace, "source"]).await.assert(
        1,
        &[
            "source cannot be read",
            "where the operator is cannot be read (clusterrolebindings.rbac.authorization.k8s.io is",
        ],
    );
    tokensource(&["check", "-n", namespace]).await.assert(
        3,
        &[
            "unknown  definition",
            "unknown  operator    where the operator is cannot be read",
            "unknown  policies",
        ],
    );
    // What the chart adds to the role view.
    let group = json!(["tokensource.dev"]);
    let view = json!({"apiGroups": group, "resources": ["tokensources", "tokensources/status"], "verbs": ["get", "list", "watch"]});
    account.may(json!([view])).await;
    tokensource(&["get", "-n", namespace]).await.assert(0, &["source", "Unseen"]);
    let can_be_listed = format!("ok       definition  TokenSources of {namespace} can be listed");
    tokensource(&["check", "-n", namespace]).await.assert(3, &[&can_be_listed]);
    for command in ["refresh", "suspend"] {
        let said = tokensource(&[command, "-n", namespace, "source"]).await;
        is_one_sentence(
            &said,
            "source cannot be changed: tokensources.tokensource.dev \"source\" is forbidden",
        );
    }
    // What it adds to the role edit.
    let edit = json!({"apiGroups": group, "resources": ["tokensources"], "verbs": ["patch"]});
    account.may(json!([edit, view])).await;
    eventually("the right to patch", SOON, async || {
        let said = tokensource(&["suspend", "-n", namespace, "source"]).await;
        if said.code == 0 { Ok(()) } else { Err(said) }
    })
    .await;
    tokensource(&["refresh", "-n", namespace, "source"]).await.assert(0, &["source refresh requested"]);
    tokensource(&["resume", "-n", namespace, "--all"]).await.assert(0, &["source resumed\n"]);

    pod(&scene, "web", "Running", folder()).await;
    let pods = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]});
    account.may(json!([pods, edit, view])).await;
    tokensource(&["explain", "-n", namespace]).await.assert(
        2,
        &["where the operator is cannot be read (", "so 90 s are taken for its --default-propagation-delay"],
    );

    // kubectl's flags.
    let user = format!("--as=system:serviceaccount:{namespace}:person");
    plugin.run(&everything(), &["get", "-n", namespace, &user]).await.assert(0, &["source"]);
    plugin.run(&everything(), &["get", "-A", &user]).await.assert(1, &["at the cluster scope"]);
    let of_masters = ["get", "-A", &user, "--as-group=system:masters"];
    plugin.run(&everything(), &of_masters).await.assert(0, &["source"]);
    plugin.run(&everything(), &["get", "--context=absent"]).await.assert(1, &["absent"]);
    plugin.run(&everything(), &["get", "-n", namespace, "--request-timeout=1"]).await.assert(0, &["source"]);
}
