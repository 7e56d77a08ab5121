//! What the connection to a token endpoint is made with. Read at each mint and kept nowhere, so that whoever rotates a
//! certificate needs no watch of ours; a refresh without `spec.tls` costs no call more.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use secrecy::SecretString;

use super::reconcile::Pass;
use super::secrets::Key;
use super::stop::Stop;
use crate::api::{CaBundle, KeyReference, Reason};
use crate::oauth::{Tls, TlsError};

/// Where a text was read, in words.
struct Text {
    place: String,
    text: String,
}

impl Pass<'_> {
    /// Reads what `spec.tls` names.
    pub(super) async fn tls(&self) -> Result<Tls, Stop> {
        let Some(spec) = &self.source.spec.tls else { return Ok(Tls::default()) };
        let bundle = match &spec.ca_bundle {
            Some(bundle) => Some(self.ca_bundle(bundle).await?),
            None => None,
        };
        let client = match &spec.client_certificate_ref {
            Some(reference) => Some(self.client_certificate(&reference.name).await?),
            None => None,
        };
        let chain_and_key = client.as_ref().map(|(chain, key)| (chain.text.as_str(), key));
        Tls::new(bundle.as_ref().map(|bundle| bundle.text.as_str()), chain_and_key).map_err(|error| {
            let text = match &error {
                TlsError::EmptyBundle | TlsError::DamagedBundle(_) => bundle.as_ref(),
                _ => client.as_ref().map(|(chain, _)| chain),
            };
            let place = text.map(|text| text.place.as_str()).unwrap_or_default();
            unusable(format!("{place}: {error}"))
        })
    }

    async fn ca_bundle(&self, bundle: &CaBundle) -> Result<Text, Stop> {
        match (&bundle.config_map_key_ref, &bundle.secret_key_ref) {
            (Some(KeyReference { name, key }), _) => {
                let place = format!("spec.tls.caBundle, key {key} of ConfigMap {name}");
                let Some(found) = self.kubernetes.config_map(&self.beside(name)).await? else {
                    return Err(unusable(format!("{place}: there is no such ConfigMap in this namespace")));
                };
                let binary = found.binary_data.unwrap_or_default();
                let text = found.data.unwrap_or_default().remove(key);
                let text = text.map(Ok).or_else(|| Some(utf8(binary.get(key)?)));
                read(place, text)
            }
            (None, Some(KeyReference { name, key })) => {
                let place = format!("spec.tls.caBundle, key {key} of Secret {name}");
                let data = self.secret_data(name, &place).await?;
                read(place, data.get(key).map(utf8))
            }
            // The API server's rules refuse it.
            (None, None) => Err(unusable("spec.tls.caBundle must have exactly one member".into())),
        }
    }

    /// The chain, and the key.
    async fn client_certificate(&self, name: &str) -> Result<(Text, SecretString), Stop> {
        let place = format!("spec.tls.clientCertificateRef, Secret {name}");
        let data = self.secret_data(name, &place).await?;
        let text = |key| read(format!("{place}, key {key}"), data.get(key).map(utf8));
        let key = text("tls.key")?.text.into();
        Ok((Text { place: place.clone(), ..text("tls.crt")? }, key))
    }

    async fn secret_data(&self, name: &str, place: &str) -> Result<BTreeMap<String, ByteString>, Stop> {
        match self.kubernetes.secret(&self.beside(name)).await? {
            Some(secret) => Ok(secret.data.unwrap_or_default()),
            None => Err(unusable(format!("{place}: there is no such Secret in this namespace"))),
        }
    }

    fn beside(&self, name: &str) -> Key {
        Key::new(&self.identity.key.namespace, name)
    }
}

/// Why the bytes are no text.
struct NoText;

fn utf8(bytes: &ByteString) -> Result<String, NoText> {
    String::from_utf8(bytes.0.clone()).map_err(|_| NoText)
}

fn read(place: String, text: Option<Result<String, NoText>>) -> Result<Text, Stop> {
    match text {
        Some(Ok(text)) => Ok(Text { place, text }),
        Some(Err(NoText)) => {
            Err(unusable(format!("{place}: this is not PEM: store the file that begins with -----BEGIN")))
        }
        None => Err(unusable(format!("{place}: there is no such key: add it, or name the right one"))),
    }
}

/// Nobody watches what is wrong here, and it may be put right without a word: it is looked at again and again.
fn unusable(message: String) -> Stop {
    Stop::target(Reason::SpecInvalid, message)
}
