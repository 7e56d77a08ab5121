//! The TokenSource and its credentials as the cluster has them, read with the caller's own kubeconfig. Nothing is written.

use std::net::IpAddr;
use std::time::Duration;

use http::HeaderValue;
use http::header::USER_AGENT;
use kube::{Api, Client, Config};

use super::{Fault, Given};
use crate::api::TokenSource;
use crate::controller::tls::Named;
use crate::controller::{CallError, Key, Kubernetes};
use crate::operator::{AGENT, api_server_addresses};

/// How long the API server may take for everything.
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads what is needed; with the addresses of the API server, which no endpoint may have.
pub(super) async fn read(
    namespace: Option<String>,
    name: &str,
    spends: impl Fn(&TokenSource) -> bool,
) -> Result<(Given, Vec<IpAddr>), Fault> {
    let mut configuration = Config::infer().await.map_err(|error| {
        Fault::usage(format!("no cluster: neither KUBECONFIG nor ~/.kube/config: {error}"))
    })?;
    configuration.default_retry = false;
    configuration.headers.push((USER_AGENT, HeaderValue::from_static(AGENT)));
    let addresses = api_server_addresses(&configuration);
    let namespace = namespace.unwrap_or_else(|| configuration.default_namespace.clone());
    let client = Client::try_from(configuration)
        .map_err(|error| Fault::usage(format!("the cluster cannot be asked: {error}")))?;

    let sources: Api<TokenSource> = Api::namespaced(client.clone(), &namespace);
    let source = tokio::time::timeout(PATIENCE, sources.get_opt(name))
        .await
        .map_err(|_| Fault::usage("the API server does not answer".to_owned()))?
        .map_err(|error| Fault::usage(format!("TokenSource {namespace}/{name} cannot be read: {error}")))?
        .ok_or_else(|| Fault::usage(format!("TokenSource {namespace}/{name} does not exist")))?;

    let kubernetes = Kubernetes::new(client);
    let unreadable = |name: &str| {
        let what = format!("Secret {namespace}/{name} cannot be read");
        move |error: CallError| Fault::credentials(format!("{what}: {error}"))
    };
    if spends(&source) {
        let kept = Key::new(&namespace, &source.refresh_token_secret_name());
        if kubernetes.secret_facts(&kept).await.map_err(unreadable(&kept.name))?.is_some() {
            return Err(Fault::usage(format!(
                "the operator keeps the refresh token of this TokenSource in Secret {}, because it changes with every use: to use it here would leave the operator with a spent one. Try with `mint -f` and a refresh token of your own",
                kept.name
            )));
        }
    }
    let secret = Key::new(&namespace, &source.spec.credentials.secret_ref.name);
    let credentials = kubernetes.secret(&secret).await.map_err(unreadable(&secret.name))?;
    let named = match &source.spec.tls {
        Some(spec) => Named::fetch(spec, &kubernetes, &namespace)
            .await
            .map_err(|error| Fault::credentials(format!("what spec.tls names cannot be read: {error}")))?,
        None => Named::default(),
    };
    Ok((Given { namespace: Some(namespace), source, credentials, named }, addresses))
}
