//! The cluster of the user who runs a command: their kubeconfig and their rights.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderValue;
use http::header::USER_AGENT;
use kube::api::ListParams;
use kube::config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::core::{Request, Status};
use kube::{Api, Client, Config, Resource};

use super::body::page;
use super::call_error::CallError;
use super::calls::Kubernetes;
use super::client::{AGENT, api_server_addresses};
use super::kept;
use super::objects::{Read, SourceMetadata};
use super::service_accounts::TokenCheck;
use super::service_networks::service_networks;
use crate::key::Key;
use token_endpoint::EgressNetwork;
use tokensource_api::TokenSource;

/// The longest that a command waits for one response by default. A user can wait longer than a reconciliation.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// The most TokenSources of a page.
pub(super) const PAGE_SIZE: u32 = 500;

/// How a user connects: the flags of kubectl.
#[derive(Clone, Debug, Default)]
pub(crate) struct UserConnection {
    /// A file instead of KUBECONFIG or ~/.kube/config.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Entries of the kubeconfig instead of those of its current context.
    pub(crate) context: Option<String>,
    pub(crate) cluster: Option<String>,
    pub(crate) user: Option<String>,
    /// A namespace instead of that of the context.
    pub(crate) namespace: Option<String>,
    /// Whom to impersonate.
    pub(crate) impersonated_user: Option<String>,
    pub(crate) impersonated_groups: Vec<String>,
    /// The longest that one response may take; zero: for ever. Default: 30 s.
    pub(crate) request_timeout: Option<Duration>,
}

/// The cluster of the kubeconfig.
#[derive(Clone)]
pub(crate) struct UserCluster {
    pub(super) client: Client,
    /// The namespace of the command line, else that of the kubeconfig.
    pub(crate) namespace: String,
    /// The API server's own addresses, which no token endpoint may have.
    pub(crate) addresses: Vec<IpAddr>,
    /// Tries tokens of ServiceAccounts.
    pub(crate) token_check: TokenCheck,
    timeout: Duration,
}

/// The cluster of a command cannot be asked, or refuses.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserClusterError {
    #[error("no cluster: neither KUBECONFIG nor ~/.kube/config: {0}")]
    Configuration(#[source] Box<InferConfigError>),
    #[error("the kubeconfig cannot be used: {0}")]
    Kubeconfig(#[source] Box<KubeconfigError>),
    #[error("the cluster cannot be asked: {0}")]
    Client(#[source] Box<kube::Error>),
    #[error("the API server does not answer")]
    Timeout,
    #[error("this cluster knows no TokenSources: its CustomResourceDefinition is not installed")]
    NotInstalled,
    #[error("TokenSources cannot be {verb}: {error}")]
    Refused {
        verb: &'static str,
        #[source]
        error: CallError,
    },
    #[error("TokenSource {0} does not exist")]
    NotFound(Key),
    #[error("TokenSource {key} cannot be {verb}: {error}")]
    OneRefused {
        key: Key,
        verb: &'static str,
        #[source]
        error: CallError,
    },
}

/// Whether the API server does not know the kind.
fn is_unknown_kind(status: &Status) -> bool {
    status.code == 404 && status.message.contains("page not found")
}

impl UserClusterError {
    /// Whether the same call may succeed a moment later, and how long the API server asks to wait: no answer, 429 or 5xx.
    pub(crate) fn passes(&self) -> Option<Option<Duration>> {
        match self {
            UserClusterError::Timeout => Some(None),
            UserClusterError::OneRefused { error: CallError::Unavailable(why), .. }
            | UserClusterError::Refused { error: CallError::Unavailable(why), .. } => Some(why.retry_after),
            _ => None,
        }
    }

    /// The error of a call about many TokenSources.
    pub(super) fn about_many(verb: &'static str, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if is_unknown_kind(&status) => UserClusterError::NotInstalled,
            error => UserClusterError::Refused { verb, error: error.into() },
        }
    }

    /// The error of a call about one.
    pub(super) fn about(key: Key, verb: &'static str, error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if is_unknown_kind(&status) => UserClusterError::NotInstalled,
            kube::Error::Api(status) if status.code == 404 => UserClusterError::NotFound(key),
            error => UserClusterError::OneRefused { key, verb, error: error.into() },
        }
    }
}

/// What a kubeconfig has entries of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KubeconfigEntry {
    Context,
    Cluster,
    User,
}

impl UserConnection {
    /// The names of the entries in the kubeconfig; none where it cannot be read.
    pub(crate) fn entries(&self, kind: KubeconfigEntry) -> Vec<String> {
        let read = match &self.kubeconfig {
            Some(path) => Kubeconfig::read_from(path),
            None => Kubeconfig::read(),
        };
        let Ok(Kubeconfig { contexts, clusters, auth_infos, .. }) = read else { return vec![] };
        match kind {
            KubeconfigEntry::Context => contexts.into_iter().map(|it| it.name).collect(),
            KubeconfigEntry::Cluster => clusters.into_iter().map(|it| it.name).collect(),
            KubeconfigEntry::User => auth_infos.into_iter().map(|it| it.name).collect(),
        }
    }

    async fn configuration(&self) -> Result<Config, UserClusterError> {
        let options = KubeConfigOptions {
            context: self.context.clone(),
            cluster: self.cluster.clone(),
            user: self.user.clone(),
        };
        let wrong = |error: KubeconfigError| UserClusterError::Kubeconfig(Box::new(error));
        let mut configuration = match &self.kubeconfig {
            Some(path) => {
                let kubeconfig = Kubeconfig::read_from(path).map_err(wrong)?;
                Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(wrong)?
            }
            None if self.context.is_some() || self.cluster.is_some() || self.user.is_some() => {
                Config::from_kubeconfig(&options).await.map_err(wrong)?
            }
            None => {
                Config::infer().await.map_err(|error| UserClusterError::Configuration(Box::new(error)))?
            }
        };
        configuration.default_retry = false;
        configuration.headers.push((USER_AGENT, HeaderValue::from_static(AGENT)));
        if let Some(user) = &self.impersonated_user {
            // In place of all that a kubeconfig says of impersonation.
            let auth = &mut configuration.auth_info;
            auth.impersonate = Some(user.clone());
            auth.impersonate_groups = Some(self.impersonated_groups.clone());
            (auth.impersonate_uid, auth.impersonate_user_extra) = (None, None);
        }
        Ok(configuration)
    }
}

impl UserCluster {
    /// Connects as the user's flags and kubeconfig say.
    pub(crate) async fn connect(connection: &UserConnection) -> Result<Self, UserClusterError> {
        let configuration = connection.configuration().await?;
        let addresses = api_server_addresses(&configuration);
        let namespace =
            connection.namespace.clone().unwrap_or_else(|| configuration.default_namespace.clone());
        let token_check =
            TokenCheck::new(&configuration).map_err(|error| UserClusterError::Client(Box::new(error)))?;
        let client =
            Client::try_from(configuration).map_err(|error| UserClusterError::Client(Box::new(error)))?;
        let timeout = match connection.request_timeout {
            None => DEFAULT_TIMEOUT,
            Some(Duration::ZERO) => Duration::MAX,
            Some(timeout) => timeout,
        };
        Ok(UserCluster { client, namespace, addresses, token_check, timeout })
    }

    /// The calls to the API server, with the user's rights.
    pub(crate) fn kubernetes(&self) -> Kubernetes {
        Kubernetes::new(self.client.clone()).within(self.timeout)
    }

    /// Waits for one response.
    pub(super) async fn bounded<T>(
        &self,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<kube::Result<T>, UserClusterError> {
        tokio::time::timeout(self.timeout, call).await.map_err(|_| UserClusterError::Timeout)
    }

    /// The networks of the cluster's Services, which no token endpoint may be in; none where the user may not list them.
    pub(crate) async fn service_networks(&self) -> Vec<EgressNetwork> {
        service_networks(&self.client).await.ok().flatten().unwrap_or_default()
    }

    /// The namespaces that have TokenSources, of all that the user may list.
    pub(crate) async fn namespaces_with_sources(&self) -> Result<BTreeSet<String>, UserClusterError> {
        let unlisted = |error| UserClusterError::about_many("listed", error);
        let (mut namespaces, mut next) = (BTreeSet::new(), None);
        loop {
            let params = ListParams { continue_token: next, ..ListParams::default() }.limit(PAGE_SIZE);
            let request = Request::new(SourceMetadata::url_path(&(), None)).list_metadata(&params);
            let request = request.map_err(|error| unlisted(kube::Error::BuildRequest(error)))?;
            let page = page(&self.client, request, kept::IDENTITY.list, |reduced| {
                namespaces.extend(SourceMetadata::read(reduced)?.meta().namespace.clone());
                Ok(())
            });
            next = self.bounded(page).await?.map_err(unlisted)?;
            if next.is_none() {
                return Ok(namespaces);
            }
        }
    }

    /// Reads a TokenSource of the namespace.
    pub(crate) async fn token_source(&self, name: &str) -> Result<TokenSource, UserClusterError> {
        let api: Api<TokenSource> = Api::namespaced(self.client.clone(), &self.namespace);
        let read = self.bounded(api.get(name)).await?;
        read.map_err(|error| UserClusterError::about(Key::new(&self.namespace, name), "read", error))
    }
}
