//! The credentials of a request.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::credential::Credential;
use super::error::RequestError;
use super::limits::MAX_CREDENTIAL;
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;
use std::fmt;

/// The credentials of a request, each of at most [`MAX_CREDENTIAL`] bytes. Those that a description does not need are ignored.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The client identifier (RFC 6749, 2.2).
    pub client_id: Option<String>,
    /// The client's password (RFC 6749, 2.3.1).
    pub client_secret: Option<SecretString>,
    /// For [`Grant::RefreshToken`](super::Grant::RefreshToken).
    pub refresh_token: Option<SecretString>,
    /// PEM, or a Google service account key file: signs assertions.
    pub private_key: Option<SecretString>,
    /// PEM of the certificate whose thumbprint an assertion carries.
    pub certificate: Option<String>,
    /// For [`Grant::TokenExchange`](super::Grant::TokenExchange).
    pub subject_token: Option<SecretString>,
    /// For [`Grant::TokenExchange`](super::Grant::TokenExchange).
    pub actor_token: Option<SecretString>,
    /// For [`Grant::Assertion`](super::Grant::Assertion). Another program renews it: it identifies nothing.
    pub assertion: Option<SecretString>,
    /// For [`ClientAuthentication::Assertion`](super::ClientAuthentication::Assertion). Likewise.
    pub client_assertion: Option<SecretString>,
    /// Of whom the assertion speaks, where that is known. It identifies the grant, and is not sent.
    pub asserted: Option<String>,
    /// Of whom the client's assertion speaks, where that is known. It identifies the client, and is not sent.
    pub client_asserted: Option<String>,
    /// The values of secret parameters and headers, by key.
    pub values: BTreeMap<String, SecretString>,
    /// Credentials as they were stored, where something was cut off them before they are sent. Digests are of these, and both
    /// forms are redacted.
    pub stored: BTreeMap<Credential, SecretString>,
}

impl Credentials {
    /// All values in a fixed order and as they were stored, including absent ones, so that a digest over them identifies the
    /// credentials. Not the assertions, of which each lives for minutes.
    pub(super) fn all(&self) -> impl Iterator<Item = Option<&[u8]>> {
        self.of_client().chain([self.client_asserted()]).chain(self.of_grant())
    }

    /// Those with which the client proves itself.
    pub(super) fn of_client(&self) -> impl Iterator<Item = Option<&[u8]>> {
        let plain = [
            self.as_stored(Credential::ClientId, self.client_id.as_deref()),
            self.as_stored(Credential::Certificate, self.certificate.as_deref()),
        ];
        let secrets =
            [(Credential::ClientSecret, &self.client_secret), (Credential::PrivateKey, &self.private_key)];
        plain.into_iter().chain(secrets.map(|(which, value)| self.secret_as_stored(which, value)))
    }

    /// The others.
    pub(super) fn of_grant(&self) -> impl Iterator<Item = Option<&[u8]>> {
        let secrets = [
            (Credential::RefreshToken, &self.refresh_token),
            (Credential::SubjectToken, &self.subject_token),
            (Credential::ActorToken, &self.actor_token),
        ];
        let secrets = secrets.map(|(which, value)| self.secret_as_stored(which, value));
        [self.asserted()].into_iter().chain(secrets).chain(self.values())
    }

    /// Of whom the assertion speaks.
    pub(super) fn asserted(&self) -> Option<&[u8]> {
        self.asserted.as_deref().map(str::as_bytes)
    }

    /// Of whom the client's assertion speaks.
    pub(super) fn client_asserted(&self) -> Option<&[u8]> {
        self.client_asserted.as_deref().map(str::as_bytes)
    }

    /// Secret parameters and headers.
    pub(super) fn values(&self) -> impl Iterator<Item = Option<&[u8]>> {
        let values = self.values.iter().flat_map(|(key, value)| [key.as_str(), value.expose_secret()]);
        values.map(|value| Some(value.as_bytes()))
    }

    fn secret_as_stored<'a>(&'a self, which: Credential, sent: &'a Option<SecretString>) -> Option<&'a [u8]> {
        self.as_stored(which, sent.as_ref().map(ExposeSecret::expose_secret))
    }

    fn as_stored<'a>(&'a self, which: Credential, sent: Option<&'a str>) -> Option<&'a [u8]> {
        self.stored.get(&which).map(ExposeSecret::expose_secret).or(sent).map(str::as_bytes)
    }

    /// The bytes of all values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let assertions = [&self.assertion, &self.client_assertion].into_iter().flatten();
        let assertions = assertions.map(|assertion| assertion.expose_secret().len());
        self.all().flatten().map(<[u8]>::len).chain(assertions).sum()
    }

    /// Replaces the refresh token by one that descends from it.
    pub fn replace_refresh_token(&mut self, refresh_token: SecretString) {
        self.stored.remove(&Credential::RefreshToken);
        self.refresh_token = Some(refresh_token);
    }

    /// Whether `text` contains one of the secrets.
    #[must_use]
    pub fn are_told_in(&self, text: &str) -> bool {
        [
            &self.client_secret,
            &self.refresh_token,
            &self.subject_token,
            &self.actor_token,
            &self.assertion,
            &self.client_assertion,
        ]
        .into_iter()
        .flatten()
        .chain(self.values.values())
        .chain(
            self.stored.iter().filter(|(which, _)| **which != Credential::ClientId).map(|(_, value)| value),
        )
        .map(ExposeSecret::expose_secret)
        .any(|secret| !secret.is_empty() && text.contains(secret))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn shown<T>(value: Option<&T>) -> &'static str {
            if value.is_some() { "[redacted]" } else { "none" }
        }
        f.debug_struct("Credentials")
            .field("client_id", &shown(self.client_id.as_ref()))
            .field("client_secret", &shown(self.client_secret.as_ref()))
            .field("refresh_token", &shown(self.refresh_token.as_ref()))
            .field("private_key", &shown(self.private_key.as_ref()))
            .field("certificate", &shown(self.certificate.as_ref()))
            .field("subject_token", &shown(self.subject_token.as_ref()))
            .field("actor_token", &shown(self.actor_token.as_ref()))
            .field("assertion", &shown(self.assertion.as_ref()))
            .field("client_assertion", &shown(self.client_assertion.as_ref()))
            .field("asserted", &shown(self.asserted.as_ref()))
            .field("values", &self.values.keys())
            .finish()
    }
}

impl Credentials {
    pub(super) fn client_id(&self) -> Result<&str, RequestError> {
        present(self.client_id.as_deref(), Credential::ClientId)
    }

    /// That of a public client, which may have none.
    pub(super) fn client_id_if_any(&self) -> Result<Option<&str>, RequestError> {
        match self.client_id() {
            Err(RequestError::Missing(_)) => Ok(None),
            id => id.map(Some),
        }
    }

    pub(super) fn client_secret(&self) -> Result<&str, RequestError> {
        expose(self.client_secret.as_ref(), Credential::ClientSecret)
    }

    pub(super) fn refresh_token(&self) -> Result<&str, RequestError> {
        expose(self.refresh_token.as_ref(), Credential::RefreshToken)
    }

    pub(super) fn private_key(&self) -> Result<&SecretString, RequestError> {
        expose(self.private_key.as_ref(), Credential::PrivateKey)?;
        self.private_key.as_ref().ok_or(RequestError::Missing(Credential::PrivateKey))
    }

    pub(super) fn certificate(&self) -> Result<&str, RequestError> {
        present(self.certificate.as_deref(), Credential::Certificate)
    }

    pub(super) fn subject_token(&self) -> Result<&str, RequestError> {
        expose(self.subject_token.as_ref(), Credential::SubjectToken)
    }

    pub(super) fn actor_token(&self) -> Result<&str, RequestError> {
        expose(self.actor_token.as_ref(), Credential::ActorToken)
    }

    pub(super) fn assertion(&self) -> Result<&str, RequestError> {
        expose(self.assertion.as_ref(), Credential::Assertion)
    }

    pub(super) fn client_assertion(&self) -> Result<&str, RequestError> {
        expose(self.client_assertion.as_ref(), Credential::ClientAssertion)
    }

    pub(super) fn value(&self, key: &str) -> Result<&str, RequestError> {
        let value = self.values.get(key).map(ExposeSecret::expose_secret).filter(|value| !value.is_empty());
        match value.ok_or_else(|| RequestError::MissingValue(key.to_owned()))? {
            long if long.len() > MAX_CREDENTIAL => Err(RequestError::LongValue(key.to_owned())),
            value => Ok(value),
        }
    }
}

fn present(value: Option<&str>, which: Credential) -> Result<&str, RequestError> {
    match value.filter(|value| !value.is_empty()).ok_or(RequestError::Missing(which))? {
        long if long.len() > MAX_CREDENTIAL => Err(RequestError::LongCredential(which)),
        value => Ok(value),
    }
}

fn expose(value: Option<&SecretString>, which: Credential) -> Result<&str, RequestError> {
    present(value.map(ExposeSecret::expose_secret), which)
}
