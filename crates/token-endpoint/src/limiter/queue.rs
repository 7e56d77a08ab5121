//! Which entry begins next, over all endpoints. Every step costs the logarithm of the number of entries.
//!
//! An endpoint's first entry is a head of its tenant's lane at the origin while the endpoint's circuit lets it through; a lane
//! has turns at its origin while its rate allows and its tenant has a share of what the process has under way; an origin is
//! ready while it has room and its rate allows. What time alone changes is a timer.

mod index;
mod kept;
mod sharing;

use super::circuit::{CircuitOpen, Passage, ProbeEnd};
use super::destination::Destination;
use super::entry::{Begun, EndpointKey, Entry, Parked, ParkedTurn, Tenant, Turn};
use super::group::Groups;
use super::identity::Identity;
use super::limits::Limits;
use super::origin::Origin;
use super::tenant::TenantState;
use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;
use tokio::time::Instant;

pub(super) struct Queue<K> {
    limits: Limits,
    /// By origin, where they are not these: as many as the owner has groups of requests.
    own_limits: HashMap<Box<str>, Limits>,
    tenants: HashMap<Tenant, TenantState<K>>,
    origins: HashMap<Arc<str>, Origin>,
    places: HashMap<K, Place>,
    /// Origins that have room now, by their first heads.
    ready: BTreeSet<(Turn, Arc<str>)>,
    /// Origins that have their share of what the process has under way.
    over: BTreeSet<Arc<str>>,
    /// Tenants of which lanes wait for the same reason.
    held: BTreeSet<Tenant>,
    timers: BTreeSet<(Instant, Timer)>,
    /// Clients that several tenants are lent.
    pub(super) groups: Groups,
    /// Requests in flight, and those whose answers are under way.
    underway: usize,
    /// Clients that have succeeded, of all tenants.
    succeeded: usize,
    arrivals: u64,
}

enum Place {
    Queued(EndpointKey, Turn),
    Parked(Tenant, Identity, ParkedTurn),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Origin(Arc<str>),
    Lane(Arc<str>, Tenant),
    Endpoint(EndpointKey),
    Identity(Tenant, Identity),
    /// What is kept of a tenant ends by time.
    Tenant(Tenant),
}

/// The next entry, or when to look again.
pub(super) enum Next<K> {
    Begin(Begun<K>),
    At(Instant),
    Nothing,
}

impl<K: Clone + Eq + Hash> Queue<K> {
    pub(super) fn new(limits: Limits) -> Self {
        Queue {
            limits,
            own_limits: HashMap::new(),
            tenants: HashMap::new(),
            origins: HashMap::new(),
            places: HashMap::new(),
            ready: BTreeSet::new(),
            over: BTreeSet::new(),
            held: BTreeSet::new(),
            timers: BTreeSet::new(),
            groups: Groups::default(),
            underway: 0,
            succeeded: 0,
            arrivals: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn circuit(&self, tenant: &str, endpoint: &str) -> Option<CircuitOpen> {
        self.tenants.get(tenant)?.endpoints.get(endpoint)?.circuit.open()
    }

    /// Adds an entry, or moves the one of this key: to another endpoint, or to an earlier deadline.
    pub(super) fn enqueue(
        &mut self,
        key: K,
        tenant: &Tenant,
        to: &Destination,
        deadline: Instant,
        now: Instant,
    ) {
        let Destination { endpoint, origin, limits } = to;
        let (endpoint, origin) = (endpoint.as_str(), origin.as_str());
        if let Some(limits) = limits {
            self.limit_origin(origin, *limits);
        }
        let mut entry = (Entry { key: key.clone(), since: now }, deadline);
        let is_here = |at: &EndpointKey| at.tenant == *tenant && *at.url == *endpoint;
        match self.places.get(&key) {
            Some(Place::Parked(owner, identity, turn)) => {
                let (owner, identity, turn) = (Arc::clone(owner), *identity, *turn);
                let state = self.tenants.get(&owner).and_then(|it| it.identities.get(&identity));
                let parked = state.and_then(|it| it.parked().get(&turn));
                let before = turn.1.0;
                if parked.is_some_and(|parked| is_here(&parked.endpoint)) && before <= deadline {
                    return;
                }
                if let Some(parked) = self.remove_parked(&owner, identity, turn) {
                    entry = (Entry { since: parked.since, ..entry.0 }, deadline.min(before));
                }
            }
            Some(Place::Queued(at, turn)) => {
                let (at, turn) = (at.clone(), *turn);
                if is_here(&at) && turn.0 <= deadline {
                    return;
                }
                if let Some(before) = self.remove_queued(&at, turn, now) {
                    entry = (Entry { since: before.since, ..entry.0 }, deadline.min(turn.0));
                }
            }
            None => {}
        }
        self.prune(tenant, now);
        self.arrivals += 1;
        let (entry, deadline) = entry;
        let endpoint = self.endpoint(tenant, endpoint, origin, now);
        self.insert(endpoint, (deadline, self.arrivals), entry, now);
    }

    /// Takes an entry out. Returns whether there was one.
    pub(super) fn remove(&mut self, key: &K, now: Instant) -> bool {
        match self.places.get(key) {
            Some(Place::Queued(endpoint, turn)) => {
                let (endpoint, turn) = (endpoint.clone(), *turn);
                self.remove_queued(&endpoint, turn, now).is_some()
            }
            Some(Place::Parked(tenant, identity, turn)) => {
                let (tenant, identity, turn) = (Arc::clone(tenant), *identity, *turn);
                self.remove_parked(&tenant, identity, turn).is_some()
            }
            None => false,
        }
    }

    /// Takes the entry with the earliest deadline of those that may begin now.
    pub(super) fn next(&mut self, now: Instant) -> Next<K> {
        self.run_timers(now);
        loop {
            // What ends is a change.
            if self.free() == 0 {
                return Next::Nothing;
            }
            let Some((_, origin)) = self.ready.first().cloned() else {
                if self.list_held(now) {
                    continue;
                }
                return self.timers.first().map_or(Next::Nothing, |(at, _)| Next::At(*at));
            };
            let tenant = self.origins.get(&origin).and_then(|it| it.next(self.limits_of(&origin)));
            let tenant = tenant.map(|(_, tenant)| Arc::clone(tenant));
            // The shares may have changed since the origin was listed.
            match tenant {
                Some(tenant) if !self.tenant_has_share(&tenant) => self.list_lane(&origin, &tenant, now),
                Some(tenant) if self.origin_has_share(&origin) => {
                    if let Some(begun) = self.begin(origin, tenant, now) {
                        return Next::Begin(begun);
                    }
                }
                _ => self.list_origin(&origin, now),
            }
        }
    }

    fn begin(&mut self, origin_name: Arc<str>, tenant: Tenant, now: Instant) -> Option<Begun<K>> {
        let origin = self.origins.get_mut(&origin_name)?;
        let lane = origin.lanes.get_mut(&tenant)?;
        let (turn, url) = lane.heads.first().cloned()?;
        let state = self.tenants.get_mut(&tenant)?;
        let endpoint = state.endpoints.get_mut(&url)?;
        let Entry { key, since } = endpoint.queue.remove(&turn)?;
        self.places.remove(&key);
        origin.in_flight += 1;
        origin.rate.take(now);
        origin.turns.took(&tenant);
        lane.in_flight += 1;
        lane.rate.take(now);
        lane.begun_at = now;
        state.underway += 1;
        self.underway += 1;
        let probe = matches!(endpoint.circuit.passage(now), Passage::Probe);
        if probe {
            endpoint.circuit.prepare_probe(now);
        }
        let endpoint = EndpointKey { tenant, url };
        self.list_endpoint(&endpoint, now);
        Some(Begun { key, since, turn, endpoint, origin: origin_name, probe })
    }

    /// A probe is sent: while it hangs, others follow.
    pub(super) fn probe_sent(&mut self, endpoint: &EndpointKey, now: Instant) {
        if let Some(endpoint) = self.known_endpoint(endpoint) {
            endpoint.circuit.probe_sent(now);
        }
        self.list_endpoint(endpoint, now);
    }

    /// A permit ends. `probe`: what became of it, if it was one. `sent`: a request was sent, or could have been; else its place is
    /// given back.
    pub(super) fn permit_left(
        &mut self,
        endpoint: &EndpointKey,
        origin_name: &Arc<str>,
        probe: Option<ProbeEnd>,
        sent: bool,
        now: Instant,
    ) {
        if let Some(origin) = self.origins.get_mut(origin_name) {
            origin.in_flight = origin.in_flight.saturating_sub(1);
            if !sent {
                origin.rate.give_back(now);
            }
            if let Some(lane) = origin.lanes.get_mut(&endpoint.tenant) {
                lane.in_flight = lane.in_flight.saturating_sub(1);
                if !sent {
                    lane.rate.give_back(now);
                }
            }
        }
        if let (Some(end), Some(endpoint)) = (probe, self.known_endpoint(endpoint)) {
            endpoint.circuit.probe_ended(end);
        }
        self.list_endpoint(endpoint, now);
        self.list_lane(origin_name, &endpoint.tenant, now);
        self.forget_endpoint(endpoint, now);
    }

    /// Nothing of a request is under way any more.
    pub(super) fn ended(&mut self, tenant: &Tenant, now: Instant) {
        self.underway = self.underway.saturating_sub(1);
        if let Some(state) = self.tenants.get_mut(tenant) {
            state.underway = state.underway.saturating_sub(1);
        }
        self.list_held(now);
    }

    fn run_timers(&mut self, now: Instant) {
        while let Some((at, timer)) = self.timers.first().cloned()
            && at <= now
        {
            self.timers.pop_first();
            match timer {
                Timer::Origin(origin) => {
                    self.unlist_origin(&origin);
                    self.list_origin(&origin, now);
                }
                Timer::Lane(origin, tenant) => self.list_lane(&origin, &tenant, now),
                Timer::Endpoint(endpoint) => self.list_endpoint(&endpoint, now),
                Timer::Identity(tenant, identity) => {
                    let state = self.tenants.get_mut(&tenant);
                    if let Some(state) = state.and_then(|it| it.identities.get_mut(&identity)) {
                        state.timer = None;
                    }
                    self.unpark(&tenant, identity, 1, now);
                    self.set_timer(&tenant, identity, now);
                }
                Timer::Tenant(tenant) => self.forget_old(&tenant, now),
            }
        }
    }

    fn insert(&mut self, endpoint: EndpointKey, turn: Turn, entry: Entry<K>, now: Instant) {
        self.places.insert(entry.key.clone(), Place::Queued(endpoint.clone(), turn));
        if let Some(state) = self.known_endpoint(&endpoint) {
            state.queue.insert(turn, entry);
        }
        self.list_endpoint(&endpoint, now);
    }

    fn remove_queued(&mut self, endpoint: &EndpointKey, turn: Turn, now: Instant) -> Option<Entry<K>> {
        let entry = self.known_endpoint(endpoint)?.queue.remove(&turn)?;
        self.places.remove(&entry.key);
        self.list_endpoint(endpoint, now);
        self.forget_endpoint(endpoint, now);
        Some(entry)
    }

    fn remove_parked(&mut self, tenant: &Tenant, identity: Identity, turn: ParkedTurn) -> Option<Parked<K>> {
        let state = self.tenants.get_mut(tenant)?.identities.get_mut(&identity)?;
        let parked = state.remove_parked(turn)?;
        self.places.remove(&parked.key);
        Some(parked)
    }
}
