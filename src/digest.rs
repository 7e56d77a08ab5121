//! Digests of inputs, to detect changes. Never of secret values.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};

use tokensource_api::TokenSourceSpec;

/// A digest of `spec.provider` and `spec.credentials`, which contain no secret. The same spec gives the same digest in every
/// build, because absent fields are left out.
#[must_use]
pub fn provider_digest(spec: &TokenSourceSpec) -> String {
    // Cannot fail: structs of strings only.
    let json = serde_json::to_string(&(&spec.provider, &spec.credentials)).unwrap_or_default();
    short_digest(&[&json])
}

/// The first 16 hex digits of SHA-256 over `parts`, each preceded by its length.
#[must_use]
pub fn short_digest(parts: &[&str]) -> String {
    let framed: String = parts.iter().map(|part| format!("{}:{part}", part.len())).collect();
    digest(&SHA256, framed.as_bytes()).as_ref().iter().take(8).fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
