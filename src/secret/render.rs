#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! The bodies of the operator's writes to Secrets. Each carries its precondition, so that nothing is overwritten
//! that was not seen: leases do not fence, these do.
#![allow(
    clippy::indexing_slicing,
    reason = "writing a member of a JSON object that was made here does not panic"
)]

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::facts::Facts;
use super::record::{Owner, Record, Version};
use super::template::Rendered;
use super::{MANAGED_BY_LABEL, RECORD_ANNOTATION, REFRESH_TOKEN_ANNOTATION, REFRESH_TOKEN_LABEL};
use tokensource_api::permitted::DEFAULT_TYPE;

/// A token on its way into the target.
pub struct TargetSecret<'a> {
    /// The Secret's name.
    pub name: &'a str,
    /// What is known of the token.
    pub record: &'a Record,
    /// What the Secret holds.
    pub rendered: &'a Rendered,
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
        let Rendered { kind, labels, annotations, data } = self.rendered;
        let mut metadata = metadata(self.name, seen);
        // The operator's own come last: nothing takes their place.
        let (label, value) = MANAGED_BY_LABEL;
        metadata["labels"] = json!(labels);
        metadata["labels"][label] = json!(value);
        metadata["annotations"] = json!(annotations);
        metadata["annotations"][RECORD_ANNOTATION] = json!(self.record.to_annotation());
        if self.owner_reference {
            metadata["ownerReferences"] = json!([owner_reference(&self.record.owner)]);
        }
        secret(metadata, kind, data.iter().map(|(key, value)| (key.as_str(), value.expose_secret())))
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
        let data = [("refresh_token", self.refresh_token.expose_secret()), ("seed_sha256", self.seed_sha256)];
        secret(metadata, DEFAULT_TYPE, data.into_iter())
    }
}

fn secret<'a>(metadata: Value, kind: &str, data: impl Iterator<Item = (&'a str, &'a str)>) -> Value {
    let data: BTreeMap<_, _> = data.map(|(key, value)| (key, STANDARD.encode(value))).collect();
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "data": data})
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
