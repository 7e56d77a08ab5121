//! Name resolution within the egress policy.

use super::lookups::{LookupError, Lookups};
use super::turns::Tenant;
use crate::egress::{Egress, EgressRefused};
use hyper_util::client::legacy::connect::dns::Name;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tower_service::Service;

pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

tokio::task_local! {
    /// For whom the request is sent that is polled now: an HTTP client is shared, and passes its connector only a URI.
    pub(super) static TENANT: Tenant;
}

/// A name was not resolved.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub(super) struct Unresolved {
    /// It was looked up as absolute, though it was not written so.
    pub(super) made_absolute: bool,
    #[source]
    error: LookupError,
}

/// Resolves with the system's resolver, for one connection.
#[derive(Clone)]
pub(super) struct Resolver {
    /// `None`: the policy does not apply, since this is the proxy's name.
    egress: Option<Arc<Egress>>,
    lookups: Arc<Lookups>,
    tenant: Tenant,
    port: u16,
}

impl Resolver {
    /// Returns only addresses that the policy allows. The HTTP client connects to these addresses, so that a name cannot resolve
    /// to another address between the check and the connection.
    pub(super) fn within_policy(
        egress: Arc<Egress>,
        lookups: Arc<Lookups>,
        tenant: Tenant,
        port: u16,
    ) -> Self {
        Self { egress: Some(egress), lookups, tenant, port }
    }

    /// Looks the name up as it is written, once for all tenants.
    pub(super) fn of_proxy(lookups: Arc<Lookups>, port: u16) -> Self {
        Self { egress: None, lookups, tenant: Tenant::default(), port }
    }

    async fn resolve(self, name: Name) -> Result<std::vec::IntoIter<SocketAddr>, BoxError> {
        let (host, port) = (name.as_str(), self.port);
        let looked_up = self.egress.as_ref().map_or(host.into(), |egress| egress.lookup_name(host, port));
        let found = self.lookups.lookup(&self.tenant, &looked_up).await;
        let unresolved = |error| Unresolved { made_absolute: looked_up != host, error };
        let mut allowed: Vec<SocketAddr> = Vec::new();
        let mut refused: Option<EgressRefused> = None;
        for ip in found.map_err(unresolved)? {
            match self.egress.as_ref().map_or(Ok(()), |egress| egress.check_address(host, port, ip)) {
                Ok(()) => allowed.push((ip, port).into()),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        match refused {
            Some(error) if allowed.is_empty() => Err(error.into()),
            _ => Ok(allowed.into_iter()),
        }
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(self.clone().resolve(name))
    }
}
