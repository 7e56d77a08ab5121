//! What time it is, by the caller's clock, and how far the clocks of servers are ahead of it, by the header `Date`.

use crate::lifetime::MAX_CLOCK_OFFSET;
use crate::limits::MAX_ASSERTION_OFFSET;
use crate::response::http_date;
use crate::tenant_cache::TenantCache;
use http::HeaderMap;
use http::header::DATE;
use jiff::{SignedDuration, Timestamp};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use url::Url;

/// Bounds the memory: origins may be the choice of untrusted parties.
const MAX_CLOCKS: usize = 1024;
/// How long a server's clock is remembered that sends no further response.
const CLOCK_KEPT: Duration = Duration::from_secs(24 * 3600);
/// Assertions are dated by a server's clock if that differs by more than this, in seconds.
const CLOCK_TOLERANCE: u64 = 30;

/// The caller's clock.
#[derive(Clone)]
pub(super) struct LocalClock(pub(super) Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Default for LocalClock {
    fn default() -> Self {
        LocalClock(Arc::new(Timestamp::now))
    }
}

impl fmt::Debug for LocalClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LocalClock")
    }
}

/// Seconds by which the clock of an origin is ahead of the local one.
#[derive(Debug)]
pub(super) struct ServerClocks(Mutex<TenantCache<String, i64>>);

impl Default for ServerClocks {
    fn default() -> Self {
        ServerClocks(Mutex::new(TenantCache::new(MAX_CLOCKS, CLOCK_KEPT)))
    }
}

impl ServerClocks {
    /// The difference by which assertions are dated, where that is needed. It is bounded: a server must not obtain assertions that
    /// are valid at a time of its choice.
    pub(super) fn offset(&self, url: &Url) -> Option<SignedDuration> {
        let ahead = self.difference(url).filter(|ahead| {
            (CLOCK_TOLERANCE + 1..=MAX_CLOCK_OFFSET).contains(&ahead.as_secs().unsigned_abs())
        });
        ahead.map(|ahead| ahead.clamp(-MAX_ASSERTION_OFFSET, MAX_ASSERTION_OFFSET))
    }

    /// The difference at the last response, however large it is.
    pub(super) fn difference(&self, url: &Url) -> Option<SignedDuration> {
        let clocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        clocks.get(&url.origin().ascii_serialization()).map(|&seconds| SignedDuration::from_secs(seconds))
    }

    pub(super) fn record(&self, url: &Url, tenant: &Arc<str>, headers: &HeaderMap, now: Timestamp) {
        let Some(date) = headers.get(DATE).and_then(|value| http_date(value.to_str().ok()?.trim())) else {
            return;
        };
        let ahead = date.as_second() - now.as_second();
        let origin = url.origin().ascii_serialization();
        let mut clocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *clocks.get_or_insert_with(origin, tenant, Instant::now(), || ahead) = ahead;
    }
}
