//! The one attempt: an HTTP exchange with a token endpoint, within a deadline and the egress policy.

use super::egress::{Egress, EgressRefused};
use super::error::{Error, Fault, Unusable};
use super::request::TokenRequest;
use super::response::{Answer, read};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, redirect, retry};
use rustls::CertificateError;
use secrecy::ExposeSecret;
use std::collections::HashMap;
use std::error::Error as StdError;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The longest that connecting takes, name resolution and TLS included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes.
pub const MAX_BODY: usize = 256 * 1024;
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Ports are the tenants' choice, so the clients that are kept for them are bounded.
const MAX_CLIENTS: usize = 16;

/// Makes aws-lc-rs the one provider of cryptography for rustls in this process. To be called at start, before any
/// TLS client is built; again is harmless.
pub fn install_crypto_provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default(); // an error: there is one already
}

/// Sends token requests: HTTP/1.1, no redirects, no retries, no proxy, no decompression.
#[derive(Clone, Debug)]
pub struct Transport {
    egress: Arc<Egress>,
    user_agent: String,
    clients: Arc<Mutex<HashMap<ClientKey, Client>>>,
}

/// What a client is built from. The port is there because the policy knows ports and a resolver sees only names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct ClientKey {
    port: u16,
    keep_alive: bool,
}

/// No HTTP client can be built: no usable root certificates on this system, or a User-Agent that is none.
#[derive(Debug, thiserror::Error)]
#[error("cannot build an HTTP client: {0}")]
pub struct TransportError(String);

impl Transport {
    /// Builds a first client, so that a system without root certificates is found at start.
    ///
    /// # Errors
    /// No HTTP client can be built.
    pub fn new(egress: Arc<Egress>, user_agent: &str) -> Result<Self, TransportError> {
        install_crypto_provider();
        let transport = Self { egress, user_agent: user_agent.to_owned(), clients: Arc::default() };
        transport.client(ClientKey { port: 443, keep_alive: true })?;
        Ok(transport)
    }

    /// Sends `request` once and reads the answer, all within `timeout`.
    ///
    /// # Errors
    /// Everything that [`Error`] knows.
    pub async fn send(&self, request: &TokenRequest, timeout: Duration) -> Result<Answer, Error> {
        let attempt = self.attempt(request);
        tokio::time::timeout(timeout, attempt)
            .await
            .unwrap_or_else(|_| Err(Error::Timeout { host: host(request), seconds: timeout.as_secs() }))
    }

    async fn attempt(&self, request: &TokenRequest) -> Result<Answer, Error> {
        self.egress.check_url(request.url())?;
        let port = request.url().port_or_known_default().unwrap_or(443);
        let client = self
            .client(ClientKey { port, keep_alive: !request.spends_credential() })
            .map_err(|error| Error::Connect { host: host(request), cause: error.to_string() })?;

        let mut response = client
            .post(request.url().clone())
            .headers(request.headers().clone())
            .body(request.body().expose_secret().to_owned())
            .send()
            .await
            .map_err(|error| failure(error, request))?;

        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| failure(error, request))? {
            if body.len() + chunk.len() > MAX_BODY {
                if response.status().is_success() {
                    return Err(Error::Unusable(Box::new(Unusable {
                        status: response.status(),
                        fault: Fault::TooLarge(MAX_BODY),
                        refresh_token: None,
                    })));
                }
                break; // the status of a failure still says something
            }
            body.extend_from_slice(&chunk);
        }
        read(response.status(), response.headers(), &body, request)
    }

    fn client(&self, key: ClientKey) -> Result<Client, TransportError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&key) {
            return Ok(client.clone());
        }
        let client = self.build(key)?;
        if clients.len() >= MAX_CLIENTS {
            clients.clear();
        }
        clients.insert(key, client.clone());
        Ok(client)
    }

    fn build(&self, key: ClientKey) -> Result<Client, TransportError> {
        Client::builder()
            .user_agent(&self.user_agent)
            .redirect(redirect::Policy::none())
            .retry(retry::never())
            .referer(false)
            .no_proxy()
            .http1_only()
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(if key.keep_alive { 4 } else { 0 })
            .dns_resolver(Resolver { egress: Arc::clone(&self.egress), port: key.port })
            .build()
            .map_err(|error| TransportError(root_cause(&error)))
    }
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

/// Finds out what went wrong from the chain of errors below reqwest's own, which says little.
fn failure(error: reqwest::Error, request: &TokenRequest) -> Error {
    let error = error.without_url();
    let host = host(request);
    if let Some(refused) = find::<EgressRefused>(&error) {
        return Error::Egress(refused.clone());
    }
    let cause = root_cause(&error);
    match find::<rustls::Error>(&error) {
        Some(rustls::Error::InvalidCertificate(problem)) => {
            return Error::Certificate { host, problem: certificate_problem(problem) };
        }
        Some(_) => return Error::Handshake { host, cause },
        None => {}
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

fn certificate_problem(problem: &CertificateError) -> &'static str {
    match problem {
        CertificateError::UnknownIssuer => {
            "no authority that this operator trusts has issued it, or the server does not send its intermediates"
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "it is for another name (only subjectAltName counts, not the common name)"
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "it has expired",
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet: is the node's clock right?"
        }
        CertificateError::Revoked => "it is revoked",
        _ => "it does not hold what a server's certificate must hold",
    }
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

fn host(request: &TokenRequest) -> String {
    request.url().host_str().unwrap_or_default().to_owned()
}
