//! Look-ups of names by the system's resolver, within limits: each occupies a thread until the system gives up, which takes
//! 10 s and more where a name server is dead.

#[cfg(test)]
mod tests;

use super::limits::{LOOKUP_TIMEOUT, MAX_LOOKUPS};
use super::turns::{Tenant, Turns};
use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use tokio::sync::OnceCell;
use tokio::time::timeout;

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

/// The look-ups of a transport. A tenant's look-ups of one name at the same time are one.
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
        Self::over(Arc::new(resolver))
    }

    fn over(resolver: Arc<Resolver>) -> Self {
        Self { resolver, turns: Arc::new(Turns::new(MAX_LOOKUPS)), flights: Mutex::default() }
    }

    /// Look-ups by the same resolver, for which these leave all turns.
    pub(super) fn with_own_turns(&self) -> Arc<Self> {
        Arc::new(Self::over(Arc::clone(&self.resolver)))
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
