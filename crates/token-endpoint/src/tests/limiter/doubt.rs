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

async fn doubted() -> Simulation {
    let simulation = Simulation::default();
    for scope in 0..3 {
        simulation.send(simulation.scope(scope), Err(denied())).await.unwrap();
    }
    simulation
}

fn last_attempt() -> Terms {
    Terms { patience: Some(seconds(16)), is_last_attempt: true, ..Terms::default() }
}

#[tokio::test(start_paused = true)]
async fn doubt_turn_that_was_not_sent_is_given_back() {
    for (terms, wait) in [(Terms::default(), 120), (last_attempt(), 0)] {
        let simulation = doubted().await;
        sleep(seconds(wait)).await;
        let started = Instant::now();
        let enter = async |scope| {
            simulation.enter_with(&url(), simulation.scope(scope), Instant::now(), terms).await.unwrap()
        };
        drop(enter(3).await);
        drop(enter(4).await);
        enter(5).await.finish(&Err::<(), _>(denied()));
        assert!(started.elapsed() < seconds(1), "{terms:?}: {:?}", started.elapsed());
        assert!(timeout(seconds(110), enter(6)).await.is_err(), "{terms:?}: it was sent");
    }
}

#[tokio::test(start_paused = true)]
async fn doubt_is_passed_by_one_last_attempt_in_two_minutes() {
    let simulation = doubted().await;
    let started = Instant::now();
    simulation.send_with(simulation.scope(3), last_attempt(), Err(denied())).await.unwrap();
    assert!(started.elapsed() < seconds(1), "{:?}", started.elapsed());
    let mut tasks = JoinSet::new();
    for scope in 10..100 {
        let simulation = simulation.clone();
        tasks.spawn(async move {
            let who = simulation.scope(scope);
            simulation.send_with(who, last_attempt(), Err(denied())).await.unwrap();
            started.elapsed().as_secs()
        });
    }
    let mut seen = vec![];
    let _ = timeout(seconds(590), async {
        while let Some(at) = tasks.join_next().await {
            seen.push(at.unwrap());
        }
    })
    .await;
    assert!((8..=9).contains(&seen.len()), "one of each kind in two minutes: {seen:?}");
}

/// Where a token lives, its deadline ends the wait, although the entry was parked long before it.
#[tokio::test(start_paused = true)]
async fn doubt_holds_a_request_with_a_live_token_until_its_deadline_at_most() {
    let simulation = doubted().await;
    // Those that were never tried and have no token go before it.
    let mut tasks = JoinSet::new();
    for scope in 100..200 {
        let simulation = simulation.clone();
        tasks.spawn(async move {
            let _ = simulation.send(simulation.scope(scope), Err(denied())).await;
        });
    }
    sleep(seconds(1)).await;
    let started = Instant::now();
    let deadline = started + seconds(300);
    let key = simulation.keys.load(Ordering::Relaxed);
    let patient = Terms { is_last_attempt: false, ..last_attempt() };
    let waiting = {
        let simulation = simulation.clone();
        tokio::spawn(async move {
            let permit = simulation.enter_with(&url(), simulation.scope(7), deadline, patient).await;
            permit.unwrap().finish(&Ok(()));
        })
    };
    sleep(seconds(290)).await;
    simulation.waiting.lock().unwrap().get_mut(&key).unwrap().1 = last_attempt();
    timeout(seconds(60), waiting).await.expect("its turn").unwrap();
    assert_eq!(started.elapsed().as_secs(), 300);
    assert!(timeout(seconds(5), tasks.join_all()).await.is_ok(), "the success ends doubt");
}

/// It was refused before, and those that were never tried have their own turns.
#[tokio::test(start_paused = true)]
async fn doubt_is_passed_by_a_last_attempt_that_was_refused_before() {
    let simulation = doubted().await;
    let untried = {
        let simulation = simulation.clone();
        tokio::spawn(async move { simulation.send(simulation.scope(9), Ok(())).await })
    };
    sleep(seconds(31)).await;
    let started = Instant::now();
    simulation.send_with(simulation.scope(0), last_attempt(), Err(denied())).await.unwrap();
    assert!(started.elapsed() < seconds(1), "{:?}", started.elapsed());
    assert!(!untried.is_finished());
    untried.await.unwrap().unwrap();
    assert!((80..=90).contains(&started.elapsed().as_secs()), "its turn stays: {:?}", started.elapsed());
}

/// A corrected refresh token does not wait for others that are tried again and again.
#[tokio::test(start_paused = true)]
async fn doubt_of_a_public_client_lets_new_grants_go_before_those_that_were_refused() {
    let simulation = Simulation::default();
    let who = |refresh_token| simulation.public(Some("public"), refresh_token);
    for refresh_token in 0..3 {
        simulation.send(who(refresh_token), Err(answer(401, "").unwrap_err())).await.unwrap();
    }
    sleep(seconds(31)).await;
    let mut waiting = JoinSet::new();
    for (refresh_token, deadline) in [(0, 1), (1, 2), (2, 3), (9, 60)] {
        let (simulation, who) = (simulation.clone(), who(refresh_token));
        let deadline = Instant::now() + seconds(deadline);
        waiting.spawn(async move {
            simulation.enter(&url(), who, deadline).await.unwrap().finish(&Ok(()));
            refresh_token
        });
    }
    assert_eq!(waiting.join_next().await.unwrap().unwrap(), 9);
    let others = waiting.join_all().await;
    assert_eq!(others.len(), 3, "its success ends the doubt");
}
