//! Failures that a token endpoint reports.

use super::body::{ErrorBody, KnownCode};
use super::class::{Class, ErrorKind};
use super::hint::Hint;
use http::StatusCode;
use secrecy::SecretString;
use std::fmt;

/// What came instead of the JSON that was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    /// `type/subtype` in lower case; `None` if absent or not safe to repeat.
    pub(crate) media_type: Option<String>,
    /// Bytes of the body that were read.
    pub(crate) length: usize,
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.length, self.media_type.as_deref()) {
            (0, _) => f.write_str("an empty body"),
            (length, Some(media_type)) => write!(f, "{length} bytes of {media_type}"),
            (length, None) => write!(f, "{length} bytes of no known media type"),
        }
    }
}

/// An answer that reports a failure: its status, and its body in any of the known formats.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) body: ErrorBody,
    pub(crate) shape: Shape,
    /// Seconds.
    pub(crate) retry_after: Option<u64>,
    /// Whether Basic authentication percent-encoded something that the server may not have decoded.
    pub(crate) encoded_differs: bool,
    /// A success whose body reports an error may hold one.
    pub(crate) refresh_token: Option<SecretString>,
}

impl std::error::Error for Refusal {}

impl Refusal {
    /// A known code decides, at any status; without one the status does.
    pub(super) fn classify(&self) -> (Class, ErrorKind) {
        if let Some(KnownCode { class, kind, .. }) = self.body.known() {
            return (*class, *kind);
        }
        match self.status.as_u16() {
            408 | 425 | 500..=599 => (Class::Transient, ErrorKind::Unavailable),
            429 => (Class::Limited, ErrorKind::RateLimited),
            401 => (Class::Rejected, ErrorKind::ClientRejected),
            300..=399 | 407 => (Class::Rejected, ErrorKind::RequestRejected),
            200..=299 if matches!(self.body, ErrorBody::Unknown(_)) => {
                (Class::Rejected, ErrorKind::RequestRejected)
            }
            200..=299 => (Class::Malformed, ErrorKind::MalformedResponse),
            404 | 410 => (Class::Unclear, self.unclear_kind()),
            _ if matches!(self.body, ErrorBody::Unknown(_)) => (Class::Rejected, ErrorKind::RequestRejected),
            _ => (Class::Unclear, self.unclear_kind()),
        }
    }

    /// An answer without JSON comes mostly from an intermediary and not from the endpoint.
    fn unclear_kind(&self) -> ErrorKind {
        match self.body {
            ErrorBody::Nothing => ErrorKind::Unavailable,
            _ => ErrorKind::RequestRejected,
        }
    }

    pub(super) fn hint(&self) -> Option<Hint> {
        let (class, kind) = self.classify();
        if class == Class::LockedOut {
            return Some(Hint::WaitForUnlock);
        }
        if kind == ErrorKind::ClientRejected && self.encoded_differs {
            return Some(Hint::AvoidPercentEncoding);
        }
        if self.body.known().is_some() {
            return None;
        }
        match (self.status.as_u16(), &self.body) {
            (300..=399, _) => Some(Hint::UseRedirectTarget),
            (401, _) => Some(Hint::CheckClientCredentials),
            (403, ErrorBody::Nothing) => Some(Hint::CheckIntermediary),
            (404, _) => Some(Hint::CheckTokenUrlPath),
            (407, _) => Some(Hint::AuthenticateToProxy),
            _ => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the token endpoint answered HTTP {}", self.status.as_u16())?;
        match &self.body {
            ErrorBody::Known(known, None) => write!(f, ", {}", known.code),
            ErrorBody::Known(known, Some(description)) => write!(f, ", {}: {description}", known.code),
            ErrorBody::Unknown(code) => write!(f, ", {code}"),
            ErrorBody::Sentence(sentence) => write!(f, ": {sentence}"),
            ErrorBody::Nothing => write!(f, " with {} and no error code", self.shape),
        }
    }
}
