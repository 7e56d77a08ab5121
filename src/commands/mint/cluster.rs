//! The TokenSource and its credentials as the cluster has them, read with the caller's own kubeconfig. Nothing is written.

use std::net::IpAddr;

use super::{Fault, Given};
use crate::cluster::{CallError, Kubernetes};
use crate::commands::caller::Caller;
use crate::key::Key;
use crate::token_request::tls::Named;
use tokensource_api::TokenSource;

/// Reads what is needed; with the addresses of the API server, which no endpoint may have.
pub(super) async fn read(
    namespace: Option<String>,
    name: &str,
    spends: impl Fn(&TokenSource) -> bool,
) -> Result<(Given, Vec<IpAddr>), Fault> {
    let caller = Caller::connect(namespace).await.map_err(Fault::usage)?;
    let source = caller.source(name).await.map_err(Fault::usage)?;
    let Caller { client, namespace, api_server } = caller;

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
    Ok((Given { namespace: Some(namespace), source, credentials, named }, api_server))
}
