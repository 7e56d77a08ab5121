//! Other writers of the target: a Secret of another type, of another owner, or one that is changed again and again.

use jiff::Timestamp;
use tokensource_api::Reason;
use tokensource_api::permitted::is_permitted_type;
use tracing::info;

use super::super::reconciliation::Reconciliation;
use crate::controller::outcome::Outcome;
use crate::controller::state::Restoration;
use crate::refresh::Cause;
use crate::secret::{ADOPT_ANNOTATION, Facts, Ownership, ownership};
use crate::status::Problem;
use crate::text::shown;

impl Reconciliation<'_> {
    /// Deletes a target of another type, so that it is created anew with the token in memory: a Secret's type cannot be
    /// changed. With `dry_run`, only checks that it may be deleted.
    ///
    /// # Errors
    /// The Secret holds what is not ours, or the API server refuses.
    pub(crate) async fn replace(&mut self, seen: &Facts, dry_run: bool) -> Result<(), Outcome> {
        let is_ours = ownership(seen, &self.identity.owner) == Ownership::Ours && seen.record.is_some();
        if !is_ours || seen.rare().other_writer.is_some() {
            return Err(self.irreplaceable(seen, is_ours).await?);
        }
        let key = &self.identity.target;
        if let Err(error) = self.context.kubernetes.delete_secret(key, &seen.version, dry_run).await {
            return Err(self.call_failed(error, Some(seen.version.clone())).await);
        }
        if !dry_run {
            info!(source = %self.identity.key, target = %key.name, "target deleted, because its type changes");
            self.context.secrets.read_facts(key, &self.context.kubernetes).await?;
        }
        Ok(())
    }

    /// Why a Secret of another type stays as it is.
    async fn irreplaceable(&self, seen: &Facts, is_ours: bool) -> Result<Outcome, Outcome> {
        let name = &self.identity.target.name;
        let secret = self.context.kubernetes.secret(&self.identity.target).await?;
        let kind = secret.and_then(|secret| secret.type_).unwrap_or_default();
        let shown_kind = shown(&kind);
        let (reason, why) = match &seen.rare().other_writer {
            Some(other) if is_ours => (
                Reason::TargetRefused,
                format!("and it holds keys that are not this operator's (the last were written by {other})"),
            ),
            _ => (Reason::TargetConflict, "and it was handed over, not made by this operator".to_owned()),
        };
        let remedy = if is_permitted_type(&kind) {
            "write this type in spec.target.template.type, or delete"
        } else {
            "delete"
        };
        let message = format!(
            "Secret {name} is of type {shown_kind}, which cannot be changed without deleting it, {why}: {remedy} the Secret, if nobody needs it"
        );
        Ok(Outcome::configuration(reason, message).of_target(Some(seen.version.clone())))
    }

    /// The last other writer of data in the target, where it is known.
    pub(crate) fn other_writer(&self) -> Option<Box<str>> {
        self.target().and_then(|target| target.rare().other_writer.clone())
    }

    /// A token is needed because others have changed something again, just after they had done so before.
    pub(crate) fn held_back(&self, cause: Cause, until: Timestamp) -> Option<Problem> {
        match cause {
            Cause::Target => Some(self.conflicting(until)),
            Cause::Spec => Some(Problem {
                reason: Reason::Requesting,
                message: format!(
                    "the spec has changed again, so that the next token is requested at {until}"
                ),
                passes: true,
            }),
            Cause::Credentials | Cause::Request => None,
        }
    }

    /// The same, where the token in the target fits.
    pub(crate) fn held_remark(&self) -> Option<String> {
        let (cause, until) = self.held?;
        let what = match cause {
            Cause::Credentials => "the credentials have changed again",
            Cause::Request => "another token was requested just before",
            Cause::Target | Cause::Spec => return None,
        };
        Some(format!("{what}, so that the next token is requested at {until}"))
    }

    /// The target was restored just now, and was changed again: it waits.
    fn conflicting(&self, until: Timestamp) -> Problem {
        let name = &self.identity.target.name;
        let by = self.other_writer();
        let did = if self.target().is_some() { "changed" } else { "deleted" };
        let message = format!(
            "Secret {name} was {did} again by {} after it had been restored; it is restored next at {until}, and less often the more often that happens: let only one of them write it",
            writer(by.as_deref()),
        );
        Problem { reason: Reason::ConflictingWriter, message, passes: true }
    }

    /// What people should know of a target that holds a token, but not for long.
    pub(crate) fn repeated_conflict(&self) -> Option<String> {
        let now = self.context.now();
        let again = |it: &&Restoration| it.times > 1 && it.is_recent(now);
        let restored = self.state.restored_by_token().filter(again);
        let it = restored.or(self.metadata_restored().filter(again))?;
        let what = if restored.is_some() { "or deletes it" } else { "in its metadata" };
        Some(format!(
            "{} changes Secret {} {what} again and again ({} times, last restored at {}): let only one of them write it",
            writer(it.by.as_deref()),
            self.identity.target.name,
            it.times,
            it.at
        ))
    }

    /// What to do about a Secret that belongs to another owner.
    pub(crate) fn foreign_target(&self, whose: &str, adoptable: bool) -> String {
        let (namespace, name) = (&self.identity.target.namespace, &self.identity.target.name);
        let source = &self.identity.key.name;
        let remedy = if adoptable {
            format!(
                "hand it over, if it is yours (its other keys stay): kubectl -n {namespace} annotate secret {name} {ADOPT_ANNOTATION}={source}; or delete it if nobody needs it, or write another spec.target.name in a new TokenSource"
            )
        } else {
            // To delete the Secret alone would harm its owner, which would create it again.
            "write another spec.target.name in a new TokenSource".to_owned()
        };
        format!("Secret {name} exists and is not this TokenSource's: {whose}; {remedy}")
    }
}

fn writer(by: Option<&str>) -> String {
    by.map_or_else(|| "another writer".to_owned(), |by| format!("{by:?}"))
}
