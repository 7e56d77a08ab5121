//! Sentences with a known meaning, of servers that send no error code. A sentence only slows its own request down.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::class::{Class, ErrorKind};
use crate::redact::Redactor;

/// A longer text is no known sentence, in bytes.
const MAX_SENTENCE_LENGTH: usize = 400;

/// A whole sentence with a known meaning.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct KnownSentence {
    /// In words of lower case; `#` is a number.
    pub(crate) text: &'static str,
    pub(crate) class: Class,
    pub(crate) kind: ErrorKind,
}

const fn sentence(text: &'static str, class: Class, kind: ErrorKind) -> KnownSentence {
    KnownSentence { text, class, kind }
}

#[rustfmt::skip]
static KNOWN: &[KnownSentence] = &[
    sentence("too many requests", Class::Limited, ErrorKind::RateLimited), // RFC 6585, 4
    sentence("rate limit exceeded", Class::Limited, ErrorKind::RateLimited),
    sentence("api rate limit exceeded", Class::Limited, ErrorKind::RateLimited), // GitHub
    // Zoho
    sentence("you have made too many requests continuously", Class::Limited, ErrorKind::RateLimited),
    sentence("you have made too many requests continuously please try again after some time", Class::Limited, ErrorKind::RateLimited),
    sentence("realm does not exist", Class::Unclear, ErrorKind::RequestRejected), // Keycloak
    sentence("account is locked", Class::LockedOut, ErrorKind::RateLimited),
    sentence("account locked", Class::LockedOut, ErrorKind::RateLimited),
    sentence("account temporarily disabled", Class::LockedOut, ErrorKind::RateLimited), // Keycloak
    sentence("too many failed login attempts", Class::LockedOut, ErrorKind::RateLimited),
    sentence("invalid client", Class::Rejected, ErrorKind::ClientRejected), // Twitch
    sentence("invalid client id", Class::Rejected, ErrorKind::ClientRejected),
    sentence("invalid client secret", Class::Rejected, ErrorKind::ClientRejected), // Twitch
    sentence("invalid client credentials", Class::Rejected, ErrorKind::ClientRejected), // Keycloak
    sentence("invalid client or invalid client credentials", Class::Rejected, ErrorKind::ClientRejected), // Keycloak
    sentence("client authentication failed", Class::Rejected, ErrorKind::ClientRejected), // PayPal
    sentence("bad client credentials", Class::Rejected, ErrorKind::ClientRejected), // Spring
    sentence("bad credentials", Class::Rejected, ErrorKind::ClientRejected), // Spring, GitHub
    sentence("unable to verify your credentials", Class::Rejected, ErrorKind::ClientRejected), // X
    sentence("access denied authorization failed", Class::Rejected, ErrorKind::ClientRejected), // CrowdStrike
    sentence("failed to generate access token for clientid", Class::Rejected, ErrorKind::ClientRejected), // CrowdStrike
    sentence("api token invalid", Class::Rejected, ErrorKind::ClientRejected), // Tailscale
    sentence("oauth client cannot grant scopes", Class::Rejected, ErrorKind::ScopeRejected), // Tailscale
    sentence("invalid refresh token", Class::Rejected, ErrorKind::GrantRejected), // Twitch
    sentence("unknown or invalid refresh token", Class::Rejected, ErrorKind::GrantRejected), // Auth0
    sentence("refresh token expired", Class::Rejected, ErrorKind::GrantRejected),
    sentence("refresh token is expired", Class::Rejected, ErrorKind::GrantRejected),
    sentence("refresh token is invalid", Class::Rejected, ErrorKind::GrantRejected), // Atlassian
    sentence("token has been expired or revoked", Class::Rejected, ErrorKind::GrantRejected), // Google
];

/// The known sentence that `text` is as a whole, without what was sent: an echoed scope must not be read as one.
pub(super) fn known(text: &str, sent: &Redactor) -> Option<&'static KnownSentence> {
    if text.len() > MAX_SENTENCE_LENGTH {
        return None;
    }
    let words = words(&sent.without_sent(text));
    KNOWN.iter().find(|known| known.text == words)
}

/// The words of a text, with `#` for each number.
fn words(text: &str) -> String {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let words = words.map(|word| match word.bytes().all(|b| b.is_ascii_digit()) {
        true => "#".to_owned(),
        false => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}
