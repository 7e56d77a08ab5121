//! Why a look at a TokenSource goes no further.

use std::time::Duration;

use crate::cluster::CallError;
use crate::secret::Version;
use crate::status::reason;
use token_endpoint::{self as oauth, Class};
use tokensource_api::Reason;

/// Why the present attempt goes no further.
#[derive(Debug)]
pub(super) enum Stop {
    /// What was seen has changed: decide again.
    Again,
    /// The TokenSource is gone, or going.
    Gone,
    /// This process may begin nothing here any more: another leads, it was told to stop, or the namespace is served no more.
    NotLeading,
    /// The API server did not answer.
    ApiServer(String),
    /// An attempt failed.
    Failed(Attempt),
}

/// A failed attempt.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) class: Class,
    pub(super) reason: Reason,
    pub(super) message: String,
    /// What the issuer asks for, in seconds.
    pub(super) retry_after: Option<u64>,
    /// The server may have acted on the request.
    pub(super) outcome_unknown: bool,
    /// It was the API server that refused the target, in this state of it.
    pub(super) target: Option<Option<Version>>,
    /// It was not made: another's failure said enough, and how long to wait, in seconds, if it said that too.
    pub(super) held_for: Option<Option<u64>>,
}

impl Attempt {
    fn new(class: Class, reason: Reason, message: String) -> Self {
        Attempt {
            class,
            reason,
            message,
            retry_after: None,
            outcome_unknown: false,
            target: None,
            held_for: None,
        }
    }
}

impl Stop {
    /// Something that only a change of the configuration helps.
    pub(super) fn configuration(reason: Reason, message: String) -> Self {
        Stop::Failed(Attempt::new(Class::Configuration, reason, message))
    }

    /// An answer that cannot be used: each further one may cost a token.
    pub(super) fn unusable(reason: Reason, message: String) -> Self {
        Stop::Failed(Attempt::new(Class::Malformed, reason, message))
    }

    /// A write that the API server refuses: a quota or a policy may change without a word.
    pub(super) fn target(reason: Reason, message: String) -> Self {
        Stop::Failed(Attempt::new(Class::Transient, reason, message))
    }

    /// The same, in this state of the target.
    pub(super) fn of_target(self, target: Option<Version>) -> Self {
        match self {
            Stop::Failed(attempt) => Stop::Failed(Attempt { target: Some(target), ..attempt }),
            other => other,
        }
    }

    /// The same, with something else that people should know.
    pub(super) fn with_remark(self, remark: Option<String>) -> Self {
        match (self, remark) {
            (Stop::Failed(attempt), Some(remark)) => {
                Stop::Failed(Attempt { message: format!("{}; {remark}", attempt.message), ..attempt })
            }
            (stop, _) => stop,
        }
    }

    /// A token request that was not made, because another's failure says enough.
    pub(super) fn held(held: &oauth::Held) -> Self {
        let held_for = held.retry_in().map(|wait| wait.as_secs().saturating_add(1));
        let attempt = Attempt::new(held.class(), reason(held.kind()), held.to_string());
        Stop::Failed(Attempt { held_for: Some(held_for), ..attempt })
    }

    /// A token request that was not made yet, because others are asking.
    pub(super) fn no_turn(host: &str, waited: Duration) -> Self {
        let waited = waited.as_secs();
        let message =
            format!("others are asking {host}, one after the other, and no turn came within {waited} s");
        let attempt = Attempt::new(Class::Transient, Reason::EndpointUnavailable, message);
        Stop::Failed(Attempt { held_for: Some(Some(1)), ..attempt })
    }

    /// A failed token request.
    pub(super) fn endpoint(error: &oauth::Error) -> Self {
        Stop::Failed(Attempt {
            retry_after: error.retry_after(),
            outcome_unknown: error.outcome_unknown(),
            ..Attempt::new(error.class(), reason(error.kind()), error.to_string())
        })
    }
}

impl From<CallError> for Stop {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Conflict | CallError::NotFound => Stop::Again,
            refused @ (CallError::Refused(_) | CallError::AnotherType | CallError::Immutable) => {
                Stop::target(
                    Reason::KubernetesApiError,
                    format!(
                        "the API server refuses what the operator needs (is its RBAC complete?): {refused}"
                    ),
                )
            }
            CallError::Unavailable(message) => Stop::ApiServer(message),
        }
    }
}
