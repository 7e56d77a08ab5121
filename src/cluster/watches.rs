//! The watches. Each lists first, follows, and lists again where it has lost its place; it never ends.

use kube::api::ListParams;
use kube::{Client, Resource};
use tokio::time::timeout;

use super::body::list_one;
use super::follow::{Follow, FollowError, HEAD_TIMEOUT};
use super::objects::{IssuerObject, LabelledNamespace, NamespaceObject, SecretObject, SourceObject};

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

/// All namespaces, with their labels.
pub(crate) fn watch_labels(client: Client) -> Follow<LabelledNamespace> {
    Follow::new(client, None, None)
}

/// All ClusterTokenIssuers.
pub(crate) fn watch_issuers(client: Client) -> Follow<IssuerObject> {
    Follow::new(client, None, None)
}

/// Whether the Secrets of a namespace may be listed, as the list of one says.
///
/// # Errors
/// They may not ([`FollowError::is_forbidden`]), or the API server does not answer.
pub(crate) async fn may_list_secrets(client: &Client, namespace: &str) -> Result<(), FollowError> {
    let path = SecretObject::url_path(&(), Some(namespace));
    let listed = timeout(HEAD_TIMEOUT, list_one(client, path, ListParams::default())).await;
    listed.map_err(|_| FollowError::Timeout)?.map_err(FollowError::List)
}
