//! The token requests that wait, are in flight, or have a result: one slot for each TokenSource.
//!
//! ```text
//! Idle ─request─▶ Queued ─begin─▶ InFlight ─finish─▶ Done ─take_result─▶ Idle
//!   ▲               │  ▲            │  │
//!   └────cancel─────┘  └──its client├──┘ not needed any more: Idle
//!                        is busy ───┘
//! ```
//!
//! A slot outlives the deletion of its TokenSource while it is in flight: the response may hold a rotated refresh token.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use secrecy::SecretString;
use token_endpoint::{CircuitOpen, Destination, Digest, EndpointPermit, Expedite, Limiter, Limits, Underway};
use tokio::time::Instant;

use super::outcome::Outcome;
use super::refresh_token::KnownOriginal;
use crate::key::Key;
use crate::refresh::{Cause, MintReason, Policy, Tried};
use crate::secret::{Record, Version};
use crate::uid::Uid;

/// See the module.
pub(super) struct MintQueue {
    limiter: Limiter<Key>,
    slots: Mutex<HashMap<Key, Slot>>,
    unwritten: Arc<AtomicUsize>,
}

enum Slot {
    Queued(MintRequest),
    InFlight,
    Done(Box<MintResult>),
}

/// What a token request needs beside the TokenSource and its Secrets.
#[derive(Clone, Debug)]
pub(super) struct MintRequest {
    pub(super) reason: MintReason,
    /// What others have changed, where that is why.
    pub(super) cause: Option<Cause>,
    /// The schedule by which it is needed: it depends on whether pods can be annotated.
    pub(super) policy: Policy,
    /// What has changed since the last attempt failed, so that a rejection need not hold it back to the end.
    pub(super) expedite: Option<Expedite>,
    pub(super) original: Option<Box<KnownOriginal>>,
}

/// What came of a token request.
pub(super) struct MintResult {
    /// The uid of the TokenSource that it was made for.
    pub(super) uid: Uid,
    pub(super) reason: MintReason,
    /// See [`MintRequest::cause`]. It counts only where the request was sent.
    pub(super) cause: Option<Cause>,
    /// When it was sent, if it was: by the clock, and by one that cannot be set.
    pub(super) sent_at: Option<(Timestamp, Instant)>,
    /// What it was made with.
    pub(super) tried: Option<Tried>,
    /// The state of the credentials Secret that was read, with a digest of its values where they could be used.
    pub(super) credentials: Option<(Version, Option<Digest>)>,
    pub(super) original: Option<Box<KnownOriginal>>,
    pub(super) outcome: Result<Box<NewToken>, Outcome>,
}

impl MintResult {
    /// Nothing was read, and nothing sent.
    pub(super) fn empty(uid: Uid, reason: MintReason, cause: Option<Cause>) -> Self {
        MintResult {
            uid,
            reason,
            cause,
            sent_at: None,
            tried: None,
            credentials: None,
            original: None,
            outcome: Err(Outcome::Retry),
        }
    }
}

/// A token that is in memory alone.
pub(super) struct NewToken {
    /// The record that goes with it.
    pub(super) record: Record,
    /// The id of the token that it was requested to replace, in the target; `None` where there was none.
    pub(super) replaces: Option<Box<str>>,
    pub(super) access_token: SecretString,
    /// What `response.values` names.
    pub(super) values: BTreeMap<String, SecretString>,
    /// A digest of the user's values that it was requested with, where they were read.
    pub(super) credentials: Option<Digest>,
    /// When it would be refreshed: from then on it is written only where the target's token expires sooner.
    pub(super) refresh_at: Timestamp,
    /// The template of its record cannot be rendered with it: another token is requested, unless the template changes.
    pub(super) is_unusable: bool,
    /// By how many seconds the clock had been set back when it was requested.
    pub(super) rewound: u64,
    /// When the response came.
    pub(super) received_at: Instant,
    /// Counts as under way while this waits for the API server: with more and more of them, tokens would fill memory, and be lost
    /// when the process ends. `None` once it waits for something else, or has waited for long.
    pub(super) unwritten: Option<UnwrittenCount>,
    /// It waits for a person, a quota or the like: the API server need not be tried again before the process ends.
    pub(super) is_blocked: bool,
}

impl std::fmt::Debug for NewToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewToken").field("refresh_at", &self.refresh_at).finish_non_exhaustive()
    }
}

/// Counts one token that waits to be written, until it is dropped.
pub(super) struct UnwrittenCount {
    unwritten: Arc<AtomicUsize>,
    _underway: Arc<Underway<Key>>,
}

impl Drop for UnwrittenCount {
    fn drop(&mut self) {
        self.unwritten.fetch_sub(1, Ordering::Relaxed);
    }
}

impl MintQueue {
    pub(super) fn new(limits: Limits) -> Self {
        MintQueue { limiter: Limiter::new(limits), slots: Mutex::default(), unwritten: Arc::default() }
    }

    /// The limiter, for what it knows of endpoints and clients.
    pub(super) fn limiter(&self) -> &Limiter<Key> {
        &self.limiter
    }

    /// Asks for a token, by `deadline`. What waits already moves to this destination, and its deadline only moves earlier.
    pub(super) fn request(
        &self,
        key: &Key,
        request: MintRequest,
        to: impl Into<Destination>,
        deadline: Instant,
    ) {
        let slots = &mut *self.lock();
        match slots.get_mut(key) {
            None => {
                slots.insert(key.clone(), Slot::Queued(request));
            }
            Some(Slot::Queued(queued)) => {
                let (expedite, cause) =
                    (queued.expedite.max(request.expedite), request.cause.or(queued.cause));
                *queued = MintRequest { expedite, cause, ..request };
            }
            Some(Slot::InFlight | Slot::Done(_)) => return,
        }
        self.limiter.enqueue(key.clone(), &key.namespace, to, deadline);
    }

    /// Takes a request back that has not begun.
    pub(super) fn cancel(&self, key: &Key) {
        let slots = &mut *self.lock();
        if let Some(Slot::Queued(_)) = slots.get(key) {
            slots.remove(key);
            self.limiter.remove(key);
        }
    }

    /// Takes all requests back that have not begun.
    pub(super) fn clear(&self) {
        let slots = &mut *self.lock();
        slots.retain(|key, slot| {
            let queued = matches!(slot, Slot::Queued(_));
            if queued {
                self.limiter.remove(key);
            }
            !queued
        });
    }

    /// Waits until a request may begin: of all that may, the one with the earliest deadline, where namespaces take turns.
    pub(super) async fn next(&self) -> (Key, EndpointPermit<Key>) {
        self.limiter.next().await
    }

    /// A request begins. `None`: it was taken back.
    pub(super) fn begin(&self, key: &Key) -> Option<MintRequest> {
        let mut slots = self.lock();
        let slot = slots.get_mut(key)?;
        match std::mem::replace(slot, Slot::InFlight) {
            Slot::Queued(request) => Some(request),
            other => {
                *slot = other;
                None
            }
        }
    }

    /// A request that has begun is about to wait for its client.
    pub(super) fn requeue(&self, key: &Key, request: MintRequest) {
        self.lock().insert(key.clone(), Slot::Queued(request));
    }

    /// A request that has begun is not needed any more.
    pub(super) fn abandon(&self, key: &Key) {
        let slots = &mut *self.lock();
        if let Some(Slot::InFlight) = slots.get(key) {
            slots.remove(key);
        }
    }

    /// A request that has begun has this result.
    pub(super) fn finish(&self, key: &Key, result: MintResult) {
        self.lock().insert(key.clone(), Slot::Done(Box::new(result)));
    }

    /// The result, which is the caller's from now on.
    pub(super) fn take_result(&self, key: &Key) -> Option<MintResult> {
        let slots = &mut *self.lock();
        match slots.remove(key)? {
            Slot::Done(result) => Some(*result),
            other => {
                slots.insert(key.clone(), other);
                None
            }
        }
    }

    /// Drops the results that were not taken.
    pub(super) fn drop_results(&self) {
        self.lock().retain(|_, slot| !matches!(slot, Slot::Done(_)));
    }

    /// Whether there is a result.
    pub(super) fn has_result(&self, key: &Key) -> bool {
        matches!(self.lock().get(key), Some(Slot::Done(_)))
    }

    /// Whether a request waits, or is in flight.
    pub(super) fn is_minting(&self, key: &Key) -> bool {
        matches!(self.lock().get(key), Some(Slot::Queued(_) | Slot::InFlight))
    }

    /// Whether a request is in flight, or has a result.
    pub(super) fn has_begun(&self, key: &Key) -> bool {
        matches!(self.lock().get(key), Some(Slot::InFlight | Slot::Done(_)))
    }

    /// Why a request that waits makes no progress, if its endpoint fails for all of its namespace.
    pub(super) fn circuit(&self, key: &Key, to: impl Into<Destination>) -> Option<CircuitOpen> {
        self.limiter.circuit(&key.namespace, to)
    }

    /// Counts a token that waits to be written, until what is returned is dropped.
    pub(super) fn count_unwritten(&self, underway: Arc<Underway<Key>>) -> UnwrittenCount {
        self.unwritten.fetch_add(1, Ordering::Relaxed);
        UnwrittenCount { unwritten: Arc::clone(&self.unwritten), _underway: underway }
    }

    /// How many requests wait.
    pub(super) fn queued(&self) -> usize {
        self.limiter.len()
    }

    /// How many tokens wait to be written.
    pub(super) fn unwritten(&self) -> usize {
        self.unwritten.load(Ordering::Relaxed)
    }

    /// Whether no request has begun without its result being taken.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        !self.lock().values().any(|slot| matches!(slot, Slot::InFlight | Slot::Done(_)))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Slot>> {
        // Every change is complete before anything can panic.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for MintQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MintQueue").field("queued", &self.queued()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn request(reason: MintReason) -> MintRequest {
        let policy = Policy { before: None, max_interval: 3600, propagation_delay: 90, min_interval: 0 };
        MintRequest { reason, cause: None, policy, expedite: None, original: None }
    }

    fn url() -> url::Url {
        "https://idp.example.com/token".parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn slot_goes_from_queued_to_in_flight_to_done_and_holds_one_request() {
        let (mints, key, now) = (MintQueue::new(Limits::default()), Key::new("ns", "a"), Instant::now());
        let changed = MintRequest { cause: Some(Cause::Target), ..request(MintReason::TargetChanged) };
        mints.request(&key, changed, &url(), now + Duration::from_secs(60));
        mints.request(&key, request(MintReason::SpecChanged), &url(), now);
        assert!(mints.is_minting(&key) && !mints.has_begun(&key));
        let (next, permit) = mints.next().await;
        let begun = mints.begin(&key).unwrap();
        let expected = (&key, MintReason::SpecChanged, Some(Cause::Target));
        assert_eq!((&next, begun.reason, begun.cause), expected, "what waits already keeps its cause");
        mints.request(&key, request(MintReason::Due), &url(), now);
        assert!(mints.begin(&key).is_none() && mints.queued() == 0 && !mints.is_idle(), "one at a time");
        mints.cancel(&key);
        assert!(mints.has_begun(&key), "what has begun is not taken back");
        mints.finish(&key, MintResult::empty("u".into(), MintReason::SpecChanged, None));
        drop(permit);
        assert!(mints.has_result(&key) && !mints.is_idle());
        assert_eq!(mints.take_result(&key).unwrap().reason, MintReason::SpecChanged);
        assert!(mints.is_idle() && mints.take_result(&key).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_requests_do_not_begin() {
        let (mints, now) = (MintQueue::new(Limits::default()), Instant::now());
        let [a, b, c] = ["a", "b", "c"].map(|name| Key::new("ns", name));
        for key in [&a, &b, &c] {
            mints.request(key, request(MintReason::Due), &url(), now);
        }
        mints.cancel(&a);
        let (next, _permit) = mints.next().await;
        assert_eq!(next, b);
        mints.cancel(&b);
        assert!(mints.begin(&b).is_none(), "taken back between its turn and its beginning");
        mints.clear();
        assert_eq!((mints.queued(), mints.is_idle()), (0, true));
    }

    /// Tokens that wait to be written would fill memory.
    #[tokio::test(start_paused = true)]
    async fn tokens_that_wait_to_be_written_hold_back_requests_of_their_namespace_and_of_no_other() {
        let mints = MintQueue::new(Limits { in_flight: 64, per_second: 100_000 });
        let mut unwritten = vec![];
        for n in 0..1000 {
            mints.request(
                &Key::new("crowd", &n.to_string()),
                request(MintReason::Due),
                &url(),
                Instant::now(),
            );
        }
        let later = Instant::now() + Duration::from_secs(60);
        mints.request(&Key::new("other", "a"), request(MintReason::Due), &url(), later);
        let mut others = 0;
        while let Ok((key, permit)) = tokio::time::timeout(Duration::from_secs(1), mints.next()).await {
            others += usize::from(&*key.namespace == "other");
            unwritten.push(mints.count_unwritten(permit.underway()));
        }
        assert_eq!(others, 1);
        assert!((250..300).contains(&mints.unwritten()), "{}", mints.unwritten());
        mints.request(&Key::new("other", "b"), request(MintReason::Due), &url(), later);
        let next = tokio::time::timeout(Duration::from_secs(1), mints.next()).await;
        assert_eq!(next.map(|(key, _)| key), Ok(Key::new("other", "b")));
        unwritten.truncate(100);
        let next = tokio::time::timeout(Duration::from_secs(1), mints.next()).await;
        assert_eq!(next.map(|(key, _)| key.namespace.clone()).as_deref(), Ok("crowd"));
    }
}
