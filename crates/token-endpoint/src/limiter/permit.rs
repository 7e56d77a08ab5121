//! The right to send one request, and what becomes of it.

use super::entry::{Begun, Parked};
use super::identity::ClientIdentity;
use super::known_rejection::KnownRejection;
use super::queue::Verdict;
use super::shared::Shared;
use crate::error::Error;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The right to send one request to an endpoint. Without [`EndpointPermit::finish`] nothing is learnt from it.
pub struct EndpointPermit<K: Clone + Eq + Hash> {
    shared: Arc<Shared<K>>,
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

impl<K: Clone + Eq + Hash> fmt::Debug for EndpointPermit<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EndpointPermit").field("began", &self.began).finish_non_exhaustive()
    }
}

impl<K: Clone + Eq + Hash> EndpointPermit<K> {
    pub(super) fn new(shared: Arc<Shared<K>>, begun: Begun<K>, now: Instant) -> Self {
        Self { shared, begun, began: now, client: None, is_over: false }
    }

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
        let shared = Arc::clone(&self.shared);
        let mut queue = shared.queue();
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
        shared.changed.notify_one();
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
        let mut queue = self.shared.queue();
        if let Some(outcome) = outcome {
            queue.learn((endpoint, origin), self.client, outcome, self.began, now);
        }
        queue.permit_left(endpoint, origin, *probe, outcome.is_some() || self.client.is_some(), now);
        if let Some(client) = self.client {
            queue.client_left(client, outcome, now);
        }
        drop(queue);
        self.shared.changed.notify_one();
    }
}

impl<K: Clone + Eq + Hash> Drop for EndpointPermit<K> {
    fn drop(&mut self) {
        self.leave(None);
    }
}
