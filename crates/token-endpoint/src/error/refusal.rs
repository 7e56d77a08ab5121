//! Failures that a token endpoint reports.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::body::ErrorBody;
use super::class::{Class, ErrorKind, Reach};
use super::codes::KnownCode;
use super::hint::Hint;
use super::retry_after::RetryAfter;
use super::shape::Shape;
use http::StatusCode;
use secrecy::SecretString;
use std::fmt;

/// An answer that reports a failure: its status, and its body in any of the known formats.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) body: ErrorBody,
    pub(crate) shape: Shape,
    pub(crate) retry_after: Option<RetryAfter>,
    /// An answer of GitHub's API, which has no codes: its statuses mean more than elsewhere.
    pub(crate) is_of_github: bool,
    /// Whether Basic authentication percent-encoded something that the server may not have decoded.
    pub(crate) encoded_differs: bool,
    /// Whether nothing authenticated the client.
    pub(crate) is_by_grant_alone: bool,
    /// A success whose body reports an error may hold one.
    pub(crate) refresh_token: Option<SecretString>,
}

/// What an answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    pub(super) class: Class,
    pub(super) kind: ErrorKind,
    pub(super) reach: Reach,
}

const fn means(class: Class, kind: ErrorKind, reach: Reach) -> Meaning {
    Meaning { class, kind, reach }
}

impl std::error::Error for Refusal {}

impl Refusal {
    /// The first that fits: a lock-out, 429, another failure of the server, a known code, a known sentence, the status.
    pub(super) fn meaning(&self) -> Meaning {
        if let Some(meaning) = self.meaning_at_github() {
            return meaning;
        }
        let known = self.body.known();
        match (self.status.as_u16(), known) {
            (_, Some(code)) if code.class == Class::LockedOut => means(code.class, code.kind, Reach::Client),
            (429, _) => means(Class::Limited, ErrorKind::RateLimited, Reach::Client),
            (500..=599, Some(code)) if code.refuses() => {
                means(Class::Ambiguous, ErrorKind::Unavailable, Reach::Client)
            }
            (408 | 425 | 500..=599, code) => {
                let is_limited = code.is_some_and(|code| code.kind == ErrorKind::RateLimited);
                let kind = if is_limited { ErrorKind::RateLimited } else { ErrorKind::Unavailable };
                means(Class::Transient, kind, Reach::Own)
            }
            // ServiceNow: a wrong secret as `server_error` with 401.
            (401, Some(code)) if code.class == Class::Transient => self.meaning_of_status(),
            (_, Some(code)) => means(code.class, code.kind, self.reach_of(code)),
            (_, None) => self.meaning_without_code(),
        }
    }

    /// <https://docs.github.com/rest/apps/apps#create-an-installation-access-token-for-an-app>: 404 for an installation of
    /// another app or none, 422 for what the app was not granted, 403 with a wait for rate limits.
    fn meaning_at_github(&self) -> Option<Meaning> {
        match self.status.as_u16() {
            _ if !self.is_of_github || self.body == ErrorBody::NotJson => None,
            403 if self.retry_after.is_some() => {
                Some(means(Class::Limited, ErrorKind::RateLimited, Reach::Client))
            }
            403 | 404 | 422 => Some(means(Class::Rejected, ErrorKind::RequestRejected, Reach::Request)),
            _ => None,
        }
    }

    /// Which other requests a known code concerns.
    fn reach_of(&self, known: &KnownCode) -> Reach {
        match (known.class, known.code) {
            (Class::Limited, _) if known.is_standard => Reach::Client,
            (Class::Rejected, _) if known.names_client() => Reach::Client,
            (Class::Rejected, "invalid_grant") => Reach::Grant,
            (Class::Rejected, "unauthorized_client") => self.reach_of_status(),
            (Class::Rejected, _) if known.is_standard => Reach::Request,
            (Class::Rejected, _) => self.reach_of_status(),
            _ => Reach::Own,
        }
    }

    /// Whether a lock-out or a code says that the client is wrong.
    pub(super) fn names_client(&self) -> bool {
        self.body.known().is_some_and(KnownCode::names_client)
    }

    fn reach_of_status(&self) -> Reach {
        if self.status == StatusCode::UNAUTHORIZED { Reach::Client } else { Reach::Request }
    }

    /// A sentence says what failed. It slows this request down and no other one, and makes none faster.
    fn meaning_without_code(&self) -> Meaning {
        let by_status = self.meaning_of_status();
        match self.body.known_sentence() {
            Some(sentence) if slowness(sentence.class) > slowness(by_status.class) => {
                means(sentence.class, sentence.kind, by_status.reach)
            }
            Some(sentence) => Meaning { kind: sentence.kind, ..by_status },
            None => by_status,
        }
    }

    fn meaning_of_status(&self) -> Meaning {
        let has_code = matches!(self.body, ErrorBody::Unknown(..));
        match self.status.as_u16() {
            401 => means(Class::Rejected, ErrorKind::ClientRejected, Reach::Client),
            300..=399 | 407 => means(Class::Rejected, ErrorKind::RequestRejected, Reach::Own),
            404 | 410 => means(Class::Unclear, self.unclear_kind(), Reach::Own),
            200..=299 if !has_code => means(Class::Malformed, ErrorKind::MalformedResponse, Reach::Own),
            _ if has_code => means(Class::Rejected, ErrorKind::RequestRejected, Reach::Request),
            _ => means(Class::Unclear, self.unclear_kind(), Reach::Own),
        }
    }

    /// An answer without JSON comes mostly from an intermediary and not from the endpoint.
    fn unclear_kind(&self) -> ErrorKind {
        match self.body {
            ErrorBody::NotJson | ErrorBody::Unreadable => ErrorKind::Unavailable,
            _ => ErrorKind::RequestRejected,
        }
    }

    /// A failure of the server with a code that refuses the request: the status with the code, by which such answers are
    /// counted.
    pub(super) fn ambiguous(&self) -> Option<(StatusCode, &'static KnownCode)> {
        let known = self.body.known()?;
        (self.meaning().class == Class::Ambiguous).then_some((self.status, known))
    }

    /// What the server says beside a known code, without secrets: a text of an unknown service, which not everyone who may
    /// name a URL may read.
    pub(super) fn detail(&self) -> Option<&str> {
        match &self.body {
            ErrorBody::Unknown(_, text) => text.as_deref(),
            ErrorBody::Sentence(text, None) => Some(text),
            _ => None,
        }
    }

    pub(super) fn hint(&self) -> Option<Hint> {
        let Meaning { class, kind, .. } = self.meaning();
        if class == Class::LockedOut {
            return Some(Hint::WaitForUnlock);
        }
        if kind == ErrorKind::ClientRejected && self.encoded_differs {
            return Some(Hint::AvoidPercentEncoding);
        }
        if self.is_of_github && class == Class::Rejected {
            return Some(match self.status.as_u16() {
                401 => Hint::CheckGitHubKey,
                _ => Hint::CheckGitHubInstallation,
            });
        }
        if self.body.known().is_some() {
            return None;
        }
        match (self.status.as_u16(), &self.body) {
            (300..=399, _) => Some(Hint::UseRedirectTarget),
            (401, _) if self.is_by_grant_alone => Some(Hint::CheckGrant),
            (401, _) => Some(Hint::CheckClientCredentials),
            (403, ErrorBody::NotJson) => Some(Hint::CheckIntermediary),
            (404, _) => Some(Hint::CheckTokenUrlPath),
            (407, _) => Some(Hint::AuthenticateToProxy),
            _ => None,
        }
    }
}

/// Orders the classes of answers without a code by their waits.
fn slowness(class: Class) -> u8 {
    match class {
        Class::Transient | Class::Unclear => 0,
        Class::Limited => 1,
        Class::LockedOut => 3,
        _ => 2,
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the token endpoint answered HTTP {}", self.status.as_u16())?;
        match &self.body {
            ErrorBody::Known(known, None) => write!(f, ", {}", known.code),
            ErrorBody::Known(known, Some(description)) => write!(f, ", {}: {description}", known.code),
            ErrorBody::Unknown(code, _) => write!(f, ", {code}"),
            ErrorBody::Sentence(sentence, Some(_)) => write!(f, ": {sentence}"),
            ErrorBody::Sentence(_, None) => f.write_str(" with a message and no error code"),
            ErrorBody::Unreadable | ErrorBody::NotJson => write!(f, " with {} and no error code", self.shape),
        }
    }
}
