//! A request that waits, in each of its states.

use std::sync::Arc;
use tokio::time::Instant;

/// For whom requests are made: an opaque name. What one tenant asks for, and is answered, concerns no other.
pub type Tenant = Arc<str>;

/// A place in a queue: the deadline, then the order of arrival.
pub(super) type Turn = (Instant, u64);

/// A place among the entries that wait for one client: requests that were never sent go before those that were refused.
pub(super) type ParkedTurn = (bool, Turn);

/// An endpoint, as one tenant asks it: it has a queue and a circuit for each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EndpointKey {
    pub(super) tenant: Tenant,
    pub(super) url: Arc<str>,
}

/// An entry in the queue of its endpoint.
pub(super) struct Entry<K> {
    pub(super) key: K,
    pub(super) since: Instant,
}

/// An entry that waits for its client.
pub(super) struct Parked<K> {
    pub(super) key: K,
    pub(super) since: Instant,
    pub(super) endpoint: EndpointKey,
    pub(super) origin: Arc<str>,
}

/// An entry that left the queue to begin.
pub(super) struct Begun<K> {
    pub(super) key: K,
    pub(super) since: Instant,
    pub(super) turn: Turn,
    pub(super) endpoint: EndpointKey,
    pub(super) origin: Arc<str>,
    pub(super) probe: bool,
}
