//! Where the members of an answer are, for endpoints whose answers do not follow RFC 6749, 5.1.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use jiff::Timestamp;
use jiff::civil::DateTime;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// Numbers from here on are milliseconds since the epoch (from 1973), smaller ones seconds (to 5138).
const MIN_MILLISECONDS: f64 = 1e11;

/// A JSON pointer (RFC 6901) to a member of a document, not to the whole document.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Pointer(String);

/// Members of an answer that [`values`](ResponseMapping::values) cannot point to, in lower case and without underscores.
pub const SECRET_MEMBERS: [&str; 5] = ["accesstoken", "refreshtoken", "idtoken", "clientsecret", "assertion"];

/// A text is not a [`Pointer`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no JSON pointer (RFC 6901): {problem}")]
pub struct PointerError {
    text: String,
    problem: &'static str,
}

impl Pointer {
    /// Whether it points to, or into, a member that is named like a token or a secret.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        let plain = |name: &str| name.replace(['_', '-'], "").to_ascii_lowercase();
        self.0.split('/').any(|name| SECRET_MEMBERS.contains(&plain(name).as_str()))
    }

    /// The value, or `None` if it is absent or `null`.
    pub(super) fn find<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        document.pointer(&self.0).filter(|value| !value.is_null())
    }

    /// What holds the value as a member.
    pub(super) fn holder<'a>(&self, document: &'a Value) -> Option<&'a Value> {
        let (holder, _) = self.0.rsplit_once('/')?;
        document.pointer(holder)
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Pointer {
    type Err = PointerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |problem| PointerError { text: text.to_owned(), problem };
        if !text.starts_with('/') {
            return Err(error("write /access_token, or /data/token for a token inside of data"));
        }
        if text.split('~').skip(1).any(|rest| !rest.starts_with(['0', '1'])) {
            return Err(error("a tilde is written as ~0, and a slash in a name as ~1"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// Where the members of an answer are. `None`: under the name in RFC 6749, 5.1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseMapping {
    /// The access token.
    pub access_token: Option<Pointer>,
    /// Its lifetime, in seconds.
    pub expires_in: Option<Pointer>,
    /// Its expiry, as RFC 3339 or as seconds or milliseconds since the epoch. `None`: it is not read.
    pub expires_at: Option<Pointer>,
    /// A refresh token that replaces the one that was sent.
    pub refresh_token: Option<Pointer>,
    /// Whether answers have no `token_type` by their documentation, so that its absence says nothing.
    pub omits_token_type: bool,
    /// Further members, by their names in [`Answer::values`](super::Answer::values).
    pub values: BTreeMap<String, Pointer>,
}

/// An absolute time: RFC 3339, or seconds or milliseconds since the epoch as a number or in a string. Out of range is the latest
/// time. The epoch and before are `None`: some servers write them for "never".
pub(super) fn time(value: &Value) -> Option<Timestamp> {
    let number = match value {
        Value::Number(number) => number.as_f64()?,
        Value::String(text) => match text.trim().parse::<f64>() {
            Ok(number) => number,
            Err(_) => return date(text.trim()),
        },
        _ => return None,
    };
    if !number.is_finite() || number <= 0.0 {
        return None;
    }
    let seconds = if number >= MIN_MILLISECONDS { number / 1000.0 } else { number };
    #[allow(clippy::cast_possible_truncation)] // `as` saturates
    Some(Timestamp::from_second(seconds as i64).unwrap_or(Timestamp::MAX))
}

/// RFC 3339. `9999-12-31T23:59:59Z`, the latest time of .NET, is beyond what a timestamp can be; `0001-01-01T00:00:00Z` is no time
/// of Go's.
fn date(text: &str) -> Option<Timestamp> {
    let last = || {
        let text = text.strip_suffix('Z').or_else(|| text.strip_suffix("+00:00"))?;
        text.parse::<DateTime>().ok().filter(|time| time.year() == 9999).map(|_| Timestamp::MAX)
    };
    text.parse::<Timestamp>().ok().or_else(last).filter(|time| *time > Timestamp::UNIX_EPOCH)
}

/// A text, a number or a boolean, as text.
pub(super) fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    }
}
