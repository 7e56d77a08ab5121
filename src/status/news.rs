//! What a status says that the one before did not.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use tokensource_api::{Reason, TokenSourceStatus};

use super::{READY, Reported};

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing.
    Nothing,
    /// The number and the times of attempts that fail for the same reason.
    Numbers,
    /// Something prevents a token. That may come from an outage, which all TokenSources of an issuer would report at once.
    Problem,
    /// A token, a change of the spec, or that all is well.
    Other,
}

impl News {
    /// The news of `after`.
    #[must_use]
    pub fn of(before: &Reported, after: &TokenSourceStatus) -> Self {
        if before.is(after) {
            return News::Nothing;
        }
        let now = Reported::of(after);
        let ready = after.conditions.iter().find(|it| it.type_ == READY);
        let is_well = ready
            .is_some_and(|ready| ready.status == "True" && ready.reason != Reason::RefreshFailing.as_str());
        if is_well || now.generation != before.generation {
            return News::Other;
        }
        // What was tried is what the next process continues from; whether the issuer asks to wait may change each time.
        let tried = |of: &Reported| {
            let inputs = of.last_failure.as_ref()?.inputs.as_deref()?;
            Some(inputs.split('/').take(3).map(str::to_owned).collect::<Vec<_>>())
        };
        let is_same = now.failing() == before.failing()
            && tried(&now) == tried(before)
            && !says_something_else(before, &now)
            && now.has_token == before.has_token
            && now.conditions.len() == before.conditions.len()
            && now.conditions.iter().zip(&before.conditions).all(|(now, before)| {
                (now.kind, now.status, now.reason) == (before.kind, before.status, before.reason)
            });
        let repeats = now.failing().is_some() || is_unavailable(&now);
        if is_same && repeats { News::Numbers } else { News::Problem }
    }
}

/// The same reason, but a person has to correct something else. What endpoints say differs from one attempt to the next.
fn says_something_else(before: &Reported, now: &Reported) -> bool {
    let message = |of: &Reported| of.last_failure.as_ref().map(|last| last.message.clone());
    let is_of_the_cluster = matches!(
        now.ready().and_then(|(_, reason)| reason),
        Some(
            Reason::CredentialsInvalid
                | Reason::SpecInvalid
                | Reason::TemplateInvalid
                | Reason::TargetRefused
        )
    );
    is_of_the_cluster && message(before) != message(now)
}

/// Without an attempt of its own: its endpoint fails for all.
fn is_unavailable(reported: &Reported) -> bool {
    reported.ready().is_some_and(|(_, reason)| {
        matches!(reason, Some(Reason::EndpointUnavailable | Reason::RefreshFailing))
    })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;

    fn status(generation: i64, ready: &str, reason: &str, count: i64) -> TokenSourceStatus {
        let ready = json!({"type": "Ready", "status": ready, "reason": reason, "message": count.to_string(),
            "lastTransitionTime": Timestamp::UNIX_EPOCH});
        let last = json!({"at": Timestamp::UNIX_EPOCH, "reason": "EndpointUnavailable", "message": "m", "count": count});
        serde_json::from_value(
            json!({"observedGeneration": generation, "conditions": [ready], "lastFailure": last}),
        )
        .unwrap()
    }

    #[test]
    fn news_of_repeated_failures_are_numbers_and_of_a_token_or_a_spec_more() {
        let valid = || status(1, "True", "TokenValid", 0);
        let failing = |count| status(1, "True", "RefreshFailing", count);
        let with_inputs = |inputs: &str| {
            let mut failing = failing(2);
            failing.last_failure.as_mut().unwrap().inputs = Some(inputs.into());
            failing
        };
        let another_message = |mut failing: TokenSourceStatus| {
            failing.last_failure.as_mut().unwrap().message = "another key".into();
            failing
        };
        let waiting = |message| {
            let mut waiting = status(1, "False", "EndpointUnavailable", 0);
            waiting.conditions[0].message = message;
            waiting
        };
        for (before, after, news) in [
            (valid(), valid(), News::Nothing),
            (valid(), failing(1), News::Problem),
            (failing(1), failing(2), News::Numbers),
            (failing(2), status(1, "False", "EndpointUnavailable", 3), News::Problem),
            (failing(2), valid(), News::Other),
            (failing(2), status(2, "False", "SpecInvalid", 0), News::Other),
            (status(1, "False", "TargetConflict", 0), status(1, "False", "TargetRefused", 0), News::Problem),
            (failing(2), with_inputs("a/b/c"), News::Problem),
            (with_inputs("a/b/c"), with_inputs("a/b/d"), News::Problem),
            (with_inputs("a/b/c"), with_inputs("a/b/c/asked"), News::Numbers),
            (
                status(1, "False", "CredentialsInvalid", 2),
                another_message(status(1, "False", "CredentialsInvalid", 3)),
                News::Problem,
            ),
            (waiting("5 failures".into()), waiting("6 failures".into()), News::Numbers),
        ] {
            assert_eq!(News::of(&Reported::of(&before), &after), news, "{before:?} {after:?}");
        }
    }
}
