//! How Flux and Argo CD interpret an object, by their own libraries (`tests/gitops`) and the Lua scripts of
//! `docs/argocd.md`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};

use super::process::{BUILD_LIMIT, output_within};
use super::program::{output_beside, result};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/gitops");
const PAGE: &str = include_str!("../../docs/argocd.md");

/// The status and message that kstatus computes: `InProgress: ...`.
pub async fn kstatus(object: &str) -> String {
    ask(&["kstatus"], object).await
}

/// The result of the health check: `{"status": .., "message": ..}`.
pub async fn health(object: &str) -> Value {
    let script = setting("resource.customizations.health.tokensource.dev_TokenSource");
    serde_json::from_str(&ask(&["health", &script], object).await).unwrap()
}

/// The same of a ClusterTokenIssuer.
pub async fn issuer_health(object: &str) -> Value {
    let script = setting("resource.customizations.health.tokensource.dev_ClusterTokenIssuer");
    serde_json::from_str(&ask(&["health", &script], object).await).unwrap()
}

/// The scripts of the page by their paths in Argo CD's folder `resource_customizations`.
pub fn argocd_files() -> BTreeMap<String, String> {
    let text = |script: &Value| script.as_str().unwrap().to_owned();
    let scripts = scripts();
    let mut files: BTreeMap<String, String> = scripts["definitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| (format!("actions/{}/action.lua", it["name"].as_str().unwrap()), text(&it["action.lua"])))
        .collect();
    files.insert("actions/discovery.lua".into(), text(&scripts["discovery.lua"]));
    files.insert("health.lua".into(), setting("resource.customizations.health.tokensource.dev_TokenSource"));
    files
}

/// What discovery returns, with the disabled actions.
pub async fn offered(object: &str) -> Value {
    let script = scripts()["discovery.lua"].as_str().unwrap().to_owned();
    serde_json::from_str(&ask(&["actions", &script], object).await).unwrap()
}

/// The names of the enabled actions.
pub async fn actions(object: &str) -> Vec<String> {
    let offered = offered(object).await;
    let enabled = |(name, action): (&String, &Value)| (action["disabled"] != true).then(|| name.clone());
    offered.as_object().unwrap().iter().filter_map(enabled).collect()
}

/// The merge patch of an action.
pub async fn action(name: &str, object: &str) -> Value {
    let scripts = scripts();
    let definition = scripts["definitions"].as_array().unwrap().iter().find(|it| it["name"] == name).unwrap();
    let script = definition["action.lua"].as_str().unwrap();
    serde_json::from_str(&ask(&["action", script], object).await).unwrap()
}

/// A member of `argocd-cm` on the page.
fn setting(key: &str) -> String {
    let block =
        PAGE.split("```yaml\n").find(|part| part.contains(key)).expect("a ConfigMap in docs/argocd.md");
    let manifest = block.split("```").next().unwrap();
    let config_map: Value = serde_saphyr::from_str(manifest).unwrap();
    assert_eq!(config_map["metadata"]["name"], "argocd-cm");
    config_map["data"][key].as_str().unwrap().to_owned()
}

fn scripts() -> Value {
    serde_saphyr::from_str(&setting("resource.customizations.actions.tokensource.dev_TokenSource")).unwrap()
}

async fn ask(arguments: &[&str], object: &str) -> String {
    let mut command = Command::new(tokio::task::spawn_blocking(tool).await.unwrap());
    command.args(arguments);
    result(&output_beside(command, object).await).unwrap_or_else(|said| panic!("{said}"))
}

/// Built at the first call. With Go's cache every further build takes a second.
fn tool() -> &'static PathBuf {
    static TOOL: OnceLock<PathBuf> = OnceLock::new();
    TOOL.get_or_init(|| build(FOLDER, "Flux' kstatus and Argo CD's Lua (the first time takes a minute)"))
}

fn build(folder: &str, what: &str) -> PathBuf {
    let tool = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(Path::new(folder).file_name().unwrap());
    eprintln!("building {folder}: {what}");
    let mut build = Command::new("go");
    build.args(["build", "-C", folder, "-trimpath", "-buildvcs=false", "-o"]).arg(&tool).arg(".");
    build.envs([("GOFLAGS", "-mod=readonly"), ("GOWORK", "off"), ("CGO_ENABLED", "0")]);
    let output = output_within(build, "", BUILD_LIMIT);
    assert!(output.status.success(), "{folder}: {}", String::from_utf8_lossy(&output.stderr));
    tool
}

/// What Argo CD's own diff (`tests/argocd-diff`) shows for objects in Git and in the cluster: nothing where they are in sync.
pub async fn argocd_diff(pairs: &[(Value, Value)]) -> String {
    let pairs: Vec<_> = pairs.iter().map(|(config, live)| json!({"config": config, "live": live})).collect();
    let tool = tokio::task::spawn_blocking(|| {
        static TOOL: OnceLock<PathBuf> = OnceLock::new();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/argocd-diff");
        TOOL.get_or_init(|| {
            build(folder, "Argo CD's diff, with Kubernetes' types (the first time takes minutes)")
        })
    });
    let command = Command::new(tool.await.unwrap());
    result(&output_beside(command, &json!(pairs).to_string()).await).unwrap_or_else(|said| panic!("{said}"))
}
