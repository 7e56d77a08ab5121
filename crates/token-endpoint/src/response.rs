//! Reads answers of token endpoints (RFC 6749, 5.1), and tolerates known deviations.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::answer::Answer;
use super::error::body::{self as error_body, ErrorBody};
use super::error::{Error, Refusal, ResponseProblem, RetryAfter, Shape, Unusable};
use super::json::{parse, seconds};
use super::lifetime::MAX_LIFETIME;
use super::limits::{MAX_CREDENTIAL, MAX_SCOPE, MAX_TOKEN, MAX_TOKEN_TYPE, MAX_VALUE};
use super::mapping::{self, Pointer, ResponseMapping};
use super::redact::Redactor;
use super::request::TokenRequest;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, StatusCode};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use secrecy::SecretString;
use serde_json::Value;
use std::collections::BTreeMap;

/// Names under which servers send an absolute expiry.
const EXPIRY_MEMBERS: [&str; 6] =
    ["expires_at", "expiresAt", "expires_on", "expiresOn", "expiration", "expiry"];

/// Reads the answer to `request`, whose secrets are redacted in messages.
///
/// # Errors
/// [`Error::Refused`] for a failure in any known format and at any status, [`Error::Unusable`] for a success without a usable
/// token.
pub fn read(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    request: &TokenRequest,
) -> Result<Answer, Error> {
    read_keeping(status, headers, body, request, |_| {})
}

/// What no message, and no member that is kept, may repeat: what was sent, and the answer's own tokens.
struct Known<'a> {
    sent: &'a Redactor,
    document: Option<&'a Value>,
    mapping: &'a ResponseMapping,
}

impl Known<'_> {
    /// Redacts all of it.
    fn redactor(&self) -> Redactor {
        self.secrets().with(self.access_token())
    }

    /// Whether a member that many may read may be kept.
    fn permit(&self, text: &str) -> bool {
        self.sent.permits(text, self.other_tokens().chain(self.access_token()))
    }

    /// All of it but the access token, which templates may use.
    fn secrets(&self) -> Redactor {
        self.sent.with(self.other_tokens())
    }

    fn access_token(&self) -> Option<&str> {
        self.token(self.mapping.access_token.as_ref(), "access_token")
    }

    fn other_tokens(&self) -> impl Iterator<Item = &str> {
        let refresh_token = self.token(self.mapping.refresh_token.as_ref(), "refresh_token");
        refresh_token.into_iter().chain(self.token(None, "id_token"))
    }

    fn token(&self, pointer: Option<&Pointer>, name: &str) -> Option<&str> {
        mapped(self.document?, pointer, name).and_then(Value::as_str)
    }
}

/// As [`read`]. A new refresh token is given to `keep` before anything else is read: it may be the only valid copy, and must
/// outlive a failure, or a panic, of what follows.
pub(super) fn read_keeping(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    request: &TokenRequest,
    keep: impl FnOnce(&SecretString),
) -> Result<Answer, Error> {
    let document = parse(body);
    let mapping = request.response();
    let refresh_token = document
        .as_ref()
        .filter(|_| status.is_success())
        .and_then(|document| refresh_token(document, mapping));
    if let Some(refresh_token) = &refresh_token {
        keep(refresh_token);
    }
    let date = header(headers, &DATE).and_then(http_date);
    let known = Known { sent: request.sent(), document: document.as_ref(), mapping };

    let object = document.as_ref().and_then(Value::as_object);
    let mut error_body = None;
    if status.is_success() && !object.is_some_and(error_body::reports_error) {
        let read = match &document {
            Some(document) => token(document, request, &known, date, refresh_token.clone()),
            None => Err(ResponseProblem::NotJson(shape(headers, body, request.sent()))),
        };
        let problem = match read {
            Ok(answer) => return Ok(answer),
            Err(problem) => problem,
        };
        // Without a token, further members may say why.
        let no_token = object.filter(|_| matches!(problem, ResponseProblem::NoToken(_)));
        error_body = no_token.map(|object| error_body::read(object, &known.redactor()));
        if !error_body.as_ref().is_some_and(ErrorBody::names_cause) {
            return Err(Error::Unusable(Box::new(Unusable { status, problem, refresh_token })));
        }
    }
    let read_body =
        || object.map_or(ErrorBody::NotJson, |object| error_body::read(object, &known.redactor()));
    let error_body = error_body.unwrap_or_else(read_body);
    let shape = shape(headers, body, request.sent());
    let limit = || request.is_for_github().then(|| github_limit(status, headers, date)).flatten();
    let asked = header(headers, &RETRY_AFTER).and_then(|value| retry_after(value, date)).or_else(limit);
    Err(Error::Refused(Box::new(Refusal {
        is_of_github: request.is_for_github(),
        status,
        retry_after: asked.map(|seconds| RetryAfter::of(seconds, status, &error_body, &shape)),
        body: error_body,
        shape,
        encoded_differs: request.encoded_differs(),
        is_by_grant_alone: request.is_by_grant_alone(),
        refresh_token,
    })))
}

fn token(
    document: &Value,
    request: &TokenRequest,
    known: &Known<'_>,
    date: Option<Timestamp>,
    refresh_token: Option<SecretString>,
) -> Result<Answer, ResponseProblem> {
    let mapping = request.response();
    let access_token = mapped(document, mapping.access_token.as_ref(), "access_token")
        .and_then(Value::as_str)
        .ok_or_else(|| ResponseProblem::NoToken(mapping.access_token.clone()))?;
    if access_token.trim().is_empty() {
        return Err(ResponseProblem::EmptyToken);
    }
    if access_token.len() > MAX_TOKEN {
        return Err(ResponseProblem::LongToken);
    }
    let refresh_token_text =
        mapped(document, mapping.refresh_token.as_ref(), "refresh_token").and_then(Value::as_str);
    if refresh_token_text.is_some_and(|token| token.len() > MAX_CREDENTIAL) {
        return Err(ResponseProblem::LongRefreshToken);
    }
    if !access_token.bytes().all(|b| (0x20..=0x7e).contains(&b)) {
        return Err(ResponseProblem::TokenCharacters);
    }
    let token_type_text = text(document, "token_type").map(str::trim).filter(|text| !text.is_empty());
    let token_type = token_type_text.map(|text| token_type(text, known)).transpose()?.flatten();
    // Servers that wrap the token put its scope beside it.
    let beside = mapping.access_token.as_ref().and_then(|pointer| pointer.holder(document));
    let stated = beside.into_iter().chain([document]).filter_map(|holder| holder.get("scope"));
    let stated: Vec<&Value> = stated.filter(|scope| !scope.is_null()).collect();
    let scope = stated.first().and_then(|scope| scope.as_str());
    if scope.is_some_and(|scope| scope.contains(is_control)) {
        return Err(ResponseProblem::ControlCharacters("scope".to_owned()));
    }
    let is_one = stated.windows(2).all(|pair| matches!(pair, [first, second] if first == second));
    let told = scope.filter(|scope| is_one && can_be_told(scope, known));
    let values = values(document, request, known)?;
    let expires_in = mapped(document, mapping.expires_in.as_ref(), "expires_in").and_then(seconds);
    Ok(Answer {
        access_token: access_token.into(),
        token_type: token_type.unwrap_or(BEARER).to_owned(),
        token_type_missing: token_type.is_none() && !mapping.omits_token_type,
        scope: told.map(str::to_owned),
        scope_is_withheld: told.is_none() && !stated.is_empty(),
        expires_in: expires_in.map(|seconds| seconds.min(MAX_LIFETIME)),
        expires_at: mapping
            .expires_at
            .as_ref()
            .and_then(|pointer| pointer.find(document))
            .and_then(mapping::time),
        unmapped_expiry: EXPIRY_MEMBERS.iter().find_map(|name| document.get(*name)).and_then(mapping::time),
        refresh_token,
        date,
        values,
    })
}

/// The mapped values. A pointer to a secret is an error, wherever in the document the secret is.
fn values(
    document: &Value,
    request: &TokenRequest,
    known: &Known<'_>,
) -> Result<BTreeMap<String, SecretString>, ResponseProblem> {
    let mut values = BTreeMap::new();
    if request.response().values.is_empty() {
        return Ok(values);
    }
    let secrets = known.secrets();
    for (name, pointer) in &request.response().values {
        let Some(value) = pointer.find(document).and_then(mapping::scalar) else { continue };
        if value.contains(is_control) {
            return Err(ResponseProblem::ControlCharacters(pointer.to_string()));
        }
        if value.len() > MAX_VALUE {
            return Err(ResponseProblem::LongValue(pointer.clone()));
        }
        if pointer.is_secret() || secrets.secret_is_in(&value) {
            return Err(ResponseProblem::SecretValue(pointer.clone()));
        }
        values.insert(name.clone(), value.into());
    }
    Ok(values)
}

const BEARER: &str = "Bearer";

/// RFC 6749's NQSCHAR: types have spaces at eBay.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, 0x20 | 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}

/// `None`: it is long, has other characters, or repeats a secret. A type is written where many may read it.
fn token_type<'a>(text: &'a str, known: &Known<'_>) -> Result<Option<&'a str>, ResponseProblem> {
    match text.to_ascii_lowercase().as_str() {
        "bearer" | "bearertoken" => Ok(Some(BEARER)),
        "dpop" => Err(ResponseProblem::TokenType("DPoP")),
        "mac" => Err(ResponseProblem::TokenType("mac")),
        "pop" => Err(ResponseProblem::TokenType("pop")),
        _ if text.contains(is_control) => Err(ResponseProblem::ControlCharacters("token_type".to_owned())),
        _ => {
            let has_form = text.len() <= MAX_TOKEN_TYPE && is_plain(text);
            Ok(Some(text).filter(|text| has_form && known.permit(text)))
        }
    }
}

/// Whether a scope is one of RFC 6749, 3.3, and repeats no secret.
fn can_be_told(scope: &str, known: &Known<'_>) -> bool {
    scope.len() <= MAX_SCOPE && is_plain(scope) && known.permit(scope)
}

/// Control characters and Unicode's line separators: some readers of files and headers start a new line at them.
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')
}

fn refresh_token(document: &Value, mapping: &ResponseMapping) -> Option<SecretString> {
    mapped(document, mapping.refresh_token.as_ref(), "refresh_token")
        .and_then(Value::as_str)
        .filter(|token| (1..=MAX_CREDENTIAL).contains(&token.len()))
        .map(SecretString::from)
}

fn mapped<'a>(document: &'a Value, pointer: Option<&Pointer>, name: &str) -> Option<&'a Value> {
    match pointer {
        Some(pointer) => pointer.find(document),
        None => document.get(name),
    }
}

fn text<'a>(document: &'a Value, name: &str) -> Option<&'a str> {
    document.get(name).and_then(Value::as_str)
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

/// RFC 9110, 5.6.7; the two obsolete formats are not read.
pub(super) fn http_date(value: &str) -> Option<Timestamp> {
    static PARSER: rfc2822::DateTimeParser = rfc2822::DateTimeParser::new();
    PARSER.parse_timestamp(value).ok()
}

/// RFC 9110, 10.2.3: seconds, or a date, which is compared with the server's own clock (`Date`).
fn retry_after(value: &str, date: Option<Timestamp>) -> Option<u64> {
    let seconds = if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        value.parse().unwrap_or(u64::MAX)
    } else {
        let until = http_date(value)?.as_second().saturating_sub(date?.as_second());
        u64::try_from(until).unwrap_or_default()
    };
    Some(seconds)
}

/// The seconds until GitHub's primary rate limit is reset, where it is exhausted.
/// <https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api>
fn github_limit(status: StatusCode, headers: &HeaderMap, date: Option<Timestamp>) -> Option<u64> {
    let is_limited = matches!(status, StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS)
        && header(headers, &HeaderName::from_static("x-ratelimit-remaining")) == Some("0");
    let reset: i64 = header(headers, &HeaderName::from_static("x-ratelimit-reset"))?.parse().ok()?;
    let wait = u64::try_from(reset.saturating_sub(date?.as_second())).unwrap_or_default();
    is_limited.then_some(wait)
}

/// Media type and encoding are text of the server: they are dropped unless they have the form of one, and redacted.
fn shape(headers: &HeaderMap, body: &[u8], sent: &Redactor) -> Shape {
    let plain = |name: &&str, slashes: usize| {
        name.len() <= 64
            && name.split('/').count() == slashes + 1
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"/+-.".contains(&b))
    };
    let shown = |value: &str, slashes: usize| {
        let name = Some(value.trim()).filter(|name| plain(name, slashes))?;
        sent.clean(&name.to_ascii_lowercase())
    };
    Shape {
        media_type: header(headers, &CONTENT_TYPE)
            .and_then(|value| value.split(';').next())
            .and_then(|value| shown(value, 1)),
        encoding: header(headers, &CONTENT_ENCODING)
            .and_then(|value| shown(value, 0))
            .filter(|name| name != "identity"),
        length: body.len(),
    }
}
