//! Readers of JSON that several modules share.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use serde_json::Value;

/// Parses a JSON object; skips a byte order mark.
pub(super) fn parse(body: &[u8]) -> Option<Value> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    serde_json::from_slice(body).ok().filter(Value::is_object)
}

/// Seconds from a JSON number or a string, rounded down. `None` for a negative number and for other values.
pub(super) fn seconds(value: &Value) -> Option<u64> {
    let number = match value {
        Value::Number(number) => return number.as_u64().or_else(|| floor(number.as_f64()?)),
        Value::String(text) => text.trim(),
        _ => return None,
    };
    number.parse().ok().or_else(|| floor(number.parse().ok()?))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // `as` saturates, and it is not negative
fn floor(number: f64) -> Option<u64> {
    (number.is_finite() && number >= 0.0).then_some(number as u64)
}
