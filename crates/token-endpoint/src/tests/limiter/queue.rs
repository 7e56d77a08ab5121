use super::*;
use crate::Destination;

const EXCLUSIVE: Terms = Terms { exclusive: true, patience: None, is_last_attempt: false };

#[tokio::test(start_paused = true)]
async fn queue_memory_is_bounded() {
    let simulation = Simulation::new(Limits { in_flight: 64, per_second: 1_000_000 });
    for client in 0..20_000 {
        let url = format!("https://idp-{client}.example.com/token").parse().unwrap();
        simulation.enter(&url, simulation.client(client), Instant::now()).await.unwrap().finish(&Ok(()));
    }
    assert!(simulation.remembered() < 3 * 4096 + 3, "{}", simulation.remembered());
}

#[tokio::test(start_paused = true)]
async fn queue_requests_that_spend_their_credential_go_one_at_a_time() {
    let simulation = Simulation::default();
    let client = simulation.client(1);
    simulation.enter_with(&url(), client, Instant::now(), EXCLUSIVE).await.unwrap().finish(&Ok(()));
    let first = simulation.enter_with(&url(), client, Instant::now(), EXCLUSIVE).await.unwrap();
    let second = timeout(seconds(60), simulation.enter_with(&url(), client, Instant::now(), EXCLUSIVE)).await;
    assert!(second.is_err(), "though the client is known to work");
    first.finish(&Ok(()));
    assert!(simulation.enter_with(&url(), client, Instant::now(), EXCLUSIVE).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn queue_entries_move_to_an_earlier_deadline_and_to_another_endpoint_and_can_be_removed() {
    let limiter = Limiter::new(Limits { in_flight: 64, per_second: 1000 });
    let (now, other) = (Instant::now(), "https://idp.example.com/other".parse::<url::Url>().unwrap());
    for (key, at) in [("a", 30), ("b", 20), ("c", 10)] {
        limiter.enqueue(key, &TENANT.into(), &url(), now + seconds(at));
    }
    limiter.enqueue("a", &TENANT.into(), &url(), now + seconds(5));
    limiter.enqueue("a", &TENANT.into(), &url(), now + seconds(99));
    limiter.enqueue("b", &TENANT.into(), &other, now + seconds(99));
    limiter.enqueue("d", &TENANT.into(), &other, now + seconds(1));
    assert!(limiter.remove(&"d") && !limiter.remove(&"d"));
    let mut order = vec![];
    while !limiter.is_empty() {
        order.push(timeout(seconds(600), limiter.next()).await.expect("none is lost").0);
    }
    assert_eq!(order, ["a", "c", "b"]);
    assert!(timeout(seconds(60), limiter.next()).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn queue_permits_that_send_nothing_return_their_share_of_the_rate() {
    let simulation = Simulation::new(Limits { in_flight: 64, per_second: 1 });
    let wrong = simulation.client(1);
    simulation.send(wrong, Err(rejected())).await.unwrap();
    sleep(seconds(1)).await;
    let started = Instant::now();
    for _ in 0..100 {
        assert!(simulation.enter(&url(), wrong, Instant::now()).await.is_err());
    }
    simulation.send(simulation.client(2), Ok(())).await.unwrap();
    assert!(started.elapsed() < seconds(2), "{:?}", started.elapsed());
}

/// Ten thousand entries whose client is being tried are looked at once when they are parked, and once when it is known.
#[tokio::test(start_paused = true)]
async fn queue_ten_thousand_entries_behind_one_hanging_trial_delay_no_other_client() {
    let simulation = Simulation::new(Limits { in_flight: 64, per_second: 1_000_000 });
    let client = simulation.client(1);
    let trial = simulation.enter(&url(), client, Instant::now()).await.unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..10_000 {
        let simulation = simulation.clone();
        tasks.spawn(async move { simulation.enter(&url(), client, Instant::now()).await.is_err() });
    }
    sleep(seconds(1)).await;
    let started = std::time::Instant::now();
    for client in 10..1010 {
        simulation.send(simulation.client(client), Ok(())).await.unwrap();
    }
    assert!(started.elapsed() < seconds(30), "{:?}", started.elapsed());
    trial.finish(&Err::<(), _>(rejected()));
    let rejected = timeout(seconds(600), tasks.join_all()).await.expect("none is stuck");
    assert!(rejected.into_iter().all(|rejected| rejected));
}

/// Endpoints are the tenants' choice, and those that say nothing are forgotten: not those of a request that is being prepared.
#[tokio::test(start_paused = true)]
async fn queue_entry_that_parks_after_its_endpoint_was_forgotten_begins_when_its_client_is_free() {
    let simulation = Simulation::default();
    let (limiter, now) = (&simulation.limiter, Instant::now());
    let limiter = Limiter::clone(limiter);
    let own = Limiter::<usize>::default();
    let client = limiter.identity(TENANT, &description(), &credentials(), &Tls::default());
    let mut permits = vec![];
    for key in [1, 2] {
        own.enqueue(key, &TENANT.into(), &url(), now);
        permits.push(own.next().await.1);
    }
    let second = permits.pop().unwrap();
    let Admission::Granted(first) = permits.pop().unwrap().admit(client, Terms::default()) else { panic!() };
    for other in 0..10_000 {
        own.enqueue(
            3,
            &TENANT.into(),
            &format!("https://{other}.example.com/").parse::<url::Url>().unwrap(),
            now,
        );
    }
    own.remove(&3);
    assert!(matches!(second.admit(client, Terms::default()), Admission::Parked));
    first.finish(&Ok::<_, Error>(()));
    let next = timeout(seconds(5), own.next()).await;
    assert_eq!(next.map(|(key, _)| key).ok(), Some(2));
}

/// Between its endpoint's permit and its client's, a request reads its credentials. Returns how long all requests of one client
/// took, and how many entries have begun for them.
async fn requests_of_one_client(count: usize, answer: fn(usize) -> Result<(), Error>) -> (Duration, usize) {
    let limiter = Limiter::<usize>::default();
    let client = limiter.identity(TENANT, &description(), &credentials(), &Tls::default());
    let started = Instant::now();
    for key in 0..count {
        limiter.enqueue(key, &TENANT.into(), &url(), started + seconds(30));
    }
    let mut tasks = JoinSet::new();
    let (mut begun, sent) = (0, Arc::new(AtomicUsize::new(0)));
    while sent.load(Ordering::Relaxed) < count {
        assert!(
            started.elapsed() < seconds(600) && begun < 100_000,
            "{sent:?} of {count} sent, {begun} begun"
        );
        let Ok((_, permit)) = timeout(seconds(1), limiter.next()).await else { continue };
        begun += 1;
        let sent = Arc::clone(&sent);
        tasks.spawn(async move {
            let Admission::Granted(permit) = permit.screen(client, Terms::default()) else { return };
            sleep(Duration::from_millis(15)).await;
            let Admission::Granted(permit) = permit.admit(client, Terms::default()) else { return };
            sleep(LATENCY).await;
            permit.finish(&answer(sent.fetch_add(1, Ordering::Relaxed)));
        });
    }
    (started.elapsed(), begun)
}

#[tokio::test(start_paused = true)]
async fn queue_one_client_reaches_the_rate_of_its_origin() {
    let (took, begun) = requests_of_one_client(500, |_| Ok(())).await;
    assert!(took < seconds(7) && begun < 1100, "{took:?} {begun}");
}

#[tokio::test(start_paused = true)]
async fn queue_entries_of_a_client_that_is_limited_or_fails_seldom_begin_in_vain() {
    let limited = |nth| if nth % 100 == 50 { super::answer(429, "").map(|_| ()) } else { Ok(()) };
    let (took, begun) = requests_of_one_client(500, limited).await;
    assert!(took < seconds(30) && begun < 3000, "{took:?} {begun}");
    let (took, begun) = requests_of_one_client(100, |_| Err(transient())).await;
    assert!(took < seconds(30) && begun < 2000, "{took:?} {begun}");
}

/// Requests that are lent a client have limits, rate and circuit of their own, also at an endpoint that others ask.
#[tokio::test(start_paused = true)]
async fn queue_group_has_limits_of_its_own_at_an_endpoint_that_others_ask() {
    let limiter = Limiter::new(Limits { in_flight: 1, per_second: 1000 });
    let group =
        |in_flight, per_second| Destination::of_group("group", Limits { in_flight, per_second }, &url());
    let soon = Duration::from_millis(20);
    limiter.enqueue(0, &TENANT.into(), &url(), Instant::now());
    let others = limiter.next().await.1;
    for key in 1..=4 {
        limiter.enqueue(key, &TENANT.into(), group(2, 1000), Instant::now());
    }
    let mut permits = vec![];
    while let Ok((key, permit)) = timeout(soon, limiter.next()).await {
        assert_ne!(key, 0);
        permits.push(permit);
    }
    assert_eq!(permits.len(), 2, "its own limit, though the endpoint's is used up");
    // The limit is changed while requests wait.
    limiter.enqueue(5, &TENANT.into(), group(4, 1000), Instant::now());
    while let Ok((_, permit)) = timeout(soon, limiter.next()).await {
        permits.push(permit);
    }
    assert_eq!(permits.len(), 4);
    drop((permits, others));
    // Both ends of the rate.
    limiter.enqueue(6, &TENANT.into(), group(64, 1), Instant::now());
    while timeout(seconds(5), limiter.next()).await.is_ok() {}
    for key in 10..15 {
        limiter.enqueue(key, &TENANT.into(), group(64, 1), Instant::now());
    }
    let started = Instant::now();
    let mut permits = vec![];
    for _ in 0..5 {
        // One that is dropped unsent gives its turn back.
        permits.push(limiter.next().await.1);
    }
    assert!(started.elapsed() >= seconds(3), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn queue_circuit_of_an_endpoint_says_nothing_of_a_group_at_it() {
    let simulation = Simulation::new(Limits { in_flight: 64, per_second: 1000 });
    for client in 0..10 {
        simulation.send(simulation.client(client), Err(transient())).await.unwrap();
    }
    let group = Destination::of_group("group", Limits::default(), &url());
    assert!(simulation.limiter.circuit(TENANT, &url()).is_some());
    assert!(simulation.limiter.circuit(TENANT, group).is_none());
}
