//! Maps the error kinds of the crate `token-endpoint` to reasons of conditions.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use token_endpoint::ErrorKind;
use tokensource_api::Reason;

/// The reason of the condition that reports this kind of error.
#[must_use]
pub fn reason(kind: ErrorKind) -> Reason {
    match kind {
        ErrorKind::MissingCredential => Reason::CredentialsNotFound,
        ErrorKind::UnusableCredential => Reason::CredentialsInvalid,
        ErrorKind::InvalidDescription => Reason::SpecInvalid,
        ErrorKind::EgressRefused => Reason::EndpointRefusedByPolicy,
        ErrorKind::ClientRejected => Reason::ClientRejected,
        ErrorKind::GrantRejected => Reason::GrantRejected,
        ErrorKind::ScopeRejected => Reason::ScopeRejected,
        ErrorKind::RequestRejected => Reason::RequestRejected,
        ErrorKind::RateLimited => Reason::RateLimited,
        ErrorKind::Unavailable => Reason::EndpointUnavailable,
        ErrorKind::MalformedResponse => Reason::ResponseMalformed,
    }
}
