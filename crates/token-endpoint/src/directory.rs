//! Finds the token endpoints of issuers, and remembers them.

use super::discovery::{DiscoveryProblem, Issuer, Metadata, read_metadata};
use super::error::Error;
use super::request::RequestDescription;
use super::tls::{Tls, TlsDigest};
use super::transport::Transport;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How long metadata is used without asking again.
const FRESH: Duration = Duration::from_secs(60 * 60);
/// How long it is used while asking fails.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a failure is remembered: many sources have the same issuer.
const FAILED: Duration = Duration::from_secs(5);
/// While there is something to use, asking again has time.
const FAILED_WITH_STALE: Duration = Duration::from_secs(60);
/// Issuers are the tenants' choice, so what is kept of them is bounded.
const MAX_ISSUERS: usize = 256;

/// The metadata of issuers, each fetched by one for all who ask. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Discovery {
    transport: Transport,
    known: Arc<Mutex<HashMap<Key, Slot>>>,
}

/// Who trusts other roots shall not be told what those who trust less have found.
type Key = (Issuer, TlsDigest);

#[derive(Clone, Debug)]
struct Slot {
    used: Instant,
    entry: Arc<tokio::sync::Mutex<Entry>>,
}

#[derive(Debug, Default)]
struct Entry {
    found: Option<(Metadata, Instant)>,
    failed: Option<(Error, Instant)>,
}

impl Discovery {
    /// With nothing in it.
    #[must_use]
    pub fn new(transport: Transport) -> Self {
        Self { transport, known: Arc::default() }
    }

    /// `description` with the token endpoint in its place: its issuer's, or else its own. With a client certificate it is the
    /// alias for mutual TLS, where there is one. The policy allows the endpoint.
    ///
    /// # Errors
    /// The metadata cannot be had and was not had in the last 24 hours, or is of no use.
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
        // Whoever comes second waits for the answer to the first.
        let mut entry = entry.lock().await;
        let now = Instant::now();
        let within = |at: Instant, limit: Duration| now.duration_since(at) < limit;
        let usable = entry.found.clone().filter(|(_, at)| within(*at, STALE));
        if let Some((metadata, _)) = usable.as_ref().filter(|(_, at)| within(*at, FRESH)) {
            return Ok(metadata.clone());
        }
        let patience = if usable.is_some() { FAILED_WITH_STALE } else { FAILED };
        let failed = entry.failed.clone().filter(|(_, at)| within(*at, patience));
        let error = match failed {
            Some((error, _)) => error,
            None => match self.fetch(issuer, tls, timeout).await {
                Ok(metadata) => {
                    *entry = Entry { found: Some((metadata.clone(), now)), failed: None };
                    return Ok(metadata);
                }
                Err(error) => {
                    entry.failed = Some((error.clone(), Instant::now()));
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
            // An issuer that cannot be reached at one place cannot be at the other.
            let (status, body) = self.transport.get(&location, tls, left).await?;
            match read_metadata(issuer, status, body.as_deref()) {
                Ok(metadata) => return Ok(metadata),
                // What is there but of no use says more than what is not there.
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

    /// In place of the one that nobody has used for longest.
    fn entry(&self, key: Key) -> Arc<tokio::sync::Mutex<Entry>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains_key(&key)
            && known.len() >= MAX_ISSUERS
            && let Some(oldest) = known.iter().min_by_key(|(_, slot)| slot.used).map(|(key, _)| key.clone())
        {
            known.remove(&oldest);
        }
        let slot = known.entry(key).or_insert_with(|| Slot { used: Instant::now(), entry: Arc::default() });
        slot.used = Instant::now();
        Arc::clone(&slot.entry)
    }
}
