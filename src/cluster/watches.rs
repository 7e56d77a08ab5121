//! The watches. Each lists first, follows, and lists again where it has lost its place; it never ends.

use kube::Client;

use super::follow::Follow;
use super::objects::{NamespaceObject, SecretObject, SourceObject};

/// The TokenSources of a namespace, or of all.
pub(crate) fn watch_sources(client: Client, namespace: Option<&str>) -> Follow<SourceObject> {
    Follow::new(client, namespace, None)
}

/// The metadata of the Secrets of a namespace, or of all.
pub(crate) fn watch_secrets(client: Client, namespace: Option<&str>) -> Follow<SecretObject> {
    Follow::new(client, namespace, None)
}

/// The namespaces with these labels.
pub(crate) fn watch_namespaces(client: Client, labels: &str) -> Follow<NamespaceObject> {
    Follow::new(client, None, Some(labels))
}
