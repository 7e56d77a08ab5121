//! What is known of a TokenSource between reconciliations, beside its record and its status. All of it may be lost, but for
//! what waits to be written: a restart then costs a comparison more, and no token request.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use token_endpoint::Digest;
use tokensource_api::{LastFailure, Reason};

use super::mint_queue::{MintResult, NewToken};
use super::propagation::Prompt;
use super::refresh_token::{KnownOriginal, UnsavedRefreshToken};
use crate::key::Key;
use crate::refresh::{self, Failure, Tried};
use crate::secret::{Owner, Version};
use crate::status::Reported;
use crate::time::seconds_between;

/// What was told by a status that was written, and the revision that it got.
pub type Written = (u64, Reported);

/// What this process knows of one TokenSource beside its record and its status.
#[derive(Debug, Default)]
pub struct SourceState {
    /// The uid of the object that this is about: another object of the same name starts anew.
    pub uid: String,
    /// The attempts that failed since the last success.
    pub failed: Option<Box<FailedAttempts>>,
    /// The state of the credentials Secret that was last read, and a digest of its values; `None` where they
    /// could not be used.
    pub seen_credentials: Option<(Version, Option<Digest>)>,
    /// A digest of the values that the token in the target was requested with.
    pub minted_with: Option<Digest>,
    /// What waits to be written: the only place where a token stays.
    pub pending: Pending,
    /// When a token request last restored a target that another writer had changed.
    pub restored: Option<Box<Restoration>>,
    /// When a write of the target's metadata alone last did so, for which generation of the spec.
    pub metadata_restored: Option<Box<(i64, Restoration)>>,
    /// This process has seen that the API server accepts a write of this target.
    pub write_allowed: bool,
    /// The user's refresh token, where it is what is sent.
    pub original: Option<Box<KnownOriginal>>,
    /// The pods that mount the target, where the spec asks for prompt propagation.
    pub prompt: Option<Box<Prompt>>,
    /// What blocked the last attempt.
    pub blocked: Option<Reason>,
    /// What was last written into status, until the watch has caught up.
    pub reported: Option<Box<Written>>,
}

/// How long nothing may have happened to a target before it counts as being left in peace, in seconds.
const RESTORATIONS_COUNT_FOR: u64 = 10 * 60;

/// What somebody did to the target and was put right.
#[derive(Clone, Debug)]
pub struct Restoration {
    /// When it was last put right.
    pub at: Timestamp,
    /// How often in a row.
    pub times: u32,
    /// Who did it, where the Secret tells: a field manager's name.
    pub by: Option<Box<str>>,
}

impl Restoration {
    /// It has happened again, or for the first time in a long while.
    #[must_use]
    pub fn again(before: Option<&Self>, now: Timestamp, by: Option<Box<str>>) -> Self {
        let before = before.filter(|before| before.is_recent(now));
        Restoration {
            at: now,
            times: before.map_or(1, |before| before.times.saturating_add(1)),
            by: by.or_else(|| before?.by.clone()),
        }
    }

    /// Whether it was put right not long ago.
    #[must_use]
    pub fn is_recent(&self, now: Timestamp) -> bool {
        seconds_between(self.at, now) < RESTORATIONS_COUNT_FOR
    }
}

/// A row of failed attempts, with what people are told of the last one.
#[derive(Clone, Debug)]
pub struct FailedAttempts {
    /// What the next decision needs.
    pub failure: Failure,
    /// How many attempts have failed in a row.
    pub count: u32,
    /// The credentials hold other values since, as this process has seen: the next attempt is the first of its row.
    pub values_changed: bool,
    /// When the last one failed.
    pub at: Timestamp,
    /// MintReason.
    pub reason: Reason,
    /// What to do about it.
    pub message: String,
}

/// What a token request brought and the API server does not have yet.
#[derive(Debug, Default)]
pub struct Pending {
    /// `None` where the endpoint gave a refresh token but no usable token.
    pub token: Option<Box<NewToken>>,
    /// A rotated refresh token, the only copy.
    pub refresh_token: Option<Box<UnsavedRefreshToken>>,
}

impl Pending {
    /// Whether everything is written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.token.is_none() && self.refresh_token.is_none()
    }

    /// What a decision needs of it.
    #[must_use]
    pub fn for_decision(&self) -> Option<refresh::Pending<'_>> {
        (!self.is_empty()).then(|| refresh::Pending {
            inputs: self.token.as_ref().map(|token| &token.record.inputs),
            refresh_at: self.token.as_ref().map(|token| token.refresh_at),
            unsaved_refresh_token: self.refresh_token.is_some(),
        })
    }
}

impl SourceState {
    /// Makes this the state of `owner`: of another object than before nothing is known, but for a refresh token that is
    /// saved nowhere else. Waits are taken up again from its status.
    pub fn is_about(&mut self, reported: &Reported, owner: &Owner) {
        if self.uid == owner.uid {
            return;
        }
        *self = SourceState {
            uid: owner.uid.clone(),
            failed: reported.last_failure.as_deref().and_then(FailedAttempts::from_status).map(Box::new),
            pending: Pending { token: None, refresh_token: self.pending.refresh_token.take() },
            ..SourceState::default()
        };
    }

    /// Of what a token request brought, keeps the refresh token, which is the only copy.
    pub fn keep_refresh_token_of(&mut self, result: Option<MintResult>) {
        if let Some(refresh_token) = result.and_then(|result| result.refresh_token) {
            self.pending.refresh_token = Some(Box::new(refresh_token));
        }
    }

    fn has_unwritten(&self) -> bool {
        let refused = self.failed.as_ref().is_some_and(|failed| failed.failure.refused_target.is_some());
        !self.pending.is_empty() && !refused
    }
}

impl FailedAttempts {
    /// Takes a wait up again that a process before this one has written into status.
    #[must_use]
    pub fn from_status(last: &LastFailure) -> Option<Self> {
        let mut inputs = last.inputs.as_deref()?.split('/').map(str::to_owned);
        let tried = Tried { spec: inputs.next()?, request: inputs.next()?, credentials: inputs.next()? };
        let reason = Reason::ALL.into_iter().find(|reason| reason.as_str() == last.reason)?;
        if reason == Reason::EndpointRefusedByPolicy {
            // This process may have been started with another policy, and asking it costs no token request.
            return None;
        }
        let is_for_good = last.next_attempt_at.is_none();
        if is_for_good
            && matches!(reason, Reason::TargetRefused | Reason::TargetConflict | Reason::TemplateInvalid)
        {
            // Only another target helps, and which one it was is not told; or another version of this program.
            return None;
        }
        let count = u32::try_from(last.count).ok().filter(|count| *count > 0)?;
        Some(FailedAttempts {
            failure: Failure {
                tried,
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

    /// How many attempts have failed in a row with the present one, which was made with `tried`: another spec, or other
    /// values of the credentials, begin a new row. One that was `held` back was not made, and does not count by itself.
    #[must_use]
    pub fn count_with(before: Option<&Self>, tried: &Tried, held: bool) -> u32 {
        let goes_on = |before: &&Self| before.failure.tried.spec == tried.spec && !before.values_changed;
        let before = before.filter(goes_on);
        let count = before.map_or(0, |before| before.count);
        if held { count.max(1) } else { count.saturating_add(1) }
    }

    /// How it stands in status.
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

/// The states of all TokenSources. A reconciliation takes its own out, and puts it back when it ends, however it ends.
#[derive(Debug, Default)]
pub struct States(Mutex<HashMap<Key, SourceState>>);

impl States {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, SourceState>> {
        // Every change is complete before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state of a TokenSource, which is the caller's until it is put back; a new one where there is none.
    #[must_use]
    pub fn take(&self, source: &Key) -> SourceState {
        self.lock().remove(source).unwrap_or_default()
    }

    /// Puts a state back. Of a TokenSource that is gone, nothing is kept but the only copy of a refresh token.
    pub fn put(&self, source: &Key, state: SourceState, is_gone: bool) {
        if !is_gone || state.pending.refresh_token.is_some() {
            self.lock().insert(source.clone(), state);
        }
    }

    /// Forgets a TokenSource; but not the only copy of a refresh token, which one of the same name takes up again.
    pub fn forget(&self, source: &Key) {
        let states = &mut *self.lock();
        if states.get(source).is_some_and(|state| state.pending.refresh_token.is_none()) {
            states.remove(source);
        }
    }

    /// Of what a token request brought for a TokenSource that is gone, keeps the only copy of a refresh token.
    pub fn drop_result(&self, source: &Key, result: Option<MintResult>) {
        let mut state = self.take(source);
        state.keep_refresh_token_of(result);
        self.put(source, state, true);
    }

    /// Whether something waits to be written that the API server does not refuse.
    #[must_use]
    pub fn has_unwritten(&self, source: &Key) -> bool {
        self.lock().get(source).is_some_and(SourceState::has_unwritten)
    }

    /// The TokenSources of which something waits to be written that the API server does not refuse.
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
    fn a_wait_outlives_a_restart_unless_the_restart_may_have_ended_it() {
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
        assert!(FailedAttempts::from_status(&last(Reason::ClientRejected, 0)).is_none(), "recovered");
        assert!(
            FailedAttempts::from_status(&last(Reason::EndpointRefusedByPolicy, 1)).is_none(),
            "the operator may have been started with another policy"
        );
        let refused = last(Reason::TargetRefused, 1);
        assert!(FailedAttempts::from_status(&refused).is_some());
        let for_good = LastFailure { next_attempt_at: None, ..refused };
        assert!(FailedAttempts::from_status(&for_good).is_none(), "the target may have been deleted since");
    }

    #[test]
    fn another_spec_and_other_credentials_begin_a_new_row_of_failures() {
        let tried = |spec: &str, request: &str, credentials: &str| Tried {
            spec: spec.into(),
            request: request.into(),
            credentials: credentials.into(),
        };
        let before = FailedAttempts {
            failure: Failure {
                tried: tried("s", "r", "c"),
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
        let count = |tried: &Tried, held| FailedAttempts::count_with(Some(&before), tried, held);
        assert_eq!((count(&tried("s", "r", "c"), false), count(&tried("s", "r", "c"), true)), (4, 3));
        assert_eq!(count(&tried("s", "again", "c"), false), 4, "the same is asked for once more");
        assert_eq!((count(&tried("t", "r", "c"), false), count(&tried("t", "r", "c"), true)), (1, 1));
        assert_eq!(count(&tried("s", "r", "d"), false), 4, "a label on the Secret, for all that is known");
        let before = FailedAttempts { values_changed: true, ..before.clone() };
        assert_eq!(FailedAttempts::count_with(Some(&before), &tried("s", "r", "d"), false), 1);
        assert_eq!(FailedAttempts::count_with(None, &tried("s", "r", "c"), true), 1);
    }
}
