//! How many token requests are in flight, in which order they begin, and which need not be sent at all.
//!
//! - A request waits as an entry of a key and a deadline, however many there are; the earliest deadline goes first, over
//!   all endpoints that may be asked now.
//! - One origin has a limit of requests in flight and of requests that begin in a second. Tenants share it, and what the process
//!   has under way, by the rules of `tenant_shares`.
//! - A circuit opens at an endpoint that fails for several clients of a tenant in a row: the tenant asks it one request at a
//!   time, or one every five seconds where it hangs.
//! - A rejection is known: requests that would get it too are answered here. Depending on the answer, those are the
//!   requests of the same client, with the same grant, or with the same parameters. A client that has not succeeded yet
//!   is tried by one request at a time. No answer to one tenant concerns another, except that an endpoint rejects a client
//!   which the owner lends to several.
//!
//! ```text
//! enqueue(key, tenant, endpoint, deadline) ─▶ next() ─▶ EndpointPermit ─▶ admit(identity) ─▶ send ─▶ finish(outcome)
//!                ▲                                                    │
//!                └──────────────── parked, until it is free ◀─────────┘
//! ```
//!
//! The only clock here is tokio's, so that tests can pause it, plus what the owner says that the machine slept.

mod circuit;
mod destination;
mod doubt;
mod entry;
mod expedite;
mod group;
mod hold;
mod identity;
mod identity_state;
mod known_rejection;
mod limits;
mod origin;
mod permit;
mod queue;
mod rate;
mod shared;
mod tenant;
mod terms;
mod underway;
mod verdict;

pub use circuit::CircuitOpen;
pub use destination::Destination;
pub use entry::Tenant;
pub use expedite::Expedite;
pub use hold::{LOCK_OUT_WAIT, rejection_wait};
pub use identity::{GroupClient, RequestIdentity};
pub use known_rejection::{KnownRejection, SharedBy};
pub use limits::Limits;
pub use permit::{Admission, EndpointPermit};
pub use terms::Terms;
pub use underway::Underway;

use super::credentials::Credentials;
use super::digest::Digest;
use super::error::Error;
use super::request::RequestDescription;
use super::tls::Tls;
use queue::Next;
use shared::Shared;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use tokio::time::{Instant, sleep};

/// See the module. Cheap to clone; all clones are one limiter. `K` names an entry: one key has one entry.
pub struct Limiter<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Limiter<K> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared) }
    }
}

impl<K> fmt::Debug for Limiter<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limiter").finish_non_exhaustive()
    }
}

impl<K: Clone + Eq + Hash> Default for Limiter<K> {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl<K: Clone + Eq + Hash> Limiter<K> {
    /// With these limits for every origin; each is 1 at least.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { shared: Arc::new(Shared::new(limits.at_least_one())) }
    }

    /// What the answer to a request may depend on.
    #[must_use]
    pub fn identity(
        &self,
        tenant: &str,
        description: &RequestDescription,
        credentials: &Credentials,
        tls: &Tls,
    ) -> RequestIdentity {
        RequestIdentity::of(&self.shared.digest_key, (None, tenant), description, credentials, tls)
    }

    /// The same for a client that all tenants of a group are lent: where the endpoint rejects it, one request for all of them
    /// finds out, and the others are answered here.
    #[must_use]
    pub fn identity_in_group(
        &self,
        (group, tenant): (&str, &str),
        description: &RequestDescription,
        credentials: &Credentials,
        tls: &Tls,
    ) -> RequestIdentity {
        RequestIdentity::of(&self.shared.digest_key, (Some(group), tenant), description, credentials, tls)
    }

    /// A digest that is the same for credentials with the same values, in this process.
    #[must_use]
    pub fn digest(&self, credentials: &Credentials) -> Digest {
        self.shared.digest_key.of(credentials.all())
    }

    /// Has a request of `tenant` wait. The entry that `key` has already moves to this destination; its deadline only moves earlier.
    pub fn enqueue(&self, key: K, tenant: &Tenant, to: impl Into<Destination>, deadline: Instant) {
        let (now, deadline) = (self.shared.now(), deadline + self.shared.slept());
        self.shared.queue().enqueue(key, tenant, &to.into(), deadline, now);
        self.shared.changed.notify_one();
    }

    /// Takes the entry of `key` out. Returns whether it had one.
    pub fn remove(&self, key: &K) -> bool {
        self.shared.queue().remove(key, self.shared.now())
    }

    /// How many entries wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.queue().len()
    }

    /// Whether no entry waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Why entries of `tenant` to a destination wait, if their circuit is open.
    #[must_use]
    pub fn circuit(&self, tenant: &str, to: impl Into<Destination>) -> Option<CircuitOpen> {
        self.shared.queue().circuit(tenant, &to.into().endpoint)
    }

    /// The last refusal of a client that has never succeeded and was refused several times, if the entry of `key` waits
    /// because of that: such a client sends one request in two minutes.
    #[must_use]
    pub fn doubt(&self, key: &K) -> Option<Error> {
        self.shared.queue().doubt(key)
    }

    /// A request that was rejected is tried again 30 s after the rejection (2 s where its client and its grant were not), and
    /// not only at the end of a wait that may have grown to half an hour. However many ask, it is tried once. Changed values do
    /// so once until the client succeeds, where the answer did not name the client.
    pub fn expedite(&self, tenant: &str, who: RequestIdentity, why: Expedite) {
        self.shared.queue().expedite(tenant, who, why);
    }

    /// The same of a client that several tenants are lent, but once until it succeeds: then its owner must mend it.
    pub fn expedite_group(&self, client: GroupClient) {
        self.shared.queue().groups.expedite(client);
    }

    /// The machine was suspended for so many seconds, which tokio's clock does not count: every wait ends sooner by as much.
    pub fn has_slept(&self, seconds: u64) {
        self.shared.has_slept(seconds);
    }

    /// Waits until an entry may begin, and takes it out: of all that may, the one with the earliest deadline, where tenants take
    /// turns. A deadline that has passed is still the earliest. For one caller at a time; nothing is lost if it stops waiting.
    pub async fn next(&self) -> (K, EndpointPermit<K>) {
        loop {
            let changed = self.shared.changed.notified();
            let now = self.shared.now();
            let next = self.shared.queue().next(now);
            match next {
                Next::Begin(begun) => {
                    let key = begun.key.clone();
                    return (key, EndpointPermit::new(Arc::clone(&self.shared), begun, now));
                }
                Next::At(at) => tokio::select! {
                    () = changed => {}
                    () = sleep(at.saturating_duration_since(now)) => {}
                },
                Next::Nothing => changed.await,
            }
        }
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.shared.queue().remembered()
    }
}
