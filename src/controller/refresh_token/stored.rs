//! The Secret `<name>-refresh-token`: what it holds, as it is read and written.

use std::fmt;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;

use crate::cluster::CallError;
use crate::digest::sha256;
use crate::key::Key;
use crate::secret::{Facts, RefreshTokenSecret, STORED_REFRESH_TOKEN_KEY, UNROTATED_KEY, Version};

/// The Secret `<name>-refresh-token` as it was read. The default: it is absent.
#[derive(Clone, Debug, Default)]
pub(in crate::controller) struct StoredSecret {
    pub(super) version: Option<Version>,
    pub(super) token: Option<StoredToken>,
    /// SHA-256, in hex, of an original whose response had no new refresh token: it is sent without an announcement.
    pub(super) unrotated_sha256: Option<String>,
    pub(super) announced: Option<Announcement>,
}

/// A rotated refresh token as it is stored.
#[derive(Clone, Debug)]
pub(super) struct StoredToken {
    pub(super) value: SecretString,
    pub(super) original_sha256: String,
    /// How often the original was rotated until then.
    pub(super) rotations: u64,
}

/// Which refresh token is about to be sent, and by which process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Announcement {
    pub(super) sent_sha256: String,
    pub(super) process: String,
}

impl fmt::Display for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.sent_sha256, self.process)
    }
}

impl Announcement {
    fn parse(text: &str) -> Option<Self> {
        let (sent_sha256, process) = text.split_once(' ')?;
        Some(Announcement { sent_sha256: sent_sha256.into(), process: process.into() })
    }
}

/// Whether a process made an announcement. What cannot be read is another's.
pub(super) fn is_by(announced: &str, process: &str) -> bool {
    Announcement::parse(announced).is_some_and(|announced| announced.process == process)
}

/// The process that made an announcement.
pub(in crate::controller) fn announcer(facts: &Facts) -> &str {
    let announced = facts.rare().refresh_token_sent.as_deref().unwrap_or_default();
    announced.split_once(' ').map_or(announced, |(_, process)| process)
}

/// Whether a Secret is the one that stores the refresh token of this TokenSource.
pub(in crate::controller) fn stores_refresh_token_of(secret: &Facts, source: &Key) -> bool {
    secret.rare().refresh_token_of.as_deref() == Some(&source.name)
}

impl StoredSecret {
    pub(super) fn of(secret: Secret, facts: &Facts) -> Self {
        let mut data = secret.data.unwrap_or_default();
        let mut text = |name| data.remove(name).and_then(|ByteString(bytes)| String::from_utf8(bytes).ok());
        let rotations = text("rotations").and_then(|text| text.parse().ok()).unwrap_or_default();
        let token = text(STORED_REFRESH_TOKEN_KEY).zip(text("seed_sha256"));
        StoredSecret {
            version: Some(facts.version.clone()),
            token: token.map(|(value, original_sha256)| StoredToken {
                value: value.into(),
                original_sha256,
                rotations,
            }),
            unrotated_sha256: text(UNROTATED_KEY),
            announced: facts.rare().refresh_token_sent.as_deref().and_then(Announcement::parse),
        }
    }

    /// The body of a write of all this, which succeeds only in the state `version`.
    pub(super) fn apply(&self, secret: &Key, source: &Key) -> Value {
        let rotations = self.token.as_ref().map(|token| token.rotations.to_string()).unwrap_or_default();
        let token = self.token.iter().flat_map(|token| {
            [
                (STORED_REFRESH_TOKEN_KEY, token.value.expose_secret()),
                ("seed_sha256", &token.original_sha256),
                ("rotations", &rotations),
            ]
        });
        let unrotated = self.unrotated_sha256.as_deref().map(|digest| (UNROTATED_KEY, digest));
        let data: Vec<_> = token.chain(unrotated).collect();
        let announced = self.announced.as_ref().map(Announcement::to_string);
        RefreshTokenSecret {
            name: &secret.name,
            source: &source.name,
            data: &data,
            sent: announced.as_deref(),
        }
        .apply(self.version.as_ref())
    }

    pub(super) fn token_sha256(&self) -> Option<String> {
        self.token.as_ref().map(|token| sha256(&token.value))
    }

    /// An error without the token, which an admission webhook may have quoted.
    pub(super) fn without_token(&self, error: CallError) -> CallError {
        match &self.token {
            Some(token) => error.without(&token.value),
            None => error,
        }
    }
}
