//! Asks for a token, and takes in what the request brought.

use std::sync::Arc;

use jiff::Timestamp;
use token_endpoint::Expedite;
use tokensource_api::Reason;

use super::super::observe::least_interval;
use super::super::reconciliation::{Reconciliation, Rest, Step};
use crate::cluster::CallError;
use crate::controller::context::Context;
use crate::controller::issuing::told;
use crate::controller::mint_queue::{MintRequest, MintResult};
use crate::controller::outcome::Outcome;
use crate::controller::state::{Restoration, SourceState};
use crate::refresh::MintReason;
use crate::status::{Problem, error_text, reason};
use crate::time::plus;

/// A TokenSource whose token request waits is reconciled again after this time, in seconds, to report why.
const MINTING_CHECK: u64 = 60;

/// Counts what others have changed as the cause of a token request. One that was not sent has not loaded the endpoint, and
/// the same change is to cause the next.
pub(crate) fn count_cause(context: &Context, state: &mut SourceState, result: &MintResult) {
    if let (Some(cause), Some((_, sent_at))) = (result.cause, result.sent_at) {
        let least = least_interval(context, cause);
        state.dampings.get_or_insert_default().of(cause).requested(least, sent_at);
    }
}

impl Reconciliation<'_> {
    /// Takes in the result of a token request, if there is one.
    pub(crate) fn take_result(&mut self) -> Result<(), Outcome> {
        let Some(result) = self.context.mints.take_result(&self.identity.key) else { return Ok(()) };
        if result.uid != self.identity.owner.uid {
            return Ok(()); // a token for an object of this name that is gone
        }
        count_cause(self.context, self.state, &result);
        let MintResult { reason, cause, sent_at, tried, credentials, original, outcome, .. } = result;
        self.state.seen_credentials = credentials.or(self.state.seen_credentials.take());
        self.state.original = original.or(self.state.original.take());
        if let Some((sent_at, _)) = sent_at
            && reason.restores()
            && (self.state.restored_by_token().is_some() || self.reported.has_token)
        {
            let again = Restoration::again(self.state.restored_by_token(), sent_at, self.other_writer());
            self.state.restored.get_or_insert_default().by_token = Some(again);
        }
        match outcome {
            Ok(token) => {
                self.state.pending = Some(token);
                Ok(())
            }
            Err(Outcome::Failed(attempt)) => {
                self.failed(attempt, tried, cause);
                Ok(())
            }
            Err(unanswered @ Outcome::ApiServer(_)) => Err(unanswered),
            // Decided again, with what is there now.
            Err(Outcome::Retry | Outcome::Gone | Outcome::NotLeading | Outcome::Outdated) => Ok(()),
        }
    }

    /// Queues a token request, when it is known that the API server would accept the write.
    pub(crate) async fn request_token(&mut self, reason: MintReason) -> Result<Step, Outcome> {
        if !self.context.leadership.may_start() {
            return Err(Outcome::NotLeading);
        }
        self.template()?;
        self.check_write(reason).await?;
        self.queue(reason);
        Ok(Step::Rest(Rest { until: self.minting_check(), problem: None, is_quiet: true }))
    }

    /// Waits for a token request that waits itself, or is in flight.
    pub(crate) fn wait_for_token(&mut self, reason: MintReason) -> Step {
        if !self.context.mints.has_begun(&self.identity.key) {
            // The endpoint may be another one by now.
            self.queue(reason);
        }
        let problem = self.failing().or_else(|| self.doubt()).or_else(|| self.open_circuit());
        Step::rest(self.minting_check(), problem)
    }

    /// When to reconcile again while a token request waits.
    fn minting_check(&self) -> Option<Timestamp> {
        Some(plus(self.context.now(), MINTING_CHECK))
    }

    fn queue(&mut self, reason: MintReason) {
        let request = MintRequest {
            reason,
            cause: self.cause.take(),
            policy: self.spec.policy,
            expedite: self.expedite(),
            original: self.state.original.clone(),
        };
        let deadline = self.context.deadline(&self.spec.policy, self.record().as_deref());
        let to = self.context.destination(self.spec);
        self.context.mints.request(&self.identity.key, request, to, deadline);
    }

    /// Why a token request waits whose client has never succeeded, and was refused several times.
    fn doubt(&self) -> Option<Problem> {
        let error = self.context.mints.limiter().doubt(&self.identity.key)?;
        let message = format!(
            "{}; several requests with these credentials were refused and none has succeeded, so that one is sent every 2 min",
            error_text(&error)
        );
        Some(told(self.spec, Problem { reason: reason(error.lasting_kind()), message, passes: true }))
    }

    /// Why a token request waits whose endpoint fails for all of its namespace.
    fn open_circuit(&self) -> Option<Problem> {
        let to = self.context.destination(self.spec);
        let circuit = self.context.mints.circuit(&self.identity.key, to)?;
        let problem =
            Problem { reason: Reason::EndpointUnavailable, message: circuit.to_string(), passes: true };
        Some(told(self.spec, problem))
    }

    /// What has changed since the last attempt failed.
    fn expedite(&self) -> Option<Expedite> {
        let failed = self.state.failed.as_ref()?;
        if failed.failure.tried.is_asked_otherwise(&self.spec.tried(None)) {
            return Some(Expedite::Asked);
        }
        failed.values_changed.then_some(Expedite::ChangedValues)
    }

    /// Before the first token request, one after a failure, and one that creates the Secret: does the TokenSource still exist, and
    /// would the API server accept the write? A quota, a policy or an immutable Secret then costs no token.
    async fn check_write(&mut self, reason: MintReason) -> Result<(), Outcome> {
        if self.state.write_allowed && !reason.restores() && reason != MintReason::TemplateChanged {
            return Ok(());
        }
        self.check_alive().await?;
        let target = self.target();
        let version = target.as_ref().map(|facts| facts.version.clone());
        let body = self.dry_run_body(version.as_ref())?;
        let tried = self.context.kubernetes.apply_secret(&self.identity.target, &body, true).await;
        match (tried, target) {
            (Err(CallError::AnotherType), Some(target)) => {
                self.replace(&Arc::clone(&target), true).await?;
            }
            (Err(error), _) => return Err(self.call_failed(error, version).await),
            (Ok(_), _) => {}
        }
        self.state.write_allowed = true;
        Ok(())
    }

    /// Stops if the TokenSource is gone, going, or another object by now: then nothing is restored. Or if it has another spec
    /// than the watch has shown.
    pub(crate) async fn check_alive(&self) -> Result<(), Outcome> {
        let (identity, cached) = (self.identity, self.source.metadata.generation.unwrap_or_default());
        match self.context.kubernetes.source_generation(&identity.key, &identity.owner.uid).await? {
            None => Err(Outcome::Gone),
            Some(generation) if generation != cached => Err(Outcome::Outdated),
            Some(_) => Ok(()),
        }
    }
}
