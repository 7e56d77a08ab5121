//! How values that may be secret are shown.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;

use serde::{Serialize, Serializer};
use url::Url;

/// A value, or the number of its characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RedactedValue {
    Plain(String),
    Redacted(usize),
}

impl RedactedValue {
    /// Redacts a value, unless `show`.
    pub(crate) fn secret(value: &str, show: bool) -> Self {
        if show {
            RedactedValue::Plain(value.to_owned())
        } else {
            RedactedValue::Redacted(value.chars().count())
        }
    }
}

impl fmt::Display for RedactedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RedactedValue::Plain(value) => f.write_str(value),
            RedactedValue::Redacted(1) => f.write_str("[redacted, 1 character]"),
            RedactedValue::Redacted(length) => write!(f, "[redacted, {length} characters]"),
        }
    }
}

impl Serialize for RedactedValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The URL with redacted values of the query, which may contain an API key.
pub(crate) fn shown_url(url: &Url, show: bool) -> String {
    let (mut shown, query) = (url.clone(), url.query_pairs());
    if show || url.query().is_none() {
        return url.to_string();
    }
    shown.set_query(None);
    let members: Vec<String> =
        query.map(|(name, value)| format!("{name}={}", RedactedValue::secret(&value, false))).collect();
    format!("{shown}?{}", members.join("&"))
}
