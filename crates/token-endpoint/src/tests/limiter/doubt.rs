//! Clients that were refused several times and have never succeeded.

use super::*;

fn denied() -> Error {
    refused(401, "access_denied")
}

/// A wrong secret that the server reports as a matter of scopes.
#[tokio::test(start_paused = true)]
async fn doubt_thousand_scopes_with_one_wrong_secret_are_at_most_35_requests_in_an_hour() {
    let simulation = Simulation::default();
    let all = (0..1000).map(|scope| simulation.scope(scope)).collect();
    let seen = sources(&simulation, all, seconds(3600), |_| Err(denied())).await;
    assert!((20..=35).contains(&seen.len()), "{}", seen.len());
    let mut different: Vec<_> = seen.iter().map(|(_, source)| *source).collect();
    different.sort_unstable();
    different.dedup();
    assert!(different.len() + 2 >= seen.len(), "those that were never tried go first: {seen:?}");
}

#[tokio::test(start_paused = true)]
async fn doubt_ends_for_all_with_one_success() {
    let simulation = Simulation::default();
    let all = (0..1000).map(|scope| simulation.scope(scope)).collect();
    // The first five are refused.
    let answer = |source| if source < 5 { Err(denied()) } else { Ok(()) };
    let seen = sources(&simulation, all, seconds(600), answer).await;
    let first = |source: usize| seen.iter().find(|(_, other)| *other == source).map(|(at, _)| *at);
    assert!((0..3).all(|source| first(source).is_some_and(|at| at < 2)), "{seen:?}");
    assert!((115..125).contains(&first(3).unwrap()) && (235..245).contains(&first(4).unwrap()));
    assert!((355..365).contains(&first(5).unwrap()));
    assert!((6..1000).all(|source| first(source).is_some_and(|at| at < 380)), "100 a second");
}

#[tokio::test(start_paused = true)]
async fn doubt_is_never_of_a_client_that_has_succeeded_nor_of_one_request_alone() {
    let simulation = Simulation::default();
    simulation.send(simulation.scope(0), Ok(())).await.unwrap();
    for scope in 1..50 {
        simulation.send(simulation.scope(scope), Err(denied())).await.unwrap();
    }
    let started = Instant::now();
    simulation.send(simulation.scope(99), Ok(())).await.unwrap();
    assert!(started.elapsed() < seconds(1), "{:?}", started.elapsed());

    let simulation = Simulation::default();
    for wait in [31, 121, 601, 1801] {
        simulation.send(simulation.scope(1), Err(denied())).await.unwrap();
        sleep(seconds(wait)).await;
    }
    let started = Instant::now();
    simulation.send(simulation.scope(2), Ok(())).await.unwrap();
    assert!(started.elapsed() < seconds(1), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn doubt_is_told_for_entries_that_wait_because_of_it() {
    let simulation = Simulation::default();
    for scope in 0..3 {
        simulation.send(simulation.scope(scope), Err(denied())).await.unwrap();
    }
    let waiting = {
        let simulation = simulation.clone();
        tokio::spawn(async move { simulation.send(simulation.scope(7), Ok(())).await })
    };
    sleep(seconds(1)).await;
    let doubt = simulation.limiter.doubt(&3).unwrap();
    assert_eq!(doubt.code(), Some("access_denied"));
    assert!(simulation.limiter.doubt(&99).is_none());
    waiting.await.unwrap().unwrap();
    assert!(simulation.limiter.doubt(&3).is_none());
}
