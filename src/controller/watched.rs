//! A TokenSource as it is kept between looks: ten thousand of them must fit into little memory, so the spec stays the
//! text that it was, and of the status is kept what the next one depends on. A look reads the spec and drops it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::secrets::Key;
use super::status::Reported;
use crate::api::{TokenSource, TokenSourceStatus};
use crate::target::REFRESH_REQUEST_ANNOTATION;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Watched {
    /// What looks need of it, and nothing else.
    metadata: ObjectMeta,
    /// The spec, in JSON. What is in it is for the look to say: one malformed object must not break the watch for all.
    spec: Arc<str>,
    /// What people were told by the status.
    pub(super) reported: Reported,
}

impl Watched {
    /// Its namespace and name.
    pub(super) fn key(&self) -> Key {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        Key { namespace: text(&self.metadata.namespace), name: text(&self.metadata.name) }
    }

    /// The TokenSource, without its status.
    pub(super) fn source(&self) -> serde_json::Result<TokenSource> {
        let spec = serde_json::from_str(&self.spec)?;
        Ok(TokenSource { metadata: self.metadata.clone(), spec, status: None })
    }
}

/// An object as the API server sends it. Its managedFields, which are the larger part of it, are skipped unread.
#[derive(Deserialize)]
struct Sent {
    metadata: Metadata,
    #[serde(default)]
    spec: Value,
    #[serde(default)]
    status: Value,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    deletion_timestamp: Option<Time>,
    annotations: Option<BTreeMap<String, String>>,
}

impl<'de> Deserialize<'de> for Watched {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Sent { metadata, spec, status } = Sent::deserialize(deserializer)?;
        // Somebody else's status says nothing, and is written anew.
        let status = serde_json::from_value::<TokenSourceStatus>(status).ok();
        let request = metadata.annotations.and_then(|mut all| all.remove_entry(REFRESH_REQUEST_ANNOTATION));
        Ok(Watched {
            metadata: ObjectMeta {
                name: metadata.name,
                namespace: metadata.namespace,
                uid: metadata.uid,
                resource_version: metadata.resource_version,
                generation: metadata.generation,
                deletion_timestamp: metadata.deletion_timestamp,
                annotations: request.map(|request| BTreeMap::from([request])),
                ..ObjectMeta::default()
            },
            spec: spec.to_string().into(),
            reported: status.as_ref().map(Reported::of).unwrap_or_default(),
        })
    }
}

impl Resource for Watched {
    type DynamicType = ();
    type Scope = <TokenSource as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        TokenSource::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        TokenSource::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        TokenSource::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        TokenSource::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn watched(spec: Value, status: Value) -> Watched {
        serde_json::from_value(json!({
            "metadata": {
                "name": "n", "namespace": "ns", "uid": "u", "resourceVersion": "7", "generation": 3,
                "labels": {"a": "b"},
                "annotations": {"tokensource.dev/refresh-requested-at": "now", "other": "x".repeat(4096)},
                "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
            },
            "spec": spec,
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn what_looks_need_is_kept_and_nothing_else() {
        let spec = json!({"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "c"}}});
        let source = watched(spec.clone(), Value::Null).source().unwrap();
        assert_eq!(serde_json::to_value(&source.spec).unwrap(), spec);
        let kept = json!({
            "name": "n", "namespace": "ns", "uid": "u", "resourceVersion": "7", "generation": 3,
            "annotations": {"tokensource.dev/refresh-requested-at": "now"},
        });
        assert_eq!(serde_json::to_value(&source.metadata).unwrap(), kept);
    }

    #[test]
    fn what_does_not_fit_the_schema_is_known_by_name() {
        let malformed = watched(json!({"provider": 1}), json!({"conditions": 1}));
        assert!(malformed.source().is_err());
        assert_eq!(malformed.meta().name.as_deref(), Some("n"));
        assert_eq!(malformed.reported, Reported::default());
    }
}
