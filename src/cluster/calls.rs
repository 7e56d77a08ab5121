//! The calls of reconciliation to the API server: first the reads, then the writes. Each has a timeout. None is repeated
//! here, because reconciliation schedules retries itself.

use std::future::Future;
use std::time::Duration;

use http::Request as HttpRequest;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference, Pod as PodKind, Secret};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{
    DeleteParams, GetParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions,
};
use kube::core::{Request, request};
use kube::{Api, Client, Resource};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};

use super::body::{object, page, parse, whole_object};
use super::call_error::CallError;
use super::kept;
use super::objects::{PodObject, Read, SecretObject, SourceMetadata, SourceObject, StoredRefreshToken};
use super::reduce::Keep;
use crate::key::Key;
use crate::secret::{
    FIELD_MANAGER, Facts, Pod, PodMetadata, REFRESH_TOKEN_LABEL, REFRESHED_ANNOTATION, Version,
};
use crate::uid::Uid;
use tokensource_api::{ClusterTokenIssuer, ClusterTokenIssuerStatus};

/// The most Secrets of one page.
const SECRET_PAGE_SIZE: u32 = 100;
/// The most pods of one page: the API server has them all in memory.
const POD_PAGE_SIZE: u32 = 50;
/// The timeout of one call of a reconciliation.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The limits of the API server for parts of an event, in bytes. It refuses longer ones.
const MAX_NOTE_BYTES: usize = 1024;
const MAX_EVENT_NAME_BYTES: usize = 253;
const MAX_INSTANCE_BYTES: usize = 128;
/// The namespace of events about objects that have none.
pub(crate) const CLUSTER_EVENTS: &str = "default";

/// The calls to the API server.
#[derive(Clone)]
pub struct Kubernetes {
    pub(super) client: Client,
    /// The timeout of one call.
    timeout: Duration,
}

impl Kubernetes {
    /// Uses `client`, which must not retry by itself.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Kubernetes { client, timeout: CALL_TIMEOUT }
    }

    /// The same with another timeout of one call.
    #[must_use]
    pub(crate) fn within(self, timeout: Duration) -> Self {
        Kubernetes { timeout, ..self }
    }

    /// Waits for one call.
    pub(super) async fn bounded<T>(
        &self,
        call: impl Future<Output = kube::Result<T>> + Send,
    ) -> Result<T, CallError> {
        // Boxed: the future of every reconciliation would otherwise have the size of the largest call.
        match tokio::time::timeout(self.timeout, Box::pin(call)).await {
            Ok(result) => result.map_err(CallError::from),
            Err(_) => {
                let message = format!("no answer within {} s", self.timeout.as_secs());
                Err(CallError::Unavailable(message.into()))
            }
        }
    }

    /// Sends a request, and reads the object in its response as far as it is kept.
    async fn read<K: Read>(&self, request: Built) -> Result<K, CallError> {
        self.bounded(async { K::read(&object(&self.client, built(request)?, K::responses().object).await?) })
            .await
    }

    /// Sends a request whose response does not matter.
    async fn send(&self, request: Built) -> Result<(), CallError> {
        let IgnoredAny = self
            .bounded(async {
                let reduced = object(&self.client, built(request)?, kept::IDENTITY.object).await?;
                parse(&reduced)
            })
            .await?;
        Ok(())
    }

    /// Makes a cheap request, whose response shows the API server's clock.
    ///
    /// # Errors
    /// There is no response.
    pub async fn ask_for_the_time(&self) -> Result<(), CallError> {
        match self.bounded(self.client.apiserver_version()).await {
            Err(error @ CallError::Unavailable(_)) => Err(error),
            // Every user may read the version by default. A refusal has a date, too.
            _ => Ok(()),
        }
    }

    /// Reads the metadata of a Secret.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn secret_facts(&self, key: &Key) -> Result<Option<Facts>, CallError> {
        let request = requests::<SecretObject>(&key.namespace).get_metadata(&key.name, &GetParams::default());
        let found = optional(self.read::<SecretObject>(request).await)?;
        Ok(found.and_then(|secret| secret.facts))
    }

    /// Reads a Secret. Few large ones are in memory at once: further calls wait.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn secret(&self, key: &Key) -> Result<Option<Secret>, CallError> {
        self.whole(key, kept::SECRET.object).await
    }

    /// Reads a ConfigMap, like a Secret.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn config_map(&self, key: &Key) -> Result<Option<ConfigMap>, CallError> {
        self.whole(key, kept::CONFIG_MAP.object).await
    }

    /// Reads a TokenSource.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) async fn source(&self, key: &Key) -> Result<Option<SourceObject>, CallError> {
        let request = requests::<SourceObject>(&key.namespace).get(&key.name, &GetParams::default());
        optional(self.read(request).await)
    }

    /// The generation of a TokenSource that still exists as this very object and is not being deleted.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn source_generation(&self, key: &Key, uid: &Uid) -> Result<Option<i64>, CallError> {
        let request =
            requests::<SourceMetadata>(&key.namespace).get_metadata(&key.name, &GetParams::default());
        let found = optional(self.read::<SourceMetadata>(request).await)?;
        let found = found.filter(|source| {
            source.meta().deletion_timestamp.is_none()
                && source.meta().uid.as_deref().map(Uid::from).as_ref() == Some(uid)
        });
        Ok(found.map(|source| source.meta().generation.unwrap_or_default()))
    }

    /// Another TokenSource of the namespace than `source` whose stored refresh token descends from the original refresh token
    /// with this digest (SHA-256, in hex).
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn other_with_original(
        &self,
        source: &Key,
        original_sha256: &str,
    ) -> Result<Option<String>, CallError> {
        let (label, value) = REFRESH_TOKEN_LABEL;
        let mut params = ListParams::default().labels(&format!("{label}={value}")).limit(SECRET_PAGE_SIZE);
        let mut other = None;
        let mut compare = |stored: StoredRefreshToken| {
            let digest = stored.seed_sha256.as_ref().map(|digest| &*digest.0);
            if digest == Some(original_sha256.as_bytes()) && stored.source.as_deref() != Some(&source.name) {
                other = other.take().or(stored.source);
            }
        };
        loop {
            let request = requests::<StoredRefreshToken>(&source.namespace).list(&params);
            params.continue_token = self.each(request, &mut compare).await?;
            if params.continue_token.is_none() {
                return Ok(other);
            }
        }
    }

    /// Reads a page of the pods of a namespace that match a field selector, one pod at a time; `next` is the continue token of
    /// the previous page. Returns that of the next one.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn pods(
        &self,
        namespace: &str,
        selector: &str,
        next: Option<&str>,
        mut each: impl FnMut(Pod) + Send,
    ) -> Result<Option<String>, CallError> {
        let params = ListParams::default().fields(selector).limit(POD_PAGE_SIZE);
        let params = ListParams { continue_token: next.map(str::to_owned), ..params };
        let request = requests::<PodObject>(namespace).list(&params);
        self.each(request, &mut |pod: PodObject| each(pod.pod)).await
    }

    async fn whole<K>(&self, key: &Key, keep: Keep) -> Result<Option<K>, CallError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned,
    {
        let request = requests::<K>(&key.namespace).get(&key.name, &GetParams::default());
        let read = async { whole_object(&self.client, built(request)?, keep).await };
        let Some((object, too_large)) = optional(self.bounded(read).await)? else { return Ok(None) };
        match too_large.first() {
            None => Ok(Some(object)),
            Some(member) => Err(CallError::TooLarge(format!(
                "{member} of {} {} is larger than the operator reads: split the object, or shorten it",
                K::kind(&()),
                key.name
            ))),
        }
    }

    /// Reads a page, one object at a time. Returns the continue token of the next one.
    async fn each<K: Read>(
        &self,
        request: Built,
        each: &mut (impl FnMut(K) + Send),
    ) -> Result<Option<String>, CallError> {
        let items = async {
            page(&self.client, built(request)?, K::responses().list, |item| {
                each(K::read(item)?);
                Ok(())
            })
            .await
        };
        self.bounded(items).await
    }

    /// Applies a Secret and returns its new metadata; with `dry_run` nothing is stored.
    ///
    /// # Errors
    /// [`CallError::Conflict`] where the body's precondition does not hold; else see [`CallError`].
    pub async fn apply_secret(&self, key: &Key, body: &Value, dry_run: bool) -> Result<Facts, CallError> {
        let params = PatchParams { dry_run, ..PatchParams::apply(FIELD_MANAGER).force() };
        self.write_secret(key, &params, &Patch::Apply(body)).await
    }

    /// Patches the metadata of a Secret and returns the new metadata.
    ///
    /// # Errors
    /// [`CallError::Conflict`] where the body's precondition does not hold; else see [`CallError`].
    pub async fn update_secret_metadata(&self, key: &Key, body: &Value) -> Result<Facts, CallError> {
        self.write_secret(key, &patch_params(), &Patch::Strategic(body)).await
    }

    /// Deletes a Secret if it still has this version; with `dry_run` only checks whether it could be deleted.
    ///
    /// # Errors
    /// [`CallError::Conflict`] where it has another version; else see [`CallError`].
    pub async fn delete_secret(&self, key: &Key, seen: &Version, dry_run: bool) -> Result<(), CallError> {
        let preconditions = Preconditions {
            uid: Some(seen.uid.to_string()),
            resource_version: Some(seen.resource_version.to_string()),
        };
        let params = DeleteParams { dry_run, preconditions: Some(preconditions), ..DeleteParams::default() };
        self.send(requests::<Secret>(&key.namespace).delete(&key.name, &params)).await
    }

    /// Requests only metadata as the response, so that no token is sent back.
    async fn write_secret(
        &self,
        key: &Key,
        params: &PatchParams,
        patch: &Patch<&Value>,
    ) -> Result<Facts, CallError> {
        let request = requests::<SecretObject>(&key.namespace).patch_metadata(&key.name, params, patch);
        let written = self.read::<SecretObject>(request).await?;
        written.facts.ok_or_else(|| CallError::Unavailable("an answer without a version".to_owned().into()))
    }

    /// Writes the status of a TokenSource and returns its new resourceVersion.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn write_status(&self, key: &Key, body: &Value) -> Result<Option<String>, CallError> {
        let requests = requests::<SourceMetadata>(&key.namespace);
        let request = requests.patch_subresource("status", &key.name, &patch_params(), &Patch::Merge(body));
        let written = self.read::<SourceMetadata>(request).await?;
        Ok(written.meta().resource_version.clone())
    }

    /// Writes the status of a ClusterTokenIssuer.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn write_issuer_status(
        &self,
        name: &str,
        uid: &str,
        status: &ClusterTokenIssuerStatus,
    ) -> Result<(), CallError> {
        let body = json!({"metadata": {"uid": uid}, "status": status});
        let requests = Request::new(ClusterTokenIssuer::url_path(&(), None));
        self.send(requests.patch_subresource("status", name, &patch_params(), &Patch::Merge(&body))).await
    }

    /// Annotates a pod, so that the kubelet syncs its volumes. Succeeds without effect for a pod that is gone or was replaced
    /// by another of its name.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn annotate_pod(&self, namespace: &str, pod: &PodMetadata) -> Result<(), CallError> {
        let value = format!("{:.3}", jiff::Timestamp::now());
        let body = json!({"metadata": {"uid": pod.uid, "annotations": {REFRESHED_ANNOTATION: value}}});
        let patch = Patch::Merge(&body);
        match self
            .send(requests::<PodKind>(namespace).patch_metadata(&pod.name, &patch_params(), &patch))
            .await
        {
            Ok(()) | Err(CallError::Conflict | CallError::NotFound) => Ok(()),
            // The pod was replaced: the API server refuses to change its uid to the one in the patch.
            Err(CallError::Refused(message)) if message.contains("metadata.uid: ") => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Publishes an event about a TokenSource, or about a ClusterTokenIssuer: such events are in the namespace `default`. Not with kube's recorder, which would send the first of two notes with the
    /// same reason twice: events are published on changes only and need no deduplication.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn publish_event(
        &self,
        regarding: ObjectReference,
        reporter: &str,
        warning: bool,
        reason: &str,
        note: &str,
    ) -> Result<(), CallError> {
        let now = jiff::Timestamp::now();
        let namespace = regarding.namespace.clone().unwrap_or_else(|| CLUSTER_EVENTS.to_owned());
        let name = regarding.name.clone().unwrap_or_default();
        let suffix = format!(".{:x}", now.as_nanosecond());
        // A prefix of a name may end in what a name must not end in.
        let name = prefix(&name, MAX_EVENT_NAME_BYTES - suffix.len()).trim_end_matches(['.', '-']);
        let event = Event {
            metadata: ObjectMeta {
                name: Some(format!("{name}{suffix}")),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            type_: Some(if warning { "Warning" } else { "Normal" }.into()),
            reason: Some(reason.to_owned()),
            note: Some(prefix(note, MAX_NOTE_BYTES).to_owned()),
            action: Some("Refresh".into()),
            regarding: Some(regarding),
            reporting_controller: Some("tokensource.dev/tokensource-operator".into()),
            reporting_instance: Some(prefix(reporter, MAX_INSTANCE_BYTES).to_owned()),
            ..Event::default()
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        self.bounded(api.create(&PostParams::default(), &event)).await.map(drop)
    }
}

/// A request, if its parameters are valid.
pub(super) type Built = Result<HttpRequest<Vec<u8>>, request::Error>;

pub(super) fn built(request: Built) -> kube::Result<HttpRequest<Vec<u8>>> {
    request.map_err(kube::Error::BuildRequest)
}

/// Requests about objects of a namespace.
pub(super) fn requests<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(
    namespace: &str,
) -> Request {
    Request::new(K::url_path(&(), Some(namespace)))
}

/// The parameters of a patch that is no apply.
fn patch_params() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() }
}

/// `None` for an object that does not exist.
fn optional<T>(found: Result<T, CallError>) -> Result<Option<T>, CallError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(CallError::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The longest beginning of `text` with at most `bytes` bytes that ends between two characters.
fn prefix(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_counts_bytes_and_ends_between_characters() {
        assert_eq!((prefix("abc", 5), prefix("abc", 2), prefix("", 1)), ("abc", "ab", ""));
        assert_eq!((prefix("a\u{20ac}b", 3), prefix("a\u{20ac}b", 4)), ("a", "a\u{20ac}"));
        assert_eq!(prefix(&"\u{20ac}".repeat(900), MAX_NOTE_BYTES).len(), 1023);
    }
}
