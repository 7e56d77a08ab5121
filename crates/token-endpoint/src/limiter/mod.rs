//! How many token requests are in flight, in which order they begin, and which need not be sent at all.
//!
//! - A request waits as an entry of a key and a deadline, however many there are; the earliest deadline goes first, over
//!   all endpoints that may be asked now.
//! - One origin has a limit of requests in flight and of requests that begin in a second.
//! - A circuit opens at an endpoint that fails for several clients in a row: it is asked one request at a time.
//! - A rejected client is known: its requests are answered here. A client that has not succeeded yet is tried by one
//!   request at a time.
//!
//! ```text
//! enqueue(key, endpoint, deadline) ─▶ next() ─▶ EndpointPermit ─▶ admit(client) ─▶ send ─▶ finish(outcome)
//!                ▲                                                    │
//!                └──────────────── parked, until the client is free ◀─┘
//! ```
//!
//! The only clock here is tokio's, so that tests can pause it.

mod circuit;
mod client;
mod known_rejection;
mod queue;
mod rate;

pub use circuit::CircuitOpen;
pub use known_rejection::KnownRejection;

use super::credentials::Credentials;
use super::digest::{Digest, DigestKey};
use super::error::Error;
use super::request::RequestDescription;
use super::tls::Tls;
use queue::{Begun, Next, Parked, Queue, Verdict};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use url::Url;

/// The limits of one origin (scheme, host and port).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests in flight.
    pub in_flight: usize,
    /// Requests that begin in one second, evenly spread.
    pub per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { in_flight: 64, per_second: 100 }
    }
}

/// A client with a credential at a token URL, as a keyed digest: it tells clients apart and says nothing about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientIdentity(Digest);

/// See the module. Cheap to clone; all clones are one limiter. `K` names an entry: one key has one entry.
pub struct Limiter<K> {
    shared: Arc<Shared<K>>,
}

struct Shared<K> {
    digest_key: DigestKey,
    queue: Mutex<Queue<K>>,
    /// An entry may have become the next one.
    changed: Notify,
}

/// The right to send one request to an endpoint. Without [`EndpointPermit::finish`] nothing is learnt from it.
pub struct EndpointPermit<K: Clone + Eq + Hash> {
    limiter: Limiter<K>,
    begun: Begun<K>,
    began: Instant,
    client: Option<ClientIdentity>,
    is_over: bool,
}

/// What becomes of a request when its client is known.
pub enum Admission<K: Clone + Eq + Hash> {
    /// It may be sent.
    Granted(EndpointPermit<K>),
    /// It waits for its client, as an entry, and begins anew when its turn comes.
    Parked,
    /// It need not be sent.
    Rejected(KnownRejection),
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

impl<K: Clone + Eq + Hash> fmt::Debug for EndpointPermit<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointPermit").field("began", &self.began).finish_non_exhaustive()
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
        let limits = Limits { in_flight: limits.in_flight.max(1), per_second: limits.per_second.max(1) };
        let shared = Shared {
            digest_key: DigestKey::new(),
            queue: Mutex::new(Queue::new(limits)),
            changed: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// The client of a request. Scopes, parameters and the like make no other client: their rejection is not shared.
    #[must_use]
    pub fn client(
        &self,
        description: &RequestDescription,
        credentials: &Credentials,
        tls: &Tls,
    ) -> ClientIdentity {
        let how = [
            description.token_url.as_str().to_owned(),
            format!("{:?}", description.client_authentication),
            // An assertion's subject is a part of what is let in.
            format!("{:?}", description.grant),
        ];
        // A renewed certificate is another credential.
        let certificate = tls.has_client_certificate().then(|| tls.digest());
        let how = how.iter().map(|it| Some(it.as_bytes())).chain([certificate.as_ref().map(AsRef::as_ref)]);
        ClientIdentity(self.shared.digest_key.of(how.chain(credentials.all())))
    }

    /// A digest that is the same for credentials with the same values, in this process.
    #[must_use]
    pub fn digest(&self, credentials: &Credentials) -> Digest {
        self.shared.digest_key.of(credentials.all())
    }

    /// Has a request to `endpoint` wait: a token URL, or an issuer whose token endpoint is to be discovered. The entry
    /// that `key` has already moves to this endpoint; its deadline only moves earlier.
    pub fn enqueue(&self, key: K, endpoint: &Url, deadline: Instant) {
        let origin = endpoint.origin().ascii_serialization();
        self.queue().enqueue(key, endpoint.as_str(), &origin, deadline, Instant::now());
        self.shared.changed.notify_one();
    }

    /// Takes the entry of `key` out. Returns whether it had one.
    pub fn remove(&self, key: &K) -> bool {
        self.queue().remove(key, Instant::now())
    }

    /// How many entries wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queue().len()
    }

    /// Whether no entry waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Why entries of `endpoint` wait, if its circuit is open.
    #[must_use]
    pub fn circuit(&self, endpoint: &Url) -> Option<CircuitOpen> {
        self.queue().circuit(endpoint.as_str())
    }

    /// A person has changed something, or asks for a token: a client that was rejected is tried again 30 s after the
    /// rejection, and not only at the end of a wait that may have grown to half an hour. However many ask, it is tried once.
    pub fn expedite(&self, client: ClientIdentity) {
        self.queue().expedite(client);
    }

    /// Waits until an entry may begin, and takes it out: of all that may, the one with the earliest deadline. A deadline
    /// that has passed is still the earliest. For one caller at a time; nothing is lost if it stops waiting.
    pub async fn next(&self) -> (K, EndpointPermit<K>) {
        loop {
            let changed = self.shared.changed.notified();
            let now = Instant::now();
            let next = self.queue().next(now);
            match next {
                Next::Begin(begun) => {
                    let key = begun.key.clone();
                    let limiter = self.clone();
                    return (
                        key,
                        EndpointPermit { limiter, begun, began: now, client: None, is_over: false },
                    );
                }
                Next::At(at) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(at) => {}
                },
                Next::Nothing => changed.await,
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue<K>> {
        // Nothing in there panics; and if it did, the queue is of more use than none.
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.queue().remembered()
    }
}

impl<K: Clone + Eq + Hash> EndpointPermit<K> {
    /// How long the entry waited.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.began.saturating_duration_since(self.begun.since)
    }

    /// What `client` may do, before anything is read for it: an entry whose client is known from an earlier request costs
    /// no read where it would be parked or rejected. `exclusive`: the request spends its credential, and goes alone.
    #[must_use]
    pub fn screen(self, client: ClientIdentity, exclusive: bool) -> Admission<K> {
        self.judge(client, exclusive, false)
    }

    /// Has `client` send its request, if it may.
    #[must_use]
    pub fn admit(self, client: ClientIdentity, exclusive: bool) -> Admission<K> {
        self.judge(client, exclusive, true)
    }

    fn judge(mut self, client: ClientIdentity, exclusive: bool, begins: bool) -> Admission<K> {
        let now = Instant::now();
        let limiter = self.limiter.clone();
        let mut queue = limiter.queue();
        let verdict = queue.judge(client, exclusive, now);
        match verdict {
            Verdict::Go => {
                if begins {
                    queue.client_began(client, now);
                    self.client = Some(client);
                    self.began = now;
                }
                drop(queue);
                return Admission::Granted(self);
            }
            Verdict::Park => {
                let Begun { key, since, turn, endpoint, .. } = &self.begun;
                let parked = Parked { key: key.clone(), since: *since, endpoint: Arc::clone(endpoint) };
                queue.park(client, *turn, parked, now);
            }
            Verdict::Reject(_) => {}
        }
        self.is_over = true;
        let Begun { endpoint, origin, probe, .. } = &self.begun;
        queue.permit_left(endpoint, origin, *probe, false, now);
        drop(queue);
        limiter.shared.changed.notify_one();
        match verdict {
            Verdict::Reject(rejection) => Admission::Rejected(rejection),
            _ => Admission::Parked,
        }
    }

    /// Ends the permit, and has the others learn from the outcome of the request.
    pub fn finish<T>(mut self, outcome: &Result<T, Error>) {
        self.leave(Some(outcome.as_ref().map(|_| ())));
    }

    fn leave(&mut self, outcome: Option<Result<(), &Error>>) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        let now = Instant::now();
        let Begun { endpoint, origin, probe, .. } = &self.begun;
        let mut queue = self.limiter.queue();
        if let Some(outcome) = outcome {
            queue.learn((endpoint, origin), self.client, outcome, self.began, now);
        }
        queue.permit_left(endpoint, origin, *probe, outcome.is_some() || self.client.is_some(), now);
        if let Some(client) = self.client {
            queue.client_left(client, outcome, now);
        }
        drop(queue);
        self.limiter.shared.changed.notify_one();
    }
}

impl<K: Clone + Eq + Hash> Drop for EndpointPermit<K> {
    fn drop(&mut self) {
        self.leave(None);
    }
}
