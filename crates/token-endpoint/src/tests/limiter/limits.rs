use super::*;

#[tokio::test(start_paused = true)]
async fn limiter_thousand_sources_at_the_limit_lose_no_token() {
    const SOURCES: u64 = 1000;
    let (simulation, issuer) = (with_rate(20), Issuer::new(20));
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for source in 0..SOURCES {
        // Each must be among the first so many, and they come in no order. First come, first served loses half.
        let permit = source.wrapping_mul(7919) % SOURCES;
        let expires = started + Duration::from_millis(permit * 50) + LATENCY + Duration::from_millis(100);
        let (simulation, issuer) = (simulation.clone(), Arc::clone(&issuer));
        let client = simulation.client(usize::try_from(source).unwrap());
        tasks.spawn(async move {
            sleep(Duration::from_millis(1)).await; // all are there before the first goes
            let permit = simulation.enter(&url(), client, expires).await.unwrap();
            let outcome = issuer.ask().await;
            permit.finish(&outcome);
            outcome.is_ok() && Instant::now() <= expires + Duration::from_millis(1)
        });
    }
    let saved = timeout(seconds(600), tasks.join_all()).await.expect("none is stuck");
    let saved = saved.into_iter().filter(|saved| *saved).count();
    assert_eq!((saved, issuer.refused.load(Ordering::Relaxed)), (1000, 0));
    assert!(started.elapsed() < seconds(51), "{:?}", started.elapsed());
}

/// The operator does not know the issuer's limit: it learns it, and nothing is lost of 300 s tokens that all are due at
/// once, with the waits that a 429 means.
#[tokio::test(start_paused = true)]
async fn limiter_unknown_limit_of_the_issuer_is_learnt() {
    let (simulation, issuer) = (Simulation::default(), Issuer::new(20));
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for source in 0..1000 {
        let (simulation, issuer) = (simulation.clone(), Arc::clone(&issuer));
        let client = simulation.client(source);
        tasks.spawn(async move {
            let expires = Instant::now() + seconds(150);
            loop {
                let permit = simulation.enter(&url(), client, expires - seconds(90)).await.unwrap();
                let outcome = issuer.ask().await;
                permit.finish(&outcome);
                if outcome.is_ok() {
                    return Instant::now() < expires;
                }
                sleep(seconds(30) + Duration::from_millis(source as u64 * 7)).await;
            }
        });
    }
    let saved = timeout(seconds(3600), tasks.join_all()).await.expect("none is stuck");
    assert!(saved.into_iter().all(|saved| saved));
    let refused = issuer.refused.load(Ordering::Relaxed);
    assert!(refused < 300, "{refused} refused in {:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn limiter_requests_never_exceed_the_limits() {
    let simulation = Simulation::new(Limits { in_flight: 3, per_second: 10 });
    let (under_way, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for source in 0..30 {
        let (simulation, under_way, most) = (simulation.clone(), Arc::clone(&under_way), Arc::clone(&most));
        tasks.spawn(async move {
            let permit = simulation.enter(&url(), simulation.client(source), Instant::now()).await.unwrap();
            most.fetch_max(under_way.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            sleep(seconds(1)).await;
            under_way.fetch_sub(1, Ordering::SeqCst);
            drop(permit);
        });
    }
    // A request to another origin does not wait.
    let elsewhere = "https://idp.example.com:8443/token".parse().unwrap();
    let permit =
        simulation.enter(&elsewhere, simulation.client(99), Instant::now() + seconds(900)).await.unwrap();
    assert_eq!(permit.waited(), Duration::ZERO);
    timeout(seconds(600), tasks.join_all()).await.expect("none is stuck");
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert!((10..=12).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());

    let started = Instant::now();
    for source in 0..21 {
        simulation.send(simulation.client(source), Ok(())).await.unwrap();
    }
    assert!(started.elapsed() >= seconds(2) && started.elapsed() < seconds(3), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn limiter_waiter_that_stops_leaves_the_queue() {
    let simulation = Simulation::new(Limits { in_flight: 1, per_second: 1000 });
    let first = simulation.enter(&url(), simulation.client(0), Instant::now()).await.unwrap();
    assert!(
        timeout(seconds(1), simulation.enter(&url(), simulation.client(1), Instant::now())).await.is_err()
    );
    // A task that ends while its permit is on the way to it gives the permit back.
    let waiting = {
        let simulation = simulation.clone();
        tokio::spawn(
            async move { simulation.enter(&url(), simulation.client(2), Instant::now()).await.map(drop) },
        )
    };
    sleep(seconds(1)).await;
    drop(first);
    waiting.abort();
    let third =
        timeout(seconds(1), simulation.enter(&url(), simulation.client(3), Instant::now())).await.unwrap();
    assert!(third.is_ok());
}
