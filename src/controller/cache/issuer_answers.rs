//! What the token requests through an issuer say of it, of all namespaces together.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

use tokensource_api::Reason;
use tokio::time::Instant;

/// How long a failure of the endpoint counts although others succeed: it may concern a part of the requests.
const MIXED_INTERVAL: Duration = Duration::from_secs(60);

/// Why a token request failed because of the issuer: reason and message.
pub(crate) type Failure = (Reason, String);

/// The last success and the last failure, ordered by when the requests were sent: what was sent earlier may be answered later.
#[derive(Debug, Default)]
pub(crate) struct IssuerAnswers {
    succeeded: Option<Instant>,
    failed: Option<(Instant, Failure)>,
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
    /// A request that was sent at `sent` has succeeded, or has failed because of the issuer.
    pub(crate) fn note(&mut self, sent: Instant, failure: Option<Failure>) {
        match failure {
            None => self.succeeded = self.succeeded.max(Some(sent)),
            Some(failure) if self.failed.as_ref().is_none_or(|(before, _)| *before <= sent) => {
                self.failed = Some((sent, failure));
            }
            Some(_) => {}
        }
    }

    /// A success refutes what was rejected before it was sent, by whichever namespace: client, credentials and endpoint are the
    /// same. It does not refute that the endpoint fails now and then.
    pub(crate) fn sum(&self, now: Instant) -> Answered {
        match (&self.failed, self.succeeded) {
            (Some((at, (reason, message))), succeeded)
                if succeeded.is_none_or(|succeeded| succeeded <= *at)
                    || is_mixed(*reason) && now < *at + MIXED_INTERVAL =>
            {
                Answered::Failed(*reason, message.clone())
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

    /// Requests by when they were sent, in the order of their ends, in seconds; the sum at `now`.
    fn sum(ended: &[(u64, Option<Reason>)], now: u64) -> Option<Reason> {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut answers = IssuerAnswers::default();
        for (sent, failed) in ended {
            answers.note(at(*sent), failed.map(|reason| (reason, "message".to_owned())));
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

    #[test]
    fn issuer_answers_without_requests_say_nothing() {
        assert_eq!(IssuerAnswers::default().sum(Instant::now()), Answered::Nothing);
    }
}
