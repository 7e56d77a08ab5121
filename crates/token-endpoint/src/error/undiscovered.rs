//! Issuers whose token endpoint is not known.

use super::class::{Class, ErrorKind};
use super::hint::Hint;
use http::StatusCode;

/// An issuer whose token endpoint is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the issuer {host} {problem}")]
pub struct Undiscovered {
    pub(super) host: String,
    pub(super) problem: DiscoveryProblem,
}

/// An issuer's metadata cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DiscoveryProblem {
    #[error(
        "has no metadata under /.well-known/openid-configuration or /.well-known/oauth-authorization-server (HTTP {})",
        .0.as_u16()
    )]
    NotFound(StatusCode),
    /// RFC 8414, 3.3 forbids its use.
    #[error("has metadata of another issuer, {}: write exactly that as the issuer, if it is the right one", .0.as_deref().unwrap_or("which it does not name"))]
    OtherIssuer(Option<String>),
    #[error("has metadata without a token_endpoint that is a URL")]
    NoTokenEndpoint,
}

impl DiscoveryProblem {
    pub(super) fn class(&self) -> Class {
        match self {
            Self::NotFound(status) if status.is_server_error() => Class::Transient,
            Self::NotFound(StatusCode::TOO_MANY_REQUESTS) => Class::Limited,
            Self::NotFound(_) => Class::Unclear,
            Self::OtherIssuer(_) | Self::NoTokenEndpoint => Class::Rejected,
        }
    }

    pub(super) fn hint(&self) -> Option<Hint> {
        match self {
            Self::NotFound(_) => Some(Hint::CheckIssuer),
            Self::OtherIssuer(_) => None,
            Self::NoTokenEndpoint => Some(Hint::SetTokenUrl),
        }
    }

    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound(_) => ErrorKind::Unavailable,
            Self::OtherIssuer(_) | Self::NoTokenEndpoint => ErrorKind::MalformedResponse,
        }
    }
}
