//! TLS material for the connection to a token endpoint. It is read for each token request and not cached, so that a rotated
//! certificate needs no watch; without `spec.tls` there is no further call.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};

use secrecy::SecretString;

use crate::cluster::{CallError, Kubernetes};
use crate::key::Key;
use crate::text::{NotText, decode};
use token_endpoint::{Tls, TlsError, Transport};
use tokensource_api::{self as api, CaBundle, KeyReference};

/// The objects that `spec.tls` names do not contain usable TLS material. The reason is always `SpecInvalid`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsMaterialError {
    #[error("{place}: there is no such {kind} in this namespace")]
    NoObject { place: String, kind: &'static str },
    #[error("{place}: there is no such key: add it, or name the right one")]
    NoKey { place: String },
    #[error("{place}: this is not PEM: store the file that begins with -----BEGIN")]
    NotText { place: String },
    /// The API server's validation rejects it.
    #[error("spec.tls.caBundle must have exactly one member")]
    NoBundleReference,
    #[error("{place}: {source}")]
    Unusable {
        place: String,
        #[source]
        source: TlsError,
    },
}

struct Text {
    /// The field of the spec and the object, for messages.
    place: String,
    text: String,
}

/// The objects that `spec.tls` names, as far as they exist.
#[derive(Default)]
pub(crate) struct Named {
    pub(crate) bundle_config_map: Option<ConfigMap>,
    pub(crate) bundle_secret: Option<Secret>,
    pub(crate) client_certificate: Option<Secret>,
}

impl Named {
    /// Reads them from the cluster.
    pub(crate) async fn fetch(
        spec: &api::Tls,
        kubernetes: &Kubernetes,
        namespace: &str,
    ) -> Result<Self, CallError> {
        let key = |name: &str| Key::new(namespace, name);
        let mut named = Named::default();
        if let Some(reference) = spec.ca_bundle.as_ref().and_then(|bundle| bundle.config_map_key_ref.as_ref())
        {
            named.bundle_config_map = kubernetes.config_map(&key(&reference.name)).await?.map(|mut found| {
                found.data.iter_mut().for_each(|data| data.retain(|key, _| *key == reference.key));
                found.binary_data.iter_mut().for_each(|data| data.retain(|key, _| *key == reference.key));
                found
            });
        }
        if let Some(reference) = spec.ca_bundle.as_ref().and_then(|bundle| bundle.secret_key_ref.as_ref()) {
            let found = kubernetes.secret(&key(&reference.name)).await?;
            named.bundle_secret = found.map(|found| with_keys(found, &[&reference.key]));
        }
        if let Some(reference) = &spec.client_certificate_ref {
            let found = kubernetes.secret(&key(&reference.name)).await?;
            named.client_certificate = found.map(|found| with_keys(found, &["tls.crt", "tls.key"]));
        }
        Ok(named)
    }

    /// Extracts the TLS material.
    ///
    /// # Errors
    /// An object or a key is missing, or its value is not usable.
    pub(crate) fn tls(self, spec: &api::Tls, transport: &Transport) -> Result<Tls, TlsMaterialError> {
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
        let bundle_text = bundle.as_ref().map(|bundle| bundle.text.as_str());
        transport.tls(bundle_text, chain_and_key).map_err(|source| {
            let text = match source.is_about_bundle() {
                true => bundle.as_ref(),
                false => client.as_ref().map(|(chain, _)| chain),
            };
            let place = text.map(|text| text.place.clone()).unwrap_or_default();
            TlsMaterialError::Unusable { place, source }
        })
    }
}

/// The Secret with these keys alone: the rest of it is not in memory while other objects are read.
fn with_keys(mut secret: Secret, keys: &[&str]) -> Secret {
    secret.data.iter_mut().for_each(|data| data.retain(|key, _| keys.contains(&key.as_str())));
    secret
}

fn ca_bundle(
    bundle: &CaBundle,
    config_map: Option<ConfigMap>,
    secret: Option<Secret>,
) -> Result<Text, TlsMaterialError> {
    match (&bundle.config_map_key_ref, &bundle.secret_key_ref) {
        (Some(KeyReference { name, key }), _) => {
            let place = format!("spec.tls.caBundle, key {key} of ConfigMap {name}");
            let Some(found) = config_map else {
                return Err(TlsMaterialError::NoObject { place, kind: "ConfigMap" });
            };
            let binary = found.binary_data.unwrap_or_default();
            let text = found.data.unwrap_or_default().remove(key);
            let text = text.map(Ok).or_else(|| Some(decoded(binary.get(key)?)));
            read(place, text)
        }
        (None, Some(KeyReference { name, key })) => {
            let place = format!("spec.tls.caBundle, key {key} of Secret {name}");
            let data = secret_data(secret, &place)?;
            read(place, data.get(key).map(decoded))
        }
        (None, None) => Err(TlsMaterialError::NoBundleReference),
    }
}

fn chain_and_key(name: &str, secret: Option<Secret>) -> Result<(Text, SecretString), TlsMaterialError> {
    let place = format!("spec.tls.clientCertificateRef, Secret {name}");
    let data = secret_data(secret, &place)?;
    let text = |key| read(format!("{place}, key {key}"), data.get(key).map(decoded));
    let key = text("tls.key")?.text.into();
    Ok((Text { place: place.clone(), ..text("tls.crt")? }, key))
}

fn secret_data(
    secret: Option<Secret>,
    place: &str,
) -> Result<BTreeMap<String, ByteString>, TlsMaterialError> {
    match secret {
        Some(secret) => Ok(secret.data.unwrap_or_default()),
        None => Err(TlsMaterialError::NoObject { place: place.to_owned(), kind: "Secret" }),
    }
}

fn decoded(bytes: &ByteString) -> Result<String, NotText> {
    decode(&bytes.0).map(Cow::into_owned)
}

fn read(place: String, text: Option<Result<String, NotText>>) -> Result<Text, TlsMaterialError> {
    match text {
        Some(Ok(text)) => Ok(Text { place, text }),
        Some(Err(NotText)) => Err(TlsMaterialError::NotText { place }),
        None => Err(TlsMaterialError::NoKey { place }),
    }
}
