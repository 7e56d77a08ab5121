//! The names of a request's credentials.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

/// One of the [`Credentials`](crate::Credentials).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Credential {
    /// [`Credentials::client_id`](field@crate::Credentials::client_id).
    ClientId,
    /// [`Credentials::client_secret`](field@crate::Credentials::client_secret).
    ClientSecret,
    /// [`Credentials::refresh_token`](field@crate::Credentials::refresh_token).
    RefreshToken,
    /// [`Credentials::private_key`](field@crate::Credentials::private_key).
    PrivateKey,
    /// [`Credentials::certificate`](field@crate::Credentials::certificate).
    Certificate,
    /// [`Credentials::subject_token`](field@crate::Credentials::subject_token).
    SubjectToken,
    /// [`Credentials::actor_token`](field@crate::Credentials::actor_token).
    ActorToken,
    /// [`Credentials::assertion`](field@crate::Credentials::assertion).
    Assertion,
    /// [`Credentials::client_assertion`](field@crate::Credentials::client_assertion).
    ClientAssertion,
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credential::ClientId => "client id",
            Credential::ClientSecret => "client secret",
            Credential::RefreshToken => "refresh token",
            Credential::PrivateKey => "private key",
            Credential::Certificate => "certificate",
            Credential::SubjectToken => "subject token",
            Credential::ActorToken => "actor token",
            Credential::Assertion => "assertion",
            Credential::ClientAssertion => "client assertion",
        })
    }
}
