#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! How pods use a Secret, and of a pod no more than that takes: thousands may be looked through, and the values in their
//! environment are nobody's business.

use std::fmt;

use jiff::Timestamp;
use serde::Deserialize;

/// The annotation on a pod by which the kubelet reads its volumes anew.
pub const REFRESHED_ANNOTATION: &str = "tokensource.dev/refreshed";

/// How many pods a message names.
const NAMED: usize = 5;

/// A page of a list of pods.
#[derive(Deserialize, Debug)]
pub struct PodList {
    #[serde(default)]
    metadata: ListMetadata,
    /// The pods.
    #[serde(default)]
    pub items: Vec<Pod>,
}

#[derive(Deserialize, Debug, Default)]
struct ListMetadata {
    #[serde(default, rename = "continue")]
    next: Option<String>,
}

/// A pod.
#[derive(Deserialize, Debug, Default)]
#[serde(default)]
pub struct Pod {
    /// Who it is.
    pub metadata: Metadata,
    spec: Spec,
    status: Status,
}

/// Who a pod is.
#[derive(Deserialize, Debug, Default)]
#[serde(default, rename_all = "camelCase")]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    deletion_timestamp: Option<Timestamp>,
    annotations: Option<Annotations>,
}

#[derive(Deserialize, Debug, Default)]
struct Annotations {
    #[serde(default, rename = "tokensource.dev/refreshed")]
    refreshed: Option<String>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
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
    projected: Option<Projected>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default, rename_all = "camelCase")]
struct SecretVolume {
    secret_name: String,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct Projected {
    sources: Vec<Source>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct Source {
    secret: Option<Named>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct Named {
    name: String,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default, rename_all = "camelCase")]
struct Container {
    name: String,
    volume_mounts: Vec<Mount>,
    env: Vec<Variable>,
    env_from: Vec<Variables>,
    restart_policy: Option<String>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default, rename_all = "camelCase")]
struct Mount {
    name: String,
    sub_path: String,
    sub_path_expr: String,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default, rename_all = "camelCase")]
struct Variable {
    value_from: Option<ValueFrom>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default, rename_all = "camelCase")]
struct ValueFrom {
    secret_key_ref: Option<Named>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default, rename_all = "camelCase")]
struct Variables {
    secret_ref: Option<Named>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default, rename_all = "camelCase")]
struct Status {
    phase: String,
    start_time: Option<Timestamp>,
    container_statuses: Vec<ContainerStatus>,
    init_container_statuses: Vec<ContainerStatus>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct ContainerStatus {
    name: String,
    state: State,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default)]
struct State {
    running: Option<Running>,
}

#[derive(Deserialize, Debug, Default)]
#[serde(default, rename_all = "camelCase")]
struct Running {
    started_at: Option<Timestamp>,
}

/// How a container gets at a Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// A volume that is mounted as a folder: it follows the Secret.
    Folder,
    /// A mount with a `subPath`: it stays as it was when the container started.
    SubPath,
    /// Environment variables: they stay as they were when the container started.
    Environment,
}

impl Way {
    /// Whether what the container reads follows the Secret.
    #[must_use]
    pub fn follows(self) -> bool {
        self == Way::Folder
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Way::Folder => "folder",
            Way::SubPath => "subPath",
            Way::Environment => "environment variable",
        })
    }
}

/// A container that uses a Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use<'a> {
    /// Its name.
    pub container: &'a str,
    /// How.
    pub way: Way,
}

impl PodList {
    /// What asks for the next page; `None` where this is the last one.
    pub fn next_page(&mut self) -> Option<String> {
        self.metadata.next.take().filter(|next| !next.is_empty())
    }
}

impl Pod {
    /// It is being deleted.
    #[must_use]
    pub fn is_terminating(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    /// `Running`, or `Pending`, or what else.
    #[must_use]
    pub fn phase(&self) -> &str {
        &self.status.phase
    }

    /// When it was last told of a new token.
    #[must_use]
    pub fn refreshed_at(&self) -> Option<Timestamp> {
        self.metadata.annotations.as_ref()?.refreshed.as_ref()?.parse().ok()
    }

    /// When a container started, or the pod where that is not known.
    #[must_use]
    pub fn started_at(&self, container: &str) -> Option<Timestamp> {
        let status = &self.status;
        let all = status.container_statuses.iter().chain(&status.init_container_statuses);
        let running = all.filter(|it| it.name == container).find_map(|it| it.state.running.as_ref());
        running.and_then(|running| running.started_at).or(status.start_time)
    }

    /// How its containers use a Secret, each way of each container once. An init container that has to end before the pod
    /// runs keeps nothing, so that only its folders count.
    #[must_use]
    pub fn uses(&self, secret: &str) -> Vec<Use<'_>> {
        let spec = &self.spec;
        let holds = |mount: &&Mount| {
            spec.volumes.iter().any(|volume| volume.name == mount.name && volume.holds(secret))
        };
        let mut uses = vec![];
        let all = spec.init_containers.iter().chain(&spec.containers).chain(&spec.ephemeral_containers);
        for container in all {
            let mut add = |way| {
                let used = Use { container: &container.name, way };
                if !uses.contains(&used) {
                    uses.push(used);
                }
            };
            container.volume_mounts.iter().filter(holds).for_each(|mount| add(mount.way()));
            if container.has_in_environment(secret) {
                add(Way::Environment);
            }
        }
        let ends = |used: &Use<'_>| {
            spec.init_containers
                .iter()
                .any(|it| it.name == used.container && it.restart_policy.as_deref() != Some("Always"))
        };
        uses.retain(|used| used.way.follows() || !ends(used));
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

impl Mount {
    fn way(&self) -> Way {
        if self.sub_path.is_empty() && self.sub_path_expr.is_empty() { Way::Folder } else { Way::SubPath }
    }
}

impl Container {
    fn has_in_environment(&self, secret: &str) -> bool {
        let one = self.env.iter().filter_map(|it| it.value_from.as_ref()?.secret_key_ref.as_ref());
        let all = self.env_from.iter().filter_map(|it| it.secret_ref.as_ref());
        one.chain(all).any(|it| it.name == secret)
    }
}

/// Pods that a message names: the first few, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pods {
    first: Vec<String>,
    more: usize,
}

impl Pods {
    /// Adds one, in these words.
    pub fn add(&mut self, words: String) {
        if self.first.len() < NAMED { self.first.push(words) } else { self.more += 1 }
    }

    /// How many there are.
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

    fn words(spec: Value) -> Vec<String> {
        let told = |it: Use<'_>| format!("{} {}", it.container, it.way);
        pod(spec).uses("token").into_iter().map(told).collect()
    }

    #[test]
    fn every_way_to_a_secret_is_found_in_every_kind_of_container() {
        let volumes = json!([
            {"name": "s", "secret": {"secretName": "token"}},
            {"name": "p", "projected": {"sources": [{"configMap": {"name": "c"}}, {"secret": {"name": "token"}}]}},
            {"name": "other", "secret": {"secretName": "other"}},
            {"name": "unused", "emptyDir": {}},
        ]);
        let folder = |name: &str| json!([{"name": name, "mountPath": "/t"}]);
        let told = words(json!({
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
            told,
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
    fn an_init_container_that_has_ended_keeps_nothing_and_a_sidecar_does() {
        let env = json!([{"secretRef": {"name": "token"}}]);
        let told = words(json!({
            "volumes": [{"name": "s", "secret": {"secretName": "token"}}],
            "containers": [{"name": "main"}],
            "initContainers": [
                {"name": "ended", "envFrom": env, "volumeMounts": [{"name": "s", "mountPath": "/t"}]},
                {"name": "sidecar", "envFrom": env, "restartPolicy": "Always"},
            ],
        }));
        assert_eq!(told, ["ended folder", "sidecar environment variable"]);
    }

    #[test]
    fn a_volume_that_no_container_mounts_is_no_use() {
        assert!(words(json!({"volumes": [{"name": "s", "secret": {"secretName": "token"}}], "containers": [{"name": "a"}]})).is_empty());
    }

    #[test]
    fn when_a_container_started() {
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
    fn a_message_names_a_few() {
        let named = |count: usize| {
            let mut pods = Pods::default();
            (0..count).for_each(|at| pods.add(format!("p{at}")));
            pods.to_string()
        };
        assert_eq!(named(1), "pod p0");
        assert_eq!(named(5), "pods p0, p1, p2, p3, p4");
        assert_eq!(named(7), "pods p0, p1, p2, p3, p4 and 2 more");
    }

    #[test]
    fn a_page_tells_of_the_next() {
        let list = |next: Value| {
            serde_json::from_value::<PodList>(json!({"metadata": next, "items": []})).unwrap().next_page()
        };
        assert_eq!(list(json!({"continue": "abc"})).as_deref(), Some("abc"));
        assert_eq!(list(json!({"continue": ""})), None);
        assert_eq!(list(json!({"resourceVersion": "1"})), None);
    }
}
