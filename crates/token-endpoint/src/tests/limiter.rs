//! Simulations in paused time: tokio's clock jumps to the next timer as soon as no task can run.

use super::{answer, answer_with, credentials, description};
use crate::ErrorKind;
use crate::{
    Admission, Class, ClientIdentity, Credentials, EndpointPermit, Error, Grant, KnownRejection, Limiter,
    Limits, RequestDescription, Tls,
};
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use url::Url;

type Permit = EndpointPermit<usize>;
type Waiting = (ClientIdentity, bool, oneshot::Sender<Result<Permit, KnownRejection>>);

/// A limiter with one task that takes entries as they may begin, and gives each the permit that it waits for.
#[derive(Clone)]
struct Gate {
    limiter: Limiter<usize>,
    waiting: Arc<Mutex<HashMap<usize, Waiting>>>,
    keys: Arc<AtomicUsize>,
}

impl Gate {
    fn new(limits: Limits) -> Self {
        let gate = Gate { limiter: Limiter::new(limits), waiting: Arc::default(), keys: Arc::default() };
        let served = gate.clone();
        tokio::spawn(async move {
            loop {
                let (key, permit) = served.limiter.next().await;
                let Some((client, exclusive, reply)) = served.waiting.lock().unwrap().remove(&key) else {
                    continue;
                };
                let answer = match permit.admit(client, exclusive) {
                    Admission::Granted(permit) => Ok(permit),
                    Admission::Rejected(rejection) => Err(rejection),
                    Admission::Parked => {
                        served.waiting.lock().unwrap().insert(key, (client, exclusive, reply));
                        continue;
                    }
                };
                drop(reply.send(answer));
            }
        });
        gate
    }

    async fn enter(
        &self,
        url: &Url,
        client: ClientIdentity,
        deadline: Instant,
    ) -> Result<Permit, KnownRejection> {
        self.enter_as(url, client, deadline, false).await
    }

    async fn enter_as(
        &self,
        url: &Url,
        client: ClientIdentity,
        deadline: Instant,
        exclusive: bool,
    ) -> Result<Permit, KnownRejection> {
        let (reply, answer) = oneshot::channel();
        let key = self.keys.fetch_add(1, Ordering::Relaxed);
        self.waiting.lock().unwrap().insert(key, (client, exclusive, reply));
        self.limiter.enqueue(key, url, deadline);
        let _leaves = Leaves(&self.limiter, key);
        answer.await.unwrap()
    }

    fn hasten(&self, _: &Url, client: ClientIdentity) {
        self.limiter.expedite(client);
    }

    fn remembered(&self) -> usize {
        self.limiter.remembered()
    }
}

impl Default for Gate {
    fn default() -> Self {
        Gate::new(Limits::default())
    }
}

/// A task that stops waiting takes its entry out.
struct Leaves<'a>(&'a Limiter<usize>, usize);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.remove(&self.1);
    }
}

const LATENCY: Duration = Duration::from_millis(200);

fn url() -> Url {
    "https://idp.example.com/oauth/token".parse().unwrap()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Entries wait for the rate, for some milliseconds, before they are answered.
fn rounded(wait: Duration) -> Duration {
    Duration::from_secs_f64(wait.as_secs_f64().round())
}

fn party(gate: &Gate, client: usize) -> ClientIdentity {
    let credentials = Credentials { client_id: Some(format!("client-{client}")), ..credentials() };
    gate.limiter.client(&description(), &credentials, &Tls::default())
}

fn transient() -> Error {
    answer(503, "").unwrap_err()
}

fn rejected() -> Error {
    answer(401, r#"{"error":"invalid_client"}"#).unwrap_err()
}

fn limits(per_second: u32) -> Gate {
    Gate::new(Limits { per_second, ..Limits::default() })
}

/// An issuer that allows so many requests in every second and tells the others to come back.
struct Issuer {
    allowed: usize,
    seen: Mutex<BTreeMap<u64, usize>>,
    refused: AtomicUsize,
    started: Instant,
}

impl Issuer {
    fn new(allowed: usize) -> Arc<Self> {
        Arc::new(Self {
            allowed,
            seen: Mutex::default(),
            refused: AtomicUsize::new(0),
            started: Instant::now(),
        })
    }

    async fn ask(&self) -> Result<(), Error> {
        let second = self.started.elapsed().as_secs();
        let seen = {
            let mut all = self.seen.lock().unwrap();
            let seen = all.entry(second).or_default();
            *seen += 1;
            *seen
        };
        sleep(LATENCY).await;
        if seen <= self.allowed {
            return Ok(());
        }
        self.refused.fetch_add(1, Ordering::Relaxed);
        Err(answer_with(429, &[("retry-after", "1")], "").unwrap_err())
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_sources_lose_no_token_that_can_be_saved() {
    const SOURCES: u64 = 1000;
    let (gate, issuer) = (limits(20), Issuer::new(20));
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for source in 0..SOURCES {
        // Each must be among the first so many, and they come in no order. First come, first served loses half.
        let place = source.wrapping_mul(7919) % SOURCES;
        let expires = started + Duration::from_millis(place * 50) + LATENCY + Duration::from_millis(100);
        let (gate, issuer) = (gate.clone(), Arc::clone(&issuer));
        let party = party(&gate, usize::try_from(source).unwrap());
        tasks.spawn(async move {
            sleep(Duration::from_millis(1)).await; // all are there before the first goes
            let place = gate.enter(&url(), party, expires).await.unwrap();
            let outcome = issuer.ask().await;
            place.finish(&outcome);
            outcome.is_ok() && Instant::now() <= expires + Duration::from_millis(1)
        });
    }
    let saved = tasks.join_all().await.into_iter().filter(|saved| *saved).count();
    assert_eq!((saved, issuer.refused.load(Ordering::Relaxed)), (1000, 0));
    assert!(started.elapsed() < seconds(51), "{:?}", started.elapsed());
}

/// The operator does not know the issuer's limit: it learns it, and nothing is lost of 300 s tokens that all are due at
/// once, with the waits that a 429 means.
#[tokio::test(start_paused = true)]
async fn an_unknown_limit_is_learnt() {
    let (gate, issuer) = (Gate::default(), Issuer::new(20));
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for source in 0..1000 {
        let (gate, issuer) = (gate.clone(), Arc::clone(&issuer));
        let party = party(&gate, source);
        tasks.spawn(async move {
            let expires = Instant::now() + seconds(150);
            loop {
                let place = gate.enter(&url(), party, expires - seconds(90)).await.unwrap();
                let outcome = issuer.ask().await;
                place.finish(&outcome);
                if outcome.is_ok() {
                    return Instant::now() < expires;
                }
                sleep(seconds(30) + Duration::from_millis(source as u64 * 7)).await;
            }
        });
    }
    assert!(tasks.join_all().await.into_iter().all(|saved| saved));
    let refused = issuer.refused.load(Ordering::Relaxed);
    assert!(refused < 300, "{refused} refused in {:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_limits() {
    let gate = Gate::new(Limits { in_flight: 3, per_second: 10 });
    let (under_way, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for source in 0..30 {
        let (gate, under_way, most) = (gate.clone(), Arc::clone(&under_way), Arc::clone(&most));
        tasks.spawn(async move {
            let place = gate.enter(&url(), party(&gate, source), Instant::now()).await.unwrap();
            most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            sleep(seconds(1)).await;
            under_way.fetch_sub(1, Ordering::SeqCst);
            drop(place);
        });
    }
    // A request to another origin does not wait.
    let elsewhere = "https://idp.example.com:8443/token".parse().unwrap();
    let place = gate.enter(&elsewhere, party(&gate, 99), Instant::now() + seconds(900)).await.unwrap();
    assert_eq!(place.waited(), Duration::ZERO);
    tasks.join_all().await;
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert!((10..=12).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());

    let started = Instant::now();
    for source in 0..21 {
        gate.enter(&url(), party(&gate, source), Instant::now()).await.unwrap().finish(&Ok(()));
    }
    assert!(started.elapsed() >= seconds(2) && started.elapsed() < seconds(3), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn who_stops_waiting_leaves_the_queue() {
    let gate = Gate::new(Limits { in_flight: 1, per_second: 1000 });
    let first = gate.enter(&url(), party(&gate, 0), Instant::now()).await.unwrap();
    assert!(timeout(seconds(1), gate.enter(&url(), party(&gate, 1), Instant::now())).await.is_err());
    // A task that ends while its place is on the way to it gives the place back.
    let waiting = {
        let gate = gate.clone();
        tokio::spawn(async move { gate.enter(&url(), party(&gate, 2), Instant::now()).await.map(drop) })
    };
    sleep(seconds(1)).await;
    drop(first);
    waiting.abort();
    let third = timeout(seconds(1), gate.enter(&url(), party(&gate, 3), Instant::now())).await.unwrap();
    assert!(third.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_thousand_sources_with_one_wrong_secret_are_one_failed_login_per_wait() {
    let gate = Gate::default();
    let logins = Arc::new(Mutex::new(Vec::new()));
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..1000 {
        let (gate, logins) = (gate.clone(), Arc::clone(&logins));
        tasks.spawn(async move {
            let party = party(&gate, 7);
            while started.elapsed() < seconds(3600) {
                match gate.enter(&url(), party, Instant::now() + seconds(30)).await {
                    Ok(place) => {
                        logins.lock().unwrap().push(started.elapsed().as_secs());
                        sleep(LATENCY).await;
                        place.finish(&Err::<(), _>(rejected()));
                        sleep(seconds(30)).await;
                    }
                    Err(held) => {
                        assert_eq!(held.error.kind(), ErrorKind::ClientRejected);
                        assert!(held.to_string().contains("are tried again in"), "{held}");
                        sleep(held.retry_in).await;
                    }
                }
            }
        });
    }
    // A client with another secret does not wait.
    for client in 0..7 {
        let place = gate.enter(&url(), party(&gate, client), Instant::now()).await.unwrap();
        place.finish(&Ok(()));
    }
    tasks.join_all().await;
    assert_eq!(*logins.lock().unwrap(), [0, 30, 150, 750, 2550]);
}

#[tokio::test(start_paused = true)]
async fn what_was_under_way_together_is_one_rejection_and_a_lock_out_waits_long() {
    let gate = Gate::default();
    let who = party(&gate, 1);
    gate.enter(&url(), who, Instant::now()).await.unwrap().finish(&Ok(()));
    let mut places = Vec::new();
    for _ in 0..5 {
        places.push(gate.enter(&url(), who, Instant::now()).await.unwrap());
    }
    for place in places {
        place.finish(&Err::<(), _>(rejected()));
    }
    let held = gate.enter(&url(), who, Instant::now()).await.unwrap_err();
    assert_eq!(rounded(held.retry_in), seconds(30));

    let locked = answer(401, r#"{"errors":[{"code":"TOO_MANY_FAILED_LOGINS"}]}"#).unwrap_err();
    let who = party(&gate, 2);
    gate.enter(&url(), who, Instant::now()).await.unwrap().finish(&Err::<(), _>(locked));
    let held = gate.enter(&url(), who, Instant::now()).await.unwrap_err();
    assert_eq!((rounded(held.retry_in), held.error.class()), (seconds(1800), Class::LockedOut));
}

#[tokio::test(start_paused = true)]
async fn people_who_ask_shorten_the_wait_to_half_a_minute_and_do_not_hammer() {
    let gate = Gate::default();
    let who = party(&gate, 1);
    let reject = async |error: Error| {
        gate.enter(&url(), who, Instant::now()).await.unwrap().finish(&Err::<(), _>(error));
    };
    let held = async || rounded(gate.enter(&url(), who, Instant::now()).await.unwrap_err().retry_in);
    gate.hasten(&url(), who); // nothing is known
    reject(rejected()).await;
    sleep(seconds(30)).await;
    reject(rejected()).await;
    assert_eq!(held().await, seconds(120));
    gate.hasten(&url(), who);
    assert_eq!(held().await, seconds(30));
    sleep(seconds(10)).await;
    gate.hasten(&url(), who);
    assert_eq!(held().await, seconds(20), "whoever asks again wins nothing");
    sleep(seconds(20)).await;
    reject(rejected()).await;
    assert_eq!(held().await, seconds(600), "the count goes on");

    let locked = answer(401, r#"{"errors":[{"code":"TOO_MANY_FAILED_LOGINS"}]}"#).unwrap_err();
    for (client, error, wait) in [
        (2, locked, 1800),
        (3, answer_with(401, &[("retry-after", "900")], r#"{"error":"invalid_client"}"#).unwrap_err(), 900),
    ] {
        let who = party(&gate, client);
        gate.enter(&url(), who, Instant::now()).await.unwrap().finish(&Err::<(), _>(error));
        gate.hasten(&url(), who);
        let held = gate.enter(&url(), who, Instant::now()).await.unwrap_err();
        assert_eq!(rounded(held.retry_in), seconds(wait), "the server itself asks for patience");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_scope_holds_back_no_other_request() {
    let gate = Gate::default();
    let who = party(&gate, 1);
    for body in [r#"{"error":"invalid_scope"}"#, r#"{"error":"invalid_request"}"#, "{}"] {
        let error = answer(400, body).unwrap_err();
        gate.enter(&url(), who, Instant::now()).await.unwrap().finish(&Err::<(), _>(error));
    }
    assert!(gate.enter(&url(), who, Instant::now()).await.is_ok());
}

async fn fail(gate: &Gate, client: usize) {
    let place = gate.enter(&url(), party(gate, client), Instant::now()).await.unwrap();
    place.finish(&Err::<(), _>(transient()));
}

#[tokio::test(start_paused = true)]
async fn one_clients_failures_hold_back_no_other_client() {
    let gate = Gate::default();
    let limited = || answer_with(429, &[("retry-after", "3600")], "").unwrap_err();
    for _ in 0..50 {
        fail(&gate, 1).await;
        let place = gate.enter(&url(), party(&gate, 2), Instant::now()).await.unwrap();
        place.finish(&Err::<(), _>(rejected()));
        sleep(seconds(2000)).await;
    }
    for _ in 0..8 {
        let place = gate.enter(&url(), party(&gate, 3), Instant::now()).await.unwrap();
        place.finish(&Err::<(), _>(limited()));
        sleep(seconds(1)).await;
    }
    // The client that hangs has a place; the others go at full speed.
    let _hangs = gate.enter(&url(), party(&gate, 1), Instant::now()).await.unwrap();
    let started = Instant::now();
    for client in 10..110 {
        let place = gate.enter(&url(), party(&gate, client), Instant::now()).await.unwrap();
        place.finish(&Ok(()));
    }
    assert!(started.elapsed() < Duration::from_millis(1100), "{:?}", started.elapsed());
    // Its own pace is slower.
    let started = Instant::now();
    for _ in 0..20 {
        gate.enter(&url(), party(&gate, 3), Instant::now()).await.unwrap().finish(&Err::<(), _>(limited()));
    }
    assert!(started.elapsed() > seconds(1), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_new_credential_is_tried_by_one_for_all() {
    let gate = Gate::default();
    let who = party(&gate, 1);
    let first = gate.enter(&url(), who, Instant::now()).await.unwrap();
    let next = timeout(seconds(60), gate.enter(&url(), who, Instant::now())).await;
    assert!(next.is_err(), "it waits for the first");
    first.finish(&Ok(()));
    let all = [
        gate.enter(&url(), who, Instant::now()).await.is_ok(),
        gate.enter(&url(), who, Instant::now()).await.is_ok(),
    ];
    assert_eq!(all, [true, true]);
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded() {
    let gate = Gate::new(Limits { in_flight: 64, per_second: 1_000_000 });
    for client in 0..20_000 {
        let url = format!("https://idp-{client}.example.com/token").parse().unwrap();
        gate.enter(&url, party(&gate, client), Instant::now()).await.unwrap().finish(&Ok(()));
    }
    assert!(gate.remembered() < 3 * 4096 + 3, "{}", gate.remembered());
}

#[tokio::test(start_paused = true)]
async fn circuit_open_asks_one_request_at_a_time_until_one_succeeds() {
    let gate = Gate::default();
    for client in [1, 2, 1, 2, 1] {
        fail(&gate, client).await;
    }
    let circuit = gate.limiter.circuit(&url()).unwrap();
    assert_eq!((circuit.failures, circuit.error.kind()), (5, ErrorKind::Unavailable));
    assert!(circuit.to_string().contains("HTTP 503"), "{circuit}");
    let started = Instant::now();
    let probe = gate.enter(&url(), party(&gate, 3), Instant::now()).await.unwrap();
    assert!(started.elapsed() <= seconds(1), "{:?}", started.elapsed());
    let waiting: Vec<_> = (4..1004)
        .map(|client| {
            let gate = gate.clone();
            tokio::spawn(async move { gate.enter(&url(), party(&gate, client), Instant::now()).await })
        })
        .collect();
    sleep(seconds(60)).await;
    assert!(waiting.iter().all(|task| !task.is_finished()), "they wait, and do not fail one by one");
    // Another endpoint of the same origin is not concerned.
    let other = "https://idp.example.com/other".parse().unwrap();
    drop(gate.enter(&other, party(&gate, 4), Instant::now()).await.unwrap());

    probe.finish(&Err::<(), _>(transient()));
    sleep(seconds(6)).await;
    let ended = waiting.iter().enumerate().filter(|(_, task)| task.is_finished());
    let probes: Vec<_> = ended.map(|(at, _)| at).collect();
    assert_eq!(probes.len(), 1, "the next of them probes, after a pause");
    let mut waiting = waiting;
    waiting.remove(probes[0]).await.unwrap().unwrap().finish(&Ok(()));
    let started = Instant::now();
    for task in waiting {
        task.await.unwrap().unwrap().finish(&Ok(()));
    }
    assert!((9..=11).contains(&started.elapsed().as_secs()), "100 a second again: {:?}", started.elapsed());
    assert!(gate.limiter.circuit(&url()).is_none());
}

#[tokio::test(start_paused = true)]
async fn circuit_open_probes_at_most_every_five_seconds_and_soon_after_it_opened() {
    let gate = Gate::default();
    for client in [1, 2, 1, 2, 1] {
        fail(&gate, client).await;
    }
    let mut waits = vec![];
    for client in 0..8 {
        let asked = Instant::now();
        let probe = gate.enter(&url(), party(&gate, client), Instant::now()).await.unwrap();
        waits.push(asked.elapsed().as_millis());
        probe.finish(&Err::<(), _>(transient()));
    }
    assert_eq!(waits, [250, 500, 1000, 2000, 4000, 5000, 5000, 5000]);
}

#[tokio::test(start_paused = true)]
async fn rejection_ends_with_another_secret_another_endpoint_or_a_success() {
    let gate = Gate::default();
    let wrong = party(&gate, 1);
    gate.enter(&url(), wrong, Instant::now()).await.unwrap().finish(&Err::<(), _>(rejected()));
    assert!(gate.enter(&url(), wrong, Instant::now()).await.is_err());
    let of = |description: &RequestDescription, secret: Option<&str>| {
        let id = Credentials { client_id: Some("client-1".into()), ..credentials() };
        let client_secret = secret.map(Into::into).or(id.client_secret.clone());
        gate.limiter.client(description, &Credentials { client_secret, ..id }, &Tls::default())
    };
    let changed = of(&description(), Some("changed"));
    assert_ne!(changed, wrong);
    gate.enter(&url(), changed, Instant::now()).await.unwrap().finish(&Ok(()));
    let other: Url = "https://idp.example.com/other".parse().unwrap();
    let elsewhere = of(&RequestDescription { token_url: other.clone(), ..description() }, None);
    gate.enter(&other, elsewhere, Instant::now()).await.unwrap().finish(&Ok(()));
    let scopes = RequestDescription { scopes: vec!["x".into()], ..description() };
    assert_eq!(of(&scopes, None), wrong, "other scopes are the same client");
    let grant = RequestDescription { grant: Grant::RefreshToken, ..description() };
    assert_ne!(of(&grant, None), wrong);

    sleep(seconds(31)).await;
    gate.enter(&url(), wrong, Instant::now()).await.unwrap().finish(&Ok(()));
    gate.enter(&url(), wrong, Instant::now()).await.unwrap().finish(&Err::<(), _>(rejected()));
    let held = gate.enter(&url(), wrong, Instant::now()).await.unwrap_err();
    assert_eq!(rounded(held.retry_in), seconds(30), "a success starts the count anew");
}

#[tokio::test(start_paused = true)]
async fn requests_that_spend_their_credential_go_one_at_a_time() {
    let gate = Gate::default();
    let client = party(&gate, 1);
    gate.enter_as(&url(), client, Instant::now(), true).await.unwrap().finish(&Ok(()));
    let first = gate.enter_as(&url(), client, Instant::now(), true).await.unwrap();
    let second = timeout(seconds(60), gate.enter_as(&url(), client, Instant::now(), true)).await;
    assert!(second.is_err(), "though the client is known to work");
    first.finish(&Ok(()));
    assert!(gate.enter_as(&url(), client, Instant::now(), true).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn entries_move_to_an_earlier_deadline_and_to_another_endpoint_and_can_be_removed() {
    let limiter = Limiter::new(Limits { in_flight: 64, per_second: 1000 });
    let (now, other) = (Instant::now(), "https://idp.example.com/other".parse().unwrap());
    for (key, at) in [("a", 30), ("b", 20), ("c", 10)] {
        limiter.enqueue(key, &url(), now + seconds(at));
    }
    limiter.enqueue("a", &url(), now + seconds(5));
    limiter.enqueue("a", &url(), now + seconds(99));
    limiter.enqueue("b", &other, now + seconds(99));
    limiter.enqueue("d", &other, now + seconds(1));
    assert!(limiter.remove(&"d") && !limiter.remove(&"d"));
    let mut order = vec![];
    while !limiter.is_empty() {
        order.push(limiter.next().await.0);
    }
    assert_eq!(order, ["a", "c", "b"]);
    assert!(timeout(seconds(60), limiter.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn permits_that_send_nothing_give_their_place_in_the_rate_back() {
    let gate = Gate::new(Limits { in_flight: 64, per_second: 1 });
    let wrong = party(&gate, 1);
    gate.enter(&url(), wrong, Instant::now()).await.unwrap().finish(&Err::<(), _>(rejected()));
    sleep(seconds(1)).await;
    let started = Instant::now();
    for _ in 0..100 {
        assert!(gate.enter(&url(), wrong, Instant::now()).await.is_err());
    }
    gate.enter(&url(), party(&gate, 2), Instant::now()).await.unwrap().finish(&Ok(()));
    assert!(started.elapsed() < seconds(2), "{:?}", started.elapsed());
}

/// Ten thousand entries whose client is being tried are looked at once when they are parked, and once when it is known.
#[tokio::test(start_paused = true)]
async fn ten_thousand_entries_behind_one_hanging_trial_cost_other_clients_nothing() {
    let gate = Gate::new(Limits { in_flight: 64, per_second: 1_000_000 });
    let client = party(&gate, 1);
    let trial = gate.enter(&url(), client, Instant::now()).await.unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..10_000 {
        let gate = gate.clone();
        tasks.spawn(async move { gate.enter(&url(), client, Instant::now()).await.is_err() });
    }
    sleep(seconds(1)).await;
    let started = std::time::Instant::now();
    for client in 10..1010 {
        gate.enter(&url(), party(&gate, client), Instant::now()).await.unwrap().finish(&Ok(()));
    }
    assert!(started.elapsed() < seconds(5), "{:?}", started.elapsed());
    trial.finish(&Err::<(), _>(rejected()));
    assert!(tasks.join_all().await.into_iter().all(|rejected| rejected));
}

/// Endpoints are the tenants' choice, and those that say nothing are forgotten: not those of a request that is being prepared.
#[tokio::test(start_paused = true)]
async fn entry_that_parks_after_its_endpoint_was_forgotten_begins_when_its_client_is_free() {
    let gate = Gate::default();
    let (limiter, now) = (&gate.limiter, Instant::now());
    let limiter = Limiter::clone(limiter);
    let own = Limiter::<usize>::default();
    let client = limiter.client(&description(), &credentials(), &Tls::default());
    let mut permits = vec![];
    for key in [1, 2] {
        own.enqueue(key, &url(), now);
        permits.push(own.next().await.1);
    }
    let second = permits.pop().unwrap();
    let Admission::Granted(first) = permits.pop().unwrap().admit(client, false) else { panic!() };
    for other in 0..10_000 {
        own.enqueue(3, &format!("https://{other}.example.com/").parse().unwrap(), now);
    }
    own.remove(&3);
    assert!(matches!(second.admit(client, false), Admission::Parked));
    first.finish(&Ok::<_, Error>(()));
    let next = timeout(seconds(5), own.next()).await;
    assert_eq!(next.map(|(key, _)| key).ok(), Some(2));
}

/// Between its endpoint's permit and its client's, a request reads its credentials. Returns how long all requests of one client
/// took, and how many entries have begun for them.
async fn requests_of_one_client(count: usize, answer: fn(usize) -> Result<(), Error>) -> (Duration, usize) {
    let limiter = Limiter::<usize>::default();
    let client = limiter.client(&description(), &credentials(), &Tls::default());
    let started = Instant::now();
    for key in 0..count {
        limiter.enqueue(key, &url(), started + seconds(30));
    }
    let mut tasks = JoinSet::new();
    let (mut begun, sent) = (0, Arc::new(AtomicUsize::new(0)));
    while sent.load(Ordering::Relaxed) < count {
        let Ok((_, permit)) = timeout(seconds(1), limiter.next()).await else { continue };
        begun += 1;
        let sent = Arc::clone(&sent);
        tasks.spawn(async move {
            let Admission::Granted(permit) = permit.screen(client, false) else { return };
            sleep(Duration::from_millis(15)).await;
            let Admission::Granted(permit) = permit.admit(client, false) else { return };
            sleep(LATENCY).await;
            permit.finish(&answer(sent.fetch_add(1, Ordering::Relaxed)));
        });
    }
    (started.elapsed(), begun)
}

#[tokio::test(start_paused = true)]
async fn one_client_reaches_the_rate_of_its_origin() {
    let (took, begun) = requests_of_one_client(500, |_| Ok(())).await;
    assert!(took < seconds(7) && begun < 1100, "{took:?} {begun}");
}

#[tokio::test(start_paused = true)]
async fn entries_of_a_client_that_was_limited_or_fails_seldom_begin_in_vain() {
    let limited = |nth| if nth % 100 == 50 { super::answer(429, "").map(|_| ()) } else { Ok(()) };
    let (took, begun) = requests_of_one_client(500, limited).await;
    assert!(took < seconds(30) && begun < 3000, "{took:?} {begun}");
    let (took, begun) = requests_of_one_client(100, |_| Err(transient())).await;
    assert!(took < seconds(30) && begun < 2000, "{took:?} {begun}");
}
