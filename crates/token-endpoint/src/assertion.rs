//! JWTs that the client signs: to authenticate itself (RFC 7523, 2.2) and as a grant (RFC 7523, 2.1).
//!
//! They are signed with aws-lc-rs directly and not with the jsonwebtoken crate: a JWS in compact form is two lines of base64url,
//! the crate would be a further dependency on top of aws-lc-rs, and its errors do not say why a key cannot be used.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::key::{Algorithm, KeyError, PrivateKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::{Map, Value};

/// The default lifetime of an assertion, in seconds. Keycloak and Box refuse more than 60 s.
pub const ASSERTION_LIFETIME: u64 = 45;
/// Bounds the lifetime of an assertion, in seconds: Google accepts no more.
pub const MAX_ASSERTION_LIFETIME: u64 = 60 * 60;
/// `iat` lies this many seconds in the past: a server whose clock is behind refuses a time in the future.
const IAT_BACKDATING: i64 = 10;

/// Claims that this client sets itself. Sorted.
pub const RESERVED_CLAIMS: &[&str] = &["aud", "exp", "iat", "iss", "jti", "nbf", "sub"];

/// The values that differ between attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// The time, by the server's clock if that is known.
    pub now: Timestamp,
    /// Unique: servers refuse an id that they have seen (RFC 7523, 3).
    pub jti: String,
}

/// The contents of an assertion.
pub(super) struct Assertion<'a> {
    pub(super) issuer: &'a str,
    pub(super) subject: Option<&'a str>,
    /// A string and not an array: some servers accept nothing else.
    pub(super) audience: &'a str,
    /// Seconds.
    pub(super) lifetime: u64,
    pub(super) jti: String,
    pub(super) claims: Map<String, Value>,
    pub(super) key_id: Option<&'a str>,
    /// `x5t#S256`.
    pub(super) thumbprint: Option<String>,
}

impl Assertion<'_> {
    /// The JWT in compact form. Without `nbf`, which adds a failure when clocks disagree and protects from nothing here.
    pub(super) fn sign(
        self,
        key: &PrivateKey,
        algorithm: Algorithm,
        now: Timestamp,
    ) -> Result<String, KeyError> {
        let mut header = Map::new();
        header.insert("alg".into(), algorithm.to_string().into());
        header.insert("typ".into(), "JWT".into());
        if let Some(key_id) = self.key_id {
            header.insert("kid".into(), key_id.into());
        }
        if let Some(thumbprint) = self.thumbprint {
            header.insert("x5t#S256".into(), thumbprint.into());
        }

        let now = now.as_second();
        let issued = now.saturating_sub(IAT_BACKDATING);
        let lifetime = i64::try_from(self.lifetime.clamp(1, MAX_ASSERTION_LIFETIME)).unwrap_or_default();
        // Google measures the hour from `iat`.
        let expires = now.saturating_add(lifetime).min(issued.saturating_add(3600));
        let mut claims = self.claims;
        claims.insert("iss".into(), self.issuer.into());
        if let Some(subject) = self.subject {
            claims.insert("sub".into(), subject.into());
        }
        claims.insert("aud".into(), self.audience.into());
        claims.insert("iat".into(), issued.into());
        claims.insert("exp".into(), expires.into());
        claims.insert("jti".into(), self.jti.into());

        jws(header, claims, key, algorithm)
    }
}

/// A JWS in compact form (RFC 7515, 7.1).
pub(super) fn jws(
    header: Map<String, Value>,
    claims: Map<String, Value>,
    key: &PrivateKey,
    algorithm: Algorithm,
) -> Result<String, KeyError> {
    let encode = |map: Map<String, Value>| URL_SAFE_NO_PAD.encode(Value::from(map).to_string());
    let signed = [encode(header), encode(claims)].join(".");
    let signature = key.sign(algorithm, signed.as_bytes())?;
    Ok([signed, URL_SAFE_NO_PAD.encode(signature)].join("."))
}
