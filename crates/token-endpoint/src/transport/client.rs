//! HTTP clients, cached by what they are built from.

use super::failure::root_cause;
use super::limits::CONNECT_TIMEOUT;
use super::lookups::Lookups;
use super::resolver::{PolicyResolver, ProxyResolver};
use crate::egress::Egress;
use crate::tls::{Tls, TlsDigest};
use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, HeaderValue};
use reqwest::{Client, redirect, retry};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use url::Url;

const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bounds the memory: ports and certificates may be the choice of untrusted parties.
const MAX_CLIENTS: usize = 64;

/// Identifies a client by what it is built from, so that a rotated certificate gets a new client without a restart. The port is
/// a part of it because the policy depends on the port and a resolver is passed only a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ClientKey {
    pub(super) port: u16,
    pub(super) keep_alive: bool,
    pub(super) tls: TlsDigest,
    pub(super) route: Route,
}

/// How a URL is reached. There is one proxy for each scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Route {
    Direct,
    HttpsProxy,
    HttpProxy,
}

impl Route {
    pub(super) fn of(url: &Url, proxy: Option<&Url>) -> Self {
        match (proxy, url.scheme()) {
            (None, _) => Route::Direct,
            (Some(_), "https") => Route::HttpsProxy,
            (Some(_), _) => Route::HttpProxy,
        }
    }
}

/// An HTTP client, and what is known of its connections.
#[derive(Clone, Debug)]
pub(super) struct HttpClient {
    pub(super) client: Client,
    used_tls12: Arc<AtomicBool>,
    has_certificate: bool,
}

impl HttpClient {
    /// Whether a server may ask for the client's certificate by renegotiation, which TLS 1.3 does not have.
    pub(super) fn may_renegotiate(&self) -> bool {
        self.has_certificate && self.used_tls12.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(super) struct ClientCache {
    /// With the value of `uses` at the last use.
    clients: HashMap<ClientKey, (HttpClient, u64)>,
    uses: u64,
}

impl ClientCache {
    pub(super) fn get(&mut self, key: ClientKey) -> Option<HttpClient> {
        self.uses += 1;
        let (client, used) = self.clients.get_mut(&key)?;
        *used = self.uses;
        Some(client.clone())
    }

    /// Evicts the least recently used client if the cache is full.
    pub(super) fn insert(&mut self, key: ClientKey, client: HttpClient) {
        if self.clients.len() >= MAX_CLIENTS
            && let Some(oldest) = self.clients.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| *key)
        {
            self.clients.remove(&oldest);
        }
        self.clients.insert(key, (client, self.uses));
    }
}

/// An HTTP client cannot be built: the system has no usable root certificates, or the User-Agent is not valid.
#[derive(Debug, thiserror::Error)]
#[error("cannot build an HTTP client: {0}")]
pub struct TransportError(String);

/// A compressed body gains nothing at this size, and some gateways damage it.
fn default_headers() -> HeaderMap {
    [(ACCEPT_ENCODING, HeaderValue::from_static("identity"))].into_iter().collect()
}

/// Builds a client for URLs with this port, directly or through `proxy`.
pub(super) fn build(
    egress: &Arc<Egress>,
    lookups: &Arc<Lookups>,
    user_agent: &str,
    port: u16,
    keep_alive: bool,
    tls: &Tls,
    proxy: Option<&Url>,
) -> Result<HttpClient, TransportError> {
    let used_tls12 = Arc::new(AtomicBool::new(false));
    let secure_proxy = proxy.filter(|proxy| proxy.scheme() == "https").and_then(Url::host_str);
    let config = tls
        .config(Arc::clone(&used_tls12), secure_proxy)
        .map_err(|error| TransportError(error.to_string()))?;
    let failed = |error: reqwest::Error| TransportError(root_cause(&error.without_url()));
    let builder = Client::builder()
        .tls_backend_preconfigured(config)
        .user_agent(user_agent)
        .default_headers(default_headers())
        // Some servers and gateways compare the names of headers as they are usually written.
        .http1_title_case_headers()
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .referer(false)
        .no_proxy()
        .http1_only()
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(if keep_alive { 4 } else { 0 });
    let client = match proxy {
        None => builder.dns_resolver(PolicyResolver {
            egress: Arc::clone(egress),
            lookups: Arc::clone(lookups),
            port,
        }),
        // The caller has decided which URLs use the proxy. This client resolves no other name.
        Some(proxy) => builder
            .proxy(reqwest::Proxy::all(proxy.clone()).map_err(failed)?)
            .dns_resolver(ProxyResolver { proxy: proxy.clone(), lookups: Arc::clone(lookups) }),
    }
    .build()
    .map_err(failed)?;
    Ok(HttpClient { client, used_tls12, has_certificate: tls.has_client_certificate() })
}
