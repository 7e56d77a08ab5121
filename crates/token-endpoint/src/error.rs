//! Why there is no token. Every error knows by itself its class, its reason and its safe message; none holds a
//! body, a secret or a URL.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::dialect::{KnownCode, Said};
use super::discovery::DiscoveryProblem;
use super::egress::EgressRefused;
use super::mapping::Pointer;
use super::request::RequestError;
use http::StatusCode;
use secrecy::SecretString;
use std::fmt;

/// What failed, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The credentials do not hold what the request needs.
    MissingCredential,
    /// A credential is there and cannot be used.
    UnusableCredential,
    /// The description asks for what cannot be expressed.
    InvalidDescription,
    /// The egress policy does not allow the endpoint.
    EgressRefused,
    /// The endpoint does not accept the client.
    ClientRejected,
    /// The endpoint does not accept the grant.
    GrantRejected,
    /// The endpoint does not grant the scope.
    ScopeRejected,
    /// The endpoint does not accept the request.
    RequestRejected,
    /// The endpoint asks for fewer requests, or has locked the client out.
    RateLimited,
    /// The endpoint cannot be reached, gives no answer in time, or fails itself.
    Unavailable,
    /// A success without a usable token, or metadata that cannot be used.
    MalformedResponse,
}

/// What a failure says about the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// It may work in a moment.
    Transient,
    /// The endpoint asks for fewer requests (HTTP 429).
    Limited,
    /// It may pass, or a person must act: nothing recognisable came back.
    Unclear,
    /// A person must act; trying fast does harm.
    Rejected,
    /// The endpoint has locked the client out; every further failed login makes it longer.
    LockedOut,
    /// A success without a usable token; each try may cost one.
    Malformed,
    /// Nothing was sent and nothing will be until the configuration changes.
    Configuration,
}

/// Why one attempt to get a token failed. `Display` is the message for a condition: it has no secret in it, and
/// the remedy where there is one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No request could be made.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The egress policy of the operator.
    #[error(transparent)]
    Egress(#[from] EgressRefused),
    /// The name has no address, or the resolver does not answer.
    #[error("the name {host} cannot be resolved: {cause}")]
    Dns {
        /// As in the URL.
        host: String,
        /// What the system says.
        cause: String,
    },
    /// No TCP connection.
    #[error("cannot connect to {host}: {cause}")]
    Connect {
        /// As in the URL.
        host: String,
        /// What the system says.
        cause: String,
    },
    /// The proxy does not connect to the endpoint.
    #[error("the proxy does not connect to {host}: {cause}")]
    Proxy {
        /// As in the URL.
        host: String,
        /// What the HTTP library says.
        cause: String,
        /// HTTP 407: the proxy wants to know who asks.
        wants_authentication: bool,
    },
    /// No connection within [`CONNECT_TIMEOUT`](super::transport::CONNECT_TIMEOUT).
    #[error("no connection to {host} within {seconds} s: is there a firewall or a NetworkPolicy on the way?")]
    ConnectTimeout {
        /// As in the URL.
        host: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// TLS came as far as the server's certificate, which is not trusted.
    #[error("the certificate of {host} is not trusted: {problem}")]
    Certificate {
        /// As in the URL.
        host: String,
        /// With the remedy.
        problem: &'static str,
    },
    /// TLS came as far as the client's certificate, which the server does not accept (RFC 8705).
    #[error(
        "{host} does not accept the client certificate ({cause}): is one configured, still valid, and registered there?"
    )]
    ClientCertificate {
        /// As in the URL.
        host: String,
        /// The server's alert.
        cause: String,
    },
    /// TLS was cut or could not be agreed on.
    #[error("the TLS handshake with {host} failed: {cause}")]
    Handshake {
        /// As in the URL.
        host: String,
        /// What the TLS library says.
        cause: String,
    },
    /// The whole attempt took too long.
    #[error("{host} gave no complete answer within {seconds} s")]
    Timeout {
        /// As in the URL.
        host: String,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The request went out, and no complete HTTP answer came back.
    #[error("{host} cut the connection, or did not answer in HTTP: {cause}")]
    Cut {
        /// As in the URL.
        host: String,
        /// What the HTTP library says.
        cause: String,
    },
    /// The issuer's metadata (RFC 8414) is of no use.
    #[error(transparent)]
    Discovery(Box<Undiscovered>),
    /// An answer that reports a failure.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// A success without a usable token.
    #[error(transparent)]
    Unusable(Box<Unusable>),
}

impl Error {
    /// What the failure says about the next attempt.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Error::Request(_) | Error::Egress(_) => Class::Configuration,
            Error::Dns { .. }
            | Error::Connect { .. }
            | Error::ConnectTimeout { .. }
            | Error::Handshake { .. }
            | Error::Timeout { .. }
            | Error::Cut { .. } => Class::Transient,
            Error::Certificate { .. }
            | Error::ClientCertificate { .. }
            | Error::Proxy { wants_authentication: true, .. } => Class::Rejected,
            Error::Proxy { .. } => Class::Unclear,
            Error::Discovery(undiscovered) => undiscovered.problem.class(),
            Error::Refused(refusal) => refusal.judgement().0,
            Error::Unusable(_) => Class::Malformed,
        }
    }

    /// The word for conditions, events and metrics.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Request(error) => match error {
                RequestError::Missing(_) | RequestError::MissingValue(_) => ErrorKind::MissingCredential,
                RequestError::ColonInClientId
                | RequestError::Key(_)
                | RequestError::Certificate(_)
                | RequestError::HeaderValue(_) => ErrorKind::UnusableCredential,
                RequestError::Reserved(_)
                | RequestError::ReservedClaim(_)
                | RequestError::RefusedHeader(_)
                | RequestError::Resource(_)
                | RequestError::UserInfoInUrl
                | RequestError::NotAnAttempt
                | RequestError::NotDiscovered => ErrorKind::InvalidDescription,
            },
            Error::Egress(_) => ErrorKind::EgressRefused,
            Error::ClientCertificate { .. } => ErrorKind::ClientRejected,
            Error::Dns { .. }
            | Error::Connect { .. }
            | Error::Proxy { .. }
            | Error::ConnectTimeout { .. }
            | Error::Certificate { .. }
            | Error::Handshake { .. }
            | Error::Timeout { .. }
            | Error::Cut { .. } => ErrorKind::Unavailable,
            Error::Discovery(undiscovered) => undiscovered.problem.kind(),
            Error::Refused(refusal) => refusal.judgement().1,
            Error::Unusable(_) => ErrorKind::MalformedResponse,
        }
    }

    /// The least number of seconds to wait, as the endpoint asks for it (`Retry-After`), believed up to one hour.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Error::Refused(refusal) => refusal.retry_after,
            _ => None,
        }
    }

    /// The error code, if it is one that this client knows (RFC 6749, 5.2 and vendors' own), in its canonical
    /// spelling.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Error::Refused(refusal) => refusal.said.known().map(|known| known.code),
            _ => None,
        }
    }

    /// Whether the server may have acted on the request without our knowing: a refresh token may be spent.
    /// A timeout counts even while connecting, since the two cannot be told apart from outside.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        match self {
            Error::Timeout { .. } | Error::Cut { .. } => true,
            Error::Refused(refusal) => {
                matches!(refusal.status, StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT)
                    && refusal.said.known().is_none()
            }
            _ => false,
        }
    }

    /// The new refresh token of an answer that is of no use otherwise. It may be the only copy of the credential:
    /// persist it before anything else.
    #[must_use]
    pub fn refresh_token(&self) -> Option<&SecretString> {
        match self {
            Error::Unusable(unusable) => unusable.refresh_token.as_ref(),
            Error::Refused(refusal) => refusal.refresh_token.as_ref(),
            _ => None,
        }
    }
}

/// An issuer whose token endpoint is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the issuer {host} {problem}")]
pub struct Undiscovered {
    host: String,
    problem: DiscoveryProblem,
}

impl Error {
    pub(super) fn discovery(host: String, problem: DiscoveryProblem) -> Self {
        Error::Discovery(Box::new(Undiscovered { host, problem }))
    }
}

/// What came instead of the JSON that was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// `type/subtype` in lower case; `None` if absent or not worth repeating.
    pub(super) media_type: Option<String>,
    /// Bytes of the body that were read.
    pub(super) length: usize,
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

/// An answer that reports a failure: its status, and what it says in whichever dialect.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub(super) status: StatusCode,
    pub(super) said: Said,
    pub(super) shape: Shape,
    /// Seconds.
    pub(super) retry_after: Option<u64>,
    /// Whether Basic authentication percent-encoded something that the server may not have decoded.
    pub(super) encoded_differs: bool,
    /// A success with an error inside may hold one.
    pub(super) refresh_token: Option<SecretString>,
}

impl std::error::Error for Refusal {}

impl Refusal {
    /// A recognised code decides, at any status; the status decides only where there is none.
    fn judgement(&self) -> (Class, ErrorKind) {
        if let Some(KnownCode { class, reason, .. }) = self.said.known() {
            return (*class, *reason);
        }
        match self.status.as_u16() {
            408 | 425 | 500..=599 => (Class::Transient, ErrorKind::Unavailable),
            429 => (Class::Limited, ErrorKind::RateLimited),
            401 => (Class::Rejected, ErrorKind::ClientRejected),
            300..=399 | 407 => (Class::Rejected, ErrorKind::RequestRejected),
            200..=299 if matches!(self.said, Said::Unknown(_)) => {
                (Class::Rejected, ErrorKind::RequestRejected)
            }
            200..=299 => (Class::Malformed, ErrorKind::MalformedResponse),
            404 | 410 => (Class::Unclear, self.unclear_reason()),
            _ if matches!(self.said, Said::Unknown(_)) => (Class::Rejected, ErrorKind::RequestRejected),
            _ => (Class::Unclear, self.unclear_reason()),
        }
    }

    /// Where nothing in JSON came, it is likely not the endpoint itself that answered.
    fn unclear_reason(&self) -> ErrorKind {
        match self.said {
            Said::Nothing => ErrorKind::Unavailable,
            _ => ErrorKind::RequestRejected,
        }
    }

    fn remedy(&self) -> Option<&'static str> {
        let (class, reason) = self.judgement();
        if class == Class::LockedOut {
            return Some("the client is locked out after failed logins; the next attempt waits");
        }
        if reason == ErrorKind::ClientRejected && self.encoded_differs {
            return Some(
                "the client id or secret has characters that Basic authentication percent-encodes (RFC 6749, \
                 2.3.1): if both are right, the server may not decode them; then set clientAuthentication to \
                 `basic: {encoding: Raw}` or to `post: {}`",
            );
        }
        if self.said.known().is_some() {
            return None;
        }
        match (self.status.as_u16(), &self.said) {
            (300..=399, _) => Some("redirects are not followed: set tokenURL to where it leads"),
            (401, _) => Some("check the client id and secret"),
            (403, Said::Nothing) => Some("a firewall or proxy on the way seems to have answered"),
            (404, _) => Some("check the path of tokenURL"),
            (407, _) => Some("a proxy on the way asks for authentication"),
            _ => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the token endpoint answered HTTP {}", self.status.as_u16())?;
        match &self.said {
            Said::Known(known, None) => write!(f, ", {}", known.code)?,
            Said::Known(known, Some(description)) => write!(f, ", {}: {description}", known.code)?,
            Said::Unknown(code) => write!(f, ", {code}")?,
            Said::Sentence(sentence) => write!(f, ": {sentence}")?,
            Said::Nothing => write!(f, " with {} and no error code", self.shape)?,
        }
        match self.remedy() {
            Some(remedy) => write!(f, " ({remedy})"),
            None => Ok(()),
        }
    }
}

/// A success (HTTP 2xx) without a usable token.
#[derive(Clone, Debug)]
pub struct Unusable {
    pub(super) status: StatusCode,
    pub(super) fault: Fault,
    /// It was in the answer all the same.
    pub(super) refresh_token: Option<SecretString>,
}

impl std::error::Error for Unusable {}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the token endpoint answered HTTP {}, but {}", self.status.as_u16(), self.fault)
    }
}

/// What is wrong with a success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("with {0} instead of a JSON object (is tokenURL the token endpoint?)")]
    NotJson(Shape),
    #[error("with more than {0} bytes")]
    TooLarge(usize),
    #[error("without {}", no_token(.0.as_ref()))]
    NoToken(Option<Pointer>),
    #[error("with an empty access_token")]
    EmptyToken,
    #[error("with an access_token that holds characters outside of printable ASCII (RFC 6749, A.12)")]
    TokenCharacters,
    #[error("with control characters in {0}")]
    ControlCharacters(String),
    #[error("with more than 4096 bytes at {0}, where response.values looks")]
    LongValue(Pointer),
    #[error("with a secret at {0}, where response.values looks: remove that pointer")]
    SecretValue(Pointer),
    #[error("with a token of type {0}, which is useless to who cannot prove the possession of a key")]
    TokenType(&'static str),
}

fn no_token(pointer: Option<&Pointer>) -> String {
    pointer.map_or("an access_token".to_owned(), |pointer| {
        format!("a text at {pointer}, where response.accessToken says that the token is")
    })
}
