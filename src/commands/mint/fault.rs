//! How `mint` ends.

use jiff::Timestamp;

use crate::providers::CredentialsError;
use crate::refresh::{FailedAttempt, wait};
use crate::secret::TemplateError;
use crate::status::{error_text_in_full, reason};
use crate::text::shown_message;
use crate::uid::Uid;
use token_endpoint as oauth;
use tokensource_api::Reason;

/// What stands below the flags in the help of `mint`.
pub const HELP: &str = "Exit codes:
  0  a token was minted
  1  nothing was asked: wrong flags, files or cluster; the TokenSource is invalid; the egress policy refuses the endpoint
  2  nothing was asked: the credentials are missing or cannot be used
  3  the endpoint refused, or answered with something that holds no usable token
  4  the endpoint cannot be reached, failed by itself, or asks to come back later
  5  a refresh token came back and could not be saved: it is printed, because it may be the only valid one

Values from the Secret and the token are shown as their length, unless --show-secrets is given. The egress policy is the
operator's: its flags are read from its Deployment, if you may list that, and where you give none; with -f give mint the flags
that the operator has. A TokenSource with issuerRef needs the platform's rights: to read the ClusterTokenIssuer (`get`), and what
that names in the operator's namespace.";

/// How `mint` ended. The numbers are a promise: see [`HELP`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// A token was minted.
    Minted,
    /// Nothing was asked: the configuration.
    Configuration,
    /// Nothing was asked: the credentials.
    Credentials,
    /// The endpoint refused.
    Refused,
    /// The endpoint could not be reached, or not now.
    Unavailable,
    /// A refresh token could not be saved.
    NotSaved,
}

impl Exit {
    /// The process's exit code.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Exit::Minted => 0,
            Exit::Configuration => 1,
            Exit::Credentials => 2,
            Exit::Refused => 3,
            Exit::Unavailable => 4,
            Exit::NotSaved => 5,
        }
    }

    fn of(reason: Reason) -> Self {
        match reason {
            Reason::CredentialsNotFound | Reason::CredentialsInvalid => Exit::Credentials,
            Reason::ClientRejected
            | Reason::GrantRejected
            | Reason::ScopeRejected
            | Reason::RequestRejected
            | Reason::ResponseMalformed => Exit::Refused,
            Reason::EndpointUnavailable | Reason::RateLimited => Exit::Unavailable,
            _ => Exit::Configuration,
        }
    }
}

/// Why there is no token.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) exit: Exit,
    pub(super) reason: Option<Reason>,
    pub(super) message: String,
    /// When the operator would try again.
    pub(super) then: Option<String>,
}

impl Fault {
    pub(super) fn usage(message: String) -> Self {
        Fault { exit: Exit::Configuration, reason: None, message: shown(message), then: None }
    }

    pub(super) fn credentials(message: String) -> Self {
        Fault { exit: Exit::Credentials, reason: None, message: shown(message), then: None }
    }

    pub(super) fn told(reason: Reason, message: String) -> Self {
        Fault { exit: Exit::of(reason), reason: Some(reason), message: shown(message), then: None }
    }

    /// With what the operator would do next, on a first failure and with no token to fall back on.
    pub(super) fn endpoint(error: &oauth::Error, propagation_delay: u64) -> Self {
        let failed = FailedAttempt {
            class: error.class(),
            count: 1,
            retry_after: error.retry_after(),
            held_back: None,
            expires_at: None,
            propagation_delay,
            may_be_spent: false,
            uid: &Uid::default(),
        };
        let then = match wait(Timestamp::now(), &failed) {
            Some(seconds) => {
                format!("the operator would try again after {seconds} s or so, and later if it fails again")
            }
            // Where a flag would help, its message names the one of the operator.
            None if error.kind() == oauth::ErrorKind::EgressRefused => {
                "mint takes the same flag; the operator would not try again before something changes"
                    .to_owned()
            }
            None => "the operator would not try again before something changes".to_owned(),
        };
        Fault { then: Some(then), ..Fault::told(reason(error.kind()), error_text_in_full(error)) }
    }
}

/// It may quote a kubeconfig, a manifest, or a webhook.
fn shown(message: String) -> String {
    shown_message(&message).into_owned()
}

/// Before anything is asked.
impl From<TemplateError> for Fault {
    fn from(error: TemplateError) -> Self {
        Fault::told(Reason::TemplateInvalid, error.to_string())
    }
}

impl From<CredentialsError> for Fault {
    fn from(error: CredentialsError) -> Self {
        Fault::told(error.reason(), error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_an_exit_code_that_the_help_explains() {
        for reason in Reason::ALL {
            let code = Exit::of(reason).code();
            assert!((1..=4).contains(&code), "{reason}");
            assert!(HELP.contains(&format!("\n  {code}  ")));
        }
        for (reason, code) in [
            (Reason::SpecInvalid, 1),
            (Reason::EndpointRefusedByPolicy, 1),
            (Reason::CredentialsInvalid, 2),
            (Reason::ClientRejected, 3),
            (Reason::ResponseMalformed, 3),
            (Reason::EndpointUnavailable, 4),
            (Reason::RateLimited, 4),
        ] {
            assert_eq!(Exit::of(reason).code(), code, "{reason}");
        }
    }
}
