//! Digests of inputs, to detect changes. Of secret values only of tokens.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use secrecy::{ExposeSecret, SecretString};
use tokensource_api::TokenSourceSpec;

/// SHA-256 of a secret, in hex. Only of tokens, which are too long to be guessed.
#[must_use]
pub fn sha256(secret: &SecretString) -> String {
    let digest = digest(&SHA256, secret.expose_secret().as_bytes());
    digest.as_ref().iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// A digest of `spec.provider` and `spec.credentials`, which contain no secret, and of `spec.issuerRef`, whose Secrets are others.
/// The same spec gives the same digest in every build, because absent fields are left out.
#[must_use]
pub fn provider_digest(spec: &TokenSourceSpec) -> String {
    // Cannot fail: structs of strings only.
    let own = serde_json::to_string(&(&spec.provider, &spec.credentials));
    let json = match &spec.issuer_ref {
        None => own,
        Some(issuer) => serde_json::to_string(&(&spec.provider, &spec.credentials, issuer)),
    };
    let json = json.unwrap_or_default();
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
