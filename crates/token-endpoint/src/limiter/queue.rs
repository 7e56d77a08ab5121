//! Which entry begins next, over all endpoints. Every step costs the logarithm of the number of entries.
//!
//! An endpoint's first entry is a head of its origin while the endpoint's circuit lets it through; an origin's first head
//! is ready while the origin has room and its rate allows. What time alone changes is a timer.

use super::circuit::{Circuit, CircuitOpen, Passage};
use super::client::{Client, Standing, is_about_the_client};
use super::entry::{Begun, Entry, Parked, Turn};
use super::identity::ClientIdentity;
use super::known_rejection::KnownRejection;
use super::limits::Limits;
use super::rate::Rate;
use crate::error::{Class, Error};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Origins, endpoints and clients together, above which those that say nothing are forgotten.
const PRUNE_ABOVE: usize = 4096;
/// Two clients that are answered "too many requests" within this time mean the origin, and not one of them.
const SAME_LIMIT: Duration = Duration::from_secs(60);

pub(super) struct Queue<K> {
    limits: Limits,
    origins: HashMap<Arc<str>, Origin>,
    endpoints: HashMap<Arc<str>, Endpoint<K>>,
    clients: HashMap<ClientIdentity, Client<K>>,
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
    limited: Option<(ClientIdentity, Instant)>,
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
    Parked(ClientIdentity, Turn),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Origin(Arc<str>),
    Endpoint(Arc<str>),
    Client(ClientIdentity),
}

/// The next entry, or when to look again.
pub(super) enum Next<K> {
    Begin(Begun<K>),
    At(Instant),
    Nothing,
}

/// What a client's state says to a request.
pub(super) enum Verdict {
    Go,
    Park,
    Reject(KnownRejection),
}

impl<K: Clone + Eq + Hash> Queue<K> {
    pub(super) fn new(limits: Limits) -> Self {
        Queue {
            limits,
            origins: HashMap::new(),
            endpoints: HashMap::new(),
            clients: HashMap::new(),
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
            Some(Place::Parked(client, turn)) => {
                let (client, turn) = (*client, *turn);
                let parked = self.clients.get_mut(&client).and_then(|it| it.parked.get(&turn));
                if parked.is_some_and(|parked| *parked.endpoint == *endpoint) && turn.0 <= deadline {
                    return;
                }
                if let Some(before) = self.remove_parked(client, turn) {
                    entry = (Entry { since: before.since, ..entry.0 }, deadline.min(turn.0));
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
            Some(Place::Parked(client, turn)) => {
                let (client, turn) = (*client, *turn);
                self.remove_parked(client, turn).is_some()
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

    /// What `client` may do now. A client that goes is in flight until [`Self::client_left`].
    pub(super) fn judge(&mut self, client: ClientIdentity, exclusive: bool, now: Instant) -> Verdict {
        let state = self.client(client, now);
        match state.standing(exclusive, now) {
            Standing::Rejected { error, retry_in } => {
                Verdict::Reject(KnownRejection { error: Box::new(error.clone()), retry_in })
            }
            Standing::Busy | Standing::Slow(_) => Verdict::Park,
            Standing::Free => Verdict::Go,
        }
    }

    /// A request of `client` is sent.
    pub(super) fn client_began(&mut self, client: ClientIdentity, now: Instant) {
        let state = self.client(client, now);
        state.in_flight += 1;
        state.rate.take(now);
    }

    /// An entry that has begun waits for its client.
    pub(super) fn park(&mut self, client: ClientIdentity, turn: Turn, parked: Parked<K>, now: Instant) {
        self.places.insert(parked.key.clone(), Place::Parked(client, turn));
        let state = self.client(client, now);
        state.parked.insert(turn, parked);
        self.time_client(client, now);
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

    /// A request of `client` has ended. Those that wait for the client go on: all of them where the result says how, else
    /// the first, which is the next to find out. Those that wait for its rate have a timer.
    pub(super) fn client_left(
        &mut self,
        client: ClientIdentity,
        outcome: Option<Result<(), &Error>>,
        now: Instant,
    ) {
        let Some(state) = self.clients.get_mut(&client) else { return };
        state.in_flight = state.in_flight.saturating_sub(1);
        let is_known = match outcome {
            Some(Ok(())) => true,
            Some(Err(error)) => is_about_the_client(error),
            None => false,
        };
        let count = match state.standing(false, now) {
            Standing::Slow(_) => 0,
            Standing::Rejected { .. } => usize::MAX,
            _ if is_known && !state.rate.is_slow(now) => usize::MAX,
            _ => 1,
        };
        self.unpark(client, count, now);
        self.time_client(client, now);
    }

    /// What the outcome of a request says about endpoint, client and rate.
    pub(super) fn learn(
        &mut self,
        (endpoint, origin): (&Arc<str>, &Arc<str>),
        client: Option<ClientIdentity>,
        outcome: Result<(), &Error>,
        began: Instant,
        now: Instant,
    ) {
        let class = outcome.err().map(Error::class);
        if let Some(endpoint) = self.endpoints.get_mut(endpoint) {
            match (class, outcome) {
                (Some(Class::Transient), Err(error)) => endpoint.circuit.failed(client, error, now),
                (Some(Class::Configuration), _) => return, // nothing was sent
                _ => endpoint.circuit.answered(),
            }
        }
        let Some(client) = client else { return };
        let Some(state) = self.clients.get_mut(&client) else { return };
        match outcome {
            Ok(()) => state.succeeded(),
            Err(error) if is_about_the_client(error) => state.rejected(error, began, now),
            Err(_) => {}
        }
        if class == Some(Class::Limited)
            && let Some(origin) = self.origins.get_mut(origin)
        {
            let others = origin
                .limited
                .replace((client, now))
                .is_some_and(|(other, at)| other != client && now.saturating_duration_since(at) < SAME_LIMIT);
            // One client's quota does not concern the others.
            if others { origin.rate.slow_down(now) } else { state.rate.slow_down(now) }
        }
    }

    pub(super) fn expedite(&mut self, client: ClientIdentity) {
        if let Some(state) = self.clients.get_mut(&client) {
            state.expedite();
        }
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
                Timer::Client(client) => {
                    if let Some(state) = self.clients.get_mut(&client) {
                        state.timer = None;
                    }
                    self.unpark(client, 1, now);
                    self.time_client(client, now);
                }
            }
        }
    }

    /// Puts the first `count` entries that wait for `client` back into their queues, with their own deadlines.
    fn unpark(&mut self, client: ClientIdentity, count: usize, now: Instant) {
        for _ in 0..count {
            let state = self.clients.get_mut(&client);
            let Some((turn, parked)) = state.and_then(|state| state.parked.pop_first()) else { return };
            let Parked { key, since, endpoint, origin } = parked;
            // It may have been forgotten while the request was prepared.
            let endpoint = self.endpoint(&endpoint, &origin, now);
            self.insert(endpoint, turn, Entry { key, since }, now);
        }
    }

    /// Sets the timer of a client whose entries wait for its rate, or for nothing in flight. One entry at a time goes back:
    /// each that begins in vain costs as much as one that is sent.
    fn time_client(&mut self, client: ClientIdentity, now: Instant) {
        let Some(state) = self.clients.get_mut(&client) else { return };
        let wanted = match state.standing(false, now) {
            _ if state.parked.is_empty() => None,
            Standing::Slow(at) => Some(at),
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
            self.timers.remove(&(before, Timer::Client(client)));
        }
        if let Some(at) = wanted {
            self.timers.insert((at, Timer::Client(client)));
        }
    }

    fn client(&mut self, client: ClientIdentity, now: Instant) -> &mut Client<K> {
        let limit = f64::from(self.limits.per_second);
        self.clients.entry(client).or_insert_with(|| Client::new(limit, now))
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

    fn remove_parked(&mut self, client: ClientIdentity, turn: Turn) -> Option<Parked<K>> {
        let parked = self.clients.get_mut(&client)?.parked.remove(&turn)?;
        self.places.remove(&parked.key);
        Some(parked)
    }

    /// Puts the first entry of an endpoint where it belongs now.
    fn list_endpoint(&mut self, name: &Arc<str>, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(name) else { return };
        let wanted = match (endpoint.queue.first_key_value(), endpoint.circuit.passage(now)) {
            (Some((turn, _)), Passage::Closed | Passage::Probe) => Listed::Ready(*turn),
            (Some(_), Passage::Blocked(Some(at))) => Listed::At(at),
            _ => Listed::Nowhere,
        };
        let before = std::mem::replace(&mut endpoint.listed, wanted);
        let origin_name = Arc::clone(&endpoint.origin);
        if before != wanted {
            let origin = self.origins.get_mut(&origin_name);
            match before {
                Listed::Ready(turn) => {
                    origin.map(|origin| origin.heads.remove(&(turn, Arc::clone(name))));
                }
                Listed::At(at) => {
                    self.timers.remove(&(at, Timer::Endpoint(Arc::clone(name))));
                }
                Listed::Nowhere => {}
            }
            let origin = self.origins.get_mut(&origin_name);
            match wanted {
                Listed::Ready(turn) => {
                    origin.map(|origin| origin.heads.insert((turn, Arc::clone(name))));
                }
                Listed::At(at) => {
                    self.timers.insert((at, Timer::Endpoint(Arc::clone(name))));
                }
                Listed::Nowhere => {}
            }
        }
        self.list_origin(&origin_name, now);
    }

    /// Puts an origin where it belongs now.
    fn list_origin(&mut self, name: &Arc<str>, now: Instant) {
        let Some(origin) = self.origins.get_mut(name) else { return };
        let wanted = match origin.heads.first() {
            Some((turn, _)) if origin.in_flight < self.limits.in_flight => {
                if origin.rate.next > now {
                    Listed::At(origin.rate.next)
                } else {
                    Listed::Ready(*turn)
                }
            }
            _ => Listed::Nowhere,
        };
        if origin.listed == wanted {
            return;
        }
        self.unlist_origin(name);
        match wanted {
            Listed::Ready(turn) => drop(self.ready.insert((turn, Arc::clone(name)))),
            Listed::At(at) => drop(self.timers.insert((at, Timer::Origin(Arc::clone(name))))),
            Listed::Nowhere => {}
        }
        if let Some(origin) = self.origins.get_mut(name) {
            origin.listed = wanted;
        }
    }

    fn unlist_origin(&mut self, name: &Arc<str>) {
        let Some(origin) = self.origins.get_mut(name) else { return };
        match std::mem::replace(&mut origin.listed, Listed::Nowhere) {
            Listed::Ready(turn) => drop(self.ready.remove(&(turn, Arc::clone(name)))),
            Listed::At(at) => drop(self.timers.remove(&(at, Timer::Origin(Arc::clone(name))))),
            Listed::Nowhere => {}
        }
    }

    /// Forgets what says nothing, now and then: endpoints and clients are the tenants' choice.
    fn prune(&mut self, now: Instant) {
        if self.remembered() < self.prune_at.max(PRUNE_ABOVE) {
            return;
        }
        self.clients.retain(|_, client| !client.is_idle(now));
        let parked_at = self.clients.values().flat_map(|client| client.parked.values());
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
        self.origins.len() + self.endpoints.len() + self.clients.len()
    }
}
