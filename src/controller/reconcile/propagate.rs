//! Prompt propagation: requests a round through the pods that mount the target, and handles its result.

use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::reconciliation::Reconciliation;

impl Reconciliation<'_> {
    /// Handles the result of a round, if there is one.
    pub(super) fn settle_propagation(&mut self) {
        let Some(round) = self.context.rounds.take(&self.identity.key) else { return };
        if let Some(message) = &round.failed {
            self.context.metrics.prompt_failed();
            warn!(source = %self.identity.key, error = %message, "pods could not be annotated after the new token");
        }
        if let Some(prompt) = &mut self.state.prompt {
            prompt.settle(round, Instant::now());
        }
    }

    /// Requests a round where one is due. Neither tokens nor status wait for it.
    pub(super) fn propagate(&mut self) {
        let has_token = self.record().is_some();
        let Some(prompt) = &mut self.state.prompt else { return };
        if !prompt.is_due(Instant::now()) {
            return;
        }
        if has_token {
            prompt.requested(Instant::now());
            self.context.rounds.request(&self.identity.key, &self.identity.target);
        } else {
            prompt.forget();
        }
    }

    /// The time until the next round is due.
    pub(super) fn next_propagation(&self) -> Option<Duration> {
        let at = self.state.prompt.as_ref()?.next()?;
        Some(at.saturating_duration_since(Instant::now()))
    }
}
