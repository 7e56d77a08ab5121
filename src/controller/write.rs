//! The writer: what was minted goes into the Secrets, the refresh token first.

use std::collections::BTreeMap;

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;
use tracing::{info, warn};

use super::cache::secrets::Known;
use super::gather::sha256;
use super::memory::{Disturbance, UnsavedRefreshToken, UnwrittenToken};
use super::reconcile::Pass;
use super::spans;
use super::stop::Stop;
use crate::cluster::CallError;
use crate::key::Key;
use crate::secret::{
    Facts, Inputs, Minted, Ownership, Record, RefreshTokenSecret, Rendered, TargetSecret, Template, Version,
    ownership, restamp,
};
use tokensource_api::Reason;

impl Pass<'_> {
    /// Writes what is pending.
    pub(super) async fn write(&mut self) -> Result<(), Stop> {
        Box::pin(self.save_refresh_token()).await?;
        if !self.target_is_ours() {
            // Somebody made a Secret of this name while the token was asked for: that is to be decided anew.
            return Err(Stop::Again);
        }
        let seen = self.seen_target();
        if seen.is_none() || self.target_is_offered() {
            // Requesting took its time: for a TokenSource that has gone meanwhile nothing is created, and nothing taken over
            // that would then be garbage.
            self.check_alive().await?;
        }
        if !self.is_served() {
            return Err(Stop::Again);
        }
        let Some(rendered) = self.rendered()? else { return Ok(()) };
        let Some(pending) = self.memory.pending.take() else { return Ok(()) };
        let Some(UnwrittenToken { record, access_token, values }) = &pending.token else { return Ok(()) };
        let body = TargetSecret {
            name: &self.identity.target.name,
            record,
            rendered: &rendered,
            owner_reference: self.resolved.wanted.owner_reference,
        }
        .apply(seen.as_ref());
        let target = &self.identity.target;
        let writing = self.context.kubernetes.apply_secret(target, &body, false);
        match spans::within(spans::apply(target), writing).await {
            Ok(facts) => {
                self.context.secrets.observe(target, Some(facts));
                self.memory.write_allowed = true;
                self.memory.minted_with = pending.values.or(self.memory.minted_with);
                self.memory.failed = None;
                if let Some(prompt) = &mut self.memory.prompt {
                    prompt.written(Instant::now());
                }
                Ok(())
            }
            Err(error) => {
                let secrets = rendered.data.values().chain(values.values());
                let error = secrets.fold(without(error, access_token), without);
                self.memory.pending = Some(pending);
                match (error, self.context.secrets.known(&self.identity.target)) {
                    (CallError::AnotherType, Known::Present(facts)) => self.replace(&facts, false).await,
                    (error, _) => Err(self.write_failed(error, seen).await),
                }
            }
        }
    }

    /// Persists a refresh token that rotated. Until that has worked it is the only copy, and nothing is minted.
    pub(super) async fn save_refresh_token(&mut self) -> Result<(), Stop> {
        let Some(unsaved) = self.memory.pending.as_ref().and_then(|pending| pending.refresh_token.as_ref())
        else {
            return Ok(());
        };
        let key = self.identity.refresh_token.clone();
        let body = |seen: Option<&Version>| {
            RefreshTokenSecret {
                name: &key.name,
                source: &self.identity.key.name,
                refresh_token: &unsaved.value,
                seed_sha256: &unsaved.seed_sha256,
            }
            .apply(seen)
        };
        let kubernetes = &self.context.kubernetes;
        let saved = match kubernetes.apply_secret(&key, &body(unsaved.replaces.as_ref()), false).await {
            Err(CallError::Conflict) => match self.overwritable(&key, unsaved).await? {
                Overwritable::Yes(seen) => kubernetes.apply_secret(&key, &body(seen.as_ref()), false).await,
                Overwritable::Newer(facts) => Ok(facts),
            },
            other => other,
        };
        match saved.map_err(|error| without(error, &unsaved.value)) {
            Ok(facts) => {
                self.context.secrets.observe(&key, Some(facts));
                self.memory.pending =
                    self.memory.pending.take().filter(|pending| pending.token.is_some()).map(
                        |mut pending| {
                            pending.refresh_token = None;
                            pending
                        },
                    );
                Ok(())
            }
            Err(refused @ (CallError::Refused(_) | CallError::Immutable | CallError::AnotherType)) => {
                Err(Stop::target(
                    Reason::TargetRefused,
                    format!(
                        "the API server refuses to write Secret {}, which keeps the refresh token: {refused}",
                        key.name
                    ),
                ))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Somebody wrote the Secret with the refresh token meanwhile. It is overwritten if it still holds what was
    /// sent; else theirs is newer.
    async fn overwritable(&self, key: &Key, unsaved: &UnsavedRefreshToken) -> Result<Overwritable, Stop> {
        let Some(secret) = self.context.kubernetes.secret(key).await? else {
            return Ok(Overwritable::Yes(None));
        };
        let Some(facts) = Facts::of(&secret.metadata) else { return Ok(Overwritable::Yes(None)) };
        if !self.keeps_refresh_token(&facts) {
            return Err(Stop::target(
                Reason::TargetConflict,
                format!(
                    "Secret {} was created by somebody else just when a new refresh token was to be kept in it: delete it soon, because only this process holds that refresh token now",
                    key.name
                ),
            ));
        }
        let value = secret.data.unwrap_or_default().remove("refresh_token");
        let held = value.and_then(|value| String::from_utf8(value.0).ok()).map(SecretString::from);
        let still_what_was_sent = held.is_none_or(|held| sha256(&held) == unsaved.sent_sha256);
        if still_what_was_sent {
            Ok(Overwritable::Yes(Some(facts.version)))
        } else {
            warn!(source = %self.identity.key, secret = %key.name, "another process has saved a newer refresh token; it stays");
            Ok(Overwritable::Newer(facts))
        }
    }

    /// Writes record, label and ownerReference of the target again, and no token.
    pub(super) async fn restamp(&mut self) -> Result<(), Stop> {
        self.check_alive().await?;
        let Known::Present(facts) = self.known(&self.identity.target.clone()).await? else { return Ok(()) };
        let Some(record) = &facts.record else { return Ok(()) };
        let owner = &self.identity.owner;
        let stripped = self.resolved.wanted.owner_reference
            && facts.controller.is_none()
            && record.owner.uid == owner.uid;
        let disturbed = stripped || !facts.labelled;
        let record = record.restamped(owner.clone(), self.seen_as_minted().cloned());
        let body = restamp(&facts, &record, self.resolved.wanted.owner_reference);
        match self.context.kubernetes.restamp_secret(&self.identity.target, &body).await {
            Ok(written) => {
                info!(source = %self.identity.key, target = %self.identity.target.name, "record written again, without a mint");
                self.context.secrets.observe(&self.identity.target, Some(written));
                if disturbed {
                    let generation = self.source.metadata.generation.unwrap_or_default();
                    let again = Disturbance::again(self.mended(), self.context.now(), None);
                    self.memory.mended = Some(Box::new((generation, again)));
                }
                Ok(())
            }
            Err(error) => Err(self.write_failed(error, Some(facts.version.clone())).await),
        }
    }

    /// The body of a write that is only tried (`dryRun=All`): as the real one, but for the token.
    ///
    /// # Errors
    /// The template cannot be used.
    pub(super) fn rehearsal(&self, seen: Option<&Version>) -> Result<serde_json::Value, Stop> {
        let minted = Minted {
            issued_at: self.context.now(),
            expires_at: self.context.now(),
            token_id: "000000000000".into(),
            token_type: "Bearer".into(),
            scope: None,
            remarks: vec![],
        };
        let credentials = Version { uid: String::new(), resource_version: String::new() };
        let inputs = Inputs { provider: self.resolved.wanted.provider.clone(), credentials };
        let record = Record::new(self.identity.owner.clone(), inputs, None, minted, None);
        let values = &self.resolved.description.request.response.values;
        let values = values.keys().map(|name| (name.clone(), "1".into())).collect();
        let rendered = self.render(&record, &"dry-run".into(), &values)?;
        Ok(TargetSecret {
            name: &self.identity.target.name,
            record: &record,
            rendered: &rendered,
            owner_reference: self.resolved.wanted.owner_reference,
        }
        .apply(seen))
    }

    /// The template of the target, which has been tried with stand-ins.
    ///
    /// # Errors
    /// It cannot be used: only a change of the spec helps.
    pub(super) fn template(&self) -> Result<Template<'_>, Stop> {
        let spec = self.source.spec.target.as_ref().and_then(|target| target.template.as_ref());
        let values = &self.resolved.description.request.response.values;
        let values: Vec<&str> = values.keys().map(String::as_str).collect();
        Template::of(spec, &values)
            .map_err(|error| Stop::configuration(Reason::TemplateInvalid, error.to_string()))
    }

    /// What is pending, by the present template: it may have changed since the mint.
    fn rendered(&mut self) -> Result<Option<Rendered>, Stop> {
        let token = self.memory.pending.as_mut().and_then(|pending| pending.token.as_mut());
        let Some(token) = token else { return Ok(None) };
        token.record.template.clone_from(&self.resolved.wanted.template);
        let Some(pending) = &self.memory.pending else { return Ok(None) };
        let Some(UnwrittenToken { record, access_token, values }) = &pending.token else { return Ok(None) };
        self.render(record, access_token, values).map(Some)
    }

    fn render(
        &self,
        record: &Record,
        access_token: &SecretString,
        values: &BTreeMap<String, SecretString>,
    ) -> Result<Rendered, Stop> {
        let token = self.resolved.token(record, access_token, values);
        // With stand-ins it went well: something is amiss in this answer, and the next may be another.
        self.template()?
            .render(&token)
            .map_err(|error| Stop::unusable(Reason::TemplateInvalid, error.to_string()))
    }

    /// What a failed write of the target leads to.
    pub(super) async fn write_failed(&mut self, error: CallError, seen: Option<Version>) -> Stop {
        match error {
            CallError::Conflict | CallError::NotFound => {
                // Somebody was faster. Look again, and decide again with what is in memory.
                let key = self.identity.target.clone();
                match self.context.kubernetes.secret_facts(&key).await {
                    Ok(facts) => {
                        self.context.secrets.observe(&key, facts);
                        Stop::Again
                    }
                    Err(error) => error.into(),
                }
            }
            CallError::Refused(message) => {
                self.memory.write_allowed = false;
                self.refused_target(&message).of_target(seen)
            }
            CallError::Immutable => {
                self.memory.write_allowed = false;
                let name = &self.identity.target.name;
                let message = format!(
                    "the API server refuses to write Secret {name}: it is immutable; delete it, and it is made anew at once: kubectl -n {} delete secret {name}",
                    self.identity.target.namespace
                );
                // It stays so for as long as it is there.
                Stop::configuration(Reason::TargetRefused, message).of_target(seen)
            }
            // Asked again, with what is there now.
            CallError::AnotherType => Stop::Again,
            unavailable @ CallError::Unavailable(_) => unavailable.into(),
        }
    }

    /// Whether the target may be written: it is absent, or ours.
    fn target_is_ours(&self) -> bool {
        match self.context.secrets.known(&self.identity.target) {
            Known::Present(facts) => {
                let ownership = ownership(&facts, &self.identity.owner);
                !facts.terminating && matches!(ownership, Ownership::Ours | Ownership::Offered)
            }
            _ => true,
        }
    }

    fn target_is_offered(&self) -> bool {
        matches!(self.context.secrets.known(&self.identity.target), Known::Present(facts)
            if ownership(&facts, &self.identity.owner) == Ownership::Offered)
    }

    fn seen_target(&self) -> Option<Version> {
        match self.context.secrets.known(&self.identity.target) {
            Known::Present(facts) => Some(facts.version.clone()),
            _ => None,
        }
    }

    /// When the token of `record` is due for a refresh.
    pub(super) fn refresh_at(&self, now: Timestamp, record: &Record) -> Timestamp {
        crate::refresh::refresh_at(
            now,
            self.context.since,
            &self.identity.owner.uid,
            &self.resolved.policy,
            record,
        )
    }
}

/// What became of the Secret that a refresh token was to go into.
enum Overwritable {
    /// It can be written, if it is still in this state (`None`: absent).
    Yes(Option<Version>),
    /// It holds a newer one.
    Newer(Facts),
}

/// The error without `secret`, which an admission webhook may have quoted.
fn without(error: CallError, secret: &SecretString) -> CallError {
    use base64::Engine as _;
    let raw = secret.expose_secret();
    if raw.len() < 8 {
        // A constant of a template, or a value that tells nothing: to take it out would make the message unreadable.
        return error;
    }
    let encoded = base64::engine::general_purpose::STANDARD.encode(raw);
    let clean = |message: String| message.replace(&encoded, "[redacted]").replace(raw, "[redacted]");
    match error {
        CallError::Refused(message) => CallError::Refused(clean(message)),
        CallError::Unavailable(message) => CallError::Unavailable(clean(message)),
        other => other,
    }
}
