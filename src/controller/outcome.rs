//! How a step of a reconciliation, or a token request, ended where it did not go well.

use std::time::Duration;

use token_endpoint::{Class, KnownRejection, SharedBy};
use tokensource_api::Reason;

use crate::cluster::{CallError, Unavailable};
use crate::secret::Version;
use crate::spec::Blame;
use crate::status::{error_text, reason};
use crate::text::shown_message;
use crate::token_request::ServiceAccountTokenError;

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
    /// It is about an object of the TokenSource's own namespace, also where an issuer lends the credentials.
    pub(crate) is_own: bool,
    /// What it says of the issuer that lends the credentials.
    pub(crate) blame: Blame,
}

impl Attempt {
    fn new(class: Class, reason: Reason, message: String) -> Self {
        Attempt {
            class,
            reason,
            message: shown_message(&message).into_owned(),
            retry_after: None,
            outcome_unknown: false,
            refused_target: None,
            is_known: false,
            held_back: None,
            is_own: false,
            blame: Blame::Issuer,
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

    /// A token that may do more than the issuer allows is not written.
    pub(crate) fn wider_than_allowed(issuer: &str) -> Self {
        Outcome::unusable(
            Reason::NotAllowedByIssuer,
            format!(
                "the endpoint granted a scope that ClusterTokenIssuer {issuer} does not allow, so that the token is not written: ask the platform"
            ),
        )
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
            SharedBy::Group => "of this ClusterTokenIssuer",
            SharedBy::Client => "of this namespace with these credentials",
            SharedBy::Grant => "of this namespace with this grant",
            SharedBy::Request => "of this namespace with this request",
        };
        let seconds = known.retry_in.as_secs().max(1);
        let wait = || format!("all TokenSources {who} wait for {seconds} s more");
        let (reason, holds) = match known.class {
            Class::Limited | Class::LockedOut => (Reason::RateLimited, wait()),
            Class::Transient | Class::Ambiguous => (Reason::EndpointUnavailable, wait()),
            _ => (
                reason(error.lasting_kind()),
                format!(
                    "the rejection holds for all TokenSources {who}, which are tried again in {seconds} s"
                ),
            ),
        };
        let attempt = Attempt::new(known.class, reason, format!("{}; {holds}", error_text(error)));
        Outcome::Failed(Attempt { is_known: true, held_back: Some(known.retry_in), ..attempt })
    }

    /// A rejected token request that says nothing of the client, because of the ServiceAccount whose token was sent.
    pub(crate) fn uncounted(error: &token_endpoint::Error, doubt: &ServiceAccountTokenError) -> Self {
        let message = format!("{}; this may pass: {doubt}", error_text(error));
        let attempt = Attempt::new(Class::Transient, reason(error.kind()), message);
        let asked = error.retry_after().map(Duration::from_secs);
        Outcome::Failed(Attempt { retry_after: doubt.wait().max(asked), ..attempt })
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
            blame: Blame::of(error),
            ..Attempt::new(class, reason(kind), error_text(error))
        })
    }
}

impl From<ServiceAccountTokenError> for Outcome {
    fn from(error: ServiceAccountTokenError) -> Self {
        match error {
            ServiceAccountTokenError::Call(CallError::Unavailable(why)) => Outcome::ApiServer(why),
            // The operator's flags, which do not change while it runs.
            error if error.reason() == Reason::EndpointRefusedByPolicy => {
                Outcome::configuration(error.reason(), error.to_string())
            }
            // ServiceAccounts are not watched.
            error => {
                let attempt = Attempt::new(Class::Transient, error.reason(), error.to_string());
                let (is_own, retry_after) = (error.is_about_account(), error.wait());
                Outcome::Failed(Attempt { is_own, retry_after, ..attempt })
            }
        }
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
            CallError::TooLarge(message) => Outcome::passing(Reason::CredentialsInvalid, message),
            CallError::Unavailable(why) => Outcome::ApiServer(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};
    use token_endpoint::{
        BasicEncoding, ClientAuthentication, Credentials, Error, Grant, RequestDescription, read,
    };

    use super::*;

    fn refused(status: u16, code: &str) -> Error {
        let description = RequestDescription::new(
            "https://idp.example.com/token".parse().unwrap(),
            Grant::ClientCredentials,
            ClientAuthentication::Basic(BasicEncoding::Percent),
        );
        let credentials = Credentials {
            client_id: Some("id".into()),
            client_secret: Some("secret".into()),
            ..Credentials::default()
        };
        let request = description.request(&credentials).unwrap();
        let body = format!(r#"{{"error":"{code}"}}"#);
        let status = StatusCode::from_u16(status).unwrap();
        read(status, &HeaderMap::new(), body.as_bytes(), &request).unwrap_err()
    }

    fn attempt(outcome: Outcome) -> (Class, Reason, Option<u64>, String) {
        let Outcome::Failed(attempt) = outcome else { panic!("{outcome:?}") };
        (attempt.class, attempt.reason, attempt.held_back.map(|wait| wait.as_secs()), attempt.message)
    }

    #[test]
    fn token_request_ambiguous_failure_is_reported_as_what_it_is_paced_as() {
        let error = refused(503, "access_denied");
        for (held_back, class, reason) in [
            (None, Class::Ambiguous, Reason::EndpointUnavailable),
            (Some((Class::Transient, 4)), Class::Transient, Reason::EndpointUnavailable),
            (Some((Class::Ambiguous, 30)), Class::Ambiguous, Reason::EndpointUnavailable),
            (Some((Class::Rejected, 120)), Class::Rejected, Reason::ClientRejected),
        ] {
            let held = held_back.map(|(class, wait)| (class, Duration::from_secs(wait)));
            let seen = attempt(Outcome::token_request(&error, held));
            assert_eq!((seen.0, seen.1, seen.2), (class, reason, held_back.map(|(_, wait)| wait)));
        }
    }

    #[test]
    fn token_request_rejection_is_the_issuers_where_the_answer_names_the_client() {
        for (status, code, blame) in [
            (401, "invalid_client", Blame::Issuer),
            (400, "invalid_client", Blame::Issuer),
            (500, "server_error", Blame::Issuer),
            (429, "access_denied", Blame::Issuer),
            (401, "unauthorized_client", Blame::Perhaps),
            (503, "access_denied", Blame::Perhaps),
            (400, "unauthorized_client", Blame::Request),
            (403, "access_denied", Blame::Request),
            (400, "invalid_grant", Blame::Request),
        ] {
            let Outcome::Failed(attempt) = Outcome::token_request(&refused(status, code), None) else {
                panic!("{status} {code}");
            };
            assert_eq!(attempt.blame, blame, "{status} {code}");
        }
    }

    #[test]
    fn known_rejection_reports_what_is_shared_and_the_reason_of_the_wait() {
        let known = |error: Error, class, shared_by| {
            let retry_in = Duration::from_secs(90);
            attempt(Outcome::known_rejection(&KnownRejection {
                error: Box::new(error),
                class,
                shared_by,
                retry_in,
            }))
        };
        // One source's refused scope came with a Retry-After for all: the others' scopes are not refused.
        let asked = known(refused(400, "invalid_scope"), Class::Limited, SharedBy::Client);
        assert_eq!((asked.0, asked.1, asked.2), (Class::Limited, Reason::RateLimited, Some(90)));
        assert!(
            asked.3.ends_with("all TokenSources of this namespace with these credentials wait for 90 s more"),
            "{}",
            asked.3
        );
        let failing = known(refused(503, "x"), Class::Transient, SharedBy::Client);
        assert_eq!(failing.1, Reason::EndpointUnavailable);
        let rejected = known(refused(400, "invalid_grant"), Class::Rejected, SharedBy::Grant);
        assert_eq!(rejected.1, Reason::GrantRejected);
        assert!(rejected.3.contains(
            "holds for all TokenSources of this namespace with this grant, which are tried again in 90 s"
        ));
    }
}
