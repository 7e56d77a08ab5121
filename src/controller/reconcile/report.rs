//! Reports: status where it changed, and events where Ready or the failure changed.
#![allow(
    clippy::indexing_slicing,
    reason = "writing a member of a JSON object that was made here does not panic"
)]

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Resource;
use serde_json::{Value, json};
use tokensource_api::{Reason, TokenSource, TokenSourceStatus};
use tracing::{debug, warn};

use super::reconciliation::Reconciliation;
use crate::cluster::CallError;
use crate::controller::context::Context;
use crate::controller::spans;
use crate::controller::state::{FailedAttempts, SourceState, Written};
use crate::metrics::{ObservedSource, TokenTimes};
use crate::refresh::{DEFAULT_MAX_INTERVAL, Policy, refresh_at};
use crate::secret::Record;
use crate::spec::Identity;
use crate::status::{Problem, Reported, Situation, status};

impl Reconciliation<'_> {
    /// Writes status where it changed, and its events.
    pub(super) async fn report(&mut self, problem: Option<Problem>) -> Result<(), CallError> {
        let before = before(self.source, self.reported, self.state);
        let after = self.status(problem, &before);
        self.context.metrics.observed(&self.identity.key, observed_source(&after, self.source));
        let written = write(self.context, self.source, self.identity, &before, after).await?;
        if written.is_some() {
            self.state.reported = written.map(Box::new);
        }
        Ok(())
    }

    fn status(&self, problem: Option<Problem>, before: &Reported) -> TokenSourceStatus {
        let record = self.record();
        let now = self.context.now();
        let due = |record: &Record| {
            refresh_at(now, self.context.since, &self.identity.owner.uid, &self.spec.policy, record)
        };
        status(&Situation {
            now,
            generation: self.source.metadata.generation.unwrap_or_default(),
            provider: Some(self.spec.description.provider),
            target: &self.identity.target.name,
            token: record.as_deref().map(|record| (record, due(record))),
            fits_spec: self.target_is_intact()
                && record.as_ref().is_some_and(|record| {
                    record.is_of_another_version()
                        || (record.inputs.provider == self.spec.wanted.provider
                            && record.template == self.spec.wanted.template)
                }),
            suspended: self.source.spec.suspend == Some(true),
            problem,
            remark: self.repeated_conflict(),
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
    let reason = |name: &str| Reason::ALL.into_iter().find(|reason| reason.as_str() == name);
    ObservedSource {
        ready: ready
            .and_then(|ready| Some((ready.status == "True", reason(&ready.reason)?)))
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
) {
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
        },
        prompt: false,
        propagation: None,
        before: &before,
    });
    context.metrics.observed(&identity.key, observed_source(&after, source));
    match write(context, source, identity, &before, after).await {
        Ok(None) => {}
        Ok(written) => state.reported = written.map(Box::new),
        Err(error) => debug!(source = %identity.key, %error, "the status could not be written"),
    }
}

/// The last report: the one that this process wrote, or what the watch has shown since.
pub(super) fn before(source: &TokenSource, reported: &Reported, state: &mut SourceState) -> Reported {
    let seen = revision(source.metadata.resource_version.as_deref());
    state.reported = state.reported.take().filter(|written| seen < written.0);
    state.reported.as_ref().map_or(reported, |written| &written.1).clone()
}

fn revision(resource_version: Option<&str>) -> u64 {
    resource_version.and_then(|version| version.parse().ok()).unwrap_or(u64::MAX)
}

/// Writes a status that differs from the one before, and its events.
pub(super) async fn write(
    context: &Context,
    source: &TokenSource,
    identity: &Identity,
    before: &Reported,
    after: TokenSourceStatus,
) -> Result<Option<Written>, CallError> {
    // Only the leader writes: this write has no precondition, and could overwrite a newer report.
    if before.is(&after) || !context.serves(&identity.key) {
        return Ok(None);
    }
    let body = body(identity, &after);
    let writing = context.kubernetes.write_status(&identity.key, &body);
    let resource_version = match spans::within(spans::status(), writing).await {
        // The TokenSource is gone, or another object has its name.
        Err(CallError::Conflict | CallError::NotFound) => return Ok(None),
        Err(CallError::Refused(message)) => {
            warn!(source = %identity.key, error = %message, "the API server refuses the status");
            return Ok(None);
        }
        other => other?,
    };
    for (warning, reason, note) in events(before, &after) {
        let regarding = ObjectReference { uid: source.metadata.uid.clone(), ..source.object_ref(&()) };
        let sending = context.kubernetes.publish_event(regarding, &context.instance, warning, &reason, &note);
        if let Err(error) = Box::pin(sending).await {
            debug!(source = %identity.key, %error, "an event could not be sent");
        }
    }
    Ok(Some((revision(resource_version.as_deref()), Reported::of(&after))))
}

/// The JSON merge patch of a status; members that are absent are set to null.
fn body(identity: &Identity, status: &TokenSourceStatus) -> Value {
    let mut value = json!(status);
    for member in ["token", "lastFailure"] {
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
