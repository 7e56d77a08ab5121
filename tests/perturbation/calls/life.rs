//! What a user does in a scenario, and what must hold afterwards.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams};
use serde_json::{Value, json};
use tokensource_api::TokenSource;

use super::fault::Kind;
use super::journal::Journal;
use crate::support::authorization_server::ClientSpec;
use crate::support::scene::Scene;

/// After a fault the source must have come to a valid token within this: the 12 s of what is late; a back-off of the operator
/// or of its watches; 30 s between two restorations or after a 429 of the endpoint; lease and 60 s where a process was killed
/// that may hold the next refresh token; and a busy machine.
const RECOVERY: Duration = Duration::from_secs(120);
/// The Secrets that the operator may write.
const ITS_SECRETS: [&str; 2] = ["secrets/token", "secrets/source-refresh-token"];
const STORED: &str = "source-refresh-token";
/// In seconds. No refresh is due within a scenario.
const LIFETIME: u32 = 7200;
const REFRESH_REQUEST: &str = "tokensource.dev/refresh-requested-at";

pub struct Life {
    kind: Kind,
    pub scene: Scene,
    pub journal: Arc<Journal>,
    token_url: String,
    credentials: Mutex<Credentials>,
}

/// What the user wrote last.
#[derive(Clone, Default)]
struct Credentials {
    /// An original refresh token, where the source needs one.
    original: Option<String>,
    resource_version: Option<String>,
}

/// Repeats `ask` until it succeeds; the last error when the limit has passed.
async fn within<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<T, String>) -> Result<T, String> {
    let begun = Instant::now();
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(error) if begun.elapsed() > RECOVERY => {
                return Err(format!("{what}: not within {RECOVERY:?}: {error}"));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}

fn sha256(value: &str) -> String {
    digest(&SHA256, value.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Life {
    pub async fn new(kind: Kind, scene: Scene, journal: Arc<Journal>, token_url: &str) -> Self {
        let grant = if kind.rotates() { "refresh_token" } else { "client_credentials" };
        scene
            .server
            .client(ClientSpec {
                id: scene.namespace.clone(),
                secret: Some("unused".into()),
                grant_types: vec![grant],
                access_token_ttl: LIFETIME,
                rotate_refresh_token: kind.rotates(),
                ..ClientSpec::default()
            })
            .await;
        Self { kind, scene, journal, token_url: token_url.to_owned(), credentials: Mutex::default() }
    }

    // ------------------------------------------------------------------------------------------ what the user does

    /// New values at the authorization server and in Secret `credentials`.
    pub async fn new_credentials(&self, client_secret: &str) -> Result<(), String> {
        let client = self.scene.namespace.as_str();
        let original =
            if self.kind.rotates() { Some(self.scene.server.seed_refresh_token(client).await) } else { None };
        self.scene.server.set_secret(client, client_secret).await;
        let mut data = vec![("client_id", client), ("client_secret", client_secret)];
        data.extend(original.as_deref().map(|original| ("refresh_token", original)));
        let resource_version = Some(self.write_secret("credentials", &data).await?);
        *self.credentials.lock().unwrap() = Credentials { original, resource_version };
        Ok(())
    }

    /// Writes a Secret, and returns its resourceVersion.
    pub async fn write_secret(&self, name: &str, data: &[(&str, &str)]) -> Result<String, String> {
        let data: BTreeMap<_, _> =
            data.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
        let secret = Secret { metadata, string_data: Some(data), ..Secret::default() };
        let params = PatchParams::apply("user").force();
        let written =
            self.scene.secrets().patch(name, &params, &Patch::Apply(&secret)).await.map_err(text)?;
        written.metadata.resource_version.ok_or_else(|| "no resourceVersion".to_owned())
    }

    pub async fn create_source(&self) -> Result<(), String> {
        let mut oauth2 = json!({"tokenURL": self.token_url});
        if self.kind.rotates() {
            oauth2["grant"] = json!({"refreshToken": {}});
        }
        let source: TokenSource = serde_json::from_value(json!({
            "apiVersion": "tokensource.dev/v1alpha1",
            "kind": "TokenSource",
            "metadata": {"name": "source"},
            "spec": {
                "provider": {"oauth2": oauth2},
                "credentials": {"secretRef": {"name": "credentials"}},
                "target": {"name": "token"},
            },
        }))
        .map_err(text)?;
        self.scene.sources().create(&Default::default(), &source).await.map(drop).map_err(text)
    }

    pub async fn request_refresh(&self) -> Result<(), String> {
        let patch = json!({"metadata": {"annotations": {REFRESH_REQUEST: "now"}}});
        let patched =
            self.scene.sources().patch("source", &PatchParams::default(), &Patch::Merge(&patch)).await;
        patched.map(drop).map_err(text)
    }

    pub async fn delete_target(&self) -> Result<(), String> {
        self.scene.secrets().delete("token", &DeleteParams::default()).await.map(drop).map_err(text)
    }

    pub async fn delete_source(&self) -> Result<(), String> {
        self.scene.sources().delete("source", &DeleteParams::default()).await.map(drop).map_err(text)
    }

    // ------------------------------------------------------------------------------------------ what must hold

    /// Waits until nothing is in flight or delayed.
    pub async fn idle(&self) -> Result<(), String> {
        let idle = async || self.journal.is_idle().then_some(()).ok_or_else(|| "calls go on".to_owned());
        within("the operator comes to rest", idle).await
    }

    /// Waits until this replica watches everything.
    pub async fn started(&self, replica: usize) -> Result<(), String> {
        within("the operator starts", async || {
            let calls = self.journal.calls();
            let made = |verb: &str, resource: &str| {
                let mut of_it = calls.iter().filter(|call| call.replica == replica);
                of_it.any(|call| call.verb == verb && call.resource.starts_with(resource))
            };
            let leads = self.kind != Kind::Replicas || replica != 0 || made("create", "leases");
            if leads && made("watch", "secrets") && made("watch", "tokensources") {
                Ok(())
            } else {
                Err(format!("{calls:?}"))
            }
        })
        .await?;
        self.idle().await
    }

    /// Waits until the source has such a token and nothing else happens, and checks that it still has one.
    pub async fn settled_with_token_other_than(&self, before: Option<&str>) -> Result<(), String> {
        let begun = Instant::now();
        loop {
            within("a valid token with a true status", async || match self.is_well(before).await {
                // There is nothing to wait for.
                Err(error) if self.journal.lost_only_copy() => Ok(Err(error)),
                is_well => is_well.map(Ok),
            })
            .await??;
            self.idle().await?;
            // What was late may have changed something.
            match self.is_well(before).await {
                Err(error) if begun.elapsed() > RECOVERY => return Err(format!("it changes again: {error}")),
                Err(_) => {}
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Target, record, status, stored refresh token and authorization server agree on a token other than `before`.
    async fn is_well(&self, before: Option<&str>) -> Result<(), String> {
        let target = self.scene.secrets().get("token").await.map_err(text)?;
        let token = value(&target, "access_token").ok_or("the target has no token")?;
        if Some(token.as_str()) == before {
            return Err(format!("the token is not replaced; {}", self.scene.status_text("source").await));
        }
        let annotations = target.metadata.annotations.unwrap_or_default();
        let record = annotations.get("tokensource.dev/record").ok_or("no record")?;
        let record: Value = serde_json::from_str(record).map_err(text)?;
        if record["tokenId"] != sha256(&token)[..12] {
            return Err("the record is about another token".into());
        }
        if !self.scene.server.is_valid(&token).await {
            return Err("the authorization server does not accept the token".into());
        }
        let source = self.scene.sources().get("source").await.map_err(text)?;
        let status = json!(source.status);
        let ready = &status["conditions"][0];
        let is_true = ready["type"] == "Ready"
            && ready["status"] == "True"
            && ready["reason"] == "TokenValid"
            && ready["observedGeneration"] == json!(source.metadata.generation)
            && status["observedGeneration"] == json!(source.metadata.generation)
            && status["token"]["id"] == record["tokenId"]
            && status["token"]["expiresAt"] == record["expiresAt"]
            && status["lastFailure"]["count"].as_u64().unwrap_or(0) == 0;
        if !is_true {
            return Err(format!("the status is not true: {status}"));
        }
        if self.kind.rotates() {
            self.newest_refresh_token_is_stored().await?;
        }
        Ok(())
    }

    async fn newest_refresh_token_is_stored(&self) -> Result<(), String> {
        let stored = self.scene.secrets().get_opt(STORED).await.map_err(text)?.ok_or("nothing is stored")?;
        if value(&stored, "refresh_token") != self.journal.last_successor() {
            return Err("the newest refresh token is not stored".into());
        }
        let original = self.credentials.lock().unwrap().original.clone();
        if value(&stored, "seed_sha256") != original.as_deref().map(sha256) {
            return Err("the stored refresh token descends from another original one".into());
        }
        Ok(())
    }

    pub async fn token(&self) -> Result<String, String> {
        let target = self.scene.secrets().get("token").await.map_err(text)?;
        value(&target, "access_token").ok_or_else(|| "the target has no token".to_owned())
    }

    pub async fn stored_refresh_token(&self) -> Result<Option<String>, String> {
        let stored = self.scene.secrets().get_opt(STORED).await.map_err(text)?;
        Ok(stored.and_then(|stored| value(&stored, "refresh_token")))
    }

    pub async fn target_is_gone(&self) -> Result<(), String> {
        within("the target is deleted with its TokenSource", async || {
            match self.scene.secrets().get_opt("token").await.map_err(text)? {
                None => Ok(()),
                Some(_) => Err("it is there".to_owned()),
            }
        })
        .await
    }

    /// No other Secret was written, successfully or not, and those of the user are as they were.
    pub async fn foreign_secrets_are_untouched(&self, foreign: &str) -> Result<(), String> {
        let writes = self.journal.writes();
        let is_foreign = |resource: &str| resource.starts_with("secrets") && !ITS_SECRETS.contains(&resource);
        if let Some((verb, resource)) = writes.iter().find(|(_, resource)| is_foreign(resource)) {
            return Err(format!("{verb} {resource}"));
        }
        let credentials = self.credentials.lock().unwrap().resource_version.clone();
        for (name, expected) in [("foreign", Some(foreign)), ("credentials", credentials.as_deref())] {
            let secret = self.scene.secrets().get(name).await.map_err(text)?;
            if secret.metadata.resource_version.as_deref() != expected {
                return Err(format!("Secret {name} was written"));
            }
        }
        Ok(())
    }
}

fn value(secret: &Secret, key: &str) -> Option<String> {
    let bytes = &secret.data.as_ref()?.get(key)?.0;
    String::from_utf8(bytes.clone()).ok()
}
