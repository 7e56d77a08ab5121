use super::*;
use crate::JwtBearer;

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
    let vague = || answer(401, "").unwrap_err();
    for (answered, is_held) in [(vague(), false), (rejected(), true)] {
        let simulation = Simulation::default();
        let [old, new] = [1, 2].map(|refresh_token| simulation.public(Some("public"), refresh_token));
        simulation.send(old, Err(answered)).await.unwrap();
        simulation.send(old, Ok(())).await.expect_err("it was rejected");
        assert_eq!(simulation.send(new, Ok(())).await.is_err(), is_held);
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

/// A client id that does not exist, for example. Without one there is nothing to doubt.
#[tokio::test(start_paused = true)]
async fn public_client_is_in_doubt_after_three_grants_and_one_without_an_id_never() {
    for (client_id, least, most) in [(Some("public"), 6 * 120, 8 * 120), (None, 0, 1)] {
        let simulation = Simulation::default();
        let started = Instant::now();
        for refresh_token in 0..10 {
            let who = simulation.public(client_id, refresh_token);
            simulation.send(who, Err(answer(401, "").unwrap_err())).await.unwrap();
        }
        let took = started.elapsed();
        assert!((seconds(least)..seconds(most)).contains(&took), "{client_id:?}: {took:?}");
    }
}

/// Docker Hub's tokens of several accounts, for example.
#[tokio::test(start_paused = true)]
async fn rejection_without_a_client_id_holds_back_the_grant_whatever_it_says() {
    for body in ["", r#"{"error":"invalid_client"}"#, r#"{"error":"TOO_MANY_FAILED_LOGINS"}"#] {
        let simulation = Simulation::default();
        let [old, new] = [1, 2].map(|refresh_token| simulation.public(None, refresh_token));
        simulation.send(old, Err(answer(401, body).unwrap_err())).await.unwrap();
        simulation.send(old, Ok(())).await.expect_err("it was rejected");
        simulation.send(new, Ok(())).await.unwrap();
    }
}

/// A password in a secret parameter, beside a client secret, for example.
#[tokio::test(start_paused = true)]
async fn changed_values_shorten_the_wait_of_their_client_once_until_it_succeeds() {
    let simulation = Simulation::default();
    let who = |password: usize| {
        let values = [("password".into(), format!("p{password}").into())].into();
        let credentials = Credentials { values, ..credentials() };
        simulation.limiter.identity(TENANT, &description(), &credentials, &Tls::default())
    };
    let change = |who| simulation.limiter.expedite(TENANT, who, Expedite::ChangedValues);
    let known =
        async |who| rounded(simulation.enter(&url(), who, Instant::now()).await.unwrap_err().retry_in);
    let unnamed = || answer(401, "").unwrap_err();
    for wait in [30, 120] {
        simulation.send(who(1), Err(unnamed())).await.unwrap();
        assert_eq!(known(who(1)).await, seconds(wait));
        sleep(seconds(wait)).await;
    }
    simulation.send(who(1), Err(unnamed())).await.unwrap();
    sleep(seconds(10)).await;
    assert_eq!(known(who(2)).await, seconds(590), "the answer may have meant the client");
    change(who(2));
    assert_eq!(known(who(2)).await, seconds(20));
    sleep(seconds(20)).await;
    simulation.send(who(2), Err(unnamed())).await.unwrap();
    change(who(3));
    assert_eq!(known(who(3)).await, seconds(1800), "once");
    sleep(seconds(1800)).await;
    simulation.send(who(3), Ok(())).await.unwrap();
    simulation.send(who(3), Err(unnamed())).await.unwrap();
    sleep(seconds(30)).await;
    simulation.send(who(3), Err(unnamed())).await.unwrap();
    change(who(4));
    assert_eq!(known(who(4)).await, seconds(30), "once again after a success");

    let named = answer(401, r#"{"error":"invalid_client"}"#).unwrap_err();
    let limited = answer_with(401, &[("retry-after", "900")], "{}").unwrap_err();
    for (client, error, wait) in [(1, named, 120), (2, limited, 900)] {
        let client = simulation.client(client);
        simulation.send(client, Err(unnamed())).await.unwrap();
        sleep(seconds(30)).await;
        simulation.send(client, Err(error)).await.unwrap();
        change(client);
        assert_eq!(known(client).await, seconds(wait), "it is the client, or the endpoint asks for patience");
    }
}

/// A subject token that another program renews, for example.
#[tokio::test(start_paused = true)]
async fn values_that_change_all_the_time_are_one_failed_login_more() {
    let simulation = Simulation::default();
    let mut sent = 0;
    for minute in 0..120 {
        let subject_token = Some(format!("subject-{minute}").into());
        let credentials = Credentials { subject_token, ..credentials() };
        let who = simulation.limiter.identity(TENANT, &description(), &credentials, &Tls::default());
        simulation.limiter.expedite(TENANT, who, Expedite::ChangedValues);
        sent += usize::from(simulation.send(who, Err(answer(401, "").unwrap_err())).await.is_ok());
        sleep(seconds(60)).await;
    }
    assert!((2..=8).contains(&sent), "{sent}: seven by the waits, and one for all changes");
}
