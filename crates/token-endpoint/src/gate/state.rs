//! Who waits at which origin, what is known of endpoints and credentials, and what follows from both.

use super::super::error::{Class, Error};
use super::pace::Pace;
use super::standing::{Standing, is_about_the_credential};
use super::{Held, Limits, Party, Place};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use url::Url;

/// Transient failures in a row, from at least two clients, after which an endpoint gets one request at a time.
const BREAKER: u32 = 5;
/// How long the count of rejections outlives the wait.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// So many wait for an endpoint before others had better come back later: enough to keep it busy.
const CROWD: usize = 64;
/// So many wait for one credential to be tried for the first time: they cannot go before that, and it may take a while.
const FEW: usize = 8;
/// Entries of each kind before those that say nothing are forgotten.
const MANY: usize = 4096;
/// Two clients that are told "too many requests" within this time mean the endpoint and not one of them.
const TOGETHER: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct State {
    pub(super) origins: HashMap<Arc<str>, Origin>,
    endpoints: HashMap<Arc<str>, Endpoint>,
    standings: HashMap<Asker, Standing>,
    pub(super) arrivals: u64,
    prune_at: usize,
}

/// A client with a credential, at a token URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Asker {
    pub(super) endpoint: Arc<str>,
    pub(super) party: Party,
}

/// Deadline, then arrival.
pub(super) type Turn = (Instant, u64);

pub(super) struct Origin {
    in_flight: usize,
    pace: Pace,
    pub(super) queue: BTreeMap<Turn, Waiter>,
    /// When the timer goes off that is set already.
    pub(super) timer: Option<Instant>,
    /// Who was told "too many requests" last, and when.
    limited: Option<(Party, Instant)>,
}

pub(super) struct Waiter {
    pub(super) asker: Asker,
    pub(super) since: Instant,
    pub(super) reply: oneshot::Sender<Result<Place, Held>>,
}

#[derive(Default)]
struct Endpoint {
    /// Transient, in a row.
    failures: u32,
    /// The first two of those they were for.
    clients: Vec<Party>,
    last: Option<Error>,
    probing: bool,
}

impl Endpoint {
    fn is_broken(&self) -> bool {
        self.failures >= BREAKER && self.clients.len() >= 2
    }
}

/// What can be done for one who waits.
pub(super) enum Verdict {
    Go {
        probe: bool,
    },
    /// Until something changes, or until a time.
    Wait(Option<Instant>),
    Hold(Held),
}

pub(super) type Replies = Vec<(oneshot::Sender<Result<Place, Held>>, Result<Place, Held>)>;

impl State {
    /// Admits the first in the queue who may go; or says when it is worth while to look again; or nothing.
    pub(super) fn next(
        &mut self,
        name: &Arc<str>,
        limits: Limits,
        now: Instant,
        replies: &mut Replies,
    ) -> Option<Result<(Waiter, bool), Instant>> {
        let origin = self.origins.get(name)?;
        if origin.in_flight >= limits.in_flight || origin.queue.is_empty() {
            return None;
        }
        if origin.pace.next > now {
            return Some(Err(origin.pace.next));
        }
        let (mut held, mut chosen, mut wake) = (Vec::new(), None, None::<Instant>);
        for (turn, waiter) in &origin.queue {
            match self.judge(&waiter.asker, now) {
                Verdict::Go { probe } => {
                    chosen = Some((*turn, probe));
                    break;
                }
                Verdict::Wait(at) => wake = [wake, at].into_iter().flatten().min(),
                Verdict::Hold(why) => held.push((*turn, why)),
            }
        }
        self.answer(name, held, replies);
        let Some((turn, probe)) = chosen else { return wake.map(Err) };
        let origin = self.origins.get_mut(name)?;
        let waiter = origin.queue.remove(&turn)?;
        origin.in_flight += 1;
        origin.pace.take(now);
        let limit = f64::from(limits.per_second);
        let standing =
            self.standings.entry(waiter.asker.clone()).or_insert_with(|| Standing::new(limit, now));
        standing.in_flight += 1;
        standing.pace.take(now);
        if probe && let Some(endpoint) = self.endpoints.get_mut(&waiter.asker.endpoint) {
            endpoint.probing = true;
        }
        Some(Ok((waiter, probe)))
    }

    /// Answers all in the queue for whom it is of no use to wait.
    pub(super) fn sweep(&mut self, name: &Arc<str>, now: Instant, replies: &mut Replies) {
        let Some(origin) = self.origins.get(name) else { return };
        let held: Vec<(Turn, Held)> = origin
            .queue
            .iter()
            .filter_map(|(turn, waiter)| match self.judge(&waiter.asker, now) {
                Verdict::Hold(why) => Some((*turn, why)),
                _ => None,
            })
            .collect();
        self.answer(name, held, replies);
    }

    fn answer(&mut self, name: &Arc<str>, held: Vec<(Turn, Held)>, replies: &mut Replies) {
        let Some(origin) = self.origins.get_mut(name) else { return };
        for (turn, why) in held {
            if let Some(waiter) = origin.queue.remove(&turn) {
                replies.push((waiter.reply, Err(why)));
            }
        }
    }

    /// What can be done now for `asker`.
    pub(super) fn judge(&self, asker: &Asker, now: Instant) -> Verdict {
        let standing = self.standings.get(asker);
        if let Some(rejection) = standing.and_then(|standing| standing.rejection.as_ref())
            && rejection.until > now
        {
            let error = Box::new(rejection.error.clone());
            return Verdict::Hold(Held::Rejected { error, retry_in: rejection.until - now });
        }
        let broken = self.endpoints.get(&asker.endpoint).filter(|endpoint| endpoint.is_broken());
        if let Some(endpoint) = broken
            && endpoint.probing
            && let Some(error) = &endpoint.last
        {
            let error = Box::new(error.clone());
            return Verdict::Hold(Held::Unavailable { error, failures: endpoint.failures });
        }
        match standing {
            // One finds out for all whether the credential is any good.
            Some(standing) if !standing.proven && standing.in_flight > 0 => Verdict::Wait(None),
            Some(standing) if standing.pace.next > now => Verdict::Wait(Some(standing.pace.next)),
            _ => Verdict::Go { probe: broken.is_some() },
        }
    }

    /// See [`super::Gate::hasten`].
    pub(super) fn hasten(&mut self, asker: &Asker) {
        if let Some(standing) = self.standings.get_mut(asker) {
            standing.hasten();
        }
    }

    /// See [`super::Gate::is_crowded`]. To others, those who wait for somebody to try their credential first are no crowd:
    /// whoever has another goes past them.
    pub(super) fn is_crowded(
        &self,
        token_url: &Url,
        party: Option<Party>,
        deadline: Instant,
        now: Instant,
    ) -> bool {
        let Some(origin) = self.origins.get(token_url.origin().ascii_serialization().as_str()) else {
            return false;
        };
        let is_stuck = |asker: &Asker| matches!(self.judge(asker, now), Verdict::Wait(None));
        let asker = party.map(|party| Asker { endpoint: token_url.as_str().into(), party });
        if let Some(asker) = asker.filter(is_stuck) {
            return origin.queue.values().filter(|waiter| waiter.asker == asker).take(FEW).count() == FEW;
        }
        let may_go =
            |waiter: &&Waiter| *waiter.asker.endpoint == *token_url.as_str() && !is_stuck(&waiter.asker);
        let ahead = origin.queue.range(..(deadline, 0)).map(|(_, waiter)| waiter);
        ahead.filter(may_go).take(CROWD).count() == CROWD
    }

    /// `place` is free again.
    pub(super) fn left(&mut self, place: &Place) {
        if let Some(origin) = self.origins.get_mut(&place.origin) {
            origin.in_flight = origin.in_flight.saturating_sub(1);
        }
        if let Some(standing) = self.standings.get_mut(&place.asker) {
            standing.in_flight = standing.in_flight.saturating_sub(1);
        }
        if let Some(endpoint) = self.endpoints.get_mut(&place.asker.endpoint).filter(|_| place.probe) {
            endpoint.probing = false;
        }
    }

    /// What the outcome of the request that had `place` says about endpoint, credential and pace.
    pub(super) fn learn(&mut self, place: &Place, outcome: Result<(), &Error>, now: Instant) {
        let class = outcome.err().map(Error::class);
        let endpoint = self.endpoints.entry(Arc::clone(&place.asker.endpoint)).or_default();
        match (class, outcome) {
            (Some(Class::Transient), Err(error)) => {
                endpoint.failures = endpoint.failures.saturating_add(1);
                if endpoint.clients.len() < 2 && !endpoint.clients.contains(&place.asker.party) {
                    endpoint.clients.push(place.asker.party);
                }
                endpoint.last = Some(error.clone());
            }
            (Some(Class::Configuration), _) => return, // nothing was sent
            // Whatever it says, it answers.
            _ => *endpoint = Endpoint { probing: endpoint.probing, ..Endpoint::default() },
        }
        let Some(standing) = self.standings.get_mut(&place.asker) else { return };
        match outcome {
            Ok(()) => {
                standing.proven = true;
                standing.rejection = None;
            }
            Err(error) if is_about_the_credential(error) => {
                standing.proven = false;
                standing.reject(error, place.began, now);
            }
            Err(_) => {}
        }
        if class == Some(Class::Limited)
            && let Some(origin) = self.origins.get_mut(&place.origin)
        {
            let others = origin
                .limited
                .replace((place.asker.party, now))
                .is_some_and(|(party, at)| party != place.asker.party && now - at < TOGETHER);
            // One client's quota is nothing to the others.
            if others { origin.pace.slow(now) } else { standing.pace.slow(now) }
        }
    }

    /// Forgets what says nothing, now and then.
    pub(super) fn prune(&mut self, now: Instant) {
        let entries = self.origins.len() + self.endpoints.len() + self.standings.len();
        if entries < self.prune_at.max(MANY) {
            return;
        }
        self.origins
            .retain(|_, origin| origin.in_flight > 0 || !origin.queue.is_empty() || origin.pace.is_slow(now));
        self.endpoints.retain(|_, endpoint| endpoint.failures > 0 || endpoint.probing);
        self.standings.retain(|_, standing| {
            let rejected = standing.rejection.as_ref();
            standing.in_flight > 0
                || standing.pace.is_slow(now)
                || rejected.is_some_and(|rejection| rejection.until + REMEMBERED > now)
        });
        let left = self.origins.len() + self.endpoints.len() + self.standings.len();
        self.prune_at = left.saturating_mul(2);
    }
}

impl Origin {
    pub(super) fn new(limits: Limits, now: Instant) -> Self {
        Self {
            in_flight: 0,
            pace: Pace::new(f64::from(limits.per_second), now),
            queue: BTreeMap::new(),
            timer: None,
            limited: None,
        }
    }
}

#[cfg(test)]
impl State {
    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.origins.len() + self.endpoints.len() + self.standings.len()
    }
}
