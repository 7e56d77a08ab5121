//! How many token requests are under way at one origin.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use url::Url;

/// Requests under way at one origin (scheme, host and port).
const IN_FLIGHT: usize = 64;
/// Origins that are remembered before those without a request are forgotten.
const REMEMBERED: usize = 1024;

/// Lets at most 64 requests be under way at one origin, so that one that hangs holds up nobody else's.
#[derive(Debug, Default)]
pub struct Gate {
    origins: Mutex<HashMap<String, Arc<Semaphore>>>,
}

impl Gate {
    /// Waits for a place at the origin of `url`, and holds it until the permit is dropped.
    pub async fn enter(&self, url: &Url) -> Option<OwnedSemaphorePermit> {
        let origin = url.origin().ascii_serialization();
        let semaphore = {
            let mut origins = self.origins.lock().unwrap_or_else(PoisonError::into_inner);
            if origins.len() >= REMEMBERED {
                origins.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
            }
            Arc::clone(origins.entry(origin).or_insert_with(|| Arc::new(Semaphore::new(IN_FLIGHT))))
        };
        // Nobody closes the semaphore.
        semaphore.acquire_owned().await.ok()
    }
}
