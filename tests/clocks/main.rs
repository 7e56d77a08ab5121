//! The operator as a process whose wall clock is set, by libfaketime: a target never holds a token that its issuer counts as
//! expired, and setting a clock requests none.
//!
//! `make test` runs a sample with tokens of 20 s; `make test-long` all steps, with tokens of 60, 300 and 1800 s.
#![cfg(test)] // so that clippy lets helpers panic, too
#![cfg(target_os = "linux")] // libfaketime is preloaded
#![allow(clippy::print_stderr, reason = "what a run of half an hour has seen")]

#[path = "../support/mod.rs"]
mod support;

mod leadership;
mod steps;

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use support::eventually;
use support::operator::Operator;
use support::relay::Relay;
use support::scene::Scene;
use support::wall_clock::{WallClock, clean_up_after};

/// Operators start one after the other: forty at once would take longer than each may.
static STARTS: Semaphore = Semaphore::const_new(1);

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// An operator with a wall clock of its own. It reaches the API server without TLS, because certificates are judged by the
/// wall clock, and this API server's is an hour old.
struct Clocked {
    operator: Option<Operator>,
    pid: u32,
    clock: WallClock,
    _relay: Relay,
}

impl Clocked {
    /// One whose clock is so many seconds ahead.
    async fn start(scene: &Scene, ahead: i64) -> Self {
        Self::run(scene, "alone", ahead, &["--leader-elect=false"]).await
    }

    /// One of several replicas.
    async fn replica(scene: &Scene, name: &str) -> Self {
        Self::run(scene, name, 0, &["--leader-election-namespace", &scene.namespace]).await
    }

    async fn run(scene: &Scene, name: &str, ahead: i64, flags: &[&str]) -> Self {
        let (clock, relay) = (WallClock::new(ahead), Relay::start(scene.client.clone()).await);
        let usual =
            ["run", "--admin-address", "127.0.0.1:0", "--allow-http", "--egress-allow", "127.0.0.0/8"];
        let arguments = [&usual[..], &["--namespace", scene.namespace.as_str()], flags].concat();
        let environment = clock.environment();
        let environment: Vec<_> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let _start = STARTS.acquire().await.unwrap();
        let operator = Operator::launch_in(&relay.kubeconfig_path(), name, &arguments, &environment).await;
        let pid = operator.pid();
        Clocked { operator: Some(operator), pid, clock, _relay: relay }
    }

    fn operator(&self) -> &Operator {
        self.operator.as_ref().unwrap()
    }

    /// The value of a series of its metrics, by the beginning of the line.
    async fn metric(&self, series: &str) -> Option<f64> {
        let (_, _, text) = self.operator().admin("/metrics").await;
        let line = text.lines().find(|line| line.starts_with(series))?;
        line.rsplit_once(' ')?.1.parse().ok()
    }
}

impl Drop for Clocked {
    fn drop(&mut self) {
        drop(self.operator.take());
        clean_up_after(self.pid);
    }
}

/// Reads the target continuously, and asks the issuer whether it counts the token as expired.
struct Reader(JoinHandle<()>);

impl Reader {
    fn start(scene: &Scene, lifetime: u32) -> Self {
        let pause = Duration::from_millis(10 * u64::from(lifetime));
        let pause = pause.clamp(Duration::from_millis(200), Duration::from_secs(2));
        let (secrets, server) = (scene.secrets(), scene.server);
        Reader(tokio::spawn(async move {
            let token = async || {
                let secret = secrets.get_opt("token").await.unwrap()?;
                String::from_utf8(secret.data?.remove("access_token")?.0).ok()
            };
            loop {
                let before = token().await;
                if let Some(held) = &before
                    && !server.is_valid(held).await
                {
                    // It may have been replaced between the two questions.
                    let is_held = token().await == before;
                    assert!(!is_held, "the target holds a token that has expired at its issuer");
                }
                tokio::time::sleep(pause).await;
            }
        }))
    }

    /// Panics if a token was seen after its expiry.
    async fn stop(self) {
        self.0.abort();
        if let Err(error) = self.0.await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

/// Asserts that status and metrics show the token as the issuer does, whatever the operator's wall clock shows.
async fn assert_times_are_true(scene: &Scene, operator: &Clocked, what: &str) {
    let token = scene.token().await.unwrap();
    let truth = scene.server.introspect(&token).await.exp.unwrap();
    let close = |shown: i64| shown.abs_diff(truth) <= 6;
    eventually(&format!("{what}: status shows the true expiry"), Duration::from_secs(20), async || {
        let shown = scene.status().await.token.map(|token| token.expires_at.as_second());
        if shown.is_some_and(close) { Ok(()) } else { Err(format!("{shown:?}, not {truth}")) }
    })
    .await;
    scene.ready("True TokenValid").await;
    // Metrics follow at the end of the reconciliation that writes status.
    eventually(&format!("{what}: metrics show the true expiry"), Duration::from_secs(20), async || {
        let shown = operator.metric("tokensource_token_expiry_timestamp_seconds{").await;
        let is_true = |shown: f64| (shown - f64::from(i32::try_from(truth).unwrap())).abs() <= 6.0;
        if shown.is_some_and(is_true) { Ok(()) } else { Err(format!("{shown:?}, not {truth}")) }
    })
    .await;
    assert_eq!(operator.metric("tokensource_ready{").await, Some(1.0), "{what}");
    assert_eq!(operator.operator().admin("/livez").await.0, 200, "{what}");
}

/// Changes the record on the target, as another process would have written it.
async fn change_record(scene: &Scene, change: impl FnOnce(&mut Value)) {
    let mut record = scene.record().await;
    change(&mut record);
    let annotation = format!("tokensource.dev/record={record}");
    scene.kubectl(&["annotate", "secret", "token", "--overwrite", &annotation], "").await;
}

/// Moves both times of a record.
fn ahead(record: &mut Value, seconds: i64) {
    for name in ["issuedAt", "expiresAt"] {
        let time: Timestamp = record[name].as_str().unwrap().parse().unwrap();
        record[name] = json!(time + Duration::from_secs(seconds.unsigned_abs()));
    }
}
