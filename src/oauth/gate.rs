//! Politeness: how many token requests there are at once and in which order, and what one failure saves the others.
//!
//! - At one origin so many requests are under way and begin per second; whoever has the earliest deadline goes first.
//! - A token URL that failed for several clients in a row gets one probe at a time.
//! - A credential that was rejected is tried again by one for all; one that nobody has tried yet, likewise.
//!
//! The only clock here is tokio's, so that tests can pause it.

use super::credentials::Credentials;
use super::error::{Class, Error};
use super::request::RequestDescription;
use super::tls::Tls;
use crate::api::Reason;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use secrecy::ExposeSecret;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::debug;
use url::Url;

/// Transient failures in a row, from at least two clients, after which an endpoint gets one request at a time.
const BREAKER: u32 = 5;
/// How long a rejected credential is left alone: the first time, the second, ...
const REJECTED: [Duration; 4] =
    [Duration::from_secs(30), Duration::from_secs(120), Duration::from_secs(600), Duration::from_secs(1800)];
/// So long a lock-out lasts at least.
const LOCKED_OUT: Duration = Duration::from_secs(1800);
/// How long the count of rejections outlives the wait.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// Entries of each kind before those that say nothing are forgotten.
const MANY: usize = 4096;
/// The slowest that an endpoint is asked which answers "too many requests", per second.
const SLOWEST: f64 = 1.0;
/// Two clients that are told "too many requests" within this time mean the endpoint and not one of them.
const TOGETHER: Duration = Duration::from_secs(60);

/// What one origin (scheme, host and port) is asked at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests under way.
    pub in_flight: usize,
    /// Requests that begin in one second, evenly spread.
    pub per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { in_flight: 64, per_second: 100 }
    }
}

/// Who asks: a client with a credential. Says nothing about either.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Party([u8; 16]);

/// See the module. Cheap to clone; all clones are one gate.
#[derive(Clone, Debug)]
pub struct Gate {
    inner: Arc<Inner>,
}

struct Inner {
    limits: Limits,
    /// Of this process alone: a digest is worth nothing to whoever reads it later.
    key: hmac::Key,
    state: Mutex<State>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("limits", &self.limits).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    origins: HashMap<Arc<str>, Origin>,
    endpoints: HashMap<Arc<str>, Endpoint>,
    standings: HashMap<Asker, Standing>,
    arrivals: u64,
    prune_at: usize,
}

/// A client with a credential, at a token URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Asker {
    endpoint: Arc<str>,
    party: Party,
}

/// Deadline, then arrival.
type Turn = (Instant, u64);

struct Origin {
    in_flight: usize,
    pace: Pace,
    queue: BTreeMap<Turn, Waiter>,
    /// When the timer goes off that is set already.
    timer: Option<Instant>,
    /// Who was told "too many requests" last, and when.
    limited: Option<(Party, Instant)>,
}

struct Waiter {
    asker: Asker,
    since: Instant,
    reply: oneshot::Sender<Result<Place, Held>>,
}

/// Requests per second: halved by "too many requests", back to the limit within 20 s.
struct Pace {
    limit: f64,
    rate: f64,
    at: Instant,
    next: Instant,
    slowed: Option<Instant>,
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

struct Standing {
    /// The endpoint has given it a token, and has not rejected it since.
    proven: bool,
    in_flight: usize,
    rejection: Option<Rejection>,
    pace: Pace,
}

struct Rejection {
    error: Error,
    /// In a row.
    count: usize,
    at: Instant,
    until: Instant,
}

/// Nothing was asked, because somebody else's failure says enough.
#[derive(Clone, Debug)]
pub enum Held {
    /// This very credential was rejected.
    Rejected {
        /// What the endpoint said.
        error: Box<Error>,
        /// When somebody will ask again.
        retry_in: Duration,
    },
    /// The endpoint fails for everybody, and somebody is probing it right now.
    Unavailable {
        /// The last failure.
        error: Box<Error>,
        /// In a row.
        failures: u32,
    },
}

impl Held {
    /// As the failure that was somebody else's.
    #[must_use]
    pub fn error(&self) -> &Error {
        match self {
            Held::Rejected { error, .. } | Held::Unavailable { error, .. } => error,
        }
    }

    /// See [`Error::class`].
    #[must_use]
    pub fn class(&self) -> Class {
        self.error().class()
    }

    /// See [`Error::reason`].
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.error().reason()
    }

    /// How long it is of no use to ask again. `None`: for the caller's schedule to say.
    #[must_use]
    pub fn retry_in(&self) -> Option<Duration> {
        match self {
            Held::Rejected { retry_in, .. } => Some(*retry_in),
            Held::Unavailable { .. } => None,
        }
    }
}

impl std::error::Error for Held {}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Held::Rejected { error, retry_in } => write!(
                f,
                "{error}; these credentials are shared, and not tried again by anybody for {} s",
                retry_in.as_secs().max(1)
            ),
            Held::Unavailable { error, failures } => {
                write!(f, "{error}; the endpoint failed {failures} times in a row and is asked one at a time")
            }
        }
    }
}

/// A place among the requests under way. Leaves when it is dropped.
#[derive(Debug)]
pub struct Place {
    inner: Arc<Inner>,
    origin: Arc<str>,
    asker: Asker,
    began: Instant,
    waited: Duration,
    probe: bool,
    left: bool,
}

impl Place {
    /// How long it was waited for.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.waited
    }

    /// Leaves, and lets the others learn from what became of the request. A place that is dropped teaches nothing.
    pub fn finish<T>(mut self, outcome: &Result<T, Error>) {
        self.leave(Some(outcome.as_ref().map(|_| ())));
    }

    fn leave(&mut self, outcome: Option<Result<(), &Error>>) {
        if std::mem::replace(&mut self.left, true) {
            return;
        }
        let mut state = self.inner.lock();
        let now = Instant::now();
        if let Some(origin) = state.origins.get_mut(&self.origin) {
            origin.in_flight = origin.in_flight.saturating_sub(1);
        }
        if let Some(standing) = state.standings.get_mut(&self.asker) {
            standing.in_flight = standing.in_flight.saturating_sub(1);
        }
        if let Some(endpoint) = state.endpoints.get_mut(&self.asker.endpoint).filter(|_| self.probe) {
            endpoint.probing = false;
        }
        if let Some(outcome) = outcome {
            state.learn(self, outcome, now);
        }
        self.inner.serve(state, &self.origin, outcome.is_some_and(|outcome| outcome.is_err()));
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave(None);
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Gate {
    /// With these limits for every origin; each is 1 at least.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let limits = Limits { in_flight: limits.in_flight.max(1), per_second: limits.per_second.max(1) };
        let mut secret = [0; 32];
        // It fails only where the operating system has no randomness, and then TLS does not work either.
        let _ = aws_lc_rs::rand::SecureRandom::fill(&SystemRandom::new(), &mut secret);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        Self { inner: Arc::new(Inner { limits, key, state: Mutex::default() }) }
    }

    /// Who would ask with these. Scopes, parameters and the like make no other party: a rejection of one of those is not
    /// shared.
    #[must_use]
    pub fn party(&self, description: &RequestDescription, credentials: &Credentials, tls: &Tls) -> Party {
        let mut context = hmac::Context::with_key(&self.inner.key);
        let mut add = |value: Option<&str>| {
            context.update(&value.map_or(u64::MAX, |value| value.len() as u64).to_le_bytes());
            context.update(value.unwrap_or_default().as_bytes());
        };
        add(Some(&format!("{:?}", description.client_authentication)));
        // The subject of an assertion is a part of who is let in.
        add(Some(&format!("{:?}", description.grant)));
        add(credentials.client_id.as_deref());
        for secret in [
            &credentials.client_secret,
            &credentials.refresh_token,
            &credentials.private_key,
            &credentials.subject_token,
            &credentials.actor_token,
        ] {
            add(secret.as_ref().map(ExposeSecret::expose_secret));
        }
        for (key, value) in &credentials.values {
            add(Some(key));
            add(Some(value.expose_secret()));
        }
        // A renewed certificate is another credential.
        if tls.has_client_certificate() {
            context.update(&tls.digest());
        }
        let tag = context.sign();
        let mut digest = [0; 16];
        digest.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        Party(digest)
    }

    /// Waits for a place at the origin of `token_url`, which is kept until the [`Place`] is finished or dropped. Of those
    /// who wait, the one with the earliest deadline gets the next; a deadline that has passed is still the earliest.
    ///
    /// # Errors
    /// It would be of no use to ask: see [`Held`]. It is no failure of the caller's own.
    pub async fn enter(&self, token_url: &Url, party: Party, deadline: Instant) -> Result<Place, Held> {
        let origin: Arc<str> = token_url.origin().ascii_serialization().into();
        let asker = Asker { endpoint: token_url.as_str().into(), party };
        let (reply, answer) = oneshot::channel();
        let turn = {
            let mut state = self.inner.lock();
            let now = Instant::now();
            state.prune(now);
            state.arrivals += 1;
            let turn = (deadline, state.arrivals);
            let waiter = Waiter { asker, since: now, reply };
            // A rejection is known before it is anybody's turn.
            if let Verdict::Hold(held) = state.judge(&waiter.asker, now) {
                return Err(held);
            }
            let limits = self.inner.limits;
            let queue = &mut state
                .origins
                .entry(Arc::clone(&origin))
                .or_insert_with(|| Origin::new(limits, now))
                .queue;
            queue.insert(turn, waiter);
            self.inner.serve(state, &origin, false);
            turn
        };
        let queued = Queued { inner: &self.inner, origin: &origin, turn };
        let answer = answer.await;
        drop(queued);
        if let Ok(Ok(place)) = &answer
            && !place.waited.is_zero()
        {
            let waited_ms = u64::try_from(place.waited.as_millis()).unwrap_or(u64::MAX);
            debug!(%origin, waited_ms, "waited for a turn at the endpoint");
        }
        // Nobody drops the sender before it has answered, but for a queue that is gone: then there is no limit either.
        answer
            .unwrap_or_else(|_| Err(Held::Unavailable { error: Box::new(cancelled(token_url)), failures: 0 }))
    }
}

#[cfg(test)]
impl Gate {
    /// How many entries there are.
    pub(super) fn remembered(&self) -> usize {
        let state = self.inner.lock();
        state.origins.len() + state.endpoints.len() + state.standings.len()
    }
}

fn cancelled(url: &Url) -> Error {
    Error::Timeout { host: url.host_str().unwrap_or_default().to_owned(), seconds: 0 }
}

/// Takes who stops waiting out of the queue.
struct Queued<'a> {
    inner: &'a Inner,
    origin: &'a str,
    turn: Turn,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        if let Some(origin) = self.inner.lock().origins.get_mut(self.origin) {
            origin.queue.remove(&self.turn);
        }
    }
}

/// What can be done for one who waits.
enum Verdict {
    Go {
        probe: bool,
    },
    /// Until something changes, or until a time.
    Wait(Option<Instant>),
    Hold(Held),
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers everybody at `origin` who can be answered now. With `sweep`, also those whose turn it is not but who need
    /// not wait for it.
    fn serve(self: &Arc<Self>, mut state: MutexGuard<'_, State>, origin: &Arc<str>, sweep: bool) {
        let now = Instant::now();
        let mut replies = Vec::new();
        if sweep {
            state.sweep(origin, now, &mut replies);
        }
        let mut wake = None;
        while let Some(found) = state.next(origin, self.limits, now, &mut replies) {
            match found {
                Err(at) => {
                    wake = Some(at);
                    break;
                }
                Ok((waiter, probe)) => {
                    let place = Place {
                        inner: Arc::clone(self),
                        origin: Arc::clone(origin),
                        asker: waiter.asker,
                        began: now,
                        waited: now.duration_since(waiter.since),
                        probe,
                        left: false,
                    };
                    replies.push((waiter.reply, Ok(place)));
                }
            }
        }
        if let (Some(at), Some(entry)) = (wake, state.origins.get_mut(origin))
            && entry.timer.is_none_or(|timer| at < timer)
        {
            entry.timer = Some(at);
            tokio::spawn(Self::wake(Arc::downgrade(self), Arc::clone(origin), at));
        }
        drop(state);
        // Without the lock: a place whose waiter has gone meanwhile leaves at once, and that takes the lock.
        for (reply, answer) in replies {
            drop(reply.send(answer));
        }
    }

    async fn wake(inner: Weak<Self>, origin: Arc<str>, at: Instant) {
        tokio::time::sleep_until(at).await;
        let Some(inner) = inner.upgrade() else { return };
        let mut state = inner.lock();
        if let Some(entry) = state.origins.get_mut(&origin)
            && entry.timer == Some(at)
        {
            entry.timer = None;
        }
        inner.serve(state, &origin, false);
    }
}

type Replies = Vec<(oneshot::Sender<Result<Place, Held>>, Result<Place, Held>)>;

impl State {
    /// Admits the first in the queue who may go; or says when it is worth while to look again; or nothing.
    fn next(
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

    fn sweep(&mut self, name: &Arc<str>, now: Instant, replies: &mut Replies) {
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

    fn judge(&self, asker: &Asker, now: Instant) -> Verdict {
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

    fn learn(&mut self, place: &Place, outcome: Result<(), &Error>, now: Instant) {
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
    fn prune(&mut self, now: Instant) {
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

/// A rejection that everybody with this credential would get. Not of a scope or a parameter, which others do not send.
fn is_about_the_credential(error: &Error) -> bool {
    match error.class() {
        Class::LockedOut => true,
        Class::Rejected => matches!(error.reason(), Reason::ClientRejected | Reason::GrantRejected),
        _ => false,
    }
}

impl Origin {
    fn new(limits: Limits, now: Instant) -> Self {
        Self {
            in_flight: 0,
            pace: Pace::new(f64::from(limits.per_second), now),
            queue: BTreeMap::new(),
            timer: None,
            limited: None,
        }
    }
}

impl Standing {
    fn new(limit: f64, now: Instant) -> Self {
        Self { proven: false, in_flight: 0, rejection: None, pace: Pace::new(limit, now) }
    }

    fn reject(&mut self, error: &Error, began: Instant, now: Instant) {
        let before = self.rejection.as_ref();
        // What was under way when the rejection came is rejected for the same reason, and counts once.
        let count = match before {
            Some(before) if began <= before.at => before.count,
            Some(before) => before.count + 1,
            None => 1,
        };
        let wait = REJECTED.get(count - 1).copied().unwrap_or(LOCKED_OUT);
        let wait = if error.class() == Class::LockedOut { LOCKED_OUT } else { wait };
        let wait = wait.max(Duration::from_secs(error.retry_after().unwrap_or_default()));
        self.rejection = Some(Rejection { error: error.clone(), count, at: now, until: now + wait });
    }
}

impl Pace {
    fn new(limit: f64, now: Instant) -> Self {
        Self { limit, rate: limit, at: now, next: now, slowed: None }
    }

    fn is_slow(&self, now: Instant) -> bool {
        self.rate_at(now) < self.limit
    }

    fn rate_at(&self, now: Instant) -> f64 {
        let regained = self.limit / 20.0 * now.duration_since(self.at).as_secs_f64();
        (self.rate + regained).min(self.limit)
    }

    fn take(&mut self, now: Instant) {
        self.rate = self.rate_at(now);
        self.at = now;
        self.next = self.next.max(now) + Duration::from_secs_f64(1.0 / self.rate);
    }

    /// Once per second: what is under way together is told together.
    fn slow(&mut self, now: Instant) {
        if self.slowed.is_some_and(|at| now - at < Duration::from_secs(1)) {
            return;
        }
        self.rate = (self.rate_at(now) / 2.0).max(SLOWEST.min(self.limit));
        self.at = now;
        self.slowed = Some(now);
    }
}
