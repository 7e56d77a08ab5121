//! Bodies of error answers: the format of RFC 6749, 5.2 and those of vendors.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::class::Class;
use super::codes::{self, KnownCode, is_code};
use super::sentences::{self, KnownSentence};
use crate::redact::Redactor;
use serde_json::{Map, Value};

/// The contents of the body, without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ErrorBody {
    /// A known code, with its redacted description.
    Known(&'static KnownCode, Option<String>),
    /// A code of unknown meaning, redacted, with its redacted description.
    Unknown(String, Option<String>),
    /// A sentence in place of a code, redacted, and its meaning if that is known.
    Sentence(String, Option<&'static KnownSentence>),
    /// JSON in which nothing can be shown.
    Unreadable,
    /// No JSON.
    NotJson,
}

impl ErrorBody {
    pub(crate) fn known(&self) -> Option<&'static KnownCode> {
        match self {
            ErrorBody::Known(known, _) => Some(known),
            _ => None,
        }
    }

    pub(crate) fn known_sentence(&self) -> Option<&'static KnownSentence> {
        match self {
            ErrorBody::Sentence(_, known) => *known,
            _ => None,
        }
    }

    /// Whether it names a cause with a code, or with a sentence of known meaning.
    pub(crate) fn names_cause(&self) -> bool {
        matches!(self, ErrorBody::Known(..) | ErrorBody::Unknown(..) | ErrorBody::Sentence(_, Some(_)))
    }
}

/// One place in a body that may hold a code or a sentence.
#[derive(Default)]
struct Candidate<'a> {
    code: Option<&'a Value>,
    description: Option<&'a str>,
}

impl<'a> Candidate<'a> {
    fn text(&self) -> Option<&'a str> {
        self.code.and_then(Value::as_str).map(str::trim).filter(|code| !code.is_empty())
    }

    fn known(&self) -> Option<&'static KnownCode> {
        match self.code? {
            Value::String(code) => codes::known(code.trim()),
            // Numbers are statuses and not codes; this one says the same everywhere.
            Value::Number(number) if number.as_u64() == Some(429) => codes::too_many_requests(),
            _ => None,
        }
    }
}

/// Reads a JSON body: a code that means a lock-out first, then another known code, an unknown one, a sentence.
pub(crate) fn read(body: &Map<String, Value>, sent: &Redactor) -> ErrorBody {
    let candidates = candidates(body);
    let known = || candidates.iter().filter_map(|it| Some((it.known()?, it.description)));
    let locked_out = known().find(|(known, _)| known.class == Class::LockedOut);
    if let Some((known, description)) = locked_out.or_else(|| known().next()) {
        return ErrorBody::Known(known, description.and_then(|text| sent.clean(text)));
    }
    let unknown = candidates.iter().find_map(|it| {
        let code = sent.clean(it.text().filter(|code| is_code(code))?)?;
        Some(ErrorBody::Unknown(code, it.description.and_then(|text| sent.clean(text))))
    });
    // A `code` that is not shaped like one is a sentence; so is a description without a code.
    unknown.or_else(|| sentence(&candidates, sent)).unwrap_or(ErrorBody::Unreadable)
}

/// The first sentence; one of known meaning first.
fn sentence(candidates: &[Candidate<'_>], sent: &Redactor) -> Option<ErrorBody> {
    let texts = || candidates.iter().flat_map(|it| [it.text(), it.description]).flatten();
    let known = texts().find_map(|text| Some((text, Some(sentences::known(text, sent)?))));
    let all = known.into_iter().chain(texts().map(|text| (text, None)));
    all.filter_map(|(text, known)| Some(ErrorBody::Sentence(sent.clean(text)?, known))).next()
}

/// Whether the body of a success reports an error although it may hold a token. Other members than these are of no
/// interest where a token came: `code: 0`, `message: ok`.
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
    let text = |name: &str| body.get(name).and_then(Value::as_str);
    let message = text("message");
    let description = text("error_description").or(message);
    let mut found = Vec::new();
    match body.get("error") {
        // {"error": {"code": .., "message": ..}}
        Some(Value::Object(error)) => found.push(nested(error)),
        code @ Some(_) => found.push(Candidate { code, description }),
        None => {}
    }
    // VNG Cloud: {"errors": [{"code": .., "message": ..}]}
    if let Some(Value::Object(error)) = body.get("errors").and_then(|errors| errors.get(0)) {
        found.push(nested(error));
    }
    // VMware Cloud Director
    found.push(Candidate { code: body.get("minorErrorCode"), description: message });
    // Okta, SAP, Apigee, and others
    for (name, description) in [
        ("errorCode", text("errorSummary").or_else(|| text("errorMessage")).or(message)),
        ("ErrorCode", text("Error")),
        ("errorType", text("errorMessage").or(message)),
    ] {
        found.push(Candidate { code: body.get(name), description });
    }
    // Apigee: {"fault": {"faultstring": .., "detail": {"errorcode": ..}}}
    if let Some(fault) = body.get("fault") {
        let code = fault.get("detail").and_then(|detail| detail.get("errorcode"));
        found.push(Candidate { code, description: fault.get("faultstring").and_then(Value::as_str) });
    }
    // Only as numbers: texts in these members are no codes.
    for name in ["code", "status"] {
        let code = body.get(name).filter(|code| code.is_number());
        found.push(Candidate { code, description: message });
    }
    found.push(Candidate { code: None, description: text("error_description") });
    found
}

fn nested(error: &Map<String, Value>) -> Candidate<'_> {
    Candidate { code: error.get("code"), description: error.get("message").and_then(Value::as_str) }
}
