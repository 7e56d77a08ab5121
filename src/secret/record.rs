#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! The record that stands on every target Secret, beside the token: what is known of it, so that a restart, a
//! new leader or a lost status costs no token request.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The version that this build writes.
const VERSION: u32 = 1;

/// What is known of the token in a target Secret. It holds no secret and no digest of one, but the token's id.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    version: u32,
    /// The TokenSource that wrote it.
    pub owner: Owner,
    /// What it was minted from.
    pub inputs: Inputs,
    /// When it was asked for.
    pub issued_at: Timestamp,
    /// When it expires, as the endpoint or the token says.
    pub expires_at: Timestamp,
    /// The first 12 hex digits of SHA-256(access token).
    pub token_id: String,
    /// Its type, usually Bearer.
    pub token_type: String,
    /// The scope that was granted, where the endpoint says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// The issuer gave a token that the target held already: its schedule is another one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cached: bool,
    /// The value of the annotation `tokensource.dev/refresh-requested-at` that this mint answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_request: Option<String>,
    /// What a person should know of this mint, for the Ready condition's message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
    /// A digest of the template by which the Secret was written; absent where there was none, and in the records of
    /// builds that knew no templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
}

/// A TokenSource of the Secret's own namespace.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// What a token was minted from. Never a hash of a secret value.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// A digest of `spec.provider` and `spec.credentials`.
    pub provider: String,
    /// The credentials Secret.
    pub credentials: Version,
}

/// One state of one object.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
}

/// What a mint tells the record.
#[derive(Clone, Debug, PartialEq)]
pub struct Minted {
    /// When the request was sent.
    pub issued_at: Timestamp,
    /// When the token expires.
    pub expires_at: Timestamp,
    /// The first 12 hex digits of SHA-256(access token).
    pub token_id: String,
    /// Its type.
    pub token_type: String,
    /// The scope that was granted.
    pub scope: Option<String>,
    /// What a person should know.
    pub remarks: Vec<String>,
}

impl Record {
    /// The record of a new token. `before` is the record of the token that it replaces: the same token again
    /// never moves its own expiry later.
    #[must_use]
    pub fn new(
        owner: Owner,
        inputs: Inputs,
        refresh_request: Option<String>,
        minted: Minted,
        before: Option<&Record>,
    ) -> Self {
        let same = before.filter(|before| before.token_id == minted.token_id);
        let expires_at = same.map_or(minted.expires_at, |before| before.expires_at.min(minted.expires_at));
        Record {
            version: VERSION,
            owner,
            inputs,
            issued_at: minted.issued_at,
            expires_at,
            token_id: minted.token_id,
            token_type: minted.token_type,
            scope: minted.scope,
            cached: same.is_some(),
            refresh_request,
            remarks: minted.remarks,
            template: None,
        }
    }

    /// The same token, taken up by `owner`, with the credentials Secret in a state that holds the same values.
    #[must_use]
    pub fn restamped(&self, owner: Owner, credentials: Option<Version>) -> Self {
        let mut record = self.clone();
        record.owner = owner;
        if let Some(credentials) = credentials {
            record.inputs.credentials = credentials;
        }
        record
    }

    /// Reads the annotation's value. `None` for what this build cannot read: whoever wrote it is then unknown.
    #[must_use]
    pub fn parse(annotation: &str) -> Option<Self> {
        serde_json::from_str(annotation).ok()
    }

    /// The annotation's value.
    #[must_use]
    pub fn to_annotation(&self) -> String {
        // Strings, numbers and times: nothing that JSON refuses.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether a build with another idea of records wrote it. Its inputs say nothing then, and it is written
    /// anew at the next refresh.
    #[must_use]
    pub fn is_of_another_version(&self) -> bool {
        self.version != VERSION
    }

    /// The token's lifetime in seconds, from the moment that it was asked for.
    #[must_use]
    pub fn lifetime(&self) -> u64 {
        crate::time::seconds_between(self.issued_at, self.expires_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(token_id: &str, issued: i64, expires: i64, before: Option<&Record>) -> Record {
        let version = Version { uid: "c".into(), resource_version: "7".into() };
        let minted = Minted {
            issued_at: Timestamp::from_second(issued).unwrap(),
            expires_at: Timestamp::from_second(expires).unwrap(),
            token_id: token_id.into(),
            token_type: "Bearer".into(),
            scope: None,
            remarks: vec![],
        };
        let owner = Owner { name: "vault-api".into(), uid: "u".into() };
        Record::new(owner, Inputs { provider: "p".into(), credentials: version }, None, minted, before)
    }

    #[test]
    fn the_annotation_is_short_and_comes_back_as_it_was() {
        let record = record("3f9a1c0d42be", 1_800_000_000, 1_800_000_300, None);
        let annotation = record.to_annotation();
        assert_eq!(
            annotation,
            r#"{"version":1,"owner":{"name":"vault-api","uid":"u"},"inputs":{"provider":"p","credentials":{"uid":"c","resourceVersion":"7"}},"issuedAt":"2027-01-15T08:00:00Z","expiresAt":"2027-01-15T08:05:00Z","tokenId":"3f9a1c0d42be","tokenType":"Bearer"}"#
        );
        assert_eq!(Record::parse(&annotation), Some(record.clone()));
        assert_eq!(record.lifetime(), 300);
    }

    #[test]
    fn a_later_version_is_read_where_it_can_be_and_known_as_another() {
        let annotation =
            record("a", 0, 300, None).to_annotation().replace(r#""version":1"#, r#""version":2,"new":true"#);
        assert!(Record::parse(&annotation).is_some_and(|record| record.is_of_another_version()));
        assert_eq!(Record::parse("{}"), None);
        assert_eq!(Record::parse("not json"), None);
    }

    #[test]
    fn the_same_token_again_never_expires_later() {
        let first = record("a", 0, 300, None);
        assert!(!first.cached);
        let again = record("a", 100, 400, Some(&first));
        assert!(again.cached);
        assert_eq!(again.expires_at, first.expires_at);
        assert_eq!(again.issued_at.as_second(), 100);
        assert!(!record("b", 100, 400, Some(&first)).cached);
    }
}
