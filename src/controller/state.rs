//! What the process remembers of a TokenSource between reconciliations, beside the record and the status. All of it may be
//! lost, and is when a term of leadership ends, except for a token that waits to be written: a restart costs one more
//! comparison, and a token request only where the credentials are modified before their values were read.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use token_endpoint::Digest;
use tokensource_api::Reason;

use super::expiry_events::ExpiryEvents;
use super::failed_attempts::FailedAttempts;
use super::mint_queue::NewToken;
use super::propagation::Prompt;
use super::refresh_token::KnownOriginal;
use super::report_rate::ReportTimes;
use crate::clock::Clock;
use crate::key::Key;
use crate::refresh::{self, Awaiting, Dampings};
use crate::secret::{Owner, Version};
use crate::status::Reported;
use crate::time::{moved, seconds_between};
use crate::uid::Uid;

/// The resourceVersion of the status that was written last, and what it reported.
pub type Written = (u64, Reported);

/// The state of one TokenSource.
#[derive(Debug, Default)]
pub struct SourceState {
    /// `metadata.uid`. The state of an earlier object of the same name does not apply.
    pub uid: Uid,
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
    /// The last restorations of the target, after another writer had changed it.
    pub restored: Option<Box<Restored>>,
    /// How often the changes of others lead to token requests; `None` before the first.
    pub dampings: Option<Box<Dampings>>,
    /// Whether the API server has accepted a write, or a dry run, of this target, and refused none since.
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
    /// Which events about an expired token were published; `None` while none expired.
    pub expiry_events: Option<Box<ExpiryEvents>>,
}

/// The longest time for which a token that cannot be written holds token requests back.
const MAX_HOLD: Duration = Duration::from_secs(60);

/// Restorations less than this apart count as one conflict, in seconds.
const CONFLICT_WINDOW: u64 = 10 * 60;

/// How a target was restored.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// By a token request.
    pub by_token: Option<Restoration>,
    /// Its metadata alone, with the generation of the spec.
    pub metadata: Option<(i64, Restoration)>,
}

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

impl SourceState {
    /// Makes this the state of `owner`. For another object than before, it restores only the wait after a failure, from the
    /// reported status, and whether the target could be written.
    pub fn is_about(&mut self, reported: &Reported, owner: &Owner) {
        if self.uid == owner.uid {
            return;
        }
        *self = SourceState {
            uid: owner.uid.clone(),
            failed: reported.last_failure.as_deref().and_then(FailedAttempts::from_status).map(Box::new),
            // What another process wrote, and reported without a failure since.
            write_allowed: reported.has_token && reported.last_failure.is_none(),
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
        if let Some(dampings) = &mut self.dampings {
            dampings.refresh_at.iter_mut().for_each(shift);
        }
        if let Some(restored) = &mut self.restored {
            restored.by_token.iter_mut().for_each(|it| shift(&mut it.at));
            restored.metadata.iter_mut().for_each(|(_, it)| shift(&mut it.at));
        }
    }

    /// The last restoration of the target by a token request.
    #[must_use]
    pub fn restored_by_token(&self) -> Option<&Restoration> {
        self.restored.as_ref()?.by_token.as_ref()
    }

    /// The part of a token that waits to be written that decisions need; `None` also where `template` (its digest) cannot be
    /// rendered with it. Its times are those of the clock of now, as those of a token in its target.
    #[must_use]
    pub fn pending_for_decision(
        &self,
        template: Option<&str>,
        clock: &Clock,
    ) -> Option<refresh::Pending<'_>> {
        let token = self.pending.as_deref()?;
        let is_usable = !token.is_unusable || token.record.template.as_deref() != template;
        is_usable.then_some(refresh::Pending {
            inputs: &token.record.inputs,
            refresh_at: clock.since(token.refresh_at, token.rewound),
            expires_at: clock.since(token.record.expires_at, token.rewound),
        })
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
    use tokensource_api::LastFailure;

    use super::*;

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
                restored: Some(Box::new(Restored {
                    by_token: Some(restored()),
                    metadata: Some((1, restored())),
                })),
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
            let restored = *state.restored.unwrap();
            assert_eq!((restored.by_token.unwrap().at, restored.metadata.unwrap().1.at), (at(10), at(10)));
        }
    }
}
