//! Whether a requested token has been written, by status alone: not all who may request one may read the Secret. Pure.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::DynamicObject;

use crate::cluster::USER_FIELD_MANAGER;
use crate::commands::readers::HeldToken;
use crate::text::{shown, shown_message};
use crate::time::minus;
use tokensource_api::{Reason, TokenSourceStatus};

/// How far the operator's clock, which it corrects by the API server's, may be behind that, in seconds.
const MAX_CLOCK_DIFFERENCE: u64 = 2;

/// A request for a new token.
pub(super) struct Request {
    /// When it was stored, by the API server's clock.
    at: Option<Timestamp>,
    before: TokenSourceStatus,
}

/// How it is with a request.
#[derive(Debug)]
pub(super) enum Progress {
    /// The new token is written.
    Written(HeldToken),
    /// Nothing has happened yet.
    Waiting,
    /// An attempt failed, and another follows.
    Failed { message: String, next_attempt_at: Timestamp },
    /// Something is in the way, and the operator sees by itself when it no longer is.
    Blocked(String),
    /// No token will be asked for before the TokenSource changes.
    Ended(String),
}

fn status(source: &DynamicObject) -> TokenSourceStatus {
    let status = source.data.get("status").cloned();
    status.and_then(|status| serde_json::from_value(status).ok()).unwrap_or_default()
}

impl Request {
    /// Of the TokenSource as the API server returned it for the request.
    pub(super) fn of(source: &DynamicObject) -> Self {
        let entries = source.metadata.managed_fields.iter().flatten();
        let ours = entries.filter(|entry| entry.manager.as_deref() == Some(USER_FIELD_MANAGER));
        let at = ours.filter_map(|entry| entry.time.as_ref().map(|time| time.0)).max();
        Request { at, before: status(source) }
    }

    pub(super) fn progress(&self, source: &DynamicObject) -> Progress {
        let is_after = |at: Timestamp| self.at.is_none_or(|asked| at >= minus(asked, MAX_CLOCK_DIFFERENCE));
        let now = status(source);
        if let Some(token) = now.token.as_ref().filter(|token| {
            // A token of a request that was under way already is an earlier one.
            self.before.token.as_ref() != Some(token) && is_after(token.issued_at)
        }) {
            return Progress::Written(HeldToken {
                id: token.id.clone(),
                issued_at: token.issued_at,
                expires_at: token.expires_at,
            });
        }
        if source.metadata.deletion_timestamp.is_some() {
            return Progress::Ended("it is being deleted".to_owned());
        }
        if source.data.pointer("/spec/suspend").is_some_and(|suspend| suspend == true) {
            return Progress::Ended("it is suspended, and the token is asked for after `resume`".to_owned());
        }
        let failure = now.last_failure.filter(|failure| {
            let before = self.before.last_failure.as_ref().map(|before| (before.at, before.count));
            failure.count > 0 && before != Some((failure.at, failure.count)) && is_after(failure.at)
        });
        if let Some(failure) = failure {
            let has_issuer = source.data.pointer("/spec/issuerRef").is_some();
            let remedy = Reason::of(&failure.reason)
                .map(|it| format!("; {}", it.remedy_for(has_issuer)))
                .unwrap_or_default();
            let message = format!("{}: {}{remedy}", shown(&failure.reason), shown_message(&failure.message));
            return match failure.next_attempt_at {
                Some(next_attempt_at) => Progress::Failed { message, next_attempt_at },
                None => Progress::Ended(message),
            };
        }
        if now.observed_generation != source.metadata.generation {
            return Progress::Waiting;
        }
        let present = |kind: &str, status: &str| {
            now.conditions.iter().find(|it| it.type_ == kind && it.status == status)
        };
        let message = |it: &Condition| format!("{}: {}", shown(&it.reason), shown_message(&it.message));
        let passes = [Reason::Requesting, Reason::Expired].map(Reason::as_str);
        match (present("Stalled", "True"), present("Ready", "False")) {
            (Some(stalled), _) => Progress::Ended(message(stalled)),
            (None, Some(ready)) if !passes.contains(&ready.reason.as_str()) => {
                Progress::Blocked(message(ready))
            }
            _ => Progress::Waiting,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn token(id: &str, issued: i64) -> Value {
        json!({"id": id, "issuedAt": at(issued), "expiresAt": at(issued + 300), "refreshAt": at(issued + 200), "type": "Bearer"})
    }

    /// A TokenSource as it was returned for a request at second 0.
    fn source(spec: Value, status: Value) -> DynamicObject {
        serde_json::from_value(json!({
            "metadata": {"name": "a", "namespace": "n", "generation": 1, "managedFields": [
                {"manager": "kubectl-tokensource", "operation": "Update", "time": at(0)},
                {"manager": "tokensource-operator", "operation": "Update", "time": at(-50)},
            ]},
            "spec": spec, "status": status,
        }))
        .unwrap()
    }

    fn after(status: Value) -> Progress {
        let request = Request::of(&source(json!({}), json!({"token": token("old", -100)})));
        request.progress(&source(json!({}), status))
    }

    #[test]
    fn token_is_written_when_status_names_one_that_was_issued_after_the_request() {
        assert!(
            matches!(after(json!({"token": token("new", 1)})), Progress::Written(token) if token.id == "new")
        );
        // An issuer with a cache returns the token that the target holds.
        assert!(matches!(after(json!({"token": token("old", 1)})), Progress::Written(_)));
        for unchanged in [json!({"token": token("old", -100)}), json!({}), json!({"token": null})] {
            assert!(matches!(after(unchanged), Progress::Waiting));
        }
        // Its request was under way when the new one came.
        assert!(matches!(after(json!({"token": token("new", -20)})), Progress::Waiting));
    }

    #[test]
    fn failure_counts_only_if_it_came_after_the_request() {
        let failure = |at_: i64, count: i32, next: Value| json!({"lastFailure": {"at": at(at_), "reason": "ClientRejected", "message": "m", "count": count, "nextAttemptAt": next}});
        let Progress::Failed { message, next_attempt_at } = after(failure(3, 1, json!(at(30)))) else {
            panic!("an attempt failed")
        };
        assert!(message.starts_with("ClientRejected: m; compare client id"), "{message}");
        assert_eq!(next_attempt_at, at(30));
        assert!(matches!(after(failure(3, 1, Value::Null)), Progress::Ended(_)));
        assert!(matches!(after(failure(-30, 1, Value::Null)), Progress::Waiting));
        assert!(matches!(after(failure(3, 0, Value::Null)), Progress::Waiting), "it has recovered");
    }

    #[test]
    fn wait_ends_where_no_token_will_be_asked_for() {
        let suspended = source(json!({"suspend": true}), json!({}));
        assert!(matches!(Request::of(&suspended).progress(&suspended), Progress::Ended(_)));
        let blocked = |generation: i64, kind: &str, status: &str, reason: &str| {
            let condition = json!({"type": kind, "status": status, "reason": reason, "message": "m", "lastTransitionTime": at(-100)});
            after(json!({"observedGeneration": generation, "conditions": [condition]}))
        };
        assert!(matches!(blocked(1, "Stalled", "True", "SpecInvalid"), Progress::Ended(_)));
        assert!(
            matches!(blocked(0, "Stalled", "True", "SpecInvalid"), Progress::Waiting),
            "of an earlier spec"
        );
        let missing = blocked(1, "Ready", "False", "CredentialsNotFound");
        assert!(matches!(missing, Progress::Blocked(message) if message == "CredentialsNotFound: m"));
        assert!(matches!(blocked(1, "Ready", "False", "Requesting"), Progress::Waiting));
    }
}
