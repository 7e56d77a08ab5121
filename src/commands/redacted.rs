//! How values that may be secret are shown.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::borrow::Cow;
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

/// The URL with redacted values of the query, and without its fragment: both may contain an API key. A name without a value may
/// be one.
pub(crate) fn shown_url(url: &Url, show: bool) -> String {
    if show {
        return url.to_string();
    }
    let redacted = |text: &str| RedactedValue::secret(text, false);
    let mut shown = url.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    let mut shown = shown.to_string();
    if url.query().is_some() {
        let member = |(name, value): (Cow<'_, str>, Cow<'_, str>)| match &*value {
            "" => redacted(&name).to_string(),
            value => format!("{name}={}", redacted(value)),
        };
        shown = format!("{shown}?{}", url.query_pairs().map(member).collect::<Vec<_>>().join("&"));
    }
    match url.fragment() {
        Some(fragment) => format!("{shown}#{}", redacted(fragment)),
        None => shown,
    }
}
