//! Reads everything that `explain` reports on, as far as the user's rights permit.

use k8s_openapi::api::core::v1::Secret;

use crate::cluster::{CallError, Kubernetes, UserCluster, UserClusterError};
use crate::key::Key;
use crate::secret::{Facts, Pod};
use tokensource_api::TokenSource;

/// An object of the TokenSource cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// The user's rights do not permit it.
    #[error("you may not {action} in {namespace}")]
    Forbidden {
        action: String,
        namespace: String,
        #[source]
        error: CallError,
    },
    #[error("{objects} could not be {verb}: {error}")]
    Failed {
        objects: &'static str,
        verb: &'static str,
        #[source]
        error: CallError,
    },
}

/// A TokenSource and everything that belongs to it. No `Debug`: that of a Secret prints its values.
pub(super) struct Found {
    pub(super) source: TokenSource,
    /// The metadata of the target Secret.
    pub(super) target: Result<Option<Facts>, ReadError>,
    pub(super) credentials: Result<Option<Secret>, ReadError>,
    /// The pods that use the target Secret.
    pub(super) pods: Result<Vec<Pod>, ReadError>,
}

/// Reads a TokenSource and everything that belongs to it; returns its namespace too.
pub(super) async fn read(namespace: Option<String>, name: &str) -> Result<(String, Found), UserClusterError> {
    let cluster = UserCluster::connect(namespace).await?;
    let source = cluster.token_source(name).await?;
    let kubernetes = cluster.kubernetes();
    let namespace = cluster.namespace;

    let target = Key::new(&namespace, source.target_name());
    let credentials = Key::new(&namespace, &source.spec.credentials.secret_ref.name);
    let secret_error =
        |key: &Key| read_error(format!("read Secret {}", key.name), &namespace, ("the Secret", "read"));
    let (target_facts, credentials_secret, pods) = tokio::join!(
        kubernetes.secret_facts(&target),
        kubernetes.secret(&credentials),
        pods(&kubernetes, &namespace, &target.name),
    );
    let found = Found {
        target: target_facts.map_err(secret_error(&target)),
        credentials: credentials_secret.map_err(secret_error(&credentials)),
        pods: pods.map_err(read_error("list pods".to_owned(), &namespace, ("the pods", "listed"))),
        source,
    };
    Ok((namespace, found))
}

/// The pods that have not ended and use the Secret. Reads page by page.
async fn pods(kubernetes: &Kubernetes, namespace: &str, secret: &str) -> Result<Vec<Pod>, CallError> {
    const NOT_ENDED: &str = "status.phase!=Succeeded,status.phase!=Failed";
    let (mut found, mut next) = (vec![], None);
    loop {
        let each = |pod: Pod| found.extend(Some(pod).filter(|pod| !pod.uses(secret).is_empty()));
        next = kubernetes.pods(namespace, NOT_ENDED, next.as_deref(), each).await?;
        if next.is_none() {
            return Ok(found);
        }
    }
}

fn read_error(
    action: String,
    namespace: &str,
    (objects, verb): (&'static str, &'static str),
) -> impl FnOnce(CallError) -> ReadError + use<> {
    let namespace = namespace.to_owned();
    move |error| match error {
        CallError::Refused(_) => ReadError::Forbidden { action, namespace, error },
        error => ReadError::Failed { objects, verb, error },
    }
}
