//! Error codes with a known meaning: those of the standards, and those of vendors.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::class::{Class, ErrorKind};

/// An error code with a known meaning.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct KnownCode {
    /// In the spelling of its source.
    pub(crate) code: &'static str,
    pub(crate) class: Class,
    pub(crate) kind: ErrorKind,
    /// Defined by a standard or by a preset's vendor. Other vendors' codes say what failed, but not for which other requests.
    pub(crate) is_standard: bool,
}

impl KnownCode {
    /// Whether it refuses what was sent, so that a repetition helps only after a change.
    pub(crate) fn refuses(&self) -> bool {
        self.class == Class::Rejected
    }

    /// Whether it says that the client is wrong.
    pub(crate) fn names_client(&self) -> bool {
        self.class == Class::LockedOut || matches!(self.code, "invalid_client" | "AUTHENTICATION_FAILED")
    }
}

const fn standard(code: &'static str, class: Class, kind: ErrorKind) -> KnownCode {
    KnownCode { code, class, kind, is_standard: true }
}

const fn vendor(code: &'static str, class: Class, kind: ErrorKind) -> KnownCode {
    KnownCode { code, class, kind, is_standard: false }
}

#[rustfmt::skip]
static KNOWN: &[KnownCode] = &[
    // RFC 6749, 5.2
    standard("invalid_client", Class::Rejected, ErrorKind::ClientRejected),
    standard("unauthorized_client", Class::Rejected, ErrorKind::ClientRejected), // Keycloak: a wrong secret
    standard("invalid_grant", Class::Rejected, ErrorKind::GrantRejected),
    standard("unsupported_grant_type", Class::Rejected, ErrorKind::GrantRejected),
    standard("invalid_scope", Class::Rejected, ErrorKind::ScopeRejected),
    standard("invalid_request", Class::Rejected, ErrorKind::RequestRejected),
    // RFC 6749, 4.1.2.1, seen at token endpoints too
    standard("access_denied", Class::Rejected, ErrorKind::ClientRejected),
    standard("server_error", Class::Transient, ErrorKind::Unavailable),
    standard("temporarily_unavailable", Class::Transient, ErrorKind::Unavailable),
    // RFC 8628, 3.5
    standard("slow_down", Class::Transient, ErrorKind::RateLimited),
    // RFC 8707, 2
    standard("invalid_target", Class::Rejected, ErrorKind::RequestRejected),
    // VNG Cloud
    standard("AUTHENTICATION_FAILED", Class::Rejected, ErrorKind::ClientRejected),
    standard("TOO_MANY_FAILED_LOGINS", Class::LockedOut, ErrorKind::RateLimited),
    // HTTP's 429 (RFC 6585, 4) in a body
    standard("429", Class::Limited, ErrorKind::RateLimited),
    vendor("too_many_requests", Class::Limited, ErrorKind::RateLimited),
    vendor("rate_limit_exceeded", Class::Limited, ErrorKind::RateLimited),
    // GitHub: https://docs.github.com/en/apps/maintaining-github-apps/troubleshooting-oauth-app-access-token-request-errors
    vendor("incorrect_client_credentials", Class::Rejected, ErrorKind::ClientRejected),
    vendor("bad_refresh_token", Class::Rejected, ErrorKind::GrantRejected),
    // Apigee: https://cloud.google.com/apigee/docs/api-platform/reference/policies/oauth-http-status-code-reference
    vendor("oauth.v2.InvalidClientIdentifier", Class::Rejected, ErrorKind::ClientRejected),
    vendor("oauth.v2.invalid_refresh_token", Class::Rejected, ErrorKind::GrantRejected),
    vendor("oauth.v2.refresh_token_expired", Class::Rejected, ErrorKind::GrantRejected),
    vendor("oauth.v2.InvalidScope", Class::Rejected, ErrorKind::ScopeRejected),
    vendor("policies.ratelimit.QuotaViolation", Class::Limited, ErrorKind::RateLimited),
    vendor("policies.ratelimit.SpikeArrestViolation", Class::Limited, ErrorKind::RateLimited),
];

/// The known code that `code` is: in any ASCII case, and with `-` for `_`.
pub(super) fn known(code: &str) -> Option<&'static KnownCode> {
    let fold = |byte: u8| if byte == b'-' { b'_' } else { byte.to_ascii_lowercase() };
    let is_same = |known: &&KnownCode| known.code.bytes().map(fold).eq(code.bytes().map(fold));
    KNOWN.iter().find(is_same)
}

/// HTTP's "too many requests" as a number.
pub(super) fn too_many_requests() -> Option<&'static KnownCode> {
    known("429")
}

/// At most 64 characters without a space; longer or spaced text is a sentence, and digits alone are a status.
pub(super) fn is_code(code: &str) -> bool {
    (1..=64).contains(&code.len())
        && code.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':'))
        && !code.bytes().all(|b| b.is_ascii_digit())
}
