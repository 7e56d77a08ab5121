//! The lifetime of a token, from the answer, the token itself or a default.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::answer::Answer;
use super::json::seconds;
use super::jwt;
use jiff::Timestamp;
use secrecy::ExposeSecret;

/// Caps the lifetime, in seconds: 100 years. Some servers express "never" as more.
pub const MAX_LIFETIME: u64 = 100 * 365 * 24 * 60 * 60;
/// A JWT with an older `iat` is not new but comes from an issuer's cache. Seconds.
const MAX_IAT_AGE: u64 = 60;
/// A server's clock that differs by more is ignored. Seconds.
pub(super) const MAX_CLOCK_OFFSET: u64 = 60 * 60;
/// A token whose expiry is longer past than this when it comes cannot be used. Less may be a difference of clocks. Seconds.
const MAX_DEAD_ON_ARRIVAL: u64 = 30;

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
    /// JWT, of `exp` (minus `iat` if that is within 60 s of now or of the server's `Date`, else minus now, where "now" is `Date`
    /// if that is within an hour of ours); `default`, in seconds, if neither is known. `expires_in` is taken for milliseconds
    /// only if another member of the answer says the same after division by 1,000.
    #[must_use]
    pub fn lifetime(&self, sent_at: Timestamp, default: Option<u64>) -> Lifetime {
        let date = self.date.map(Timestamp::as_second);
        let ours = sent_at.as_second();
        let now = date.filter(|date| date.abs_diff(ours) <= MAX_CLOCK_OFFSET).unwrap_or(ours);

        let absolute = self.expires_at.map(|at| until(at.as_second(), now));
        let claimed = claims(self.access_token.expose_secret()).map(|claims| claims.lifetime(now, date));
        let unmapped = self.unmapped_expiry.map(|at| until(at.as_second(), now));
        let relative = self
            .expires_in
            .filter(|&value| value > 0)
            .map(|value| in_seconds(value, [absolute, claimed, unmapped]));
        let stated = [relative, absolute].into_iter().flatten().min();

        let (seconds, source) = match (stated, claimed) {
            (Some(stated), Some(claimed)) if claimed < stated => (Some(claimed), LifetimeSource::Token),
            (Some(stated), _) => (Some(stated), LifetimeSource::Answer),
            (None, Some(claimed)) => (Some(claimed), LifetimeSource::Token),
            (None, None) if default.is_some() => (default, LifetimeSource::Default),
            (None, None) => (None, LifetimeSource::Unknown),
        };
        Lifetime { seconds: seconds.map(|seconds| seconds.min(MAX_LIFETIME)), source }
    }

    /// Whether the access token is a signed JWT whose claims can be read.
    #[must_use]
    pub fn is_jwt(&self) -> bool {
        jwt::claims(self.access_token.expose_secret()).is_some()
    }

    /// For how many seconds the token was dead when it came, if it was by more than 30 s: by the clock `now` and, if it is
    /// present, by the server's `Date`. A token that its issuer has just issued is alive, whatever our clock says.
    pub(super) fn dead_for(&self, now: Timestamp) -> Option<u64> {
        let date = self.date.map(Timestamp::as_second);
        let earlier = date.into_iter().chain([now.as_second()]).min()?;
        let claims = claims(self.access_token.expose_secret());
        let lifetime_when_new = claims
            .as_ref()
            .filter(|claims| claims.is_new_at(date))
            .map(|claims| claims.lifetime(earlier, date));
        let ends = [claims.map(|claims| claims.expires), self.expires_at.map(Timestamp::as_second)];
        let dead_for = until(earlier, ends.into_iter().flatten().min()?);
        let is_dead = lifetime_when_new.map_or(dead_for > MAX_DEAD_ON_ARRIVAL, |lifetime| lifetime == 0);
        is_dead.then_some(dead_for)
    }
}

fn until(end: i64, start: i64) -> u64 {
    u64::try_from(end.saturating_sub(start)).unwrap_or_default()
}

/// `expires_in` as seconds. It is in milliseconds if one of `others`, which are seconds, agrees within 1 % with a thousandth.
fn in_seconds(expires_in: u64, others: [Option<u64>; 3]) -> u64 {
    let thousandth = expires_in / 1000;
    let agrees = |other: u64| other > 0 && thousandth.abs_diff(other).saturating_mul(100) <= other;
    if others.into_iter().flatten().any(agrees) { thousandth } else { expires_in }
}

/// `exp` of a JWT, in seconds since the epoch.
pub(super) fn expiry(token: &str) -> Option<i64> {
    claims(token).map(|claims| claims.expires)
}

/// Seconds since the epoch.
struct Claims {
    expires: i64,
    issued_at: Option<i64>,
}

impl Claims {
    /// Whether the issuer, whose clock is `date`, has issued the token just now.
    fn is_new_at(&self, date: Option<i64>) -> bool {
        date.zip(self.issued_at).is_some_and(|(date, iat)| iat.abs_diff(date) <= MAX_IAT_AGE)
    }

    /// Seconds from now on.
    fn lifetime(&self, now: i64, date: Option<i64>) -> u64 {
        let is_new = self.is_new_at(date) || self.is_new_at(Some(now));
        let left = until(self.expires, self.issued_at.filter(|_| is_new).unwrap_or(now));
        // A clock that is far from ours decides only where the token would be dead otherwise.
        if left > 0 || is_new { left } else { until(self.expires, date.unwrap_or(now)) }
    }
}

/// The times of a signed JWT.
fn claims(token: &str) -> Option<Claims> {
    let claims = jwt::claims(token)?;
    let time = |name| claims.get(name).and_then(seconds).and_then(|time| i64::try_from(time).ok());
    // Some issuers write 0 for "never".
    Some(Claims { expires: time("exp").filter(|&exp| exp > 0)?, issued_at: time("iat") })
}
