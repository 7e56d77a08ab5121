//! Usable answers of token endpoints.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use aws_lc_rs::digest;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;

/// A usable token with its metadata.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Not empty, and of printable ASCII only (RFC 6749, A.12).
    pub access_token: SecretString,
    /// `Bearer` for every spelling of it; other types as the server writes them, of RFC 6749's NQSCHAR and at most
    /// [`MAX_TOKEN_TYPE`](crate::limits::MAX_TOKEN_TYPE) bytes. It repeats no secret.
    pub token_type: String,
    /// The answer has no `token_type`, or none that can be told; Bearer is assumed.
    pub token_type_missing: bool,
    /// As the server writes it (RFC 6749, 3.3), of at most [`MAX_SCOPE`](crate::limits::MAX_SCOPE) bytes. `None` also where it
    /// would repeat a secret.
    pub scope: Option<String>,
    /// The answer has a scope, and [`scope`](field@Self::scope) does not tell it.
    pub scope_is_withheld: bool,
    /// Seconds, rounded down, at most [`MAX_LIFETIME`](crate::MAX_LIFETIME). `None`: unknown. 0 means unknown for a new token, and expired for one
    /// that was returned before.
    pub expires_in: Option<u64>,
    /// The expiry, if the answer has it as an absolute time.
    pub expires_at: Option<Timestamp>,
    /// An expiry under a usual name that no mapping names. It only tells whether [`expires_in`](field@Self::expires_in) is in
    /// milliseconds.
    pub unmapped_expiry: Option<Timestamp>,
    /// Replaces the refresh token that was sent (RFC 6749, 6).
    pub refresh_token: Option<SecretString>,
    /// The server's clock (header `Date`).
    pub date: Option<Timestamp>,
    /// The members that [`ResponseMapping::values`](crate::ResponseMapping::values) names and that are a text, a number or a boolean; without control
    /// characters.
    pub values: BTreeMap<String, SecretString>,
}

impl Answer {
    /// The first 12 hexadecimal digits of the access token's SHA-256: identifies the token in logs.
    #[must_use]
    pub fn token_id(&self) -> String {
        let digest = digest::digest(&digest::SHA256, self.access_token.expose_secret().as_bytes());
        digest.as_ref().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }
}
