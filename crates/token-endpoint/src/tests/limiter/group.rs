//! A client that several tenants are lent.

use super::*;
use crate::SharedBy;

const TENANTS: usize = 50;

/// Requests of a tenant with the client of the group, with this secret and scope.
fn who(simulation: &Simulation, secret: &str, scope: &str) -> RequestIdentity {
    let description = RequestDescription { scopes: vec![scope.into()], ..description() };
    let credentials = Credentials { client_secret: Some(secret.into()), ..credentials() };
    simulation.limiter.identity_in_group(
        ("group", &simulation.tenant),
        &description,
        &credentials,
        &Tls::default(),
    )
}

/// All tenants request one token at the same time, and repeat a request after the wait that its rejection names, until `end`. Returns
/// the number of requests that were sent. Each takes the endpoint some time.
async fn requests(
    simulation: &Simulation,
    end: Duration,
    answer: impl Fn(&str) -> Result<(), Error> + Clone + Send + Sync + 'static,
) -> usize {
    let (sent, end) = (Arc::new(AtomicUsize::new(0)), Instant::now() + end);
    let mut tenants = JoinSet::new();
    for tenant in 0..TENANTS {
        let tenant = simulation.of(&format!("tenant-{tenant}"));
        let (sent, answer) = (Arc::clone(&sent), answer.clone());
        tenants.spawn(async move {
            while Instant::now() < end {
                match tenant.enter(&url(), who(&tenant, "secret", "read"), Instant::now()).await {
                    Ok(permit) => {
                        sent.fetch_add(1, Ordering::Relaxed);
                        sleep(LATENCY).await;
                        let answer = answer(&tenant.tenant);
                        permit.finish(&answer);
                        if answer.is_ok() {
                            return;
                        }
                    }
                    Err(rejection) => {
                        assert_eq!(rejection.shared_by, SharedBy::Group);
                        sleep(rejection.retry_in).await;
                    }
                }
            }
        });
    }
    timeout(seconds(20_000), tenants.join_all()).await.expect("none is stuck");
    sent.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn group_client_that_is_rejected_is_asked_once_for_all_tenants() {
    let simulation = Simulation::new(Limits::default());
    assert_eq!(requests(&simulation, seconds(20), |_| Err(rejected())).await, 1);
    // At 0, 30, 150, 750, 2550 s: as for one tenant alone.
    let simulation = Simulation::new(Limits::default());
    assert_eq!(requests(&simulation, seconds(3600), |_| Err(rejected())).await, 5);
}

#[tokio::test(start_paused = true)]
async fn group_client_that_is_accepted_again_is_free_for_all_tenants() {
    let simulation = Simulation::new(Limits::default());
    let begun = Instant::now();
    let mended = move |_: &str| if begun.elapsed() < seconds(100) { Err(rejected()) } else { Ok(()) };
    assert_eq!(requests(&simulation, seconds(3600), mended).await, 2 + TENANTS);
    assert!(begun.elapsed() < seconds(160), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn group_rejection_ends_with_another_secret() {
    let simulation = Simulation::new(Limits::default());
    let (a, b) = (simulation.of("a"), simulation.of("b"));
    a.send(who(&a, "old", "read"), Err(rejected())).await.unwrap();
    assert_eq!(b.send(who(&b, "old", "write"), Ok(())).await.unwrap_err().shared_by, SharedBy::Group);
    b.send(who(&b, "new", "write"), Ok(())).await.unwrap();
    a.send(who(&a, "new", "read"), Ok(())).await.unwrap();
}

/// A password, for example, which the issuer's Secret has beside the client's.
#[tokio::test(start_paused = true)]
async fn group_rejection_ends_with_another_secret_parameter() {
    for method in [ClientAuthentication::None, ClientAuthentication::Post] {
        let simulation = Simulation::new(Limits::default());
        let who = |simulation: &Simulation, password: &str| {
            let description = RequestDescription { client_authentication: method.clone(), ..description() };
            let values = [("password".to_owned(), password.into())].into();
            let credentials = Credentials { values, ..credentials() };
            let owners = ("group", &*simulation.tenant);
            simulation.limiter.identity_in_group(owners, &description, &credentials, &Tls::default())
        };
        let (a, b) = (simulation.of("a"), simulation.of("b"));
        a.send(who(&a, "old"), Err(rejected())).await.unwrap();
        assert_eq!(b.send(who(&b, "old"), Ok(())).await.unwrap_err().shared_by, SharedBy::Group);
        b.send(who(&b, "new"), Ok(())).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn group_client_that_has_succeeded_is_known_beside_many_others() {
    let simulation = Simulation::new(Limits::default());
    let (a, b) = (simulation.of("a"), simulation.of("b"));
    b.send(who(&b, "secret", "read"), Ok(())).await.unwrap();
    for other in 0..200 {
        b.send(who(&b, &format!("other-{other}"), "read"), Ok(())).await.unwrap();
    }
    let vague = answer_with(401, &[], "").unwrap_err();
    a.send(who(&a, "secret", "admin"), Err(vague)).await.unwrap();
    b.send(who(&b, "secret", "read"), Ok(())).await.expect("one tenant's scope");
}

#[tokio::test(start_paused = true)]
async fn group_tenant_whose_scope_is_refused_slows_no_other() {
    let simulation = Simulation::new(Limits::default());
    let b = simulation.of("b");
    for (name, error) in
        [("a", refused(400, "invalid_scope")), ("c", refused(503, "access_denied")), ("d", transient())]
    {
        let other = simulation.of(name);
        other.send(who(&other, "secret", "admin"), Err(error)).await.unwrap();
        let begun = Instant::now();
        b.send(who(&b, "secret", "read"), Ok(())).await.unwrap();
        assert!(begun.elapsed() < seconds(1));
    }
    // Nor does a tenant that is asked to wait.
    let a = simulation.of("e");
    let asked = answer_with(429, &[("retry-after", "600")], "").unwrap_err();
    a.send(who(&a, "secret", "other"), Err(asked)).await.unwrap();
    b.send(who(&b, "secret", "write"), Ok(())).await.unwrap();
    assert_eq!(a.send(who(&a, "secret", "other"), Ok(())).await.unwrap_err().shared_by, SharedBy::Client);
}

#[tokio::test(start_paused = true)]
async fn group_client_that_has_succeeded_is_not_held_back_by_one_tenants_401_without_a_reason() {
    for vague in [answer_with(401, &[], "").unwrap_err(), refused(401, "unauthorized_client")] {
        let simulation = Simulation::new(Limits::default());
        let (a, b, c) = (simulation.of("a"), simulation.of("b"), simulation.of("c"));
        b.send(who(&b, "secret", "read"), Ok(())).await.unwrap();
        for _ in 0..2 {
            a.send(who(&a, "secret", "admin"), Err(vague.clone())).await.unwrap();
            let known = a.send(who(&a, "secret", "admin"), Ok(())).await.unwrap_err();
            assert_eq!(known.shared_by, SharedBy::Request);
            a.send(who(&a, "secret", "other"), Err(vague.clone())).await.unwrap();
            b.send(who(&b, "secret", "read"), Ok(())).await.unwrap();
            sleep(seconds(7200)).await;
        }
        // Two tenants in a row, and none that succeeds: it is the client.
        a.send(who(&a, "secret", "admin"), Err(vague.clone())).await.unwrap();
        b.send(who(&b, "secret", "read"), Err(vague.clone())).await.unwrap();
        assert_eq!(c.send(who(&c, "secret", "read"), Ok(())).await.unwrap_err().shared_by, SharedBy::Group);
    }
}

#[tokio::test(start_paused = true)]
async fn group_client_that_has_succeeded_for_one_tenant_is_not_in_doubt_for_another() {
    let simulation = Simulation::new(Limits::default());
    let (a, b) = (simulation.of("a"), simulation.of("b"));
    b.send(who(&b, "secret", "read"), Ok(())).await.unwrap();
    for scope in ["admin", "owner", "root"] {
        a.send(who(&a, "secret", scope), Err(refused(400, "invalid_scope"))).await.unwrap();
    }
    let begun = Instant::now();
    a.send(who(&a, "secret", "read"), Ok(())).await.unwrap();
    assert!(begun.elapsed() < seconds(1), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn group_trial_that_is_not_sent_leaves_its_turn_to_another_tenant() {
    let simulation = Simulation::new(Limits::default());
    let (a, b) = (simulation.of("a"), simulation.of("b"));
    let trial = a.enter(&url(), who(&a, "secret", "read"), Instant::now()).await.unwrap();
    let second = {
        let b = b.clone();
        tokio::spawn(async move { b.send(who(&b, "secret", "read"), Ok(())).await })
    };
    sleep(seconds(10)).await;
    assert!(!second.is_finished(), "it waits for what the endpoint says of the client");
    drop(trial);
    timeout(seconds(1), second).await.unwrap().unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn group_expedite_by_many_tenants_is_one_request_more() {
    let simulation = Simulation::new(Limits::default());
    let tenants: Vec<_> = (0..5).map(|tenant| simulation.of(&format!("tenant-{tenant}"))).collect();
    let read = |tenant: &Simulation| who(tenant, "secret", "read");
    let (mut sent, begun) = (0, Instant::now());
    while begun.elapsed() < seconds(301) {
        for tenant in &tenants {
            tenant.expedite(read(tenant));
            sent += usize::from(tenant.send(read(tenant), Err(rejected())).await.is_ok());
        }
        sleep(seconds(1)).await;
    }
    // At 0 and 30 s, once more at 60 s, and then after ten minutes.
    assert_eq!(sent, 3);
}

#[tokio::test(start_paused = true)]
async fn group_client_that_is_known_to_be_rejected_needs_nothing_to_be_read() {
    let limiter = Limiter::<usize>::new(Limits::default());
    let permit = async |tenant: &str| {
        limiter.enqueue(0, &tenant.into(), &url(), Instant::now());
        limiter.next().await.1
    };
    let a = limiter.identity_in_group(("group", "a"), &description(), &credentials(), &Tls::default());
    let Admission::Granted(sent) = permit("a").await.admit(a, Terms::default()) else {
        panic!("it may be sent")
    };
    sent.finish(&Err::<(), _>(rejected()));
    let client = a.group_client().unwrap();
    let Admission::Rejected(known) = permit("b").await.screen_group(client, Terms::default()) else {
        panic!("the answer is known")
    };
    assert_eq!((known.shared_by, rounded(known.retry_in)), (SharedBy::Group, seconds(30)));
}
