//! How many bytes the token requests under way hold of what tenants choose: CA bundles, certificates, credentials. Three hundred
//! requests with bundles of half a MiB would be the memory of the pod. A request reserves what its spec may need before it reads
//! anything, and gives back what it does not need.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tenant_shares::has_share;
use token_endpoint::Credentials;
use token_endpoint::limits::{MAX_BUNDLE, MAX_CHAIN, MAX_CREDENTIAL, MAX_CREDENTIALS, MAX_REQUEST};
use tokensource_api as api;
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::cluster::MAX_ISSUED_TOKEN;
use crate::providers::Description;

/// Bounds all requests together. Half of it is for namespaces that have nothing.
const MAX_BYTES: usize = 16 << 20;
/// So many of the last turns are remembered, also of namespaces that hold nothing and wait for nothing.
const REMEMBERED: u64 = 256;

/// The most bytes that a request holds with this `spec.tls`: credentials, the request that is made of them, and certificates.
pub(super) fn most_bytes(tls: Option<&api::Tls>) -> usize {
    let bundle = tls.and_then(|tls| tls.ca_bundle.as_ref()).map_or(0, |_| MAX_BUNDLE);
    let client =
        tls.and_then(|tls| tls.client_certificate_ref.as_ref()).map_or(0, |_| MAX_CHAIN + MAX_CREDENTIAL);
    MAX_CREDENTIALS + MAX_REQUEST + bundle + client
}

/// How often a request holds the token of a ServiceAccount, which no encoding makes longer: in the credentials, in the body, and
/// to hide it in messages.
const ISSUED_TOKEN_COPIES: usize = 3;

/// What credentials, and the request that is made of them, hold in memory. The token of a ServiceAccount is counted, although it
/// is asked for when the request is sent.
pub(super) fn held_bytes(description: &Description, credentials: &Credentials) -> usize {
    let token = description.service_account.as_ref().map_or(0, |_| ISSUED_TOKEN_COPIES * MAX_ISSUED_TOKEN);
    credentials.bytes() + description.request.most_bytes(credentials) + token
}

/// A digest of a CA bundle, and its bytes.
pub(super) type Bundle = ([u8; 32], usize);

/// See the module. Of the namespaces that wait, the one with the least goes first; of those with as much, the one whose last turn is
/// longest ago: however many requests some have, another one waits for one of each. Then the earliest deadline, and none that
/// fits overtakes it.
#[derive(Debug)]
pub(super) struct AttemptMemory(Mutex<Bytes>);

#[derive(Debug)]
struct Bytes {
    free: usize,
    namespaces: HashMap<Arc<str>, Namespace>,
    arrivals: u64,
    turns: u64,
}

#[derive(Debug, Default)]
struct Namespace {
    held: usize,
    /// The bundles in use, each with its bytes and the number of requests that share it.
    bundles: HashMap<[u8; 32], (usize, usize)>,
    /// The number of its last turn.
    turn: u64,
    /// By deadline, then by arrival.
    waiting: BTreeMap<(Instant, u64), Waiting>,
}

#[derive(Debug)]
struct Waiting {
    bytes: usize,
    grant: oneshot::Sender<Reservation>,
}

/// Bytes that a request may hold. They are given back when this is dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    memory: Arc<AttemptMemory>,
    namespace: Arc<str>,
    /// Without the bundle.
    bytes: usize,
    bundle: Option<[u8; 32]>,
}

impl AttemptMemory {
    pub(super) fn new() -> Arc<Self> {
        let bytes = Bytes { free: MAX_BYTES, namespaces: HashMap::new(), arrivals: 0, turns: 0 };
        Arc::new(AttemptMemory(Mutex::new(bytes)))
    }

    /// Waits for so many bytes.
    pub(super) async fn reserve(
        self: &Arc<Self>,
        namespace: &Arc<str>,
        bytes: usize,
        deadline: Instant,
    ) -> Reservation {
        let bytes = bytes.min(MAX_BYTES);
        loop {
            let (grant, granted) = oneshot::channel();
            self.lock().wait(namespace, deadline, Waiting { bytes, grant });
            self.hand_out();
            if let Ok(reservation) = granted.await {
                return reservation;
            }
        }
    }

    /// Those who wait no more give theirs back by its drop.
    fn hand_out(self: &Arc<Self>) {
        loop {
            let Some((namespace, Waiting { bytes, grant })) = self.lock().next() else { return };
            let memory = Arc::clone(self);
            drop(grant.send(Reservation { memory, namespace, bytes, bundle: None }));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Bytes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bytes {
    fn wait(&mut self, namespace: &Arc<str>, deadline: Instant, waiting: Waiting) {
        let (arrival, turns) = (self.arrivals, self.turns);
        self.arrivals += 1;
        if !self.namespaces.contains_key(namespace) {
            self.namespaces.retain(|_, it| {
                it.held > 0 || !it.waiting.is_empty() || (it.turn > 0 && it.turn + REMEMBERED > turns)
            });
        }
        // One that was forgotten does not go before those that have waited since.
        let turn = turns.saturating_sub(REMEMBERED);
        let new = || Namespace { turn, ..Namespace::default() };
        let namespace = self.namespaces.entry(Arc::clone(namespace)).or_insert_with(new);
        namespace.waiting.insert((deadline, arrival), waiting);
    }

    fn next(&mut self) -> Option<(Arc<str>, Waiting)> {
        let shared = self.free.saturating_sub(MAX_BYTES / 2);
        let may = |held: usize| held == 0 || has_share(held, shared);
        let first = |(name, it): (&Arc<str>, &mut Namespace)| {
            while it.waiting.first_key_value().is_some_and(|(_, waiting)| waiting.grant.is_closed()) {
                it.waiting.pop_first();
            }
            let (at, _) = it.waiting.first_key_value()?;
            may(it.held).then(|| ((it.held, it.turn, *at), Arc::clone(name)))
        };
        let (_, name) = self.namespaces.iter_mut().filter_map(first).min()?;
        let namespace = self.namespaces.get_mut(&name)?;
        let entry = namespace.waiting.first_entry().filter(|entry| entry.get().bytes <= self.free)?;
        let waiting = entry.remove();
        self.turns += 1;
        namespace.turn = self.turns;
        namespace.held += waiting.bytes;
        self.free -= waiting.bytes;
        Some((name, waiting))
    }
}

impl Reservation {
    /// Gives back all but so many bytes and those of the bundle, which the requests of a namespace share.
    pub(super) fn keep(&mut self, bytes: usize, bundle: Option<Bundle>) {
        {
            let memory = &mut *self.memory.lock();
            let Some(namespace) = memory.namespaces.get_mut(&self.namespace) else { return };
            let mut given_back = self.bytes;
            if let Some(digest) = self.bundle.take()
                && let Some((bytes, sharers)) = namespace.bundles.get_mut(&digest)
            {
                *sharers -= 1;
                if *sharers == 0 {
                    given_back += *bytes;
                    namespace.bundles.remove(&digest);
                }
            }
            if let Some((digest, bytes)) = bundle {
                let shared = namespace.bundles.entry(digest).or_insert_with(|| {
                    // No more than was reserved.
                    let bytes = bytes.min(given_back);
                    given_back -= bytes;
                    (bytes, 0)
                });
                shared.1 += 1;
                self.bundle = Some(digest);
            }
            self.bytes = bytes.min(given_back);
            given_back -= self.bytes;
            namespace.held -= given_back;
            memory.free += given_back;
        }
        self.memory.hand_out();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.keep(0, None);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::pin::Pin;

    use futures::FutureExt;
    use serde_json::json;

    use super::*;
    use crate::providers::{add_token, describe};

    const LARGE: usize = 600 << 10;

    async fn reserve(memory: &Arc<AttemptMemory>, namespace: &Arc<str>, bytes: usize) -> Reservation {
        memory.reserve(namespace, bytes, Instant::now()).await
    }

    /// Reserves until it has to wait.
    fn all(memory: &Arc<AttemptMemory>, namespace: &str, bytes: usize) -> Vec<Reservation> {
        let namespace = namespace.into();
        std::iter::from_fn(|| reserve(memory, &namespace, bytes).now_or_never()).collect()
    }

    #[test]
    fn token_of_a_service_account_is_counted_before_it_is_asked_for() {
        for oauth2 in [
            json!({"clientAuthentication": {"serviceAccountToken": {}}}),
            json!({"grant": {"assertion": {"from": "serviceAccountToken"}}}),
            json!({"grant": {"tokenExchange": {"subject": "serviceAccountToken", "subjectTokenType": "a"}}}),
        ] {
            let mut oauth2 = oauth2;
            oauth2["tokenURL"] = json!("https://idp.example.com/token");
            let token = json!({"name": "payments", "audience": "https://idp.example.com"});
            let spec: api::TokenSourceSpec = serde_json::from_value(json!({
                "provider": {"oauth2": oauth2}, "credentials": {"serviceAccountToken": token, "clientID": "id"},
            }))
            .unwrap();
            let description = describe(&spec).unwrap();
            let account = description.service_account.as_ref().unwrap();
            let mut credentials = account.credentials(&spec.credentials, "ns");
            let counted = held_bytes(&description, &credentials);
            let token = "a".repeat(MAX_ISSUED_TOKEN).into();
            add_token(&description.request, &mut credentials, &token);
            let held = credentials.bytes() + description.request.request(&credentials).unwrap().bytes();
            assert!(held > 3 * MAX_ISSUED_TOKEN && held <= counted, "{held} of {counted}: {oauth2}");
        }
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
        assert!(memory.lock().namespaces.values().all(|it| it.held == 0 && it.bundles.is_empty()));
        assert_eq!(memory.lock().free, MAX_BYTES);
    }

    #[tokio::test]
    async fn attempt_memory_that_is_given_back_goes_to_the_namespace_with_the_least() {
        let memory = AttemptMemory::new();
        let mut held: Vec<_> = (0..27).flat_map(|n| all(&memory, &format!("ns-{n}"), LARGE)).collect();
        let (crowd, honest) = ("ns-0".into(), "honest".into());
        let mut waits = Box::pin(reserve(&memory, &crowd, LARGE));
        let mut honest = Box::pin(reserve(&memory, &honest, LARGE));
        assert!(waits.as_mut().now_or_never().is_none() && honest.as_mut().now_or_never().is_none());
        held.pop();
        let mut honest = honest.now_or_never().expect("the one with nothing goes first");
        assert!(waits.as_mut().now_or_never().is_none());
        honest.keep(1000, None);
        assert_eq!(honest.bytes, 1000);
        drop((held, honest));
        assert!(waits.now_or_never().is_some());
    }

    #[tokio::test]
    async fn attempt_memory_that_a_small_request_would_fit_waits_for_a_large_one_that_came_first() {
        let memory = AttemptMemory::new();
        let mut held: Vec<_> = (0..27).flat_map(|n| all(&memory, &format!("ns-{n}"), LARGE)).collect();
        let (large, small) = ("large".into(), "small".into());
        let mut large = Box::pin(reserve(&memory, &large, LARGE));
        let mut small = Box::pin(reserve(&memory, &small, 1));
        assert!(large.as_mut().now_or_never().is_none() && small.as_mut().now_or_never().is_none());
        held.pop();
        assert!(large.now_or_never().is_some() && small.now_or_never().is_some());
    }

    /// Namespaces of one owner, each with more requests than there is memory for.
    #[tokio::test(start_paused = true)]
    async fn attempt_memory_of_many_namespaces_with_long_queues_comes_to_another_after_one_turn_of_each() {
        let memory = AttemptMemory::new();
        let passed = Instant::now();
        tokio::time::advance(std::time::Duration::from_secs(60)).await;
        let (turns, mut taken) = tokio::sync::mpsc::unbounded_channel::<(bool, Reservation)>();
        let wait = |namespace: String, is_honest: bool, deadline: Instant| {
            let (memory, turns, namespace) = (Arc::clone(&memory), turns.clone(), namespace.into());
            tokio::spawn(async move {
                drop(turns.send((is_honest, memory.reserve(&namespace, LARGE, deadline).await)));
            })
        };
        let mut tasks: Vec<_> =
            (0..2000).map(|n| wait(format!("colluding-{}", n % 40), false, passed)).collect();
        tokio::task::yield_now().await;
        tasks.push(wait("honest".into(), true, Instant::now()));
        // Each request ends, the longest first, and the next begins.
        let (mut others, limit) = (0, std::time::Duration::from_secs(600));
        while let Some((is_honest, reservation)) =
            tokio::time::timeout(limit, taken.recv()).await.expect("none is stuck")
        {
            drop(reservation);
            if is_honest {
                break;
            }
            others += 1;
        }
        assert!(others <= 100, "{others}");
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }

    #[test]
    fn attempt_memory_of_more_namespaces_than_are_remembered_comes_to_one_that_had_a_turn_before() {
        let (memory, honest) = (AttemptMemory::new(), "honest".into());
        drop(reserve(&memory, &honest, LARGE).now_or_never().expect("its turn before"));
        // The last turn of each is forgotten when it asks again.
        let names: Vec<Arc<str>> = (0..400).map(|n| format!("colluding-{n}").into()).collect();
        let mut requests = names.iter().cycle().map(|name| Box::pin(reserve(&memory, name, LARGE)));
        let (mut held, mut waiting) = (VecDeque::new(), vec![]);
        while waiting.is_empty() {
            waiting.extend(requests.next());
            waiting.retain_mut(|request| still_waits(request, &mut held));
        }

        let mut honest = Box::pin(reserve(&memory, &honest, LARGE));
        let mut ended = 0;
        while honest.as_mut().now_or_never().is_none() {
            assert!(ended < 1000, "{ended} requests of others went before it");
            waiting.extend(requests.next());
            held.pop_front();
            ended += 1;
            waiting.retain_mut(|request| still_waits(request, &mut held));
        }
    }

    /// Moves what the request has reserved to `held`; false if it has.
    fn still_waits(
        request: &mut Pin<Box<impl Future<Output = Reservation>>>,
        held: &mut VecDeque<Reservation>,
    ) -> bool {
        let reserved = request.as_mut().now_or_never();
        let waits = reserved.is_none();
        held.extend(reserved);
        waits
    }

    #[tokio::test]
    async fn attempt_memory_of_a_bundle_counts_once_until_the_last_request_with_it_ends() {
        let memory = AttemptMemory::new();
        let bundle = ([7; 32], 500 << 10);
        let namespace = "ns".into();
        let mut all = vec![];
        for _ in 0..100 {
            let mut reservation = reserve(&memory, &namespace, LARGE).now_or_never().expect("they share it");
            reservation.keep(1000, Some(bundle));
            all.push(reservation);
        }
        let held = || memory.lock().namespaces["ns"].held;
        assert_eq!(held(), (500 << 10) + 100 * 1000);
        all.truncate(1);
        assert_eq!(held(), (500 << 10) + 1000);
        let mut other = reserve(&memory, &"other".into(), LARGE).now_or_never().unwrap();
        other.keep(1000, Some(bundle));
        assert_eq!(memory.lock().namespaces["other"].held, (500 << 10) + 1000, "it pays for itself");
        drop((all, other));
        assert_eq!(memory.lock().free, MAX_BYTES);
    }

    #[tokio::test]
    async fn attempt_memory_remembers_no_more_than_the_last_turns() {
        let memory = AttemptMemory::new();
        for n in 0..2000 {
            drop(reserve(&memory, &format!("ns-{n}").into(), 1).await);
        }
        assert!(memory.lock().namespaces.len() <= 257, "{}", memory.lock().namespaces.len());
    }
}
