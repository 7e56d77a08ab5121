//! Name resolution within the egress policy.

use crate::egress::{Egress, EgressRefused};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::net::SocketAddr;
use std::sync::Arc;
use url::Url;

/// Resolves with the system's resolver, and returns only addresses that the policy allows. The HTTP client connects to these
/// addresses, so that a name cannot resolve to another address between the check and the connection.
pub(super) struct PolicyResolver {
    pub(super) egress: Arc<Egress>,
    pub(super) port: u16,
}

impl Resolve for PolicyResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (egress, port) = (Arc::clone(&self.egress), self.port);
        Box::pin(async move {
            let host = name.as_str();
            let mut allowed: Vec<SocketAddr> = Vec::new();
            let mut refused: Option<EgressRefused> = None;
            for address in tokio::net::lookup_host((host, port)).await? {
                match egress.check_address(host, port, address.ip()) {
                    Ok(()) => allowed.push(address),
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

/// Resolves only the name of the proxy, which the policy does not apply to.
pub(super) struct ProxyResolver {
    pub(super) proxy: Url,
}

impl Resolve for ProxyResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let proxy = self.proxy.clone();
        Box::pin(async move {
            let port = proxy.port_or_known_default().unwrap_or_default();
            if proxy.host_str() != Some(name.as_str()) {
                return Err("only the name of the proxy is resolved here".into());
            }
            let addresses: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), port)).await?.collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
