//! Server errors with a code of refusal.

use super::*;

fn throttled() -> Error {
    refused(503, "access_denied")
}

/// Counted for each source, a thousand sources would be thousands of failed logins.
#[tokio::test(start_paused = true)]
async fn ambiguous_failures_of_a_client_that_never_succeeded_wait_10_s_30_s_and_then_as_rejections() {
    let simulation = Simulation::default();
    let all = (0..1000).map(|scope| simulation.scope(scope)).collect();
    let seen = sources(&simulation, all, seconds(3600), |_| Err(throttled())).await;
    let times: Vec<_> = seen.iter().map(|(at, _)| *at).collect();
    let expected: [u64; 6] = [0, 10, 40, 160, 760, 2560];
    assert_eq!(times.len(), expected.len(), "{times:?}");
    assert!(times.iter().zip(expected).all(|(at, expected)| at.abs_diff(expected) <= 8), "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn ambiguous_failures_of_a_client_that_succeeded_are_transient_five_times() {
    let simulation = Simulation::default();
    let who = simulation.scope(1);
    simulation.send(who, Ok(())).await.unwrap();
    let mut paced = vec![];
    for _ in 0..9 {
        let (class, wait) =
            simulation.send_with(who, Terms::default(), Err(throttled())).await.unwrap().unwrap();
        paced.push((class, wait.as_secs()));
        sleep(wait).await;
    }
    let transient = [2, 4, 8, 16, 32].map(|wait| (Class::Transient, wait));
    let ambiguous = [10, 30].map(|wait| (Class::Ambiguous, wait));
    let rejected = [120, 600].map(|wait| (Class::Rejected, wait));
    assert_eq!(paced, [&transient[..], &ambiguous, &rejected].concat());

    simulation.send(who, Ok(())).await.unwrap();
    let again = simulation.send_with(who, Terms::default(), Err(throttled())).await.unwrap();
    assert_eq!(again, Some((Class::Transient, seconds(2))), "a success ends it");
}

#[tokio::test(start_paused = true)]
async fn ambiguous_failures_are_counted_by_status_and_code_and_once_for_what_was_in_flight_together() {
    let simulation = Simulation::default();
    let who = simulation.scope(1);
    let mut waits = vec![];
    for error in [throttled(), refused(500, "access_denied"), refused(503, "invalid_request"), throttled()] {
        let (_, wait) = simulation.send_with(who, Terms::default(), Err(error)).await.unwrap().unwrap();
        waits.push(wait.as_secs());
        sleep(wait).await;
    }
    assert_eq!(waits, [10, 10, 10, 30]);

    let who = simulation.client(2);
    simulation.send(who, Ok(())).await.unwrap();
    let mut permits = vec![];
    for _ in 0..20 {
        permits.push(simulation.enter(&url(), who, Instant::now()).await.unwrap());
    }
    let waits: Vec<_> = permits.into_iter().map(|permit| permit.finish(&Err::<(), _>(throttled()))).collect();
    assert!(waits.iter().all(|held| *held == Some((Class::Transient, seconds(2)))), "{waits:?}");
    sleep(seconds(2)).await;
    let first = simulation.enter(&url(), who, Instant::now()).await.unwrap();
    let second = timeout(seconds(60), simulation.enter(&url(), who, Instant::now())).await;
    assert!(second.is_err(), "one request in flight");
    first.finish(&Ok::<_, Error>(()));
}

#[tokio::test(start_paused = true)]
async fn ambiguous_failures_hold_back_no_other_client_and_open_no_circuit() {
    let simulation = Simulation::default();
    for client in 0..20 {
        simulation.send(simulation.client(client), Err(throttled())).await.unwrap();
    }
    assert!(simulation.limiter.circuit(TENANT, &url()).is_none());
    simulation.send(simulation.client(99), Ok(())).await.unwrap();
}
