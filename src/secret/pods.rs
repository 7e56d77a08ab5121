#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! How pods use a Secret. Only the members that this needs are deserialized: a namespace may have thousands of pods, and
//! the values in their environments must not be in memory.

use std::collections::HashSet;
use std::fmt;

use jiff::Timestamp;
use serde::Deserialize;

/// The annotation on a pod whose change makes the kubelet sync the pod's volumes.
pub const REFRESHED_ANNOTATION: &str = "tokensource.dev/refreshed";

/// The number of pods that a message names; the rest is counted.
const MAX_PODS_NAMED: usize = 5;

/// A pod, as far as its use of Secrets is concerned.
#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub struct Pod {
    /// Name and uid.
    pub metadata: PodMetadata,
    spec: PodSpec,
    status: PodStatus,
    /// Whether it is too large to be read: how it uses Secrets is not known.
    #[serde(skip)]
    pub is_too_large: bool,
}

/// The metadata of a pod.
#[derive(Deserialize, Debug, Default)]
#[serde(default, rename_all = "camelCase")]
pub struct PodMetadata {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    deletion_timestamp: Option<Timestamp>,
    annotations: Option<PodAnnotations>,
}

#[derive(Deserialize, Debug, Default)]
struct PodAnnotations {
    #[serde(default, rename = "tokensource.dev/refreshed")]
    refreshed: Option<String>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default, rename_all = "camelCase")]
struct PodSpec {
    volumes: Vec<Volume>,
    containers: Vec<Container>,
    init_containers: Vec<Container>,
    ephemeral_containers: Vec<Container>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct Volume {
    name: String,
    secret: Option<SecretVolume>,
    projected: Option<ProjectedVolume>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default, rename_all = "camelCase")]
struct SecretVolume {
    secret_name: String,
    items: Vec<KeyToPath>,
    optional: bool,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct KeyToPath {
    key: String,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct ProjectedVolume {
    sources: Vec<VolumeProjection>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct VolumeProjection {
    secret: Option<SecretProjection>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct SecretProjection {
    name: String,
    items: Vec<KeyToPath>,
    optional: bool,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct SecretName {
    name: String,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default, rename_all = "camelCase")]
struct Container {
    name: String,
    volume_mounts: Vec<VolumeMount>,
    env: Vec<EnvVar>,
    env_from: Vec<EnvFromSource>,
    restart_policy: Option<String>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default, rename_all = "camelCase")]
struct VolumeMount {
    name: String,
    sub_path: String,
    sub_path_expr: String,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default, rename_all = "camelCase")]
struct EnvVar {
    value_from: Option<EnvVarSource>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default, rename_all = "camelCase")]
struct EnvVarSource {
    secret_key_ref: Option<SecretName>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default, rename_all = "camelCase")]
struct EnvFromSource {
    secret_ref: Option<SecretName>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default, rename_all = "camelCase")]
struct PodStatus {
    phase: String,
    start_time: Option<Timestamp>,
    container_statuses: Vec<ContainerStatus>,
    init_container_statuses: Vec<ContainerStatus>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct ContainerStatus {
    name: String,
    state: ContainerState,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct ContainerState {
    running: Option<ContainerStateRunning>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default, rename_all = "camelCase")]
struct ContainerStateRunning {
    started_at: Option<Timestamp>,
}

/// How a container reads a Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UseKind {
    /// A volume that is mounted as a directory: it is updated with the Secret.
    Folder,
    /// A mount with a `subPath`: it is not updated after the start of the container.
    SubPath,
    /// Environment variables: they are not updated after the start of the container.
    Environment,
}

impl UseKind {
    /// Whether the container reads changes of the Secret.
    #[must_use]
    pub fn follows(self) -> bool {
        self == UseKind::Folder
    }
}

impl fmt::Display for UseKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UseKind::Folder => "folder",
            UseKind::SubPath => "subPath",
            UseKind::Environment => "environment variable",
        })
    }
}

/// A container that uses a Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use<'a> {
    /// The container's name.
    pub container: &'a str,
    /// How it reads the Secret.
    pub way: UseKind,
}

impl Pod {
    /// Whether the pod is being deleted.
    #[must_use]
    pub fn is_terminating(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// `status.phase`.
    #[must_use]
    pub fn phase(&self) -> &str {
        &self.status.phase
    }

    /// When the operator last annotated the pod after writing a new token.
    #[must_use]
    pub fn refreshed_at(&self) -> Option<Timestamp> {
        self.metadata.annotations.as_ref()?.refreshed.as_ref()?.parse().ok()
    }

    /// When a container started; the start of the pod where that is not known.
    #[must_use]
    pub fn started_at(&self, container: &str) -> Option<Timestamp> {
        let status = &self.status;
        let all = status.container_statuses.iter().chain(&status.init_container_statuses);
        let running = all.filter(|it| it.name == container).find_map(|it| it.state.running.as_ref());
        running.and_then(|running| running.started_at).or(status.start_time)
    }

    /// A key of a Secret that a volume names in `items`, and that is not among `keys`. The kubelet then sets up and updates
    /// nothing of the volume.
    #[must_use]
    pub fn missing_item(&self, secret: &str, keys: &[&str]) -> Option<&str> {
        let items = self.spec.volumes.iter().flat_map(|volume| {
            let whole = volume.secret.iter().filter(|it| it.secret_name == secret && !it.optional);
            let projected = volume.projected.iter().flat_map(|it| &it.sources);
            let parts = projected.filter_map(|it| it.secret.as_ref());
            let parts = parts.filter(|it| it.name == secret && !it.optional);
            whole.flat_map(|it| &it.items).chain(parts.flat_map(|it| &it.items))
        });
        items.map(|it| it.key.as_str()).find(|key| !keys.contains(key))
    }

    /// How the containers use a Secret, each combination of container and way once. An init container that ends before the
    /// pod runs does not keep old values, so only its directory mounts are returned.
    #[must_use]
    pub fn uses(&self, secret: &str) -> Vec<Use<'_>> {
        let spec = &self.spec;
        // A tenant's pod may have thousands of volumes, and of mounts.
        let volumes = spec.volumes.iter().filter(|volume| volume.holds(secret));
        let volumes: HashSet<&str> = volumes.map(|volume| &*volume.name).collect();
        let holds = |mount: &&VolumeMount| volumes.contains(&*mount.name);
        let mut uses: Vec<Use<'_>> = vec![];
        let all = spec.init_containers.iter().chain(&spec.containers).chain(&spec.ephemeral_containers);
        for container in all {
            let mut add = |way| {
                let used = Use { container: &container.name, way };
                if !uses.iter().rev().take_while(|it| it.container == used.container).any(|it| *it == used) {
                    uses.push(used);
                }
            };
            container.volume_mounts.iter().filter(holds).for_each(|mount| add(mount.way()));
            if container.has_in_environment(secret) {
                add(UseKind::Environment);
            }
        }
        let plain = spec.init_containers.iter().filter(|it| it.restart_policy.as_deref() != Some("Always"));
        let plain: HashSet<&str> = plain.map(|it| &*it.name).collect();
        uses.retain(|used| used.way.follows() || !plain.contains(used.container));
        uses
    }
}

impl Volume {
    fn holds(&self, secret: &str) -> bool {
        let projected = self.projected.iter().flat_map(|projected| &projected.sources);
        self.secret.as_ref().is_some_and(|it| it.secret_name == secret)
            || projected.filter_map(|source| source.secret.as_ref()).any(|it| it.name == secret)
    }
}

impl VolumeMount {
    fn way(&self) -> UseKind {
        if self.sub_path.is_empty() && self.sub_path_expr.is_empty() {
            UseKind::Folder
        } else {
            UseKind::SubPath
        }
    }
}

impl Container {
    fn has_in_environment(&self, secret: &str) -> bool {
        let one = self.env.iter().filter_map(|it| it.value_from.as_ref()?.secret_key_ref.as_ref());
        let all = self.env_from.iter().filter_map(|it| it.secret_ref.as_ref());
        one.chain(all).any(|it| it.name == secret)
    }
}

/// The pods in a message: the first few, and the number of all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    first: Vec<String>,
    more: usize,
}

impl Pods {
    /// Adds a pod; `description` is its text in the message.
    pub fn add(&mut self, description: String) {
        if self.first.len() < MAX_PODS_NAMED { self.first.push(description) } else { self.more += 1 }
    }

    /// The number of pods.
    #[must_use]
    pub fn count(&self) -> usize {
        self.first.len() + self.more
    }
}

impl fmt::Display for Pods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.count() == 1 { "pod" } else { "pods" };
        write!(f, "{noun} {}", self.first.join(", "))?;
        if self.more > 0 { write!(f, " and {} more", self.more) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value) -> Pod {
        serde_json::from_value(
            json!({"metadata": {"name": "p", "uid": "u", "labels": {"a": "b"}}, "spec": spec}),
        )
        .unwrap()
    }

    fn uses(spec: Value) -> Vec<String> {
        let text = |it: Use<'_>| format!("{} {}", it.container, it.way);
        pod(spec).uses("token").into_iter().map(text).collect()
    }

    #[test]
    fn missing_item_is_a_key_that_a_volume_requires() {
        let missing = |volume: Value| {
            pod(json!({"volumes": [volume]})).missing_item("token", &["access_token"]).map(str::to_owned)
        };
        let items = |key: &str| json!([{"key": key, "path": "a"}]);
        let secret = |key: &str| json!({"name": "a", "secret": {"secretName": "token", "items": items(key)}});
        assert_eq!(missing(secret("access_token")), None);
        assert_eq!(missing(secret("token")).as_deref(), Some("token"));
        let projected = json!({"name": "token", "items": items("token")});
        let volume = json!({"name": "a", "projected": {"sources": [{"secret": projected}]}});
        assert_eq!(missing(volume).as_deref(), Some("token"));
        let optional = json!({"secretName": "token", "items": items("token"), "optional": true});
        assert_eq!(missing(json!({"name": "a", "secret": optional})), None);
        let other = json!({"secretName": "other", "items": items("token")});
        assert_eq!(missing(json!({"name": "a", "secret": other})), None);
        assert_eq!(missing(json!({"name": "a", "secret": {"secretName": "token"}})), None);
    }

    #[test]
    fn uses_finds_every_way_in_every_kind_of_container() {
        let volumes = json!([
            {"name": "s", "secret": {"secretName": "token"}},
            {"name": "p", "projected": {"sources": [{"configMap": {"name": "c"}}, {"secret": {"name": "token"}}]}},
            {"name": "other", "secret": {"secretName": "other"}},
            {"name": "unused", "emptyDir": {}},
        ]);
        let folder = |name: &str| json!([{"name": name, "mountPath": "/t"}]);
        let found = uses(json!({
            "volumes": volumes,
            "containers": [
                {"name": "a", "volumeMounts": folder("s")},
                {"name": "b", "volumeMounts": [{"name": "p", "mountPath": "/t", "subPath": "access_token"}]},
                {"name": "c", "volumeMounts": [{"name": "p", "mountPath": "/t", "subPathExpr": "$(KEY)"}, {"name": "p", "mountPath": "/u"}]},
                {"name": "d", "env": [{"name": "T", "valueFrom": {"secretKeyRef": {"name": "token", "key": "k"}}}]},
                {"name": "e", "envFrom": [{"prefix": "T", "secretRef": {"name": "token"}}, {"configMapRef": {"name": "c"}}]},
                {"name": "f", "volumeMounts": folder("other"), "env": [{"name": "A", "value": "token"}]},
            ],
            "ephemeralContainers": [{"name": "g", "volumeMounts": folder("p")}],
        }));
        assert_eq!(
            found,
            [
                "a folder",
                "b subPath",
                "c subPath",
                "c folder",
                "d environment variable",
                "e environment variable",
                "g folder"
            ]
        );
    }

    #[test]
    fn uses_of_an_init_container_ignores_its_environment_unless_it_is_a_sidecar() {
        let env = json!([{"secretRef": {"name": "token"}}]);
        let found = uses(json!({
            "volumes": [{"name": "s", "secret": {"secretName": "token"}}],
            "containers": [{"name": "main"}],
            "initContainers": [
                {"name": "ended", "envFrom": env, "volumeMounts": [{"name": "s", "mountPath": "/t"}]},
                {"name": "sidecar", "envFrom": env, "restartPolicy": "Always"},
            ],
        }));
        assert_eq!(found, ["ended folder", "sidecar environment variable"]);
    }

    #[test]
    fn uses_of_a_volume_without_a_mount_is_empty() {
        assert!(uses(json!({"volumes": [{"name": "s", "secret": {"secretName": "token"}}], "containers": [{"name": "a"}]})).is_empty());
    }

    #[test]
    fn started_at_falls_back_to_the_start_of_the_pod() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"annotations": {"tokensource.dev/refreshed": "2026-11-24T20:00:00.5Z", "other": "x"}},
            "status": {
                "startTime": "2026-11-24T19:00:00Z",
                "containerStatuses": [
                    {"name": "a", "state": {"running": {"startedAt": "2026-11-24T19:00:07Z"}}},
                    {"name": "b", "state": {"waiting": {"reason": "CrashLoopBackOff"}}},
                ],
            },
        }))
        .unwrap();
        assert_eq!(pod.started_at("a"), "2026-11-24T19:00:07Z".parse().ok());
        assert_eq!(pod.started_at("b"), "2026-11-24T19:00:00Z".parse().ok());
        assert_eq!(pod.refreshed_at(), "2026-11-24T20:00:00.5Z".parse().ok());
    }

    #[test]
    fn pods_display_names_five_and_counts_the_rest() {
        let named = |count: usize| {
            let mut pods = Pods::default();
            (0..count).for_each(|at| pods.add(format!("p{at}")));
            pods.to_string()
        };
        assert_eq!(named(1), "pod p0");
        assert_eq!(named(5), "pods p0, p1, p2, p3, p4");
        assert_eq!(named(7), "pods p0, p1, p2, p3, p4 and 2 more");
    }
}
