//! What this process remembers of a TokenSource beside its record and its status. All of it may be lost: a
//! restart then costs a comparison more, and no token request.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use secrecy::SecretString;

use super::pods::Prompt;
use crate::key::Key;
use crate::refresh::{Failure, Pending, Tried};
use crate::secret::{Owner, Record, Version};
use crate::status::Reported;
use crate::time::seconds_between;
use token_endpoint::Digest;
use tokensource_api::{LastFailure, Reason};

/// What was told by a status that was written, and the revision that it got.
pub type Written = (u64, Reported);

/// What is remembered of one TokenSource.
#[derive(Debug, Default)]
pub struct Memory {
    /// The uid of the object that this is about: another object of the same name starts anew.
    pub uid: String,
    /// The attempts that failed since the last success.
    pub failed: Option<Box<Failed>>,
    /// The state of the credentials Secret that was last read, and a digest of its values; `None` where they
    /// could not be used.
    pub seen_credentials: Option<(Version, Option<Digest>)>,
    /// A digest of the values that the token in the target was minted with.
    pub minted_with: Option<Digest>,
    /// A mint whose result is not yet all written: the only place where a token stays.
    pub pending: Option<Box<PendingMint>>,
    /// When a mint last put right what somebody did to the target.
    pub healed: Option<Box<Disturbance>>,
    /// When that last took a write of its metadata alone, for which generation of the spec.
    pub mended: Option<Box<(i64, Disturbance)>>,
    /// This process has seen that the API server takes a write of this target.
    pub write_allowed: bool,
    /// The state of the credentials Secret that was last read, and SHA-256, in hex, of the refresh token in it.
    pub seed: Option<Box<(Version, String)>>,
    /// The user's refresh token (SHA-256, in hex) that no other TokenSource of the namespace rotates; checked once
    /// per process.
    pub seed_is_ours: Option<String>,
    /// The pods that mount the target, where they are told of new tokens.
    pub prompt: Option<Box<Prompt>>,
    /// What stood in the way of an attempt when that was last looked at.
    pub blocked: Option<Reason>,
    /// What was last told by status, until the watch has caught up.
    pub reported: Option<Box<Written>>,
}

/// How long nothing may have happened to a target before it counts as being left in peace, in seconds.
const PEACE: u64 = 10 * 60;

/// What somebody did to the target and was put right.
#[derive(Clone, Debug)]
pub struct Disturbance {
    /// When it was last put right.
    pub at: Timestamp,
    /// How often in a row.
    pub times: u32,
    /// Who did it, where the Secret tells: a field manager's name.
    pub by: Option<Box<str>>,
}

impl Disturbance {
    /// It has happened again, or for the first time in a long while.
    #[must_use]
    pub fn again(before: Option<&Self>, now: Timestamp, by: Option<Box<str>>) -> Self {
        let before = before.filter(|before| before.is_recent(now));
        Disturbance {
            at: now,
            times: before.map_or(1, |before| before.times.saturating_add(1)),
            by: by.or_else(|| before?.by.clone()),
        }
    }

    /// Whether it was put right not long ago.
    #[must_use]
    pub fn is_recent(&self, now: Timestamp) -> bool {
        seconds_between(self.at, now) < PEACE
    }
}

/// A row of failed attempts, with what people are told of the last one.
#[derive(Clone, Debug)]
pub struct Failed {
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

/// A mint whose result is not yet all written.
pub struct PendingMint {
    /// `None` where the endpoint gave a refresh token but no usable token.
    pub token: Option<UnwrittenToken>,
    /// A digest of the user's values that it was minted with, where they were read.
    pub values: Option<Digest>,
    /// A refresh token that is persisted nowhere yet.
    pub refresh_token: Option<UnsavedRefreshToken>,
    /// When the token would be refreshed.
    pub refresh_at: Timestamp,
}

/// A token, with what a template may need beside it.
pub struct UnwrittenToken {
    /// The record that goes with it.
    pub record: Record,
    /// The token.
    pub access_token: SecretString,
    /// What `response.values` names.
    pub values: BTreeMap<String, SecretString>,
}

/// The only copy of a refresh token.
pub struct UnsavedRefreshToken {
    /// The token.
    pub value: SecretString,
    /// SHA-256, in hex, of the user's token that it descends from.
    pub seed_sha256: String,
    /// SHA-256, in hex, of the token that was sent for it.
    pub sent_sha256: String,
    /// The Secret that held the one before, as it was seen.
    pub replaces: Option<Version>,
}

impl std::fmt::Debug for PendingMint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PendingMint").field("refresh_at", &self.refresh_at).finish_non_exhaustive()
    }
}

impl Memory {
    /// Makes this the memory of `source`: of another object than before it remembers nothing, but for a refresh
    /// token that is saved nowhere else, and takes waits up again from its status.
    pub fn is_about(&mut self, reported: &Reported, owner: &Owner) {
        if self.uid == owner.uid {
            return;
        }
        *self = Memory {
            uid: owner.uid.clone(),
            failed: reported.last_failure.as_deref().and_then(Failed::from_status).map(Box::new),
            pending: self.pending.take().and_then(|pending| pending.into_refresh_token()).map(Box::new),
            ..Memory::default()
        };
    }
}

impl PendingMint {
    /// The refresh token alone, which outlives the TokenSource that it was meant for; the token does not.
    #[must_use]
    pub fn into_refresh_token(self) -> Option<Self> {
        self.refresh_token.is_some().then_some(PendingMint { token: None, values: None, ..self })
    }

    /// What a decision needs of it.
    #[must_use]
    pub fn for_decision(&self) -> Pending<'_> {
        Pending {
            inputs: self.token.as_ref().map(|token| &token.record.inputs),
            refresh_at: self.refresh_at,
            unsaved_refresh_token: self.refresh_token.is_some(),
        }
    }
}

impl Failed {
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
        Some(Failed {
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

/// The memories of all TokenSources.
#[derive(Debug, Default)]
pub struct Memories(Mutex<HashMap<Key, Arc<tokio::sync::Mutex<Memory>>>>);

/// A memory that a look is using may be about to hold one.
fn may_hold_refresh_token(memory: &Arc<tokio::sync::Mutex<Memory>>) -> bool {
    memory
        .try_lock()
        .map_or(true, |memory| memory.pending.as_ref().is_some_and(|pending| pending.refresh_token.is_some()))
}

impl Memories {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<tokio::sync::Mutex<Memory>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The memory of a TokenSource; a new one where there is none.
    #[must_use]
    pub fn of(&self, source: &Key) -> Arc<tokio::sync::Mutex<Memory>> {
        let mut memories = self.lock();
        Arc::clone(memories.entry(source.clone()).or_default())
    }

    /// The TokenSources of which something was minted that is not written, though the API server does not refuse it.
    #[must_use]
    pub fn unwritten(&self) -> Vec<Key> {
        let refused = |memory: &Memory| {
            memory.failed.as_ref().is_some_and(|failed| failed.failure.refused_target.is_some())
        };
        let memories = self.lock();
        let is_left = |memory: &tokio::sync::Mutex<Memory>| {
            memory.try_lock().is_ok_and(|memory| memory.pending.is_some() && !refused(&memory))
        };
        memories.iter().filter(|(_, memory)| is_left(memory)).map(|(key, _)| key.clone()).collect()
    }

    /// Whether the only copy of a TokenSource's refresh token may be here.
    #[must_use]
    pub fn holds_refresh_token(&self, source: &Key) -> bool {
        self.lock().get(source).is_some_and(may_hold_refresh_token)
    }

    /// Forgets a TokenSource; but not the only copy of a refresh token, which one of the same name takes up again.
    pub fn forget(&self, source: &Key) {
        // A look that is under way forgets by itself.
        let mut memories = self.lock();
        if !memories.get(source).is_some_and(may_hold_refresh_token) {
            memories.remove(source);
        }
    }
}

/// Lets one TokenSource at a time send a certain user's refresh token: the first use of it may spend it, and the
/// next in line then sees that it is taken.
#[derive(Debug, Default)]
pub struct Seeds(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

impl Seeds {
    /// Waits for the turn to send the token with this digest, and holds it until the guard is dropped.
    pub async fn turn(&self, seed_sha256: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let seed = {
            let mut seeds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            seeds.retain(|_, seed| Arc::strong_count(seed) > 1);
            Arc::clone(seeds.entry(seed_sha256.to_owned()).or_default())
        };
        seed.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_look_under_way_may_bring_is_not_forgotten() {
        let (memories, source) = (Memories::default(), Key::new("namespace", "source"));
        let memory = memories.of(&source);
        let mut looking = memory.lock().await;
        memories.forget(&source);
        let refresh_token = UnsavedRefreshToken {
            value: "new".into(),
            seed_sha256: String::new(),
            sent_sha256: String::new(),
            replaces: None,
        };
        looking.pending = Some(Box::new(PendingMint {
            token: None,
            values: None,
            refresh_token: Some(refresh_token),
            refresh_at: Timestamp::UNIX_EPOCH,
        }));
        drop(looking);
        memories.forget(&source);
        assert!(Arc::ptr_eq(&memory, &memories.of(&source)), "it is the only copy");
        memory.lock().await.pending = None;
        memories.forget(&source);
        assert!(!Arc::ptr_eq(&memory, &memories.of(&source)));
    }

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
        assert_eq!(Failed::from_status(&rejected).map(|failed| failed.to_status()), Some(rejected));
        assert!(Failed::from_status(&last(Reason::ClientRejected, 0)).is_none(), "recovered");
        assert!(
            Failed::from_status(&last(Reason::EndpointRefusedByPolicy, 1)).is_none(),
            "the operator may have been started with another policy"
        );
        let refused = last(Reason::TargetRefused, 1);
        assert!(Failed::from_status(&refused).is_some());
        let for_good = LastFailure { next_attempt_at: None, ..refused };
        assert!(Failed::from_status(&for_good).is_none(), "the target may have been deleted since");
    }

    #[test]
    fn another_spec_and_other_credentials_begin_a_new_row_of_failures() {
        let tried = |spec: &str, request: &str, credentials: &str| Tried {
            spec: spec.into(),
            request: request.into(),
            credentials: credentials.into(),
        };
        let before = Failed {
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
        let count = |tried: &Tried, held| Failed::count_with(Some(&before), tried, held);
        assert_eq!((count(&tried("s", "r", "c"), false), count(&tried("s", "r", "c"), true)), (4, 3));
        assert_eq!(count(&tried("s", "again", "c"), false), 4, "the same is asked for once more");
        assert_eq!((count(&tried("t", "r", "c"), false), count(&tried("t", "r", "c"), true)), (1, 1));
        assert_eq!(count(&tried("s", "r", "d"), false), 4, "a label on the Secret, for all that is known");
        let before = Failed { values_changed: true, ..before.clone() };
        assert_eq!(Failed::count_with(Some(&before), &tried("s", "r", "d"), false), 1);
        assert_eq!(Failed::count_with(None, &tried("s", "r", "c"), true), 1);
    }
}
