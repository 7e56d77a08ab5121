//! Prompt propagation: requests a round through the pods that mount the target, and handles its result.

use std::time::Duration;

use tokio::time::Instant;
use tracing::warn;

use super::reconciliation::Reconciliation;
use crate::controller::context::Context;
use crate::controller::propagation::Prompt;
use crate::key::Key;

/// Takes in the result of a round, if there is one. Before all else: the schedule depends on whether pods can be annotated.
pub(super) fn settle(context: &Context, source: &Key, prompt: &mut Prompt) {
    let Some((requested_at, round)) = context.rounds.take(source) else { return };
    if let Some(message) = &round.failed {
        context.metrics.prompt_failed();
        warn!(%source, error = %message, "pods could not be annotated after the new token");
    }
    prompt.settle(requested_at, round, Instant::now());
}

impl Reconciliation<'_> {
    /// Requests a round where one is due. Neither tokens nor status wait for it.
    pub(super) fn propagate(&mut self) {
        let has_token = self.record().is_some();
        let Some(prompt) = &mut self.state.prompt else { return };
        if !prompt.is_due(Instant::now()) {
            return;
        }
        if has_token {
            let now = Instant::now();
            prompt.requested(now);
            self.context.rounds.request(&self.identity.key, &self.identity.target, now);
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
