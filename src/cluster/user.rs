//! The cluster of the user who runs a command: their kubeconfig and their rights.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use http::HeaderValue;
use http::header::USER_AGENT;
use kube::api::ListParams;
use kube::config::InferConfigError;
use kube::core::{Request, Status};
use kube::{Api, Client, Config, Resource};

use super::body::page;
use super::call_error::CallError;
use super::calls::Kubernetes;
use super::client::{AGENT, api_server_addresses};
use super::kept;
use super::objects::{Read, SourceMetadata};
use crate::key::Key;
use tokensource_api::TokenSource;

/// The longest that a command waits for the TokenSource. A user can wait longer than a reconciliation.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// The most TokenSources of a page.
const PAGE_SIZE: u32 = 500;

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
    #[error("TokenSources cannot be listed: {0}")]
    Unlisted(#[source] CallError),
    #[error("TokenSource {0} does not exist")]
    NotFound(Key),
    #[error("TokenSource {key} cannot be read: {error}")]
    Unreadable {
        key: Key,
        #[source]
        error: CallError,
    },
}

fn unlisted(error: kube::Error) -> UserClusterError {
    match error {
        kube::Error::Api(status) if is_unknown_kind(&status) => UserClusterError::NotInstalled,
        error => UserClusterError::Unlisted(error.into()),
    }
}

/// Whether the API server does not know the kind.
fn is_unknown_kind(status: &Status) -> bool {
    status.code == 404 && status.message.contains("page not found")
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

    /// The namespaces that have TokenSources, of all that the user may list.
    pub(crate) async fn namespaces_with_sources(&self) -> Result<BTreeSet<String>, UserClusterError> {
        let (mut namespaces, mut next) = (BTreeSet::new(), None);
        loop {
            let params = ListParams { continue_token: next, ..ListParams::default() }.limit(PAGE_SIZE);
            let request = Request::new(SourceMetadata::url_path(&(), None)).list_metadata(&params);
            let request = request.map_err(|error| unlisted(kube::Error::BuildRequest(error)))?;
            let page = page(&self.client, request, kept::IDENTITY.list, |reduced| {
                namespaces.extend(SourceMetadata::read(reduced)?.meta().namespace.clone());
                Ok(())
            });
            let page = tokio::time::timeout(READ_TIMEOUT, page).await;
            next = page.map_err(|_| UserClusterError::Timeout)?.map_err(unlisted)?;
            if next.is_none() {
                return Ok(namespaces);
            }
        }
    }

    /// Reads a TokenSource.
    pub(crate) async fn token_source(&self, name: &str) -> Result<TokenSource, UserClusterError> {
        let key = Key::new(&self.namespace, name);
        let api: Api<TokenSource> = Api::namespaced(self.client.clone(), &self.namespace);
        match tokio::time::timeout(READ_TIMEOUT, api.get(name)).await {
            Err(_) => Err(UserClusterError::Timeout),
            Ok(Ok(source)) => Ok(source),
            Ok(Err(kube::Error::Api(status))) if is_unknown_kind(&status) => {
                Err(UserClusterError::NotInstalled)
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(UserClusterError::NotFound(key)),
            Ok(Err(error)) => Err(UserClusterError::Unreadable { key, error: error.into() }),
        }
    }
}
