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
    sleep(seconds(60)).await;
    assert!(waiting.iter().all(|task| !task.is_finished()), "they wait, and do not fail one by one");
    // Another endpoint of the same origin is not concerned.
    let other = "https://idp.example.com/other".parse().unwrap();
    drop(simulation.enter(&other, simulation.client(4), Instant::now()).await.unwrap());

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
    assert!(simulation.limiter.circuit(TENANT, &url()).is_none());
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
