//! Discovers the token endpoints of issuers, and caches their metadata.

use super::discovery::{Issuer, Metadata, read_metadata};
use super::error::{DiscoveryProblem, Error};
use super::request::RequestDescription;
use super::tenant_cache::TenantCache;
use super::tls::{Tls, TlsDigest};
use super::transport::Transport;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Metadata younger than this is used without a request.
const MAX_AGE: Duration = Duration::from_secs(60 * 60);
/// Metadata younger than this is used while requests fail.
const MAX_STALE_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// A failure is cached for this long, since many clients may have the same issuer.
const FAILURE_TTL: Duration = Duration::from_secs(5);
/// Likewise, while there is stale metadata to use.
const FAILURE_TTL_WITH_STALE: Duration = Duration::from_secs(60);
/// Bounds the memory: issuers may be the choice of untrusted parties.
const MAX_ISSUERS: usize = 256;
/// Likewise, of issuers and tenants. Few: an attempt is kept for as long as metadata is fresh.
const MAX_ATTEMPTS: usize = 4096;

/// The metadata of issuers. Concurrent callers of a tenant share one request for each issuer. Cheap to clone; clones share the
/// cache.
#[derive(Clone, Debug)]
pub struct Discovery {
    transport: Transport,
    /// With when it was requested. For all tenants, because the issuer says the same to each.
    found: Arc<Mutex<TenantCache<CacheKey, (Metadata, Instant)>>>,
    /// Of each tenant: a failure may be its own, as when it has used up its look-ups.
    attempts: Arc<Mutex<Attempts>>,
}

/// Metadata fetched with other roots of trust is not shared.
type CacheKey = (Issuer, TlsDigest);

type Attempts = TenantCache<(Arc<str>, CacheKey), Attempt>;

/// The last failure. Locked during a request, so that others wait for its result.
type Attempt = Arc<tokio::sync::Mutex<Option<Failed>>>;

#[derive(Clone, Debug)]
struct Failed {
    error: Error,
    at: Instant,
    /// The time limit of the request.
    given: Duration,
}

impl Discovery {
    /// An empty cache.
    #[must_use]
    pub fn new(transport: Transport) -> Self {
        let found = TenantCache::new(MAX_ISSUERS, MAX_STALE_AGE);
        let attempts = TenantCache::new(MAX_ATTEMPTS, MAX_AGE);
        Self { transport, found: Arc::new(Mutex::new(found)), attempts: Arc::new(Mutex::new(attempts)) }
    }

    /// The same cache, with requests for one tenant: see [`Transport::for_tenant`].
    #[must_use]
    pub fn for_tenant(&self, tenant: &str) -> Self {
        Self { transport: self.transport.for_tenant(tenant), ..self.clone() }
    }

    /// Returns `description` with the token endpoint of its issuer, or unchanged if it has no issuer. With a client certificate
    /// the endpoint is the issuer's alias for mutual TLS, if there is one. The egress policy has been checked for it.
    ///
    /// # Errors
    /// The metadata cannot be fetched and was not fetched in the last 24 hours, or it cannot be used.
    pub async fn locate(
        &self,
        description: &RequestDescription,
        tls: &Tls,
        timeout: Duration,
    ) -> Result<RequestDescription, Error> {
        let Some(issuer) = &description.issuer else { return Ok(description.clone()) };
        let metadata = self.metadata(issuer, tls, timeout).await?;
        let token_url = metadata.token_endpoint(tls.has_client_certificate()).clone();
        self.transport.check_url(&token_url)?;
        Ok(RequestDescription { token_url, ..description.clone() })
    }

    async fn metadata(&self, issuer: &Issuer, tls: &Tls, timeout: Duration) -> Result<Metadata, Error> {
        let (key, until) = ((issuer.clone(), tls.digest()), Instant::now() + timeout);
        if let Some(metadata) = self.found(&key, MAX_AGE) {
            return Ok(metadata);
        }
        let usable = self.found(&key, MAX_STALE_AGE);
        let attempt = self.attempt(&key);
        // Another caller may ask, and have more time.
        let patience = if usable.is_some() { Duration::ZERO } else { timeout };
        let Ok(mut failed) = tokio::time::timeout(patience, attempt.lock()).await else {
            let host = issuer.url().host_str().unwrap_or_default().to_owned();
            return usable.ok_or(Error::Timeout { host, seconds: timeout.as_secs() });
        };
        let timeout = until.saturating_duration_since(Instant::now());
        // It may have found it meanwhile.
        if let Some(metadata) = self.found(&key, MAX_AGE) {
            return Ok(metadata);
        }
        let failure_ttl = if usable.is_some() { FAILURE_TTL_WITH_STALE } else { FAILURE_TTL };
        // One that was given less time says nothing of a slow issuer.
        let known = failed.as_ref().filter(|failed| {
            failed.at.elapsed() < failure_ttl
                && (failed.given >= timeout || !matches!(failed.error, Error::Timeout { .. }))
        });
        let error = match known {
            Some(failed) => failed.error.clone(),
            None => match self.fetch(issuer, tls, timeout).await {
                Ok(metadata) => {
                    *failed = None;
                    self.keep(key, &metadata);
                    return Ok(metadata);
                }
                Err(error) => {
                    *failed = Some(Failed { error: error.clone(), at: Instant::now(), given: timeout });
                    error
                }
            },
        };
        usable.ok_or(error)
    }

    async fn fetch(&self, issuer: &Issuer, tls: &Tls, timeout: Duration) -> Result<Metadata, Error> {
        let until = Instant::now() + timeout;
        let mut problem: Option<DiscoveryProblem> = None;
        for location in issuer.locations() {
            let left = until.saturating_duration_since(Instant::now());
            // Both locations are on one host: if it cannot be reached at one, it cannot at the other.
            let (status, body) = self.transport.get(&location, tls, left).await?;
            match read_metadata(issuer, status, body.as_deref()) {
                Ok(metadata) => return Ok(metadata),
                // Metadata that cannot be used explains more than metadata that is absent.
                Err(found) => {
                    problem = match problem {
                        Some(DiscoveryProblem::NotFound(status)) if !status.is_server_error() => Some(found),
                        None => Some(found),
                        before => before,
                    }
                }
            }
        }
        let host = issuer.url().host_str().unwrap_or_default().to_owned();
        let problem = problem.unwrap_or(DiscoveryProblem::NoTokenEndpoint);
        Err(Error::discovery(host, problem))
    }

    /// What was found within this time.
    fn found(&self, key: &CacheKey, max_age: Duration) -> Option<Metadata> {
        let found = lock(&self.found);
        found.get(key).filter(|(_, at)| at.elapsed() < max_age).map(|(metadata, _)| metadata.clone())
    }

    fn keep(&self, key: CacheKey, metadata: &Metadata) {
        let now = Instant::now();
        let fresh = (metadata.clone(), now);
        let mut found = lock(&self.found);
        found.get_or_insert_with(key, self.transport.tenant(), now, || fresh.clone()).clone_from(&fresh);
    }

    fn attempt(&self, key: &CacheKey) -> Attempt {
        let tenant = self.transport.tenant();
        let key = (Arc::clone(tenant), key.clone());
        let mut attempts = lock(&self.attempts);
        Arc::clone(attempts.get_or_insert_with(key, tenant, Instant::now(), Attempt::default))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Ignores poisoning: no code panics between the steps of a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
