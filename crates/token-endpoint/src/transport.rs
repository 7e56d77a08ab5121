//! The one attempt: an HTTP exchange with a token endpoint, within a deadline and the egress policy.

use super::assertion::Attempt;
use super::egress::{Egress, EgressRefused};
use super::error::{Error, Fault, Unusable};
use super::proxy::Proxies;
use super::request::TokenRequest;
use super::response::{Answer, http_date, read};
use super::tls::{CertificateProblem, Tls, TlsDigest};
use http::header::{ACCEPT, DATE};
use http::{HeaderMap, StatusCode};
use jiff::{SignedDuration, Timestamp};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, RequestBuilder, redirect, retry};
use rustls::AlertDescription;
use secrecy::ExposeSecret;
use std::collections::HashMap;
use std::error::Error as StdError;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use url::Url;

/// The longest that connecting takes, name resolution and TLS included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes.
pub const MAX_BODY: usize = 256 * 1024;
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Ports and certificates are the tenants' choice, so the clients that are kept for them are bounded.
const MAX_CLIENTS: usize = 64;
/// The servers' clocks that are known; likewise.
const MAX_CLOCKS: usize = 1024;
/// A server's clock that is further off than this is what its assertions are dated by, in seconds.
const CLOCK_TOLERANCE: i64 = 30;
/// One that is further off than this is not believed, in seconds.
const CLOCK_CREDIBLE: i64 = 60 * 60;

/// Makes aws-lc-rs the one provider of cryptography for rustls in this process. To be called at start, before any
/// TLS client is built; again is harmless.
pub fn install_crypto_provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default(); // an error: there is one already
}

/// Sends token requests: HTTP/1.1, no redirects, no retries, no decompression, and no proxy unless configured.
#[derive(Clone, Debug)]
pub struct Transport {
    egress: Arc<Egress>,
    user_agent: String,
    proxies: Arc<Proxies>,
    clients: Arc<Mutex<Clients>>,
    /// Seconds by which an origin's clock is ahead of ours.
    clocks: Arc<Mutex<HashMap<String, i64>>>,
}

/// What a client is built from: whoever rotates a certificate gets another client, without a restart. The port is there
/// because the policy knows ports and a resolver sees only names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ClientKey {
    port: u16,
    keep_alive: bool,
    tls: TlsDigest,
    route: Route,
}

/// How a URL is reached. There is one proxy for each scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Route {
    Direct,
    HttpsProxy,
    HttpProxy,
}

#[derive(Debug, Default)]
struct Clients {
    /// With when it was used last, counted in uses.
    known: HashMap<ClientKey, (Client, u64)>,
    uses: u64,
}

impl Clients {
    fn get(&mut self, key: ClientKey) -> Option<Client> {
        self.uses += 1;
        let (client, used) = self.known.get_mut(&key)?;
        *used = self.uses;
        Some(client.clone())
    }

    /// In place of the one that nobody has used for longest.
    fn insert(&mut self, key: ClientKey, client: Client) {
        if self.known.len() >= MAX_CLIENTS
            && let Some(oldest) = self.known.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| *key)
        {
            self.known.remove(&oldest);
        }
        self.known.insert(key, (client, self.uses));
    }
}

/// No HTTP client can be built: no usable root certificates on this system, or a User-Agent that is none.
#[derive(Debug, thiserror::Error)]
#[error("cannot build an HTTP client: {0}")]
pub struct TransportError(String);

impl Transport {
    /// Builds a first client, so that a system without root certificates is found at start. Without a proxy.
    ///
    /// # Errors
    /// No HTTP client can be built.
    pub fn new(egress: Arc<Egress>, user_agent: &str) -> Result<Self, TransportError> {
        Self::with_proxies(egress, user_agent, Proxies::default())
    }

    /// The same through proxies. A proxy resolves names by itself: see [`Egress::check_proxied`]. Its own address, and no
    /// other, needs no permission.
    ///
    /// # Errors
    /// No HTTP client can be built.
    pub fn with_proxies(
        egress: Arc<Egress>,
        user_agent: &str,
        proxies: Proxies,
    ) -> Result<Self, TransportError> {
        install_crypto_provider();
        let transport = Self {
            egress,
            user_agent: user_agent.to_owned(),
            proxies: Arc::new(proxies),
            clients: Arc::default(),
            clocks: Arc::default(),
        };
        transport.build(443, true, &Tls::default(), None)?;
        Ok(transport)
    }

    /// What the next request to `url` is signed with: the time by the server's clock where that is known to be off, and
    /// an id that was never used.
    #[must_use]
    pub fn attempt(&self, url: &Url) -> Attempt {
        let mut random = [0; 16];
        // It fails only where the operating system has no randomness, and then TLS does not work either.
        let _ = aws_lc_rs::rand::fill(&mut random);
        let offset = self.clock_offset(url).unwrap_or_default();
        let now = Timestamp::now();
        Attempt {
            now: now.checked_add(offset).unwrap_or(now),
            jti: random.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    /// By how much the clock behind `url` is ahead of ours, if it is off by more than 30 s and up to an hour.
    #[must_use]
    pub fn clock_offset(&self, url: &Url) -> Option<SignedDuration> {
        let clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        clocks.get(&url.origin().ascii_serialization()).map(|&seconds| SignedDuration::from_secs(seconds))
    }

    /// Sends `request` once and reads the answer, all within `timeout`, with the system's roots.
    ///
    /// # Errors
    /// Everything that [`Error`] knows.
    pub async fn send(&self, request: &TokenRequest, timeout: Duration) -> Result<Answer, Error> {
        self.send_over(request, &Tls::default(), timeout).await
    }

    /// Sends `request` once and reads the answer, all within `timeout`.
    ///
    /// # Errors
    /// Everything that [`Error`] knows.
    pub async fn send_over(
        &self,
        request: &TokenRequest,
        tls: &Tls,
        timeout: Duration,
    ) -> Result<Answer, Error> {
        let url = request.url();
        let exchange = async {
            let client = self.client_for(url, !request.spends_credential(), tls)?;
            let post = client
                .post(url.clone())
                .headers(request.headers().clone())
                .body(request.body().expose_secret().to_owned());
            self.exchange(url, post).await
        };
        let (status, headers, body) = within(timeout, url, exchange).await?;
        match body {
            Some(body) => read(status, &headers, &body, request),
            None if status.is_success() => Err(Error::Unusable(Box::new(Unusable {
                status,
                fault: Fault::TooLarge(MAX_BODY),
                refresh_token: None,
            }))),
            None => read(status, &headers, &[], request), // the status of a failure still says something
        }
    }

    /// Fetches an issuer's metadata. No body: it is longer than is read.
    pub(super) async fn get(
        &self,
        url: &Url,
        tls: &Tls,
        timeout: Duration,
    ) -> Result<(StatusCode, Option<Vec<u8>>), Error> {
        let exchange = async {
            let get = self.client_for(url, false, tls)?.get(url.clone()).header(ACCEPT, "application/json");
            self.exchange(url, get).await
        };
        let (status, _, body) = within(timeout, url, exchange).await?;
        Ok((status, body))
    }

    /// What the policy says of `url`, on the way that it would be reached.
    pub(super) fn check_url(&self, url: &Url) -> Result<(), Error> {
        match self.proxies.proxy_for(url) {
            Some(_) => self.egress.check_proxied(url)?,
            None => self.egress.check_url(url)?,
        }
        Ok(())
    }

    /// One exchange. No body: it is longer than is read.
    async fn exchange(
        &self,
        url: &Url,
        request: RequestBuilder,
    ) -> Result<(StatusCode, HeaderMap, Option<Vec<u8>>), Error> {
        let mut response = request.send().await.map_err(|error| failure(error, url))?;
        self.note_clock(url, response.headers());
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| failure(error, url))? {
            if body.len() + chunk.len() > MAX_BODY {
                return Ok((response.status(), response.headers().clone(), None));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((response.status(), response.headers().clone(), Some(body)))
    }

    fn note_clock(&self, url: &Url, headers: &HeaderMap) {
        let Some(date) = headers.get(DATE).and_then(|value| http_date(value.to_str().ok()?.trim())) else {
            return;
        };
        let ahead = date.as_second() - Timestamp::now().as_second();
        let origin = url.origin().ascii_serialization();
        let mut clocks = self.clocks.lock().unwrap_or_else(PoisonError::into_inner);
        if ahead.abs() <= CLOCK_TOLERANCE || ahead.abs() > CLOCK_CREDIBLE {
            clocks.remove(&origin);
            return;
        }
        if clocks.len() >= MAX_CLOCKS {
            clocks.clear(); // they come back with the next answers
        }
        clocks.insert(origin, ahead);
    }

    /// After the policy has judged the URL.
    fn client_for(&self, url: &Url, keep_alive: bool, tls: &Tls) -> Result<Client, Error> {
        self.check_url(url)?;
        let unusable = |error: TransportError| Error::Connect { host: host(url), cause: error.to_string() };
        let port = url.port_or_known_default().unwrap_or(443);
        let proxy = self.proxies.proxy_for(url);
        let route = match (proxy, url.scheme()) {
            (None, _) => Route::Direct,
            (Some(_), "https") => Route::HttpsProxy,
            (Some(_), _) => Route::HttpProxy,
        };
        let key = ClientKey { port, keep_alive, tls: tls.digest(), route };
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(key) {
            return Ok(client);
        }
        let client = self.build(port, keep_alive, tls, proxy).map_err(unusable)?;
        clients.insert(key, client.clone());
        Ok(client)
    }

    fn build(
        &self,
        port: u16,
        keep_alive: bool,
        tls: &Tls,
        proxy: Option<&Url>,
    ) -> Result<Client, TransportError> {
        let failed = |error: reqwest::Error| TransportError(root_cause(&error.without_url()));
        let builder = Client::builder()
            .tls_backend_preconfigured(tls.config().map_err(|error| TransportError(error.to_string()))?)
            .user_agent(&self.user_agent)
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            .no_proxy()
            .http1_only()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(if keep_alive { 4 } else { 0 });
        match proxy {
            None => builder.dns_resolver(Resolver { egress: Arc::clone(&self.egress), port }),
            // Which URLs go this way has been decided; this client resolves no name but the proxy's.
            Some(proxy) => builder
                .proxy(reqwest::Proxy::all(proxy.clone()).map_err(failed)?)
                .dns_resolver(ProxyResolver { proxy: proxy.clone() }),
        }
        .build()
        .map_err(failed)
    }
}

async fn within<T>(
    timeout: Duration,
    url: &Url,
    exchange: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(timeout, exchange)
        .await
        .unwrap_or_else(|_| Err(Error::Timeout { host: host(url), seconds: timeout.as_secs() }))
}

/// Resolves with the system's resolver and lets through only addresses that the policy allows. These very addresses
/// are connected to, so that a name cannot mean one thing when it is judged and another when it is used.
struct Resolver {
    egress: Arc<Egress>,
    port: u16,
}

impl Resolve for Resolver {
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

/// Resolves the proxy's name, which is the operator's own choice, and no other.
struct ProxyResolver {
    proxy: Url,
}

impl Resolve for ProxyResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let proxy = self.proxy.clone();
        Box::pin(async move {
            let port = proxy.port_or_known_default().unwrap_or_default();
            if proxy.host_str() != Some(name.as_str()) {
                return Err("only the proxy resolves names".into());
            }
            let addresses: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), port)).await?.collect();
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// Finds out what went wrong from the chain of errors below reqwest's own, which says little.
fn failure(error: reqwest::Error, url: &Url) -> Error {
    let error = error.without_url();
    let host = host(url);
    if let Some(refused) = find::<EgressRefused>(&error) {
        return Error::Egress(refused.clone());
    }
    let cause = root_cause(&error);
    match find::<rustls::Error>(&error) {
        Some(rustls::Error::InvalidCertificate(problem)) => {
            return Error::Certificate { host, problem: CertificateProblem::of(problem).message() };
        }
        Some(rustls::Error::AlertReceived(alert)) if is_about_the_client(*alert) => {
            return Error::ClientCertificate { host, cause: cause.clone() };
        }
        Some(_) => return Error::Handshake { host, cause },
        None => {}
    }
    // The library keeps its type to itself.
    if cause.starts_with("tunnel error: ") {
        let wants_authentication = cause.contains("authorization required");
        return Error::Proxy { host, cause, wants_authentication };
    }
    if error.is_dns() {
        Error::Dns { host, cause }
    } else if error.is_connect() && error.is_timeout() {
        Error::ConnectTimeout { host, seconds: CONNECT_TIMEOUT.as_secs() }
    } else if error.is_connect() {
        Error::Connect { host, cause }
    } else {
        Error::Cut { host, cause }
    }
}

/// The alerts (RFC 8446, 6.2) with which a server refuses who speaks to it.
fn is_about_the_client(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::AccessDenied
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate
    )
}

/// Walks down the chain of sources, into the errors that [`std::io::Error`] wraps and hides from it.
fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        wrapped.map(|wrapped| wrapped as &(dyn StdError + 'static)).or_else(|| error.source())
    })
}

fn find<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    chain(error).find_map(|error| error.downcast_ref::<E>())
}

/// The innermost error's text. Those of the system, of rustls and of hyper hold nothing that a peer has sent.
fn root_cause(error: &(dyn StdError + 'static)) -> String {
    chain(error).last().map(ToString::to_string).unwrap_or_default()
}

fn host(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}
