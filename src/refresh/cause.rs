#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! Which changes by others lead to a token request. Those are damped, so that two programs that undo each other's work, or a
//! person's script, do not load the endpoint.

use jiff::Timestamp;

use super::damping::Cause;
use super::decision::{MintReason, Observed, Tried, due_at};

/// A token request that is made because others have changed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caused {
    /// What they have changed.
    pub cause: Cause,
    /// When the request is made in any case.
    pub in_any_case_at: Option<Timestamp>,
}

/// Whose change a token request for `reason` answers, where [`super::decide`] says that it is to be made now. `None`: it would
/// be made in any case, because the refresh or another attempt is due.
#[must_use]
pub fn caused(now: Timestamp, observed: &Observed<'_>, tried: &Tried, reason: MintReason) -> Option<Caused> {
    let record = observed.target.and_then(|target| target.record.as_deref());
    let in_any_case_at = match observed.failure {
        // Also where the refresh is due: else each change in an outage would be an attempt.
        Some(failure) => failure.next_attempt_at,
        None => record.and_then(|_| due_at(observed)),
    };
    if in_any_case_at.is_some_and(|at| at <= now) {
        return None;
    }
    let cause = match observed.failure.map(|failure| &failure.tried) {
        None => of(reason)?,
        // These ended the wait after a failure.
        Some(before) if before.credentials != tried.credentials => Cause::Credentials,
        Some(before) if before.spec != tried.spec => Cause::Spec,
        Some(before) if before.request != tried.request => Cause::Request,
        Some(_) => Cause::Target,
    };
    Some(Caused { cause, in_any_case_at })
}

fn of(reason: MintReason) -> Option<Cause> {
    match reason {
        MintReason::TargetMissing
        | MintReason::RecordMissing
        | MintReason::Adopted
        | MintReason::TargetChanged => Some(Cause::Target),
        MintReason::TemplateChanged | MintReason::SpecChanged => Some(Cause::Spec),
        MintReason::CredentialsChanged => Some(Cause::Credentials),
        MintReason::Requested => Some(Cause::Request),
        MintReason::Due => None,
    }
}
