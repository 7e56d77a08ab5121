//! Several operators for one namespace, as processes: one acts at a time, however it ends.
#![allow(clippy::print_stderr, reason = "how long a hand-over took, for docs/high-availability.md")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;
use tokio::task::JoinHandle;

use super::support::authorization_server::Behaviour;
use super::support::control_plane::ControlPlane;
use super::support::eventually;
use super::support::operator::Operator;
use super::support::relay::Relay;
use super::support::scene::{SOON, Scene};

/// Refreshed every 30 s, with 60 s left: longer than any handover.
const TTL: u32 = 90;
const SOURCES: usize = 5;
/// So long that no replica takes over by its expiry.
const LONG_LEASE: [&str; 2] = ["--leader-election-lease-duration", "10m"];

/// A replica with its own kubeconfig.
async fn replica_at(scene: &Scene, kubeconfig: &Path, name: &str, flags: &[&str]) -> Operator {
    Operator::replica(kubeconfig, &scene.namespace, name, flags).await
}

async fn replica(scene: &Scene, name: &str, flags: &[&str]) -> Operator {
    replica_at(scene, &ControlPlane::shared().kubeconfig_path(), name, flags).await
}

/// The name of the replica that leads.
async fn leader(scene: &Scene) -> Option<String> {
    let leases: Api<Lease> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let lease = leases.get_opt("tokensource-operator").await.unwrap()?;
    let holder = lease.spec?.holder_identity?;
    Some(holder.rsplit_once('_').expect("a name and a unique part").0.to_owned())
}

/// Waits until this replica leads, and returns how long that took.
async fn until_leads(scene: &Scene, name: &str) -> Duration {
    let begun = Instant::now();
    eventually(&format!("{name} leads"), 2 * SOON, async || match leader(scene).await {
        Some(holder) if holder == name => Ok(()),
        other => Err(other),
    })
    .await;
    begun.elapsed()
}

/// TokenSources `source-0` and so on with targets `token-0` and so on, each with a token.
async fn fleet(scene: &Scene) {
    for n in 0..SOURCES {
        let mut source = scene.source(json!({"target": {"name": format!("token-{n}")}}));
        source["metadata"]["name"] = json!(format!("source-{n}"));
        scene.apply(source).await;
    }
    for n in 0..SOURCES {
        scene.condition(&format!("source-{n}"), "Ready", "True TokenValid").await;
    }
}

/// Waits until refreshes are due in less than 300 ms.
async fn until_due(scene: &Scene) {
    eventually("a refresh is due", 2 * SOON, async || {
        let source = scene.sources().get("source-0").await.unwrap();
        let refresh_at = source.status.unwrap().token.unwrap().refresh_at;
        let left = refresh_at.duration_since(Timestamp::now());
        if left < SignedDuration::from_millis(300) { Ok(()) } else { Err(left) }
    })
    .await;
}

/// Reads the target Secrets continuously, as applications do.
struct TargetReader {
    seen: Arc<Mutex<SeenTokens>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct SeenTokens {
    /// The tokens seen, by Secret.
    tokens: BTreeMap<String, BTreeSet<String>>,
    /// Secrets that were seen with an expired token.
    expired: BTreeSet<String>,
}

impl SeenTokens {
    fn take_in(&mut self, secret: Secret) {
        let name = secret.metadata.name.unwrap();
        let data = secret.data.unwrap();
        let text = |key: &str| String::from_utf8(data[key].0.clone()).unwrap();
        if text("expires_at").parse::<Timestamp>().unwrap() <= Timestamp::now() {
            self.expired.insert(name.clone());
        }
        self.tokens.entry(name).or_default().insert(text("access_token"));
    }
}

impl TargetReader {
    fn start(scene: &Scene) -> Self {
        let seen = Arc::new(Mutex::new(SeenTokens::default()));
        let (secrets, shared) = (scene.secrets(), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            let ours = ListParams::default().labels("app.kubernetes.io/managed-by=tokensource-operator");
            loop {
                let listed = secrets.list(&ours).await.unwrap();
                listed.into_iter().for_each(|secret| shared.lock().unwrap().take_in(secret));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        TargetReader { seen, task }
    }

    /// How many tokens were seen so far, in all Secrets.
    fn tokens(&self) -> usize {
        self.seen.lock().unwrap().tokens.values().map(BTreeSet::len).sum()
    }

    /// Waits until so many tokens were seen in every Secret.
    async fn each_has_seen(&self, tokens: usize) {
        eventually("refreshes", 4 * SOON, async || {
            let seen = self.seen.lock().unwrap();
            let counts: Vec<usize> = seen.tokens.values().map(BTreeSet::len).collect();
            if counts.len() == SOURCES && counts.iter().all(|count| *count >= tokens) {
                Ok(())
            } else {
                Err(counts)
            }
        })
        .await;
    }

    /// Asserts that no expired token was ever seen.
    fn nothing_expired(&self) {
        assert_eq!(self.seen.lock().unwrap().expired, BTreeSet::new());
    }
}

impl Drop for TargetReader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits until every token that was issued was seen in its Secret, and no token request was in vain.
async fn every_token_was_written(scene: &Scene, reader: &TargetReader) {
    eventually("every token issued is written", SOON, async || {
        let (mints, tokens) = (scene.mints().await, reader.tokens() as u64);
        if mints == tokens { Ok(()) } else { Err((mints, tokens)) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn terminated_leader_hands_over_at_once_and_no_refresh_is_missed() {
    // Refreshed every 20 s, with 20 s left.
    let scene = Scene::new("hand-over", 40).await;
    let mut leading = replica(&scene, "replica-0", &LONG_LEASE).await;
    until_leads(&scene, "replica-0").await;
    let reader = TargetReader::start(&scene);
    fleet(&scene).await;
    for n in 1..=2 {
        let name = format!("replica-{n}");
        let standby = replica(&scene, &name, &LONG_LEASE).await;
        eventually("the standby is ready", SOON, async || match standby.admin("/readyz").await {
            (200, ..) => Ok(()),
            other => Err(other),
        })
        .await;
        reader.each_has_seen(n).await;
        until_due(&scene).await;
        let begun = Instant::now();
        let (log, _) = tokio::join!(leading.stop(), until_leads(&scene, &name));
        eprintln!("from SIGTERM to the next leader: {:?}", begun.elapsed());
        assert!(log.contains("released the lease"), "{log}");
        leading = standby;
    }
    reader.each_has_seen(3).await;
    reader.nothing_expired();
    every_token_was_written(&scene, &reader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn token_request_in_flight_is_written_before_lease_is_released() {
    let scene = Scene::new("hand-over-slow", 600).await;
    let slow = Behaviour { delay_ms: 3000, ..Behaviour::default() };
    scene.server.behave(&scene.namespace, Some(slow)).await;
    let first = replica(&scene, "first", &LONG_LEASE).await;
    until_leads(&scene, "first").await;
    let _second = replica(&scene, "second", &LONG_LEASE).await;
    scene.apply(scene.source(json!({}))).await;
    eventually("the request arrives", SOON, async || match scene.mints().await {
        1 => Ok(()),
        other => Err(other),
    })
    .await;
    first.signal("TERM");
    eventually("not ready any more, but alive", SOON, async || {
        let (ready, alive) = (first.admin("/readyz").await, first.admin("/livez").await.0);
        if ready.2.contains("[-]shutdown failed: stopping") && alive == 200 {
            Ok(())
        } else {
            Err((ready, alive))
        }
    })
    .await;
    assert_eq!(
        leader(&scene).await.as_deref(),
        Some("first"),
        "it keeps the lease while requests are in flight"
    );
    let log = first.ends().await;
    assert!(log.contains("released the lease"), "{log}");
    until_leads(&scene, "second").await;
    let token = scene.token().await.expect("written before another could lead");
    scene.source_is_seen().await;
    assert_eq!((scene.mints().await, scene.token().await), (1, Some(token)));
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_leader_is_replaced_when_its_lease_expires() {
    let scene = Scene::new("kill", TTL).await;
    let first = replica(&scene, "first", &[]).await;
    until_leads(&scene, "first").await;
    let reader = TargetReader::start(&scene);
    fleet(&scene).await;
    let _second = replica(&scene, "second", &[]).await;
    reader.each_has_seen(2).await;
    first.kill();
    let took = until_leads(&scene, "second").await;
    eprintln!("from SIGKILL to the next leader: {took:?}");
    reader.each_has_seen(3).await;
    reader.nothing_expired();
    every_token_was_written(&scene, &reader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paused_leader_overwrites_nothing_newer_and_costs_at_most_one_token_request() {
    let scene = Scene::new("pause", 600).await;
    // So that the pause begins during a token request, which is the worst moment.
    let slow = Behaviour { delay_ms: 2000, ..Behaviour::default() };
    scene.server.behave(&scene.namespace, Some(slow)).await;
    let first = replica(&scene, "first", &[]).await;
    until_leads(&scene, "first").await;
    let second = replica(&scene, "second", &[]).await;
    scene.apply(scene.source(json!({}))).await;
    eventually("the request arrives", SOON, async || match scene.mints().await {
        1 => Ok(()),
        other => Err(other),
    })
    .await;
    first.signal("STOP");
    until_leads(&scene, "second").await;
    let token = scene.new_token(None).await;
    assert_eq!(scene.mints().await, 2, "the token of the paused replica is superseded");

    first.signal("CONT");
    eventually("it notices that it does not lead", SOON, async || match first.said("not leading any more") {
        0 => Err(first.log()),
        _ => Ok(()),
    })
    .await;
    scene.source_is_seen().await;
    // It is a standby, and can lead again.
    second.stop().await;
    until_leads(&scene, "first").await;
    scene.source_is_seen().await;
    assert_eq!((scene.mints().await, scene.token().await), (2, Some(token)));
}

#[tokio::test(flavor = "multi_thread")]
async fn leader_unable_to_renew_lease_stops_before_another_begins_and_returns() {
    let scene = Scene::new("cut-off", TTL).await;
    let relay = Relay::start(scene.client.clone()).await;
    let first = replica_at(&scene, &relay.kubeconfig_path(), "first", &[]).await;
    until_leads(&scene, "first").await;
    let reader = TargetReader::start(&scene);
    fleet(&scene).await;
    let second = replica(&scene, "second", &[]).await;
    reader.each_has_seen(2).await;
    // It reaches everything but the lease: only the lost lease keeps it from requesting tokens.
    relay.hold("/leases");
    until_leads(&scene, "second").await;
    assert_eq!(first.said("not leading any more"), 1, "{}", first.log());
    reader.each_has_seen(3).await;
    every_token_was_written(&scene, &reader).await;

    relay.release();
    second.kill();
    until_leads(&scene, "first").await;
    reader.each_has_seen(5).await;
    reader.nothing_expired();
    every_token_was_written(&scene, &reader).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn standby_is_ready_writes_nothing_and_takes_over_without_list() {
    let scene = Scene::new("standby", 600).await;
    let first = replica(&scene, "first", &LONG_LEASE).await;
    until_leads(&scene, "first").await;
    let relay = Relay::start(scene.client.clone()).await;
    let second = replica_at(&scene, &relay.kubeconfig_path(), "second", &LONG_LEASE).await;
    eventually("the standby is ready", SOON, async || match second.admin("/readyz").await {
        (200, ..) => Ok(()),
        other => Err(other),
    })
    .await;
    let lists = relay.lists();
    fleet(&scene).await;
    let wrong = scene.source(json!({"credentials": {"secretRef": {"name": "missing"}}}));
    scene.apply(wrong).await;
    scene.ready("False CredentialsNotFound").await;
    assert_eq!(relay.writes(), Vec::<String>::new());
    assert_eq!(second.said("another process leads"), 1);

    first.stop().await;
    until_leads(&scene, "second").await;
    scene
        .patch(
            "tokensource",
            "source",
            json!({"spec": {"credentials": {"secretRef": {"name": "credentials"}}}}),
        )
        .await;
    scene.ready("True TokenValid").await;
    assert_eq!(relay.lists(), lists);
    assert_eq!(scene.mints().await, SOURCES as u64 + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_three_simultaneous_starters_leads() {
    let scene = Scene::new("together", 600).await;
    let (first, second, third) = tokio::join!(
        replica(&scene, "first", &[]),
        replica(&scene, "second", &[]),
        replica(&scene, "third", &[]),
    );
    let all = [first, second, third];
    fleet(&scene).await;
    eventually("each knows who leads", SOON, async || {
        let counts = ["INFO leading", "another process leads"]
            .map(|words| all.iter().filter(|replica| replica.said(words) == 1).count());
        if counts == [1, 2] { Ok(()) } else { Err(counts) }
    })
    .await;
    assert_eq!(scene.mints().await, SOURCES as u64);
    for replica in &all {
        let metrics = replica.admin("/metrics").await.2;
        let leads = format!("\ntokensource_leader {}\n", replica.said("INFO leading"));
        assert!(metrics.contains(&leads), "{leads:?} is not in:\n{metrics}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn token_received_while_api_server_is_down_is_written_before_exit() {
    let scene = Scene::new("end-cut-off", 600).await;
    let relay = Relay::start(scene.client.clone()).await;
    let slow = Behaviour { delay_ms: 2000, ..Behaviour::default() };
    scene.server.behave(&scene.namespace, Some(slow)).await;
    let flags = ["--allow-http", "--egress-allow", "127.0.0.0/8"];
    let operator = Operator::start_at(&relay.kubeconfig_path(), &scene.namespace, &flags).await;
    scene.apply(scene.source(json!({}))).await;
    eventually("the request arrives", SOON, async || match scene.mints().await {
        1 => Ok(()),
        other => Err(other),
    })
    .await;
    // Longer than the timeout of one call.
    relay.hold("/secrets");
    operator.signal("TERM");
    eventually("the write is retried", SOON, async || match operator.said("not written yet: trying again") {
        0 => Err(operator.log()),
        _ => Ok(()),
    })
    .await;
    relay.release();
    operator.ends().await;
    assert!(scene.server.is_valid(&scene.token().await.expect("it is written")).await);
    assert_eq!(scene.mints().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn unwritten_token_is_dropped_when_another_replica_wrote_newer_one() {
    let scene = Scene::new("outrun", 600).await;
    let relay = Relay::start(scene.client.clone()).await;
    let slow = Behaviour { delay_ms: 2000, ..Behaviour::default() };
    scene.server.behave(&scene.namespace, Some(slow)).await;
    let first = replica_at(&scene, &relay.kubeconfig_path(), "first", &[]).await;
    until_leads(&scene, "first").await;
    scene.apply(scene.source(json!({}))).await;
    eventually("the request arrives", SOON, async || match scene.mints().await {
        1 => Ok(()),
        other => Err(other),
    })
    .await;
    relay.hold("/");
    let second = replica(&scene, "second", &[]).await;
    let token = scene.new_token(None).await;
    eventually("the first one tries to write its token", SOON, async || {
        match first.said("not written yet: trying again") {
            0 => Err(first.log()),
            _ => Ok(()),
        }
    })
    .await;

    relay.release();
    second.stop().await;
    until_leads(&scene, "first").await;
    let request = "tokensource.dev/refresh-requested-at=1";
    scene.kubectl(&["annotate", "tokensource", "source", request], "").await;
    scene.new_token(Some(&token)).await;
    assert_eq!(scene.mints().await, 3);
    let tries = first.said("not written yet: trying again");
    assert!(tries < 10, "{tries} of 20 attempts, although there is a newer token");
}

#[tokio::test(flavor = "multi_thread")]
async fn second_signal_ends_operator_at_once() {
    let scene = Scene::new("second-signal", 600).await;
    let slow = Behaviour { delay_ms: 4500, ..Behaviour::default() };
    scene.server.behave(&scene.namespace, Some(slow)).await;
    let mut operator = Operator::start(&scene.namespace).await;
    scene.apply(scene.source(json!({}))).await;
    eventually("the request arrives", SOON, async || match scene.mints().await {
        1 => Ok(()),
        other => Err(other),
    })
    .await;
    operator.signal("TERM");
    eventually("it stops", SOON, async || match operator.said("stopping") {
        0 => Err(operator.log()),
        _ => Ok(()),
    })
    .await;
    operator.signal("INT");
    let status = eventually("it ends", SOON, async || operator.exit_status().ok_or("runs")).await;
    assert_eq!((status.code(), scene.token().await), (Some(1), None));
}
