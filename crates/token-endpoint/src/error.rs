//! Failed token requests. An error knows its class, its kind and a message that is safe to show: it holds no body, no secret
//! and no URL.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub(crate) mod body;
mod class;
mod codes;
mod hint;
mod refusal;
mod request;
mod retry_after;
mod sentences;
mod shape;
mod undiscovered;
mod unusable;

pub use class::{Class, ErrorKind, Reach};
pub(crate) use codes::KnownCode;
pub use hint::Hint;
pub use refusal::Refusal;
pub use request::RequestError;
pub use undiscovered::Undiscovered;
pub use unusable::Unusable;
pub(crate) use {retry_after::RetryAfter, shape::Shape};
pub(crate) use {undiscovered::DiscoveryProblem, unusable::ResponseProblem};

use crate::egress::{EgressRefused, EgressRule, is_public_name};
use crate::tls::CertificateProblem;
use http::StatusCode;
use secrecy::SecretString;

/// A failed token request. `Display` is a message without secrets; [`Error::hint`] is the remedy where there is one.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The request cannot be written.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The egress policy does not allow the connection.
    #[error(transparent)]
    Egress(#[from] EgressRefused),
    /// The name has no address, or the resolver does not answer.
    #[error("the name {host} cannot be resolved: {cause}")]
    Dns {
        /// As in the URL.
        host: String,
        /// The system's message.
        cause: String,
        /// It was looked up as absolute, though it was not written so.
        made_absolute: bool,
    },
    /// An HTTP client cannot be built, so that nothing was sent.
    #[error("no HTTP client can be built for the certificates of this request: {cause}")]
    Client {
        /// The TLS library's message.
        cause: String,
    },
    /// No TCP connection.
    #[error("cannot connect to {host}: {cause}")]
    Connect {
        /// As in the URL.
        host: String,
        /// The system's message.
        cause: String,
    },
    /// The proxy of this process cannot be reached.
    #[error("the proxy on the way to {host} cannot be reached: {cause}")]
    ProxyUnreached {
        /// The endpoint's, as in the URL.
        host: String,
        /// The system's, or the TLS library's message.
        cause: String,
    },
    /// The proxy does not connect to the endpoint.
    #[error("the proxy does not connect to {host}: {cause}")]
    Proxy {
        /// As in the URL.
        host: String,
        /// The HTTP library's message.
        cause: String,
        /// HTTP 407.
        wants_authentication: bool,
    },
    /// No connection within [`CONNECT_TIMEOUT`](crate::transport::CONNECT_TIMEOUT).
    #[error("no connection to {host} within {seconds} s")]
    ConnectTimeout {
        /// As in the URL.
        host: String,
        /// The time limit.
        seconds: u64,
    },
    /// The server's certificate is not trusted.
    #[error("the certificate of {host} is not trusted: {problem}")]
    Certificate {
        /// As in the URL.
        host: String,
        /// Why.
        problem: CertificateProblem,
    },
    /// The server does not accept the client's certificate (RFC 8705).
    #[error(
        "{host} does not accept the client certificate ({cause}): is one configured, still valid, and registered there?"
    )]
    ClientCertificate {
        /// As in the URL.
        host: String,
        /// The server's alert.
        cause: String,
    },
    /// The TLS handshake was cut, or the sides did not agree.
    #[error("the TLS handshake with {host} failed: {cause}")]
    Handshake {
        /// As in the URL.
        host: String,
        /// The TLS library's message.
        cause: String,
    },
    /// The attempt exceeded its time limit.
    #[error("{host} gave no complete answer within {seconds} s")]
    Timeout {
        /// As in the URL.
        host: String,
        /// The time limit.
        seconds: u64,
    },
    /// The request was sent, and no complete HTTP answer came back.
    #[error("{host} cut the connection, or did not answer in HTTP: {cause}")]
    Cut {
        /// As in the URL.
        host: String,
        /// The HTTP library's message.
        cause: String,
    },
    /// The connection ended when it stood, as where a server asks for a client certificate by renegotiation (RFC 5246, 7.4.1.1),
    /// which this client refuses.
    #[error(
        "{host} ended the connection after the TLS handshake ({cause}): if it asks for a client certificate only then, by \
         renegotiation in TLS 1.2, have it ask in the handshake, since this client does not renegotiate"
    )]
    Renegotiation {
        /// As in the URL.
        host: String,
        /// The server's alert, or the HTTP library's message.
        cause: String,
        /// Whether it is an alert. A server that only closes the connection may have been restarted.
        is_alert: bool,
    },
    /// The issuer's metadata (RFC 8414) cannot be used.
    #[error(transparent)]
    Discovery(Box<Undiscovered>),
    /// The endpoint reports a failure.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// A success without a usable token.
    #[error(transparent)]
    Unusable(Box<Unusable>),
}

impl Error {
    /// What the failure implies for the next attempt.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            // Nothing tells when it is renewed.
            Error::Request(RequestError::ExpiredAssertion(_)) => Class::Transient,
            Error::Request(_) | Error::Egress(_) => Class::Configuration,
            // What the certificates are read from is not watched.
            Error::Client { .. }
            | Error::Dns { .. }
            | Error::Connect { .. }
            | Error::ConnectTimeout { .. }
            | Error::ProxyUnreached { .. }
            // 502 and 504 among them: the endpoint may be down. The library does not tell the status.
            | Error::Proxy { wants_authentication: false, .. }
            | Error::Handshake { .. }
            | Error::Timeout { .. }
            | Error::Cut { .. } => Class::Transient,
            Error::Certificate { .. }
            | Error::ClientCertificate { .. }
            | Error::Proxy { wants_authentication: true, .. } => Class::Rejected,
            Error::Renegotiation { is_alert: false, .. } => Class::Transient,
            Error::Renegotiation { is_alert: true, .. } => Class::Unclear,
            Error::Discovery(undiscovered) => undiscovered.problem.class(),
            Error::Refused(refusal) => refusal.meaning().class,
            Error::Unusable(_) => Class::Malformed,
        }
    }

    /// Whether nothing was sent, for a reason that is found before any connection.
    pub(crate) fn is_unsent(&self) -> bool {
        matches!(self, Error::Client { .. }) || self.class() == Class::Configuration
    }

    /// Whether the failure comes of what the caller configures (roots, certificates, names, limits, egress policy), so that it
    /// says nothing of the endpoint.
    pub(crate) fn is_own(&self) -> bool {
        match self {
            Error::Request(_)
            | Error::Egress(_)
            | Error::Client { .. }
            | Error::Certificate { .. }
            | Error::ClientCertificate { .. }
            | Error::Proxy { wants_authentication: true, .. } => true,
            Error::Discovery(_)
            | Error::ProxyUnreached { .. }
            | Error::Proxy { wants_authentication: false, .. }
            | Error::Dns { .. }
            | Error::Connect { .. }
            | Error::ConnectTimeout { .. }
            | Error::Handshake { .. }
            | Error::Timeout { .. }
            | Error::Cut { .. }
            | Error::Renegotiation { .. }
            | Error::Refused(_)
            | Error::Unusable(_) => false,
        }
    }

    /// What the caller can change so that the next attempt works.
    #[must_use]
    pub fn hint(&self) -> Option<Hint> {
        match self {
            Error::Egress(refused) => refused.hint(),
            Error::Dns { host, made_absolute: true, .. } if !is_public_name(host) => {
                Some(Hint::ListName(EgressRule::for_name(host)))
            }
            Error::ConnectTimeout { .. } => Some(Hint::CheckFirewall),
            Error::Certificate { problem: CertificateProblem::SelfSigned, .. } => {
                Some(Hint::TrustCertificate)
            }
            Error::Certificate { problem: CertificateProblem::UnknownAuthority, .. } => {
                Some(Hint::TrustAuthority)
            }
            Error::Discovery(undiscovered) => undiscovered.problem.hint(),
            Error::Refused(refusal) => refusal.hint(),
            Error::Unusable(unusable) => unusable.hint(),
            Error::Request(_)
            | Error::Client { .. }
            | Error::Dns { .. }
            | Error::Connect { .. }
            | Error::ProxyUnreached { .. }
            | Error::Proxy { .. }
            | Error::Certificate { .. }
            | Error::ClientCertificate { .. }
            | Error::Handshake { .. }
            | Error::Timeout { .. }
            | Error::Cut { .. }
            | Error::Renegotiation { .. } => None,
        }
    }

    /// What failed.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Error::Request(error) => match error {
                RequestError::Missing(_) | RequestError::MissingValue(_) => ErrorKind::MissingCredential,
                RequestError::ColonInClientId
                | RequestError::Key(_)
                | RequestError::Certificate(_)
                | RequestError::ExpiredAssertion(_)
                | RequestError::LongCredential(_)
                | RequestError::LongValue(_)
                | RequestError::HeaderValue(_) => ErrorKind::UnusableCredential,
                RequestError::Reserved(_)
                | RequestError::ReservedClaim(_)
                | RequestError::RefusedHeader(_)
                | RequestError::Resource(_)
                | RequestError::LongBody(_)
                | RequestError::LongHeaders(_)
                | RequestError::Url
                | RequestError::UserInfoInUrl
                | RequestError::NotAnAttempt
                | RequestError::NotDiscovered => ErrorKind::InvalidDescription,
            },
            Error::Egress(_) => ErrorKind::EgressRefused,
            Error::Client { .. } => ErrorKind::InvalidDescription,
            Error::ClientCertificate { .. } => ErrorKind::ClientRejected,
            Error::Dns { .. }
            | Error::Connect { .. }
            | Error::ProxyUnreached { .. }
            | Error::Proxy { .. }
            | Error::ConnectTimeout { .. }
            | Error::Certificate { .. }
            | Error::Handshake { .. }
            | Error::Timeout { .. }
            | Error::Cut { .. }
            | Error::Renegotiation { .. } => ErrorKind::Unavailable,
            Error::Discovery(undiscovered) => undiscovered.problem.kind(),
            Error::Refused(refusal) => refusal.meaning().kind,
            Error::Unusable(_) => ErrorKind::MalformedResponse,
        }
    }

    /// The seconds to wait at least that the endpoint asks for (`Retry-After`), capped at one hour; at 5 minutes where an
    /// intermediary seems to ask.
    #[must_use]
    pub fn retry_after(&self) -> Option<u64> {
        match self {
            Error::Refused(refusal) => refusal.retry_after.map(|asked| asked.seconds),
            _ => None,
        }
    }

    /// The same where it concerns all requests of the client.
    pub(crate) fn shared_retry_after(&self) -> Option<u64> {
        match self {
            Error::Refused(refusal) => {
                refusal.retry_after.filter(|asked| asked.reach == Reach::Client).map(|asked| asked.seconds)
            }
            _ => None,
        }
    }

    /// Which other requests would get the same answer.
    #[must_use]
    pub fn reach(&self) -> Reach {
        match self {
            Error::Refused(refusal) => refusal.meaning().reach,
            _ => Reach::Own,
        }
    }

    /// Whether the answer says that the client is wrong, and not, as a status of 401 alone, that something about the request is.
    #[must_use]
    pub fn names_client(&self) -> bool {
        match self {
            Error::Refused(refusal) => refusal.names_client(),
            _ => false,
        }
    }

    /// For [`Class::Ambiguous`]: the status and the code.
    pub(crate) fn ambiguous(&self) -> Option<(StatusCode, &'static KnownCode)> {
        match self {
            Error::Refused(refusal) => refusal.ambiguous(),
            _ => None,
        }
    }

    /// What failed, if a failure of [`Class::Ambiguous`] does not pass.
    #[must_use]
    pub fn lasting_kind(&self) -> ErrorKind {
        self.ambiguous().map_or(self.kind(), |(_, known)| known.kind)
    }

    /// The server's text beside an unknown error code, without secrets. `Display` leaves it out: show it only to people who
    /// may send requests to the endpoint themselves.
    #[must_use]
    pub fn detail(&self) -> Option<&str> {
        match self {
            Error::Refused(refusal) => refusal.detail(),
            _ => None,
        }
    }

    /// The error code in its canonical spelling, if it is a known one (RFC 6749, 5.2 and vendors' own).
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Error::Refused(refusal) => refusal.body.known().map(|known| known.code),
            _ => None,
        }
    }

    /// Whether the server may have acted on the request although no answer arrived: a refresh token may be spent. Every
    /// timeout counts, since the transport does not know whether the request was sent before it.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        match self {
            Error::Timeout { .. } | Error::Cut { .. } | Error::Renegotiation { .. } => true,
            Error::Refused(refusal) => {
                matches!(refusal.status, StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT)
                    && refusal.body.known().is_none()
            }
            _ => false,
        }
    }

    /// The new refresh token of an answer without a usable access token. It may be the only valid one: store it before anything
    /// else.
    #[must_use]
    pub fn refresh_token(&self) -> Option<&SecretString> {
        match self {
            Error::Unusable(unusable) => unusable.refresh_token.as_ref(),
            Error::Refused(refusal) => refusal.refresh_token.as_ref(),
            _ => None,
        }
    }

    pub(crate) fn discovery(host: String, problem: DiscoveryProblem) -> Self {
        Error::Discovery(Box::new(Undiscovered { host, problem }))
    }
}
