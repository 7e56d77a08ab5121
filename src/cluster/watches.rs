//! The watches. Each stream lists first, follows, and lists again where it has lost its place; it never ends.

use futures::Stream;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};

use super::objects::{SecretObject, SourceObject};

/// Objects in a page of a list. The largest part of an object is its managedFields, and a whole page is in memory at once.
const PAGE: u32 = 100;

/// The TokenSources of a namespace, or of all.
pub(crate) fn watch_sources(
    client: Client,
    namespace: Option<&str>,
) -> impl Stream<Item = watcher::Result<Event<SourceObject>>> + Send + use<> {
    watcher::watcher(api::<SourceObject>(client, namespace), in_small_pages()).default_backoff()
}

/// The metadata of the Secrets of a namespace, or of all.
pub(crate) fn watch_secrets(
    client: Client,
    namespace: Option<&str>,
) -> impl Stream<Item = watcher::Result<Event<SecretObject>>> + Send + use<> {
    watcher::watcher(api::<SecretObject>(client, namespace), in_small_pages()).default_backoff()
}

/// The namespaces with these labels.
pub(crate) fn watch_namespaces(
    client: Client,
    labels: &str,
) -> impl Stream<Item = watcher::Result<Event<PartialObjectMeta<Namespace>>>> + Send + use<> {
    watcher::watcher(Api::all(client), watcher::Config::default().labels(labels)).default_backoff()
}

fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(
    client: Client,
    namespace: Option<&str>,
) -> Api<K> {
    match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    }
}

fn in_small_pages() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}
