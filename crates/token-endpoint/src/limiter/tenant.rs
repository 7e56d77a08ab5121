//! What is known of one tenant.

use super::circuit::Circuit;
use super::entry::{Entry, Turn};
use super::identity::Identity;
use super::identity_state::IdentityState;
use super::origin::Listed;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use tokio::time::Instant;

pub(super) struct TenantState<K> {
    /// Requests in flight, and those whose answers are under way.
    pub(super) underway: usize,
    pub(super) endpoints: HashMap<Arc<str>, Endpoint<K>>,
    pub(super) identities: HashMap<Identity, IdentityState<K>>,
    /// Clients that have succeeded in this process, also those whose state is forgotten, and when they did last.
    pub(super) succeeded: HashMap<Identity, Instant>,
    /// The origins where it has a lane.
    pub(super) origins: HashSet<Arc<str>>,
    /// The lanes that wait until it has less under way.
    pub(super) held: BTreeSet<(Turn, Arc<str>)>,
    /// How much may be kept of it before what says nothing is looked for.
    pub(super) prune_above: usize,
}

pub(super) struct Endpoint<K> {
    pub(super) origin: Arc<str>,
    pub(super) queue: BTreeMap<Turn, Entry<K>>,
    pub(super) circuit: Circuit,
    pub(super) listed: Listed,
}

impl<K> TenantState<K> {
    pub(super) fn new(prune_above: usize) -> Self {
        TenantState {
            underway: 0,
            endpoints: HashMap::new(),
            identities: HashMap::new(),
            succeeded: HashMap::new(),
            origins: HashSet::new(),
            held: BTreeSet::new(),
            prune_above,
        }
    }

    /// Endpoints, identities and lanes together.
    pub(super) fn kept(&self) -> usize {
        self.endpoints.len() + self.identities.len() + self.origins.len()
    }

    /// Whether nothing is known of it.
    pub(super) fn is_unknown(&self) -> bool {
        self.underway == 0 && self.kept() == 0 && self.succeeded.is_empty()
    }
}

impl<K> Endpoint<K> {
    pub(super) fn new(origin: Arc<str>) -> Self {
        Endpoint { origin, queue: BTreeMap::new(), circuit: Circuit::default(), listed: Listed::Nowhere }
    }

    /// Whether forgetting it would change nothing.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.queue.is_empty() && self.circuit.is_over(now)
    }
}
