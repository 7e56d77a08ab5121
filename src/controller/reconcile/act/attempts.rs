//! Attempts that failed or that are blocked: how long to wait, and what to report.

use std::sync::Arc;

use jiff::Timestamp;
use token_endpoint::Class;
use tokensource_api::Reason;
use tracing::warn;

use super::super::reconciliation::Reconciliation;
use crate::controller::credentials::not_usable;
use crate::controller::failed_attempts::FailedAttempts;
use crate::controller::issuing::told;
use crate::controller::outcome::Attempt;
use crate::controller::refresh_token::announcer;
use crate::providers::CredentialsError;
use crate::refresh::{Blocked, Cause, FailedAttempt, Failure, Tried, wait};
use crate::secret::{Record, Version};
use crate::status::Problem;
use crate::time::plus;

/// The wait before the next attempt after a failure that ends without a trigger, in seconds: the addresses of a name,
/// another TokenSource's refresh token.
const UNWATCHED_RETRY: u64 = 5 * 60;

impl Reconciliation<'_> {
    /// What blocks the next attempt.
    pub(crate) fn blocked(&mut self, blocked: Blocked) -> Problem {
        let target = &self.identity.target.name;
        let passes = blocked == Blocked::AwaitingDeletion;
        let (reason, message) = match blocked {
            Blocked::Conflict { whose, adoptable } => {
                (Reason::TargetConflict, self.foreign_target(&whose, adoptable))
            }
            Blocked::AwaitingDeletion => (
                Reason::TargetConflict,
                format!("Secret {target} is being deleted; it will be created again when it has gone"),
            ),
            Blocked::ForeignRefreshToken => (
                Reason::TargetConflict,
                format!(
                    "Secret {} is where the refresh token of this TokenSource would be kept, but this operator did not create it for this TokenSource: delete it if nobody needs it, or give the TokenSource another name",
                    self.identity.refresh_token.name
                ),
            ),
            Blocked::CredentialsMissing => {
                let key = self.identity.credentials.as_ref();
                match key.and_then(|key| Some((key, self.context.secrets.known(key).present()?))) {
                    Some((key, facts)) => (Reason::CredentialsInvalid, not_usable(key, &facts)),
                    None => {
                        let (spec, description) = (&self.source.spec.credentials, &self.spec.description);
                        let error = CredentialsError::secret_not_found(spec, description);
                        (error.reason(), error.to_string())
                    }
                }
            }
        };
        if !passes && self.state.blocked.replace(reason) != Some(reason) {
            warn!(source = %self.identity.key, host = self.spec.host(), %reason, error = %message, "token request blocked");
        }
        told(self.spec, Problem { reason, message, passes })
    }

    /// Another process may hold the next refresh token.
    pub(crate) fn handing_over(&self, until: Timestamp) -> Problem {
        let name = &self.identity.refresh_token.name;
        let facts = self.context.secrets.known(&self.identity.refresh_token).present();
        let process = facts.as_deref().map(announcer).unwrap_or_default();
        let message = format!(
            "another process of the operator ({process}) was about to send the refresh token, and may hold the next one: nothing is sent before {until}, unless that process saves it into Secret {name}"
        );
        Problem { reason: Reason::Requesting, message, passes: true }
    }

    /// The failed attempts as a problem, while they are why nothing happens.
    pub(crate) fn failing(&self) -> Option<Problem> {
        let failed = self.state.failed.as_ref()?;
        // A quota or a policy may let a write pass at the next attempt; where there is none, a person must act.
        let passes = failed.reason == Reason::TargetRefused && failed.failure.next_attempt_at.is_some();
        Some(Problem { reason: failed.reason, message: failed.message.clone(), passes })
    }

    /// Takes in a failed attempt. `tried` is what it was made with; `None`: with what is known now. `cause` is the change by
    /// others that caused it.
    pub(crate) fn failed(&mut self, attempt: Attempt, tried: Option<Tried>, cause: Option<Cause>) {
        let now = self.context.now();
        let tried = tried.unwrap_or_else(|| self.tried_now());
        let before = self.state.failed.as_deref();
        let count = FailedAttempts::count_with(before, &tried, cause, attempt.is_known);
        let fits = |record: &Arc<Record>| record.inputs.provider == self.spec.wanted.provider;
        let retry_after = attempt.retry_after.map(|wait| wait.as_secs());
        let held_back = attempt.held_back.map(|wait| wait.as_secs().saturating_add(1));
        let failed = FailedAttempt {
            class: attempt.class,
            count,
            retry_after,
            held_back,
            expires_at: self.record().filter(fits).map(|record| record.expires_at),
            propagation_delay: self.spec.policy.propagation_delay,
            may_be_spent: attempt.outcome_unknown && self.spec.sends_refresh_token(),
            uid: &self.identity.owner.uid,
        };
        let waits = wait(now, &failed);
        // A corrected spec need not wait where the operator's own wait is the longer one. After 429, that is only a guess.
        // The short waits of last attempts are not taken where an endpoint asks for one.
        let own =
            wait(now, &FailedAttempt { retry_after: None, held_back: None, may_be_spent: true, ..failed });
        let is_asked = retry_after > own.filter(|_| attempt.class != Class::Limited);
        // The server may have spent the refresh token: once more at once, while it may still remember the answer.
        let at_once = failed.may_be_spent && count == 1;
        let is_unwatched = matches!(attempt.reason, Reason::EndpointRefusedByPolicy | Reason::GrantRejected);
        let waits = if at_once { Some(1) } else { waits.or(is_unwatched.then_some(UNWATCHED_RETRY)) };
        let next_attempt_at = waits.map(|seconds| plus(now, seconds));
        let (source, host) = (&self.identity.key, self.spec.host());
        let next = next_attempt_at.map(tracing::field::display);
        let (reason, error) = (attempt.reason, &attempt.message);
        if matches!(reason, Reason::TargetRefused | Reason::KubernetesApiError) {
            // Perhaps the RoleBinding is gone.
            self.context.bindings.ask(&source.namespace);
        }
        if matches!(reason, Reason::TargetRefused | Reason::TargetConflict) {
            warn!(%source, host, %reason, %error, count, next_attempt_at = next, "token not written");
        } else {
            warn!(%source, host, %reason, %error, count, next_attempt_at = next, "token request failed");
        }
        let problem = Problem { reason, message: attempt.message, passes: false };
        let problem = if attempt.is_own { problem } else { told(self.spec, problem) };
        self.state.failed = Some(Box::new(FailedAttempts {
            failure: Failure {
                tried,
                failed_at: now,
                next_attempt_at,
                issuer_asks_to_wait: is_asked || attempt.class == Class::LockedOut,
                refused_target: attempt.refused_target,
            },
            count,
            values_changed: false,
            at: now,
            reason: problem.reason,
            message: problem.message,
        }));
    }

    /// What an attempt is made with that is made now. Of the credentials, the state that was read: they may have been
    /// corrected meanwhile.
    fn tried_now(&self) -> Tried {
        let read = self.state.seen_credentials.as_ref().map(|(version, _)| version);
        let Some(key) = &self.identity.credentials else {
            return self.spec.tried(Some(&Version::of_nothing()));
        };
        let credentials = self.context.secrets.known(key).present();
        let known = credentials.map(|facts| self.spec.credentials_version(&facts.version));
        self.spec.tried(known.as_ref().map(|known| read.unwrap_or(known)))
    }
}
