//! What is known of a TokenSource and its Secrets, and what follows from it.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokensource_api::Reason;
use tokio::time::Instant;

use super::reconciliation::Reconciliation;
use super::report::before;
use crate::cluster::{CallError, MAX_MANAGED_FIELDS_BYTES};
use crate::controller::context::Context;
use crate::controller::refresh_token::stores_refresh_token_of;
use crate::controller::state::Restoration;
use crate::refresh::{
    Cause, Caused, Decision, MIN_REFRESH_INTERVAL, MintReason, Observed, Policy, Tried, caused, decide,
};
use crate::secret::{Facts, Record, Version};
use crate::status::Problem;
use crate::time::plus;

impl Reconciliation<'_> {
    /// Reads the metadata of Secrets that the watch has not shown yet: those of a new TokenSource.
    pub(super) async fn observe(&self) -> Result<(), CallError> {
        let refresh_token = self.spec.sends_refresh_token().then_some(&self.identity.refresh_token);
        let credentials = self.identity.credentials.as_ref();
        for key in [Some(&self.identity.target), credentials, refresh_token].into_iter().flatten() {
            self.context.secrets.known_or_read(key, &self.context.kubernetes).await?;
        }
        Ok(())
    }

    /// Whether the target's metadata is too large to be read: it cannot be known then whose keys it holds.
    pub(super) fn unreadable_target(&self) -> Option<Problem> {
        let member = self.target()?.too_large?.path();
        let name = &self.identity.target.name;
        let message = format!(
            "{member} of Secret {name} has more than {} KiB as JSON, and such metadata is not read: remove the keys and owners that others have added, or delete the Secret",
            MAX_MANAGED_FIELDS_BYTES >> 10
        );
        Some(Problem { reason: Reason::TargetConflict, message, passes: false })
    }

    /// Decides from what is known; `None` where something is not known yet.
    pub(super) fn decide(&mut self) -> Option<Decision> {
        self.forget_what_is_written();
        let known = |key| self.context.secrets.known(key).observed();
        let target = known(&self.identity.target)?;
        if let Some(credentials) = &self.identity.credentials {
            known(credentials)?;
        }
        let credentials = self.context.credentials_version(self.identity, self.spec);
        let refresh_token =
            if self.spec.sends_refresh_token() { known(&self.identity.refresh_token)? } else { None };
        let foreign_refresh_token =
            refresh_token.as_deref().is_some_and(|facts| !stores_refresh_token_of(facts, &self.identity.key));
        let credentials = credentials.as_ref();
        let tried = self.spec.tried(credentials);
        let dated = self.context.record(self.identity);
        let observed = Observed {
            source: &self.identity.owner,
            deleting: self.source.metadata.deletion_timestamp.is_some(),
            suspended: self.source.spec.suspend == Some(true),
            policy: self.spec.policy,
            wanted: &self.spec.wanted,
            credentials,
            seen_credentials: self.state.seen_credentials.as_ref().map(|(version, _)| version),
            seen_as_minted: self.seen_as_minted().is_some(),
            target: target.as_deref(),
            foreign_refresh_token,
            failure: self.state.failed.as_deref().map(|failed| &failed.failure),
            minting: self.context.mints.is_minting(&self.identity.key),
            pending: self
                .state
                .pending_for_decision(self.spec.wanted.template.as_deref(), &self.context.clock),
            unsaved_refresh_token: self.context.saver.holds(&self.identity.key),
            predecessor_until: refresh_token.and_then(|facts| self.predecessor_until(&facts)),
            metadata_restored_at: self.metadata_restored().map(|restored| restored.at),
            dated: dated.as_ref(),
        };
        let now = self.context.now();
        let decision = decide(now, &observed, &tried);
        let Decision::Mint(reason) = decision else { return Some(decision) };
        let caused = caused(now, &observed, &tried, reason);
        let change = caused.and_then(|caused| self.change(caused.cause, &tried));
        Some(self.damped(reason, caused.zip(change)))
    }

    /// A digest of what others have changed; `None` where that is not damped.
    fn change(&mut self, cause: Cause, tried: &Tried) -> Option<u64> {
        match cause {
            // The first token, whose absence is not a change by others.
            Cause::Target if !self.has_had_token() => None,
            Cause::Target => {
                // Not its resourceVersion, which any label changes.
                let token = |target: &Facts| target.record.as_ref().map(|record| record.token_id.clone());
                let content =
                    |target: Arc<Facts>| (target.version.uid.clone(), target.owned_keys, token(&target));
                Some(digest(self.target().map(content)))
            }
            // Values that were read, and that cannot be used, cause no request.
            Cause::Credentials
                if self.state.seen_credentials.as_ref().is_some_and(|(_, values)| values.is_none()) =>
            {
                None
            }
            Cause::Credentials => Some(digest(&tried.credentials)),
            Cause::Request => Some(digest(&tried.request)),
            Cause::Spec => Some(digest(&tried.spec)),
        }
    }

    fn has_had_token(&mut self) -> bool {
        self.state.restored_by_token().is_some() || before(self.source, self.reported, self.state).has_token
    }

    /// The token request, unless it is caused by a change that came too soon after the one before. That delays it at most
    /// until it is made in any case.
    fn damped(&mut self, reason: MintReason, caused: Option<(Caused, u64)>) -> Decision {
        self.cause = None;
        let Some((Caused { cause, in_any_case_at }, change)) = caused else { return Decision::Mint(reason) };
        let is_failing = self.state.failed.is_some();
        let least = least_interval(self.context, cause);
        let (now, least) = (self.context.now(), with_issuer(least, cause, &self.spec.policy, is_failing));
        let dampings = self.state.dampings.get_or_insert_default();
        let refresh_at = dampings.refresh_at;
        let is_overdue = refresh_at.is_some_and(|at| at <= now);
        if is_overdue && !is_failing {
            return Decision::Mint(reason);
        }
        let Some(until) = dampings.of(cause).holds(change, least, is_overdue, Instant::now()) else {
            self.cause = Some(cause);
            return Decision::Mint(reason);
        };
        let until = plus(now, until.saturating_duration_since(Instant::now()).as_secs().saturating_add(1));
        let refresh_at = refresh_at.filter(|_| !is_overdue);
        Decision::Held(cause, [in_any_case_at, refresh_at].into_iter().flatten().fold(until, Timestamp::min))
    }

    /// A write whose answer was lost may have happened: its token need not stay in memory. Nor need one that another
    /// process has outrun, which led meanwhile, or leads now. But a former leader may write late what it requested before.
    fn forget_what_is_written(&mut self) {
        let Some(token) = self.state.pending.take() else { return };
        // The whole record: an issuer may have returned the token that the target held already. Within one second, even that is
        // the same.
        let is_written = self.target_is_intact()
            && self.target().is_some_and(|target| target.record.as_deref() == Some(&token.record));
        if is_written && token.record.template == self.spec.wanted.template {
            return self.has_written(&token);
        }
        let is_outrun = self.record().is_some_and(|written| {
            let is_newer = written.issued_at >= token.record.issued_at;
            written.token_id != token.record.token_id
                && token.replaces.as_ref() != Some(&written.token_id)
                && (is_newer || !self.context.leadership.may_start())
        });
        if !is_outrun {
            self.state.pending = Some(token);
        }
    }

    /// Until when another process may hold the next refresh token.
    fn predecessor_until(&self, refresh_token: &Facts) -> Option<Timestamp> {
        let key = &self.identity.key;
        let wait = self.context.refresh_tokens.wait_for_predecessor(key, refresh_token)?;
        Some(plus(self.context.now(), wait.as_secs().saturating_add(1)))
    }

    /// The target, if it exists.
    pub(super) fn target(&self) -> Option<Arc<Facts>> {
        self.context.secrets.known(&self.identity.target).present()
    }

    /// The record on the target, where that is ours, with its times by the corrected clock.
    pub(super) fn record(&self) -> Option<Arc<Record>> {
        self.context.record(self.identity).map(|dated| dated.record)
    }

    /// Whether no other writer has changed or removed what was written into the target.
    pub(super) fn target_is_intact(&self) -> bool {
        self.target().is_some_and(|target| target.owned_keys == self.spec.wanted.keys)
    }

    /// The state of the credentials Secret that was last read, if its values are those that the token in the target
    /// was requested with.
    pub(super) fn seen_as_minted(&self) -> Option<&Version> {
        let (version, digest) = self.state.seen_credentials.as_ref()?;
        (digest.is_some() && *digest == self.state.minted_with).then_some(version)
    }

    /// When the target's metadata was last restored; a changed spec is no conflict.
    pub(super) fn metadata_restored(&self) -> Option<&Restoration> {
        let (generation, restored) = self.state.restored.as_ref()?.metadata.as_ref()?;
        (Some(*generation) == self.source.metadata.generation).then_some(restored)
    }
}

/// The shortest time between two token requests for this cause.
pub(super) fn least_interval(context: &Context, cause: Cause) -> Duration {
    match cause {
        Cause::Target => Duration::from_secs(MIN_REFRESH_INTERVAL),
        Cause::Credentials | Cause::Request | Cause::Spec => context.change_interval,
    }
}

/// The same, with the shortest time between two tokens that an issuer allows. What changes its credentials is the platform, and
/// an attempt that failed brought no token.
fn with_issuer(least: Duration, cause: Cause, policy: &Policy, is_failing: bool) -> Duration {
    match cause {
        Cause::Target | Cause::Request | Cause::Spec if !is_failing => {
            least.max(Duration::from_secs(policy.min_interval))
        }
        _ => least,
    }
}

fn digest(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interval_of_an_issuer_bounds_tokens_that_its_tenants_cause_and_no_rotation_and_no_repair() {
        let seconds = Duration::from_secs;
        let policy =
            |min_interval| Policy { before: None, max_interval: 3600, propagation_delay: 90, min_interval };
        for (cause, own, of_issuer) in [
            (Cause::Target, 30, 600),
            (Cause::Request, 5, 600),
            (Cause::Spec, 5, 600),
            (Cause::Credentials, 5, 5),
        ] {
            let least = |min_interval, is_failing| {
                with_issuer(seconds(own), cause, &policy(min_interval), is_failing)
            };
            assert_eq!(least(0, false), seconds(own), "{cause:?}");
            assert_eq!(least(600, false), seconds(of_issuer), "{cause:?}");
            assert_eq!(least(600, true), seconds(own), "{cause:?}");
        }
    }
}
