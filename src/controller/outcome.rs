//! How a step of a reconciliation, or a token request, ended where it did not go well.

use std::time::Duration;

use token_endpoint::{Class, KnownRejection, SharedBy};
use tokensource_api::Reason;

use crate::cluster::{CallError, Unavailable};
use crate::secret::Version;
use crate::status::{error_text, reason};

/// Why it goes no further.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// What was observed has changed: decide again.
    Retry,
    /// The TokenSource is gone, or is being deleted.
    Gone,
    /// This process may begin nothing here: another one leads, it was told to stop, or the namespace is not selected.
    NotLeading,
    /// The API server has a newer state of the TokenSource than the watch has shown.
    Outdated,
    /// The API server did not answer.
    ApiServer(Unavailable),
    /// An attempt failed.
    Failed(Attempt),
}

/// A failed attempt.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) class: Class,
    pub(crate) reason: Reason,
    pub(crate) message: String,
    /// How long the issuer asks to wait.
    pub(crate) retry_after: Option<Duration>,
    /// The server may have acted on the request.
    pub(crate) outcome_unknown: bool,
    /// The API server refused to write the target in this state of it (`None` inside: absent).
    pub(crate) refused_target: Option<Option<Version>>,
    /// Nothing was sent, because the answer to such requests is known.
    pub(crate) is_known: bool,
    /// How long such requests are held back for all TokenSources.
    pub(crate) held_back: Option<Duration>,
}

impl Attempt {
    fn new(class: Class, reason: Reason, message: String) -> Self {
        Attempt {
            class,
            reason,
            message,
            retry_after: None,
            outcome_unknown: false,
            refused_target: None,
            is_known: false,
            held_back: None,
        }
    }
}

impl Outcome {
    /// A failure that only a change of the configuration ends.
    pub(crate) fn configuration(reason: Reason, message: String) -> Self {
        Outcome::Failed(Attempt::new(Class::Configuration, reason, message))
    }

    /// A response that cannot be used: each further one may cost a token.
    pub(crate) fn unusable(reason: Reason, message: String) -> Self {
        Outcome::Failed(Attempt::new(Class::Malformed, reason, message))
    }

    /// A failure that may pass without a change that is watched: a quota, a policy, a certificate.
    pub(crate) fn passing(reason: Reason, message: String) -> Self {
        Outcome::Failed(Attempt::new(Class::Transient, reason, message))
    }

    /// The same, for a target that was in this state.
    pub(crate) fn of_target(self, target: Option<Version>) -> Self {
        match self {
            Outcome::Failed(attempt) => Outcome::Failed(Attempt { refused_target: Some(target), ..attempt }),
            other => other,
        }
    }

    /// The same, with a remark for its readers.
    pub(crate) fn with_remark(self, remark: Option<String>) -> Self {
        match (self, remark) {
            (Outcome::Failed(attempt), Some(remark)) => {
                Outcome::Failed(Attempt { message: format!("{}; {remark}", attempt.message), ..attempt })
            }
            (outcome, _) => outcome,
        }
    }

    /// A token request that was not sent, because the answer is known.
    pub(crate) fn known_rejection(known: &KnownRejection) -> Self {
        let error = &known.error;
        let who = match known.shared_by {
            SharedBy::Client => "these credentials",
            SharedBy::Grant => "this grant",
            SharedBy::Request => "this request",
        };
        let seconds = known.retry_in.as_secs().max(1);
        let (reason, holds) = match known.class {
            Class::Limited | Class::LockedOut => {
                (Reason::RateLimited, format!("all TokenSources with {who} wait for {seconds} s more"))
            }
            Class::Transient | Class::Ambiguous => (
                Reason::EndpointUnavailable,
                format!("all TokenSources with {who} wait for {seconds} s more"),
            ),
            _ => (
                reason(error.lasting_kind()),
                format!(
                    "the rejection holds for all TokenSources with {who}, which are tried again in {seconds} s"
                ),
            ),
        };
        let attempt = Attempt::new(known.class, reason, format!("{}; {holds}", error_text(error)));
        Outcome::Failed(Attempt { is_known: true, held_back: Some(known.retry_in), ..attempt })
    }

    /// A failed token request. `held_back`: for how long such requests wait, and as which class of failure, where the error
    /// does not say.
    pub(crate) fn token_request(error: &token_endpoint::Error, held_back: Option<(Class, Duration)>) -> Self {
        let (class, held_back) = match held_back {
            Some((class, wait)) => (class, Some(wait)),
            None => (error.class(), None),
        };
        let kind = if class == Class::Rejected { error.lasting_kind() } else { error.kind() };
        Outcome::Failed(Attempt {
            retry_after: error.retry_after().map(Duration::from_secs),
            outcome_unknown: error.outcome_unknown(),
            held_back,
            ..Attempt::new(class, reason(kind), error_text(error))
        })
    }
}

impl From<CallError> for Outcome {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Conflict | CallError::NotFound => Outcome::Retry,
            refused @ (CallError::Refused(_) | CallError::AnotherType | CallError::Immutable) => {
                Outcome::passing(
                    Reason::KubernetesApiError,
                    format!(
                        "the API server refuses what the operator needs (is its RBAC complete?): {refused}"
                    ),
                )
            }
            CallError::Unavailable(why) => Outcome::ApiServer(why),
        }
    }
}
