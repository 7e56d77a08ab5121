//! Reads the TokenSource and its credentials from the cluster, with the user's kubeconfig. Nothing is written.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Secret;

use super::fault::Fault;
use super::input::Input;
use super::issuer::{self, Lender};
use super::requirements::Requirements;
use crate::cluster::{CallError, UserCluster, UserClusterError, UserConnection};
use crate::key::Key;
use crate::secret::{REFRESH_TOKEN_ANNOTATION, STORED_REFRESH_TOKEN_KEY, UNROTATED_KEY};
use crate::token_request::tls::Named;
use token_endpoint::EgressNetwork;
use tokensource_api::TokenSource;

/// What no token endpoint may have.
#[derive(Default)]
pub(super) struct Internal {
    /// The addresses of the API server.
    pub(super) api_server: Vec<IpAddr>,
    /// The networks of Services.
    pub(super) networks: Vec<EgressNetwork>,
}

/// Reads the input of a token request, and what no endpoint may have. `operator`: how it serves issuers, and what it requires of
/// others.
pub(super) async fn read(
    connection: &UserConnection,
    name: &str,
    operator: (Result<Lender, Fault>, Requirements),
    sends_refresh_token: impl Fn(&TokenSource) -> bool,
) -> Result<(Input, Internal), Fault> {
    let usage = |error: UserClusterError| Fault::usage(error.to_string());
    let cluster = UserCluster::connect(connection).await.map_err(usage)?;
    let mut source = cluster.token_source(name).await.map_err(usage)?;
    let (lender, requirements) = operator;
    requirements.check_source(&source)?;
    let (lender, issuer) = match &source.spec.issuer_ref {
        Some(_) => {
            let lender = lender?;
            let issuer = lender.lend(&cluster, &mut source).await?;
            (Some(lender), Some(issuer))
        }
        None => (None, None),
    };
    let kubernetes = cluster.kubernetes();
    let networks = cluster.service_networks().await;
    let UserCluster { namespace, addresses, token_check, .. } = cluster;

    // Where the Secrets of the request are.
    let material = lender.as_ref().map_or(&namespace, |lender| &lender.namespace);
    let is_lent = lender.is_some();
    let failed = |what: String| {
        move |error: CallError| {
            Fault::credentials(match is_lent {
                true => issuer::unread(&what, &error),
                false => format!("{what} cannot be read: {error}"),
            })
        }
    };
    let unreadable = |name: &str| failed(format!("Secret {material}/{name}"));
    if sends_refresh_token(&source) {
        let stored = Key::new(&namespace, &source.refresh_token_secret_name());
        let secret = kubernetes.secret(&stored).await.map_err(unreadable(&stored.name))?;
        if secret.is_some_and(|secret| may_hold_refresh_token(&secret)) {
            return Err(Fault::usage(format!(
                "the operator keeps the refresh token of this TokenSource in Secret {}, because it changes with every use: to use it here would leave the operator with a spent one. Try with `mint -f` and a refresh token of your own",
                stored.name
            )));
        }
    }
    let credentials = match &source.spec.credentials.secret_ref {
        Some(secret) => {
            let key = Key::new(material, &secret.name);
            kubernetes.secret(&key).await.map_err(unreadable(&secret.name))?
        }
        None => None,
    };
    if let Some(owner) = credentials.as_ref().and_then(stores_refresh_token_of) {
        let name =
            credentials.as_ref().and_then(|secret| secret.metadata.name.as_deref()).unwrap_or_default();
        return Err(Fault::credentials(format!(
            "Secret {name} stores the refresh token of TokenSource {owner}, which alone may send it, because it changes with every use"
        )));
    }
    let named = match &source.spec.tls {
        Some(spec) => Named::fetch(spec, &kubernetes, material)
            .await
            .map_err(failed("what spec.tls names".to_owned()))?,
        None => Named::default(),
    };
    let secrets = [&credentials, &named.bundle_secret, &named.client_certificate];
    secrets.into_iter().flatten().try_for_each(|secret| match &lender {
        Some(lender) => lender.check_released(secret),
        None => requirements.check_secret(secret, &namespace),
    })?;
    Ok((
        Input {
            namespace: Some(namespace),
            source,
            issuer,
            credentials,
            named,
            cluster: Some((kubernetes, token_check)),
        },
        Internal { api_server: addresses, networks },
    ))
}

/// Whether the operator's Secret for a refresh token holds one, or may as soon as a request has ended. It holds none where the
/// server has not rotated the original.
fn may_hold_refresh_token(secret: &Secret) -> bool {
    let has = |key: &str| secret.data.as_ref().is_some_and(|data| data.contains_key(key));
    has(STORED_REFRESH_TOKEN_KEY) || !has(UNROTATED_KEY)
}

/// The TokenSource whose refresh token the operator stores in a Secret.
fn stores_refresh_token_of(secret: &Secret) -> Option<&String> {
    secret.metadata.annotations.as_ref()?.get(REFRESH_TOKEN_ANNOTATION)
}
