//! Waits that the endpoint asks for.

use super::*;

const LAST_ATTEMPT: Terms = Terms { exclusive: false, patience: None, is_last_attempt: true };

fn asked(status: u16, seconds: &'static str, body: &str) -> Error {
    answer_with(status, &[("retry-after", seconds), ("content-type", "application/json")], body).unwrap_err()
}

#[tokio::test(start_paused = true)]
async fn retry_after_holds_back_the_client_and_no_other_and_then_one_goes_first() {
    for (status, body) in
        [(429, ""), (503, ""), (429, r#"{"error":"invalid_client"}"#), (400, r#"{"message":"x"}"#)]
    {
        let simulation = Simulation::default();
        let in_flight = simulation.enter(&url(), simulation.scope(0), Instant::now()).await.unwrap();
        in_flight.finish(&Ok::<_, Error>(()));
        let in_flight = simulation.enter(&url(), simulation.scope(0), Instant::now()).await.unwrap();
        simulation.send(simulation.scope(1), Err(asked(status, "600", body))).await.unwrap();
        in_flight.finish(&Ok::<_, Error>(()));
        let known = simulation.send(simulation.scope(2), Ok(())).await.unwrap_err();
        assert_eq!(rounded(known.retry_in), seconds(600), "{status}: not ended by what began before");
        let class = if status == 503 { Class::Transient } else { Class::Limited };
        assert_eq!(known.class, class, "{status}");
        simulation.send(simulation.client(7), Ok(())).await.unwrap();
        simulation.expedite(simulation.scope(2));
        assert!(simulation.send(simulation.scope(2), Ok(())).await.is_err(), "nor by a person");

        sleep(seconds(600)).await;
        let first = simulation.enter(&url(), simulation.scope(2), Instant::now()).await.unwrap();
        let second = timeout(seconds(9), simulation.send(simulation.scope(3), Ok(()))).await;
        assert!(second.is_err(), "{status}: one goes first");
        first.finish(&Ok::<_, Error>(()));
        simulation.send(simulation.scope(3), Ok(())).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_of_a_web_page_holds_back_no_other_request() {
    let simulation = Simulation::default();
    for (status, body) in [(403, "<html>"), (429, "<html>"), (503, "<html>"), (404, "")] {
        let headers = [("retry-after", "600"), ("content-type", "text/html")];
        let error = answer_with(status, &headers, body).unwrap_err();
        simulation.send(simulation.scope(1), Err(error)).await.unwrap();
        simulation.send(simulation.scope(2), Ok(())).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_of_few_seconds_is_waited_for_in_the_queue() {
    let simulation = Simulation::default();
    let started = Instant::now();
    simulation.send(simulation.scope(1), Err(asked(429, "3", ""))).await.unwrap();
    simulation.send(simulation.scope(2), Ok(())).await.unwrap();
    assert_eq!(started.elapsed().as_secs(), 3);
}

/// A server error waits a sixth of the remaining life of a token at most, whatever it asks for.
#[tokio::test(start_paused = true)]
async fn retry_after_of_a_server_error_holds_a_live_token_no_longer_than_its_patience() {
    let simulation = Simulation::default();
    let who = simulation.scope(1);
    let patient = Terms { patience: Some(seconds(25)), ..Terms::default() };
    let failure = || Err(asked(503, "3600", ""));
    simulation.send(who, failure()).await.unwrap();
    let mut sent = vec![];
    let started = Instant::now();
    for _ in 0..30 {
        // Of ten sources that ask, one is sent in this time.
        for scope in 0..10 {
            if simulation.send_with(simulation.scope(scope), patient, failure()).await.is_ok() {
                sent.push(started.elapsed().as_secs());
            }
        }
        sleep(seconds(5)).await;
    }
    assert_eq!(sent, [25, 50, 75, 100, 125], "once for all in 25 s");
    let limited = simulation.client(2);
    simulation.send(limited, Err(asked(429, "3600", ""))).await.unwrap();
    sleep(seconds(1800)).await;
    assert!(simulation.send_with(limited, patient, Ok(())).await.is_err(), "only 429 is obeyed");
}

/// The answer to a request that was in flight when the server began to fail.
#[tokio::test(start_paused = true)]
async fn retry_after_of_a_rate_limit_is_obeyed_during_a_longer_wait_for_a_server_error() {
    let simulation = Simulation::default();
    let who = simulation.scope(1);
    simulation.send(who, Ok(())).await.unwrap();
    let in_flight = simulation.enter(&url(), simulation.scope(2), Instant::now()).await.unwrap();
    simulation.send(who, Err(asked(503, "3600", ""))).await.unwrap();
    in_flight.finish(&Err::<(), _>(asked(429, "300", "")));
    let patient = Terms { patience: Some(seconds(25)), ..Terms::default() };
    sleep(seconds(299)).await;
    assert!(simulation.send_with(who, patient, Ok(())).await.is_err());
    sleep(seconds(2)).await;
    assert!(simulation.send_with(who, patient, Ok(())).await.is_ok());
}

/// tokio's timers stand still in that time.
#[tokio::test(start_paused = true)]
async fn waits_end_sooner_by_the_time_for_which_the_machine_was_suspended() {
    let simulation = Simulation::default();
    let who = simulation.scope(1);
    simulation.send(who, Err(asked(429, "600", ""))).await.unwrap();
    assert!(simulation.send(who, Ok(())).await.is_err());
    simulation.limiter.has_slept(600);
    simulation.send(who, Ok(())).await.unwrap();

    let started = Instant::now();
    simulation.send(simulation.client(2), Err(asked(429, "5", ""))).await.unwrap();
    let waits = simulation.send(simulation.client(2), Ok(()));
    let sleeps = async {
        sleep(seconds(1)).await;
        simulation.limiter.has_slept(60);
    };
    tokio::join!(waits, sleeps).0.unwrap();
    assert!(started.elapsed() < seconds(2), "the timer that runs ends, too");
}

/// A token that readers still have is not lost to a long wait, and a crowd of them is one attempt.
#[tokio::test(start_paused = true)]
async fn last_attempt_is_allowed_once_for_a_client_and_never_after_a_lock_out() {
    for (error, allowed) in [
        (asked(429, "3600", ""), 1),
        (answer_with(401, &[("retry-after", "900")], r#"{"error":"invalid_client"}"#).unwrap_err(), 1),
        (refused(400, "TOO_MANY_FAILED_LOGINS"), 0),
        (asked(429, "3600", r#"{"error":"TOO_MANY_FAILED_LOGINS"}"#), 0),
    ] {
        let simulation = Simulation::default();
        simulation.send(simulation.scope(0), Ok(())).await.unwrap();
        simulation.send(simulation.scope(0), Err(error.clone())).await.unwrap();
        let at_once = simulation.send_with(simulation.scope(1), LAST_ATTEMPT, Ok(())).await;
        assert!(at_once.is_err(), "not sooner than half a minute after the answer");
        sleep(seconds(30)).await;
        let mut sent = 0;
        for scope in 0..100 {
            let tried = simulation.send_with(simulation.scope(scope), LAST_ATTEMPT, Err(error.clone())).await;
            sent += usize::from(tried.is_ok());
        }
        assert_eq!(sent, allowed, "{error}");
        let known = simulation.send(simulation.scope(0), Ok(())).await.unwrap_err();
        sleep(known.retry_in).await;
        simulation.send(simulation.scope(0), Err(error.clone())).await.unwrap();
        sleep(seconds(30)).await;
        let again = simulation.send_with(simulation.scope(1), LAST_ATTEMPT, Ok(())).await;
        assert_eq!(again.is_ok(), allowed == 1, "after the next wait has begun: {error}");
    }
}

/// The permit is dropped where a request turns out not to be needed, or cannot be prepared.
#[tokio::test(start_paused = true)]
async fn last_attempt_that_was_not_sent_is_given_back() {
    let simulation = Simulation::default();
    let attempt = async |scope| {
        simulation.enter_with(&url(), simulation.scope(scope), Instant::now(), LAST_ATTEMPT).await
    };
    simulation.send(simulation.scope(0), Ok(())).await.unwrap();
    simulation.send(simulation.scope(0), Err(asked(429, "3600", ""))).await.unwrap();
    sleep(seconds(30)).await;
    drop(attempt(1).await.unwrap());
    let not_written: Error = crate::RequestError::Reserved("scope".into()).into();
    attempt(2).await.unwrap().finish(&Err::<(), _>(not_written));
    attempt(3).await.unwrap().finish(&Err::<(), _>(asked(429, "3600", "")));
    assert!(attempt(4).await.is_err(), "it was sent");
}

/// What was in flight when the endpoint asked to wait, or locked the client out, and the answer to it.
#[tokio::test(start_paused = true)]
async fn hold_that_was_asked_for_is_not_shortened_by_what_was_in_flight() {
    const CODE: &str = "TOO_MANY_FAILED_LOGINS";
    let locked = || refused(400, CODE);
    let limited = || asked(429, "1200", "");
    let cases = [
        (locked(), Err(rejected()), 1800, Class::LockedOut),
        (locked(), Err(asked(429, "60", "")), 1800, Class::LockedOut),
        (locked(), Err(asked(429, "3600", "")), 3600, Class::LockedOut),
        (locked(), Err(refused(503, "access_denied")), 1800, Class::LockedOut),
        (locked(), Ok(()), 1800, Class::LockedOut),
        (limited(), Err(rejected()), 1200, Class::Rejected),
        (limited(), Err(refused(503, "access_denied")), 1200, Class::Transient),
        (limited(), Ok(()), 1200, Class::Limited),
        (limited(), Err(locked()), 1800, Class::LockedOut),
        (rejected(), Err(asked(429, "60", "")), 60, Class::Limited),
    ];
    for (first, second, wait, class) in cases {
        let simulation = Simulation::default();
        let name = format!("{first} {second:?}");
        simulation.send(simulation.scope(0), Ok(())).await.unwrap();
        let enter = async |scope| simulation.enter(&url(), simulation.scope(scope), Instant::now()).await;
        let (one, other, last) = (enter(1).await.unwrap(), enter(2).await.unwrap(), enter(3).await.unwrap());
        one.finish(&Err::<(), _>(first));
        other.finish(&second);
        simulation.expedite(simulation.scope(0));
        let known = enter(4).await.unwrap_err();
        assert_eq!((rounded(known.retry_in), known.class), (seconds(wait), class), "{name}");
        last.finish(&Ok(()));
        assert!(enter(4).await.is_err(), "{name}: nor is it ended");
        sleep(seconds(60)).await;
        if class == Class::LockedOut {
            let attempt = simulation.send_with(simulation.scope(5), LAST_ATTEMPT, Ok(())).await;
            assert_eq!(attempt.unwrap_err().error.code(), Some(CODE), "{name}: no attempt");
        }
        sleep(seconds(wait)).await;
        simulation.send(simulation.scope(4), Ok(())).await.unwrap();
        simulation.send(simulation.scope(5), Ok(())).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn hold_that_was_asked_for_outlasts_the_rejection_of_the_last_attempt() {
    let simulation = Simulation::default();
    simulation.send(simulation.scope(0), Err(asked(429, "3600", ""))).await.unwrap();
    sleep(seconds(600)).await;
    simulation.send_with(simulation.scope(1), LAST_ATTEMPT, Err(rejected())).await.unwrap();
    let known = simulation.send(simulation.scope(2), Ok(())).await.unwrap_err();
    assert_eq!((rounded(known.retry_in), known.class), (seconds(3000), Class::Rejected));
}

/// A person may shorten the limiter's own wait, and not below what the endpoint asks for.
#[tokio::test(start_paused = true)]
async fn retry_after_that_is_shorter_than_the_own_wait_is_no_more_than_the_least_wait() {
    for (asked_for, wait) in [("1", 30), ("60", 60), ("120", 120), ("900", 900)] {
        let simulation = Simulation::default();
        let client = simulation.client(1);
        simulation.send(client, Err(rejected())).await.unwrap();
        sleep(seconds(30)).await;
        let error = asked(401, asked_for, r#"{"error":"invalid_client"}"#);
        simulation.send(client, Err(error)).await.unwrap();
        simulation.expedite(client);
        let known = simulation.send(client, Ok(())).await.unwrap_err();
        assert_eq!(rounded(known.retry_in), seconds(wait), "{asked_for}");
    }
}
