//! The transport: one HTTP exchange with a token endpoint, within a time limit and the egress policy.

mod bodies;
mod client;
mod clock;
mod connector;
mod decode;
mod failure;
mod limits;
mod lookups;
mod resolver;
mod turns;

pub use client::TransportError;
pub use limits::{CONNECT_TIMEOUT, LOOKUP_TIMEOUT, MAX_BODY, MAX_LOOKUPS};

use super::answer::Answer;
use super::assertion::Attempt;
use super::egress::Egress;
use super::error::{Error, RequestError, ResponseProblem, Unusable};
use super::proxy::Proxies;
use super::request::TokenRequest;
use super::response::{read, read_keeping};
use super::roots::RootsInUse;
use super::tls::Tls;
use super::tls_error::TlsError;
use bodies::Bodies;
use bytes::Bytes;
use client::{ClientCache, ClientKey, HttpClient, Route};
use clock::{LocalClock, ServerClocks};
use decode::{Decoded, decode};
use failure::{failure, host};
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::Full;
use jiff::{SignedDuration, Timestamp};
use limits::{SMALL_BODY, SMALL_BODY_OF_SPENT};
use lookups::Lookups;
use resolver::TENANT;
use secrecy::SecretString;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use turns::Tenant;
use url::Url;

/// Makes aws-lc-rs the default cryptography provider of rustls in this process. Call it before any TLS client is built; further
/// calls have no effect.
pub fn install_crypto_provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default(); // an error: there is one already
}

/// Sends token requests: HTTP/1.1, without redirects and retries, and without a proxy unless configured. Cheap to
/// clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Transport {
    egress: Arc<Egress>,
    user_agent: HeaderValue,
    proxies: Arc<Proxies>,
    clients: Arc<Mutex<ClientCache>>,
    roots: Arc<RootsInUse>,
    bodies: Arc<Bodies>,
    lookups: Arc<Lookups>,
    tenant: Tenant,
    clocks: Arc<ServerClocks>,
    local: LocalClock,
}

impl Transport {
    /// Without a proxy. Builds a first client, so that missing root certificates are found here.
    ///
    /// # Errors
    /// An HTTP client cannot be built.
    pub fn new(egress: Arc<Egress>, user_agent: &str) -> Result<Self, TransportError> {
        Self::with_proxies(egress, user_agent, Proxies::default())
    }

    /// With proxies, which resolve names themselves: see [`Egress::check_proxied`]. The policy does not apply to the addresses of
    /// the proxies.
    ///
    /// # Errors
    /// An HTTP client cannot be built.
    pub fn with_proxies(
        egress: Arc<Egress>,
        user_agent: &str,
        proxies: Proxies,
    ) -> Result<Self, TransportError> {
        install_crypto_provider();
        let transport = Self {
            egress,
            user_agent: HeaderValue::try_from(user_agent).map_err(TransportError::of)?,
            proxies: Arc::new(proxies),
            clients: Arc::default(),
            roots: Arc::default(),
            bodies: Arc::default(),
            lookups: Arc::default(),
            tenant: Tenant::default(),
            clocks: Arc::default(),
            local: LocalClock::default(),
        };
        let direct = ClientKey { keep_alive: true, tls: Tls::default().digest(), route: Route::Direct };
        transport.build(direct, &Tls::default(), None)?;
        Ok(transport)
    }

    /// As [`Tls::new`], with roots that are shared by all who use the same bundle.
    ///
    /// # Errors
    /// Those of [`Tls::new`].
    pub fn tls(
        &self,
        ca_bundle: Option<&str>,
        client: Option<(&str, &SecretString)>,
    ) -> Result<Tls, TlsError> {
        Tls::with(ca_bundle.map(|pem| self.roots.read(pem)).transpose()?, client)
    }

    /// The same transport for endpoints that a trusted party chose, see [`Egress::for_trusted`]. It shares no connection with
    /// this one, since a connection is judged when it is made, no clock, which an answer may set, and no turns of look-ups and
    /// bodies: a tenant whose own endpoints hang would lack those, too.
    #[must_use]
    pub fn for_trusted(&self, private: bool) -> Self {
        let egress = Arc::new(self.egress.for_trusted(private));
        let (clients, clocks) = (Arc::default(), Arc::default());
        Self {
            egress,
            clients,
            clocks,
            lookups: self.lookups.with_own_turns(),
            bodies: Arc::default(),
            ..self.clone()
        }
    }

    /// Takes `now` for the local clock, instead of the system's wall clock.
    #[must_use]
    pub fn with_clock(mut self, now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.local = LocalClock(Arc::new(now));
        self
    }

    /// The same transport, for requests of one tenant: an opaque key, by which look-ups of names are shared out.
    #[must_use]
    pub fn for_tenant(&self, tenant: &str) -> Self {
        Self { tenant: Tenant::from(tenant), ..self.clone() }
    }

    /// The time and id with which the next request to `url` is signed: the server's time if its clock is known to differ, and a
    /// random id.
    #[must_use]
    pub fn attempt(&self, url: &Url) -> Attempt {
        let mut random = [0; 16];
        // It fails only if the operating system has no randomness, and then TLS does not work either.
        let _ = aws_lc_rs::rand::fill(&mut random);
        let offset = self.clock_offset(url).unwrap_or_default();
        let now = (self.local.0)();
        Attempt {
            now: now.checked_add(offset).unwrap_or(now),
            jti: random.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    /// By how much later than by the local clock requests to `url` are signed: as far as its server's clock is ahead, if it differs by
    /// more than 30 s and at most an hour, and at most [`MAX_ASSERTION_OFFSET`](crate::limits::MAX_ASSERTION_OFFSET).
    #[must_use]
    pub fn clock_offset(&self, url: &Url) -> Option<SignedDuration> {
        self.clocks.offset(url)
    }

    /// How far the clock of `url`'s server was ahead of the local one at the last response, however large that is.
    #[must_use]
    pub fn clock_difference(&self, url: &Url) -> Option<SignedDuration> {
        self.clocks.difference(url)
    }

    /// Sends `request` once and reads the answer within `timeout`, with the system's roots.
    ///
    /// # Errors
    /// Those of [`send_over`](Self::send_over).
    pub async fn send(&self, request: &TokenRequest, timeout: Duration) -> Result<Answer, Error> {
        self.send_over(request, &Tls::default(), timeout).await
    }

    /// Sends `request` once and reads the answer within `timeout`.
    ///
    /// # Errors
    /// No usable token was received: every variant of [`Error`] but `Request` and `Discovery`.
    pub async fn send_over(
        &self,
        request: &TokenRequest,
        tls: &Tls,
        timeout: Duration,
    ) -> Result<Answer, Error> {
        self.send_keeping(request, tls, timeout, |_| {}).await
    }

    /// As [`send_over`](Self::send_over). A new refresh token is given to `keep` before the rest of the answer is read: the
    /// server may have spent the one that was sent, so it must outlive a failure, or a panic, of what follows.
    ///
    /// # Errors
    /// Those of [`send_over`](Self::send_over).
    pub async fn send_keeping(
        &self,
        request: &TokenRequest,
        tls: &Tls,
        timeout: Duration,
        keep: impl FnOnce(&SecretString),
    ) -> Result<Answer, Error> {
        let url = request.url();
        let small = if request.spends_credential() { SMALL_BODY_OF_SPENT } else { SMALL_BODY };
        let exchange = async {
            let client = self.client_for(url, !request.spends_credential(), tls)?;
            let mut post = to_url(Method::POST, url, request.body_bytes())?;
            *post.headers_mut() = request.headers().clone();
            self.exchange(url, &client, post, small).await
        };
        let (status, headers, body) =
            within(timeout, url, TENANT.scope(self.tenant.clone(), exchange)).await?;
        match body {
            Some(body) => {
                alive(read_keeping(status, &headers, &body, request, keep)?, status, (self.local.0)())
            }
            None if status.is_success() => Err(Error::Unusable(Box::new(Unusable {
                status,
                problem: ResponseProblem::TooLarge(MAX_BODY),
                refresh_token: None,
            }))),
            None => read(status, &headers, &[], request), // the status alone classifies the failure
        }
    }

    /// Fetches an issuer's metadata. The body is `None` if it exceeds [`MAX_BODY`].
    pub(super) async fn get(
        &self,
        url: &Url,
        tls: &Tls,
        timeout: Duration,
    ) -> Result<(StatusCode, Option<Vec<u8>>), Error> {
        let exchange = async {
            let client = self.client_for(url, false, tls)?;
            let mut get = to_url(Method::GET, url, Bytes::new())?;
            get.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
            self.exchange(url, &client, get, SMALL_BODY).await
        };
        let (status, _, body) = within(timeout, url, TENANT.scope(self.tenant.clone(), exchange)).await?;
        Ok((status, body))
    }

    /// The egress policy.
    #[must_use]
    pub fn egress(&self) -> &Egress {
        &self.egress
    }

    pub(super) fn tenant(&self) -> &Arc<str> {
        &self.tenant
    }

    /// Applies the policy to `url`, for the route by which it would be reached.
    pub(super) fn check_url(&self, url: &Url) -> Result<(), Error> {
        match self.proxies.proxy_for(url) {
            Some(_) => self.egress.check_proxied(url)?,
            None => self.egress.check_url(url)?,
        }
        Ok(())
    }

    /// Sends a request and reads the answer, of whose body `small` bytes need no turn. The body is `None` if it exceeds [`MAX_BODY`], as sent or decoded.
    async fn exchange(
        &self,
        url: &Url,
        client: &HttpClient,
        request: Request<Full<Bytes>>,
        small: usize,
    ) -> Result<(StatusCode, HeaderMap, Option<Vec<u8>>), Error> {
        let may_renegotiate = || client.may_renegotiate();
        let response = client.send(request).await.map_err(|error| failure(&error, url, may_renegotiate()))?;
        let (head, body) = response.into_parts();
        self.clocks.record(url, &self.tenant, &head.headers, (self.local.0)());
        let body = self.bodies.read(body, small, &self.tenant).await;
        let Some(body) = body.map_err(|error| failure(&error, url, may_renegotiate()))? else {
            return Ok((head.status, head.headers, None));
        };
        let body = match decode(body) {
            Decoded::Body(body) => Some(body),
            Decoded::TooLarge => None,
            Decoded::Truncated if head.status.is_success() => {
                return Err(Error::Cut {
                    host: host(url),
                    cause: "its compressed body ends early".to_owned(),
                });
            }
            Decoded::Truncated => Some(Vec::new()), // the status alone classifies the failure
        };
        Ok((head.status, head.headers, body))
    }

    /// Checks the URL, and returns a client for it.
    fn client_for(&self, url: &Url, keep_alive: bool, tls: &Tls) -> Result<HttpClient, Error> {
        self.check_url(url)?;
        self.egress.check_roots(tls.has_custom_roots())?;
        let proxy = self.proxies.proxy_for(url);
        let key = ClientKey { keep_alive, tls: tls.digest(), route: Route::of(url, proxy) };
        let cached = || self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = cached().get(key) {
            return Ok(client);
        }
        // It takes milliseconds, so not under the lock.
        let built = self.build(key, tls, proxy);
        let client = built.map_err(|error| Error::Client { cause: error.to_string() })?;
        Ok(cached().insert(key, client, &self.tenant, tls))
    }

    fn build(&self, key: ClientKey, tls: &Tls, proxy: Option<&Url>) -> Result<HttpClient, TransportError> {
        HttpClient::build(&self.egress, &self.lookups, &self.user_agent, key, tls, proxy)
    }
}

fn to_url(method: Method, url: &Url, body: Bytes) -> Result<Request<Full<Bytes>>, Error> {
    let uri = Uri::try_from(url.as_str()).map_err(|_| Error::Request(RequestError::Url))?;
    let mut request = Request::new(Full::new(body));
    (*request.method_mut(), *request.uri_mut()) = (method, uri);
    Ok(request)
}

/// Refuses a token that is dead on arrival: a success would be repeated at once, and overwrite a token that lives.
fn alive(answer: Answer, status: StatusCode, now: Timestamp) -> Result<Answer, Error> {
    let Some(dead_for) = answer.dead_for(now) else { return Ok(answer) };
    let problem = ResponseProblem::Dead(dead_for);
    Err(Error::Unusable(Box::new(Unusable { status, problem, refresh_token: answer.refresh_token })))
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
