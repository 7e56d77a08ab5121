//! The setup of most tests: a namespace, a client at the authorization server, and its credentials in a Secret.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokensource_api::{TokenSource, TokenSourceStatus};

use super::authorization_server::{AuthorizationServer, ClientSpec};
use super::control_plane::ControlPlane;
use super::eventually;
use super::program::result;

/// The limit for what should happen at once, on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);
/// The limit for garbage collection and the deletion of a namespace: kube-controller-manager pauses both whenever a test
/// installs a CustomResourceDefinition.
pub const COLLECTED: Duration = Duration::from_secs(120);

/// A namespace with credentials for one client of the authorization server. The client's id is the namespace's name,
/// so that its token requests are counted separately.
pub struct Scene {
    pub namespace: String,
    pub control_plane: &'static ControlPlane,
    pub client: Client,
    pub server: &'static AuthorizationServer,
}

impl Scene {
    /// A client of the VGS kind whose tokens live for `ttl` seconds; its credentials in Secret `credentials`.
    pub async fn new(prefix: &str, ttl: u32) -> Self {
        Self::bare(prefix).await.with_client(ttl).await
    }

    /// The same in a control plane that is not the shared one.
    pub async fn new_in(control_plane: &'static ControlPlane, prefix: &str, ttl: u32) -> Self {
        Self::bare_in(control_plane, prefix).await.with_client(ttl).await
    }

    async fn with_client(self, ttl: u32) -> Self {
        self.server
            .client(ClientSpec {
                id: self.namespace.clone(),
                secret: Some("right".into()),
                token_endpoint_auth_method: "client_secret_post",
                grant_types: vec!["client_credentials"],
                access_token_ttl: ttl,
                ..ClientSpec::default()
            })
            .await;
        self.credentials("right").await;
        self
    }

    /// A namespace alone.
    pub async fn bare(prefix: &str) -> Self {
        Self::bare_in(ControlPlane::shared(), prefix).await
    }

    async fn bare_in(control_plane: &'static ControlPlane, prefix: &str) -> Self {
        let namespace = control_plane.namespace(prefix).await;
        let client = control_plane.client().await;
        Scene { namespace, control_plane, client, server: AuthorizationServer::shared() }
    }

    /// Writes Secret `credentials` with this client secret.
    pub async fn credentials(&self, secret: &str) {
        self.secret("credentials", &[("client_id", &self.namespace), ("client_secret", secret)]).await;
    }

    /// Writes a Secret with kubectl, as a user would.
    pub async fn secret(&self, name: &str, data: &[(&str, &str)]) {
        let data: BTreeMap<_, _> = data.iter().copied().collect();
        self.apply(
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}),
        )
        .await;
    }

    /// `kubectl apply -f -` in the namespace.
    pub async fn apply(&self, manifest: Value) {
        self.kubectl(&["apply", "-f", "-"], &manifest.to_string()).await;
    }

    /// A TokenSource `source` of the preset VGS with target `token`; `change` may add to its spec.
    pub fn source(&self, change: Value) -> Value {
        let mut manifest = json!({
            "apiVersion": "tokensource.dev/v1alpha1",
            "kind": "TokenSource",
            "metadata": {"name": "source"},
            "spec": {
                "provider": {"vgs": {"tokenURL": self.server.vgs_token_url()}},
                "credentials": {"secretRef": {"name": "credentials"}},
                "target": {"name": "token"},
            },
        });
        merge(&mut manifest["spec"], change);
        manifest
    }

    /// Runs kubectl in the namespace and returns its stdout; panics with its stderr if it fails.
    pub async fn kubectl(&self, arguments: &[&str], stdin: &str) -> String {
        match self.try_kubectl(arguments, stdin).await {
            Ok(said) => said,
            Err(said) => panic!("kubectl {arguments:?}: {said}"),
        }
    }

    /// Runs kubectl in the namespace; `Err` is its stderr if it fails.
    pub async fn try_kubectl(&self, arguments: &[&str], stdin: &str) -> Result<String, String> {
        let arguments: Vec<_> = ["-n", &self.namespace].iter().chain(arguments).copied().collect();
        let output = self.control_plane.kubectl(&arguments, stdin).await;
        result(&output)
    }

    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub fn sources(&self) -> Api<TokenSource> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// How many token requests the client has made.
    pub async fn mints(&self) -> u64 {
        self.server.requests(&self.namespace).await.total
    }

    /// The value of a key of a Secret, if both exist.
    pub async fn value(&self, secret: &str, key: &str) -> Option<String> {
        let ByteString(bytes) = self.secrets().get_opt(secret).await.unwrap()?.data?.remove(key)?;
        Some(String::from_utf8(bytes).unwrap())
    }

    /// The token in Secret `token`.
    pub async fn token(&self) -> Option<String> {
        self.value("token", "access_token").await
    }

    /// Waits until Secret `token` holds a token other than `before`.
    pub async fn new_token(&self, before: Option<&str>) -> String {
        eventually("a new token", SOON, async || match self.token().await {
            Some(token) if Some(token.as_str()) != before => Ok(token),
            other => {
                Err(format!("a token exists: {}; {}", other.is_some(), self.status_text("source").await))
            }
        })
        .await
    }

    /// Waits until `source`'s Ready condition is this (`True TokenValid`), and returns its message.
    pub async fn ready(&self, expected: &str) -> String {
        self.condition("source", "Ready", expected).await
    }

    /// Waits until a condition is this (`True TokenValid`) for the present generation, and returns its message.
    pub async fn condition(&self, source: &str, kind: &str, expected: &str) -> String {
        eventually(&format!("{kind} of {source} is {expected}"), SOON, async || {
            let source = self.sources().get(source).await.unwrap();
            let generation = source.metadata.generation;
            let status = source.status.unwrap_or_default();
            let found = status.conditions.iter().find(|condition| condition.type_ == kind);
            match found.filter(|it| it.observed_generation == generation) {
                Some(it) if format!("{} {}", it.status, it.reason) == expected => Ok(it.message.clone()),
                _ => Err(format!("{status:?}")),
            }
        })
        .await
    }

    /// Waits until the Ready condition of `source` is this, and its message contains all of `words`.
    pub async fn reports(&self, expected: &str, words: &[&str]) {
        eventually(&format!("Ready is {expected} with {words:?}"), SOON, async || {
            let said = self.ready(expected).await;
            if words.iter().all(|word| said.contains(word)) { Ok(()) } else { Err(said) }
        })
        .await;
    }

    /// The status of `source` as it is now.
    pub async fn status(&self) -> TokenSourceStatus {
        self.sources().get("source").await.unwrap().status.unwrap_or_default()
    }

    /// The operator's record on Secret `token`.
    pub async fn record(&self) -> Value {
        let secret = self.secrets().get("token").await.unwrap();
        let annotations = secret.metadata.annotations.unwrap_or_default();
        serde_json::from_str(&annotations["tokensource.dev/record"]).unwrap()
    }

    /// `kubectl patch` with a merge patch.
    pub async fn patch(&self, kind: &str, name: &str, patch: Value) {
        self.kubectl(&["patch", kind, name, "--type=merge", "-p", &patch.to_string()], "").await;
    }

    /// Requests a refresh, as a user would, and waits for the new token.
    pub async fn force_refresh(&self, value: &str) -> String {
        let before = self.token().await;
        let request = format!("tokensource.dev/refresh-requested-at={value}");
        self.kubectl(&["annotate", "tokensource", "source", "--overwrite", &request], "").await;
        self.new_token(before.as_deref()).await
    }

    /// Waits until the operator has seen all changes of Secrets up to now and has acted on them: it restores its label on
    /// Secret `token` after everything else that is to be done for `source`. That costs no token request.
    pub async fn secrets_are_seen(&self) {
        const LABEL: &str = "app.kubernetes.io/managed-by";
        self.kubectl(&["label", "secret", "token", &format!("{LABEL}-")], "").await;
        // At once, or 30 s after the last time.
        eventually("the label is restored", 2 * SOON, async || {
            let labels = self.secrets().get("token").await.unwrap().metadata.labels;
            labels.filter(|labels| labels.contains_key(LABEL)).ok_or("no label")
        })
        .await;
    }

    /// Waits until the operator has seen all changes of `source` up to now and has acted on them: it rewrites the status
    /// that is removed here. That costs no token request.
    pub async fn source_is_seen(&self) {
        let nothing = json!({"status": null}).to_string();
        self.kubectl(
            &["patch", "tokensource", "source", "--subresource=status", "--type=merge", "-p", &nothing],
            "",
        )
        .await;
        eventually("the status is written again", SOON, async || {
            let status = self.status().await;
            if status.conditions.is_empty() { Err(status) } else { Ok(()) }
        })
        .await;
    }

    /// Waits until status has a token that was issued at another time, and returns this time.
    pub async fn issued_at_other_than(&self, before: jiff::Timestamp) -> jiff::Timestamp {
        eventually("status has a new token", SOON, async || {
            let issued_at = self.status().await.token.map(|token| token.issued_at);
            issued_at.filter(|issued_at| *issued_at != before).ok_or("none")
        })
        .await
    }

    /// Waits until an object is gone.
    pub async fn gone(&self, kind: &str, name: &str) {
        eventually(&format!("{kind} {name} is gone"), COLLECTED, async || {
            let found = self.kubectl(&["get", kind, name, "--ignore-not-found", "-o", "name"], "").await;
            if found.is_empty() { Ok(()) } else { Err(found) }
        })
        .await;
    }

    /// The status of a source as text, for messages.
    pub async fn status_text(&self, source: &str) -> String {
        let Ok(Some(source)) = self.sources().get_opt(source).await else {
            return "no such TokenSource".into();
        };
        format!("{:?}", source.status.unwrap_or_default())
    }
}

/// Merges `from` into `into`, member by member.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (name, value) in from {
                merge(into.entry(name).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}
