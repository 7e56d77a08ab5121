//! Successes without a usable token.

use super::hint::Hint;
use super::shape::Shape;
use crate::Pointer;
use crate::limits::{MAX_CREDENTIAL, MAX_TOKEN, MAX_VALUE};
use http::StatusCode;
use secrecy::SecretString;
use std::fmt;

/// A success (HTTP 2xx) without a usable token.
#[derive(Clone, Debug)]
pub struct Unusable {
    pub(crate) status: StatusCode,
    pub(crate) problem: ResponseProblem,
    /// Of the same answer.
    pub(crate) refresh_token: Option<SecretString>,
}

impl Unusable {
    pub(super) fn hint(&self) -> Option<Hint> {
        match &self.problem {
            ResponseProblem::NotJson(_) => Some(Hint::CheckTokenUrl),
            ResponseProblem::NoToken(Some(_)) => Some(Hint::CheckAccessTokenPointer),
            ResponseProblem::LongValue(_) => Some(Hint::CheckValuePointer),
            ResponseProblem::SecretValue(_) => Some(Hint::RemoveValuePointer),
            ResponseProblem::TooLarge(_)
            | ResponseProblem::NoToken(None)
            | ResponseProblem::EmptyToken
            | ResponseProblem::LongToken
            | ResponseProblem::LongRefreshToken
            | ResponseProblem::TokenCharacters
            | ResponseProblem::ControlCharacters(_)
            | ResponseProblem::TokenType(_)
            | ResponseProblem::Dead(_) => None,
        }
    }
}

impl std::error::Error for Unusable {}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the token endpoint answered HTTP {}, but {}", self.status.as_u16(), self.problem)
    }
}

/// What is wrong with a success.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResponseProblem {
    #[error("with {0} instead of a JSON object")]
    NotJson(Shape),
    #[error("with more than {0} bytes")]
    TooLarge(usize),
    /// With the pointer of the response mapping, if there is one.
    #[error("without {}", no_token(.0.as_ref()))]
    NoToken(Option<Pointer>),
    #[error("with an empty access_token")]
    EmptyToken,
    #[error("with an access_token of more than {max} bytes", max = MAX_TOKEN)]
    LongToken,
    /// It could never be sent.
    #[error("with a refresh_token of more than {max} bytes", max = MAX_CREDENTIAL)]
    LongRefreshToken,
    #[error("with an access_token that holds characters outside of printable ASCII (RFC 6749, A.12)")]
    TokenCharacters,
    #[error("with control characters in {0}")]
    ControlCharacters(String),
    #[error("with more than {max} bytes at {0}", max = MAX_VALUE)]
    LongValue(Pointer),
    #[error("with a secret at {0}")]
    SecretValue(Pointer),
    #[error("with a token of type {0}, which can be used only with a proof of possession of a key")]
    TokenType(&'static str),
    /// Seconds between its expiry and its arrival.
    #[error(
        "with a token that had expired {0} s before: does the issuer hand out old tokens, and is the clock of this machine right?"
    )]
    Dead(u64),
}

fn no_token(pointer: Option<&Pointer>) -> String {
    pointer.map_or("an access_token".to_owned(), |pointer| format!("a text at {pointer}"))
}
