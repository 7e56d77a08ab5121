//! HTTP clients, cached by what they are built from.

use super::connector::{Connector, Proxy};
use super::limits::{MAX_ANSWER_HEADER_BYTES, MAX_ANSWER_HEADERS};
use super::lookups::Lookups;
use super::turns::Tenant;
use crate::egress::Egress;
use crate::tenant_cache::surplus;
use crate::tls::{Tls, TlsDigest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, PROXY_AUTHORIZATION, USER_AGENT};
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::percent_decode_str;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use url::Url;

const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// A burst of requests needs no more connections than the one before: with fewer, nearly each request of a busy endpoint makes one.
/// They are bounded by the requests of [`IDLE_TIMEOUT`] in any case.
const MAX_IDLE_OF_HOST: usize = 32;
/// Bounds the memory: certificates may be the choice of untrusted parties.
const MAX_CLIENTS: usize = 64;
/// Likewise, in bytes of certificates.
const MAX_CLIENT_BYTES: usize = 8 * 1024 * 1024;
/// A client that was not used for so long is dropped, and with it the key of its certificate.
const CLIENT_TTL: Duration = Duration::from_secs(10 * 60);

/// Identifies a client by what it is built from, so that a rotated certificate gets a new client without a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ClientKey {
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
    client: Client<Connector, Full<Bytes>>,
    user_agent: HeaderValue,
    /// For a proxy that is sent the request itself.
    proxy_authorization: Option<HeaderValue>,
    used_tls12: Arc<AtomicBool>,
    has_certificate: bool,
}

impl HttpClient {
    /// Builds a client for URLs of a route: directly, or through `proxy`.
    pub(super) fn build(
        egress: &Arc<Egress>,
        lookups: &Arc<Lookups>,
        user_agent: &HeaderValue,
        key: ClientKey,
        tls: &Tls,
        proxy: Option<&Url>,
    ) -> Result<Self, TransportError> {
        let used_tls12 = Arc::new(AtomicBool::new(false));
        let config = tls.config(Arc::clone(&used_tls12)).map_err(TransportError::of)?;
        let proxy = proxy.map(to_proxy).transpose()?;
        let proxy_authorization = proxy.as_ref().and_then(|proxy| proxy.authorization.clone());
        let connector = Connector {
            egress: Arc::clone(egress),
            lookups: Arc::clone(lookups),
            tls: Arc::new(config),
            proxy,
            user_agent: user_agent.clone(),
        };
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(if key.keep_alive { MAX_IDLE_OF_HOST } else { 0 })
            .http1_max_buf_size(MAX_ANSWER_HEADER_BYTES)
            .http1_max_headers(MAX_ANSWER_HEADERS)
            // Some servers and gateways compare the names of headers as they are usually written.
            .http1_title_case_headers(true)
            .build(connector);
        Ok(Self {
            client,
            user_agent: user_agent.clone(),
            proxy_authorization: proxy_authorization.filter(|_| key.route == Route::HttpProxy),
            used_tls12,
            has_certificate: tls.has_client_certificate(),
        })
    }

    /// Sends a request once.
    pub(super) async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, hyper_util::client::legacy::Error> {
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, self.user_agent.clone());
        // A compressed body gains nothing at this size, and some gateways damage it.
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.extend(self.proxy_authorization.clone().map(|it| (PROXY_AUTHORIZATION, it)));
        self.client.request(request).await
    }

    /// Whether a server may ask for the client's certificate by renegotiation, which TLS 1.3 does not have.
    pub(super) fn may_renegotiate(&self) -> bool {
        self.has_certificate && self.used_tls12.load(Ordering::Relaxed)
    }
}

fn to_proxy(url: &Url) -> Result<Proxy, TransportError> {
    let mut bare = url.clone();
    // They fail only for URLs without a host.
    let _ = (bare.set_username(""), bare.set_password(None));
    let decoded = |text: &str| percent_decode_str(text).collect::<Vec<u8>>();
    let authorization = (bare != *url).then(|| {
        let pair = [decoded(url.username()), decoded(url.password().unwrap_or_default())].join(&b':');
        HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair)))
    });
    let mut authorization = authorization.transpose().map_err(TransportError::of)?;
    authorization.iter_mut().for_each(|it| it.set_sensitive(true));
    let tls = (url.scheme() == "https").then(|| Tls::default().config(Arc::default())).transpose();
    Ok(Proxy {
        uri: bare.as_str().parse().map_err(TransportError::of)?,
        authorization,
        tls: tls.map_err(TransportError::of)?.map(Arc::new),
    })
}

/// The clients of all tenants.
#[derive(Debug, Default)]
pub(super) struct ClientCache {
    clients: HashMap<ClientKey, CachedClient>,
}

#[derive(Debug)]
struct CachedClient {
    client: HttpClient,
    used: Instant,
    /// The tenant whose certificates it was built with; `None` for those of the system.
    tenant: Option<Tenant>,
    /// Of these certificates.
    bytes: usize,
}

impl ClientCache {
    pub(super) fn get(&mut self, key: ClientKey) -> Option<HttpClient> {
        let now = Instant::now();
        self.clients.retain(|_, cached| now.duration_since(cached.used) < CLIENT_TTL);
        let cached = self.clients.get_mut(&key)?;
        cached.used = now;
        Some(cached.client.clone())
    }

    /// Returns the client of this key that another request has built meanwhile, if there is one. Where the cache is full, the
    /// tenant with the most clients loses the one that it has not used for longest.
    pub(super) fn insert(
        &mut self,
        key: ClientKey,
        client: HttpClient,
        tenant: &Tenant,
        tls: &Tls,
    ) -> HttpClient {
        if let Some(other) = self.get(key) {
            return other;
        }
        let bytes = tls.certificate_bytes();
        let is_full = |all: &Self| all.clients.len() >= MAX_CLIENTS || all.bytes() + bytes > MAX_CLIENT_BYTES;
        while is_full(self) && self.evict() {}
        let tenant = (!tls.is_default()).then(|| tenant.clone());
        let cached = CachedClient { client: client.clone(), used: Instant::now(), tenant, bytes };
        self.clients.insert(key, cached);
        client
    }

    fn bytes(&self) -> usize {
        self.clients.values().map(|cached| cached.bytes).sum()
    }

    fn evict(&mut self) -> bool {
        let of_tenants =
            self.clients.iter().filter_map(|(key, cached)| Some((key, cached.tenant.as_ref()?, cached.used)));
        let surplus = surplus(of_tenants).copied();
        surplus.is_some_and(|key| self.clients.remove(&key).is_some())
    }
}

/// An HTTP client cannot be built: the system has no usable root certificates, or the User-Agent or the proxy is not valid.
#[derive(Debug, thiserror::Error)]
#[error("cannot build an HTTP client: {0}")]
pub struct TransportError(String);

impl TransportError {
    pub(super) fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}
