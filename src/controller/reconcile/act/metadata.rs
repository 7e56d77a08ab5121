//! Writes the metadata of the target again, and no token.

use tracing::info;

use super::super::reconciliation::{Reconciliation, Step};
use crate::controller::outcome::Outcome;
use crate::controller::state::Restoration;
use crate::secret::metadata_update;

impl Reconciliation<'_> {
    /// Writes record, label and ownerReference of the target.
    pub(crate) async fn update_metadata(&mut self) -> Result<Step, Outcome> {
        self.check_alive().await?;
        let Some(target) = self.target() else { return Ok(Step::Again) };
        let Some(record) = &target.record else { return Ok(Step::Again) };
        let owner = &self.identity.owner;
        let owner_reference = self.spec.wanted.owner_reference;
        let was_removed = owner_reference && target.controlled_by.is_none() && record.owner.uid == owner.uid;
        let is_conflict = was_removed || !target.labelled;
        let record = record.updated(owner.clone(), self.seen_as_minted().cloned());
        let body = metadata_update(&target, &record, owner_reference);
        let sent = self.context.secrets.sending(&self.identity.target);
        match self.context.kubernetes.update_secret_metadata(&self.identity.target, &body).await {
            Ok(written) => {
                info!(source = %self.identity.key, target = %self.identity.target.name, "metadata of the target updated, without a token request");
                self.context.secrets.observe(&self.identity.target, sent, Some(written));
                if is_conflict {
                    let generation = self.source.metadata.generation.unwrap_or_default();
                    let again = Restoration::again(self.metadata_restored(), self.context.now(), None);
                    self.state.restored.get_or_insert_default().metadata = Some((generation, again));
                }
                Ok(Step::Again)
            }
            Err(error) => Err(self.call_failed(error, Some(target.version.clone())).await),
        }
    }
}
