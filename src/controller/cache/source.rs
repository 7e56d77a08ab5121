//! A TokenSource as it is cached between reconciliations. Ten thousand of them must fit into little memory: the spec stays
//! JSON text, which each reconciliation parses, and only the part of the status on which the next one depends is cached.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use crate::cluster::SourceObject;
use crate::key::Key;
use crate::restorations::comparable;
use crate::secret::REFRESH_REQUEST_ANNOTATION;
use crate::spec::Identity;
use crate::status::Reported;
use crate::uid::Uid;
use tokensource_api::TokenSource;

/// When a TokenSource was created, in seconds since 1970, and its name, which decides between those of one second.
pub(crate) type Age = (i64, Arc<str>);

/// The most bytes of a spec that is kept, in JSON. Tenants choose the length of specs, and how many there are.
const MAX_KEPT_SPEC_BYTES: usize = 4 << 10;
/// What stands for a spec that is not there.
const NO_SPEC: &str = r#"{"provider": {}, "credentials": {"secretRef": {"name": ""}}}"#;

/// See the module.
#[derive(Debug)]
pub(crate) struct CachedSource {
    pub(crate) key: Key,
    uid: Option<Uid>,
    /// `metadata.resourceVersion`, to compare with others.
    pub(crate) revision: u64,
    /// 0 where the API server gives none.
    generation: i64,
    /// `metadata.creationTimestamp`, in seconds since 1970; 0 where the API server gives none.
    created_at: i64,
    rare: Option<Box<Rare>>,
    /// The spec in JSON, which each reconciliation parses; `None` where it is not kept, and empty where it is too large.
    spec: Option<Box<str>>,
    /// The names of the Secrets that it uses, the target's first; none where the spec cannot be parsed or is too large.
    pub(crate) secrets: Arc<[Arc<str>]>,
    /// The ClusterTokenIssuer that it names.
    pub(crate) issuer: Option<Arc<str>>,
    /// The part of the status that is remembered.
    pub(crate) reported: Reported,
}

/// What few TokenSources have.
#[derive(Debug, PartialEq)]
struct Rare {
    deletion_timestamp: Option<Time>,
    refresh_request: Option<String>,
}

const NOTHING_RARE: Rare = Rare { deletion_timestamp: None, refresh_request: None };

impl CachedSource {
    /// Shares the names with a previous version of the same object, to save memory.
    pub(crate) fn share_names(&mut self, before: &Self) {
        self.key = before.key.clone();
        if self.issuer == before.issuer {
            self.issuer.clone_from(&before.issuer);
        }
        if self.secrets == before.secrets {
            self.secrets = Arc::clone(&before.secrets);
        }
    }

    /// Whether another version of the same object has the same spec and the same refresh request.
    pub(crate) fn asks_for_the_same(&self, other: &Self) -> bool {
        self.uid == other.uid && self.generation == other.generation && self.rare == other.rare
    }

    /// What tells which TokenSources of a namespace are the oldest.
    pub(crate) fn age(&self) -> Age {
        (self.created_at, Arc::clone(&self.key.name))
    }

    /// `metadata.uid`.
    pub(crate) fn uid(&self) -> Option<&Uid> {
        self.uid.as_ref()
    }

    /// A TokenSource with its spec, however long, to be used at once.
    pub(crate) fn whole(source: SourceObject) -> Self {
        let mut cached = Self::unparsed(source);
        cached.parse_names();
        cached
    }

    /// A TokenSource, as it is cached in the place of `before`. Most versions differ in status alone: the spec is not parsed then.
    pub(crate) fn after(source: SourceObject, before: impl FnOnce(&Key) -> Option<Arc<Self>>) -> Self {
        let mut cached = Self::unparsed(source);
        let same = |before: &Arc<Self>| before.uid == cached.uid && before.spec == cached.spec;
        match before(&cached.key).filter(same) {
            Some(before) => {
                cached.secrets = Arc::clone(&before.secrets);
                cached.issuer.clone_from(&before.issuer);
            }
            None => cached.parse_names(),
        }
        cached.spec = cached.spec.filter(|spec| spec.len() <= MAX_KEPT_SPEC_BYTES);
        cached
    }

    fn unparsed(source: SourceObject) -> Self {
        let SourceObject { metadata, refresh_request, spec, is_too_large, reported } = source;
        let rare = Rare { deletion_timestamp: metadata.deletion_timestamp.clone(), refresh_request };
        CachedSource {
            key: Key::of(&metadata),
            uid: metadata.uid.map(Uid::from),
            revision: comparable(metadata.resource_version.as_deref()),
            generation: metadata.generation.unwrap_or_default(),
            created_at: metadata.creation_timestamp.map_or(0, |Time(created)| created.as_second()),
            rare: (rare != NOTHING_RARE).then(|| Box::new(rare)),
            spec: Some(if is_too_large { Box::default() } else { Box::from(spec) }),
            secrets: Arc::default(),
            issuer: None,
            reported,
        }
    }

    /// Parses the spec for the names of Secrets and of the issuer.
    fn parse_names(&mut self) {
        if self.is_too_large() {
            return;
        }
        let Ok(source) = self.source() else { return };
        let Some(identity) = Identity::of(&source, &self.key) else { return };
        self.secrets = identity.secret_names(&source.spec);
        self.issuer = source.spec.issuer_ref.as_ref().map(|issuer| issuer.name.as_str().into());
    }

    /// Whether the spec is too large to be read.
    pub(crate) fn is_too_large(&self) -> bool {
        self.spec.as_deref() == Some("")
    }

    /// Whether the spec is read where it is needed, because it is too long to be kept.
    pub(crate) fn lacks_spec(&self) -> bool {
        self.spec.is_none()
    }

    /// Parses the TokenSource, without its status, and with an empty spec where that is not there.
    pub(crate) fn source(&self) -> serde_json::Result<Box<TokenSource>> {
        let Rare { deletion_timestamp, refresh_request } = self.rare.as_deref().unwrap_or(&NOTHING_RARE);
        let metadata = ObjectMeta {
            name: Some(self.key.name.to_string()),
            namespace: Some(self.key.namespace.to_string()),
            uid: self.uid.as_ref().map(ToString::to_string),
            resource_version: Some(self.revision).filter(|it| *it < u64::MAX).map(|it| it.to_string()),
            generation: Some(self.generation).filter(|generation| *generation > 0),
            deletion_timestamp: deletion_timestamp.clone(),
            annotations: refresh_request
                .clone()
                .map(|value| BTreeMap::from([(REFRESH_REQUEST_ANNOTATION.to_owned(), value)])),
            ..ObjectMeta::default()
        };
        let spec = self.spec.as_deref().filter(|spec| !spec.is_empty()).unwrap_or(NO_SPEC);
        let spec = serde_json::from_str(spec)?;
        Ok(Box::new(TokenSource { metadata, spec, status: None }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn cached(spec: Value, status: Value) -> CachedSource {
        let source: SourceObject = serde_json::from_value(json!({
            "metadata": {
                "name": "n", "namespace": "ns", "uid": "u", "resourceVersion": "7", "generation": 3,
                "labels": {"a": "b"},
                "annotations": {"tokensource.dev/refresh-requested-at": "now", "other": "x".repeat(4096)},
                "managedFields": [{"manager": "kubectl", "fieldsV1": {"f:spec": {}}}],
            },
            "spec": spec,
            "status": status,
        }))
        .unwrap();
        CachedSource::after(source, |_| None)
    }

    #[test]
    fn cached_source_contains_only_what_reconciliations_need() {
        let spec = json!({"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "c"}}});
        let cached = cached(spec.clone(), Value::Null);
        assert_eq!(cached.secrets.iter().map(|name| &**name).collect::<Vec<_>>(), ["n", "c"]);
        let source = cached.source().unwrap();
        assert_eq!(serde_json::to_value(&source.spec).unwrap(), spec);
        let metadata = json!({
            "name": "n", "namespace": "ns", "uid": "u", "resourceVersion": "7", "generation": 3,
            "annotations": {"tokensource.dev/refresh-requested-at": "now"},
        });
        assert_eq!(serde_json::to_value(&source.metadata).unwrap(), metadata);
    }

    #[test]
    fn cached_source_with_a_long_spec_knows_its_secrets_and_lacks_the_spec() {
        let parameters = json!({"audience": "x".repeat(MAX_KEPT_SPEC_BYTES)});
        let oauth2 = json!({"tokenURL": "https://idp.example.com/token", "parameters": parameters});
        let spec = json!({"provider": {"oauth2": oauth2}, "credentials": {"secretRef": {"name": "c"}}});
        let cached = cached(spec, json!({"observedGeneration": 3}));
        assert!(cached.lacks_spec() && !cached.is_too_large());
        assert_eq!(cached.secrets.iter().map(|name| &**name).collect::<Vec<_>>(), ["n", "c"]);
        assert_eq!(cached.reported.generation, 3);
    }

    #[test]
    fn cached_source_with_a_large_spec_has_key_and_no_secrets() {
        let source = json!({"metadata": {"name": "n", "namespace": "ns", "uid": "u"}, "spec": null});
        let mut source: SourceObject = serde_json::from_value(source).unwrap();
        source.is_too_large = true;
        let cached = CachedSource::after(source, |_| None);
        assert!(cached.is_too_large() && !cached.lacks_spec() && cached.source().is_ok());
        assert_eq!((cached.key, cached.secrets.len()), (Key::new("ns", "n"), 0));
    }

    #[test]
    fn cached_source_that_does_not_fit_the_schema_has_key_and_no_secrets() {
        let malformed = cached(json!({"provider": 1}), json!({"conditions": 1}));
        assert!(malformed.source().is_err());
        assert_eq!((malformed.key, malformed.secrets.len()), (Key::new("ns", "n"), 0));
        assert_eq!(malformed.reported, Reported::default());
    }
}
