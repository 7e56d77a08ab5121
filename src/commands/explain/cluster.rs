//! Reads everything that `explain` reports on, as far as the user's rights permit.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::api::DynamicObject;

use crate::cluster::{CallError, UserCluster, UserClusterError};
use crate::commands::readers::pods_of;
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
    /// The ServiceAccount whose tokens are sent, where the spec names one.
    pub(super) service_account: Option<ServiceAccountFacts>,
    /// The pods of the namespace.
    pub(super) pods: Arc<Pods>,
}

/// What is known of a ServiceAccount.
pub(super) struct ServiceAccountFacts {
    /// Its annotation by which it consents; `None` inside: it has none.
    pub(super) consent: Result<Option<String>, ReadError>,
    /// The issuer of its tokens.
    pub(super) issuer: Result<String, ReadError>,
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
    let secret_error =
        |key: &Key| read_error(format!("read Secret {}", key.name), &key.namespace, ("the Secret", "read"));
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
    let service_account = async {
        let name = &source.spec.credentials.service_account_token.as_ref()?.name;
        let account = key.sibling(name.as_str());
        let (facts, issuer) = tokio::join!(kubernetes.account(&account), cluster.service_account_issuer());
        let read = format!("read ServiceAccount {name}");
        Some(ServiceAccountFacts {
            consent: facts.map(|facts| facts.consent).map_err(read_error(
                read,
                &key.namespace,
                ("the ServiceAccount", "read"),
            )),
            issuer: issuer.map_err(read_error(
                "read the issuer of ServiceAccount tokens (/.well-known/openid-configuration)".to_owned(),
                &key.namespace,
                ("the issuer of ServiceAccount tokens", "read"),
            )),
        })
    };
    let (target_facts, credentials_secret, refresh_token_secret, service_account) =
        tokio::join!(kubernetes.secret_facts(&target), credentials_secret, stored, service_account);
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
    pods.map_err(read_error("list pods".to_owned(), namespace, ("the pods", "listed")))
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
