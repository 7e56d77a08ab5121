//! The claims of JWTs (RFC 7519) that others have signed.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// The claims of a signed JWT, a JSON object. The signature is not verified: the token comes from its issuer over TLS or from a
/// Secret, and wrong claims would affect only those who use it.
pub(super) fn claims(token: &str) -> Option<Value> {
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    serde_json::from_slice(&payload).ok().filter(Value::is_object)
}

/// Of whom a signed JWT speaks, as text for [`Credentials::asserted`](super::Credentials::asserted): its claims `iss` and `sub`.
/// `None`: it is no such JWT, or has no `sub`.
#[must_use]
pub fn asserted_subject(assertion: &str) -> Option<String> {
    let claims = claims(assertion)?;
    let subject = claims.get("sub")?;
    let issuer = claims.get("iss").unwrap_or(&Value::Null);
    Some(format!("{subject} of {issuer}"))
}
