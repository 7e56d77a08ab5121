//! What the connection to a token endpoint is made with. Read at each mint and kept nowhere, so that whoever rotates a
//! certificate needs no watch of ours; a refresh without `spec.tls` costs no call more.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use secrecy::SecretString;

use crate::cluster::{CallError, Kubernetes};
use crate::key::Key;
use token_endpoint::{Tls, TlsError};
use tokensource_api::{self as api, CaBundle, KeyReference};

/// Where a text was read, in words.
struct Text {
    place: String,
    text: String,
}

/// What `spec.tls` names, as far as it exists.
#[derive(Default)]
pub(crate) struct Named {
    pub(crate) bundle_config_map: Option<ConfigMap>,
    pub(crate) bundle_secret: Option<Secret>,
    pub(crate) client_certificate: Option<Secret>,
}

impl Named {
    /// Reads it from the cluster.
    pub(crate) async fn fetch(
        spec: &api::Tls,
        kubernetes: &Kubernetes,
        namespace: &str,
    ) -> Result<Self, CallError> {
        let key = |name: &str| Key::new(namespace, name);
        let mut named = Named::default();
        if let Some(reference) = spec.ca_bundle.as_ref().and_then(|bundle| bundle.config_map_key_ref.as_ref())
        {
            named.bundle_config_map = kubernetes.config_map(&key(&reference.name)).await?;
        }
        if let Some(reference) = spec.ca_bundle.as_ref().and_then(|bundle| bundle.secret_key_ref.as_ref()) {
            named.bundle_secret = kubernetes.secret(&key(&reference.name)).await?;
        }
        if let Some(reference) = &spec.client_certificate_ref {
            named.client_certificate = kubernetes.secret(&key(&reference.name)).await?;
        }
        Ok(named)
    }

    /// What the connection is made with.
    ///
    /// # Errors
    /// Something is missing, or is not what it should be. The reason is always `SpecInvalid`.
    pub(crate) fn tls(self, spec: &api::Tls) -> Result<Tls, String> {
        let Named { bundle_config_map, bundle_secret, client_certificate } = self;
        let bundle = match &spec.ca_bundle {
            Some(bundle) => Some(ca_bundle(bundle, bundle_config_map, bundle_secret)?),
            None => None,
        };
        let client = match &spec.client_certificate_ref {
            Some(reference) => Some(chain_and_key(&reference.name, client_certificate)?),
            None => None,
        };
        let chain_and_key = client.as_ref().map(|(chain, key)| (chain.text.as_str(), key));
        Tls::new(bundle.as_ref().map(|bundle| bundle.text.as_str()), chain_and_key).map_err(|error| {
            let text = match &error {
                TlsError::EmptyBundle | TlsError::DamagedBundle(_) => bundle.as_ref(),
                _ => client.as_ref().map(|(chain, _)| chain),
            };
            let place = text.map(|text| text.place.as_str()).unwrap_or_default();
            format!("{place}: {error}")
        })
    }
}

fn ca_bundle(
    bundle: &CaBundle,
    config_map: Option<ConfigMap>,
    secret: Option<Secret>,
) -> Result<Text, String> {
    match (&bundle.config_map_key_ref, &bundle.secret_key_ref) {
        (Some(KeyReference { name, key }), _) => {
            let place = format!("spec.tls.caBundle, key {key} of ConfigMap {name}");
            let Some(found) = config_map else {
                return Err(format!("{place}: there is no such ConfigMap in this namespace"));
            };
            let binary = found.binary_data.unwrap_or_default();
            let text = found.data.unwrap_or_default().remove(key);
            let text = text.map(Ok).or_else(|| Some(utf8(binary.get(key)?)));
            read(place, text)
        }
        (None, Some(KeyReference { name, key })) => {
            let place = format!("spec.tls.caBundle, key {key} of Secret {name}");
            let data = secret_data(secret, &place)?;
            read(place, data.get(key).map(utf8))
        }
        // The API server's rules refuse it.
        (None, None) => Err("spec.tls.caBundle must have exactly one member".into()),
    }
}

/// The chain, and the key.
fn chain_and_key(name: &str, secret: Option<Secret>) -> Result<(Text, SecretString), String> {
    let place = format!("spec.tls.clientCertificateRef, Secret {name}");
    let data = secret_data(secret, &place)?;
    let text = |key| read(format!("{place}, key {key}"), data.get(key).map(utf8));
    let key = text("tls.key")?.text.into();
    Ok((Text { place: place.clone(), ..text("tls.crt")? }, key))
}

fn secret_data(secret: Option<Secret>, place: &str) -> Result<BTreeMap<String, ByteString>, String> {
    match secret {
        Some(secret) => Ok(secret.data.unwrap_or_default()),
        None => Err(format!("{place}: there is no such Secret in this namespace")),
    }
}

/// Why the bytes are no text.
struct NoText;

fn utf8(bytes: &ByteString) -> Result<String, NoText> {
    String::from_utf8(bytes.0.clone()).map_err(|_| NoText)
}

fn read(place: String, text: Option<Result<String, NoText>>) -> Result<Text, String> {
    match text {
        Some(Ok(text)) => Ok(Text { place, text }),
        Some(Err(NoText)) => {
            Err(format!("{place}: this is not PEM: store the file that begins with -----BEGIN"))
        }
        None => Err(format!("{place}: there is no such key: add it, or name the right one")),
    }
}
