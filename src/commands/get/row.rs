//! A row of the table: how urgent a TokenSource is, by its status alone. Pure.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::DynamicObject;

use crate::text::shown;
use crate::time::seconds_between;
use tokensource_api::{Reason, TokenSourceStatus};

/// A refresh that is overdue by more than this is not made, in seconds.
const MAX_DELAY: u64 = 120;
/// The most bytes of a remedy's first words.
const MAX_REMEDY_BYTES: usize = 60;

const NO_OPERATOR: &str = "see that the operator runs and serves this namespace: kubectl tokensource check";

/// What is the matter, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// The token has expired.
    Expired,
    /// There is no token for the present spec.
    NotReady,
    /// The token is valid, and its refresh fails.
    Failing,
    /// The token is valid, and no refresh is made though one is due.
    Expiring,
    /// No operator has reconciled it, or not with its present spec.
    Unseen,
    /// This program cannot read the status.
    Unreadable,
    /// A token is being asked for.
    Requesting,
    /// The token is valid and is refreshed, but some readers may get it too late.
    Attention,
    Suspended,
    Deleting,
    Valid,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            State::Expired => "Expired",
            State::NotReady => "NotReady",
            State::Failing => "Failing",
            State::Expiring => "Expiring",
            State::Unseen => "Unseen",
            State::Unreadable => "Unreadable",
            State::Requesting => "Requesting",
            State::Attention => "Attention",
            State::Suspended => "Suspended",
            State::Deleting => "Deleting",
            State::Valid => "Valid",
        }
    }
}

/// A TokenSource in the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) state: State,
    pub(super) reason: String,
    pub(super) expires_at: Option<Timestamp>,
    /// When the token is refreshed, or the next attempt is made.
    pub(super) next_at: Option<Timestamp>,
    pub(super) remedy: Option<&'static str>,
    pub(super) secret: String,
    pub(super) provider: String,
    pub(super) token: String,
    pub(super) created_at: Option<Timestamp>,
}

impl Row {
    pub(super) fn of(now: Timestamp, object: &DynamicObject) -> Self {
        let metadata = &object.metadata;
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let read = object.data.get("status").map_or_else(
            || Ok(TokenSourceStatus::default()),
            |status| serde_json::from_value(status.clone()),
        );
        let name = text(&metadata.name);
        let target = object.data.pointer("/spec/target/name").and_then(|it| it.as_str());
        let is_readable = read.is_ok();
        let status: TokenSourceStatus = read.unwrap_or_default();
        let failure = status.last_failure.as_ref().filter(|failure| failure.count > 0);
        let (state, reason, remedy) = if is_readable {
            assess(now, object, &status)
        } else {
            (State::Unreadable, String::new(), Some("use the version of this command that the operator has"))
        };
        let token = status.token.as_ref();
        Row {
            namespace: text(&metadata.namespace),
            state,
            reason: shown(&reason).into_owned(),
            remedy: remedy.filter(|remedy| *remedy != "nothing"),
            expires_at: token.map(|token| token.expires_at),
            next_at: match failure {
                Some(failure) => failure.next_attempt_at,
                None => token.map(|token| token.refresh_at),
            }
            .filter(|_| !matches!(state, State::Suspended | State::Deleting)),
            secret: shown(target.unwrap_or(&name)).into_owned(),
            name,
            provider: status.provider.as_deref().map(shown).unwrap_or_default().into_owned(),
            token: token.map(|token| shown(&token.id).into_owned()).unwrap_or_default(),
            created_at: metadata.creation_timestamp.as_ref().map(|time| time.0),
        }
    }

    /// The order of the table: by urgency, and then what expires first.
    pub(super) fn urgency(&self) -> impl Ord + use<> {
        let expires_at = self.expires_at.unwrap_or(Timestamp::MAX);
        (self.state, expires_at, self.namespace.clone(), self.name.clone())
    }
}

fn assess(
    now: Timestamp,
    object: &DynamicObject,
    status: &TokenSourceStatus,
) -> (State, String, Option<&'static str>) {
    let condition = |kind: &str| status.conditions.iter().find(|it| it.type_ == kind);
    let has_issuer = object.data.pointer("/spec/issuerRef").is_some();
    let with = |state: State, reason: &str| (state, reason.to_owned(), remedy(reason, has_issuer));
    let of = |state: State, condition: Option<&Condition>| {
        with(state, condition.map_or("", |condition| condition.reason.as_str()))
    };
    let ready = condition("Ready");
    if object.metadata.deletion_timestamp.is_some() {
        return (State::Deleting, String::new(), None);
    }
    let Some(seen) = status.observed_generation.filter(|seen| *seen >= 0) else {
        return (State::Unseen, String::new(), Some(NO_OPERATOR));
    };
    let expired = status.token.as_ref().is_some_and(|token| token.expires_at <= now);
    if object.data.pointer("/spec/suspend").is_some_and(|suspend| suspend == true) {
        let state = if expired { State::Expired } else { State::Suspended };
        return with(state, Reason::Suspended.as_str());
    }
    // What status says is about another spec, but for the token's end.
    if !expired && object.metadata.generation.is_some_and(|present| seen < present) {
        return (State::Unseen, "EarlierGeneration".to_owned(), Some(NO_OPERATOR));
    }
    let failure = status.last_failure.as_ref().filter(|failure| failure.count > 0);
    let is_ready = ready.is_some_and(|ready| ready.status == "True");
    let is_requesting = failure.is_none()
        && ready.is_none_or(|ready| {
            [Reason::Requesting, Reason::Expired].iter().any(|it| it.as_str() == ready.reason)
        });
    let because = |state: State| match failure {
        Some(failure) => with(state, &failure.reason),
        None => of(state, ready),
    };
    if expired {
        return because(State::Expired);
    }
    if !is_ready {
        return if is_requesting { of(State::Requesting, ready) } else { because(State::NotReady) };
    }
    if failure.is_some() || ready.is_some_and(|ready| ready.reason == Reason::RefreshFailing.as_str()) {
        return because(State::Failing);
    }
    if status.token.as_ref().is_some_and(|token| seconds_between(token.refresh_at, now) > MAX_DELAY) {
        return (State::Expiring, "RefreshOverdue".to_owned(), Some(NO_OPERATOR));
    }
    match condition("PropagationSafe").filter(|it| it.status == "False") {
        Some(unsafe_) => of(State::Attention, Some(unsafe_)),
        None => of(State::Valid, ready),
    }
}

fn remedy(reason: &str, has_issuer: bool) -> Option<&'static str> {
    Reason::of(reason).map(|reason| reason.remedy_for(has_issuer))
}

/// The first words of a remedy: up to the end of a clause, if that is short enough.
pub(super) fn first_words(remedy: &str) -> String {
    let clause = remedy.split([';', ':', '(']).next().unwrap_or(remedy).trim_end();
    if clause.len() <= MAX_REMEDY_BYTES {
        return clause.to_owned();
    }
    let mut end = 0;
    for (at, _) in clause.match_indices(' ').take_while(|(at, _)| *at <= MAX_REMEDY_BYTES) {
        end = at;
    }
    format!("{}...", clause.get(..end).unwrap_or_default().trim_end_matches(','))
}

/// A time as its distance from `now`, in the units of kubectl: `3m20s`; the past is negative.
pub(super) fn distance(now: Timestamp, at: Timestamp) -> String {
    if at < now { format!("-{}", span(seconds_between(at, now))) } else { span(seconds_between(now, at)) }
}

/// A duration in the units of kubectl, at most two.
pub(super) fn span(seconds: u64) -> String {
    let two = |large: u64, name: char, small: u64, small_name: char| match small {
        0 => format!("{large}{name}"),
        _ => format!("{large}{name}{small}{small_name}"),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..3600 => two(seconds / 60, 'm', seconds % 60, 's'),
        3600..172_800 => two(seconds / 3600, 'h', seconds % 3600 / 60, 'm'),
        _ => two(seconds / 86400, 'd', seconds % 86400 / 3600, 'h'),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn condition(kind: &str, status: &str, reason: &str) -> Value {
        json!({"type": kind, "status": status, "reason": reason, "message": "m", "lastTransitionTime": at(-100)})
    }

    /// A row of a TokenSource whose token expires in `expires` seconds and is refreshed in `refresh`.
    fn row(ready: (&str, &str), (refresh, expires): (i64, i64), change: Value) -> Row {
        let mut object = json!({
            "apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource",
            "metadata": {"name": "a", "namespace": "n"},
            "spec": {"target": {"name": "t"}},
            "status": {
                "observedGeneration": 1,
                "conditions": [condition("Ready", ready.0, ready.1)],
                "token": {"id": "3f9a1c0d42be", "issuedAt": at(-100), "expiresAt": at(expires), "refreshAt": at(refresh), "type": "Bearer"},
            },
        });
        for (pointer, value) in change.as_object().unwrap() {
            let (parent, member) = pointer.rsplit_once('/').unwrap();
            object.pointer_mut(parent).unwrap()[member] = value.clone();
        }
        Row::of(at(0), &serde_json::from_value(object).unwrap())
    }

    #[test]
    fn state_is_the_most_urgent_that_status_shows() {
        let failure = |count: i32| json!({"/status/lastFailure": {"at": at(-9), "reason": "ClientRejected", "message": "m", "count": count, "nextAttemptAt": at(30)}});
        let unsafe_ = json!([
            condition("Ready", "True", "TokenValid"),
            condition("PropagationSafe", "False", "StaticMount")
        ]);
        let valid = ("True", "TokenValid");
        for (ready, times, change, state, reason) in [
            (valid, (50, 200), json!({}), State::Valid, "TokenValid"),
            (valid, (50, 200), failure(0), State::Valid, "TokenValid"),
            (valid, (50, 200), failure(2), State::Failing, "ClientRejected"),
            (valid, (-90, -5), failure(2), State::Expired, "ClientRejected"),
            // Nothing has reported the end: the operator does not run.
            (valid, (-190, -5), json!({}), State::Expired, "TokenValid"),
            (valid, (-121, 200), json!({}), State::Expiring, "RefreshOverdue"),
            (valid, (-119, 200), json!({}), State::Valid, "TokenValid"),
            (("False", "TargetConflict"), (50, 200), json!({}), State::NotReady, "TargetConflict"),
            (
                ("False", "Requesting"),
                (50, 200),
                json!({"/status/token": null}),
                State::Requesting,
                "Requesting",
            ),
            (
                ("False", "SpecInvalid"),
                (50, 200),
                json!({"/status/token": null}),
                State::NotReady,
                "SpecInvalid",
            ),
            (valid, (50, 200), json!({"/status/observedGeneration": -1}), State::Unseen, ""),
            (valid, (50, 200), json!({"/status": null}), State::Unreadable, ""),
            (valid, (50, 200), json!({"/status/token/expiresAt": "soon"}), State::Unreadable, ""),
            (valid, (50, 200), json!({"/spec/suspend": true}), State::Suspended, "Suspended"),
            (valid, (-90, -5), json!({"/spec/suspend": true}), State::Expired, "Suspended"),
            (valid, (50, 200), json!({"/metadata/generation": 1}), State::Valid, "TokenValid"),
            (valid, (50, 200), json!({"/metadata/generation": 2}), State::Unseen, "EarlierGeneration"),
            (valid, (-90, -5), json!({"/metadata/generation": 2}), State::Expired, "TokenValid"),
            (valid, (50, 200), json!({"/spec/suspend": false}), State::Valid, "TokenValid"),
            (valid, (50, 200), json!({"/metadata/deletionTimestamp": at(-1)}), State::Deleting, ""),
            (valid, (50, 200), json!({"/status/conditions": unsafe_}), State::Attention, "StaticMount"),
        ] {
            let row = row(ready, times, change);
            assert_eq!((row.state, row.reason.as_str()), (state, reason));
        }
    }

    #[test]
    fn rows_are_in_the_order_of_urgency_and_of_expiry() {
        let valid = |expires: i64| row(("True", "TokenValid"), (50, expires), json!({}));
        let suspended = row(("True", "TokenValid"), (50, 60), json!({"/spec/suspend": true}));
        let mut rows = [suspended, valid(300), valid(200), valid(-1)];
        rows.sort_by_key(Row::urgency);
        let expiry = rows.map(|row| row.expires_at.unwrap());
        assert_eq!(expiry, [at(-1), at(60), at(200), at(300)]);
    }

    #[test]
    fn next_is_the_attempt_while_refreshes_fail_and_nothing_while_suspended() {
        let failure = json!({"/status/lastFailure": {"at": at(-9), "reason": "RateLimited", "message": "m", "count": 1, "nextAttemptAt": at(30)}});
        let next = |change: Value| row(("True", "TokenValid"), (50, 200), change).next_at;
        assert_eq!(
            [next(failure), next(json!({})), next(json!({"/spec/suspend": true}))],
            [Some(at(30)), Some(at(50)), None]
        );
    }

    #[test]
    fn first_words_of_every_remedy_fit_the_column() {
        for reason in Reason::ALL {
            let words = first_words(reason.remedy());
            assert!((4..=MAX_REMEDY_BYTES + 3).contains(&words.len()), "{reason}: {words}");
            assert!(reason.remedy().starts_with(words.trim_end_matches("...")), "{words}");
        }
        assert_eq!(first_words(Reason::SpecInvalid.remedy()), "correct the field that the message names");
    }

    #[test]
    fn distance_is_in_units_of_kubectl() {
        for (seconds, expected) in
            [(0, "0s"), (119, "119s"), (200, "3m20s"), (-300, "-5m"), (7500, "2h5m"), (-180_000, "-2d2h")]
        {
            assert_eq!(distance(at(0), at(seconds)), expected);
        }
    }
}
