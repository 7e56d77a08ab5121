//! Request headers that a description cannot set.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

/// In ASCII lower case; a star at the end matches any suffix. These headers would impersonate the client or a proxy, change the
/// framing of the message, or give the author of a description access to metadata services or to other identities.
pub const REFUSED_HEADERS: &[&str] = &[
    "authorization",
    "connection",
    "content-*",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "impersonate-*",
    "keep-alive",
    "metadata*",
    "proxy-*",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-aws-*",
    "x-forwarded-*",
];

/// Whether `name` is one of [`REFUSED_HEADERS`], in any ASCII case.
#[must_use]
pub fn is_refused_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    REFUSED_HEADERS.iter().any(|refused| match refused.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == *refused,
    })
}
