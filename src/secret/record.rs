#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! The record: an annotation on every target Secret that describes the token, so that no token request is needed after a
//! restart, a change of leader or the loss of the status.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::text::shown;
use crate::uid::Uid;

/// The version of the record's format.
const RECORD_VERSION: u32 = 1;
/// The most remarks of a record, and the most bytes of one.
const MAX_REMARKS: usize = 8;
/// A longer annotation was not written by this operator.
const MAX_RECORD_BYTES: usize = 16 * 1024;

/// The description of the token in a target Secret. It contains no secret and, except for the token's id, no digest of one. Small,
/// because there is one for each TokenSource.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    version: u32,
    /// The TokenSource for which it was written.
    pub owner: Owner,
    /// What the token was requested with.
    pub inputs: Inputs,
    /// When the token was requested.
    pub issued_at: Timestamp,
    /// When it expires, according to the endpoint or the token.
    pub expires_at: Timestamp,
    /// The first 12 hex digits of SHA-256(access token).
    pub token_id: Box<str>,
    /// The token type, usually Bearer.
    pub token_type: Box<str>,
    /// The scope that was granted, where the endpoint states it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Box<str>>,
    /// The issuer returned the token that the target held already. Such a token has another refresh schedule.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cached: bool,
    /// The value of the annotation `tokensource.dev/refresh-requested-at` that this token fulfilled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_request: Option<Box<str>>,
    /// Remarks on this token for the Ready condition's message.
    #[serde(default, skip_serializing_if = "<[String]>::is_empty")]
    pub remarks: Box<[String]>,
    /// A digest of the template with which the Secret was written; absent where there was none, and in records of builds
    /// without templates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Box<str>>,
}

/// A TokenSource in the Secret's namespace.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// `metadata.name`.
    pub name: Box<str>,
    /// `metadata.uid`.
    pub uid: Uid,
}

/// What a token was requested with. Contains no hash of a secret value.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct Inputs {
    /// A digest of `spec.provider` and `spec.credentials`.
    pub provider: Box<str>,
    /// uid and resourceVersion of the credentials Secret.
    pub credentials: Version,
}

/// One version of one object.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Version {
    /// `metadata.uid`.
    pub uid: Uid,
    /// `metadata.resourceVersion`.
    pub resource_version: Box<str>,
}

impl Version {
    /// For a token that depends on no object.
    #[must_use]
    pub fn of_nothing() -> Self {
        Version { uid: Uid::default(), resource_version: Box::default() }
    }
}

/// The result of a token request, for the record.
#[derive(Clone, Debug, PartialEq)]
pub struct Minted {
    /// When the request was sent.
    pub issued_at: Timestamp,
    /// When the token expires.
    pub expires_at: Timestamp,
    /// The first 12 hex digits of SHA-256(access token).
    pub token_id: String,
    /// The token type, usually Bearer.
    pub token_type: String,
    /// The scope that was granted, where the endpoint states it.
    pub scope: Option<String>,
    /// Neither the endpoint nor the token states a lifetime.
    pub lifetime_is_assumed: bool,
    /// Whether the token is a JWT.
    pub is_jwt: bool,
    /// Remarks for the Ready condition's message.
    pub remarks: Vec<String>,
}

impl Minted {
    /// Whether the same token says nothing about a cache: the times in a JWT are whole seconds, so that two JWTs of one second
    /// may be the same.
    fn coincides_with(&self, before: &Record) -> bool {
        self.is_jwt && crate::time::seconds_between(before.issued_at, self.issued_at) <= 1
    }
}

impl Record {
    /// The record of a new token. `before` is the record of the token that it replaces. If both have the same id, the
    /// earlier of the two expiries holds, unless both are assumed: a session that is used again lives on.
    #[must_use]
    pub fn new(
        owner: Owner,
        inputs: Inputs,
        refresh_request: Option<Box<str>>,
        minted: Minted,
        before: Option<&Record>,
    ) -> Self {
        let same = before.filter(|before| *before.token_id == *minted.token_id);
        let expires_at = match same {
            Some(before) if !minted.lifetime_is_assumed => before.expires_at.min(minted.expires_at),
            _ => minted.expires_at,
        };
        let cached = same.is_some_and(|before| match minted.coincides_with(before) {
            true => before.cached,
            false => !minted.lifetime_is_assumed,
        });
        Record {
            version: RECORD_VERSION,
            owner,
            inputs,
            issued_at: minted.issued_at,
            expires_at,
            token_id: minted.token_id.into(),
            token_type: minted.token_type.into(),
            scope: minted.scope.map(String::into_boxed_str),
            cached,
            refresh_request,
            remarks: bounded(minted.remarks),
            template: None,
        }
    }

    /// The record of the same token with another owner, and with `credentials` if the Secret has another version with the
    /// same values.
    #[must_use]
    pub fn updated(&self, owner: Owner, credentials: Option<Version>) -> Self {
        let mut record = self.clone();
        record.owner = owner;
        if let Some(credentials) = credentials {
            record.inputs.credentials = credentials;
        }
        record
    }

    /// Parses the annotation's value; `None` where this build cannot parse it.
    #[must_use]
    pub fn parse(annotation: &str) -> Option<Self> {
        if annotation.len() > MAX_RECORD_BYTES { None } else { serde_json::from_str(annotation).ok() }
    }

    /// The annotation's value.
    #[must_use]
    pub fn to_annotation(&self) -> String {
        // Cannot fail: strings, numbers and times only.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether it was written in another format version. Its inputs are not comparable then; the next refresh writes it in
    /// this version.
    #[must_use]
    pub fn is_of_another_version(&self) -> bool {
        self.version != RECORD_VERSION
    }

    /// The token's lifetime in seconds, from the request on.
    #[must_use]
    pub fn lifetime(&self) -> u64 {
        crate::time::seconds_between(self.issued_at, self.expires_at)
    }
}

/// The first remarks, each as text that is shown: an annotation that everyone reads who may read Secrets' metadata.
fn bounded(remarks: Vec<String>) -> Box<[String]> {
    remarks.into_iter().take(MAX_REMARKS).map(|remark| shown(&remark).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_has_few_short_remarks_and_another_annotation_is_none() {
        let long = || "x\u{1b}".repeat(10_000);
        let record = recorded(Minted { remarks: vec![long(); 100], ..minted("a", 0, 300) }, None);
        let written = record.to_annotation();
        assert!(written.len() < MAX_RECORD_BYTES, "{}", written.len());
        assert_eq!(Record::parse(&written), Some(record.clone()));
        let forged = Record { remarks: vec![long(); 10].into(), ..record };
        assert_eq!(Record::parse(&forged.to_annotation()), None);
    }

    fn minted(token_id: &str, issued: i64, expires: i64) -> Minted {
        Minted {
            issued_at: Timestamp::from_second(issued).unwrap(),
            expires_at: Timestamp::from_second(expires).unwrap(),
            token_id: token_id.into(),
            token_type: "Bearer".into(),
            scope: None,
            lifetime_is_assumed: false,
            is_jwt: false,
            remarks: vec![],
        }
    }

    fn recorded(minted: Minted, before: Option<&Record>) -> Record {
        let version = Version { uid: "c".into(), resource_version: "7".into() };
        let owner = Owner { name: "vault-api".into(), uid: "u".into() };
        Record::new(owner, Inputs { provider: "p".into(), credentials: version }, None, minted, before)
    }

    fn record(token_id: &str, issued: i64, expires: i64, before: Option<&Record>) -> Record {
        recorded(minted(token_id, issued, expires), before)
    }

    #[test]
    fn record_annotation_round_trip_is_lossless() {
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
    fn record_parse_of_a_later_version_reports_another_version() {
        let annotation =
            record("a", 0, 300, None).to_annotation().replace(r#""version":1"#, r#""version":2,"new":true"#);
        assert!(Record::parse(&annotation).is_some_and(|record| record.is_of_another_version()));
        assert_eq!(Record::parse("{}"), None);
        assert_eq!(Record::parse("not json"), None);
    }

    #[test]
    fn record_new_with_the_same_token_keeps_the_earlier_expiry() {
        let first = record("a", 0, 300, None);
        assert!(!first.cached);
        let again = record("a", 100, 400, Some(&first));
        assert!(again.cached);
        assert_eq!(again.expires_at, first.expires_at);
        assert_eq!(again.issued_at.as_second(), 100);
        assert!(!record("b", 100, 400, Some(&first)).cached);
    }

    #[test]
    fn record_new_with_the_same_token_of_assumed_life_lives_on_from_now() {
        let assumed = |issued, expires| Minted { lifetime_is_assumed: true, ..minted("a", issued, expires) };
        let first = recorded(assumed(0, 900), None);
        let again = recorded(assumed(600, 1500), Some(&first));
        assert_eq!((again.expires_at.as_second(), again.lifetime(), again.cached), (1500, 900, false));
    }

    #[test]
    fn record_new_with_the_same_jwt_within_a_second_is_no_sign_of_a_cache() {
        let jwt = |issued| Minted { is_jwt: true, ..minted("a", issued, 300) };
        let first = recorded(jwt(0), None);
        assert!(!recorded(jwt(1), Some(&first)).cached);
        assert!(recorded(jwt(2), Some(&first)).cached);
        assert!(record("a", 1, 300, Some(&first)).cached, "an opaque token");
        let cached = recorded(jwt(100), Some(&first));
        assert!(recorded(jwt(101), Some(&cached)).cached, "a cache that is known");
    }
}
