//! The credentials Secret moved: did its values?

use super::super::reconciliation::{Reconciliation, Step};
use crate::controller::credentials;
use crate::controller::outcome::Outcome;

impl Reconciliation<'_> {
    pub(crate) async fn compare_credentials(&mut self) -> Result<Step, Outcome> {
        let read = credentials::read(self.context, self.source, self.identity, self.spec).await;
        let (version, digest) = match read {
            Ok(read) => (read.version, Some(self.context.mints.limiter().digest(&read.credentials))),
            // What is wrong with them is for the token request to report.
            Err((Some(version), Outcome::Failed(_))) => (version, None),
            Err((_, outcome)) => return Err(outcome),
        };
        let before = self.state.seen_credentials.replace((version.clone(), digest));
        if let Some(failed) = &mut self.state.failed {
            failed.values_changed |= before.as_ref().is_some_and(|(_, before)| *before != digest);
        }
        let Some(digest) = digest else { return Ok(Step::Again) };
        // What failed with these values is no reason to try them again.
        let same_before = before.filter(|(_, before)| *before == Some(digest)).map(|(version, _)| version);
        if let Some(before) = &same_before
            && let Some(failed) = &mut self.state.failed
            && failed.failure.tried.credentials == self.spec.tried(Some(before)).credentials
        {
            failed.failure.tried.credentials = self.spec.tried(Some(&version)).credentials;
        }
        // A token that was requested with these values is as good as before.
        if let Some(token) = &mut self.state.pending
            && (token.credentials == Some(digest)
                || same_before.as_ref() == Some(&token.record.inputs.credentials))
        {
            token.record.inputs.credentials = version;
        }
        Ok(Step::Again)
    }
}
