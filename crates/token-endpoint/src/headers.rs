//! Request headers that a description may not set.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

/// In ASCII lower case; a star at the end stands for anything. They would speak for the operator or for a proxy, change
/// how the message is framed, or open metadata services and the Kubernetes API to whoever writes a TokenSource.
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
