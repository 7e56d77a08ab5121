#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! The bodies of the operator's writes to Secrets. Each has a precondition (uid and resourceVersion), so that a version
//! that this process has not seen is never overwritten: the Lease alone cannot rule out a second writer.
#![allow(
    clippy::indexing_slicing,
    reason = "writing a member of a JSON object that was made here does not panic"
)]

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::facts::Facts;
use super::record::{Owner, Record, Version};
use super::template::Rendered;
use super::{
    MANAGED_BY_LABEL, RECORD_ANNOTATION, REFRESH_TOKEN_ANNOTATION, REFRESH_TOKEN_LABEL,
    REFRESH_TOKEN_SENT_ANNOTATION,
};
use tokensource_api::permitted::{DEFAULT_TYPE, ISSUER_LABEL};

/// A target Secret to be written.
pub struct TargetSecret<'a> {
    /// `metadata.name`.
    pub name: &'a str,
    /// The record of the token.
    pub record: &'a Record,
    /// Type, metadata and data.
    pub rendered: &'a Rendered,
    /// Whether the Secret is garbage-collected with the TokenSource.
    pub owner_reference: bool,
    /// The ClusterTokenIssuer through which the token came.
    pub issuer: Option<&'a str>,
}

/// A Secret with a rotating refresh token to be written. Only the operator uses it.
pub struct RefreshTokenSecret<'a> {
    /// `metadata.name`.
    pub name: &'a str,
    /// The TokenSource's name. No ownerReference: the Secret survives deletion and re-creation of the TokenSource.
    pub source: &'a str,
    /// The data: the stored refresh token, and what is known of it.
    pub data: &'a [(&'a str, &'a str)],
    /// The announcement of a request that is about to be sent.
    pub sent: Option<&'a str>,
}

impl TargetSecret<'_> {
    /// The body of a server-side apply that succeeds only if the Secret still has the version `seen` (`None`: is absent).
    #[must_use]
    pub fn apply(&self, seen: Option<&Version>) -> Value {
        let Rendered { kind, labels, annotations, data } = self.rendered;
        let mut metadata = metadata(self.name, seen);
        // The operator's own labels and annotations come last, so that a template cannot replace them.
        let (label, value) = MANAGED_BY_LABEL;
        metadata["labels"] = json!(labels);
        metadata["labels"][label] = json!(value);
        if let Some(issuer) = self.issuer {
            metadata["labels"][ISSUER_LABEL] = json!(issuer);
        }
        metadata["annotations"] = json!(annotations);
        metadata["annotations"][RECORD_ANNOTATION] = json!(self.record.to_annotation());
        if self.owner_reference {
            metadata["ownerReferences"] = json!([owner_reference(&self.record.owner)]);
        }
        secret(metadata, kind, data.iter().map(|(key, value)| (key.as_str(), value.expose_secret())))
    }
}

impl RefreshTokenSecret<'_> {
    /// The body of a server-side apply that succeeds only if the Secret still has the version `seen` (`None`: is absent).
    #[must_use]
    pub fn apply(&self, seen: Option<&Version>) -> Value {
        let mut metadata = metadata(self.name, seen);
        let (label, value) = REFRESH_TOKEN_LABEL;
        metadata["labels"][label] = json!(value);
        metadata["annotations"] = json!({REFRESH_TOKEN_ANNOTATION: self.source});
        if let Some(sent) = self.sent {
            metadata["annotations"][REFRESH_TOKEN_SENT_ANNOTATION] = json!(sent);
        }
        secret(metadata, DEFAULT_TYPE, self.data.iter().copied())
    }
}

fn secret<'a>(metadata: Value, kind: &str, data: impl Iterator<Item = (&'a str, &'a str)>) -> Value {
    let data: BTreeMap<_, _> = data.map(|(key, value)| (key, STANDARD.encode(value))).collect();
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "data": data})
}

/// The body of a strategic merge patch that updates the metadata (record, label, ownerReference) and no data.
#[must_use]
pub fn metadata_update(seen: &Facts, record: &Record, wants_owner_reference: bool) -> Value {
    let (label, value) = MANAGED_BY_LABEL;
    let mut metadata = json!({
        "uid": seen.version.uid,
        "resourceVersion": seen.version.resource_version,
        "labels": {label: value},
        "annotations": {RECORD_ANNOTATION: record.to_annotation()},
    });
    // A strategic merge patch merges ownerReferences by uid, so those of other owners stay.
    match (seen.controller(), wants_owner_reference) {
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
        // No object has this version: the API server creates an absent object and answers 409 for an existing one.
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
