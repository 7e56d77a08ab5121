//! The limits of an issuer hold for all its TokenSources together, and for no others, as the authorization server sees it.

use serde_json::{Value, json};

use super::super::support::authorization_server::Behaviour;
use super::super::support::eventually;
use super::super::support::operator::Operator;
use super::super::support::scene::{SOON, Scene};
use super::{client, issuer, names, operator_for, released, source};

/// TokenSources of the issuer in each of the two namespaces.
const EACH: usize = 10;
/// TokenSources with a provider of their own.
const OWN: usize = 12;

/// An issuer with these limits, an operator for it and two namespaces, of which the first has a client of its own at the same host.
async fn limited(prefix: &str, limits: Value) -> (Scene, [Scene; 2], Operator) {
    let release = Scene::bare(prefix).await;
    let tenants = [Scene::new(&format!("{prefix}-a"), 3600).await, Scene::bare(&format!("{prefix}-b")).await];
    client(&release).await;
    released(&release).await;
    let mut limited = issuer(&release, names(&[&tenants[0], &tenants[1]]));
    limited["spec"]["limits"] = limits;
    release.apply(limited).await;
    let operator = operator_for(&release, &[&tenants[0], &tenants[1]]).await;
    (release, tenants, operator)
}

/// TokenSources `prefix-N`.
fn many(prefix: &str, count: usize, source: impl Fn(&str) -> Value) -> Value {
    let items: Vec<_> = (0..count).map(|number| source(&format!("{prefix}-{number}"))).collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// Creates those of the issuer, and when its requests have begun, those with a provider of their own.
async fn create(release: &Scene, tenants: &[Scene; 2]) {
    for tenant in tenants {
        tenant.apply(many("lent", EACH, |name| source(release, name, json!({"scopes": ["read"]})))).await;
    }
    eventually("the issuer's client is used", SOON, async || match release.mints().await {
        0 => Err("no request"),
        _ => Ok(()),
    })
    .await;
    let own = |name: &str| {
        let mut own = tenants[0].source(json!({"target": {"name": name}}));
        own["metadata"]["name"] = json!(name);
        own
    };
    tenants[0].apply(many("own", OWN, own)).await;
}

async fn all_ready(tenants: &[Scene; 2]) {
    for number in 0..OWN {
        tenants[0].condition(&format!("own-{number}"), "Ready", "True TokenValid").await;
    }
    for tenant in tenants {
        for number in 0..EACH {
            tenant.condition(&format!("lent-{number}"), "Ready", "True TokenValid").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn issuer_is_asked_no_faster_than_its_rate_by_two_namespaces_and_others_at_its_host_are_not_slowed() {
    let (release, tenants, _operator) = limited("issuer-rate", json!({"maxPerSecond": 1})).await;
    create(&release, &tenants).await;
    all_ready(&tenants).await;
    let lent = release.server.requests(&release.namespace).await;
    let own = tenants[0].server.requests(&tenants[0].namespace).await;
    assert_eq!((lent.times.len(), own.times.len()), (2 * EACH, OWN));
    let seconds = |times: &[jiff::Timestamp]| times[times.len() - 1].duration_since(times[0]).as_secs_f64();
    // Each begins a second after the one before; how long it takes from there to the server differs.
    let shortest = (2 * EACH - 1) as f64 - 1.0;
    assert!(seconds(&lent.times) >= shortest, "{:?}", lent.times);
    // At that rate they would take eleven seconds.
    assert!(seconds(&own.times) < 8.0, "{:?}", own.times);
    assert!(own.times.last() < lent.times.last(), "{:?} {:?}", own.times, lent.times);
}

#[tokio::test(flavor = "multi_thread")]
async fn issuer_has_no_more_requests_in_flight_than_its_limit_and_others_at_its_host_are_not_slowed() {
    let (release, tenants, _operator) = limited("issuer-flight", json!({"maxInFlight": 2})).await;
    let slow = Behaviour { delay_ms: 1000, ..Behaviour::default() };
    release.server.behave(&release.namespace, Some(slow)).await;
    create(&release, &tenants).await;
    all_ready(&tenants).await;
    let lent = release.server.requests(&release.namespace).await;
    assert_eq!((lent.total, lent.most_underway), (2 * EACH as u64, 2));
    let own = tenants[0].server.requests(&tenants[0].namespace).await;
    assert!(own.times.last() < lent.times.last(), "{:?} {:?}", own.times, lent.times);
}
