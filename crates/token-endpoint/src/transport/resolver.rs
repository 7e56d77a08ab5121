//! Name resolution within the egress policy.

use super::lookups::{LookupError, Lookups, Tenant};
use crate::egress::{Egress, EgressRefused};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::SocketAddr;
use std::sync::Arc;
use url::Url;

tokio::task_local! {
    /// For whom the request is sent that is polled now: an HTTP client is shared, and passes its resolver only a name.
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

/// Resolves with the system's resolver, and returns only addresses that the policy allows. The HTTP client connects to these
/// addresses, so that a name cannot resolve to another address between the check and the connection.
pub(super) struct PolicyResolver {
    pub(super) egress: Arc<Egress>,
    pub(super) lookups: Arc<Lookups>,
    pub(super) port: u16,
}

impl Resolve for PolicyResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (egress, lookups, port) = (Arc::clone(&self.egress), Arc::clone(&self.lookups), self.port);
        // Here, where the request is polled, and not in the future, which the client may poll elsewhere.
        let tenant = TENANT.try_with(Tenant::clone).unwrap_or_default();
        Box::pin(async move {
            let host = name.as_str();
            let mut allowed: Vec<SocketAddr> = Vec::new();
            let mut refused: Option<EgressRefused> = None;
            let looked_up = egress.lookup_name(host, port);
            let found = lookups.lookup(&tenant, &looked_up).await;
            let unresolved = |error| Unresolved { made_absolute: looked_up != host, error };
            for ip in found.map_err(unresolved)? {
                match egress.check_address(host, port, ip) {
                    Ok(()) => allowed.push((ip, port).into()),
                    Err(error) => refused = refused.or(Some(error)),
                }
            }
            match refused {
                Some(error) if allowed.is_empty() => Err(error.into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

/// Resolves only the name of the proxy, which the policy does not apply to. It is looked up as it is written, once for all
/// tenants.
pub(super) struct ProxyResolver {
    pub(super) proxy: Url,
    pub(super) lookups: Arc<Lookups>,
}

impl Resolve for ProxyResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (proxy, lookups) = (self.proxy.clone(), Arc::clone(&self.lookups));
        Box::pin(async move {
            let port = proxy.port_or_known_default().unwrap_or_default();
            if proxy.host_str() != Some(name.as_str()) {
                return Err("only the name of the proxy is resolved here".into());
            }
            let addresses = lookups.lookup(&Tenant::default(), name.as_str()).await?;
            let addresses: Vec<SocketAddr> = addresses.into_iter().map(|ip| (ip, port).into()).collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
