//! The lifetime of a token, from the answer, the token itself or a default.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::answer::Answer;
use super::json::seconds;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use secrecy::ExposeSecret;
use serde_json::Value;

/// Caps the lifetime, in seconds: 100 years. Some servers express "never" as more.
pub const MAX_LIFETIME: u64 = 100 * 365 * 24 * 60 * 60;
/// A JWT with an older `iat` is not new but comes from an issuer's cache. Seconds.
const MAX_IAT_AGE: u64 = 60;
/// A server's clock that differs by more is ignored. Seconds.
const MAX_CLOCK_OFFSET: u64 = 60 * 60;

/// The lifetime of a token from the time at which its request was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// At most [`MAX_LIFETIME`]. 0: the token has expired already. `None`: unknown.
    pub seconds: Option<u64>,
    /// Where the lifetime was read.
    pub source: LifetimeSource,
}

/// Where the lifetime of a token was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifetimeSource {
    /// `expires_in` or an absolute expiry.
    Answer,
    /// The claim `exp` of a JWT (RFC 7519, 4.1.4), if it is earlier than the answer's expiry or the only one.
    Token,
    /// The caller's default.
    Default,
    /// No lifetime is known.
    Unknown,
}

impl Answer {
    /// The lifetime from `sent_at`, the time at which the request was sent: the smaller of the answer's lifetime and, for a
    /// JWT, of `exp` (minus `iat` if that is within 60 s of now, else minus now, where "now" is the server's `Date` if that is
    /// within an hour of ours); `default`, in seconds, if neither is known.
    #[must_use]
    pub fn lifetime(&self, sent_at: Timestamp, default: Option<u64>) -> Lifetime {
        let now = self
            .date
            .map(Timestamp::as_second)
            .filter(|date| date.abs_diff(sent_at.as_second()) <= MAX_CLOCK_OFFSET)
            .unwrap_or_else(|| sent_at.as_second());
        let until = |end: i64, start: i64| u64::try_from(end.saturating_sub(start)).unwrap_or_default();

        let relative = self.expires_in.filter(|&seconds| seconds > 0);
        let absolute = self.expires_at.map(|at| until(at.as_second(), now));
        let stated = [relative, absolute].into_iter().flatten().min();
        let claimed = claims(self.access_token.expose_secret()).map(|claims| {
            let issued = claims.issued_at.filter(|iat| iat.abs_diff(now) <= MAX_IAT_AGE);
            until(claims.expires, issued.unwrap_or(now))
        });

        let (seconds, source) = match (stated, claimed) {
            (Some(stated), Some(claimed)) if claimed < stated => (Some(claimed), LifetimeSource::Token),
            (Some(stated), _) => (Some(stated), LifetimeSource::Answer),
            (None, Some(claimed)) => (Some(claimed), LifetimeSource::Token),
            (None, None) if default.is_some() => (default, LifetimeSource::Default),
            (None, None) => (None, LifetimeSource::Unknown),
        };
        Lifetime { seconds: seconds.map(|seconds| seconds.min(MAX_LIFETIME)), source }
    }
}

/// Seconds since the epoch.
struct Claims {
    expires: i64,
    issued_at: Option<i64>,
}

/// The times of a signed JWT. The signature is not verified: the token comes from its issuer over TLS, and wrong claims would
/// affect only that issuer's clients.
fn claims(token: &str) -> Option<Claims> {
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let payload = URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
    let claims: Value = serde_json::from_slice(&payload).ok()?;
    let time = |name| claims.get(name).and_then(seconds).and_then(|time| i64::try_from(time).ok());
    // Some issuers write 0 for "never".
    Some(Claims { expires: time("exp").filter(|&exp| exp > 0)?, issued_at: time("iat") })
}
