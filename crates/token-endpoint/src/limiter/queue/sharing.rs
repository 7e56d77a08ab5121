//! Which requests wait for the answer to another one with the same client, grant or parameters.

use super::super::entry::{Parked, Turn};
use super::super::hold::{EXPEDITED, EXPEDITED_REQUEST, Hold};
use super::super::identity::{Identity, RequestIdentity};
use super::super::identity_state::{IdentityState, Standing, Taken};
use super::super::known_rejection::{KnownRejection, SharedBy};
use super::super::terms::Terms;
use super::super::verdict::Verdict;
use super::{Entry, Place, Queue, Timer};
use crate::error::{Class, Error, Reach};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Two clients that are answered "too many requests" within this time mean the origin, and not one of them.
const SAME_LIMIT: Duration = Duration::from_secs(60);
/// Clients that have succeeded, above which all are forgotten: they are the tenants' choice.
const MAX_SUCCEEDED: usize = 65_536;

impl<K: Clone + Eq + Hash> Queue<K> {
    /// What a request may do now. One that goes is in flight from [`Self::began`] until [`Self::left`].
    pub(in crate::limiter) fn judge(&mut self, who: RequestIdentity, terms: Terms, now: Instant) -> Verdict {
        self.client(who.client, now);
        let was_tried = self.identities.get(&who.request).is_some_and(|state| state.hold.is_some());
        let shared = [SharedBy::Client, SharedBy::Grant, SharedBy::Request];
        for (identity, shared_by) in who.all().into_iter().zip(shared) {
            let Some(state) = self.identities.get(&identity) else { continue };
            let exclusive = terms.exclusive && shared_by == SharedBy::Grant;
            match state.standing(Terms { exclusive, ..terms }, now) {
                Standing::Held(hold) => {
                    return Verdict::Reject(KnownRejection {
                        error: Box::new(hold.error.clone()),
                        class: hold.class,
                        shared_by,
                        retry_in: hold.until - now,
                    });
                }
                Standing::Busy | Standing::Slow(_) | Standing::Doubted(_) => {
                    return Verdict::Park(identity, was_tried);
                }
                // A last attempt takes no turn of those that were never tried.
                Standing::Free
                    if state.doubt.is_doubted()
                        && state.doubt.next(now).is_none()
                        && was_tried
                        && state.has_untried() =>
                {
                    return Verdict::Park(identity, was_tried);
                }
                Standing::Free => {}
            }
        }
        Verdict::Go
    }

    /// A request is sent. Returns those identities whose requests in flight are counted.
    pub(in crate::limiter) fn began(
        &mut self,
        who: RequestIdentity,
        terms: Terms,
        now: Instant,
    ) -> Vec<(Identity, Taken)> {
        self.client(who.client, now);
        if terms.exclusive {
            self.state(who.grant, now);
        }
        let counted = who.all().into_iter().filter_map(|identity| {
            let state = self.identities.get_mut(&identity)?;
            Some((identity, state.began(terms, now)))
        });
        counted.collect()
    }

    /// A request that began was not sent.
    pub(in crate::limiter) fn give_back(&mut self, identity: Identity, taken: Taken, now: Instant) {
        if let Some(state) = self.identities.get_mut(&identity) {
            state.give_back(taken, now);
        }
    }

    /// An entry that has begun waits for a client, grant or request.
    pub(in crate::limiter) fn park(
        &mut self,
        identity: Identity,
        (was_tried, turn): (bool, Turn),
        parked: Parked<K>,
        terms: Terms,
        now: Instant,
    ) {
        let turn = (was_tried, turn);
        self.places.insert(parked.key.clone(), Place::Parked(identity, turn));
        self.state(identity, now).park(turn, parked, terms, now);
        self.set_timer(identity, now);
    }

    /// A request has ended. Those that wait for it go on: all of them where the result says how, else the first, which is
    /// the next to find out. Those that wait for a rate or a time have a timer.
    pub(in crate::limiter) fn left(&mut self, identity: Identity, has_succeeded: bool, now: Instant) {
        let Some(state) = self.identities.get_mut(&identity) else { return };
        state.in_flight = state.in_flight.saturating_sub(1);
        let count = match state.standing(Terms::default(), now) {
            Standing::Slow(_) | Standing::Doubted(_) => 0,
            Standing::Held(_) => usize::MAX,
            _ if has_succeeded && !state.rate.is_slow(now) => usize::MAX,
            _ => 1,
        };
        self.unpark(identity, count, now);
        self.set_timer(identity, now);
    }

    /// What the outcome of a request says about its endpoint, and about others with the same client, grant or parameters.
    pub(in crate::limiter) fn learn(
        &mut self,
        (endpoint, origin): (&Arc<str>, &Arc<str>),
        who: Option<RequestIdentity>,
        outcome: Result<(), &Error>,
        began: Instant,
        now: Instant,
    ) {
        let class = outcome.err().map(Error::class);
        if let Some(endpoint) = self.endpoints.get_mut(endpoint) {
            match (class, outcome) {
                (Some(Class::Transient), Err(error)) => {
                    endpoint.circuit.failed(who.map(|who| who.client), error, now);
                }
                (Some(Class::Configuration), _) => return, // nothing was sent
                _ => endpoint.circuit.answered(),
            }
        }
        let Some(who) = who else { return };
        match outcome {
            Ok(()) => self.learn_success(who, began),
            Err(error) => {
                self.learn_failure(who, error, began, now);
                if class == Some(Class::Limited) && error.reach() == Reach::Client {
                    self.slow_down(origin, who.client, now);
                }
            }
        }
    }

    fn learn_success(&mut self, who: RequestIdentity, began: Instant) {
        if self.succeeded.len() >= MAX_SUCCEEDED && !self.succeeded.contains(&who.client) {
            self.succeeded.clear();
        }
        self.succeeded.insert(who.client);
        for identity in who.all() {
            if let Some(state) = self.identities.get_mut(&identity) {
                state.succeeded(began);
            }
        }
    }

    fn learn_failure(&mut self, who: RequestIdentity, error: &Error, began: Instant, now: Instant) {
        match (error.class(), error.reach()) {
            (Class::Ambiguous, _) => self.client(who.client, now).answered_ambiguously(error, began, now),
            (Class::Rejected | Class::LockedOut, Reach::Client) => {
                self.client(who.client, now).rejected(error, began, now);
            }
            (Class::Rejected, Reach::Grant) => self.state(who.grant, now).rejected(error, began, now),
            (Class::Rejected, Reach::Request) => {
                self.state(who.request, now).rejected(error, began, now);
                let client = self.client(who.client, now);
                if !client.has_succeeded {
                    client.doubt.refused(who.request, error, now);
                }
            }
            _ => {}
        }
        if let Some(seconds) = error.shared_retry_after().filter(|seconds| *seconds > 0) {
            let class = if error.class() == Class::Transient { Class::Transient } else { Class::Limited };
            let client = self.client(who.client, now);
            let hold = Hold::new(client.hold.as_ref(), error, class, Duration::ZERO, began, now);
            client.asked_to_wait(hold, now + Duration::from_secs(seconds));
        }
    }

    /// One client's quota does not concern the others.
    fn slow_down(&mut self, origin: &Arc<str>, client: Identity, now: Instant) {
        let Some(origin) = self.origins.get_mut(origin) else { return };
        let before = origin.limited.replace((client, now));
        let are_others = before
            .is_some_and(|(other, at)| other != client && now.saturating_duration_since(at) < SAME_LIMIT);
        if are_others {
            origin.rate.slow_down(now);
        } else {
            self.client(client, now).rate.slow_down(now);
        }
    }

    /// How long a client is held back, and what that is paced as.
    pub(in crate::limiter) fn held(&self, client: Identity, now: Instant) -> Option<(Class, Duration)> {
        let hold = self.identities.get(&client)?.hold.as_ref()?;
        (hold.until > now).then(|| (hold.class, hold.until - now))
    }

    /// The last refusal, where an entry waits because its client is in doubt.
    pub(in crate::limiter) fn doubt(&self, key: &K) -> Option<Error> {
        let Place::Parked(identity, _) = self.places.get(key)? else { return None };
        self.identities.get(identity)?.doubt.error().cloned()
    }

    pub(in crate::limiter) fn expedite(&mut self, who: RequestIdentity) {
        for (identity, least) in
            [(who.client, EXPEDITED), (who.grant, EXPEDITED), (who.request, EXPEDITED_REQUEST)]
        {
            if let Some(state) = self.identities.get_mut(&identity) {
                state.expedite(least);
            }
        }
    }

    /// Puts the first `count` entries that wait for `identity` back into their queues, with their own deadlines.
    pub(super) fn unpark(&mut self, identity: Identity, count: usize, now: Instant) {
        for _ in 0..count {
            let Some(state) = self.identities.get_mut(&identity) else { return };
            let Some(turn) = state.next_parked(now) else { return };
            let Some(parked) = state.remove_parked(turn) else { return };
            let (_, turn) = turn;
            let Parked { key, since, endpoint, origin } = parked;
            // It may have been forgotten while the request was prepared.
            let endpoint = self.endpoint(&endpoint, &origin, now);
            self.insert(endpoint, turn, Entry { key, since }, now);
        }
    }

    /// Sets the timer of an identity whose entries wait for a rate or a time, or for nothing in flight. One entry at a time
    /// goes back: each that begins in vain costs as much as one that is sent.
    pub(super) fn set_timer(&mut self, identity: Identity, now: Instant) {
        let Some(state) = self.identities.get_mut(&identity) else { return };
        let wanted = match state.standing(Terms::default(), now) {
            _ if state.parked().is_empty() => None,
            Standing::Slow(at) => Some(at),
            Standing::Doubted(at) => {
                let last_attempt = state.next_last_attempt(now).map(|at| at.max(now + state.rate.interval()));
                Some(last_attempt.map_or(at, |last| last.min(at)))
            }
            Standing::Free if state.in_flight == 0 || state.rate.is_slow(now) => {
                Some(now + state.rate.interval())
            }
            _ => None,
        };
        // A frequent cause of this call must not put the timer off again and again.
        let wanted = wanted.map(|at| state.timer.map_or(at, |before| before.min(at)));
        if state.timer == wanted {
            return;
        }
        if let Some(before) = std::mem::replace(&mut state.timer, wanted) {
            self.timers.remove(&(before, Timer::Identity(identity)));
        }
        if let Some(at) = wanted {
            self.timers.insert((at, Timer::Identity(identity)));
        }
    }

    fn client(&mut self, client: Identity, now: Instant) -> &mut IdentityState<K> {
        let limit = f64::from(self.limits.per_second);
        let has_succeeded = self.succeeded.contains(&client);
        let state = || IdentityState::new(true, has_succeeded, limit, now);
        self.identities.entry(client).or_insert_with(state)
    }

    /// The state of a grant or a request, which exists only where it says something.
    fn state(&mut self, identity: Identity, now: Instant) -> &mut IdentityState<K> {
        let limit = f64::from(self.limits.per_second);
        self.identities.entry(identity).or_insert_with(|| IdentityState::new(false, false, limit, now))
    }
}
