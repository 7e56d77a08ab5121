//! Reads everything that `explain` reports on, as far as the user's rights permit.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::api::DynamicObject;

use super::read_error::{ReadError, read_error};
use super::service_account::{self, ServiceAccountFacts};
use crate::cluster::{UserCluster, UserClusterError};
use crate::commands::readers::pods_of;
use crate::key::Key;
use crate::secret::{Facts, Pod};
use tokensource_api::TokenSource;

/// The pods of a namespace.
pub(super) type Pods = Result<Vec<Pod>, ReadError>;

/// A TokenSource and everything that belongs to it. No `Debug`: that of a Secret prints its values.
pub(super) struct Found {
    pub(super) source: TokenSource,
    /// The metadata of the target Secret.
    pub(super) target: Result<Option<Facts>, ReadError>,
    pub(super) credentials: Result<Option<Secret>, ReadError>,
    /// The Secret for a rotated refresh token; read only where the grant sends one.
    pub(super) refresh_token: Result<Option<Secret>, ReadError>,
    /// The ServiceAccount whose tokens are sent, where one is known.
    pub(super) service_account: Option<ServiceAccountFacts>,
    /// The pods of the namespace.
    pub(super) pods: Arc<Pods>,
}

/// A TokenSource cannot be explained.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExplainError {
    #[error(transparent)]
    Cluster(#[from] UserClusterError),
    #[error("TokenSource {0} has a spec that this version of the command cannot read")]
    Unreadable(Key),
}

/// Reads what belongs to a TokenSource; `pods` are those of its namespace.
pub(super) async fn read(
    cluster: &UserCluster,
    source: DynamicObject,
    sends_refresh_token: impl Fn(&TokenSource) -> bool,
    pods: Arc<Pods>,
) -> Result<Found, ExplainError> {
    let key = Key::of(&source.metadata);
    let read = serde_json::to_value(source).and_then(serde_json::from_value::<TokenSource>);
    let source = read.map_err(|_| ExplainError::Unreadable(key.clone()))?;
    let kubernetes = cluster.kubernetes();
    let target = key.sibling(source.target_name());
    let credentials = source.spec.credentials.secret_ref.as_ref().map(|it| key.sibling(it.name.as_str()));
    let secret_error = |key: &Key| {
        read_error(format!("read Secret {} in {}", key.name, key.namespace), ("the Secret", "read"))
    };
    let credentials_secret = async {
        let Some(key) = &credentials else { return Ok(None) };
        kubernetes.secret(key).await.map_err(secret_error(key))
    };
    let refresh_token = key.sibling(source.refresh_token_secret_name());
    let stored = async {
        match sends_refresh_token(&source) {
            true => kubernetes.secret(&refresh_token).await,
            false => Ok(None),
        }
    };
    let (target_facts, credentials_secret, refresh_token_secret, service_account) = tokio::join!(
        kubernetes.secret_facts(&target),
        credentials_secret,
        stored,
        service_account::read(cluster, &key, &source)
    );
    Ok(Found {
        target: target_facts.map_err(secret_error(&target)),
        credentials: credentials_secret,
        refresh_token: refresh_token_secret.map_err(secret_error(&refresh_token)),
        service_account,
        pods,
        source,
    })
}

/// The pods of a namespace that use one of these Secrets.
pub(super) async fn read_pods(cluster: &UserCluster, namespace: &str, secrets: &[String]) -> Pods {
    let uses = |pod: &Pod| secrets.iter().any(|secret| !pod.uses(secret).is_empty());
    let pods = pods_of(&cluster.kubernetes(), namespace, uses).await;
    pods.map_err(read_error(format!("list pods in {namespace}"), ("the pods", "listed")))
}
