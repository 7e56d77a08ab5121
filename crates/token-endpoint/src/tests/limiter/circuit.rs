use super::*;

async fn fail(simulation: &Simulation, client: usize) {
    let permit = simulation.enter(&url(), simulation.client(client), Instant::now()).await.unwrap();
    permit.finish(&Err::<(), _>(transient()));
}

#[tokio::test(start_paused = true)]
async fn circuit_failures_of_one_client_hold_back_no_other_client() {
    let simulation = Simulation::default();
    let limited = || answer(429, "").unwrap_err();
    for _ in 0..50 {
        fail(&simulation, 1).await;
        let permit = simulation.enter(&url(), simulation.client(2), Instant::now()).await.unwrap();
        permit.finish(&Err::<(), _>(rejected()));
        sleep(seconds(2000)).await;
    }
    for _ in 0..8 {
        let permit = simulation.enter(&url(), simulation.client(3), Instant::now()).await.unwrap();
        permit.finish(&Err::<(), _>(limited()));
        sleep(seconds(1)).await;
    }
    // The client that hangs has a permit; the others go at full speed.
    let _hangs = simulation.enter(&url(), simulation.client(1), Instant::now()).await.unwrap();
    let started = Instant::now();
    for client in 10..110 {
        let permit = simulation.enter(&url(), simulation.client(client), Instant::now()).await.unwrap();
        permit.finish(&Ok(()));
    }
    assert!(started.elapsed() < Duration::from_millis(1100), "{:?}", started.elapsed());
    // Its own pace is slower.
    let started = Instant::now();
    for _ in 0..20 {
        simulation.send(simulation.client(3), Err(limited())).await.unwrap();
    }
    assert!(started.elapsed() > seconds(1), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn circuit_open_asks_one_request_at_a_time_until_one_succeeds() {
    let simulation = Simulation::default();
    for client in [1, 2, 1, 2, 1] {
        fail(&simulation, client).await;
    }
    let circuit = simulation.limiter.circuit(TENANT, &url()).unwrap();
    assert_eq!((circuit.failures, circuit.error.kind()), (5, ErrorKind::Unavailable));
    assert!(circuit.to_string().contains("HTTP 503"), "{circuit}");
    let started = Instant::now();
    let probe = simulation.enter(&url(), simulation.client(3), Instant::now()).await.unwrap();
    assert!(started.elapsed() <= seconds(1), "{:?}", started.elapsed());
    let waiting: Vec<_> = (4..1004)
        .map(|client| {
            let simulation = simulation.clone();
            tokio::spawn(
                async move { simulation.enter(&url(), simulation.client(client), Instant::now()).await },
            )
        })
        .collect();
    sleep(seconds(4)).await;
    assert!(waiting.iter().all(|task| !task.is_finished()), "they wait, and do not fail one by one");
    // Another endpoint of the same origin is not concerned.
    let other = "https://idp.example.com/other".parse().unwrap();
    drop(simulation.enter(&other, simulation.client(4), Instant::now()).await.unwrap());

    probe.finish(&Err::<(), _>(transient()));
    sleep(seconds(4)).await;
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
    assert!(simulation.limiter.circuit(TENANT, &url()).is_none());
}

/// Readers of other tokens cannot wait for as long as a probe may take.
#[tokio::test(start_paused = true)]
async fn circuit_open_sends_another_probe_every_five_seconds_where_one_hangs() {
    let simulation = Simulation::default();
    for client in [1, 2, 1, 2, 1] {
        fail(&simulation, client).await;
    }
    let (started, mut hanging) = (Instant::now(), vec![]);
    for client in 3..7 {
        hanging.push(simulation.enter(&url(), simulation.client(client), Instant::now()).await.unwrap());
    }
    assert_eq!(started.elapsed().as_secs(), 15);
    // It took long enough; the next one goes five seconds after the last.
    hanging.remove(0).finish(&Err::<(), _>(transient()));
    let next = simulation.enter(&url(), simulation.client(9), Instant::now()).await.unwrap();
    assert_eq!(started.elapsed().as_secs(), 20);
    for probe in hanging {
        probe.finish(&Err::<(), _>(transient()));
    }
    next.finish(&Ok(()));
    assert!(simulation.limiter.circuit(TENANT, &url()).is_none());
}

/// Those that were on their way when it opened.
#[tokio::test(start_paused = true)]
async fn circuit_open_probes_within_five_seconds_though_earlier_requests_go_on_failing() {
    let simulation = Simulation::default();
    let mut sent = vec![];
    for client in 0..14 {
        sent.push(simulation.enter(&url(), simulation.client(client), Instant::now()).await.unwrap());
    }
    for permit in sent.drain(..9) {
        permit.finish(&Err::<(), _>(transient()));
    }
    let opened = Instant::now();
    let late = tokio::spawn(async move {
        for permit in sent {
            sleep(seconds(3)).await;
            permit.finish(&Err::<(), _>(transient()));
        }
    });
    simulation.enter(&url(), simulation.client(20), Instant::now()).await.unwrap().finish(&Ok(()));
    assert!(opened.elapsed() <= seconds(5), "{:?}", opened.elapsed());
    late.await.unwrap();
}

/// An entry that is held back takes no turn.
#[tokio::test(start_paused = true)]
async fn circuit_open_goes_on_at_once_after_a_probe_that_is_not_sent() {
    let simulation = Simulation::default();
    simulation.send(simulation.client(8), Err(rejected())).await.unwrap();
    for client in [1, 2, 1, 2, 1] {
        fail(&simulation, client).await;
    }
    let started = Instant::now();
    for _ in 0..20 {
        simulation.enter(&url(), simulation.client(8), Instant::now()).await.expect_err("it was rejected");
    }
    let enter = async |client| simulation.enter(&url(), simulation.client(client), Instant::now()).await;
    for client in 10..20 {
        drop(enter(client).await.unwrap());
        let problem = crate::CertificateProblem::UnknownAuthority;
        let error = Error::Certificate { host: "idp.example.com".into(), problem };
        enter(client).await.unwrap().finish(&Err::<(), _>(error));
    }
    enter(3).await.unwrap().finish(&Ok(()));
    assert!(started.elapsed() < seconds(1), "{:?}", started.elapsed());
}

/// As where an issuer's metadata is not found: nothing is sent.
#[tokio::test(start_paused = true)]
async fn circuit_open_pauses_after_requests_that_fail_before_they_are_sent() {
    let limiter = Limiter::<usize>::default();
    let take = async |key: usize| {
        limiter.enqueue(key, &TENANT.into(), &url(), Instant::now());
        let (_, permit) = timeout(seconds(60), limiter.next()).await.expect("it is not blocked for ever");
        permit
    };
    let who = |client: usize| {
        let credentials = Credentials { client_id: Some(format!("client-{client}")), ..credentials() };
        limiter.identity(TENANT, &description(), &credentials, &Tls::default())
    };
    for key in 0..6 {
        let Admission::Granted(permit) = take(key).await.admit(who(key), Terms::default()) else { panic!() };
        permit.finish(&Err::<(), _>(transient()));
    }
    let started = Instant::now();
    for key in 10..14 {
        take(key).await.finish(&Err::<(), _>(transient()));
    }
    assert!(started.elapsed() >= seconds(7), "0.5, 1, 2 and 4 s: {:?}", started.elapsed());
    // One that is prepared for long.
    let _prepared = take(20).await;
    let prepared = Instant::now();
    drop(take(21).await);
    assert_eq!(prepared.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn circuit_open_probes_at_most_every_five_seconds_and_soon_after_it_opened() {
    let simulation = Simulation::default();
    for client in [1, 2, 1, 2, 1] {
        fail(&simulation, client).await;
    }
    let mut waits = vec![];
    for client in 0..8 {
        let asked = Instant::now();
        let probe = simulation.enter(&url(), simulation.client(client), Instant::now()).await.unwrap();
        waits.push(asked.elapsed().as_millis());
        probe.finish(&Err::<(), _>(transient()));
    }
    assert_eq!(waits, [250, 500, 1000, 2000, 4000, 5000, 5000, 5000]);
}
