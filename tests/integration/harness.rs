//! The test harness: the control plane works as the other tests need it, leaves nothing behind, and no wait is unlimited.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, ObjectMeta, PostParams};
use kube::{Client, Config};

use crate::support::control_plane::{ControlPlane, SCRIPT};
use crate::support::eventually;
use crate::support::process::{
    RUN_LIMIT, Sigint, end_within, first_line, kill, output_within, signal, wait_within, with_sigint,
};
use crate::support::program::text;
use crate::support::scene::COLLECTED;

const SOON: Duration = Duration::from_secs(30);

fn named(name: &str) -> ObjectMeta {
    ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() }
}

/// Succeeds when the object is gone.
async fn gone<K>(api: &Api<K>, name: &str) -> Result<(), String>
where
    K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    match api.get_opt(name).await {
        Ok(None) => Ok(()),
        Ok(Some(_)) => Err("still there".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[tokio::test]
async fn control_plane_collects_garbage() {
    let control_plane = ControlPlane::shared();
    let namespace = control_plane.namespace("garbage").await;
    let client = control_plane.client().await;
    let owners: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
    let dependents: Api<Secret> = Api::namespaced(client, &namespace);

    let owner = ConfigMap { metadata: named("owner"), ..ConfigMap::default() };
    let owner = owners.create(&PostParams::default(), &owner).await.unwrap();
    let mut dependent = Secret { metadata: named("dependent"), ..Secret::default() };
    dependent.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "ConfigMap".to_owned(),
        name: "owner".to_owned(),
        uid: owner.metadata.uid.unwrap(),
        ..OwnerReference::default()
    }]);
    dependents.create(&PostParams::default(), &dependent).await.unwrap();

    owners.delete("owner", &DeleteParams::background()).await.unwrap();
    eventually("the Secret is collected with its owner", COLLECTED, async || {
        gone(&dependents, "dependent").await
    })
    .await;
}

#[tokio::test]
async fn control_plane_deletes_namespaces() {
    let control_plane = ControlPlane::shared();
    let namespace = control_plane.namespace("deleted").await;
    let client = control_plane.client().await;
    let secret = Secret { metadata: named("content"), ..Secret::default() };
    Api::namespaced(client.clone(), &namespace).create(&PostParams::default(), &secret).await.unwrap();

    let namespaces: Api<Namespace> = Api::all(client);
    namespaces.delete(&namespace, &DeleteParams::default()).await.unwrap();
    eventually("the namespace is deleted with its content", COLLECTED, async || {
        gone(&namespaces, &namespace).await
    })
    .await;
}

#[tokio::test]
async fn control_plane_enforces_rbac_for_service_accounts() {
    let control_plane = ControlPlane::shared();
    let namespace = control_plane.namespace("rbac").await;
    let accounts: Api<ServiceAccount> = Api::namespaced(control_plane.client().await, &namespace);
    let request = TokenRequest {
        spec: TokenRequestSpec { audiences: Vec::new(), ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let answer = accounts.create_token_request("default", &PostParams::default(), &request).await.unwrap();

    let kubeconfig = kube::config::Kubeconfig::read_from(control_plane.kubeconfig_path()).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
    config.proxy_url = None;
    config.auth_info.token = Some(answer.status.unwrap().token.into());
    let secrets: Api<Secret> = Api::namespaced(Client::try_from(config).unwrap(), &namespace);
    let code = async || match secrets.list(&Default::default()).await {
        Ok(_) => 200,
        Err(kube::Error::Api(status)) => status.code,
        Err(error) => panic!("{error}"),
    };
    assert_eq!(code().await, 403);

    let account = format!("--serviceaccount={namespace}:default");
    let grant = ["create", "rolebinding", "granted", "-n", &namespace, "--clusterrole=admin", &account];
    let output = control_plane.kubectl(&grant, "").await;
    assert!(output.status.success(), "{output:?}");
    eventually("the grant takes effect", SOON, async || match code().await {
        200 => Ok(()),
        other => Err(other),
    })
    .await;
}

#[tokio::test]
async fn audit_log_has_user_agent_and_resource_of_each_request() {
    let control_plane = ControlPlane::shared();
    let namespace = control_plane.namespace("audit").await;
    let yaml = "{apiVersion: v1, kind: ConfigMap, metadata: {name: asked-for}}";
    let output = control_plane.kubectl(&["create", "-n", &namespace, "-f", "-"], yaml).await;
    assert!(output.status.success(), "{output:?}");

    let lines = control_plane.audit(&namespace);
    let [line] = lines.iter().filter(|line| line.name == "asked-for").collect::<Vec<_>>()[..] else {
        panic!("one request, one line: {lines:?}")
    };
    assert_eq!((line.verb.as_str(), line.resource.as_str(), line.code), ("create", "configmaps", 201));
    assert!(line.user_agent.starts_with("kubectl/v1."), "{line:?}");
    assert!(!lines.iter().any(|line| line.user_agent.contains("kube-controller-manager")), "{lines:?}");
}

// ------------------------------------------------------------------------------------------ nothing is left behind

/// The process ids that the script has written in `dir`.
fn pids(dir: &Path) -> Vec<String> {
    let files = fs::read_dir(dir.join("pids")).into_iter().flatten();
    let listed = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    listed.map(|pid| pid.trim().to_owned()).filter(|pid| !pid.is_empty()).collect()
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < RUN_LIMIT, "{what}: not within {RUN_LIMIT:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn assert_all_vanish(pids: &[String]) {
    assert!(!pids.is_empty());
    for pid in pids {
        wait_until(&format!("process {pid} vanishes"), || !signal("0", pid));
    }
}

fn await_ready(supervisor: &mut Child) {
    let line = first_line(supervisor.stdout.take().unwrap(), RUN_LIMIT).expect("READY in time");
    assert!(line.starts_with("READY "), "{line}");
}

/// The script's `run`, with its temporary directory below `tmp`; the caller holds its stdin.
fn supervisor(tmp: &Path, sigint: Sigint) -> Command {
    let mut command = with_sigint(sigint, SCRIPT);
    command.args(["run", "--until-stdin-closes"]).env("TMPDIR", tmp);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
    command
}

/// The one directory that the script has made below `tmp`.
fn made_below(tmp: &Path) -> Option<std::path::PathBuf> {
    fs::read_dir(tmp).unwrap().map(|entry| entry.unwrap().path()).next()
}

#[test]
fn control_plane_of_killed_test_process_leaves_nothing_behind() {
    let tmp = tempfile::tempdir().unwrap();
    // Instead of the test process: a process that holds the pipe and is killed without cleanup.
    let mut holder = Command::new("sleep").arg("600").stdout(Stdio::piped()).spawn().unwrap();
    let mut child = supervisor(tmp.path(), Sigint::Default);
    let mut child = child.stdin(holder.stdout.take().unwrap()).spawn().unwrap();
    await_ready(&mut child);
    let pids = pids(&made_below(tmp.path()).unwrap());
    assert_eq!(pids.len(), 3, "etcd, kube-apiserver and kube-controller-manager");

    kill(&mut holder);
    wait_within(&mut child, "the control plane's script", SOON);
    assert_all_vanish(&pids);
    assert_eq!(made_below(tmp.path()), None);
}

/// Sends this signal to the script while it starts; its stdin stays open.
fn assert_signalled_start_leaves_nothing_behind(tmp: &Path, mut child: Child, name: &str, code: i32) {
    wait_until("kube-apiserver was started", || made_below(tmp).is_some_and(|dir| pids(&dir).len() == 2));
    let pids = pids(&made_below(tmp).unwrap());
    assert!(signal(name, &child.id().to_string()));
    let status = wait_within(&mut child, &format!("the control plane's script after SIG{name}"), SOON);
    assert_eq!(status.code(), Some(code));
    assert_all_vanish(&pids);
    assert_eq!(made_below(tmp), None);
}

#[test]
fn control_plane_interrupted_start_leaves_nothing_behind() {
    let tmp = tempfile::tempdir().unwrap();
    let child = supervisor(tmp.path(), Sigint::Default).spawn().unwrap();
    assert_signalled_start_leaves_nothing_behind(tmp.path(), child, "INT", 130);
}

#[test]
fn control_plane_start_ignoring_sigint_ends_on_sigterm_and_leaves_nothing_behind() {
    let tmp = tempfile::tempdir().unwrap();
    let mut child = supervisor(tmp.path(), Sigint::Ignored).spawn().unwrap();
    wait_until("the script has set its traps", || made_below(tmp.path()).is_some());
    assert!(signal("INT", &child.id().to_string()));
    assert_eq!(end_within(&mut child, Duration::from_secs(1)), None, "SIGINT is ignored");
    assert_signalled_start_leaves_nothing_behind(tmp.path(), child, "TERM", 143);
}

#[test]
fn control_plane_failed_start_prints_cause_and_leaves_nothing_behind() {
    let tmp = tempfile::tempdir().unwrap();
    let assets = tempfile::tempdir().unwrap();
    let broken = assets.path().join("kube-apiserver");
    fs::write(&broken, "#!/bin/sh\necho the reason why\nexit 3\n").unwrap();
    fs::set_permissions(&broken, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let stderr = assets.path().join("stderr");
    let mut child = supervisor(tmp.path(), Sigint::Default);
    let mut child = child
        .env("KUBEBUILDER_ASSETS", assets.path())
        .stderr(fs::File::create(&stderr).unwrap())
        .spawn()
        .unwrap();
    wait_until("etcd was started", || made_below(tmp.path()).is_some_and(|dir| !pids(&dir).is_empty()));
    let pids = pids(&made_below(tmp.path()).unwrap());

    let status = wait_within(&mut child, "the control plane's script", RUN_LIMIT);
    let words = fs::read_to_string(&stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{words}");
    assert!(words.contains("the reason why") && words.contains("kube-apiserver did not start"), "{words}");
    assert_all_vanish(&pids);
    assert_eq!(made_below(tmp.path()), None);
}

#[test]
fn control_plane_of_another_version_than_requested_fails_and_names_both() {
    let tmp = tempfile::tempdir().unwrap();
    let assets = tempfile::tempdir().unwrap();
    let stderr = assets.path().join("stderr");
    let bin = ControlPlane::shared().dir().join("bin");
    for name in ["kube-apiserver", "kube-controller-manager"] {
        std::os::unix::fs::symlink(bin.join(name), assets.path().join(name)).unwrap();
    }
    let another = if std::env::var("KUBERNETES").as_deref() == Ok("1.31") { "1.32" } else { "1.31" };
    let mut child = supervisor(tmp.path(), Sigint::Default);
    let mut child = child
        .env("KUBEBUILDER_ASSETS", assets.path())
        .env("KUBERNETES", another)
        .stderr(fs::File::create(&stderr).unwrap())
        .spawn()
        .unwrap();
    let status = wait_within(&mut child, "the control plane's script", RUN_LIMIT);
    let words = fs::read_to_string(&stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{words}");
    let expected = format!("KUBERNETES is {another}, but the API server has version v1.");
    assert!(words.contains(&expected) && words.contains("unset KUBEBUILDER_ASSETS"), "{words}");
    assert_eq!(made_below(tmp.path()), None);
}

// ------------------------------------------------------------------------------------------ no wait is unlimited

/// SIGINT ignored, as in a background job of a script, and then reset by the helper.
#[test]
fn command_with_default_sigint_ends_on_sigint_where_tests_ignore_it() {
    let mut command = with_sigint(Sigint::Ignored, "python3");
    command.args(with_sigint(Sigint::Default, "bash").get_args());
    command.args(["-c", "kill -s INT $$; exit 3"]);
    let output = output_within(command, "", RUN_LIMIT);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(2), "{output:?}");
}

#[test]
#[should_panic(expected = "not finished within 5s; output so far:\nbegun")]
fn process_without_end_fails_test_with_its_output() {
    let mut command = Command::new("bash");
    command.args(["-c", "echo begun; exec sleep 600"]);
    output_within(command, "", Duration::from_secs(5));
}

#[test]
#[should_panic(expected = "a shell: not ended within 200ms; it was killed")]
fn process_exceeding_wait_limit_is_killed() {
    let mut child = Command::new("sleep").arg("600").spawn().unwrap();
    wait_within(&mut child, "a shell", Duration::from_millis(200));
}

/// More input than a pipe holds, for a process that reads none of it.
#[test]
fn process_not_reading_stdin_does_not_block_test() {
    let mut command = Command::new("bash");
    command.args(["-c", "exec <&-; sleep 0.1; echo done"]);
    let output = output_within(command, &"x".repeat(1 << 20), RUN_LIMIT);
    assert_eq!(text(&output.stdout), "done\n");
}

#[tokio::test]
#[should_panic(expected = "an answer: an attempt hangs")]
async fn eventually_hanging_attempt_fails_test() {
    tokio::time::pause(); // idle time passes at once
    eventually("an answer", Duration::from_millis(1), std::future::pending::<Result<(), ()>>).await;
}
