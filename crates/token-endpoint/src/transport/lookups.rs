//! Look-ups of names by the system's resolver, within limits: each occupies a thread until the system gives up, which takes
//! 10 s and more where a name server is dead.

#[cfg(test)]
mod tests;

use super::limits::{LOOKUP_TIMEOUT, MAX_LOOKUPS, MAX_LOOKUPS_OF_TENANT};
use std::collections::HashMap;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::{OnceCell, oneshot};
use tokio::time::timeout;

/// For whom requests are made: an opaque name, as in [`limiter`](crate::limiter).
pub(super) type Tenant = Arc<str>;

/// A name was not resolved.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum LookupError {
    #[error("{0}")]
    System(#[source] Arc<io::Error>),
    #[error("no answer within {} s", LOOKUP_TIMEOUT.as_secs())]
    Timeout,
}

type Found = Result<Vec<IpAddr>, LookupError>;
/// Blocks.
type Resolver = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;
type FlightKey = (Tenant, String);

/// The look-ups of a process. A tenant's look-ups of one name at the same time are one.
pub(super) struct Lookups {
    resolver: Arc<Resolver>,
    turns: Arc<Turns>,
    flights: Mutex<HashMap<FlightKey, Weak<OnceCell<Found>>>>,
}

impl Default for Lookups {
    fn default() -> Self {
        Self::new(|name| Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect()))
    }
}

impl fmt::Debug for Lookups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookups").finish_non_exhaustive()
    }
}

impl Lookups {
    pub(super) fn new(resolver: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        Self { resolver: Arc::new(resolver), turns: Arc::default(), flights: Mutex::default() }
    }

    /// The addresses of `name`, within [`LOOKUP_TIMEOUT`], waiting included.
    pub(super) async fn lookup(&self, tenant: &Tenant, name: &str) -> Found {
        let flight = self.flight((tenant.clone(), name.to_owned()));
        let found = timeout(LOOKUP_TIMEOUT, flight.get_or_init(|| self.resolve(tenant, name))).await;
        found.map_or(Err(LookupError::Timeout), Clone::clone)
    }

    fn flight(&self, key: FlightKey) -> Arc<OnceCell<Found>> {
        let mut flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        // One that has ended is no cache: addresses change.
        flights.retain(|_, flight| flight.upgrade().is_some_and(|flight| !flight.initialized()));
        if let Some(flight) = flights.get(&key).and_then(Weak::upgrade) {
            return flight;
        }
        let flight = Arc::new(OnceCell::new());
        flights.insert(key, Arc::downgrade(&flight));
        flight
    }

    async fn resolve(&self, tenant: &Tenant, name: &str) -> Found {
        let turn = self.turns.next(tenant).await;
        let (resolver, name) = (Arc::clone(&self.resolver), name.to_owned());
        // The turn ends with the thread, not with the caller's patience.
        let resolved = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            resolver(&name)
        });
        let found = resolved.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        found.map_err(|error| LookupError::System(Arc::new(error)))
    }
}

/// Who may look up: of the tenants that wait, the one with the fewest look-ups under way.
#[derive(Default)]
struct Turns(Mutex<TurnState>);

#[derive(Default)]
struct TurnState {
    under_way: HashMap<Tenant, usize>,
    total: usize,
    waiting: VecDeque<(Tenant, oneshot::Sender<Turn>)>,
}

/// The right to look up one name. It ends when it is dropped.
struct Turn {
    tenant: Tenant,
    turns: Arc<Turns>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let turns = Arc::clone(&self.turns);
        turns.ended(&self.tenant);
        turns.give();
    }
}

impl Turns {
    async fn next(self: &Arc<Self>, tenant: &Tenant) -> Turn {
        loop {
            let (sender, turn) = oneshot::channel();
            self.state().waiting.push_back((tenant.clone(), sender));
            self.give();
            if let Ok(turn) = turn.await {
                return turn;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, TurnState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives out what is free. A turn that its waiter does not take any more comes back by its drop.
    fn give(self: &Arc<Self>) {
        loop {
            let Some((tenant, waiter)) = self.state().next() else { return };
            drop(waiter.send(Turn { tenant, turns: Arc::clone(self) }));
        }
    }

    fn ended(&self, tenant: &Tenant) {
        let mut state = self.state();
        state.total -= 1;
        if let Some(count) = state.under_way.get_mut(tenant) {
            *count -= 1;
            if *count == 0 {
                state.under_way.remove(tenant);
            }
        }
    }
}

impl TurnState {
    /// Takes out the next waiter, and counts its turn.
    fn next(&mut self) -> Option<(Tenant, oneshot::Sender<Turn>)> {
        self.waiting.retain(|(_, waiter)| !waiter.is_closed());
        if self.total >= MAX_LOOKUPS {
            return None;
        }
        let count = |tenant: &Tenant| self.under_way.get(tenant).copied().unwrap_or_default();
        let waiting = self.waiting.iter().enumerate().map(|(at, (tenant, _))| (count(tenant), at));
        let (_, at) = waiting.filter(|(count, _)| *count < MAX_LOOKUPS_OF_TENANT).min()?;
        let (tenant, waiter) = self.waiting.remove(at)?;
        *self.under_way.entry(tenant.clone()).or_default() += 1;
        self.total += 1;
        Some((tenant, waiter))
    }
}
