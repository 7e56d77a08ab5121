//! What one tenant does to another: nothing that is not the endpoint's own.

use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn limited() -> Error {
    answer_with(429, &[("retry-after", "3600")], "").unwrap_err()
}

fn setup() -> Error {
    Error::Client { cause: "invalid peer certificate".into() }
}

/// One request of this tenant, by this client, that is answered like this.
async fn send(simulation: &Simulation, tenant: &str, client: usize, answer: Result<(), Error>) {
    let simulation = simulation.of(tenant);
    simulation.send(simulation.client(client), answer).await.unwrap();
}

/// Ten thousand requests of a tenant that would be the next by their deadlines.
fn crowd(simulation: &Simulation, tenant: &str, url: &Url) {
    for key in 0..10_000 {
        simulation.limiter.enqueue(1_000_000 + key, &tenant.into(), url, Instant::now() - seconds(1));
    }
}

#[tokio::test(start_paused = true)]
async fn tenant_whose_requests_fail_opens_no_circuit_of_another() {
    let simulation = Simulation::default();
    for client in 0..20 {
        send(&simulation, "a", client % 3, Err(transient())).await;
    }
    let limiter = &simulation.limiter;
    assert!(limiter.circuit("a", &url()).is_some() && limiter.circuit("b", &url()).is_none());
    let started = Instant::now();
    for client in 0..100 {
        send(&simulation, "b", client, Ok(())).await;
    }
    assert!(started.elapsed() < Duration::from_millis(1100), "{:?}", started.elapsed());
    assert!(limiter.circuit("a", &url()).is_some(), "nor does a success of the other close it");
}

#[tokio::test(start_paused = true)]
async fn tenant_configuration_that_fails_says_nothing_of_the_endpoint() {
    let certificate = || Error::Certificate {
        host: "idp.example.com".into(),
        problem: crate::CertificateProblem::UnknownAuthority,
    };
    let simulation = Simulation::default();
    for client in 0..20 {
        send(&simulation, "a", client % 3, Err(setup())).await;
    }
    assert!(simulation.limiter.circuit("a", &url()).is_none());
    for client in 0..20 {
        send(&simulation, "a", client % 3, Err(transient())).await;
        let own = if client % 2 == 0 { setup() } else { certificate() };
        send(&simulation, "a", 7, Err(own)).await;
    }
    assert!(simulation.limiter.circuit("a", &url()).is_some(), "nor that it answers");
}

/// The same client id and secret in two namespaces: a crafted request of one may be answered with anything.
#[tokio::test(start_paused = true)]
async fn tenant_answers_hold_back_no_request_of_another() {
    let answers = [
        limited(),
        answer_with(503, &[("retry-after", "3600")], "").unwrap_err(),
        rejected(),
        refused(400, "TOO_MANY_FAILED_LOGINS"),
        refused(400, "invalid_grant"),
        refused(403, "access_denied"),
        refused(503, "access_denied"),
    ];
    for error in answers {
        let simulation = Simulation::default();
        let (a, b) = (simulation.of("a"), simulation.of("b"));
        a.send(a.client(1), Err(error.clone())).await.unwrap();
        let held = timeout(seconds(4), a.send(a.client(1), Ok(()))).await;
        assert!(!matches!(held, Ok(Ok(()))), "{error}");
        let started = Instant::now();
        b.send(b.client(1), Ok(())).await.unwrap();
        assert!(started.elapsed() < seconds(1), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn tenant_that_is_limited_slows_down_itself_and_half_of_them_the_origin() {
    let simulation = Simulation::default();
    let limited = || answer(429, "").unwrap_err();
    let rate_of = async |tenant: &str| {
        let started = Instant::now();
        for client in 100..150 {
            send(&simulation, tenant, client, Ok(())).await;
        }
        started.elapsed()
    };
    for client in 0..5 {
        send(&simulation, "b", client, Ok(())).await;
        send(&simulation, "c", client, Ok(())).await;
    }
    for client in 0..20 {
        send(&simulation, "a", client, Err(limited())).await;
        sleep(seconds(1)).await;
    }
    assert!(rate_of("b").await < Duration::from_millis(600));
    assert!(rate_of("a").await > seconds(2));
    for client in 0..20 {
        send(&simulation, if client % 2 == 0 { "a" } else { "b" }, client, Err(limited())).await;
        sleep(Duration::from_millis(500)).await;
    }
    assert!(rate_of("c").await > seconds(1), "most are limited: that is the origin");
}

/// At the rate of the origin, the crowd would take 100 s.
#[tokio::test(start_paused = true)]
async fn tenant_with_a_crowd_takes_no_turn_of_another_whatever_its_deadlines_are() {
    let limiter = Simulation::default();
    crowd(&limiter, "crowd", &url());
    let limiter = limiter.limiter;
    let mut waits = vec![];
    for refresh in 0..20 {
        let (asked, mut begun) = (Instant::now(), 0);
        limiter.enqueue(refresh, &"other".into(), &url(), asked + seconds(60));
        while timeout(seconds(600), limiter.next()).await.expect("it is not lost").0 != refresh {
            begun += 1;
        }
        waits.push((asked.elapsed().as_millis(), begun));
        sleep(Duration::from_millis(50)).await;
    }
    assert!(waits.iter().all(|(wait, begun)| *wait <= 100 && *begun <= 8), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn tenant_that_hangs_leaves_room_at_its_origin_and_one_that_is_alone_has_all_of_it() {
    let simulation = Simulation::default();
    let limiter = &simulation.limiter;
    crowd(&simulation, "crowd", &url());
    let mut hanging = vec![];
    while let Ok((_, permit)) = timeout(seconds(1), limiter.next()).await {
        hanging.push(permit);
    }
    assert_eq!(hanging.len(), 64);
    limiter.enqueue(1, &"other".into(), &url(), Instant::now() + seconds(60));
    hanging.pop();
    let mut began = vec![timeout(seconds(1), limiter.next()).await.unwrap()];
    assert_eq!(began[0].0, 1);
    hanging.truncate(20);
    while let Ok(next) = timeout(seconds(1), limiter.next()).await {
        began.push(next);
    }
    let crowd = hanging.len() + began.len() - 1;
    assert_eq!(crowd, 51, "four times what is free");
    for refresh in 2..8 {
        limiter.enqueue(refresh, &"other".into(), &url(), Instant::now() + seconds(60));
        began.push(timeout(seconds(1), limiter.next()).await.unwrap());
        assert_eq!(began.last().unwrap().0, refresh);
    }
}

#[tokio::test(start_paused = true)]
async fn tenant_with_many_origins_that_hang_leaves_room_in_the_process() {
    let simulation = Simulation::default();
    let limiter = &simulation.limiter;
    limiter.enqueue(0, &"other".into(), &url(), Instant::now());
    drop(limiter.next().await);
    for origin in 0..1000 {
        let url = format!("https://{origin}.example.com/").parse::<url::Url>().unwrap();
        for key in 0..10 {
            limiter.enqueue(1000 + 10 * origin + key, &"crowd".into(), &url, Instant::now() - seconds(1));
        }
    }
    let mut hanging = vec![];
    while let Ok(next) = timeout(seconds(1), limiter.next()).await {
        hanging.push(next);
    }
    assert_eq!(hanging.len(), 256);
    let started = Instant::now();
    let mut others = vec![];
    for refresh in 1..10 {
        limiter.enqueue(refresh, &"other".into(), &url(), started + seconds(60));
        others.push(limiter.next().await);
        assert_eq!(others.last().unwrap().0, refresh);
    }
    assert!(started.elapsed() < seconds(1));
    // Nothing is lost when they end.
    drop(others);
    let mut begun = hanging.len();
    while let Some(ended) = hanging.pop() {
        drop(ended);
        while let Ok(next) = timeout(Duration::from_millis(20), limiter.next()).await {
            begun += 1;
            if begun % 2 == 0 {
                hanging.push(next);
            }
        }
    }
    assert_eq!((begun, limiter.len()), (10_000, 0));
}

#[tokio::test(start_paused = true)]
async fn origins_that_hang_leave_room_for_the_others_of_one_tenant() {
    let limiter = Simulation::default().limiter;
    for origin in 0..50 {
        let url = format!("https://{origin}.example.com/").parse::<url::Url>().unwrap();
        for key in 0..1000 {
            limiter.enqueue(1000 * (origin + 1) + key, &TENANT.into(), &url, Instant::now() - seconds(1));
        }
    }
    let mut hanging = vec![];
    while let Ok(next) = timeout(seconds(1), limiter.next()).await {
        hanging.push(next);
    }
    limiter.enqueue(1, &TENANT.into(), &url(), Instant::now() + seconds(60));
    assert_eq!(timeout(seconds(1), limiter.next()).await.unwrap().0, 1);
}

/// Editing the path of a dead token URL every ten seconds, for a day.
#[tokio::test(start_paused = true)]
async fn endpoints_and_clients_that_a_tenant_has_tried_are_forgotten() {
    let simulation = Simulation::default();
    let mut most = 0;
    for edit in 0..8_640 {
        let url = format!("https://{}.example.com/{edit}", edit % 1000).parse().unwrap();
        let permit = simulation.enter(&url, simulation.client(edit), Instant::now()).await.unwrap();
        permit.finish(&Err::<(), _>(if edit % 2 == 0 { transient() } else { rejected() }));
        most = most.max(simulation.remembered());
        sleep(seconds(10)).await;
    }
    assert!(most < 2000, "{most}");
    sleep(3 * HOUR).await;
    assert_eq!(simulation.remembered(), 0);
}

#[tokio::test(start_paused = true)]
async fn tenant_that_tries_many_clients_has_the_limiter_forget_nothing_of_another() {
    let simulation = Simulation::new(Limits { in_flight: 64, per_second: 1_000_000 });
    let (a, b) = (simulation.of("a"), simulation.of("b"));
    b.send(b.client(1), Err(limited())).await.unwrap();
    b.send(b.client(2), Ok(())).await.unwrap();
    for client in 0..14_500 {
        a.send(a.client(client), Err(limited())).await.unwrap();
    }
    assert!(simulation.remembered() < 13_200, "{}", simulation.remembered());
    assert!(b.send(b.client(1), Ok(())).await.is_err(), "it is still held back");
    // A client that has succeeded is not put in doubt by its scopes.
    for scope in 0..5 {
        let description = RequestDescription { scopes: vec![scope.to_string()], ..description() };
        let id = Credentials { client_id: Some("client-2".into()), ..credentials() };
        let who = b.limiter.identity("b", &description, &id, &Tls::default());
        let sent = timeout(seconds(1), b.send(who, Err(refused(400, "invalid_scope")))).await;
        assert!(sent.is_ok(), "{scope}");
    }
}

/// A thousand tenants with ten thousand requests between them run at the origin's full rate, as one does.
#[tokio::test(start_paused = true)]
async fn thousand_tenants_together_reach_the_rate_of_their_origin() {
    let limiter = Limiter::<usize>::default();
    for key in 0..10_000 {
        limiter.enqueue(key, &format!("tenant-{}", key % 1000).into(), &url(), Instant::now());
    }
    let (started, really) = (Instant::now(), std::time::Instant::now());
    let mut running = JoinSet::new();
    while !limiter.is_empty() {
        let (_, permit) = timeout(seconds(600), limiter.next()).await.expect("none is lost");
        running.spawn(async move {
            sleep(LATENCY).await;
            drop(permit);
        });
    }
    // What is dropped gives its place back.
    assert!(started.elapsed() <= seconds(101), "{:?}", started.elapsed());
    assert!(really.elapsed() < seconds(30), "{:?}", really.elapsed());
}
