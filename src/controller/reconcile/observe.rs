//! What is known of a TokenSource and its Secrets, and what follows from it.

use std::sync::Arc;

use jiff::Timestamp;

use super::reconciliation::Reconciliation;
use crate::cluster::CallError;
use crate::controller::refresh_token::stores_refresh_token_of;
use crate::controller::state::Restoration;
use crate::refresh::{Decision, Observed, decide};
use crate::secret::{Facts, Record, Version};
use crate::time::plus;

impl Reconciliation<'_> {
    /// Reads the metadata of Secrets that the watch has not shown yet: those of a new TokenSource.
    pub(super) async fn observe(&self) -> Result<(), CallError> {
        let refresh_token = self.spec.sends_refresh_token().then_some(&self.identity.refresh_token);
        for key in [&self.identity.target, &self.identity.credentials].into_iter().chain(refresh_token) {
            self.context.secrets.known_or_read(key, &self.context.kubernetes).await?;
        }
        Ok(())
    }

    /// Decides from what is known; `None` where something is not known yet.
    pub(super) fn decide(&mut self) -> Option<Decision> {
        self.forget_what_is_written();
        let known = |key| self.context.secrets.known(key).observed();
        let target = known(&self.identity.target)?;
        let credentials = known(&self.identity.credentials)?.filter(|facts| self.context.may_use(facts));
        let refresh_token =
            if self.spec.sends_refresh_token() { known(&self.identity.refresh_token)? } else { None };
        let foreign_refresh_token =
            refresh_token.as_deref().is_some_and(|facts| !stores_refresh_token_of(facts, &self.identity.key));
        let credentials = credentials.map(|facts| self.spec.credentials_version(&facts.version));
        let credentials = credentials.as_ref();
        let tried = self.spec.tried(credentials);
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
            pending: self.state.pending_for_decision(),
            unsaved_refresh_token: self.context.saver.holds(&self.identity.key),
            predecessor_until: refresh_token.and_then(|facts| self.predecessor_until(&facts)),
            restored_at: self.state.restored.as_ref().map(|restored| restored.at),
            metadata_restored_at: self.metadata_restored().map(|restored| restored.at),
            since: self.context.since,
        };
        Some(decide(self.context.now(), &observed, &tried))
    }

    /// A write whose answer was lost may have happened: its token need not stay in memory. Nor need one that another
    /// process has outrun: it led meanwhile, and what it wrote is newer.
    fn forget_what_is_written(&mut self) {
        let Some(token) = &self.state.pending else { return };
        let template = &self.spec.wanted.template;
        let is_done = self.record().is_some_and(|written| {
            if written.token_id == token.record.token_id {
                written.template == *template && !token.record.cached
            } else {
                token.replaces.as_ref() != Some(&written.token_id)
            }
        });
        if is_done {
            self.state.pending = None;
        }
    }

    /// Until when another process may hold the next refresh token.
    fn predecessor_until(&self, refresh_token: &Facts) -> Option<Timestamp> {
        let key = &self.identity.refresh_token;
        let wait = self.context.refresh_tokens.wait_for_predecessor(key, refresh_token)?;
        Some(plus(self.context.now(), wait.as_secs().saturating_add(1)))
    }

    /// The target, if it exists.
    pub(super) fn target(&self) -> Option<Arc<Facts>> {
        self.context.secrets.known(&self.identity.target).present()
    }

    /// The record on the target, where that is ours.
    pub(super) fn record(&self) -> Option<Arc<Record>> {
        self.context.record(self.identity)
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
        let (generation, restored) = self.state.metadata_restored.as_deref()?;
        (Some(*generation) == self.source.metadata.generation).then_some(restored)
    }
}
