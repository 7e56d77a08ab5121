#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! What decisions need of a Secret's metadata, and nothing more: Secrets of other people must not fill memory,
//! and `kubectl.kubernetes.io/last-applied-configuration` holds Secret data.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};

use super::record::{Record, Version};
use super::{
    ADOPT_ANNOTATION, CREDENTIALS_LABEL, FIELD_MANAGER, MANAGED_BY_LABEL, RECORD_ANNOTATION,
    REFRESH_TOKEN_ANNOTATION,
};

/// How much of a field manager's name is kept, in characters.
const LONGEST_MANAGER: usize = 64;

/// A Secret as decisions see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Facts {
    /// Its uid and resourceVersion.
    pub version: Version,
    /// It is being deleted.
    pub terminating: bool,
    /// The controller that it belongs to, if any.
    pub controller: Option<Controller>,
    /// Our record on it, where it carries one that can be read.
    pub record: Option<Arc<Record>>,
    /// The label by which people find the operator's Secrets stands on it.
    pub labelled: bool,
    /// Its owner says by a label that it may be used as credentials.
    pub lent: bool,
    /// The TokenSource whose rotating refresh token it holds, if it is such a Secret.
    pub refresh_token_of: Option<String>,
    /// The TokenSource that somebody hands it over to.
    pub offered_to: Option<Box<str>>,
    /// Who else wrote data into it last, where it is a Secret of the operator's: a field manager's name.
    pub other_writer: Option<Box<str>>,
    /// The data keys that nobody has changed or removed since we wrote them.
    pub owned_keys: KeySet,
}

/// The controller of an object, from its ownerReferences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Controller {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// A set of key names in eight bytes, good for comparing within one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeySet(u64);

impl<S: AsRef<str>> FromIterator<S> for KeySet {
    fn from_iter<I: IntoIterator<Item = S>>(names: I) -> Self {
        // A sum does not depend on the order.
        let hash = |name: S| {
            let mut hasher = std::hash::DefaultHasher::new();
            name.as_ref().hash(&mut hasher);
            hasher.finish()
        };
        KeySet(names.into_iter().map(hash).fold(0, u64::wrapping_add))
    }
}

impl Facts {
    /// Reads the metadata; `None` for an object without uid or resourceVersion, which no API server sends.
    #[must_use]
    pub fn of(metadata: &ObjectMeta) -> Option<Self> {
        let annotation = |name| metadata.annotations.as_ref().and_then(|all| all.get(name));
        let carries = |(label, value): (&str, &str)| {
            metadata.labels.as_ref().and_then(|all| all.get(label)).is_some_and(|it| it == value)
        };
        let labelled = carries(MANAGED_BY_LABEL);
        let managed_fields = metadata.managed_fields.as_deref().unwrap_or_default();
        Some(Facts {
            version: Version {
                uid: metadata.uid.clone()?,
                resource_version: metadata.resource_version.clone()?,
            },
            terminating: metadata.deletion_timestamp.is_some(),
            controller: metadata
                .owner_references
                .iter()
                .flatten()
                .find(|owner| owner.controller == Some(true))
                .map(|owner| Controller {
                    kind: owner.kind.clone(),
                    name: owner.name.clone(),
                    uid: owner.uid.clone(),
                }),
            record: annotation(RECORD_ANNOTATION).and_then(|value| Record::parse(value)).map(Arc::new),
            labelled,
            lent: carries(CREDENTIALS_LABEL),
            refresh_token_of: annotation(REFRESH_TOKEN_ANNOTATION).cloned(),
            offered_to: annotation(ADOPT_ANNOTATION).map(|name| name.as_str().into()),
            other_writer: other_writer(managed_fields)
                .filter(|_| labelled || annotation(RECORD_ANNOTATION).is_some()),
            owned_keys: owned_keys(managed_fields),
        })
    }
}

/// Whoever else owns data keys; the last one to write, of several.
fn other_writer(entries: &[ManagedFieldsEntry]) -> Option<Box<str>> {
    entries
        .iter()
        .filter(|entry| entry.manager.as_deref() != Some(FIELD_MANAGER))
        .filter(|entry| entry.fields_v1.as_ref().is_some_and(|fields| fields.0.get("f:data").is_some()))
        .max_by_key(|entry| entry.time.as_ref().map(|time| time.0))
        .and_then(|entry| {
            Some(entry.manager.as_deref()?.chars().take(LONGEST_MANAGER).collect::<String>().into())
        })
}

/// The data keys in our entry of managedFields. An edit or a removal of a key by anybody else takes it out.
fn owned_keys(entries: &[ManagedFieldsEntry]) -> KeySet {
    entries
        .iter()
        .filter(|entry| {
            entry.manager.as_deref() == Some(FIELD_MANAGER) && entry.operation.as_deref() == Some("Apply")
        })
        .filter_map(|entry| entry.fields_v1.as_ref()?.0.get("f:data")?.as_object())
        .flat_map(|data| data.keys())
        .filter_map(|key| key.strip_prefix("f:"))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn metadata(manager: &str, keys: &[&str]) -> ObjectMeta {
        let data: serde_json::Map<_, _> = keys.iter().map(|key| (format!("f:{key}"), json!({}))).collect();
        serde_json::from_value(json!({
            "name": "vgs-token", "uid": "u", "resourceVersion": "12",
            "labels": {"app.kubernetes.io/managed-by": "tokensource-operator"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "a secret"},
            "managedFields": [
                {"manager": manager, "operation": "Apply", "fieldsV1": {"f:data": data, "f:type": {}}},
                {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:data": {"f:mine": {}}}},
            ],
        }))
        .unwrap()
    }

    #[test]
    fn only_what_nobody_touched_counts_as_ours() {
        let facts = Facts::of(&metadata(FIELD_MANAGER, &["b", "a"])).unwrap();
        assert_eq!(facts.owned_keys, KeySet::from_iter(["a", "b"]));
        assert_ne!(facts.owned_keys, KeySet::from_iter(["a", "b", "mine"]));
        assert!(facts.labelled && facts.record.is_none() && !facts.terminating);
        assert_eq!(facts.other_writer.as_deref(), Some("kubectl-edit"));
        assert_eq!(Facts::of(&metadata("helm", &["a"])).unwrap().owned_keys, KeySet::default());
    }

    #[test]
    fn nothing_of_the_annotations_of_others_is_kept() {
        assert!(!format!("{:?}", Facts::of(&metadata("kubectl", &[]))).contains("a secret"));
    }
}
