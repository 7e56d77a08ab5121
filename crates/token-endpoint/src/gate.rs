//! Politeness: how many token requests there are at once and in which order, and what one failure saves the others.
//!
//! - At one origin so many requests are under way and begin per second; whoever has the earliest deadline goes first.
//! - A token URL that failed for several clients in a row gets one probe at a time.
//! - A credential that was rejected is tried again by one for all; one that nobody has tried yet, likewise.
//!
//! The only clock here is tokio's, so that tests can pause it.

mod held;
mod pace;
mod standing;
mod state;

pub use held::Held;

use super::credentials::Credentials;
use super::digest::{Digest, DigestKey};
use super::error::Error;
use super::request::RequestDescription;
use super::tls::Tls;
use state::{Asker, Origin, State, Turn, Verdict, Waiter};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::debug;
use url::Url;

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
pub struct Party(Digest);

/// See the module. Cheap to clone; all clones are one gate.
#[derive(Clone, Debug)]
pub struct Gate {
    inner: Arc<Inner>,
}

struct Inner {
    limits: Limits,
    key: DigestKey,
    state: Mutex<State>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("limits", &self.limits).finish_non_exhaustive()
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
        state.left(self);
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
        Self { inner: Arc::new(Inner { limits, key: DigestKey::new(), state: Mutex::default() }) }
    }

    /// Who would ask with these. Scopes, parameters and the like make no other party: a rejection of one of those is not
    /// shared.
    #[must_use]
    pub fn party(&self, description: &RequestDescription, credentials: &Credentials, tls: &Tls) -> Party {
        // The subject of an assertion is a part of who is let in.
        let how = [format!("{:?}", description.client_authentication), format!("{:?}", description.grant)];
        // A renewed certificate is another credential.
        let certificate = tls.has_client_certificate().then(|| tls.digest());
        let how = how.iter().map(|it| Some(it.as_bytes())).chain([certificate.as_ref().map(AsRef::as_ref)]);
        Party(self.inner.key.of(how.chain(credentials.all())))
    }

    /// Tells whether credentials have the same values as others, in this process.
    #[must_use]
    pub fn digest(&self, credentials: &Credentials) -> Digest {
        self.inner.key.of(credentials.all())
    }

    /// A person has changed something, or asks for a token: a credential that was rejected is tried again half a minute
    /// after that, and not only at the end of a wait that may have grown to half an hour. However many ask, it is tried once.
    pub fn hasten(&self, token_url: &Url, party: Party) {
        self.inner.lock().hasten(&Asker { endpoint: token_url.as_str().into(), party });
    }

    /// Whether so many wait to ask `token_url` by an earlier deadline that it is better to come back than to wait too:
    /// whoever waits holds a credential in memory. `party` is who would ask, as far as that is known: while its credential is
    /// tried for the first time, a few who wait for that are enough.
    #[must_use]
    pub fn is_crowded(&self, token_url: &Url, party: Option<Party>, deadline: Instant) -> bool {
        self.inner.lock().is_crowded(token_url, party, deadline, Instant::now())
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
        self.inner.lock().len()
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
