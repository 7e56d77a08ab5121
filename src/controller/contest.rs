//! Other writers of the target: what is done where its type is another, and what people are told where somebody
//! changes it again and again.

use tracing::info;

use super::cache::secrets::Known;
use super::memory::Disturbance;
use super::reconcile::Pass;
use super::stop::Stop;
use crate::refresh::MIN_REFRESH_INTERVAL;
use crate::secret::{ADOPT_ANNOTATION, Facts, Ownership, ownership};
use crate::status::Problem;
use crate::time::plus;
use tokensource_api::Reason;
use tokensource_api::permitted::is_type;

impl Pass<'_> {
    /// The type of a Secret cannot be changed: it is deleted, to be created anew with the token that is in memory.
    /// With `dry_run` only says whether that could be done.
    ///
    /// # Errors
    /// The Secret holds what is not ours, or the API server refuses; and, when it is deleted, [`Stop::Again`].
    pub(super) async fn replace(&mut self, seen: &Facts, dry_run: bool) -> Result<(), Stop> {
        let key = self.identity.target.clone();
        let ours = ownership(seen, &self.identity.owner) == Ownership::Ours && seen.record.is_some();
        if !ours || seen.other_writer.is_some() {
            return Err(self.irreplaceable(seen, ours).await?);
        }
        if let Err(error) = self.context.kubernetes.delete_secret(&key, &seen.version, dry_run).await {
            return Err(self.write_failed(error, Some(seen.version.clone())).await);
        }
        if dry_run {
            return Ok(());
        }
        info!(source = %self.identity.key, target = %key.name, "deleted, because its type is to be another");
        let left = self.context.kubernetes.secret_facts(&key).await?;
        self.context.secrets.observe(&key, left);
        Err(Stop::Again)
    }

    /// Why a Secret of another type stays as it is.
    async fn irreplaceable(&self, seen: &Facts, ours: bool) -> Result<Stop, Stop> {
        let name = &self.identity.target.name;
        let secret = self.context.kubernetes.secret(&self.identity.target).await?;
        let kind = secret.and_then(|secret| secret.type_).unwrap_or_default();
        let (reason, why) = match &seen.other_writer {
            Some(other) if ours => (
                Reason::TargetRefused,
                format!("and it holds keys that are not this operator's (the last were written by {other})"),
            ),
            _ => (Reason::TargetConflict, "and it was handed over, not made by this operator".to_owned()),
        };
        let remedy =
            if is_type(&kind) { "write this type in spec.target.template.type, or delete" } else { "delete" };
        let message = format!(
            "Secret {name} is of type {kind}, which cannot be changed without deleting it, {why}: {remedy} the Secret, if nobody needs it"
        );
        Ok(Stop::configuration(reason, message).of_target(Some(seen.version.clone())))
    }

    /// Who else wrote data into the target last, where it tells.
    pub(super) fn other_writer(&self) -> Option<Box<str>> {
        match self.context.secrets.known(&self.identity.target) {
            Known::Present(facts) => facts.other_writer.clone(),
            _ => None,
        }
    }

    /// When the target's metadata was last put right; a changed spec is nobody's interference.
    pub(super) fn mended(&self) -> Option<&Disturbance> {
        let (generation, mended) = self.memory.mended.as_deref()?;
        (Some(*generation) == self.source.metadata.generation).then_some(mended)
    }

    /// The target was put right just now, and is wrong again: it waits.
    pub(super) fn contested(&self) -> Option<Problem> {
        let healed = self.memory.healed.as_deref()?;
        let name = &self.identity.target.name;
        let by = self.other_writer();
        let did = match self.context.secrets.known(&self.identity.target) {
            Known::Present(_) => "changed",
            _ => "deleted",
        };
        let message = format!(
            "Secret {name} was {did} again by {} after it had been put right; it is put right every {MIN_REFRESH_INTERVAL} s at most, next at {}: let only one of them write it",
            somebody(by.as_deref()),
            plus(healed.at, MIN_REFRESH_INTERVAL),
        );
        Some(Problem { reason: Reason::ConflictingWriter, message, passes: true })
    }

    /// What people should know of a target that holds a token, but not for long.
    pub(super) fn unrest(&self) -> Option<String> {
        let now = self.context.now();
        let again = |it: &&Disturbance| it.times > 1 && it.is_recent(now);
        let healed = self.memory.healed.as_deref().filter(again);
        let it = healed.or(self.mended().filter(again))?;
        let what = if healed.is_some() { "or deletes it" } else { "in its metadata" };
        Some(format!(
            "{} changes Secret {} {what} again and again ({} times, last put right at {}): let only one of them write it",
            somebody(it.by.as_deref()),
            self.identity.target.name,
            it.times,
            it.at
        ))
    }

    /// What to do about a Secret that is somebody else's.
    pub(super) fn conflict(&self, whose: &str, adoptable: bool) -> String {
        let (namespace, name) = (&self.identity.target.namespace, &self.identity.target.name);
        let source = &self.identity.key.name;
        let remedy = if adoptable {
            format!(
                "hand it over, if it is yours (its other keys stay): kubectl -n {namespace} annotate secret {name} {ADOPT_ANNOTATION}={source}; or delete it if nobody needs it, or write another spec.target.name in a new TokenSource"
            )
        } else {
            // To delete the Secret alone would harm its owner, who would make it again.
            "write another spec.target.name in a new TokenSource".to_owned()
        };
        format!("Secret {name} exists and is not this TokenSource's: {whose}; {remedy}")
    }
}

fn somebody(by: Option<&str>) -> String {
    by.map_or_else(|| "somebody".to_owned(), |by| format!("{by:?}"))
}
