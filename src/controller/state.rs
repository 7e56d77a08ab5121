//! What the process remembers of a TokenSource between reconciliations, beside the record and the status. All of it may be
//! lost, and is when a term of leadership ends, except for a token that waits to be written: a restart costs one more
//! comparison and no token request.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use token_endpoint::Digest;
use tokensource_api::{LastFailure, Reason};
use tokio::time::Instant;

use super::mint_queue::NewToken;
use super::propagation::Prompt;
use super::refresh_token::KnownOriginal;
use super::report_rate::ReportTimes;
use crate::key::Key;
use crate::refresh::{self, Awaiting, Cause, Dampings, Failure, Tried};
use crate::secret::{Owner, Version};
use crate::status::Reported;
use crate::time::{moved, seconds_between};

/// The resourceVersion of the status that was written last, and what it reported.
pub type Written = (u64, Reported);

/// The state of one TokenSource.
#[derive(Debug, Default)]
pub struct SourceState {
    /// `metadata.uid`. The state of an earlier object of the same name does not apply.
    pub uid: String,
    /// The restorations of the API server's storage until the last reconciliation.
    pub restorations: u32,
    /// By how many seconds the corrected clock had been set until the last reconciliation.
    pub corrected: i32,
    /// The attempts that failed since the last success.
    pub failed: Option<Box<FailedAttempts>>,
    /// The version of the credentials Secret that was last read, and a digest of its values; the digest is `None` where
    /// the values could not be used.
    pub seen_credentials: Option<(Version, Option<Digest>)>,
    /// A digest of the values that the token in the target was requested with.
    pub minted_with: Option<Digest>,
    /// A token that waits to be written. No other member holds one.
    pub pending: Option<Box<NewToken>>,
    /// The last restoration of the target by a token request, after another writer had changed it.
    pub restored: Option<Box<Restoration>>,
    /// How often the changes of others lead to token requests; `None` before the first.
    pub dampings: Option<Box<Dampings>>,
    /// The last restoration of the target's metadata alone, with the generation of the spec.
    pub metadata_restored: Option<Box<(i64, Restoration)>>,
    /// Whether the API server has accepted a write, or a dry run, of this target.
    pub write_allowed: bool,
    /// The original refresh token, where it is the one that is sent.
    pub original: Option<Box<KnownOriginal>>,
    /// The pods that mount the target, where the spec asks for prompt propagation.
    pub prompt: Option<Box<Prompt>>,
    /// What blocked the last attempt.
    pub blocked: Option<Reason>,
    /// The status that was written last, until the watch has caught up.
    pub reported: Option<Box<Written>>,
    /// When status was and will be written; `None` while all is well.
    pub report_times: Option<Box<ReportTimes>>,
    /// The reconciliations in a row that the API server has failed.
    pub api_failures: u32,
    /// Which events about an expired token were published.
    pub expiry_events: ExpiryEvents,
}

/// The longest time for which a token that cannot be written holds token requests back.
const MAX_HOLD: Duration = Duration::from_secs(60);

/// Restorations less than this apart count as one conflict, in seconds.
const CONFLICT_WINDOW: u64 = 10 * 60;

/// Restorations of a target that another writer has changed, in a row.
#[derive(Clone, Debug)]
pub struct Restoration {
    /// The last one.
    pub at: Timestamp,
    /// Their number.
    pub times: u32,
    /// The field manager of the other writer, where managedFields name it.
    pub by: Option<Box<str>>,
}

impl Restoration {
    /// Counts a restoration at `now`; the row starts anew where `before` is not recent.
    #[must_use]
    pub fn again(before: Option<&Self>, now: Timestamp, by: Option<Box<str>>) -> Self {
        let before = before.filter(|before| before.is_recent(now));
        Restoration {
            at: now,
            times: before.map_or(1, |before| before.times.saturating_add(1)),
            by: by.or_else(|| before?.by.clone()),
        }
    }

    /// Whether the last one was less than 10 minutes before `now`.
    #[must_use]
    pub fn is_recent(&self, now: Timestamp) -> bool {
        seconds_between(self.at, now) < CONFLICT_WINDOW
    }
}

/// Failed attempts in a row, with the report of the last one.
#[derive(Clone, Debug)]
pub struct FailedAttempts {
    /// The part that decisions need.
    pub failure: Failure,
    /// Their number.
    pub count: u32,
    /// Whether the values of the credentials have changed since: the next attempt is the first of a new row.
    pub values_changed: bool,
    /// When the last one failed.
    pub at: Timestamp,
    /// The reason of the last failure.
    pub reason: Reason,
    /// Its message, with the remedy.
    pub message: String,
}

/// The events about an expired token. At an endpoint that is too slow for its TokenSources, each token would be followed by
/// two of them; like client-go's filter, only the first pair in [`EXPIRY_EVENTS_INTERVAL`] is published.
#[derive(Debug, Default)]
pub struct ExpiryEvents {
    published_at: Option<Instant>,
    /// The last expiry was published by no event, so that its end is not either.
    is_silent: bool,
}

/// The shortest time between two events about an expired token.
const EXPIRY_EVENTS_INTERVAL: Duration = Duration::from_secs(10 * 60);

impl ExpiryEvents {
    /// Whether an event with this reason repeats one that was published a short time ago.
    pub fn is_repeated(&self, before: &Reported, reason: &str, now: Instant) -> bool {
        if reason == Reason::Expired.as_str() {
            let is_recent = |at: Instant| now.saturating_duration_since(at) < EXPIRY_EVENTS_INTERVAL;
            return self.published_at.is_some_and(is_recent);
        }
        let ends_expiry = before.ready() == Some((false, Some(Reason::Expired)));
        ends_expiry && self.is_silent && reason == Reason::TokenValid.as_str()
    }

    /// An event with this reason was published, or not: as a repetition, or because of the rate.
    pub fn ended(&mut self, reason: &str, is_published: bool, now: Instant) {
        if reason == Reason::Expired.as_str() {
            self.is_silent = !is_published;
            if is_published {
                self.published_at = Some(now);
            }
        }
    }
}

impl SourceState {
    /// Makes this the state of `owner`. For another object than before, it restores only the wait after a failure, from the
    /// reported status.
    pub fn is_about(&mut self, reported: &Reported, owner: &Owner) {
        if self.uid == owner.uid {
            return;
        }
        *self = SourceState {
            uid: owner.uid.clone(),
            failed: reported.last_failure.as_deref().and_then(FailedAttempts::from_status).map(Box::new),
            restorations: self.restorations,
            corrected: self.corrected,
            ..SourceState::default()
        };
    }

    /// The corrected clock was set by so many seconds since the process started. What happened before is as long ago as it
    /// was, and what was waited for is as far away.
    pub fn clock_is(&mut self, corrected: i32) {
        let by = i64::from(corrected) - i64::from(std::mem::replace(&mut self.corrected, corrected));
        if by == 0 {
            return;
        }
        let shift = |at: &mut Timestamp| *at = moved(*at, by);
        if let Some(failed) = &mut self.failed {
            shift(&mut failed.at);
            shift(&mut failed.failure.failed_at);
            failed.failure.next_attempt_at.iter_mut().for_each(shift);
        }
        if let Some(token) = &mut self.pending {
            shift(&mut token.refresh_at);
        }
        if let Some(dampings) = &mut self.dampings {
            dampings.refresh_at.iter_mut().for_each(shift);
        }
        if let Some(restored) = &mut self.restored {
            shift(&mut restored.at);
        }
        if let Some(restored) = &mut self.metadata_restored {
            shift(&mut restored.1.at);
        }
    }

    /// The part of a token that waits to be written that decisions need.
    #[must_use]
    pub fn pending_for_decision(&self) -> Option<refresh::Pending<'_>> {
        let token = self.pending.as_deref()?;
        Some(refresh::Pending { inputs: &token.record.inputs, refresh_at: token.refresh_at })
    }

    /// The API server's storage was restored so many times: resourceVersions of before say nothing, and the next token is
    /// requested only after a live read of what it is requested for.
    pub fn storage_is(&mut self, restorations: u32) {
        if std::mem::replace(&mut self.restorations, restorations) != restorations {
            self.seen_credentials = None;
            self.minted_with = None;
            self.original = None;
            self.reported = None;
            self.write_allowed = false;
        }
    }

    /// A token that is still not written after a reconciliation that ended well waits for a person, a quota or the like, and
    /// not for the API server: it holds no token request back, else one tenant could stop all. So could the tenants behind
    /// an admission webhook that fails: a token holds requests back for [`MAX_HOLD`] only.
    pub fn hold_nothing_back(&mut self, ended_well: bool) {
        if let Some(token) = &mut self.pending {
            token.is_blocked = ended_well;
            if ended_well || token.received_at.elapsed() > MAX_HOLD {
                token.unwritten = None;
            }
        }
    }

    /// What waits for the API server. The token in the target lives for `remaining` more seconds.
    #[must_use]
    pub fn awaiting(&self, remaining: u64) -> Awaiting {
        if self.pending.is_some() { Awaiting::Token } else { Awaiting::Nothing(remaining) }
    }

    /// The watch has shown this version: what was written before need not be remembered.
    pub fn has_shown(&mut self, revision: u64) {
        self.reported.take_if(|written| written.0 <= revision);
    }

    fn has_unwritten(&self) -> bool {
        let refused = self.failed.as_ref().is_some_and(|failed| failed.failure.refused_target.is_some());
        self.pending.as_ref().is_some_and(|token| !token.is_blocked) && !refused
    }
}

impl FailedAttempts {
    /// Restores the failed attempts that a previous process reported; `None` where no wait is to be continued.
    #[must_use]
    pub fn from_status(last: &LastFailure) -> Option<Self> {
        let mut inputs = last.inputs.as_deref()?.split('/').map(str::to_owned);
        let tried = Tried { spec: inputs.next()?, request: inputs.next()?, credentials: inputs.next()? };
        let reason = Reason::ALL.into_iter().find(|reason| reason.as_str() == last.reason)?;
        if reason == Reason::EndpointRefusedByPolicy {
            // This process may have another egress policy, and checking it costs no token request.
            return None;
        }
        let waits_for_a_change = last.next_attempt_at.is_none();
        if waits_for_a_change
            && matches!(reason, Reason::TargetRefused | Reason::TargetConflict | Reason::TemplateInvalid)
        {
            // Ends with another target, or another build of the operator; the status does not say which ones failed.
            return None;
        }
        let count = u32::try_from(last.count).ok().filter(|count| *count > 0)?;
        Some(FailedAttempts {
            failure: Failure {
                tried,
                failed_at: last.at,
                next_attempt_at: last.next_attempt_at,
                issuer_asks_to_wait: reason == Reason::RateLimited,
                refused_target: None,
            },
            count,
            values_changed: false,
            at: last.at,
            reason,
            message: last.message.clone(),
        })
    }

    /// The number of failed attempts in a row, including the current one, which used `tried`. Another spec or other values
    /// of the credentials start a new row; but where the endpoint itself fails, values change nothing, and another spec only
    /// if it caused the attempt, which is damped. A `known_rejection` was not sent, and does not increase the number.
    #[must_use]
    pub fn count_with(
        before: Option<&Self>,
        tried: &Tried,
        cause: Option<Cause>,
        known_rejection: bool,
    ) -> u32 {
        let continues = |before: &&Self| {
            let has_same_spec = before.failure.tried.spec == tried.spec;
            if before.reason == Reason::EndpointUnavailable {
                has_same_spec || cause != Some(Cause::Spec)
            } else {
                has_same_spec && !before.values_changed
            }
        };
        let before = before.filter(continues);
        let count = before.map_or(0, |before| before.count);
        if known_rejection { count.max(1) } else { count.saturating_add(1) }
    }

    /// `status.lastFailure`.
    #[must_use]
    pub fn to_status(&self) -> LastFailure {
        let Tried { spec, request, credentials } = &self.failure.tried;
        LastFailure {
            at: self.at,
            reason: self.reason.to_string(),
            message: self.message.clone(),
            count: i32::try_from(self.count).unwrap_or(i32::MAX),
            next_attempt_at: self.failure.next_attempt_at,
            inputs: Some(format!("{spec}/{request}/{credentials}")),
        }
    }
}

/// The states of all TokenSources. A reconciliation takes its state out, and puts it back when it ends, even by a panic.
#[derive(Debug, Default)]
pub struct States(Mutex<HashMap<Key, Box<SourceState>>>);

impl States {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Box<SourceState>>> {
        // Ignores poisoning: no code panics between the steps of a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out the state of a TokenSource; a new one where there is none.
    #[must_use]
    pub fn take(&self, source: &Key) -> Box<SourceState> {
        self.lock().remove(source).unwrap_or_default()
    }

    /// Puts a state back, unless the TokenSource is gone.
    pub fn put(&self, source: &Key, state: Box<SourceState>, is_gone: bool) {
        if !is_gone {
            self.lock().insert(source.clone(), state);
        }
    }

    /// The watch has shown this version of a TokenSource.
    pub fn has_shown(&self, source: &Key, revision: u64) {
        if let Some(state) = self.lock().get_mut(source) {
            state.has_shown(revision);
        }
    }

    /// Removes the state of a TokenSource.
    pub fn forget(&self, source: &Key) {
        self.lock().remove(source);
    }

    /// Removes all states.
    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Whether something waits to be written, and the API server has not refused it.
    #[must_use]
    pub fn has_unwritten(&self, source: &Key) -> bool {
        self.lock().get(source).is_some_and(|state| state.has_unwritten())
    }

    /// The TokenSources for which [`Self::has_unwritten`] holds.
    #[must_use]
    pub fn unwritten(&self) -> Vec<Key> {
        let states = self.lock();
        states.iter().filter(|(_, state)| state.has_unwritten()).map(|(key, _)| key.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_attempts_from_status_continue_unless_the_restart_may_have_ended_the_wait() {
        let last = |reason: Reason, count| LastFailure {
            at: Timestamp::UNIX_EPOCH,
            reason: reason.to_string(),
            message: "m".into(),
            count,
            next_attempt_at: Some(Timestamp::UNIX_EPOCH),
            inputs: Some("spec/request/credentials".into()),
        };
        let rejected = last(Reason::ClientRejected, 2);
        assert_eq!(FailedAttempts::from_status(&rejected).map(|failed| failed.to_status()), Some(rejected));
        assert!(
            FailedAttempts::from_status(&last(Reason::ClientRejected, 0)).is_none(),
            "a count of 0 means recovered"
        );
        assert!(
            FailedAttempts::from_status(&last(Reason::EndpointRefusedByPolicy, 1)).is_none(),
            "the egress policy may be another one"
        );
        let refused = last(Reason::TargetRefused, 1);
        assert!(FailedAttempts::from_status(&refused).is_some());
        let without_retry = LastFailure { next_attempt_at: None, ..refused };
        assert!(
            FailedAttempts::from_status(&without_retry).is_none(),
            "the target may have been deleted since"
        );
    }

    #[test]
    fn clock_is_keeps_waits_as_long_as_they_were_when_the_clock_is_set() {
        let at = |second| Timestamp::from_second(1_800_000_000 + second).unwrap();
        for by in [-86_400, 86_400_i32] {
            let last = LastFailure {
                at: at(i64::from(by)),
                reason: Reason::ClientRejected.to_string(),
                message: "m".into(),
                count: 4,
                next_attempt_at: Some(at(i64::from(by) + 600)),
                inputs: Some("spec/request/credentials".into()),
            };
            let restored = || Restoration::again(None, at(i64::from(by) + 10), None);
            let mut dampings = Dampings::default();
            dampings.refresh_at = Some(at(i64::from(by) + 60));
            let mut state = SourceState {
                failed: FailedAttempts::from_status(&last).map(Box::new),
                dampings: Some(Box::new(dampings)),
                restored: Some(Box::new(restored())),
                metadata_restored: Some(Box::new((1, restored()))),
                corrected: by,
                ..SourceState::default()
            };
            // What had been set is set back.
            state.clock_is(0);
            state.clock_is(0);
            let failed = state.failed.unwrap();
            assert_eq!((failed.at, failed.failure.failed_at), (at(0), at(0)));
            assert_eq!(failed.failure.next_attempt_at, Some(at(600)));
            assert_eq!(state.dampings.unwrap().refresh_at, Some(at(60)));
            assert_eq!((state.restored.unwrap().at, state.metadata_restored.unwrap().1.at), (at(10), at(10)));
        }
    }

    #[test]
    fn failed_attempts_count_restarts_with_another_spec_or_other_values() {
        let tried = |spec: &str, request: &str, credentials: &str| Tried {
            spec: spec.into(),
            request: request.into(),
            credentials: credentials.into(),
        };
        let before = FailedAttempts {
            failure: Failure {
                tried: tried("s", "r", "c"),
                failed_at: Timestamp::UNIX_EPOCH,
                next_attempt_at: None,
                issuer_asks_to_wait: false,
                refused_target: None,
            },
            count: 3,
            values_changed: false,
            at: Timestamp::UNIX_EPOCH,
            reason: Reason::ClientRejected,
            message: String::new(),
        };
        let count =
            |tried: &Tried, is_known| FailedAttempts::count_with(Some(&before), tried, None, is_known);
        assert_eq!((count(&tried("s", "r", "c"), false), count(&tried("s", "r", "c"), true)), (4, 3));
        assert_eq!(count(&tried("s", "again", "c"), false), 4, "a new refresh request");
        assert_eq!((count(&tried("t", "r", "c"), false), count(&tried("t", "r", "c"), true)), (1, 1));
        assert_eq!(count(&tried("s", "r", "d"), false), 4, "another version, perhaps of the same values");
        let before = FailedAttempts { values_changed: true, ..before.clone() };
        let count = |before: Option<&FailedAttempts>, tried: &Tried, cause| {
            FailedAttempts::count_with(before, tried, cause, false)
        };
        assert_eq!(count(Some(&before), &tried("s", "r", "d"), None), 1);
        assert_eq!(FailedAttempts::count_with(None, &tried("s", "r", "c"), None, true), 1);
        // An endpoint that is down is not healed by values, nor by a spec that changes again and again.
        let down = FailedAttempts { reason: Reason::EndpointUnavailable, ..before };
        assert_eq!(count(Some(&down), &tried("s", "r", "d"), Some(Cause::Credentials)), 4);
        assert_eq!(count(Some(&down), &tried("t", "r", "c"), None), 4);
        assert_eq!(count(Some(&down), &tried("t", "r", "c"), Some(Cause::Spec)), 1);
    }

    #[test]
    fn expiry_events_are_published_in_pairs_and_not_again_for_ten_minutes() {
        let reported = |reason: &str| {
            let ready = serde_json::json!({
                "type": "Ready", "status": "False", "reason": reason, "message": "",
                "lastTransitionTime": "2026-11-24T20:00:00Z",
            });
            let status = serde_json::json!({"conditions": [ready]});
            Reported::of(&serde_json::from_value(status).unwrap())
        };
        let start = Instant::now();
        let mut events = ExpiryEvents::default();
        let mut publish = |before: &str, reason: &str, seconds: u64, admits: bool| {
            let now = start + Duration::from_secs(seconds);
            let is_published = !events.is_repeated(&reported(before), reason, now) && admits;
            events.ended(reason, is_published, now);
            is_published
        };
        // What the rate left out was not published: the next one is no repetition, and its end has an event only if it has.
        assert!(!publish("TokenValid", "Expired", 0, false) && !publish("Expired", "TokenValid", 1, true));
        let mut is_repeated = |before: &str, reason: &str, seconds: u64| {
            let seconds = seconds + 10;
            !publish(before, reason, seconds, true)
        };
        assert!(!is_repeated("TokenValid", "Expired", 0) && !is_repeated("Expired", "TokenValid", 5));
        assert!(is_repeated("TokenValid", "Expired", 20) && is_repeated("Expired", "TokenValid", 25));
        assert!(!is_repeated("TokenValid", "EndpointUnavailable", 30), "another reason");
        assert!(!is_repeated("ClientRejected", "TokenValid", 40), "the end of something else");
        assert!(!is_repeated("TokenValid", "Expired", 601) && !is_repeated("Expired", "TokenValid", 605));
    }
}
