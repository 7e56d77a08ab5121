//! Reports: status where it changed, and events where Ready or the failure changed.
#![allow(
    clippy::indexing_slicing,
    reason = "writing a member of a JSON object that was made here does not panic"
)]

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use serde_json::{Value, json};
use tokensource_api::{Reason, TokenSource, TokenSourceStatus};
use tokio::time::Instant;
use tracing::{debug, warn};

use super::reconciliation::Reconciliation;
use crate::cluster::CallError;
use crate::controller::context::Context;
use crate::controller::expiry_events::ExpiryEvents;
use crate::controller::failed_attempts::FailedAttempts;
use crate::controller::report_rate::{Attempts, Due};
use crate::controller::spans;
use crate::controller::state::SourceState;
use crate::metrics::{ObservedSource, TokenTimes};
use crate::refresh::{DEFAULT_MAX_INTERVAL, DatedRecord, Policy};
use crate::restorations::comparable;
use crate::spec::Identity;
use crate::status::{News, Problem, Reported, Situation, status};
use crate::text::shown;
use crate::time::seconds_between;

/// The wait before a status is written again that the API server has refused.
const REFUSED_RETRY: Duration = Duration::from_secs(5 * 60);

impl Reconciliation<'_> {
    /// Writes status where it changed, and its events. Returns after how long to do it where that has to wait.
    pub(super) async fn report(&mut self, problem: Option<Problem>) -> Result<Option<Duration>, CallError> {
        let before = before(self.source, self.reported, self.state);
        let after = self.status(problem, &before);
        write(self.context, self.source, self.identity, &before, after, self.state).await
    }

    fn status(&self, problem: Option<Problem>, before: &Reported) -> TokenSourceStatus {
        let dated = self.context.record(self.identity);
        let record = dated.as_ref().map(|dated| &*dated.record);
        let due = |dated: &DatedRecord| dated.refresh_at(&self.identity.owner.uid, &self.spec.policy);
        status(&Situation {
            now: self.context.now(),
            generation: self.source.metadata.generation.unwrap_or_default(),
            provider: Some(self.spec.description.provider),
            target: &self.identity.target.name,
            token: record.zip(dated.as_ref().map(due)),
            fits_spec: self.target_is_intact()
                && record.is_some_and(|record| {
                    record.is_of_another_version()
                        || (record.inputs.provider == self.spec.wanted.provider
                            && record.template == self.spec.wanted.template)
                }),
            suspended: self.source.spec.suspend == Some(true),
            problem,
            remark: self.repeated_conflict().or_else(|| self.held_remark()),
            last_failure: self.state.failed.as_deref().map(FailedAttempts::to_status),
            policy: self.spec.policy,
            prompt: self.spec.prompt,
            propagation: self.state.prompt.as_ref().and_then(|prompt| prompt.result()),
            before,
        })
    }
}

/// The part of a status that metrics show.
fn observed_source(status: &TokenSourceStatus, source: &TokenSource) -> ObservedSource {
    let ready = status.conditions.iter().find(|it| it.type_ == "Ready");
    ObservedSource {
        ready: ready
            .and_then(|ready| Some((ready.status == "True", Reason::of(&ready.reason)?)))
            .unwrap_or((false, Reason::Requesting)),
        token: status.token.as_ref().map(|token| TokenTimes {
            refresh_at: token.refresh_at.as_second(),
            expires_at: token.expires_at.as_second(),
        }),
        suspended: source.spec.suspend == Some(true),
    }
}

/// Writes the status of a TokenSource whose spec cannot be resolved.
pub(super) async fn invalid(
    context: &Context,
    source: &TokenSource,
    reported: &Reported,
    identity: &Identity,
    state: &mut SourceState,
    problem: Problem,
) -> Result<Option<Duration>, CallError> {
    let before = before(source, reported, state);
    let after = status(&Situation {
        now: context.now(),
        generation: source.metadata.generation.unwrap_or_default(),
        provider: None,
        target: &identity.target.name,
        token: None,
        fits_spec: false,
        suspended: false,
        problem: Some(problem),
        remark: None,
        last_failure: None,
        policy: Policy {
            before: None,
            max_interval: DEFAULT_MAX_INTERVAL,
            propagation_delay: context.propagation_delay,
            min_interval: 0,
        },
        prompt: false,
        propagation: None,
        before: &before,
    });
    write(context, source, identity, &before, after, state).await
}

/// The last report: the one that this process wrote, or what the watch has shown since.
pub(super) fn before(source: &TokenSource, reported: &Reported, state: &mut SourceState) -> Reported {
    state.has_shown(comparable(source.metadata.resource_version.as_deref()));
    state.reported.as_ref().map_or(reported, |written| &written.1).clone()
}

/// Writes a status that has news, and its events. Returns after how long to do it where that has to wait.
async fn write(
    context: &Context,
    source: &TokenSource,
    identity: &Identity,
    before: &Reported,
    after: TokenSourceStatus,
    state: &mut SourceState,
) -> Result<Option<Duration>, CallError> {
    context.metrics.observed(&identity.key, observed_source(&after, source));
    // Only the leader writes: this write has no precondition, and could overwrite a newer report.
    if !context.serves(&identity.key) {
        return Ok(None);
    }
    match News::of(before, &after) {
        News::Nothing => {
            if let Some(times) = &mut state.report_times {
                times.nothing_is_due();
            }
            return Ok(None);
        }
        News::Other => state.report_times = None,
        news @ (News::Numbers | News::Problem) => {
            let attempts = (news == News::Numbers).then(|| attempts(context, &after));
            let times = state.report_times.get_or_insert_default();
            let ready = |of: &Reported| of.ready().is_some_and(|(ready, _)| ready);
            let ends_ready = ready(before) && !ready(&Reported::of(&after));
            match times.due(
                attempts,
                ends_ready,
                &context.report_rate,
                &identity.key.namespace,
                Instant::now(),
            ) {
                Due::Now => {}
                Due::In(wait) => return Ok(Some(wait)),
                Due::Never => return Ok(None),
            }
        }
    }
    let reported = Reported::of(&after);
    // Before the write: the watch may show it before the API server's answer is here.
    context.sources.will_report(&identity.key, &reported);
    let body = body(identity, &after);
    let writing = context.kubernetes.write_status(&identity.key, &body);
    let resource_version = match spans::within(spans::status(), writing).await {
        Err(error @ (CallError::Conflict | CallError::NotFound)) => {
            // Where the TokenSource is gone, or another object has its name, nothing is left to say.
            let alive = context.kubernetes.source_generation(&identity.key, &identity.owner.uid).await?;
            let why = format!("status: {error}");
            return alive.map_or(Ok(None), |_| Err(CallError::Unavailable(why.into())));
        }
        Err(CallError::Refused(message)) => {
            warn!(source = %identity.key, error = %shown(&message), "the API server refuses the status");
            return Ok(Some(REFUSED_RETRY));
        }
        other => other?,
    };
    if let Some(times) = &mut state.report_times {
        times.written(Instant::now());
    }
    state.reported = Some(Box::new((comparable(resource_version.as_deref()), reported)));
    for (warning, reason, note) in events(before, &after) {
        let now = Instant::now();
        let expiry_events = state.expiry_events.as_deref();
        let is_news = !expiry_events.is_some_and(|events| events.is_repeated(before, &reason, now));
        let is_admitted = is_news && context.event_rate.admits(&identity.key.namespace, now);
        ExpiryEvents::ended(&mut state.expiry_events, &reason, is_admitted, now);
        if !is_admitted {
            if is_news {
                debug!(source = %identity.key, reason, "an event was left out: the namespace has too many");
            }
            continue;
        }
        let regarding = ObjectReference { uid: source.metadata.uid.clone(), ..source.object_ref(&()) };
        let sending = context.kubernetes.publish_event(regarding, &context.instance, warning, &reason, &note);
        if let Err(error) = Box::pin(sending).await {
            debug!(source = %identity.key, %error, "an event could not be sent");
        }
    }
    Ok(None)
}

/// The failed attempts that a status reports.
fn attempts(context: &Context, status: &TokenSourceStatus) -> Attempts {
    status.last_failure.as_ref().map_or_else(Attempts::default, |last| Attempts {
        count: u32::try_from(last.count).unwrap_or_default(),
        wait: last
            .next_attempt_at
            .map_or(Duration::ZERO, |at| Duration::from_secs(seconds_between(context.now(), at))),
    })
}

/// The JSON merge patch of a status; members that are absent are set to null.
fn body(identity: &Identity, status: &TokenSourceStatus) -> Value {
    let mut value = json!(status);
    for member in ["observedGeneration", "conditions", "provider", "binding", "token", "lastFailure"] {
        if value.get(member).is_none() {
            value[member] = Value::Null;
        }
    }
    for (member, optional) in
        [("token", "scope"), ("lastFailure", "nextAttemptAt"), ("lastFailure", "inputs")]
    {
        if value[member].is_object() && value[member].get(optional).is_none() {
            value[member][optional] = Value::Null;
        }
    }
    json!({"metadata": {"uid": identity.owner.uid}, "status": value})
}

/// The events: warning or not, reason, note. Only for a change of Ready's status and of the reason of a failure; a
/// successful refresh has none.
fn events(before: &Reported, after: &TokenSourceStatus) -> Vec<(bool, String, String)> {
    let now = Reported::of(after);
    let Some(ready) = after.conditions.iter().find(|it| it.type_ == "Ready") else { return vec![] };
    if ready.reason == Reason::NamespaceNotOpened.as_str() {
        // Events need the rights that are missing.
        return vec![];
    }
    let mut events = vec![];
    if now.failing() != before.failing()
        && let Some(last) = now.last_failure.as_deref().filter(|last| last.count > 0)
    {
        events.push((true, last.reason.clone(), last.message.clone()));
    }
    // A failing refresh has its own event above, except where no attempt was made: credentials are missing.
    let failing_refresh = ready.reason == Reason::RefreshFailing.as_str();
    let is_reported = events.iter().any(|(_, reason, _)| *reason == ready.reason)
        || (failing_refresh && now.failing().is_some());
    if now.ready() != before.ready() && !is_reported {
        let warns = ready.status != "True" || failing_refresh;
        events.push((warns, ready.reason.clone(), ready.message.clone()));
    }
    events
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

    use super::*;
    use tokensource_api::LastFailure;

    fn reported(ready: &str, reason: &str, failing: Option<(&str, i32)>) -> TokenSourceStatus {
        TokenSourceStatus {
            conditions: vec![Condition {
                type_: "Ready".into(),
                status: ready.into(),
                reason: reason.into(),
                message: "m".into(),
                observed_generation: None,
                last_transition_time: Time(Timestamp::UNIX_EPOCH),
            }],
            last_failure: failing.map(|(reason, count)| LastFailure {
                at: Timestamp::UNIX_EPOCH,
                reason: reason.into(),
                message: "m".into(),
                count,
                next_attempt_at: None,
                inputs: None,
            }),
            ..TokenSourceStatus::default()
        }
    }

    /// As the API server applies a merge patch (RFC 7396).
    fn merge(into: &mut Value, patch: Value) {
        let Value::Object(patch) = patch else { return *into = patch };
        if !into.is_object() {
            *into = json!({});
        }
        for (name, value) in patch {
            if value.is_null() {
                into.as_object_mut().unwrap().remove(&name);
            } else {
                merge(&mut into[name], value);
            }
        }
    }

    #[test]
    fn patch_of_a_status_leaves_nothing_of_the_one_before() {
        let full = json!({
            "observedGeneration": 1, "provider": "vgs", "binding": {"name": "b"},
            "conditions": reported("True", "TokenValid", None).conditions,
            "token": {"id": "i", "issuedAt": Timestamp::UNIX_EPOCH, "expiresAt": Timestamp::UNIX_EPOCH,
                "refreshAt": Timestamp::UNIX_EPOCH, "type": "Bearer", "scope": "s"},
            "lastFailure": {"at": Timestamp::UNIX_EPOCH, "reason": "r", "message": "m", "count": 1,
                "nextAttemptAt": Timestamp::UNIX_EPOCH, "inputs": "i"},
        });
        let without = |pointer: &str, member: &str| {
            let mut status = full.clone();
            let of = status.pointer_mut(pointer).unwrap().as_object_mut().unwrap();
            of.remove(member).expect(member);
            status
        };
        let some = [("/token", "scope"), ("/lastFailure", "nextAttemptAt"), ("/lastFailure", "inputs")];
        let members = full.as_object().unwrap().keys().map(|member| ("", member.as_str()));
        let identity = Identity {
            key: crate::key::Key::new("ns", "a"),
            owner: crate::secret::Owner { name: "a".into(), uid: "u".into() },
            target: crate::key::Key::new("ns", "a"),
            credentials: Some(crate::key::Key::new("ns", "c")),
            lender: None,
            refresh_token: crate::key::Key::new("ns", "r"),
        };
        for (pointer, member) in members.chain(some) {
            let after: TokenSourceStatus = serde_json::from_value(without(pointer, member)).unwrap();
            let mut stored = full.clone();
            merge(&mut stored, body(&identity, &after)["status"].clone());
            assert_eq!(serde_json::from_value::<TokenSourceStatus>(stored).unwrap(), after, "{member}");
        }
    }

    #[test]
    fn events_only_when_ready_or_the_failure_reason_changes() {
        let nothing = TokenSourceStatus::default();
        let valid = reported("True", "TokenValid", None);
        let failing = reported("True", "RefreshFailing", Some(("ClientRejected", 1)));
        let still_failing = reported("True", "RefreshFailing", Some(("ClientRejected", 2)));
        let another_failure = reported("True", "RefreshFailing", Some(("RateLimited", 3)));
        let expired = reported("False", "RateLimited", Some(("RateLimited", 4)));
        let recovered = reported("True", "TokenValid", Some(("RateLimited", 0)));
        let reasons = |before, after| {
            events(&Reported::of(before), after)
                .into_iter()
                .map(|(warning, reason, _)| (warning, reason))
                .collect::<Vec<_>>()
        };
        let one = |warning, reason: &str| vec![(warning, reason.to_owned())];
        assert_eq!(reasons(&nothing, &valid), one(false, "TokenValid"));
        assert_eq!(reasons(&valid, &valid), []);
        assert_eq!(reasons(&valid, &failing), one(true, "ClientRejected"));
        assert_eq!(reasons(&failing, &still_failing), []);
        assert_eq!(reasons(&still_failing, &another_failure), one(true, "RateLimited"));
        assert_eq!(reasons(&another_failure, &expired), one(true, "RateLimited"));
        assert_eq!(reasons(&expired, &recovered), one(false, "TokenValid"));
        let waiting = reported("True", "RefreshFailing", None);
        assert_eq!(reasons(&valid, &waiting), one(true, "RefreshFailing"), "no attempt was made");
        assert_eq!(reasons(&waiting, &waiting), []);
    }
}
