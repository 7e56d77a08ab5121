use super::*;
use crate::{ClientAuthentication, JwtBearer};

#[tokio::test(start_paused = true)]
async fn rejection_thousand_sources_with_one_wrong_secret_are_one_failed_login_per_wait() {
    let simulation = Simulation::default();
    let logins = Arc::new(Mutex::new(Vec::new()));
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..1000 {
        let (simulation, logins) = (simulation.clone(), Arc::clone(&logins));
        tasks.spawn(async move {
            let client = simulation.client(7);
            while started.elapsed() < seconds(3600) {
                match simulation.enter(&url(), client, Instant::now() + seconds(30)).await {
                    Ok(permit) => {
                        logins.lock().unwrap().push(started.elapsed().as_secs());
                        sleep(LATENCY).await;
                        permit.finish(&Err::<(), _>(rejected()));
                        sleep(seconds(30)).await;
                    }
                    Err(known) => {
                        assert_eq!(known.error.kind(), ErrorKind::ClientRejected);
                        assert!(known.to_string().contains("are tried again in"), "{known}");
                        sleep(known.retry_in).await;
                    }
                }
            }
        });
    }
    // A client with another secret does not wait.
    for client in 0..7 {
        let permit = simulation.enter(&url(), simulation.client(client), Instant::now()).await.unwrap();
        permit.finish(&Ok(()));
    }
    tasks.join_all().await;
    assert_eq!(*logins.lock().unwrap(), [0, 30, 150, 750, 2550]);
}

#[tokio::test(start_paused = true)]
async fn rejection_of_requests_in_flight_together_counts_once_and_lock_out_waits_half_an_hour() {
    let simulation = Simulation::default();
    let client = simulation.client(1);
    simulation.send(client, Ok(())).await.unwrap();
    let mut permits = Vec::new();
    for _ in 0..5 {
        permits.push(simulation.enter(&url(), client, Instant::now()).await.unwrap());
    }
    for permit in permits {
        permit.finish(&Err::<(), _>(rejected()));
    }
    let known = simulation.enter(&url(), client, Instant::now()).await.unwrap_err();
    assert_eq!(rounded(known.retry_in), seconds(30));

    let locked = answer(401, r#"{"errors":[{"code":"TOO_MANY_FAILED_LOGINS"}]}"#).unwrap_err();
    let client = simulation.client(2);
    simulation.send(client, Err(locked)).await.unwrap();
    let known = simulation.enter(&url(), client, Instant::now()).await.unwrap_err();
    assert_eq!((rounded(known.retry_in), known.error.class()), (seconds(1800), Class::LockedOut));
}

#[tokio::test(start_paused = true)]
async fn expedite_shortens_the_wait_to_half_a_minute_however_often() {
    let simulation = Simulation::default();
    let client = simulation.client(1);
    let reject = async |error: Error| {
        simulation.send(client, Err(error)).await.unwrap();
    };
    let known =
        async || rounded(simulation.enter(&url(), client, Instant::now()).await.unwrap_err().retry_in);
    simulation.expedite(client); // nothing is known
    reject(rejected()).await;
    sleep(seconds(30)).await;
    reject(rejected()).await;
    assert_eq!(known().await, seconds(120));
    simulation.expedite(client);
    assert_eq!(known().await, seconds(30));
    sleep(seconds(10)).await;
    simulation.expedite(client);
    assert_eq!(known().await, seconds(20), "asking again wins nothing");
    sleep(seconds(20)).await;
    reject(rejected()).await;
    assert_eq!(known().await, seconds(600), "the count goes on");

    let locked = answer(401, r#"{"errors":[{"code":"TOO_MANY_FAILED_LOGINS"}]}"#).unwrap_err();
    for (client, error, wait) in [
        (2, locked, 1800),
        (3, answer_with(401, &[("retry-after", "900")], r#"{"error":"invalid_client"}"#).unwrap_err(), 900),
    ] {
        let client = simulation.client(client);
        simulation.send(client, Err(error)).await.unwrap();
        simulation.expedite(client);
        let known = simulation.enter(&url(), client, Instant::now()).await.unwrap_err();
        assert_eq!(rounded(known.retry_in), seconds(wait), "the server itself asks for patience");
    }
}

#[tokio::test(start_paused = true)]
async fn expedite_of_a_request_that_alone_was_rejected_shortens_the_wait_to_two_seconds() {
    let simulation = Simulation::default();
    let scope = simulation.scope(1);
    simulation.send(simulation.scope(2), Ok(())).await.unwrap();
    let refused = answer(400, r#"{"error":"invalid_scope"}"#).unwrap_err();
    simulation.send(scope, Err(refused)).await.unwrap();
    let known = async || rounded(simulation.enter(&url(), scope, Instant::now()).await.unwrap_err().retry_in);
    assert_eq!(known().await, seconds(30));
    simulation.expedite(scope);
    assert_eq!(known().await, seconds(2));
}

#[tokio::test(start_paused = true)]
async fn rejection_unknown_credential_is_tried_by_one_request() {
    let simulation = Simulation::default();
    let client = simulation.client(1);
    let first = simulation.enter(&url(), client, Instant::now()).await.unwrap();
    let next = timeout(seconds(60), simulation.enter(&url(), client, Instant::now())).await;
    assert!(next.is_err(), "it waits for the first");
    first.finish(&Ok(()));
    let all = [
        simulation.enter(&url(), client, Instant::now()).await.is_ok(),
        simulation.enter(&url(), client, Instant::now()).await.is_ok(),
    ];
    assert_eq!(all, [true, true]);
}

#[tokio::test(start_paused = true)]
async fn rejection_ends_with_another_secret_another_endpoint_or_a_success() {
    let simulation = Simulation::default();
    let wrong = simulation.client(1);
    simulation.send(wrong, Err(rejected())).await.unwrap();
    assert!(simulation.enter(&url(), wrong, Instant::now()).await.is_err());
    let of = |description: &RequestDescription, secret: Option<&str>| {
        let id = Credentials { client_id: Some("client-1".into()), ..credentials() };
        let client_secret = secret.map(Into::into).or(id.client_secret.clone());
        simulation.limiter.identity(
            TENANT,
            description,
            &Credentials { client_secret, ..id },
            &Tls::default(),
        )
    };
    let changed = of(&description(), Some("changed"));
    assert_ne!(changed, wrong);
    simulation.send(changed, Ok(())).await.unwrap();
    let other: Url = "https://idp.example.com/other".parse().unwrap();
    let elsewhere = of(&RequestDescription { token_url: other.clone(), ..description() }, None);
    simulation.enter(&other, elsewhere, Instant::now()).await.unwrap().finish(&Ok(()));

    sleep(seconds(31)).await;
    simulation.send(wrong, Ok(())).await.unwrap();
    simulation.send(wrong, Err(rejected())).await.unwrap();
    let known = simulation.enter(&url(), wrong, Instant::now()).await.unwrap_err();
    assert_eq!(rounded(known.retry_in), seconds(30), "a success starts the count anew");
}

/// Where nothing authenticates the client, what was rejected is the refresh token, or the like.
#[tokio::test(start_paused = true)]
async fn rejection_without_authentication_holds_back_the_grant_unless_it_names_the_client() {
    let who = |simulation: &Simulation, refresh_token: &str| {
        let none = ClientAuthentication::None;
        let description = RequestDescription { client_authentication: none, ..description() };
        let credentials = Credentials { refresh_token: Some(refresh_token.into()), ..credentials() };
        simulation.limiter.identity(TENANT, &description, &credentials, &Tls::default())
    };
    let vague = || answer(401, "").unwrap_err();
    for (answered, is_held) in [(vague(), false), (rejected(), true)] {
        let simulation = Simulation::default();
        simulation.send(who(&simulation, "old"), Err(answered)).await.unwrap();
        simulation.send(who(&simulation, "old"), Ok(())).await.expect_err("it was rejected");
        assert_eq!(simulation.send(who(&simulation, "new"), Ok(())).await.is_err(), is_held);
    }
}

/// Its key proves the client.
#[tokio::test(start_paused = true)]
async fn rejection_of_a_signed_grant_holds_back_the_other_subjects_of_its_key() {
    let simulation = Simulation::default();
    let who = |subject: &str| {
        let grant = JwtBearer { subject: Some(subject.into()), ..JwtBearer::default() };
        let description = RequestDescription {
            grant: Grant::JwtBearer(Box::new(grant)),
            client_authentication: ClientAuthentication::None,
            ..description()
        };
        simulation.limiter.identity(TENANT, &description, &credentials(), &Tls::default())
    };
    simulation.send(who("a"), Err(answer(401, "").unwrap_err())).await.unwrap();
    simulation.send(who("b"), Ok(())).await.expect_err("of the same key");
}

/// A client id that does not exist, for example.
#[tokio::test(start_paused = true)]
async fn client_without_authentication_is_in_doubt_after_three_grants() {
    let simulation = Simulation::default();
    let none = ClientAuthentication::None;
    let description = RequestDescription { client_authentication: none, ..description() };
    let who = |refresh_token: usize| {
        let credentials =
            Credentials { refresh_token: Some(format!("r{refresh_token}").into()), ..credentials() };
        simulation.limiter.identity(TENANT, &description, &credentials, &Tls::default())
    };
    let started = Instant::now();
    for refresh_token in 0..10 {
        simulation.send(who(refresh_token), Err(answer(401, "").unwrap_err())).await.unwrap();
    }
    assert!(started.elapsed() >= seconds(6 * 120), "{:?}", started.elapsed());
}
