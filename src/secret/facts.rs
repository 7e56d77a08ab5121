#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! The metadata of a Secret that decisions need. The rest is dropped while it is read: Secrets of other owners must not
//! fill memory, and `kubectl.kubernetes.io/last-applied-configuration` contains Secret data.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    FieldsV1, ManagedFieldsEntry, ObjectMeta, OwnerReference, Time,
};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::controller::{ControlledBy, Controller, name};
use super::record::{Record, Version};
use super::{
    ADOPT_ANNOTATION, CREDENTIALS_LABEL, FIELD_MANAGER, MANAGED_BY_LABEL, RECORD_ANNOTATION,
    REFRESH_TOKEN_ANNOTATION, REFRESH_TOKEN_SENT_ANNOTATION,
};

/// The most characters of a field manager's name that are stored.
const MAX_MANAGER_CHARS: usize = 64;

/// The most characters of [`REFRESH_TOKEN_SENT_ANNOTATION`] that are stored: a digest and the name of a process.
const MAX_SENT_CHARS: usize = 400;

/// The metadata of a Secret that decisions need.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// uid and resourceVersion.
    pub version: Version,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// The controller in its ownerReferences; [`Self::controller`] names it.
    pub controlled_by: Option<ControlledBy>,
    /// The operator's record; `None` where there is none or it cannot be parsed.
    pub record: Option<Arc<Record>>,
    /// Whether it has [`MANAGED_BY_LABEL`].
    pub labelled: bool,
    /// Whether its owner released it for use as credentials by [`CREDENTIALS_LABEL`].
    pub released: bool,
    /// What few Secrets have; `None` where nothing of it is there.
    pub rare: Option<Box<RareFacts>>,
    /// The data keys that only the operator has written since its last apply.
    pub owned_keys: KeySet,
    /// When the operator's last apply was stored, by the API server's clock, in seconds since 1970. Only for Secrets of the
    /// operator.
    pub stored_at: Option<u32>,
    /// The part of its metadata that is too large to be read: it cannot be known whose the Secret is.
    pub too_large: Option<LargePart>,
}

/// What few Secrets have. It is apart, because most facts are those of targets, one for each TokenSource.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RareFacts {
    /// The TokenSource whose rotating refresh token it holds.
    pub refresh_token_of: Option<Box<str>>,
    /// [`REFRESH_TOKEN_SENT_ANNOTATION`], while a request with the refresh token is under way.
    pub refresh_token_sent: Option<Box<str>>,
    /// The TokenSource that it is handed over to, see [`ADOPT_ANNOTATION`].
    pub offered_to: Option<Box<str>>,
    /// The field manager that wrote data last beside the operator. Only for Secrets of the operator.
    pub other_writer: Option<Box<str>>,
}

/// A part of the metadata that can be too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LargePart {
    /// `metadata.managedFields`.
    ManagedFields,
    /// `metadata.ownerReferences`.
    OwnerReferences,
}

impl LargePart {
    /// The part by its path, or by that of something in it.
    #[must_use]
    pub fn of(path: &str) -> Option<Self> {
        [LargePart::ManagedFields, LargePart::OwnerReferences]
            .into_iter()
            .find(|part| path.starts_with(part.path()))
    }

    /// Its path.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            LargePart::ManagedFields => "metadata.managedFields",
            LargePart::OwnerReferences => "metadata.ownerReferences",
        }
    }
}

/// A digest of a set of key names in eight bytes. Comparable only within one process.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
pub struct KeySet(u64);

impl<S: AsRef<str>> FromIterator<S> for KeySet {
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> Self {
        // The sum of the hashes does not depend on the order.
        let hash = |name: S| {
            let mut hasher = std::hash::DefaultHasher::new();
            name.as_ref().hash(&mut hasher);
            hasher.finish()
        };
        KeySet(names.into_iter().map(hash).fold(0, u64::wrapping_add))
    }
}

/// A Secret's metadata as the API server sends it. Deserialization skips the labels and annotations of others, and all of
/// managedFields except the names of data keys.
#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "camelCase")]
pub struct SecretMetadata {
    /// `metadata.namespace`.
    pub namespace: Option<String>,
    /// `metadata.name`.
    pub name: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    deletion_timestamp: Option<Time>,
    labels: Option<SecretLabels>,
    annotations: Option<SecretAnnotations>,
    owner_references: Option<Vec<OwnerReference>>,
    managed_fields: Option<Vec<FieldManager>>,
}

#[derive(Deserialize, Debug, Default)]
struct SecretLabels {
    #[serde(rename = "app.kubernetes.io/managed-by")]
    managed_by: Option<String>,
    #[serde(rename = "tokensource.dev/credentials")]
    credentials: Option<String>,
}

#[derive(Deserialize, Debug, Default)]
struct SecretAnnotations {
    #[serde(rename = "tokensource.dev/record")]
    record: Option<String>,
    #[serde(rename = "tokensource.dev/refresh-token-of")]
    refresh_token_of: Option<String>,
    #[serde(rename = "tokensource.dev/refresh-token-sent")]
    refresh_token_sent: Option<String>,
    #[serde(rename = "tokensource.dev/adopt")]
    adopt: Option<String>,
}

/// An entry of managedFields.
#[derive(Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
struct FieldManager {
    manager: Option<String>,
    operation: Option<String>,
    #[serde(default, deserialize_with = "readable_time")]
    time: Option<Time>,
    fields_v1: Option<SecretFields>,
}

/// The times of others are their choice: the API server takes some that no [`Timestamp`](jiff::Timestamp) can be.
fn readable_time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Time>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| text.parse().ok()).map(Time))
}

impl FieldManager {
    fn is_our_apply(&self) -> bool {
        self.manager.as_deref() == Some(FIELD_MANAGER) && self.operation.as_deref() == Some("Apply")
    }

    fn data_keys(&self) -> Option<&BTreeMap<String, IgnoredAny>> {
        self.fields_v1.as_ref()?.data.as_ref()
    }
}

#[derive(Deserialize, Debug, Default)]
struct SecretFields {
    #[serde(rename = "f:data")]
    data: Option<BTreeMap<String, IgnoredAny>>,
}

impl From<&ObjectMeta> for SecretMetadata {
    fn from(metadata: &ObjectMeta) -> Self {
        let value = |all: &Option<BTreeMap<String, String>>, name| all.as_ref()?.get(name).cloned();
        let data = |fields: &FieldsV1| {
            let keys = fields.0.get("f:data")?.as_object()?.keys();
            Some(keys.map(|key| (key.clone(), IgnoredAny)).collect())
        };
        SecretMetadata {
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
            uid: metadata.uid.clone(),
            resource_version: metadata.resource_version.clone(),
            deletion_timestamp: metadata.deletion_timestamp.clone(),
            labels: Some(SecretLabels {
                managed_by: value(&metadata.labels, MANAGED_BY_LABEL.0),
                credentials: value(&metadata.labels, CREDENTIALS_LABEL.0),
            }),
            annotations: Some(SecretAnnotations {
                record: value(&metadata.annotations, RECORD_ANNOTATION),
                refresh_token_of: value(&metadata.annotations, REFRESH_TOKEN_ANNOTATION),
                refresh_token_sent: value(&metadata.annotations, REFRESH_TOKEN_SENT_ANNOTATION),
                adopt: value(&metadata.annotations, ADOPT_ANNOTATION),
            }),
            owner_references: metadata.owner_references.clone(),
            managed_fields: metadata.managed_fields.as_ref().map(|entries| {
                let manager = |entry: &ManagedFieldsEntry| FieldManager {
                    manager: entry.manager.clone(),
                    operation: entry.operation.clone(),
                    time: entry.time.clone(),
                    fields_v1: entry.fields_v1.as_ref().map(|fields| SecretFields { data: data(fields) }),
                };
                entries.iter().map(manager).collect()
            }),
        }
    }
}

impl SecretMetadata {
    /// The facts; `None` for an object without uid or resourceVersion, which no API server sends.
    #[must_use]
    pub fn facts(self) -> Option<Facts> {
        let (labels, annotations) = (self.labels.unwrap_or_default(), self.annotations.unwrap_or_default());
        let managed_fields = self.managed_fields.unwrap_or_default();
        let labelled = labels.managed_by.as_deref() == Some(MANAGED_BY_LABEL.1);
        let is_ours = labelled || annotations.record.is_some();
        let rare = RareFacts {
            refresh_token_of: annotations.refresh_token_of.map(|source| name(source).into()),
            refresh_token_sent: annotations
                .refresh_token_sent
                .map(|sent| sent.chars().take(MAX_SENT_CHARS).collect::<String>().into()),
            offered_to: annotations.adopt.map(|source| name(source).into()),
            other_writer: other_writer(&managed_fields).filter(|_| is_ours),
        };
        let record = annotations.record.and_then(|value| Record::parse(&value)).map(Arc::new);
        let mut owners = self.owner_references.into_iter().flatten();
        let controller = owners.find(|owner| owner.controller == Some(true));
        Some(Facts {
            version: Version { uid: self.uid?.into(), resource_version: self.resource_version?.into() },
            terminating: self.deletion_timestamp.is_some(),
            controlled_by: controller.map(|owner| ControlledBy::of(owner, record.as_deref())),
            record,
            labelled,
            released: labels.credentials.as_deref() == Some(CREDENTIALS_LABEL.1),
            rare: (rare != RareFacts::default()).then(|| Box::new(rare)),
            owned_keys: owned_keys(&managed_fields),
            stored_at: stored_at(&managed_fields).filter(|_| is_ours),
            too_large: None,
        })
    }
}

impl Facts {
    /// The facts of a Secret that was read as a whole; see [`SecretMetadata::facts`].
    #[must_use]
    pub fn of(metadata: &ObjectMeta) -> Option<Self> {
        SecretMetadata::from(metadata).facts()
    }

    /// The controller in its ownerReferences.
    #[must_use]
    pub fn controller(&self) -> Option<Controller<'_>> {
        self.controlled_by.as_ref()?.named(self.record.as_deref())
    }

    /// What few Secrets have.
    #[must_use]
    pub fn rare(&self) -> &RareFacts {
        const NONE: &RareFacts = &RareFacts {
            refresh_token_of: None,
            refresh_token_sent: None,
            offered_to: None,
            other_writer: None,
        };
        self.rare.as_deref().unwrap_or(NONE)
    }
}

/// The other field manager that owns data keys; where there are several, the one that wrote last.
fn other_writer(entries: &[FieldManager]) -> Option<Box<str>> {
    entries
        .iter()
        .filter(|entry| entry.manager.as_deref() != Some(FIELD_MANAGER) && entry.data_keys().is_some())
        .max_by_key(|entry| entry.time.as_ref().map(|time| time.0))
        .and_then(|entry| {
            Some(entry.manager.as_deref()?.chars().take(MAX_MANAGER_CHARS).collect::<String>().into())
        })
}

/// When the operator's entry of managedFields was written.
fn stored_at(entries: &[FieldManager]) -> Option<u32> {
    let ours = entries.iter().filter(|entry| entry.is_our_apply());
    ours.filter_map(|entry| u32::try_from(entry.time.as_ref()?.0.as_second()).ok()).max()
}

/// The data keys in the operator's entry of managedFields. When another manager edits or removes a key, the API server
/// removes it from this entry.
fn owned_keys(entries: &[FieldManager]) -> KeySet {
    entries
        .iter()
        .filter(|entry| entry.is_our_apply())
        .filter_map(FieldManager::data_keys)
        .flat_map(|data| data.keys())
        .filter_map(|key| key.strip_prefix("f:"))
        .collect()
}

#[cfg(test)]
impl Facts {
    /// A Secret with the operator's label and nothing else.
    pub(crate) fn labelled(version: Version) -> Self {
        Facts {
            version,
            terminating: false,
            controlled_by: None,
            record: None,
            labelled: true,
            released: false,
            rare: None,
            owned_keys: KeySet::default(),
            stored_at: None,
            too_large: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn metadata(manager: &str, keys: &[&str]) -> serde_json::Value {
        let data: serde_json::Map<_, _> = keys.iter().map(|key| (format!("f:{key}"), json!({}))).collect();
        json!({
            "name": "vgs-token", "uid": "u", "resourceVersion": "12",
            "labels": {"app.kubernetes.io/managed-by": "tokensource-operator"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "a secret"},
            "managedFields": [
                {"manager": manager, "operation": "Apply", "time": "2026-11-24T20:00:00Z",
                    "fieldsV1": {"f:data": data, "f:type": {}}},
                {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:data": {"f:mine": {}}}},
            ],
        })
    }

    /// The facts from metadata alone, after a check that a whole Secret gives the same.
    fn facts(metadata: serde_json::Value) -> Facts {
        let secret: SecretMetadata = serde_json::from_value(metadata.clone()).unwrap();
        let facts = secret.facts().unwrap();
        assert_eq!(Facts::of(&serde_json::from_value(metadata).unwrap()), Some(facts.clone()));
        facts
    }

    #[test]
    fn facts_keep_no_more_of_a_name_than_makes_it_that_of_no_object() {
        let long = "x".repeat(100_000);
        let metadata = serde_json::json!({
            "uid": "u", "resourceVersion": "1",
            "annotations": {"tokensource.dev/refresh-token-of": long, "tokensource.dev/adopt": long},
            "ownerReferences": [{"apiVersion": "v1", "kind": long, "name": long, "uid": long, "controller": true}],
        });
        let facts = serde_json::from_value::<SecretMetadata>(metadata).unwrap().facts().unwrap();
        let controller = facts.controller().unwrap();
        let RareFacts { refresh_token_of, offered_to, .. } = facts.rare();
        let kept = [
            controller.kind,
            controller.name,
            refresh_token_of.as_deref().unwrap(),
            offered_to.as_deref().unwrap(),
        ];
        assert_eq!(kept.map(str::len), [254; 4]);
        assert_eq!(controller.uid.to_string().len(), 254);
    }

    #[test]
    fn facts_read_labels_annotations_and_controller() {
        let facts = facts(json!({
            "uid": "u", "resourceVersion": "12", "deletionTimestamp": "2026-01-01T00:00:00Z",
            "labels": {CREDENTIALS_LABEL.0: CREDENTIALS_LABEL.1, MANAGED_BY_LABEL.0: MANAGED_BY_LABEL.1},
            "annotations": {
                REFRESH_TOKEN_ANNOTATION: "a", REFRESH_TOKEN_SENT_ANNOTATION: "c", ADOPT_ANNOTATION: "b",
                RECORD_ANNOTATION: "none",
            },
            "ownerReferences": [
                {"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "1"},
                {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "2", "controller": true},
            ],
        }));
        assert!(facts.released && facts.labelled && facts.terminating && facts.record.is_none());
        let RareFacts { refresh_token_of, refresh_token_sent, offered_to, .. } = facts.rare();
        assert_eq!((refresh_token_of.as_deref(), offered_to.as_deref()), (Some("a"), Some("b")));
        assert_eq!(refresh_token_sent.as_deref(), Some("c"));
        assert_eq!(facts.controller().unwrap().kind, "Pod");
    }

    #[test]
    fn facts_name_the_controller_that_the_record_names_too() {
        let record = json!({
            "version": 1, "owner": {"name": "n", "uid": "u"}, "tokenId": "i", "tokenType": "Bearer",
            "inputs": {"provider": "p", "credentials": {"uid": "c", "resourceVersion": "1"}},
            "issuedAt": "2026-11-27T00:00:00Z", "expiresAt": "2026-11-27T01:00:00Z",
        });
        for (kind, name, uid, is_recorded) in [
            ("TokenSource", "n", "u", true),
            ("TokenSource", "n", "v", false),
            ("TokenSource", "m", "u", false),
            ("Pod", "n", "u", false),
        ] {
            let facts = facts(json!({
                "uid": "t", "resourceVersion": "1", "annotations": {RECORD_ANNOTATION: record.to_string()},
                "ownerReferences": [{"apiVersion": "v1", "kind": kind, "name": name, "uid": uid, "controller": true}],
            }));
            let uid = uid.into();
            assert_eq!(facts.controller(), Some(Controller { kind, name, uid: &uid }));
            assert_eq!(facts.controlled_by == Some(ControlledBy::Recorded), is_recorded);
        }
    }

    #[test]
    fn facts_treat_null_members_as_absent() {
        let facts = facts(json!({
            "uid": "u", "resourceVersion": "12", "deletionTimestamp": null,
            "labels": null, "annotations": null, "ownerReferences": null, "managedFields": null,
        }));
        assert!(!facts.labelled && !facts.terminating && facts.controlled_by.is_none());
        assert_eq!(facts.owned_keys, KeySet::default());
    }

    #[test]
    fn facts_owned_keys_are_those_of_our_apply_entry() {
        let ours = facts(metadata(FIELD_MANAGER, &["b", "a"]));
        assert_eq!(ours.owned_keys, KeySet::from_iter(["a", "b"]));
        assert_ne!(ours.owned_keys, KeySet::from_iter(["a", "b", "mine"]));
        assert!(ours.labelled && ours.record.is_none() && !ours.terminating);
        assert_eq!(ours.rare().other_writer.as_deref(), Some("kubectl-edit"));
        let stored_at: jiff::Timestamp = "2026-11-24T20:00:00Z".parse().unwrap();
        assert_eq!(ours.stored_at.map(i64::from), Some(stored_at.as_second()));
        assert_eq!(facts(metadata("helm", &["a"])).owned_keys, KeySet::default());
    }

    #[test]
    fn secret_metadata_drops_annotations_of_others() {
        assert!(
            !format!("{:?}", serde_json::from_value::<SecretMetadata>(metadata("kubectl", &[])))
                .contains("a secret")
        );
    }
}
