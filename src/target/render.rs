#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! The bodies of the operator's writes to Secrets. Each carries its precondition, so that nothing is overwritten
//! that was not seen: leases do not fence, these do.
#![allow(
    clippy::indexing_slicing,
    reason = "writing a member of a JSON object that was made here does not panic"
)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::facts::Facts;
use super::record::{Owner, Record, Version};
use super::{MANAGED_BY_LABEL, RECORD_ANNOTATION, REFRESH_TOKEN_ANNOTATION, REFRESH_TOKEN_LABEL};

/// The data keys of a target.
pub const DEFAULT_KEYS: [&str; 3] = ["access_token", "token_type", "expires_at"];

/// A token on its way into the target.
pub struct TargetSecret<'a> {
    /// The Secret's name.
    pub name: &'a str,
    /// What is known of the token.
    pub record: &'a Record,
    /// The token.
    pub access_token: &'a SecretString,
    /// The Secret goes when the TokenSource goes.
    pub owner_reference: bool,
}

/// A refresh token that rotates, on its way into the Secret that only the operator uses.
pub struct RefreshTokenSecret<'a> {
    /// The Secret's name.
    pub name: &'a str,
    /// The TokenSource's name. No ownerReference: the Secret survives deletion and re-creation.
    pub source: &'a str,
    /// The refresh token.
    pub refresh_token: &'a SecretString,
    /// SHA-256, in hex, of the user's token that it descends from.
    pub seed_sha256: &'a str,
}

impl TargetSecret<'_> {
    /// The body of a server-side apply that holds only if the Secret is still as `seen` (`None`: absent).
    #[must_use]
    pub fn apply(&self, seen: Option<&Version>) -> Value {
        let owner = &self.record.owner;
        let mut metadata = metadata(self.name, seen);
        metadata["annotations"] = json!({RECORD_ANNOTATION: self.record.to_annotation()});
        if self.owner_reference {
            metadata["ownerReferences"] = json!([owner_reference(owner)]);
        }
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata,
            "type": "Opaque",
            "data": {
                "access_token": STANDARD.encode(self.access_token.expose_secret()),
                "token_type": STANDARD.encode(&self.record.token_type),
                "expires_at": STANDARD.encode(self.record.expires_at.to_string()),
            },
        })
    }
}

impl RefreshTokenSecret<'_> {
    /// The body of a server-side apply that holds only if the Secret is still as `seen` (`None`: absent).
    #[must_use]
    pub fn apply(&self, seen: Option<&Version>) -> Value {
        let mut metadata = metadata(self.name, seen);
        let (label, value) = REFRESH_TOKEN_LABEL;
        metadata["labels"][label] = json!(value);
        metadata["annotations"] = json!({REFRESH_TOKEN_ANNOTATION: self.source});
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata,
            "type": "Opaque",
            "data": {
                "refresh_token": STANDARD.encode(self.refresh_token.expose_secret()),
                "seed_sha256": STANDARD.encode(self.seed_sha256),
            },
        })
    }
}

/// The body of a strategic merge patch that writes record, label and ownerReference again, and no data.
#[must_use]
pub fn restamp(seen: &Facts, record: &Record, wants_owner_reference: bool) -> Value {
    let (label, value) = MANAGED_BY_LABEL;
    let mut metadata = json!({
        "uid": seen.version.uid,
        "resourceVersion": seen.version.resource_version,
        "labels": {label: value},
        "annotations": {RECORD_ANNOTATION: record.to_annotation()},
    });
    // Strategic merge patches address ownerReferences by their uid: those of others stay.
    match (&seen.controller, wants_owner_reference) {
        (_, true) => metadata["ownerReferences"] = json!([owner_reference(&record.owner)]),
        (Some(ours), false) => metadata["ownerReferences"] = json!([{"$patch": "delete", "uid": ours.uid}]),
        (None, false) => {}
    }
    json!({"metadata": metadata})
}

fn metadata(name: &str, seen: Option<&Version>) -> Value {
    let (label, value) = MANAGED_BY_LABEL;
    let mut metadata = json!({"name": name, "labels": {label: value}});
    match seen {
        Some(version) => {
            metadata["uid"] = json!(version.uid);
            metadata["resourceVersion"] = json!(version.resource_version);
        }
        // No object has this version: the API server creates what is absent and answers 409 to what is not.
        None => metadata["resourceVersion"] = json!("1"),
    }
    metadata
}

fn owner_reference(owner: &Owner) -> Value {
    json!({
        "apiVersion": "tokensource.dev/v1alpha1",
        "kind": "TokenSource",
        "name": owner.name,
        "uid": owner.uid,
        "controller": true,
        "blockOwnerDeletion": false,
    })
}
