//! Which entry begins next, over all endpoints. Every step costs the logarithm of the number of entries.
//!
//! An endpoint's first entry is a head of its origin while the endpoint's circuit lets it through; an origin's first head
//! is ready while the origin has room and its rate allows. What time alone changes is a timer.

mod index;
mod sharing;

use super::circuit::{Circuit, CircuitOpen, Passage};
use super::entry::{Begun, Entry, Parked, ParkedTurn, Turn};
use super::identity::Identity;
use super::identity_state::IdentityState;
use super::limits::Limits;
use super::rate::Rate;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;
use tokio::time::Instant;

/// Origins, endpoints and identities together, above which those that say nothing are forgotten.
const PRUNE_ABOVE: usize = 4096;
pub(super) struct Queue<K> {
    limits: Limits,
    origins: HashMap<Arc<str>, Origin>,
    endpoints: HashMap<Arc<str>, Endpoint<K>>,
    identities: HashMap<Identity, IdentityState<K>>,
    /// Clients that have succeeded in this process, also those whose state is forgotten.
    succeeded: HashSet<Identity>,
    places: HashMap<K, Place>,
    /// Origins that have room now, by their first heads.
    ready: BTreeSet<(Turn, Arc<str>)>,
    timers: BTreeSet<(Instant, Timer)>,
    arrivals: u64,
    prune_at: usize,
}

/// Scheme, host and port: what a server's limits are mostly counted by.
struct Origin {
    in_flight: usize,
    rate: Rate,
    heads: BTreeSet<(Turn, Arc<str>)>,
    listed: Listed,
    /// The client that was answered "too many requests" last, and when.
    limited: Option<(Identity, Instant)>,
}

/// Where an origin or an endpoint stands in the indexes.
#[derive(Clone, Copy, PartialEq)]
enum Listed {
    Nowhere,
    Ready(Turn),
    At(Instant),
}

struct Endpoint<K> {
    origin: Arc<str>,
    queue: BTreeMap<Turn, Entry<K>>,
    circuit: Circuit,
    listed: Listed,
}

enum Place {
    Queued(Arc<str>, Turn),
    Parked(Identity, ParkedTurn),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Origin(Arc<str>),
    Endpoint(Arc<str>),
    Identity(Identity),
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
            origins: HashMap::new(),
            endpoints: HashMap::new(),
            identities: HashMap::new(),
            succeeded: HashSet::new(),
            places: HashMap::new(),
            ready: BTreeSet::new(),
            timers: BTreeSet::new(),
            arrivals: 0,
            prune_at: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn circuit(&self, endpoint: &str) -> Option<CircuitOpen> {
        self.endpoints.get(endpoint)?.circuit.open()
    }

    /// Adds an entry, or moves the one of this key: to another endpoint, or to an earlier deadline.
    pub(super) fn enqueue(&mut self, key: K, endpoint: &str, origin: &str, deadline: Instant, now: Instant) {
        let mut entry = (Entry { key: key.clone(), since: now }, deadline);
        match self.places.get(&key) {
            Some(Place::Parked(identity, turn)) => {
                let (identity, turn) = (*identity, *turn);
                let parked = self.identities.get(&identity).and_then(|it| it.parked().get(&turn));
                let before = turn.1.0;
                if parked.is_some_and(|parked| *parked.endpoint == *endpoint) && before <= deadline {
                    return;
                }
                if let Some(parked) = self.remove_parked(identity, turn) {
                    entry = (Entry { since: parked.since, ..entry.0 }, deadline.min(before));
                }
            }
            Some(Place::Queued(at, turn)) => {
                let (at, turn) = (Arc::clone(at), *turn);
                if *at == *endpoint && turn.0 <= deadline {
                    return;
                }
                if let Some(before) = self.remove_queued(&at, turn, now) {
                    entry = (Entry { since: before.since, ..entry.0 }, deadline.min(turn.0));
                }
            }
            None => {}
        }
        self.prune(now);
        self.arrivals += 1;
        let (entry, deadline) = entry;
        let endpoint = self.endpoint(endpoint, origin, now);
        self.insert(endpoint, (deadline, self.arrivals), entry, now);
    }

    /// Takes an entry out. Returns whether there was one.
    pub(super) fn remove(&mut self, key: &K, now: Instant) -> bool {
        match self.places.get(key) {
            Some(Place::Queued(endpoint, turn)) => {
                let (endpoint, turn) = (Arc::clone(endpoint), *turn);
                self.remove_queued(&endpoint, turn, now).is_some()
            }
            Some(Place::Parked(identity, turn)) => {
                let (identity, turn) = (*identity, *turn);
                self.remove_parked(identity, turn).is_some()
            }
            None => false,
        }
    }

    /// Takes the entry with the earliest deadline of those that may begin now.
    pub(super) fn next(&mut self, now: Instant) -> Next<K> {
        self.run_timers(now);
        let Some((_, origin)) = self.ready.first().cloned() else {
            return self.timers.first().map_or(Next::Nothing, |(at, _)| Next::At(*at));
        };
        let first = self.origins.get(&origin).and_then(|it| it.heads.first().cloned());
        let Some((turn, endpoint)) = first else { return Next::Nothing };
        let Some(Entry { key, since }) =
            self.endpoints.get_mut(&endpoint).and_then(|it| it.queue.remove(&turn))
        else {
            return Next::Nothing;
        };
        self.places.remove(&key);
        if let Some(origin) = self.origins.get_mut(&origin) {
            origin.in_flight += 1;
            origin.rate.take(now);
        }
        let mut probe = false;
        if let Some(endpoint) = self.endpoints.get_mut(&endpoint)
            && matches!(endpoint.circuit.passage(now), Passage::Probe)
        {
            endpoint.circuit.begin_probe();
            probe = true;
        }
        self.list_endpoint(&endpoint, now);
        Next::Begin(Begun { key, since, turn, endpoint, origin, probe })
    }

    /// A permit ends. `sent`: a request was sent, or could have been; else its place is given back.
    pub(super) fn permit_left(
        &mut self,
        endpoint: &Arc<str>,
        origin: &Arc<str>,
        probe: bool,
        sent: bool,
        now: Instant,
    ) {
        if let Some(origin) = self.origins.get_mut(origin) {
            origin.in_flight = origin.in_flight.saturating_sub(1);
            if !sent {
                origin.rate.give_back(now);
            }
        }
        if let Some(endpoint) = self.endpoints.get_mut(endpoint).filter(|_| probe) {
            endpoint.circuit.end_probe();
        }
        self.list_endpoint(endpoint, now);
        self.list_origin(origin, now);
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
                Timer::Endpoint(endpoint) => self.list_endpoint(&endpoint, now),
                Timer::Identity(identity) => {
                    if let Some(state) = self.identities.get_mut(&identity) {
                        state.timer = None;
                    }
                    self.unpark(identity, 1, now);
                    self.set_timer(identity, now);
                }
            }
        }
    }

    fn endpoint(&mut self, endpoint: &str, origin: &str, now: Instant) -> Arc<str> {
        if let Some((name, _)) = self.endpoints.get_key_value(endpoint) {
            return Arc::clone(name);
        }
        let limits = self.limits;
        let origin =
            self.origins.get_key_value(origin).map(|(name, _)| Arc::clone(name)).unwrap_or_else(|| {
                let name: Arc<str> = origin.into();
                let rate = Rate::new(f64::from(limits.per_second), now);
                let state = Origin {
                    in_flight: 0,
                    rate,
                    heads: BTreeSet::new(),
                    listed: Listed::Nowhere,
                    limited: None,
                };
                self.origins.insert(Arc::clone(&name), state);
                name
            });
        let name: Arc<str> = endpoint.into();
        let state =
            Endpoint { origin, queue: BTreeMap::new(), circuit: Circuit::default(), listed: Listed::Nowhere };
        self.endpoints.insert(Arc::clone(&name), state);
        name
    }

    fn insert(&mut self, endpoint: Arc<str>, turn: Turn, entry: Entry<K>, now: Instant) {
        self.places.insert(entry.key.clone(), Place::Queued(Arc::clone(&endpoint), turn));
        if let Some(state) = self.endpoints.get_mut(&endpoint) {
            state.queue.insert(turn, entry);
        }
        self.list_endpoint(&endpoint, now);
    }

    fn remove_queued(&mut self, endpoint: &Arc<str>, turn: Turn, now: Instant) -> Option<Entry<K>> {
        let entry = self.endpoints.get_mut(endpoint)?.queue.remove(&turn)?;
        self.places.remove(&entry.key);
        self.list_endpoint(endpoint, now);
        Some(entry)
    }

    fn remove_parked(&mut self, identity: Identity, turn: ParkedTurn) -> Option<Parked<K>> {
        let parked = self.identities.get_mut(&identity)?.remove_parked(turn)?;
        self.places.remove(&parked.key);
        Some(parked)
    }

    /// Forgets what says nothing, now and then: endpoints and identities are the tenants' choice.
    fn prune(&mut self, now: Instant) {
        if self.remembered() < self.prune_at.max(PRUNE_ABOVE) {
            return;
        }
        self.identities.retain(|_, state| !state.is_idle(now));
        let parked_at = self.identities.values().flat_map(|state| state.parked().values());
        let used: BTreeSet<Arc<str>> = parked_at.map(|parked| Arc::clone(&parked.endpoint)).collect();
        self.endpoints.retain(|name, endpoint| {
            !endpoint.queue.is_empty() || !endpoint.circuit.is_idle() || used.contains(name)
        });
        let used: BTreeSet<Arc<str>> = self.endpoints.values().map(|it| Arc::clone(&it.origin)).collect();
        self.origins
            .retain(|name, origin| origin.in_flight > 0 || origin.rate.is_slow(now) || used.contains(name));
        self.prune_at = self.remembered().saturating_mul(2);
    }

    pub(super) fn remembered(&self) -> usize {
        self.origins.len() + self.endpoints.len() + self.identities.len()
    }
}
