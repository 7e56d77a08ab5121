//! One walk: a sequence of transitions, each followed by a comparison with a fresh object.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokensource_api::TokenSource;

use super::outcome::Outcome;
use super::world::{Credentials, TargetChange, Transition, World};
use crate::random::Random;
use crate::support::authorization_server::{Behaviour, ClientSpec};
use crate::support::scene::Scene;

/// The time between two transitions. The operator damps what changes more often, longer and longer.
pub const PACE: Duration = Duration::from_secs(31);
/// Within this a source has the outcome of a fresh one: 30 s between two restorations, or up to 60 s after a failure, and a
/// busy machine.
const CONVERGENCE: Duration = Duration::from_secs(120);
/// Between two attempts while the endpoint fails, at least.
const LEAST_BACK_OFF: u64 = 2;
/// In seconds.
const LIFETIME: u32 = 7200;
const LABEL: &str = "app.kubernetes.io/managed-by";
const RECORD: &str = "tokensource.dev/record";

pub struct Walk {
    scene: Scene,
    random: Random,
    world: World,
    steps: usize,
    /// The parts of the spec that the token in the target was requested with.
    tokens_spec: Option<Value>,
    /// The operator has read no credentials for this object, since it needed no token: a new version may have other values.
    values_unknown: bool,
    last: Option<Outcome>,
    /// What has happened, for the message.
    history: Vec<String>,
}

fn text(error: impl Display) -> String {
    error.to_string()
}

impl Walk {
    /// A source with a token, in a namespace with this label.
    pub async fn start(seed: u64, label: &str) -> Result<Self, String> {
        let scene = Scene::bare("walk").await;
        let namespaces: Api<Namespace> = Api::all(scene.client.clone());
        let labels = json!({"metadata": {"labels": {label: "true"}}});
        namespaces
            .patch(&scene.namespace, &PatchParams::default(), &Patch::Merge(&labels))
            .await
            .map_err(text)?;
        // A URL of its own, so that the circuit of an endpoint that fails concerns no other walk.
        let token_url = format!("{}?walk={}", scene.server.vgs_token_url(), scene.namespace);
        let world = World::new(&token_url);
        let mut walk = Walk {
            scene,
            random: Random::new(seed),
            world,
            steps: 0,
            tokens_spec: None,
            values_unknown: false,
            last: None,
            history: Vec::new(),
        };
        walk.register_client().await;
        walk.write_credentials().await?;
        walk.create("source", &walk.world.spec.clone()).await?;
        walk.converge(&Transition::Recreated, 0).await?;
        Ok(walk)
    }

    /// So many transitions. `Err` has what was wrong, with the history.
    pub async fn go(&mut self, transitions: usize) -> Result<usize, String> {
        for _ in 0..transitions {
            let begun = Instant::now();
            if let Err(wrong) = self.step().await {
                return Err(format!("{wrong}\n    after {}", self.history.join(",\n    then ")));
            }
            if self.steps < transitions {
                tokio::time::sleep(PACE.saturating_sub(begun.elapsed())).await;
            }
        }
        Ok(self.steps)
    }

    async fn step(&mut self) -> Result<(), String> {
        let now = self.outcome("source", "token").await?;
        if now != self.last && !self.world.fails {
            return Err(format!("without a change, {:?} became {now:?}", self.last));
        }
        self.steps += 1;
        let transition = self.world.next(&mut self.random);
        self.history.push(transition.to_string());
        let mints = self.scene.mints().await;
        self.apply(&transition).await?;
        self.converge(&transition, mints).await
    }

    /// Waits until the source shows what a fresh object shows.
    async fn converge(&mut self, transition: &Transition, mints: u64) -> Result<(), String> {
        let begun = Instant::now();
        let name = format!("fresh-{}", self.steps);
        let mut spec = self.world.spec.clone();
        spec["target"]["name"] = json!(name);
        self.create(&name, &spec).await?;
        let keeps = self.tokens_spec == Some(inputs(&self.world.spec));
        let (fresh, own) = loop {
            let fresh = self.outcome(&name, &name).await?;
            let own = self.outcome("source", "token").await?;
            if let (Some(fresh), Some(own)) = (&fresh, &own)
                && !["Ready False Requesting", ""].contains(&fresh.ready())
                && own.is_as(fresh, keeps)
            {
                break (fresh.clone(), own.clone());
            }
            if begun.elapsed() > CONVERGENCE {
                return Err(format!(
                    "not as a fresh object within {CONVERGENCE:?} ({}):\n    fresh {fresh:?}\n    own   {own:?}\n    {}",
                    self.world.spec,
                    self.scene.status_text("source").await
                ));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        };
        let made = self.scene.mints().await - mints;
        let most = self.most_requests(transition, begun.elapsed(), &fresh);
        if made > most {
            return Err(format!("{made} token requests, {most} at most"));
        }
        if own.is_ready() && fresh.is_ready() {
            self.tokens_spec = Some(inputs(&self.world.spec));
        }
        self.values_unknown = match transition {
            Transition::Retained => true,
            Transition::Labelled => false,
            _ => self.values_unknown && made <= 1,
        };
        self.last = Some(own);
        self.delete(&name).await?;
        if self.world.spec["target"]["deletionPolicy"] == "Retain" {
            self.delete_secret(&name).await?;
        }
        Ok(())
    }

    /// How many requests the transition may cost, with that of the fresh object.
    fn most_requests(&self, transition: &Transition, elapsed: Duration, fresh: &Outcome) -> u64 {
        let of_fresh = 1;
        let was_ready = self.last.as_ref().is_some_and(|last| last.ready() == "Ready True TokenValid");
        let own = match transition {
            Transition::Spec(..) if was_ready && self.tokens_spec == Some(inputs(&self.world.spec)) => 0,
            Transition::Labelled if was_ready && !self.values_unknown => 0,
            Transition::Invalid(..) if was_ready => 0,
            Transition::Target(
                TargetChange::KeyAdded
                | TargetChange::LabelAdded
                | TargetChange::LabelRemoved
                | TargetChange::OwnerRemoved,
            ) if was_ready => 0,
            // Recreated while the old target is there, and handed over.
            Transition::Adopted => 2,
            _ => 1,
        };
        let retries =
            if fresh.is_ready() && was_ready { 0 } else { 2 * (1 + elapsed.as_secs() / LEAST_BACK_OFF) };
        of_fresh + own + retries
    }

    async fn outcome(&self, source: &str, target: &str) -> Result<Option<Outcome>, String> {
        let source = self.scene.sources().get_opt(source).await.map_err(text)?;
        let target = self.scene.secrets().get_opt(target).await.map_err(text)?;
        Ok(source.and_then(|source| Outcome::of(&source, target.as_ref(), &self.world.foreign)))
    }

    // ------------------------------------------------------------------------------------------ the transitions

    async fn apply(&mut self, transition: &Transition) -> Result<(), String> {
        match transition {
            Transition::Spec(spec, _) => {
                self.replace(spec).await.map_err(|error| format!("a valid spec is refused: {error}"))?;
                self.world.spec = spec.clone();
            }
            Transition::Invalid(spec, _) => match self.replace(spec).await {
                Err(kube::Error::Api(status)) if matches!(status.code, 400 | 422) => {}
                Err(error) => return Err(format!("an invalid spec: {error}")),
                Ok(()) => return Err(format!("an invalid spec is accepted: {spec}")),
            },
            Transition::Credentials(credentials) => {
                self.world.credentials = *credentials;
                self.write_credentials().await?;
            }
            Transition::Renewed => {
                self.world.secret += 1;
                self.world.credentials = Credentials::Right;
                self.scene.server.set_secret(&self.scene.namespace, &self.secret()).await;
                self.write_credentials().await?;
            }
            Transition::Labelled => {
                let label = json!({"metadata": {"labels": {"example.com/step": self.steps.to_string()}}});
                self.patch_secret("credentials", &label).await?;
            }
            Transition::Fails(fails) => {
                self.world.fails = *fails;
                let behaviour = Behaviour { status: Some(503), ..Behaviour::default() };
                self.scene.server.behave(&self.scene.namespace, fails.then_some(behaviour)).await;
            }
            Transition::Target(change) => self.change_target(*change).await?,
            Transition::Recreated => {
                self.delete("source").await?;
                self.create("source", &self.world.spec.clone()).await?;
            }
            Transition::Retained => self.retain().await?,
            Transition::Adopted => self.adopt().await?,
        }
        Ok(())
    }

    async fn change_target(&mut self, change: TargetChange) -> Result<(), String> {
        let Some(target) = self.scene.secrets().get_opt("token").await.map_err(text)? else { return Ok(()) };
        let a_key = target.data.iter().flatten().next().map(|(key, _)| key.clone()).unwrap_or_default();
        let patch = match change {
            TargetChange::KeyEdited | TargetChange::KeyRemoved if a_key.is_empty() => return Ok(()),
            TargetChange::Deleted => return self.delete_secret("token").await,
            TargetChange::KeyEdited => json!({"stringData": {a_key: "edited"}}),
            TargetChange::KeyRemoved => json!({"data": {a_key: null}}),
            TargetChange::KeyAdded => {
                self.world.foreign.push("added".into());
                json!({"stringData": {"added": "by another"}})
            }
            TargetChange::LabelRemoved => json!({"metadata": {"labels": {LABEL: null}}}),
            TargetChange::LabelAdded => {
                self.world.foreign.push("example.com/added".into());
                json!({"metadata": {"labels": {"example.com/added": "a"}}})
            }
            // Without record and owner it belongs to no TokenSource, and would never be written again.
            TargetChange::RecordRemoved if target.metadata.owner_references.is_none() => return Ok(()),
            TargetChange::RecordRemoved => {
                json!({"metadata": {"annotations": {RECORD: null}}})
            }
            TargetChange::OwnerRemoved => json!({"metadata": {"ownerReferences": null}}),
        };
        self.patch_secret("token", &patch).await
    }

    async fn retain(&mut self) -> Result<(), String> {
        let mut spec = self.world.spec.clone();
        spec["target"]["deletionPolicy"] = json!("Retain");
        self.replace(&spec).await.map_err(text)?;
        self.world.spec = spec;
        self.until("the target has no owner", async |walk| {
            let target = walk.scene.secrets().get_opt("token").await.map_err(text)?;
            let metadata = target.map(|target| target.metadata).unwrap_or_default();
            // Without record and owner it would belong to no TokenSource: it is released with the next token.
            let has_record = metadata.annotations.unwrap_or_default().contains_key(RECORD);
            Ok(metadata.owner_references.unwrap_or_default().is_empty() || !has_record)
        })
        .await?;
        self.delete("source").await?;
        self.create("source", &self.world.spec.clone()).await
    }

    async fn adopt(&mut self) -> Result<(), String> {
        self.delete("source").await?;
        self.delete_secret("token").await?;
        let kind =
            self.world.spec.pointer("/target/template/type").and_then(Value::as_str).map(str::to_owned);
        self.world.foreign.push("theirs".into());
        let data = BTreeMap::from([("theirs".to_owned(), "precious".to_owned())]);
        let metadata = ObjectMeta { name: Some("token".into()), ..ObjectMeta::default() };
        let secret = Secret { metadata, string_data: Some(data), type_: kind, ..Secret::default() };
        self.scene.secrets().create(&PostParams::default(), &secret).await.map_err(text)?;
        self.create("source", &self.world.spec.clone()).await?;
        if self.world.spec["suspend"] != json!(true) {
            self.until("the conflict is reported", async |walk| {
                let outcome = walk.outcome("source", "token").await?;
                Ok(outcome.is_some_and(|outcome| !["", "Ready False Requesting"].contains(&outcome.ready())))
            })
            .await?;
        }
        let kept = self.scene.secrets().get("token").await.map_err(text)?;
        if kept.data.is_none_or(|data| data.len() != 1) {
            return Err("another writer's Secret was written before it was handed over".into());
        }
        self.patch_secret("token", &json!({"metadata": {"annotations": {"tokensource.dev/adopt": "source"}}}))
            .await
    }

    // ------------------------------------------------------------------------------------------ calls

    async fn until(
        &self,
        what: &str,
        mut holds: impl AsyncFnMut(&Self) -> Result<bool, String>,
    ) -> Result<(), String> {
        let begun = Instant::now();
        while !holds(self).await? {
            if begun.elapsed() > CONVERGENCE {
                return Err(format!(
                    "{what}: not within {CONVERGENCE:?}; {}",
                    self.scene.status_text("source").await
                ));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    fn secret(&self) -> String {
        format!("secret-{}", self.world.secret)
    }

    async fn register_client(&self) {
        self.scene
            .server
            .client(ClientSpec {
                id: self.scene.namespace.clone(),
                secret: Some(self.secret()),
                scope: "read write".into(),
                access_token_ttl: LIFETIME,
                ..ClientSpec::default()
            })
            .await;
    }

    async fn write_credentials(&self) -> Result<(), String> {
        let secret = match self.world.credentials {
            Credentials::Missing => return self.delete_secret("credentials").await,
            Credentials::Right => Some(self.secret()),
            Credentials::WrongSecret => Some(format!("wrong-{}", self.steps)),
            Credentials::WithoutSecret => None,
        };
        self.write_secret("credentials", secret).await?;
        self.write_secret("others", Some(self.secret())).await
    }

    async fn write_secret(&self, name: &str, client_secret: Option<String>) -> Result<(), String> {
        let mut data = BTreeMap::from([("client_id".to_owned(), self.scene.namespace.clone())]);
        data.extend(client_secret.map(|secret| ("client_secret".to_owned(), secret)));
        let metadata = ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
        let secret = Secret { metadata, string_data: Some(data), ..Secret::default() };
        let secrets = self.scene.secrets();
        match secrets.get_opt(name).await.map_err(text)? {
            None => secrets.create(&PostParams::default(), &secret).await.map(drop).map_err(text),
            Some(_) => secrets.replace(name, &PostParams::default(), &secret).await.map(drop).map_err(text),
        }
    }

    async fn patch_secret(&self, name: &str, patch: &Value) -> Result<(), String> {
        match self.scene.secrets().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            result => result.map(drop).map_err(text),
        }
    }

    /// Deletes a Secret, and waits until it is gone.
    async fn delete_secret(&self, name: &str) -> Result<(), String> {
        match self.scene.secrets().delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            result => result.map(drop).map_err(text),
        }
    }

    async fn create(&self, name: &str, spec: &Value) -> Result<(), String> {
        let source: TokenSource = serde_json::from_value(json!({
            "apiVersion": "tokensource.dev/v1alpha1",
            "kind": "TokenSource",
            "metadata": {"name": name},
            "spec": spec,
        }))
        .map_err(text)?;
        self.scene.sources().create(&PostParams::default(), &source).await.map(drop).map_err(text)
    }

    async fn delete(&self, name: &str) -> Result<(), String> {
        self.scene.sources().delete(name, &DeleteParams::default()).await.map(drop).map_err(text)
    }

    /// Replaces the spec of the source, as `kubectl replace` does.
    async fn replace(&self, spec: &Value) -> kube::Result<()> {
        let kind = kube::api::ApiResource::erase::<TokenSource>(&());
        let api: Api<kube::api::DynamicObject> =
            Api::namespaced_with(self.scene.client.clone(), &self.scene.namespace, &kind);
        loop {
            let mut source = api.get("source").await?;
            source.data["spec"] = spec.clone();
            match api.replace("source", &PostParams::default(), &source).await {
                // The status was written meanwhile.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                result => return result.map(drop),
            }
        }
    }
}

/// The parts of a spec that decide whether a token is one for it.
fn inputs(spec: &Value) -> Value {
    json!([spec["provider"], spec["credentials"], spec.pointer("/target/template")])
}
