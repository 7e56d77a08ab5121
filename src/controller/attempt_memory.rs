//! How many bytes the token requests under way hold of what tenants choose: CA bundles, certificates, credentials. Three hundred
//! requests with bundles of half a MiB would be the memory of the pod. A request reserves what its spec may need before it reads
//! anything, and gives back what it does not need.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tenant_shares::has_share;
use token_endpoint::limits::{MAX_BUNDLE, MAX_CHAIN, MAX_CREDENTIAL, MAX_CREDENTIALS, MAX_REQUEST_BODY};
use tokensource_api as api;
use tokio::sync::oneshot;

/// Bounds all requests together. Half of it is for namespaces that have nothing.
const MAX_BYTES: usize = 16 << 20;

/// The most bytes that a request holds with this `spec.tls`: credentials, the body that is made of them, and certificates.
pub(super) fn most_bytes(tls: Option<&api::Tls>) -> usize {
    let bundle = tls.and_then(|tls| tls.ca_bundle.as_ref()).map_or(0, |_| MAX_BUNDLE);
    let client =
        tls.and_then(|tls| tls.client_certificate_ref.as_ref()).map_or(0, |_| MAX_CHAIN + MAX_CREDENTIAL);
    MAX_CREDENTIALS + MAX_REQUEST_BODY + bundle + client
}

/// See the module. Of those that wait, the namespace with the least goes first, and none that fits overtakes it.
#[derive(Debug)]
pub(super) struct AttemptMemory(Mutex<Bytes>);

#[derive(Debug)]
struct Bytes {
    free: usize,
    held: HashMap<Arc<str>, usize>,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    namespace: Arc<str>,
    bytes: usize,
    grant: oneshot::Sender<Reservation>,
}

/// Bytes that a request may hold. They are given back when this is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    memory: Arc<AttemptMemory>,
    namespace: Arc<str>,
    bytes: usize,
}

impl AttemptMemory {
    pub(super) fn new() -> Arc<Self> {
        let bytes = Bytes { free: MAX_BYTES, held: HashMap::new(), waiting: VecDeque::new() };
        Arc::new(AttemptMemory(Mutex::new(bytes)))
    }

    /// Waits for so many bytes.
    pub(super) async fn reserve(self: &Arc<Self>, namespace: &Arc<str>, bytes: usize) -> Reservation {
        let bytes = bytes.min(MAX_BYTES);
        loop {
            let (grant, granted) = oneshot::channel();
            self.lock().waiting.push_back(Waiting { namespace: Arc::clone(namespace), bytes, grant });
            self.hand_out();
            if let Ok(reservation) = granted.await {
                return reservation;
            }
        }
    }

    /// Those who wait no more give theirs back by its drop.
    fn hand_out(self: &Arc<Self>) {
        loop {
            let Some(Waiting { namespace, bytes, grant }) = self.lock().next() else { return };
            drop(grant.send(Reservation { memory: Arc::clone(self), namespace, bytes }));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bytes {
    fn next(&mut self) -> Option<Waiting> {
        self.waiting.retain(|waiting| !waiting.grant.is_closed());
        let shared = self.free.saturating_sub(MAX_BYTES / 2);
        let held = |namespace: &Arc<str>| self.held.get(namespace).copied().unwrap_or_default();
        let waiting = self.waiting.iter().enumerate().map(|(at, it)| (held(&it.namespace), at));
        let (_, at) = waiting.filter(|(held, _)| *held == 0 || has_share(*held, shared)).min()?;
        if self.waiting.get(at)?.bytes > self.free {
            return None;
        }
        let next = self.waiting.remove(at)?;
        self.free -= next.bytes;
        *self.held.entry(Arc::clone(&next.namespace)).or_default() += next.bytes;
        Some(next)
    }

    fn give_back(&mut self, namespace: &Arc<str>, bytes: usize) {
        self.free += bytes;
        if let Some(held) = self.held.get_mut(namespace) {
            *held = held.saturating_sub(bytes);
            if *held == 0 {
                self.held.remove(namespace);
            }
        }
    }
}

impl Reservation {
    /// Gives back all but so many bytes.
    pub(super) fn keep(&mut self, bytes: usize) {
        let rest = self.bytes.saturating_sub(bytes);
        self.bytes -= rest;
        self.memory.lock().give_back(&self.namespace, rest);
        self.memory.hand_out();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.keep(0);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const LARGE: usize = 600 << 10;

    /// Reserves until it has to wait.
    fn all(memory: &Arc<AttemptMemory>, namespace: &str, bytes: usize) -> Vec<Reservation> {
        let namespace = namespace.into();
        std::iter::from_fn(|| memory.reserve(&namespace, bytes).now_or_never()).collect()
    }

    #[tokio::test]
    async fn attempt_memory_of_a_namespace_leaves_room_for_others_however_large_its_requests_are() {
        let memory = AttemptMemory::new();
        let crowd = all(&memory, "crowd", LARGE);
        assert!((10..=12).contains(&crowd.len()), "{}", crowd.len());
        let other = all(&memory, "other", LARGE);
        assert!(other.len() >= 2, "{}", other.len());
        let small = all(&memory, "small", most_bytes(None));
        assert!(!small.is_empty());
        drop((crowd, other, small));
        assert!(memory.lock().held.is_empty());
        assert_eq!(memory.lock().free, MAX_BYTES);
    }

    #[tokio::test]
    async fn attempt_memory_that_is_given_back_goes_to_the_namespace_with_the_least() {
        let memory = AttemptMemory::new();
        let mut held: Vec<_> = (0..27).flat_map(|n| all(&memory, &format!("ns-{n}"), LARGE)).collect();
        let (crowd, honest) = ("ns-0".into(), "honest".into());
        let mut waits = Box::pin(memory.reserve(&crowd, LARGE));
        let mut honest = Box::pin(memory.reserve(&honest, LARGE));
        assert!(waits.as_mut().now_or_never().is_none() && honest.as_mut().now_or_never().is_none());
        held.pop();
        let mut honest = honest.now_or_never().expect("the one with nothing goes first");
        assert!(waits.as_mut().now_or_never().is_none());
        honest.keep(1000);
        assert_eq!(honest.bytes, 1000);
        drop((held, honest));
        assert!(waits.now_or_never().is_some());
    }

    #[tokio::test]
    async fn attempt_memory_that_a_small_request_would_fit_waits_for_a_large_one_that_came_first() {
        let memory = AttemptMemory::new();
        let mut held: Vec<_> = (0..27).flat_map(|n| all(&memory, &format!("ns-{n}"), LARGE)).collect();
        let (large, small) = ("large".into(), "small".into());
        let mut large = Box::pin(memory.reserve(&large, LARGE));
        let mut small = Box::pin(memory.reserve(&small, 1));
        assert!(large.as_mut().now_or_never().is_none() && small.as_mut().now_or_never().is_none());
        held.pop();
        assert!(large.now_or_never().is_some() && small.now_or_never().is_some());
    }
}
