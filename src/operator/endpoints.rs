//! The way to token endpoints, as the flags describe it.

use std::net::IpAddr;
use std::sync::Arc;

use kube::Config;

use super::AGENT;
use crate::cli::EndpointArgs;
use crate::oauth::{Egress, Proxies, ProxyError, Transport, TransportError};

/// Why token endpoints cannot be reached as the flags say.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// No HTTP client can be built.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// A variable names no proxy.
    #[error("--proxy-from-environment: {0}")]
    Proxy(#[from] ProxyError),
}

/// The way to token endpoints that the flags describe, and never to `api_server`.
pub(crate) fn transport(flags: &EndpointArgs, api_server: Vec<IpAddr>) -> Result<Transport, EndpointError> {
    let only = (!flags.egress_only.is_empty()).then_some(flags.egress_only.clone());
    let egress = Arc::new(Egress::new(flags.egress_allow.clone(), only, flags.allow_http, api_server));
    let proxies = match flags.proxy_from_environment {
        true => Proxies::from_environment(|name| std::env::var(name).ok())?,
        false => Proxies::default(),
    };
    Ok(Transport::with_proxies(egress, AGENT, proxies)?)
}

/// What to say where the environment names proxies and nobody said to use them.
pub(crate) fn unused_proxies(flags: &EndpointArgs) -> Option<String> {
    let set = |name: &&str| std::env::var(name).is_ok_and(|value| !value.trim().is_empty());
    let names: Vec<&str> =
        ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"].into_iter().filter(set).collect();
    (!flags.proxy_from_environment && !names.is_empty()).then(|| {
        format!(
            "token endpoints are connected to directly, though {} is set: --proxy-from-environment goes through the proxy",
            names.join(" and ")
        )
    })
}

/// The API server's own addresses, which no token endpoint may have. In a pod that is the Service's address.
pub(crate) fn api_server_addresses(configuration: &Config) -> Vec<IpAddr> {
    let host = configuration.cluster_url.host().map(|host| host.trim_matches(['[', ']']).to_owned());
    let service = std::env::var("KUBERNETES_SERVICE_HOST").ok();
    [host, service].into_iter().flatten().filter_map(|host| host.parse().ok()).collect()
}
