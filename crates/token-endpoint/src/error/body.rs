//! Bodies of error answers: the format of RFC 6749, 5.2 and those of vendors.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::class::{Class, ErrorKind};
use crate::redact::Redactor;
use serde_json::{Map, Value};

/// An error code with a known meaning.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct KnownCode {
    pub(crate) code: &'static str,
    pub(crate) class: Class,
    pub(crate) kind: ErrorKind,
}

const fn known(code: &'static str, class: Class, kind: ErrorKind) -> KnownCode {
    KnownCode { code, class, kind }
}

#[rustfmt::skip]
static KNOWN: &[KnownCode] = &[
    // RFC 6749, 5.2
    known("invalid_client", Class::Rejected, ErrorKind::ClientRejected),
    known("unauthorized_client", Class::Rejected, ErrorKind::ClientRejected), // Keycloak: a wrong secret
    known("invalid_grant", Class::Rejected, ErrorKind::GrantRejected),
    known("unsupported_grant_type", Class::Rejected, ErrorKind::GrantRejected),
    known("invalid_scope", Class::Rejected, ErrorKind::ScopeRejected),
    known("invalid_request", Class::Rejected, ErrorKind::RequestRejected),
    // RFC 6749, 4.1.2.1, seen at token endpoints too
    known("access_denied", Class::Rejected, ErrorKind::ClientRejected),
    known("server_error", Class::Transient, ErrorKind::Unavailable),
    known("temporarily_unavailable", Class::Transient, ErrorKind::Unavailable),
    // RFC 8628, 3.5
    known("slow_down", Class::Transient, ErrorKind::RateLimited),
    // RFC 8707, 2
    known("invalid_target", Class::Rejected, ErrorKind::RequestRejected),
    // VNG Cloud
    known("AUTHENTICATION_FAILED", Class::Rejected, ErrorKind::ClientRejected),
    known("TOO_MANY_FAILED_LOGINS", Class::LockedOut, ErrorKind::RateLimited),
];

/// The contents of the body, without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ErrorBody {
    /// A known code, with its redacted description.
    Known(&'static KnownCode, Option<String>),
    /// A code of unknown meaning, redacted.
    Unknown(String),
    /// A sentence in place of a code, redacted.
    Sentence(String),
    /// Nothing that can be shown.
    Nothing,
}

impl ErrorBody {
    pub(crate) fn known(&self) -> Option<&'static KnownCode> {
        match self {
            ErrorBody::Known(known, _) => Some(known),
            _ => None,
        }
    }
}

/// One place in a body that may hold a code or a sentence.
struct Candidate<'a> {
    code: Option<&'a str>,
    description: Option<&'a str>,
}

/// Reads the first format that fits: known codes take precedence over unknown ones, and those over sentences.
pub(crate) fn read(body: &Map<String, Value>, sent: &Redactor) -> ErrorBody {
    let candidates = candidates(body);
    let codes = || candidates.iter().filter_map(|c| c.code.map(|code| (code.trim(), c.description)));

    for (code, description) in codes() {
        if let Some(known) = KNOWN.iter().find(|known| known.code.eq_ignore_ascii_case(code)) {
            return ErrorBody::Known(known, description.and_then(|text| sent.clean(text)));
        }
    }
    if let Some(code) = codes().find_map(|(code, _)| is_code(code).then(|| sent.clean(code)).flatten()) {
        return ErrorBody::Unknown(code);
    }
    // A `code` that is not shaped like one is a sentence; so is a description without a code.
    let sentences =
        candidates.iter().map(|c| c.code.filter(|code| !code.trim().is_empty()).or(c.description));
    sentences.flatten().find_map(|text| sent.clean(text)).map_or(ErrorBody::Nothing, ErrorBody::Sentence)
}

/// Whether the body of a success reports an error.
pub(crate) fn reports_error(body: &Map<String, Value>) -> bool {
    let is_set = |value: &Value| match value {
        Value::String(text) => !text.trim().is_empty(),
        Value::Array(errors) => !errors.is_empty(),
        Value::Object(error) => !error.is_empty(),
        _ => false,
    };
    ["error", "errors", "minorErrorCode"].iter().any(|name| body.get(*name).is_some_and(is_set))
}

fn candidates(body: &Map<String, Value>) -> Vec<Candidate<'_>> {
    let message = body.get("message").and_then(Value::as_str);
    let mut found = Vec::new();
    match body.get("error") {
        Some(Value::String(code)) => found.push(Candidate {
            code: Some(code),
            description: body.get("error_description").and_then(Value::as_str).or(message),
        }),
        Some(Value::Object(error)) => found.push(nested(error)), // {"error": {"code": .., "message": ..}}
        _ => {}
    }
    // VNG Cloud: {"errors": [{"code": .., "message": ..}]}
    if let Some(Value::Object(error)) = body.get("errors").and_then(|errors| errors.get(0)) {
        found.push(nested(error));
    }
    // VMware Cloud Director
    if let Some(Value::String(code)) = body.get("minorErrorCode") {
        found.push(Candidate { code: Some(code), description: message });
    }
    found.push(Candidate { code: None, description: message });
    found
}

fn nested(error: &Map<String, Value>) -> Candidate<'_> {
    let text = |name: &str| error.get(name).and_then(Value::as_str);
    Candidate { code: text("code"), description: text("message") }
}

/// At most 64 characters without a space; longer or spaced text is a sentence.
fn is_code(code: &str) -> bool {
    (1..=64).contains(&code.len())
        && code.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':'))
}
