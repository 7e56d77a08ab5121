//! Which requests wait for the answer to another one with the same client, grant or parameters.

use super::super::entry::{EndpointKey, Parked, Tenant, Turn};
use super::super::expedite::Expedite;
use super::super::group::GroupStanding;
use super::super::hold::{EXPEDITED, EXPEDITED_REQUEST, Hold};
use super::super::identity::{ClientType, GroupClient, Identity, RequestIdentity};
use super::super::identity_state::{IdentityState, Standing, Taken};
use super::super::known_rejection::{KnownRejection, SharedBy};
use super::super::origin::Limited;
use super::super::terms::Terms;
use super::super::verdict::Verdict;
use super::{Entry, Place, Queue, Timer};
use crate::error::{Class, Error, Reach};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

impl<K: Clone + Eq + Hash> Queue<K> {
    /// What a request may do now. One that goes is in flight from [`Self::began`] until [`Self::left`].
    pub(in crate::limiter) fn judge(
        &mut self,
        tenant: &Tenant,
        who: RequestIdentity,
        terms: Terms,
        now: Instant,
    ) -> Verdict {
        self.client(tenant, who.client, now);
        if let Some(client) = who.group {
            match self.groups.standing(client, terms, now) {
                GroupStanding::Held(rejection) => return Verdict::Reject(rejection),
                GroupStanding::Busy => {
                    self.groups.wait(client, tenant, who.client);
                    return Verdict::Park(who.client, false);
                }
                GroupStanding::Free => {}
            }
        }
        let identities = &self.tenant(tenant, now).identities;
        let is_held = |it: &Identity| identities.get(it).is_some_and(|state| state.hold.is_some());
        let was_tried = [who.grant, who.request].iter().any(is_held);
        let shared = [SharedBy::Client, SharedBy::Grant, SharedBy::Request];
        for (identity, shared_by) in who.all().into_iter().zip(shared) {
            let Some(state) = identities.get(&identity) else { continue };
            let exclusive = terms.exclusive && shared_by == SharedBy::Grant;
            match state.standing(Terms { exclusive, ..terms }, now) {
                Standing::Held(hold) => {
                    return Verdict::Reject(KnownRejection::of(hold, shared_by, now));
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
        tenant: &Tenant,
        who: RequestIdentity,
        terms: Terms,
        now: Instant,
    ) -> Vec<(Identity, Taken)> {
        self.client(tenant, who.client, now);
        if terms.exclusive {
            self.state(tenant, who.grant, now);
        }
        let identities = &mut self.tenant(tenant, now).identities;
        let counted = who.all().into_iter().filter_map(|identity| {
            let state = identities.get_mut(&identity)?;
            Some((identity, state.began(terms, now)))
        });
        counted.collect()
    }

    /// The request has ended that finds out whether a client of several tenants is accepted. Those that wait go on: all of them
    /// where that is known, else the first of each tenant.
    pub(in crate::limiter) fn trial_ended(&mut self, client: GroupClient, is_unsent: bool, now: Instant) {
        let waiting = self.groups.trial_ended(client, is_unsent);
        let count = if self.groups.is_settled(client, now) { usize::MAX } else { 1 };
        for (tenant, identity) in waiting {
            self.unpark(&tenant, identity, count, now);
            self.set_timer(&tenant, identity, now);
        }
    }

    /// A request that began was not sent.
    pub(in crate::limiter) fn give_back(
        &mut self,
        tenant: &Tenant,
        identity: Identity,
        taken: Taken,
        now: Instant,
    ) {
        if let Some(state) = self.identity(tenant, identity) {
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
        let tenant = Arc::clone(&parked.endpoint.tenant);
        self.places.insert(parked.key.clone(), Place::Parked(Arc::clone(&tenant), identity, turn));
        self.state(&tenant, identity, now).park(turn, parked, terms, now);
        self.set_timer(&tenant, identity, now);
    }

    /// A request has ended. Those that wait for it go on: all of them where the result says how, else the first, which is
    /// the next to find out. Those that wait for a rate or a time have a timer.
    pub(in crate::limiter) fn left(
        &mut self,
        tenant: &Tenant,
        identity: Identity,
        has_succeeded: bool,
        now: Instant,
    ) {
        let Some(state) = self.identity(tenant, identity) else { return };
        state.in_flight = state.in_flight.saturating_sub(1);
        let count = match state.standing(Terms::default(), now) {
            Standing::Slow(_) | Standing::Doubted(_) => 0,
            Standing::Held(_) => usize::MAX,
            _ if has_succeeded && !state.rate.is_slow(now) => usize::MAX,
            _ => 1,
        };
        self.unpark(tenant, identity, count, now);
        self.set_timer(tenant, identity, now);
    }

    /// What the outcome of a request says about its endpoint, and about others with the same client, grant or parameters.
    pub(in crate::limiter) fn learn(
        &mut self,
        (endpoint, origin): (&EndpointKey, &Arc<str>),
        who: Option<RequestIdentity>,
        outcome: Result<(), &Error>,
        began: Instant,
        now: Instant,
    ) {
        match outcome {
            // What is wrong on this side says nothing of the endpoint.
            Err(error) if error.is_own() => {}
            Err(error) if error.class() == Class::Transient => {
                // It may have been forgotten while the request was in flight.
                self.endpoint(&endpoint.tenant, &endpoint.url, origin, now);
                if let Some(endpoint) = self.known_endpoint(endpoint) {
                    endpoint.circuit.failed(who.map(|who| who.client), error, now);
                }
            }
            _ => {
                if let Some(endpoint) = self.known_endpoint(endpoint) {
                    endpoint.circuit.answered();
                }
            }
        }
        let class = outcome.err().map(Error::class);
        let Some(who) = who.filter(|_| class != Some(Class::Configuration)) else { return };
        let tenant = &endpoint.tenant;
        let is_of_group =
            who.group.is_some_and(|client| self.groups.learn(client, tenant, outcome, began, now));
        match outcome {
            Ok(()) => self.learn_success(tenant, who, began, now),
            // The client is held back for all of the group, and goes on for all of it.
            Err(_) if is_of_group => {}
            Err(error) => {
                self.learn_failure(tenant, who, error, began, now);
                if class == Some(Class::Limited) && error.reach() == Reach::Client {
                    self.slow_down(origin, tenant, who.client, now);
                }
            }
        }
    }

    fn learn_success(&mut self, tenant: &Tenant, who: RequestIdentity, began: Instant, now: Instant) {
        self.has_succeeded(tenant, who.client, now);
        for identity in who.all() {
            if let Some(state) = self.identity(tenant, identity) {
                state.succeeded(began);
            }
        }
    }

    fn learn_failure(
        &mut self,
        tenant: &Tenant,
        who: RequestIdentity,
        error: &Error,
        began: Instant,
        now: Instant,
    ) {
        match (error.class(), error.reach()) {
            (Class::Ambiguous, _) => {
                self.client(tenant, who.client, now).answered_ambiguously(error, began, now)
            }
            (Class::Rejected, Reach::Client) if who.group.is_some() => {
                self.state(tenant, who.request, now).rejected(error, began, now);
            }
            (Class::Rejected | Class::LockedOut, Reach::Client) if who.is_grant_rejected(error) => {
                self.state(tenant, who.grant, now).rejected(error, began, now);
                self.doubt_client(tenant, who, who.grant, error, now);
            }
            (Class::Rejected | Class::LockedOut, Reach::Client) => {
                self.client(tenant, who.client, now).rejected(error, began, now);
            }
            (Class::Rejected, Reach::Grant) => self.state(tenant, who.grant, now).rejected(error, began, now),
            (Class::Rejected, Reach::Request) => {
                self.state(tenant, who.request, now).rejected(error, began, now);
                self.doubt_client(tenant, who, who.request, error, now);
            }
            _ => {}
        }
        if let Some(seconds) = error.shared_retry_after().filter(|seconds| *seconds > 0) {
            let class = if error.class() == Class::Transient { Class::Transient } else { Class::Limited };
            let client = self.client(tenant, who.client, now);
            let hold = Hold::new(client.hold.as_ref(), error, class, Duration::ZERO, began, now);
            client.asked_to_wait(hold, now + Duration::from_secs(seconds));
        }
    }

    /// A client that has never succeeded may be what is wrong, though the answer speaks of `refused`, its grant or request.
    fn doubt_client(
        &mut self,
        tenant: &Tenant,
        who: RequestIdentity,
        refused: Identity,
        error: &Error,
        now: Instant,
    ) {
        if who.client_type == ClientType::Absent {
            return;
        }
        let is_known_good = who.group.is_some_and(|client| self.groups.has_succeeded(client));
        let client = self.client(tenant, who.client, now);
        if !client.has_succeeded && !is_known_good {
            client.doubt.refused(refused, error, now);
        }
    }

    /// One client's quota does not concern the others, nor one tenant's.
    fn slow_down(&mut self, origin: &Arc<str>, tenant: &Tenant, client: Identity, now: Instant) {
        let Some(origin) = self.origins.get_mut(origin) else { return };
        match origin.limited(tenant, client, now) {
            Limited::Client => self.client(tenant, client, now).rate.slow_down(now),
            Limited::Lane => {
                if let Some(lane) = origin.lanes.get_mut(tenant) {
                    lane.rate.slow_down(now);
                }
            }
        }
    }

    /// How long a client is held back, and what that is paced as.
    pub(in crate::limiter) fn held(
        &self,
        tenant: &Tenant,
        client: Identity,
        now: Instant,
    ) -> Option<(Class, Duration)> {
        let hold = self.tenants.get(tenant)?.identities.get(&client)?.hold.as_ref()?;
        (hold.until > now).then(|| (hold.class, hold.until - now))
    }

    /// The last refusal, where an entry waits because its client is in doubt.
    pub(in crate::limiter) fn doubt(&self, key: &K) -> Option<Error> {
        let Place::Parked(tenant, identity, _) = self.places.get(key)? else { return None };
        self.tenants.get(tenant)?.identities.get(identity)?.doubt.error().cloned()
    }

    pub(in crate::limiter) fn expedite(&mut self, tenant: &str, who: RequestIdentity, why: Expedite) {
        if let (Expedite::Asked, Some(client)) = (why, who.group) {
            self.groups.expedite(client);
        }
        let Some(state) = self.tenants.get_mut(tenant) else { return };
        if why == Expedite::ChangedValues {
            // They are another grant, and of a group another client: nothing else holds them back.
            if let Some(client) = state.identities.get_mut(&who.client) {
                client.values_changed();
            }
            return;
        }
        for (identity, least) in
            [(who.client, EXPEDITED), (who.grant, EXPEDITED), (who.request, EXPEDITED_REQUEST)]
        {
            if let Some(state) = state.identities.get_mut(&identity) {
                state.expedite(least);
            }
        }
    }

    /// Puts the first `count` entries that wait for `identity` back into their queues, with their own deadlines.
    pub(super) fn unpark(&mut self, tenant: &Tenant, identity: Identity, count: usize, now: Instant) {
        for _ in 0..count {
            let Some(state) = self.identity(tenant, identity) else { return };
            let Some(turn) = state.next_parked(now) else { return };
            let Some(parked) = state.remove_parked(turn) else { return };
            let (_, turn) = turn;
            let Parked { key, since, endpoint, origin } = parked;
            // It may have been forgotten while the request was prepared.
            let endpoint = self.endpoint(&endpoint.tenant, &endpoint.url, &origin, now);
            self.insert(endpoint, turn, Entry { key, since }, now);
        }
    }

    /// Sets the timer of an identity whose entries wait for a rate or a time, or for nothing in flight. One entry at a time
    /// goes back: each that begins in vain costs as much as one that is sent.
    pub(super) fn set_timer(&mut self, tenant: &Tenant, identity: Identity, now: Instant) {
        let is_waited_for = self.groups.is_waited_for(tenant, identity);
        let Some(state) = self.identity(tenant, identity) else { return };
        let wanted = match state.standing(Terms::default(), now) {
            // The end of the trial puts them back.
            _ if state.parked().is_empty() || is_waited_for => None,
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
            self.timers.remove(&(before, Timer::Identity(Arc::clone(tenant), identity)));
        }
        if let Some(at) = wanted {
            self.timers.insert((at, Timer::Identity(Arc::clone(tenant), identity)));
        }
    }

    fn identity(&mut self, tenant: &Tenant, identity: Identity) -> Option<&mut IdentityState<K>> {
        self.tenants.get_mut(tenant)?.identities.get_mut(&identity)
    }
}
