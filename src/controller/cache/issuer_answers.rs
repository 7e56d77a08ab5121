//! What the token requests through an issuer say of it, of all namespaces together.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;
use std::time::Duration;

use tokensource_api::Reason;
use tokio::time::Instant;

use crate::spec::Blame;

/// How long a failure of the endpoint counts although others succeed: it may concern a part of the requests.
const MIXED_INTERVAL: Duration = Duration::from_secs(60);

/// Why a token request of a namespace failed, perhaps because of the issuer.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) reason: Reason,
    pub(crate) message: String,
    pub(crate) blame: Blame,
    pub(crate) namespace: Arc<str>,
}

/// The last success and the last failure, ordered by when the requests were sent: what was sent earlier may be answered later.
#[derive(Debug, Default)]
pub(crate) struct IssuerAnswers {
    succeeded: Option<Instant>,
    failed: Option<(Instant, Failure)>,
    /// The last rejection that may have been about what its namespace asked for.
    doubted: Option<(Instant, Arc<str>)>,
}

/// What token requests through an issuer have come to in this process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// None was made.
    Nothing,
    /// The issuer works.
    Succeeded,
    /// The endpoint, the client or its credentials fail.
    Failed(Reason, String),
}

impl IssuerAnswers {
    /// A request that was sent at `sent` has succeeded, or has failed. Where that may be about what was asked for, it counts
    /// when two namespaces fail in a row; of a client that never had a token, where it may be about the client.
    pub(crate) fn note(&mut self, sent: Instant, failure: Option<Failure>) {
        match failure {
            None => self.succeeded = self.succeeded.max(Some(sent)),
            Some(failure) if self.is_doubtful(&failure) => self.doubted = Some((sent, failure.namespace)),
            Some(failure) if self.failed.as_ref().is_none_or(|(before, _)| *before <= sent) => {
                self.failed = Some((sent, failure));
            }
            Some(_) => {}
        }
    }

    fn is_doubtful(&self, failure: &Failure) -> bool {
        let has_another = self.doubted.as_ref().is_some_and(|(at, namespace)| {
            *namespace != failure.namespace && self.succeeded.is_none_or(|succeeded| succeeded <= *at)
        });
        match failure.blame {
            Blame::Issuer => false,
            Blame::Perhaps => self.succeeded.is_some() && !has_another,
            Blame::Request => !has_another,
        }
    }

    /// A success refutes what was rejected before it was sent, by whichever namespace: client, credentials and endpoint are the
    /// same. It does not refute that the endpoint fails now and then.
    pub(crate) fn sum(&self, now: Instant) -> Answered {
        match (&self.failed, self.succeeded) {
            (Some((at, failure)), succeeded)
                if succeeded.is_none_or(|succeeded| succeeded <= *at)
                    || is_mixed(failure.reason) && now < *at + MIXED_INTERVAL =>
            {
                Answered::Failed(failure.reason, failure.message.clone())
            }
            (_, Some(_)) => Answered::Succeeded,
            (_, None) => Answered::Nothing,
        }
    }
}

/// Whether an endpoint may answer some requests so, and others well.
fn is_mixed(reason: Reason) -> bool {
    matches!(reason, Reason::EndpointUnavailable | Reason::RateLimited | Reason::ResponseMalformed)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "any time to count from")]
mod tests {
    use super::*;

    const REJECTED: Reason = Reason::ClientRejected;
    const UNAVAILABLE: Reason = Reason::EndpointUnavailable;

    fn failure(reason: Reason, blame: Blame, namespace: &str) -> Failure {
        Failure { reason, message: "message".to_owned(), blame, namespace: namespace.into() }
    }

    /// Requests by when they were sent, in the order of their ends, in seconds; the sum at `now`.
    fn sum(ended: &[(u64, Option<Reason>)], now: u64) -> Option<Reason> {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut answers = IssuerAnswers::default();
        for (sent, failed) in ended {
            answers.note(at(*sent), failed.map(|reason| failure(reason, Blame::Issuer, "a")));
        }
        match answers.sum(at(now)) {
            Answered::Failed(reason, _) => Some(reason),
            Answered::Succeeded => None,
            Answered::Nothing => panic!("requests have ended"),
        }
    }

    #[test]
    fn issuer_answers_success_refutes_only_the_rejections_that_were_sent_before_it() {
        assert_eq!(sum(&[(1, None), (2, Some(REJECTED))], 3), Some(REJECTED));
        assert_eq!(sum(&[(1, Some(REJECTED)), (2, None)], 3), None);
        // A tenant's slow success, which was sent while the client was still accepted.
        assert_eq!(sum(&[(2, Some(REJECTED)), (1, None)], 3), Some(REJECTED));
        // A tenant's slow rejection, of the secret before its rotation.
        assert_eq!(sum(&[(2, None), (1, Some(REJECTED))], 3), None);
        assert_eq!(sum(&[(2, Some(REJECTED)), (1, Some(UNAVAILABLE))], 3), Some(REJECTED), "the later one");
    }

    #[test]
    fn issuer_answers_endpoint_that_fails_for_a_part_of_the_requests_is_failing_for_a_minute() {
        let mixed = [(10, Some(UNAVAILABLE)), (11, None), (12, None)];
        assert_eq!(sum(&mixed, 69), Some(UNAVAILABLE));
        assert_eq!(sum(&mixed, 70), None);
        assert_eq!(sum(&[(1, None), (2, Some(UNAVAILABLE))], 4000), Some(UNAVAILABLE), "without a success");
    }

    /// Whether the issuer fails after these requests, one each second: of which namespace, and whom its failure is about.
    fn fails(ended: &[(&str, Option<Blame>)]) -> bool {
        let start = Instant::now();
        let mut answers = IssuerAnswers::default();
        for (second, (namespace, blame)) in (0..).zip(ended) {
            let failed = blame.map(|blame| failure(REJECTED, blame, namespace));
            answers.note(start + Duration::from_secs(second), failed);
        }
        matches!(answers.sum(start + Duration::from_secs(60)), Answered::Failed(REJECTED, _))
    }

    #[test]
    fn issuer_answers_rejection_of_what_one_namespace_asks_for_is_not_the_issuers() {
        let request = Some(Blame::Request);
        assert!(!fails(&[("a", request), ("a", request), ("a", request)]));
        assert!(!fails(&[("b", None), ("a", request), ("a", request)]));
        assert!(!fails(&[("a", request), ("b", None), ("c", request)]), "refuted in between");
        assert!(fails(&[("b", None), ("a", request), ("b", request)]), "two namespaces in a row");
        assert!(fails(&[("a", request), ("a", Some(Blame::Issuer))]));
    }

    #[test]
    fn issuer_answers_client_that_had_a_token_is_not_rejected_by_one_namespaces_401() {
        let perhaps = Some(Blame::Perhaps);
        assert!(fails(&[("a", perhaps)]), "it never had one");
        assert!(!fails(&[("b", None), ("a", perhaps), ("a", perhaps)]));
        assert!(fails(&[("b", None), ("a", perhaps), ("b", perhaps)]));
    }

    #[test]
    fn issuer_answers_without_requests_say_nothing() {
        assert_eq!(IssuerAnswers::default().sum(Instant::now()), Answered::Nothing);
    }
}
