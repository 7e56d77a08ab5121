//! Discovers the token endpoints of issuers, and caches their metadata.

use super::discovery::{Issuer, Metadata, read_metadata};
use super::error::{DiscoveryProblem, Error};
use super::request::RequestDescription;
use super::tenant_cache::TenantCache;
use super::tls::{Tls, TlsDigest};
use super::transport::Transport;
use std::sync::{Arc, Mutex, PoisonError};
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

/// The metadata of issuers. Concurrent callers share one request for each issuer. Cheap to clone; clones share the cache.
#[derive(Clone, Debug)]
pub struct Discovery {
    transport: Transport,
    slots: Arc<Mutex<TenantCache<CacheKey, CacheSlot>>>,
}

/// Metadata fetched with other roots of trust is not shared.
type CacheKey = (Issuer, TlsDigest);

/// Locked during a request, so that others wait for its result.
type CacheSlot = Arc<tokio::sync::Mutex<CachedMetadata>>;

#[derive(Debug, Default)]
struct CachedMetadata {
    found: Option<(Metadata, Instant)>,
    /// With the time limit of the request that failed.
    failed: Option<(Error, Instant, Duration)>,
}

impl Discovery {
    /// An empty cache.
    #[must_use]
    pub fn new(transport: Transport) -> Self {
        let slots = TenantCache::new(MAX_ISSUERS, MAX_STALE_AGE);
        Self { transport, slots: Arc::new(Mutex::new(slots)) }
    }

    /// The same cache, with requests for one tenant: see [`Transport::for_tenant`].
    #[must_use]
    pub fn for_tenant(&self, tenant: &str) -> Self {
        Self { transport: self.transport.for_tenant(tenant), slots: Arc::clone(&self.slots) }
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
        let entry = self.entry((issuer.clone(), tls.digest()));
        let mut entry = entry.lock().await;
        let now = Instant::now();
        let within = |at: Instant, limit: Duration| now.duration_since(at) < limit;
        let usable = entry.found.clone().filter(|(_, at)| within(*at, MAX_STALE_AGE));
        if let Some((metadata, _)) = usable.as_ref().filter(|(_, at)| within(*at, MAX_AGE)) {
            return Ok(metadata.clone());
        }
        let failure_ttl = if usable.is_some() { FAILURE_TTL_WITH_STALE } else { FAILURE_TTL };
        // One that was given less time says nothing of a slow issuer.
        let failed = entry.failed.clone().filter(|(error, at, given)| {
            within(*at, failure_ttl) && (*given >= timeout || !matches!(error, Error::Timeout { .. }))
        });
        let error = match failed {
            Some((error, ..)) => error,
            None => match self.fetch(issuer, tls, timeout).await {
                Ok(metadata) => {
                    *entry = CachedMetadata { found: Some((metadata.clone(), now)), failed: None };
                    return Ok(metadata);
                }
                Err(error) => {
                    entry.failed = Some((error.clone(), Instant::now(), timeout));
                    error
                }
            },
        };
        usable.map(|(metadata, _)| metadata).ok_or(error)
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

    fn entry(&self, key: CacheKey) -> CacheSlot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(slots.get_or_insert_with(key, self.transport.tenant(), Instant::now(), Arc::default))
    }
}
