//! The reason of a condition, for what a client of token endpoints calls an error.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use token_endpoint::ErrorKind;
use tokensource_api::Reason;

/// The reason that people read for this kind of error.
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
