//! The cluster of whoever runs a command: their kubeconfig, and their rights.

use std::net::IpAddr;
use std::time::Duration;

use http::HeaderValue;
use http::header::USER_AGENT;
use kube::{Api, Client, Config};

use crate::cluster::CallError;
use crate::cluster::{AGENT, api_server_addresses};
use tokensource_api::TokenSource;

/// How long the API server may take for everything.
const PATIENCE: Duration = Duration::from_secs(30);

/// A way to the caller's cluster.
pub(crate) struct Caller {
    pub(crate) client: Client,
    /// The namespace that is meant.
    pub(crate) namespace: String,
    /// The API server's own addresses, which no token endpoint may have.
    pub(crate) api_server: Vec<IpAddr>,
}

impl Caller {
    /// By KUBECONFIG or ~/.kube/config; the namespace is that of the kubeconfig where none is named.
    pub(crate) async fn connect(namespace: Option<String>) -> Result<Self, String> {
        let mut configuration = Config::infer()
            .await
            .map_err(|error| format!("no cluster: neither KUBECONFIG nor ~/.kube/config: {error}"))?;
        configuration.default_retry = false;
        configuration.headers.push((USER_AGENT, HeaderValue::from_static(AGENT)));
        let api_server = api_server_addresses(&configuration);
        let namespace = namespace.unwrap_or_else(|| configuration.default_namespace.clone());
        let client = Client::try_from(configuration)
            .map_err(|error| format!("the cluster cannot be asked: {error}"))?;
        Ok(Caller { client, namespace, api_server })
    }

    /// Reads a TokenSource.
    pub(crate) async fn source(&self, name: &str) -> Result<TokenSource, String> {
        let namespace = &self.namespace;
        let sources: Api<TokenSource> = Api::namespaced(self.client.clone(), namespace);
        let source = format!("TokenSource {namespace}/{name}");
        tokio::time::timeout(PATIENCE, sources.get(name))
            .await
            .map_err(|_| "the API server does not answer".to_owned())?
            .map_err(|error| match error {
                // Of a kind that it does not know, the API server says this and no more.
                kube::Error::Api(status)
                    if status.code == 404 && status.message.contains("page not found") =>
                {
                    "this cluster knows no TokenSources: its CustomResourceDefinition is not installed"
                        .to_owned()
                }
                kube::Error::Api(status) if status.code == 404 => format!("{source} does not exist"),
                error => format!("{source} cannot be read: {}", CallError::from(error)),
            })
    }
}
