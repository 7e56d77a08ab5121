//! Reads what the report contains, as far as the user's rights and the time permit.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;

use futures::{StreamExt, stream};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::DynamicObject;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::archive::TextFile;
use super::hidden::SecretValues;
use super::{secret_keys, views};
use crate::cluster::{BoundedText, CLUSTER_EVENTS, CallError, Scope, UserCluster};
use crate::commands::check::{self, Operator};
use crate::commands::installation::InstallationArgs;
use crate::commands::kubectl::SelectionArgs;
use crate::commands::operator::ServedIssuers;
use crate::commands::output::Progress;
use crate::commands::{explain, get};
use crate::key::Key;
use crate::text::shown_message;

/// The most TokenSources that are shown in full: the most urgent.
const MAX_SOURCES: usize = 100;
/// The most pods of an operator.
const MAX_PODS: usize = 6;
/// The most bytes of the report before it is compressed.
const MAX_BYTES: usize = 64 << 20;
/// How many Secrets are read at once.
const CONCURRENT_READS: usize = 8;

/// What was read. No `Debug`: nothing is hidden yet.
pub(super) struct Gathered {
    contents: Vec<(String, Content)>,
    values: SecretValues,
    /// What could not be read, a sentence each.
    unread: Vec<String>,
    bytes: usize,
}

enum Content {
    /// Objects, of which what may be secret is left out already.
    Object(Value),
    /// What others wrote.
    Text(String),
}

/// The files of the report, and what could not be read.
pub(super) struct Files {
    pub(super) files: Vec<TextFile>,
    pub(super) unread: Vec<String>,
}

impl Gathered {
    fn add(&mut self, path: String, content: Content, bytes: usize) {
        let all = self.bytes.saturating_add(bytes);
        if all > MAX_BYTES {
            self.unread.push(format!("{path} is left out: the report would be too large"));
        } else {
            self.bytes = all;
            self.contents.push((path, content));
        }
    }

    fn add_text(&mut self, path: String, text: String) {
        let bytes = text.len();
        self.add(path, Content::Text(text), bytes);
    }

    fn add_object(&mut self, path: String, object: Value) {
        let bytes = object.to_string().len();
        self.add(path, Content::Object(object), bytes);
    }

    /// Takes the values of Secrets out of everything.
    pub(super) fn hide(mut self) -> Files {
        if self.values.too_many {
            self.contents.retain(|(_, content)| matches!(content, Content::Object(_)));
            for (_, content) in &mut self.contents {
                if let Content::Object(object) = content {
                    *object = views::outline(object);
                }
            }
            self.unread.push(
                "the Secrets have more values than can be looked for in texts, so that logs, events, specs, messages and the like are left out: select fewer TokenSources".to_owned(),
            );
        }
        let values = self.values;
        let hide = |(path, content)| {
            let text = match content {
                // Each text by itself first: YAML breaks long ones.
                Content::Object(object) => {
                    serde_saphyr::to_string(&values.hide_in(object)).unwrap_or_default()
                }
                Content::Text(text) => text,
            };
            TextFile { path, text: values.hide(&text) }
        };
        let sentence = |text: String| shown_message(&values.hide(&text)).into_owned();
        Files {
            files: self.contents.into_iter().map(hide).collect(),
            unread: self.unread.into_iter().map(sentence).collect(),
        }
    }
}

struct Gatherer<'a> {
    cluster: &'a UserCluster,
    installation: &'a InstallationArgs,
    until: Instant,
    progress: Progress,
    gathered: Gathered,
}

/// Reads everything, until `until` at the latest.
pub(super) async fn gather(
    cluster: &UserCluster,
    selection: &SelectionArgs,
    installation: &InstallationArgs,
    until: Instant,
) -> Gathered {
    let gathered = Gathered { contents: vec![], values: SecretValues::default(), unread: vec![], bytes: 0 };
    let mut gatherer = Gatherer { cluster, installation, until, progress: Progress::new(), gathered };
    let served = gatherer.check().await;
    let sources = gatherer.sources(selection).await;
    let issuers = gatherer.issuers(!served.is_empty(), &sources).await;
    let mut secrets = gatherer.secrets_of(selection, &sources).await;
    let unserved = secret_keys::add_secrets_of_issuers(&mut secrets, &issuers, &served);
    if !unserved.is_empty() {
        gatherer.gathered.unread.push(format!(
            "Secrets of ClusterTokenIssuers ({}), so that their values could not be looked for in the texts: no operator is known that serves these issuers",
            unserved.join(", ")
        ));
    }
    gatherer.secrets(secrets).await;
    gatherer.of_sources(sources.into_iter().take(MAX_SOURCES).collect()).await;
    gatherer.progress.clear();
    gatherer.gathered
}

impl Gatherer<'_> {
    /// The result of a call; `None` where it failed, which is noted.
    async fn read<T, E: std::fmt::Display>(
        &mut self,
        what: &str,
        call: impl Future<Output = Result<T, E>>,
    ) -> Option<T> {
        self.progress.show(&format!("reading {what}"));
        let error = match timeout_at(self.until, call).await {
            Ok(Ok(read)) => return Some(read),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the time of --timeout is over".to_owned(),
        };
        self.gathered.unread.push(format!("{what}: {error}"));
        None
    }

    /// The TokenSources of the selection, the most urgent first. [`MAX_SOURCES`] of them are shown in full.
    async fn sources(&mut self, selection: &SelectionArgs) -> Vec<DynamicObject> {
        let cluster = self.cluster;
        let mut sources = vec![];
        if selection.names.is_empty() {
            let listed = self.read("TokenSources", selection.listed(cluster)).await;
            sources = listed.map(|(objects, _)| objects).unwrap_or_default();
        }
        for name in &selection.names {
            let key = Key::new(&cluster.namespace, name);
            sources.extend(self.read("a TokenSource", cluster.source_object(&key)).await);
        }
        let sorted = get::by_urgency(sources);
        let table = get::wide_table(&sorted);
        self.gathered.add_text("tokensources.txt".to_owned(), table);
        if sorted.len() > MAX_SOURCES {
            self.gathered.unread.push(format!(
                "of {} TokenSources only the {MAX_SOURCES} most urgent are shown in full: select fewer for others",
                sorted.len()
            ));
        }
        sorted
    }

    /// The ClusterTokenIssuers and their definition, where an operator serves some, or a TokenSource names one.
    async fn issuers(&mut self, are_served: bool, sources: &[DynamicObject]) -> Vec<DynamicObject> {
        let names_issuer = |source: &DynamicObject| source.data.pointer("/spec/issuerRef").is_some();
        if !are_served && !sources.iter().any(names_issuer) {
            return vec![];
        }
        let cluster = self.cluster;
        let definition = cluster.object(None, "clustertokenissuers.tokensource.dev");
        let what = "the CustomResourceDefinition of ClusterTokenIssuers";
        if let Some(definition) = self.read(what, definition).await.flatten() {
            self.definition("issuer-definition.yaml", &definition);
        }
        let issuers = self.read("ClusterTokenIssuers", cluster.issuer_objects()).await.unwrap_or_default();
        for issuer in &issuers {
            let name = issuer.metadata.name.as_deref().unwrap_or_default();
            self.gathered
                .add_object(format!("issuers/{name}.yaml"), views::source("ClusterTokenIssuer", issuer));
        }
        if !issuers.is_empty() {
            let names: BTreeSet<_> = issuers.iter().filter_map(|it| it.metadata.name.as_deref()).collect();
            let is_about = |name: Option<&str>| name.is_some_and(|name| names.contains(name));
            let file = "issuers.txt".to_owned();
            self.events(CLUSTER_EVENTS, "involvedObject.kind=ClusterTokenIssuer", file, is_about).await;
        }
        issuers
    }

    fn definition(&mut self, path: &str, definition: &CustomResourceDefinition) {
        let view = views::public_object(&definition.metadata, definition);
        self.gathered.add_object(path.to_owned(), view);
    }

    /// The Secrets of the TokenSources that are shown in full, each with whether its key `client_id` is public.
    async fn secrets_of(
        &mut self,
        selection: &SelectionArgs,
        selected: &[DynamicObject],
    ) -> BTreeMap<Key, bool> {
        let shown = selected.get(..MAX_SOURCES).unwrap_or(selected);
        if shown.is_empty() || (selection.names.is_empty() && selection.selector.is_none()) {
            return secret_keys::secrets_of(shown, Some(selected));
        }
        let cluster = self.cluster;
        let scope = Scope { labels: None, ..selection.scope(cluster) };
        let what = "other TokenSources, without which no id of a client is shown";
        let all = self.read(what, cluster.source_objects(&scope, |_| ())).await;
        secret_keys::secrets_of(shown, all.as_ref().map(|(objects, _)| objects.as_slice()))
    }

    /// The metadata of the Secrets that belong to the TokenSources. Their values are looked for in all texts.
    async fn secrets(&mut self, secrets: BTreeMap<Key, bool>) {
        let (cluster, until) = (self.cluster, self.until);
        self.progress.show(&format!("reading {} Secrets", secrets.len()));
        let read = async |(key, has_client_id): (Key, bool)| {
            let call = cluster.object::<Secret>(Some(&key.namespace), &key.name);
            let read = timeout_at(until, call).await;
            let late = CallError::Unavailable("the time of --timeout is over".to_owned().into());
            (key, has_client_id, read.unwrap_or(Err(late)))
        };
        let mut all = stream::iter(secrets).map(read).buffered(CONCURRENT_READS);
        let (mut views, mut unread) = (BTreeMap::<_, Vec<Value>>::new(), BTreeMap::<_, Vec<_>>::new());
        while let Some((key, has_client_id, read)) = all.next().await {
            let view = match read {
                Ok(Some(secret)) => {
                    self.gathered.values.add(&secret, has_client_id);
                    views::secret(&secret)
                }
                Ok(None) => json!({"metadata": {"name": &*key.name}, "exists": false}),
                Err(error) => {
                    let unread = unread.entry(Arc::clone(&key.namespace)).or_default();
                    unread.push((Arc::clone(&key.name), error));
                    continue;
                }
            };
            views.entry(Arc::clone(&key.namespace)).or_default().push(view);
        }
        drop(all);
        for (namespace, all) in unread {
            let names: Vec<&str> = all.iter().map(|(name, _)| &**name).collect();
            if let Some((_, error)) = all.first() {
                self.gathered.unread.push(format!(
                    "Secrets of {namespace} ({}), so that their values could not be looked for in the texts: {error}",
                    names.join(", ")
                ));
            }
        }
        for (namespace, views) in views {
            self.gathered.add_object(format!("secrets/{namespace}.yaml"), json!(views));
        }
    }

    async fn of_sources(&mut self, sources: Vec<DynamicObject>) {
        let mut names: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for source in &sources {
            let key = Key::of(&source.metadata);
            let path = format!("tokensources/{}/{}.yaml", key.namespace, key.name);
            self.gathered.add_object(path, views::source("TokenSource", source));
            names.entry(key.namespace.to_string()).or_default().insert(key.name.to_string());
        }
        let (cluster, installation) = (self.cluster, self.installation);
        let explained = async { Ok::<_, CallError>(explain::texts(cluster, sources, installation).await) };
        if let Some(text) = self.read("what explain says", explained).await {
            self.gathered.add_text("explain.txt".to_owned(), text);
        }
        for (namespace, names) in names {
            let is_about =
                |name: Option<&str>| name.is_some_and(|name| names.iter().any(|source| source == name));
            let file = format!("tokensources-{namespace}.txt");
            self.events(&namespace, "involvedObject.kind=TokenSource", file, is_about).await;
        }
    }

    /// The events of a namespace about objects with names that `is_about` accepts, for `events/FILE`.
    async fn events(
        &mut self,
        namespace: &str,
        fields: &str,
        file: String,
        is_about: impl Fn(Option<&str>) -> bool,
    ) {
        let events = self.cluster.events(namespace, fields);
        let Some(events) = self.read(&format!("events of {namespace}"), events).await else { return };
        let about = events.iter().filter(|event| is_about(event.involved_object.name.as_deref()));
        let mut lines: Vec<String> = about.map(views::event).collect();
        lines.sort();
        self.gathered.add_text(format!("events/{file}"), lines.concat());
    }

    /// What `check` says and reads, and the operators. Returns the issuers that these serve.
    async fn check(&mut self) -> Vec<ServedIssuers> {
        let (cluster, installation, progress) = (self.cluster, self.installation, Progress::new());
        let examined = async {
            let show = |what: &str| progress.show(what);
            Ok::<_, CallError>(check::examined(cluster, installation, show).await)
        };
        let Some((seen, text)) = self.read("what check says", examined).await else { return vec![] };
        self.gathered.add_text("check.txt".to_owned(), text);
        if let Some(definition) = self.noted("the CustomResourceDefinition", seen.definition).flatten() {
            self.definition("definition.yaml", &definition);
        }
        let policies = self.noted("admission policies", seen.policies).unwrap_or_default();
        let bindings = self.noted("bindings of admission policies", seen.bindings).unwrap_or_default();
        let policies = policies.iter().map(|it| views::public_object(&it.metadata, it));
        let bindings = bindings.iter().map(|it| views::public_object(&it.metadata, it));
        let all: Vec<Value> = policies.chain(bindings).collect();
        if !all.is_empty() {
            self.gathered.add_object("policies.yaml".to_owned(), json!(all));
        }
        let mut served = vec![];
        for operator in self.noted("the operator", seen.operators).unwrap_or_default() {
            served.extend(ServedIssuers::of(&operator.deployment));
            self.operator(operator).await;
        }
        served
    }

    fn noted<T, E: std::fmt::Display>(&mut self, what: &str, read: Result<T, E>) -> Option<T> {
        read.map_err(|error| self.gathered.unread.push(format!("{what}: {error}"))).ok()
    }

    async fn operator(&mut self, operator: Operator) {
        let deployment = &operator.deployment;
        let key = Key::of(&deployment.metadata);
        let folder = format!("operator/{}/{}", key.namespace, key.name);
        self.gathered.add_object(format!("{folder}/deployment.yaml"), views::deployment(deployment));
        if let Some((lease, read)) = operator.lease
            && let Some(found) = self.noted(&format!("Lease {lease}"), read).flatten()
        {
            let view = views::public_object(&found.metadata, &found);
            self.gathered.add_object(format!("{folder}/lease.yaml"), view);
        }
        let labels = selector(deployment);
        let cluster = self.cluster;
        let pods = cluster.objects::<Pod>(Some(&key.namespace), Some(&labels));
        let pods = self.read(&format!("pods of {key}"), pods).await.unwrap_or_default();
        for pod in pods.iter().take(MAX_PODS) {
            self.pod(&folder, pod).await;
        }
        if pods.len() > MAX_PODS {
            let (count, left) = (pods.len(), format!("only {MAX_PODS} pods are shown"));
            self.gathered.unread.push(format!("{key} has {count} pods, of which {left}"));
        }
        let is_about = |name: Option<&str>| name.is_some_and(|name| name.starts_with(&*key.name));
        self.events(&key.namespace, "", format!("operator-{}.txt", key.namespace), is_about).await;
    }

    async fn pod(&mut self, folder: &str, pod: &Pod) {
        let (key, cluster) = (Key::of(&pod.metadata), self.cluster);
        self.gathered.add_object(format!("{folder}/{}.yaml", key.name), views::pod(pod));
        let spec = pod.spec.clone().unwrap_or_default();
        let runs = |it: &&k8s_openapi::api::core::v1::Container| it.args.iter().flatten().any(|a| a == "run");
        let Some(container) = spec.containers.iter().find(runs).or(spec.containers.first()) else { return };
        let log =
            self.read(&format!("the log of {key}"), cluster.pod_log(&key, &container.name, false)).await;
        self.text(format!("{folder}/{}.log", key.name), log);
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        if statuses.filter(|status| status.name == container.name).any(|status| status.restart_count > 0) {
            let what = format!("the log of {key} before its last restart");
            let log = self.read(&what, cluster.pod_log(&key, &container.name, true)).await;
            self.text(format!("{folder}/{}.before-restart.log", key.name), log);
        }
        let mut ports = container.ports.iter().flatten();
        if let Some(port) = ports.find(|port| port.name.as_deref() == Some("admin")) {
            let metrics = cluster.pod_metrics(&key, port.container_port);
            let metrics = self.read(&format!("metrics of {key}"), metrics).await;
            self.text(format!("{folder}/{}.metrics.txt", key.name), metrics);
        }
    }

    fn text(&mut self, path: String, read: Option<BoundedText>) {
        let Some(BoundedText { text, is_cut }) = read else { return };
        if is_cut {
            self.gathered.unread.push(format!("{path} is not whole: it is too long"));
        }
        self.gathered.add_text(path, text);
    }
}

/// The label selector of a Deployment's pods.
fn selector(deployment: &Deployment) -> String {
    let labels = deployment.spec.as_ref().and_then(|spec| spec.selector.match_labels.as_ref());
    let labels = labels.into_iter().flatten().map(|(name, value)| format!("{name}={value}"));
    labels.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_left_out_where_not_all_values_can_be_looked_for() {
        let mut values = SecretValues::default();
        values.too_many = true;
        let mut gathered = Gathered { contents: vec![], values, unread: vec![], bytes: 0 };
        gathered.add_text("log".to_owned(), "hunter2".to_owned());
        gathered.add_object(
            "source".to_owned(),
            json!({
                "metadata": {"name": "a", "labels": {"note": "hunter2"}}, "spec": {"scopes": ["hunter2"]},
                "status": {
                    "conditions": [{"type": "Ready", "status": "False", "reason": "Rejected", "message": "hunter2"}],
                    "lastFailure": {"message": "hunter2"},
                },
            }),
        );
        let size = json!([{"metadata": {"name": "s"}, "type": "hunter2", "bytesOfKeys": {"key": 7}}]);
        gathered.add_object("secrets".to_owned(), size);
        let Files { files, unread } = gathered.hide();
        assert_eq!(files.iter().map(|file| &*file.path).collect::<Vec<_>>(), ["source", "secrets"]);
        let all: String = files.into_iter().map(|file| file.text).collect();
        assert!(!all.contains("hunter2"), "{all}");
        for kept in ["name: a", "reason: Rejected", "key: 7"] {
            assert!(all.contains(kept), "{kept}: {all}");
        }
        assert!(unread[0].contains("select fewer TokenSources"), "{unread:?}");
    }
}
