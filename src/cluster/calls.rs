//! The calls of reconciliation to the API server: first the reads, then the writes. Each has a timeout. None is repeated
//! here, because reconciliation schedules retries itself.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference, Pod, Secret};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Request;
use kube::{Api, Client, Resource};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::objects::{SecretObject, SourceMetadata, StoredRefreshToken};
use crate::key::Key;
use crate::secret::{
    FIELD_MANAGER, Facts, PodList, PodMetadata, REFRESH_TOKEN_LABEL, REFRESHED_ANNOTATION, Version,
};
use crate::text::shown;

/// The most Secrets of one page.
const SECRET_PAGE_SIZE: u32 = 100;
/// The most pods of one page. The whole page is in memory, and a pod may be large.
const POD_PAGE_SIZE: u32 = 50;
/// The timeout of one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The limits of the API server for parts of an event, in bytes. It refuses longer ones.
const MAX_NOTE_BYTES: usize = 1024;
const MAX_EVENT_NAME_BYTES: usize = 253;
const MAX_INSTANCE_BYTES: usize = 128;

/// A failed call, classified by what is done next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// 409: the precondition does not hold, or the object exists already.
    #[error("the object has changed meanwhile")]
    Conflict,
    /// 404: the object, or its namespace, does not exist.
    #[error("not found")]
    NotFound,
    /// The Secret has another type, which cannot be changed.
    #[error("the Secret is of another type, which cannot be changed")]
    AnotherType,
    /// The Secret is immutable.
    #[error("the Secret is immutable")]
    Immutable,
    /// Another rejection (4xx): quota, admission, RBAC, validation. It is shown as text of others, and not before what it quotes
    /// was taken out of the whole ([`CallError::without`]).
    #[error("{}", shown(.0))]
    Refused(String),
    /// No response, or an error of the API server itself.
    #[error("the Kubernetes API server did not answer as expected: {0}")]
    Unavailable(Unavailable),
}

/// Why there is no response, and how long the API server asks to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// The error.
    pub message: String,
    /// `retryAfterSeconds`.
    pub retry_after: Option<Duration>,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shown(&self.message))
    }
}

impl From<String> for Unavailable {
    fn from(message: String) -> Self {
        Unavailable { message, retry_after: None }
    }
}

impl From<&kube::core::Status> for Unavailable {
    fn from(status: &kube::core::Status) -> Self {
        let seconds = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        let retry_after = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
        Unavailable { message: format!("status {}", status.code), retry_after }
    }
}

/// Whether a rejection (4xx) is about the operator itself or about this moment, and not about what was asked for: 401 (its own
/// token has expired or was revoked), 408 and 429.
fn is_about_the_moment(code: u16) -> bool {
    matches!(code, 401 | 408 | 429)
}

/// The message of Kubernetes for a write to an immutable Secret, in all versions that have immutable Secrets.
const IMMUTABLE_MESSAGE: &str = "field is immutable when `immutable` is set";

/// Whether Kubernetes itself refuses to change a Secret's type. A webhook may reject a type too; then the Secret must not be
/// deleted.
fn is_type_change(status: &kube::core::Status) -> bool {
    let causes = || status.details.iter().flat_map(|details| &details.causes);
    status.code == 422
        && !status.message.starts_with("admission webhook ")
        && causes().any(|cause| cause.field == "type" && cause.message.ends_with("field is immutable"))
}

impl From<kube::Error> for CallError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 409 => CallError::Conflict,
            kube::Error::Api(status) if status.code == 404 => CallError::NotFound,
            kube::Error::Api(status) if is_type_change(&status) => CallError::AnotherType,
            kube::Error::Api(status) if status.code == 422 && status.message.contains(IMMUTABLE_MESSAGE) => {
                CallError::Immutable
            }
            kube::Error::Api(status)
                if (400..500).contains(&status.code) && !is_about_the_moment(status.code) =>
            {
                CallError::Refused(status.message.clone())
            }
            kube::Error::Api(status) => CallError::Unavailable(Unavailable::from(&*status)),
            // Its message may quote the response, which may be a Secret.
            kube::Error::SerdeError(_) => {
                CallError::Unavailable("an answer that cannot be read".to_owned().into())
            }
            other => CallError::Unavailable(other.to_string().into()),
        }
    }
}

impl CallError {
    /// The same without `secret`, which an admission webhook may have quoted.
    #[must_use]
    pub fn without(self, secret: &SecretString) -> Self {
        let raw = secret.expose_secret();
        if raw.len() < 8 {
            // A constant of a template, or a value that reveals nothing: without it the message could not be read.
            return self;
        }
        let encoded = STANDARD.encode(raw);
        let clean = |message: String| message.replace(&encoded, "[redacted]").replace(raw, "[redacted]");
        match self {
            CallError::Refused(message) => CallError::Refused(clean(message)),
            CallError::Unavailable(Unavailable { message, retry_after }) => {
                CallError::Unavailable(Unavailable { message: clean(message), retry_after })
            }
            other => other,
        }
    }
}

/// The calls to the API server.
#[derive(Clone)]
pub struct Kubernetes {
    client: Client,
}

impl Kubernetes {
    /// Uses `client`, which must not retry by itself.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Kubernetes { client }
    }

    async fn bounded<T>(&self, call: impl Future<Output = kube::Result<T>> + Send) -> Result<T, CallError> {
        // Boxed: the future of every reconciliation would otherwise have the size of the largest call.
        match tokio::time::timeout(CALL_TIMEOUT, Box::pin(call)).await {
            Ok(result) => result.map_err(CallError::from),
            Err(_) => {
                let message = format!("no answer within {} s", CALL_TIMEOUT.as_secs());
                Err(CallError::Unavailable(message.into()))
            }
        }
    }

    fn secrets(&self, namespace: &str) -> Api<Secret> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn sources(&self, namespace: &str) -> Api<SourceMetadata> {
        Api::namespaced(self.client.clone(), namespace)
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
        let api: Api<SecretObject> = Api::namespaced(self.client.clone(), &key.namespace);
        let found = self.bounded(api.get_opt(&key.name)).await?;
        Ok(found.and_then(|secret| secret.facts))
    }

    /// Reads a Secret.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn secret(&self, key: &Key) -> Result<Option<Secret>, CallError> {
        let api = self.secrets(&key.namespace);
        self.bounded(api.get_opt(&key.name)).await
    }

    /// Reads a ConfigMap.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn config_map(&self, key: &Key) -> Result<Option<ConfigMap>, CallError> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &key.namespace);
        self.bounded(api.get_opt(&key.name)).await
    }

    /// The generation of a TokenSource that still exists as this very object and is not being deleted.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn source_generation(&self, key: &Key, uid: &str) -> Result<Option<i64>, CallError> {
        let found = self.bounded(self.sources(&key.namespace).get_opt(&key.name)).await?;
        let found = found.filter(|source| {
            source.meta().deletion_timestamp.is_none() && source.meta().uid.as_deref() == Some(uid)
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
        let mut page = ListParams::default().labels(&format!("{label}={value}")).limit(SECRET_PAGE_SIZE);
        let api: Api<StoredRefreshToken> = Api::namespaced(self.client.clone(), &source.namespace);
        let descends = |stored: &StoredRefreshToken| {
            stored.seed_sha256.as_ref().is_some_and(|digest| digest.0 == original_sha256.as_bytes())
        };
        loop {
            let list = self.bounded(api.list(&page)).await?;
            let mut others = list.items.into_iter().filter(descends).filter_map(|stored| stored.source);
            if let Some(other) = others.find(|other| **other != *source.name) {
                return Ok(Some(other));
            }
            page.continue_token = list.metadata.continue_.filter(|next| !next.is_empty());
            if page.continue_token.is_none() {
                return Ok(None);
            }
        }
    }

    /// A page of the pods of a namespace that match a field selector; `next` is the continue token of the previous page.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn pods(
        &self,
        namespace: &str,
        selector: &str,
        next: Option<&str>,
    ) -> Result<PodList, CallError> {
        let page = ListParams::default().fields(selector).limit(POD_PAGE_SIZE);
        let page = ListParams { continue_token: next.map(str::to_owned), ..page };
        let request = Request::new(Pod::url_path(&(), Some(namespace))).list(&page);
        let request = request.map_err(|error| CallError::Unavailable(error.to_string().into()))?;
        // Not with the types of k8s-openapi, which would hold the whole of each pod, with the values of its environment.
        let text = self.bounded(self.client.request_text(request)).await?;
        serde_json::from_str(&text).map_err(|error| kube::Error::SerdeError(error).into())
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
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        self.write_secret(key, &params, &Patch::Strategic(body)).await
    }

    /// Deletes a Secret if it still has this version; with `dry_run` only checks whether it could be deleted.
    ///
    /// # Errors
    /// [`CallError::Conflict`] where it has another version; else see [`CallError`].
    pub async fn delete_secret(&self, key: &Key, seen: &Version, dry_run: bool) -> Result<(), CallError> {
        let preconditions = Preconditions {
            uid: Some(seen.uid.clone()),
            resource_version: Some(seen.resource_version.clone()),
        };
        let params = DeleteParams { dry_run, preconditions: Some(preconditions), ..DeleteParams::default() };
        let api = self.secrets(&key.namespace);
        self.bounded(api.delete(&key.name, &params)).await.map(drop)
    }

    /// Requests only metadata as the response, so that no token is sent back.
    async fn write_secret(
        &self,
        key: &Key,
        params: &PatchParams,
        patch: &Patch<&Value>,
    ) -> Result<Facts, CallError> {
        let api: Api<SecretObject> = Api::namespaced(self.client.clone(), &key.namespace);
        let written = self.bounded(api.patch(&key.name, params, patch)).await?;
        written.facts.ok_or_else(|| CallError::Unavailable("an answer without a version".to_owned().into()))
    }

    /// Writes the status of a TokenSource and returns its new resourceVersion.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn write_status(&self, key: &Key, body: &Value) -> Result<Option<String>, CallError> {
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let api = self.sources(&key.namespace);
        let written = self.bounded(api.patch_status(&key.name, &params, &Patch::Merge(body))).await?;
        Ok(written.meta().resource_version.clone())
    }

    /// Annotates a pod, so that the kubelet syncs its volumes. Succeeds without effect for a pod that is gone or was replaced
    /// by another of its name.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn annotate_pod(&self, namespace: &str, pod: &PodMetadata) -> Result<(), CallError> {
        let value = format!("{:.3}", jiff::Timestamp::now());
        let body = json!({"metadata": {"uid": pod.uid, "annotations": {REFRESHED_ANNOTATION: value}}});
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() };
        let api: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let patch = Patch::Merge(&body);
        let touched = api.patch_metadata(&pod.name, &params, &patch);
        match self.bounded(touched).await {
            Ok(_) | Err(CallError::Conflict | CallError::NotFound) => Ok(()),
            // The pod was replaced: the API server refuses to change its uid to the one in the patch.
            Err(CallError::Refused(message)) if message.contains("metadata.uid: ") => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Publishes an event about a TokenSource. Not with kube's recorder, which would send the first of two notes with the
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
        let namespace = regarding.namespace.clone().unwrap_or_default();
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

    #[test]
    fn rejection_of_the_operator_itself_or_of_this_moment_is_no_refusal_of_the_object() {
        let answered = |code: u16, retry_after: u32| {
            let status = json!({"code": code, "message": "m", "status": "Failure", "details": {"retryAfterSeconds": retry_after}});
            let status: kube::core::Status = serde_json::from_value(status).unwrap();
            CallError::from(kube::Error::Api(Box::new(status)))
        };
        for code in [401, 408, 429, 500, 503] {
            let unavailable =
                Unavailable { message: format!("status {code}"), retry_after: Some(Duration::from_secs(7)) };
            assert_eq!(answered(code, 7), CallError::Unavailable(unavailable));
        }
        for code in [400, 403, 413, 422] {
            assert_eq!(answered(code, 0), CallError::Refused("m".into()));
        }
    }

    fn rejection(message: &str, cause: &str) -> CallError {
        let status = json!({
            "status": "Failure", "code": 422, "reason": "Invalid", "message": message,
            "details": {"causes": [{"reason": "FieldValueInvalid", "message": cause, "field": "type"}]},
        });
        let status: kube::core::Status = serde_json::from_value(status).unwrap();
        kube::Error::Api(status.boxed()).into()
    }

    #[test]
    fn call_error_another_type_only_where_kubernetes_itself_rejects() {
        let message = r#"Secret "token" is invalid: type: Invalid value: "Opaque": field is immutable"#;
        let cause = r#"Invalid value: "Opaque": field is immutable"#;
        assert_eq!(rejection(message, cause), CallError::AnotherType);
        let webhook = format!("admission webhook \"types.example.com\" denied the request: {message}");
        assert_eq!(rejection(&webhook, cause), CallError::Refused(webhook.clone()));
        let other = "Unsupported value: \"a\"";
        assert_eq!(rejection("no such type here", other), CallError::Refused("no such type here".into()));
    }
}
