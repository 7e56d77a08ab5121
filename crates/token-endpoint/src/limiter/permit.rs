//! The right to send one request, and what becomes of it.

use super::circuit::ProbeEnd;
use super::entry::{Begun, Parked};
use super::group::GroupStanding;
use super::identity::{GroupClient, Identity, RequestIdentity};
use super::identity_state::Taken;
use super::known_rejection::KnownRejection;
use super::queue::Queue;
use super::shared::Shared;
use super::terms::Terms;
use super::underway::Underway;
use super::verdict::Verdict;
use crate::error::{Class, Error};
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;
use tokio::time::Instant;

/// The right to send one request to an endpoint. Without [`EndpointPermit::finish`] nothing is learnt from it.
pub struct EndpointPermit<K: Clone + Eq + Hash> {
    shared: Arc<Shared<K>>,
    begun: Begun<K>,
    began: Instant,
    who: Option<RequestIdentity>,
    /// The identities that count the request as in flight, and what it took of each.
    counted: Vec<(Identity, Taken)>,
    /// It finds out whether the client of its group is accepted.
    is_trial: bool,
    underway: Arc<Underway<K>>,
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
        let underway = Underway::new(Arc::clone(&shared), Arc::clone(&begun.endpoint.tenant));
        let counted = Vec::new();
        Self { shared, begun, began: now, who: None, counted, is_trial: false, underway, is_over: false }
    }

    /// Counts the request as under way for as long as it is kept, also after the permit has ended.
    #[must_use]
    pub fn underway(&self) -> Arc<Underway<K>> {
        Arc::clone(&self.underway)
    }

    /// The deadline of the entry.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.begun.turn.0
    }

    /// How long the entry waited.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.began.saturating_duration_since(self.begun.since)
    }

    /// What a request may do, before anything is read for it: an entry whose identity is known from an earlier request
    /// costs no read where it would be parked or rejected.
    #[must_use]
    pub fn screen(self, who: RequestIdentity, terms: Terms) -> Admission<K> {
        self.judge(who, terms, false)
    }

    /// The same where only the client is known, which is lent to several tenants: no entry is parked.
    #[must_use]
    pub fn screen_group(mut self, client: GroupClient, terms: Terms) -> Admission<K> {
        let shared = Arc::clone(&self.shared);
        let now = shared.now();
        let queue = shared.queue();
        let GroupStanding::Held(rejection) = queue.groups.standing(client, terms, now) else {
            drop(queue);
            return Admission::Granted(self);
        };
        self.leave_queue(queue, None, now);
        Admission::Rejected(rejection)
    }

    /// Has a request sent, if it may be.
    #[must_use]
    pub fn admit(self, who: RequestIdentity, terms: Terms) -> Admission<K> {
        self.judge(who, terms, true)
    }

    fn judge(mut self, who: RequestIdentity, terms: Terms, begins: bool) -> Admission<K> {
        let shared = Arc::clone(&self.shared);
        let now = shared.now();
        let mut queue = shared.queue();
        let tenant = Arc::clone(&self.begun.endpoint.tenant);
        let verdict = queue.judge(&tenant, who, terms, now);
        match verdict {
            Verdict::Go => {
                if begins {
                    self.counted = queue.began(&tenant, who, terms, now);
                    self.is_trial = who.group.is_some_and(|client| queue.groups.began(client, terms, now));
                    self.who = Some(who);
                    self.began = now;
                    if self.begun.probe {
                        queue.probe_sent(&self.begun.endpoint, now);
                    }
                }
                drop(queue);
                return Admission::Granted(self);
            }
            Verdict::Park(identity, was_tried) => {
                let Begun { key, since, turn, endpoint, origin, .. } = &self.begun;
                let parked = Parked {
                    key: key.clone(),
                    since: *since,
                    endpoint: endpoint.clone(),
                    origin: Arc::clone(origin),
                };
                queue.park(identity, (was_tried, *turn), parked, terms, now);
            }
            Verdict::Reject(_) => {}
        }
        self.leave_queue(queue, None, now);
        match verdict {
            Verdict::Reject(rejection) => Admission::Rejected(rejection),
            _ => Admission::Parked,
        }
    }

    /// Ends the permit, and has the others learn from the outcome of the request. Returns how long requests of its client are
    /// held back after a failure of [`Class::Ambiguous`], and as which class they are paced.
    #[allow(clippy::must_use_candidate)] // most outcomes say enough by themselves
    pub fn finish<T>(mut self, outcome: &Result<T, Error>) -> Option<(Class, Duration)> {
        self.leave(Some(outcome.as_ref().map(|_| ())));
        let is_ambiguous = outcome.as_ref().is_err_and(|error| error.class() == Class::Ambiguous);
        let client = self.who.filter(|_| is_ambiguous)?.client;
        let tenant = Arc::clone(&self.begun.endpoint.tenant);
        self.shared.queue().held(&tenant, client, self.shared.now())
    }

    fn leave(&mut self, outcome: Option<Result<(), &Error>>) {
        if !self.is_over {
            let shared = Arc::clone(&self.shared);
            let now = shared.now();
            self.leave_queue(shared.queue(), outcome, now);
        }
    }

    fn leave_queue(
        &mut self,
        mut queue: MutexGuard<'_, Queue<K>>,
        outcome: Option<Result<(), &Error>>,
        now: Instant,
    ) {
        self.is_over = true;
        let Begun { endpoint, origin, probe, .. } = &self.begun;
        if let Some(outcome) = outcome {
            queue.learn((endpoint, origin), self.who, outcome, self.began, now);
        }
        let was_sent = self.who.is_some();
        let is_of_endpoint = outcome.is_some_and(|outcome| outcome.err().is_none_or(|error| !error.is_own()));
        let end = match (was_sent, is_of_endpoint) {
            (false, false) => ProbeEnd::Unsent,
            (false, true) => ProbeEnd::FailedUnsent,
            (true, true) => ProbeEnd::Answered,
            (true, false) => ProbeEnd::Useless(self.began),
        };
        queue.permit_left(endpoint, origin, probe.then_some(end), outcome.is_some() || was_sent, now);
        // Without an outcome it was not sent, or its caller has stopped waiting for the answer.
        let is_unsent = match outcome {
            Some(outcome) => outcome.is_err_and(Error::is_unsent),
            None => true,
        };
        for (identity, taken) in self.counted.drain(..) {
            if is_unsent {
                queue.give_back(&endpoint.tenant, identity, taken, now);
            }
            queue.left(&endpoint.tenant, identity, matches!(outcome, Some(Ok(()))), now);
        }
        if let Some(client) = self.who.and_then(|who| who.group).filter(|_| self.is_trial) {
            queue.trial_ended(client, is_unsent, now);
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
