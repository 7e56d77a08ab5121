//! The attempts of a TokenSource that failed since its last success.

use jiff::Timestamp;
use tokensource_api::{LastFailure, Reason};

use crate::refresh::{Cause, Failure, Tried};

/// The part of `status.lastFailure.inputs` that says that the issuer asked to wait.
const ASKED: &str = "asked";

/// Failed attempts in a row, with the report of the last one.
#[derive(Clone, Debug)]
pub struct FailedAttempts {
    /// The part that decisions need.
    pub failure: Failure,
    /// Their number.
    pub count: u32,
    /// Whether the values of the credentials have changed since: the next attempt is the first of a new row.
    pub values_changed: bool,
    /// When the last one failed.
    pub at: Timestamp,
    /// The reason of the last failure.
    pub reason: Reason,
    /// Its message, with the remedy.
    pub message: String,
}

impl FailedAttempts {
    /// Restores the failed attempts that a previous process reported; `None` where no wait is to be continued.
    #[must_use]
    pub fn from_status(last: &LastFailure) -> Option<Self> {
        let mut inputs = last.inputs.as_deref()?.split('/').map(str::to_owned);
        let tried = Tried { spec: inputs.next()?, request: inputs.next()?, credentials: inputs.next()? };
        let reason = Reason::of(&last.reason)?;
        if reason == Reason::EndpointRefusedByPolicy {
            // This process may have another egress policy, and checking it costs no token request.
            return None;
        }
        let waits_for_a_change = last.next_attempt_at.is_none();
        if waits_for_a_change
            && matches!(reason, Reason::TargetRefused | Reason::TargetConflict | Reason::TemplateInvalid)
        {
            // Ends with another target, or another build of the operator; the status does not say which ones failed.
            return None;
        }
        let count = u32::try_from(last.count).ok().filter(|count| *count > 0)?;
        Some(FailedAttempts {
            failure: Failure {
                tried,
                failed_at: last.at,
                next_attempt_at: last.next_attempt_at,
                issuer_asks_to_wait: inputs.next().as_deref() == Some(ASKED),
                refused_target: None,
            },
            count,
            values_changed: false,
            at: last.at,
            reason,
            message: last.message.clone(),
        })
    }

    /// The number of failed attempts in a row, including the current one, which used `tried`. Another spec or other values
    /// of the credentials start a new row; but where the endpoint itself fails, values change nothing, and another spec only
    /// if it caused the attempt, which is damped. A `known_rejection` was not sent, and does not increase the number.
    #[must_use]
    pub fn count_with(
        before: Option<&Self>,
        tried: &Tried,
        cause: Option<Cause>,
        known_rejection: bool,
    ) -> u32 {
        let continues = |before: &&Self| {
            let has_same_spec = before.failure.tried.spec == tried.spec;
            if before.reason == Reason::EndpointUnavailable {
                has_same_spec || cause != Some(Cause::Spec)
            } else {
                has_same_spec && !before.values_changed
            }
        };
        let before = before.filter(continues);
        let count = before.map_or(0, |before| before.count);
        if known_rejection { count.max(1) } else { count.saturating_add(1) }
    }

    /// `status.lastFailure`.
    #[must_use]
    pub fn to_status(&self) -> LastFailure {
        let Tried { spec, request, credentials } = &self.failure.tried;
        let asked = if self.failure.issuer_asks_to_wait { format!("/{ASKED}") } else { String::new() };
        LastFailure {
            at: self.at,
            reason: self.reason.to_string(),
            message: self.message.clone(),
            count: i32::try_from(self.count).unwrap_or(i32::MAX),
            next_attempt_at: self.failure.next_attempt_at,
            inputs: Some(format!("{spec}/{request}/{credentials}{asked}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_attempts_from_status_continue_unless_the_restart_may_have_ended_the_wait() {
        let last = |reason: Reason, count| LastFailure {
            at: Timestamp::UNIX_EPOCH,
            reason: reason.to_string(),
            message: "m".into(),
            count,
            next_attempt_at: Some(Timestamp::UNIX_EPOCH),
            inputs: Some("spec/request/credentials".into()),
        };
        let rejected = last(Reason::ClientRejected, 2);
        let read = FailedAttempts::from_status(&rejected).unwrap();
        assert_eq!((read.to_status(), read.failure.issuer_asks_to_wait), (rejected, false));
        let asked = Some("spec/request/credentials/asked".into());
        let asked = LastFailure { inputs: asked, ..last(Reason::EndpointUnavailable, 2) };
        let read = FailedAttempts::from_status(&asked).unwrap();
        assert_eq!((read.to_status(), read.failure.issuer_asks_to_wait), (asked, true));
        assert!(
            FailedAttempts::from_status(&last(Reason::ClientRejected, 0)).is_none(),
            "a count of 0 means recovered"
        );
        assert!(
            FailedAttempts::from_status(&last(Reason::EndpointRefusedByPolicy, 1)).is_none(),
            "the egress policy may be another one"
        );
        let refused = last(Reason::TargetRefused, 1);
        assert!(FailedAttempts::from_status(&refused).is_some());
        let without_retry = LastFailure { next_attempt_at: None, ..refused };
        assert!(
            FailedAttempts::from_status(&without_retry).is_none(),
            "the target may have been deleted since"
        );
    }

    #[test]
    fn failed_attempts_count_restarts_with_another_spec_or_other_values() {
        let tried = |spec: &str, request: &str, credentials: &str| Tried {
            spec: spec.into(),
            request: request.into(),
            credentials: credentials.into(),
        };
        let before = FailedAttempts {
            failure: Failure {
                tried: tried("s", "r", "c"),
                failed_at: Timestamp::UNIX_EPOCH,
                next_attempt_at: None,
                issuer_asks_to_wait: false,
                refused_target: None,
            },
            count: 3,
            values_changed: false,
            at: Timestamp::UNIX_EPOCH,
            reason: Reason::ClientRejected,
            message: String::new(),
        };
        let count =
            |tried: &Tried, is_known| FailedAttempts::count_with(Some(&before), tried, None, is_known);
        assert_eq!((count(&tried("s", "r", "c"), false), count(&tried("s", "r", "c"), true)), (4, 3));
        assert_eq!(count(&tried("s", "again", "c"), false), 4, "a new refresh request");
        assert_eq!((count(&tried("t", "r", "c"), false), count(&tried("t", "r", "c"), true)), (1, 1));
        assert_eq!(count(&tried("s", "r", "d"), false), 4, "another version, perhaps of the same values");
        let before = FailedAttempts { values_changed: true, ..before.clone() };
        let count = |before: Option<&FailedAttempts>, tried: &Tried, cause| {
            FailedAttempts::count_with(before, tried, cause, false)
        };
        assert_eq!(count(Some(&before), &tried("s", "r", "d"), None), 1);
        assert_eq!(FailedAttempts::count_with(None, &tried("s", "r", "c"), None, true), 1);
        // An endpoint that is down is not healed by values, nor by a spec that changes again and again.
        let down = FailedAttempts { reason: Reason::EndpointUnavailable, ..before };
        assert_eq!(count(Some(&down), &tried("s", "r", "d"), Some(Cause::Credentials)), 4);
        assert_eq!(count(Some(&down), &tried("t", "r", "c"), None), 4);
        assert_eq!(count(Some(&down), &tried("t", "r", "c"), Some(Cause::Spec)), 1);
    }
}
