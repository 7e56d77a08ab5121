//! Objects as they are read from the API server. Deserialization drops managedFields, which are the larger part of most
//! objects, and the labels and annotations of others.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Pod as PodKind, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::body::parse;
use super::kept::{self, Responses};
use super::reduce::Reduced;
use crate::key::Key;
use crate::secret::{Facts, LargePart, Pod, SecretMetadata};
use crate::status::Reported;
use tokensource_api::{ClusterTokenIssuer, ClusterTokenIssuerStatus, TokenSource, TokenSourceStatus};

/// An object that is read in bounded memory.
pub(crate) trait Read: Resource<DynamicType = ()> + DeserializeOwned {
    /// What is kept of responses.
    fn responses() -> &'static Responses;

    /// These members were too large to be kept.
    fn lacks(&mut self, members: &[String]);

    /// Parses what was kept of an object.
    fn read(reduced: &Reduced) -> kube::Result<Self> {
        let mut object: Self = parse(reduced)?;
        object.lacks(&reduced.too_large);
        Ok(object)
    }

    /// Parses what was kept of an event, in which the object is a member.
    fn read_changed(reduced: &Reduced) -> kube::Result<Self> {
        let Changed::<Self> { mut object } = parse(reduced)?;
        let members = reduced.too_large.iter().map(|path| path.trim_start_matches("object.").to_owned());
        object.lacks(&members.collect::<Vec<_>>());
        Ok(object)
    }
}

#[derive(Deserialize)]
struct Changed<T> {
    object: T,
}

/// The metadata of a Secret.
#[derive(Clone, Debug)]
pub(crate) struct SecretObject {
    metadata: ObjectMeta,
    /// `None` for an object without uid or resourceVersion, which no API server sends.
    pub(crate) facts: Option<Facts>,
}

/// A Secret with a stored refresh token, read without the token.
#[derive(Clone, Debug)]
pub(crate) struct StoredRefreshToken {
    metadata: ObjectMeta,
    /// The TokenSource that uses it.
    pub(crate) source: Option<String>,
    /// SHA-256, in hex, of the original refresh token from which it descends.
    pub(crate) seed_sha256: Option<ByteString>,
}

/// The metadata of a TokenSource.
#[derive(Clone, Debug)]
pub(crate) struct SourceMetadata {
    metadata: ObjectMeta,
}

/// A pod, as far as its use of Secrets is concerned.
#[derive(Debug)]
pub(crate) struct PodObject {
    metadata: ObjectMeta,
    pub(crate) pod: Pod,
}

/// The name of a namespace.
#[derive(Clone, Debug, Default)]
pub(crate) struct NamespaceObject {
    pub(crate) metadata: ObjectMeta,
}

/// A namespace with its labels.
#[derive(Clone, Debug, Default)]
pub(crate) struct LabelledNamespace {
    metadata: ObjectMeta,
    /// Empty where they are too large to be kept.
    pub(crate) labels: BTreeMap<String, String>,
}

/// A ClusterTokenIssuer. As of TokenSources, the spec is parsed later.
#[derive(Clone, Debug)]
pub(crate) struct IssuerObject {
    pub(crate) metadata: ObjectMeta,
    /// null where it is too large.
    pub(crate) spec: Value,
    pub(crate) reported: ClusterTokenIssuerStatus,
}

/// A TokenSource. Its spec is parsed by the reconciliation, so that one malformed object does not break the watch of all.
#[derive(Clone, Debug)]
pub(crate) struct SourceObject {
    pub(crate) metadata: ObjectMeta,
    pub(crate) refresh_request: Option<String>,
    /// null where it is too large.
    pub(crate) spec: Box<RawValue>,
    /// Whether the spec has more than [`kept::MAX_SPEC_BYTES`].
    pub(crate) is_too_large: bool,
    pub(crate) reported: Reported,
}

impl SecretObject {
    pub(crate) fn key(&self) -> Key {
        Key::of(&self.metadata)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadMetadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    annotations: Option<ReadAnnotations>,
}

#[derive(Deserialize)]
struct ReadAnnotations {
    #[serde(rename = "tokensource.dev/refresh-requested-at")]
    refresh_request: Option<String>,
    #[serde(rename = "tokensource.dev/refresh-token-of")]
    refresh_token_of: Option<String>,
}

impl From<ReadMetadata> for ObjectMeta {
    fn from(metadata: ReadMetadata) -> Self {
        ObjectMeta {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            generation: metadata.generation,
            creation_timestamp: metadata.creation_timestamp,
            deletion_timestamp: metadata.deletion_timestamp,
            ..ObjectMeta::default()
        }
    }
}

impl<'de> Deserialize<'de> for SecretObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Object {
            metadata: SecretMetadata,
        }
        let Object { mut metadata } = Object::deserialize(deserializer)?;
        let (name, namespace) = (metadata.name.take(), metadata.namespace.take());
        let facts = metadata.facts();
        let metadata = ObjectMeta {
            name,
            namespace,
            resource_version: facts.as_ref().map(|facts| facts.version.resource_version.to_string()),
            ..ObjectMeta::default()
        };
        Ok(SecretObject { metadata, facts })
    }
}

impl<'de> Deserialize<'de> for StoredRefreshToken {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Object {
            metadata: ReadMetadata,
            data: Option<StoredData>,
        }
        #[derive(Deserialize)]
        struct StoredData {
            seed_sha256: Option<ByteString>,
        }
        let Object { mut metadata, data } = Object::deserialize(deserializer)?;
        Ok(StoredRefreshToken {
            source: metadata.annotations.take().and_then(|annotations| annotations.refresh_token_of),
            metadata: metadata.into(),
            seed_sha256: data.and_then(|data| data.seed_sha256),
        })
    }
}

impl<'de> Deserialize<'de> for PodObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(PodObject { metadata: ObjectMeta::default(), pod: Pod::deserialize(deserializer)? })
    }
}

/// An object of a kind of this operator.
#[derive(Deserialize)]
struct ReadObject {
    metadata: ReadMetadata,
    #[serde(default)]
    spec: Box<RawValue>,
    #[serde(default)]
    status: Box<RawValue>,
}

#[derive(Deserialize)]
struct ReadIdentity {
    metadata: ReadMetadata,
}

impl<'de> Deserialize<'de> for SourceMetadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = ReadIdentity::deserialize(deserializer)?;
        Ok(SourceMetadata { metadata: object.metadata.into() })
    }
}

impl<'de> Deserialize<'de> for NamespaceObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = ReadIdentity::deserialize(deserializer)?;
        Ok(NamespaceObject { metadata: object.metadata.into() })
    }
}

impl<'de> Deserialize<'de> for SourceObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ReadObject { mut metadata, spec, status } = ReadObject::deserialize(deserializer)?;
        // A status that cannot be parsed was not written by the operator; the next report replaces it.
        let status = serde_json::from_str::<TokenSourceStatus>(status.get()).ok();
        Ok(SourceObject {
            refresh_request: metadata.annotations.take().and_then(|annotations| annotations.refresh_request),
            metadata: metadata.into(),
            spec,
            is_too_large: false,
            reported: status.as_ref().map(Reported::of).unwrap_or_default(),
        })
    }
}

impl<'de> Deserialize<'de> for LabelledNamespace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Object {
            metadata: Metadata,
        }
        #[derive(Deserialize)]
        struct Metadata {
            name: Option<String>,
            labels: Option<BTreeMap<String, String>>,
        }
        let Object { metadata: Metadata { name, labels } } = Object::deserialize(deserializer)?;
        let metadata = ObjectMeta { name, ..ObjectMeta::default() };
        Ok(LabelledNamespace { metadata, labels: labels.unwrap_or_default() })
    }
}

impl<'de> Deserialize<'de> for IssuerObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ReadObject { metadata, spec, status } = ReadObject::deserialize(deserializer)?;
        // As of TokenSources, a status that cannot be parsed is replaced.
        let reported = serde_json::from_str(status.get()).unwrap_or_default();
        let spec = serde_json::from_str(spec.get()).unwrap_or_default();
        Ok(IssuerObject { metadata: metadata.into(), spec, reported })
    }
}

/// Implements `Resource` for a type that is deserialized from `$kind`; from its metadata alone if `$metadata` is true. Of
/// responses `$kept` is kept.
macro_rules! reads {
    ($type:ty, of $kind:ty, metadata: $metadata:literal, kept: $kept:ident, |$object:ident, $members:ident| $lacks:expr) => {
        impl Read for $type {
            fn responses() -> &'static Responses {
                &kept::$kept
            }

            fn lacks(&mut self, $members: &[String]) {
                let $object = self;
                $lacks
            }
        }

        impl Resource for $type {
            type DynamicType = ();
            type Scope = <$kind as Resource>::Scope;

            fn kind((): &()) -> Cow<'_, str> {
                <$kind>::kind(&())
            }

            fn group((): &()) -> Cow<'_, str> {
                <$kind>::group(&())
            }

            fn version((): &()) -> Cow<'_, str> {
                <$kind>::version(&())
            }

            fn plural((): &()) -> Cow<'_, str> {
                <$kind>::plural(&())
            }

            fn metadata_api() -> bool {
                $metadata
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

reads!(SecretObject, of Secret, metadata: true, kept: SECRET_FACTS, |secret, members| {
    // A label or an annotation that is too large is not the operator's.
    if let Some(facts) = &mut secret.facts {
        facts.too_large = members.iter().find_map(|path| LargePart::of(path));
    }
});
reads!(StoredRefreshToken, of Secret, metadata: false, kept: STORED_REFRESH_TOKEN, |_secret, _members| ());
reads!(SourceMetadata, of TokenSource, metadata: true, kept: IDENTITY, |_source, _members| ());
// A status that is too large is replaced, like one that cannot be parsed.
reads!(SourceObject, of TokenSource, metadata: false, kept: SOURCE, |source, members| {
    source.is_too_large = members.iter().any(|path| path == "spec");
});
reads!(PodObject, of PodKind, metadata: false, kept: POD, |object, members| {
    object.pod.is_too_large = !members.is_empty();
});
reads!(LabelledNamespace, of Namespace, metadata: true, kept: LABELS, |_namespace, _members| ());
reads!(IssuerObject, of ClusterTokenIssuer, metadata: false, kept: ISSUER, |_issuer, _members| ());
reads!(NamespaceObject, of Namespace, metadata: true, kept: IDENTITY, |_namespace, _members| ());

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::secret::{REFRESH_REQUEST_ANNOTATION, REFRESH_TOKEN_ANNOTATION};

    #[test]
    fn stored_refresh_token_is_read_without_the_token() {
        let stored: StoredRefreshToken = serde_json::from_value(json!({
            "metadata": {"name": "n", "annotations": {REFRESH_TOKEN_ANNOTATION: "source"}},
            "data": {"seed_sha256": "YWI=", "refresh_token": "c2VjcmV0"},
        }))
        .unwrap();
        assert!(!format!("{stored:?}").contains("secret"));
        assert_eq!(
            (stored.source.as_deref(), stored.seed_sha256.unwrap().0),
            (Some("source"), b"ab".to_vec())
        );
    }

    #[test]
    fn secret_names_the_part_of_its_metadata_that_was_too_large() {
        let too_large = |path: &str| {
            let json =
                json!({"object": {"metadata": {"uid": "u", "resourceVersion": "7"}}}).to_string().into();
            let too_large = vec!["object.metadata.labels.x".into(), path.to_owned()];
            let reduced = Reduced { json, is_item: false, too_large };
            SecretObject::read_changed(&reduced).unwrap().facts.unwrap().too_large
        };
        let managed = "object.metadata.managedFields.fieldsV1.f:data";
        assert_eq!(too_large(managed), Some(LargePart::ManagedFields));
        assert_eq!(too_large("object.metadata.ownerReferences"), Some(LargePart::OwnerReferences));
        assert_eq!(too_large("object.metadata.annotations.tokensource.dev/record"), None);
    }

    #[test]
    fn source_is_read_without_managed_fields_and_other_annotations() {
        let source: SourceObject = serde_json::from_value(json!({
            "metadata": {
                "name": "n", "namespace": "ns", "uid": "u", "resourceVersion": "7", "generation": 3,
                "annotations": {REFRESH_REQUEST_ANNOTATION: "now", "other": "x"},
                "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
            },
            "spec": {"provider": 1},
            "status": {"conditions": 1},
        }))
        .unwrap();
        let expected =
            json!({"name": "n", "namespace": "ns", "uid": "u", "resourceVersion": "7", "generation": 3});
        assert_eq!(serde_json::to_value(&source.metadata).unwrap(), expected);
        assert_eq!((source.refresh_request.as_deref(), source.reported), (Some("now"), Reported::default()));
    }
}
