//! The cluster of the user who runs a command: their kubeconfig and their rights.

use std::net::IpAddr;
use std::time::Duration;

use http::HeaderValue;
use http::header::USER_AGENT;
use kube::config::InferConfigError;
use kube::{Api, Client, Config};

use super::call_error::CallError;
use super::calls::Kubernetes;
use super::client::{AGENT, api_server_addresses};
use crate::key::Key;
use tokensource_api::TokenSource;

/// The longest that a command waits for the TokenSource. A user can wait longer than a reconciliation.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The cluster of the kubeconfig.
pub(crate) struct UserCluster {
    client: Client,
    /// The namespace of the command line, else that of the kubeconfig.
    pub(crate) namespace: String,
    /// The API server's own addresses, which no token endpoint may have.
    pub(crate) addresses: Vec<IpAddr>,
}

/// The TokenSource of a command cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserClusterError {
    #[error("no cluster: neither KUBECONFIG nor ~/.kube/config: {0}")]
    Configuration(#[source] Box<InferConfigError>),
    #[error("the cluster cannot be asked: {0}")]
    Client(#[source] Box<kube::Error>),
    #[error("the API server does not answer")]
    Timeout,
    #[error("this cluster knows no TokenSources: its CustomResourceDefinition is not installed")]
    NotInstalled,
    #[error("TokenSource {0} does not exist")]
    NotFound(Key),
    #[error("TokenSource {key} cannot be read: {error}")]
    Unreadable {
        key: Key,
        #[source]
        error: CallError,
    },
}

impl UserCluster {
    /// Uses KUBECONFIG or ~/.kube/config.
    pub(crate) async fn connect(namespace: Option<String>) -> Result<Self, UserClusterError> {
        let mut configuration =
            Config::infer().await.map_err(|error| UserClusterError::Configuration(Box::new(error)))?;
        configuration.default_retry = false;
        configuration.headers.push((USER_AGENT, HeaderValue::from_static(AGENT)));
        let addresses = api_server_addresses(&configuration);
        let namespace = namespace.unwrap_or_else(|| configuration.default_namespace.clone());
        let client =
            Client::try_from(configuration).map_err(|error| UserClusterError::Client(Box::new(error)))?;
        Ok(UserCluster { client, namespace, addresses })
    }

    /// The calls to the API server, with the user's rights.
    pub(crate) fn kubernetes(&self) -> Kubernetes {
        Kubernetes::new(self.client.clone())
    }

    /// Reads a TokenSource.
    pub(crate) async fn token_source(&self, name: &str) -> Result<TokenSource, UserClusterError> {
        let key = Key::new(&self.namespace, name);
        let api: Api<TokenSource> = Api::namespaced(self.client.clone(), &self.namespace);
        match tokio::time::timeout(READ_TIMEOUT, api.get(name)).await {
            Err(_) => Err(UserClusterError::Timeout),
            Ok(Ok(source)) => Ok(source),
            // The API server's message where it does not know the kind.
            Ok(Err(kube::Error::Api(status)))
                if status.code == 404 && status.message.contains("page not found") =>
            {
                Err(UserClusterError::NotInstalled)
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(UserClusterError::NotFound(key)),
            Ok(Err(error)) => Err(UserClusterError::Unreadable { key, error: error.into() }),
        }
    }
}
