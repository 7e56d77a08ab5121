//! Writes the token that a request brought. The saver has saved its refresh token before.

use std::collections::BTreeMap;

use secrecy::SecretString;
use tokensource_api::Reason;
use tokio::time::Instant;

use super::super::reconciliation::{Reconciliation, Step};
use crate::cluster::CallError;
use crate::controller::mint_queue::NewToken;
use crate::controller::outcome::Outcome;
use crate::controller::spans;
use crate::secret::{
    Inputs, Minted, Ownership, Record, Rendered, TargetSecret, Template, Version, ownership,
};
use crate::text::shown;

impl Reconciliation<'_> {
    pub(crate) async fn write(&mut self) -> Result<Step, Outcome> {
        let Some(mut token) = self.state.pending.take() else { return Ok(Step::Again) };
        if let Some(issuer) = &self.spec.issuer
            && !issuer.allows_granted(token.record.scope.as_deref())
        {
            // The issuer allows less than when the token came: it is dropped.
            return Err(Outcome::wider_than_allowed(&issuer.name));
        }
        let written = self.write_token(&mut token).await;
        if written.is_err() {
            self.state.pending = Some(token);
        }
        written.map(|()| Step::Again)
    }

    async fn write_token(&mut self, token: &mut NewToken) -> Result<(), Outcome> {
        let target = self.target();
        let ownership = target.as_ref().map(|target| ownership(target, &self.identity.owner));
        let is_ours = matches!(ownership, None | Some(Ownership::Ours | Ownership::Offered));
        if !is_ours || target.as_ref().is_some_and(|target| target.terminating) {
            // A Secret of this name was created while the token was requested: that is to be decided anew.
            return Err(Outcome::Retry);
        }
        if matches!(ownership, None | Some(Ownership::Offered)) {
            // The request took its time: for a TokenSource that has gone meanwhile nothing is created, and nothing taken
            // over that would then be garbage.
            self.check_alive().await?;
        }
        let seen = target.as_ref().map(|target| target.version.clone());
        // The template may have changed since.
        token.record.template.clone_from(&self.spec.wanted.template);
        let rendered = self.render(&token.record, &token.access_token, &token.values);
        token.is_unusable = rendered.is_err();
        let rendered = rendered?;
        let body = TargetSecret {
            name: &self.identity.target.name,
            record: &token.record,
            rendered: &rendered,
            owner_reference: self.spec.wanted.owner_reference,
            issuer: self.spec.issuer.as_ref().map(|issuer| &*issuer.name),
        }
        .apply(seen.as_ref());
        let key = &self.identity.target;
        let sent = self.context.secrets.sending(key);
        let writing = self.context.kubernetes.apply_secret(key, &body, false);
        let error = match spans::within(spans::apply(key), writing).await {
            Ok(facts) => {
                self.has_written(token);
                self.context.secrets.observe(key, sent, Some(facts));
                return Ok(());
            }
            Err(error) => error,
        };
        let secrets = [&token.access_token].into_iter().chain(rendered.data.values());
        let error = secrets.chain(token.values.values()).fold(error, CallError::without);
        Err(match (error, self.target()) {
            (CallError::AnotherType, Some(target)) => match self.replace(&target, false).await {
                Ok(()) => Outcome::Retry,
                Err(outcome) => outcome,
            },
            (error, _) => self.write_failed(error, seen).await,
        })
    }

    /// The target holds this token by a write of this process.
    pub(crate) fn has_written(&mut self, token: &NewToken) {
        self.context.issue_times.wrote(&self.identity.key, &token.record, token.rewound);
        self.state.write_allowed = true;
        self.state.minted_with = token.credentials.or(self.state.minted_with);
        self.state.failed = None;
        self.state.dampings.take_if(|dampings| dampings.forget_quiet(Instant::now()));
        if let Some(dampings) = &mut self.state.dampings {
            dampings.refresh_at = Some(self.context.clock.since(token.refresh_at, token.rewound));
        }
        if let Some(prompt) = &mut self.state.prompt {
            prompt.written(Instant::now());
        }
    }

    /// The body of a write that is only tried (`dryRun=All`): as the real one, but for the token.
    ///
    /// # Errors
    /// The template cannot be used.
    pub(crate) fn dry_run_body(&self, seen: Option<&Version>) -> Result<serde_json::Value, Outcome> {
        let minted = Minted {
            issued_at: self.context.now(),
            expires_at: self.context.now(),
            token_id: "000000000000".into(),
            token_type: "Bearer".into(),
            scope: None,
            lifetime_is_assumed: false,
            is_jwt: false,
            remarks: vec![],
        };
        let credentials = Version::of_nothing();
        let inputs = Inputs { provider: self.spec.wanted.provider.clone(), credentials };
        let record = Record::new(self.identity.owner.clone(), inputs, None, minted, None);
        let values = &self.spec.description.request.response.values;
        let values = values.keys().map(|name| (name.clone(), "1".into())).collect();
        let rendered = self.render(&record, &"dry-run".into(), &values)?;
        Ok(TargetSecret {
            name: &self.identity.target.name,
            record: &record,
            rendered: &rendered,
            owner_reference: self.spec.wanted.owner_reference,
            issuer: self.spec.issuer.as_ref().map(|issuer| &*issuer.name),
        }
        .apply(seen))
    }

    /// The template of the target, which has been tried with stand-ins.
    ///
    /// # Errors
    /// It cannot be used: only a change of the spec helps.
    pub(crate) fn template(&self) -> Result<Template<'_>, Outcome> {
        let template = self.source.spec.target.as_ref().and_then(|target| target.template.as_ref());
        let values = &self.spec.description.request.response.values;
        let values: Vec<&str> = values.keys().map(String::as_str).collect();
        Template::of(template, &values)
            .and_then(|template| template.limited_to(&self.context.template_metadata_only))
            .map_err(|error| Outcome::configuration(Reason::TemplateInvalid, error.to_string()))
    }

    fn render(
        &self,
        record: &Record,
        access_token: &SecretString,
        values: &BTreeMap<String, SecretString>,
    ) -> Result<Rendered, Outcome> {
        let token = self.spec.token(record, access_token, values);
        // With stand-ins it went well: something is wrong with this response, and the next may be another.
        self.template()?
            .render(&token)
            .map_err(|error| Outcome::unusable(Reason::TemplateInvalid, error.to_string()))
    }

    /// What a failed call about the target leads to that does not send a token: what an admission webhook quotes may be what the
    /// target holds.
    pub(crate) async fn call_failed(&mut self, error: CallError, seen: Option<Version>) -> Outcome {
        let CallError::Refused(_) = error else { return self.write_failed(error, seen).await };
        let error = match self.context.kubernetes.secret(&self.identity.target).await {
            Ok(target) => {
                let data = target.and_then(|target| target.data).unwrap_or_default();
                let values = data.into_values().filter_map(|value| String::from_utf8(value.0).ok());
                values.map(SecretString::from).fold(error, |error, value| error.without(&value))
            }
            Err(_) => CallError::Refused(
                "for a reason that is not shown, because the Secret that it may quote cannot be read"
                    .to_owned(),
            ),
        };
        self.write_failed(error, seen).await
    }

    /// What a failed write of the target leads to.
    pub(crate) async fn write_failed(&mut self, error: CallError, seen: Option<Version>) -> Outcome {
        let name = &self.identity.target.name;
        match error {
            CallError::Conflict | CallError::NotFound => {
                // Another writer was faster: decide again with what is there now, and with what is in memory.
                let key = &self.identity.target;
                match self.context.secrets.read_facts(key, &self.context.kubernetes).await {
                    Ok(_) => Outcome::Retry,
                    Err(error) => error.into(),
                }
            }
            CallError::Refused(message) => {
                self.state.write_allowed = false;
                let message = format!("the API server refuses to write Secret {name}: {}", shown(&message));
                Outcome::passing(Reason::TargetRefused, message).of_target(seen)
            }
            CallError::Immutable => {
                self.state.write_allowed = false;
                let message = format!(
                    "the API server refuses to write Secret {name}: it is immutable; delete it, and it is made anew at once (kubectl -n {} delete secret {name}); then restart the pods that mount it, because the kubelet does not look at an immutable Secret again",
                    self.identity.target.namespace
                );
                // It stays so for as long as it is there.
                Outcome::configuration(Reason::TargetRefused, message).of_target(seen)
            }
            // Decided again, with what is there now.
            CallError::AnotherType => Outcome::Retry,
            other @ (CallError::Unavailable(_) | CallError::TooLarge(_)) => other.into(),
        }
    }
}
