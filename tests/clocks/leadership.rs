//! What a wrong clock means for leadership.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;

use super::support::eventually;
use super::support::scene::{SOON, Scene};
use super::{Clocked, HOUR};

/// 2020, when this was written.
const YEARS: i64 = 7 * 366 * 24 * HOUR;

/// The name of the replica that leads.
async fn leader(scene: &Scene) -> Option<String> {
    let leases: Api<Lease> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let holder = leases.get_opt("tokensource-operator").await.unwrap()?.spec?.holder_identity?;
    holder.rsplit_once('_').map(|(name, _)| name.to_owned())
}

async fn leads(scene: &Scene, name: &str, limit: Duration) {
    eventually(&format!("{name} leads"), limit, async || match leader(scene).await {
        Some(holder) if holder == name => Ok(()),
        other => Err(other),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replica_whose_clock_cannot_be_right_releases_the_lease_and_stays_live() {
    let scene = Scene::bare("implausible").await;
    let a = Clocked::replica(&scene, "a").await;
    leads(&scene, "a", SOON).await;
    let _b = Clocked::replica(&scene, "b").await;
    a.clock.set(-YEARS);
    // The lease lasts 15 s: it was released.
    leads(&scene, "b", Duration::from_secs(10)).await;
    assert_eq!(a.operator().admin("/livez").await.0, 200, "a restart would mend nothing");
    assert_eq!(a.operator().said("does not lead"), 1, "{}", a.operator().log());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "make test-long"]
async fn clocks_that_are_doubtful_leave_the_lease_to_others_and_take_it_in_the_end() {
    let scene = Scene::bare("doubtful").await;
    let b = Clocked::replica(&scene, "b").await;
    leads(&scene, "b", SOON).await;
    let a = Clocked::replica(&scene, "a").await;
    a.clock.set(HOUR);
    eventually("the API server is heard twice", SOON, async || {
        a.metric("tokensource_clock_difference_seconds")
            .await
            .filter(|ahead| *ahead < -3500.0)
            .ok_or("not yet")
    })
    .await;
    b.clock.set(-YEARS); // it releases the lease, and no other replica is there
    let begun = Instant::now();
    leads(&scene, "a", SOON + SOON).await;
    assert!(begun.elapsed() >= Duration::from_secs(15), "{:?}", begun.elapsed());
    assert!(a.operator().said("repair the time synchronization") == 1, "{}", a.operator().log());
}
