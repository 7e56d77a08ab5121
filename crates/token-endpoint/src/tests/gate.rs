//! Simulations in paused time: tokio's clock jumps to the next timer as soon as nobody has anything to do.

use super::{answer, answer_with, credentials, description};
use crate::ErrorKind;
use crate::{Class, Credentials, Error, Gate, Grant, Held, Limits, Party, RequestDescription, Tls};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use url::Url;

const LATENCY: Duration = Duration::from_millis(200);

fn url() -> Url {
    "https://idp.example.com/oauth/token".parse().unwrap()
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn party(gate: &Gate, client: usize) -> Party {
    let credentials = Credentials { client_id: Some(format!("client-{client}")), ..credentials() };
    gate.party(&description(), &credentials, &Tls::default())
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
    // Another origin waits for nobody.
    let elsewhere = "https://idp.example.com:8443/token".parse().unwrap();
    let place = gate.enter(&elsewhere, party(&gate, 0), Instant::now() + seconds(900)).await.unwrap();
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
                        assert_eq!((held.class(), held.kind()), (Class::Rejected, ErrorKind::ClientRejected));
                        assert!(held.to_string().contains("not tried again by anybody for"), "{held}");
                        sleep(held.retry_in().unwrap()).await;
                    }
                }
            }
        });
    }
    // Whoever has another secret is not concerned.
    for client in 0..7 {
        let place = gate.enter(&url(), party(&gate, client), Instant::now()).await.unwrap();
        place.finish(&Ok(()));
    }
    tasks.join_all().await;
    assert_eq!(*logins.lock().unwrap(), [0, 30, 150, 750, 2550]);
}

#[tokio::test(start_paused = true)]
async fn a_rejection_ends_with_the_secret_or_with_a_success() {
    let gate = Gate::default();
    let wrong = party(&gate, 1);
    gate.enter(&url(), wrong, Instant::now()).await.unwrap().finish(&Err::<(), _>(rejected()));
    assert!(gate.enter(&url(), wrong, Instant::now()).await.is_err());
    // Another secret, another endpoint: another matter. Other scopes are not.
    let changed = Credentials {
        client_id: Some("client-1".into()),
        client_secret: Some("changed".into()),
        ..credentials()
    };
    let changed = gate.party(&description(), &changed, &Tls::default());
    assert_ne!(changed, wrong);
    gate.enter(&url(), changed, Instant::now()).await.unwrap().finish(&Ok(()));
    let other = "https://idp.example.com/other".parse().unwrap();
    gate.enter(&other, wrong, Instant::now()).await.unwrap().finish(&Ok(()));
    let scopes = RequestDescription { scopes: vec!["x".into()], ..description() };
    let same = Credentials { client_id: Some("client-1".into()), ..credentials() };
    assert_eq!(gate.party(&scopes, &same, &Tls::default()), wrong);
    let grant = RequestDescription { grant: Grant::RefreshToken, ..description() };
    assert_ne!(gate.party(&grant, &same, &Tls::default()), wrong);

    sleep(seconds(31)).await;
    gate.enter(&url(), wrong, Instant::now()).await.unwrap().finish(&Ok(()));
    gate.enter(&url(), wrong, Instant::now()).await.unwrap().finish(&Err::<(), _>(rejected()));
    let held = gate.enter(&url(), wrong, Instant::now()).await.unwrap_err();
    assert_eq!(held.retry_in(), Some(seconds(30)), "a success starts the count anew");
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
    assert_eq!(held.retry_in(), Some(seconds(30)));

    let locked = answer(401, r#"{"errors":[{"code":"TOO_MANY_FAILED_LOGINS"}]}"#).unwrap_err();
    let who = party(&gate, 2);
    gate.enter(&url(), who, Instant::now()).await.unwrap().finish(&Err::<(), _>(locked));
    let held = gate.enter(&url(), who, Instant::now()).await.unwrap_err();
    assert_eq!((held.retry_in(), held.class()), (Some(seconds(1800)), Class::LockedOut));
}

#[tokio::test(start_paused = true)]
async fn people_who_ask_shorten_the_wait_to_half_a_minute_and_do_not_hammer() {
    let gate = Gate::default();
    let who = party(&gate, 1);
    let reject = async |error: Error| {
        gate.enter(&url(), who, Instant::now()).await.unwrap().finish(&Err::<(), _>(error));
    };
    let held = async || gate.enter(&url(), who, Instant::now()).await.unwrap_err().retry_in().unwrap();
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
        assert_eq!(held.retry_in(), Some(seconds(wait)), "the server itself asks for patience");
    }
}

#[tokio::test(start_paused = true)]
async fn a_scope_that_is_refused_is_nobody_elses_business() {
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
async fn an_endpoint_that_fails_for_everybody_gets_one_probe_at_a_time() {
    let gate = Gate::default();
    for client in [1, 2, 1, 2, 1] {
        fail(&gate, client).await;
    }
    let probe = gate.enter(&url(), party(&gate, 3), Instant::now()).await.unwrap();
    let held = gate.enter(&url(), party(&gate, 4), Instant::now()).await.unwrap_err();
    assert!(matches!(held, Held::Unavailable { failures: 5, .. }), "{held:?}");
    assert_eq!((held.class(), held.kind()), (Class::Transient, ErrorKind::Unavailable));
    assert_eq!(held.retry_in(), None);
    let message = held.to_string();
    assert!(message.contains("HTTP 503") && message.contains("failed 5 times in a row"), "{message}");
    // Another endpoint of the same origin is not concerned.
    let other = "https://idp.example.com/other".parse().unwrap();
    drop(gate.enter(&other, party(&gate, 4), Instant::now()).await.unwrap());

    probe.finish(&Err::<(), _>(transient()));
    let probe = gate.enter(&url(), party(&gate, 4), Instant::now()).await.unwrap();
    drop(probe); // given up: the next one probes
    let probe = gate.enter(&url(), party(&gate, 5), Instant::now()).await.unwrap();
    probe.finish(&Ok(()));
    let (one, two) = (party(&gate, 6), party(&gate, 7));
    let _together = (
        gate.enter(&url(), one, Instant::now()).await.unwrap(),
        gate.enter(&url(), two, Instant::now()).await.unwrap(),
    );
}

#[tokio::test(start_paused = true)]
async fn those_in_the_queue_need_not_wait_for_a_broken_endpoint() {
    let gate = Gate::new(Limits { in_flight: 5, per_second: 1000 });
    let mut places = Vec::new();
    for client in 0..5 {
        places.push(gate.enter(&url(), party(&gate, client), Instant::now()).await.unwrap());
    }
    let mut waiting = JoinSet::new();
    for client in 10..20 {
        let gate = gate.clone();
        waiting.spawn(async move {
            let place = gate.enter(&url(), party(&gate, client), Instant::now()).await;
            if place.is_ok() {
                sleep(seconds(30)).await; // the probe hangs
            }
            place.is_ok()
        });
    }
    sleep(seconds(1)).await;
    let started = Instant::now();
    for place in places {
        place.finish(&Err::<(), _>(transient()));
    }
    let mut probes = 0;
    for held in 0..10 {
        if waiting.join_next().await.unwrap().unwrap() {
            probes += 1;
        } else {
            assert!(started.elapsed() < seconds(1), "{held}");
        }
    }
    // Those whose places had become free before the fifth failure, and the probe.
    assert!(probes <= 5, "{probes}");
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
async fn a_crowd_is_of_those_who_go_before_and_could_go() {
    let gate = Gate::new(Limits { in_flight: 1, per_second: 1000 });
    let now = Instant::now();
    let _place = gate.enter(&url(), party(&gate, 0), now).await.unwrap();
    let wait = |client: usize| {
        let (gate, party) = (gate.clone(), party(&gate, client));
        tokio::spawn(async move { gate.enter(&url(), party, now + seconds(30)).await })
    };
    // All with the credential that is being tried for the first time: they are no crowd to others.
    let stuck: Vec<_> = (0..64).map(|_| wait(0)).collect();
    sleep(Duration::from_millis(1)).await;
    assert!(!gate.is_crowded(&url(), None, now + seconds(60)));
    assert!(!gate.is_crowded(&url(), Some(party(&gate, 1)), now + seconds(60)));
    assert!(gate.is_crowded(&url(), Some(party(&gate, 0)), now), "enough wait for the first to try");
    let crowd: Vec<_> = (1..65).map(wait).collect();
    sleep(Duration::from_millis(1)).await;
    assert!(gate.is_crowded(&url(), None, now + seconds(60)));
    assert!(!gate.is_crowded(&url(), None, now + seconds(30)), "its turn comes before theirs");
    let other = "https://idp.example.com/other".parse().unwrap();
    assert!(!gate.is_crowded(&other, None, now + seconds(60)), "another endpoint of the same host");
    stuck.iter().chain(&crowd).for_each(tokio::task::JoinHandle::abort);
}
