//! Ten thousand new TokenSources while each API call takes 200 ms, and one refresh that is due meanwhile.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::fleet::operator::Operator;
use crate::fleet::{Fleet, setting};
use crate::support::eventually;
use crate::support::relay::{Relay, Slow};

const CALL: Duration = Duration::from_millis(200);
/// Refreshed 90 s before its end, which is after 30 s: refreshes that come so soon have no jitter.
const LIFETIME: u32 = 120;
/// Its new token must be there 85 s before its end: five seconds after the refresh is due.
const DEADLINE_BEFORE_END: SignedDuration = SignedDuration::from_secs(85);
/// How long before the deadline the operator starts.
const HEAD_START: SignedDuration = SignedDuration::from_secs(20);

pub async fn run() -> Result<(), String> {
    let others = Fleet::create(setting("SOURCES", 10_000), 3600).await;
    let (urgent, deadline) = urgent().await;
    // All tokens from now on, the urgent one's next included.
    urgent.accept("secret", 3600).await;
    let ends = time(&record(&urgent).await.unwrap(), "expiresAt");

    let relay = Relay::start(urgent.client.clone()).await;
    relay.delay(Slow::Calls, CALL);
    let wait = Timestamp::now().duration_until(deadline) - HEAD_START;
    tokio::time::sleep(wait.try_into().expect("the deadline is far enough away")).await;
    let _operator = Operator::start_at(
        &relay.kubeconfig_path(),
        &["--namespace", &others.namespace, "--namespace", &urgent.namespace],
    );
    let mut written = None;
    while written.is_none() && Timestamp::now() < ends {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let is_new = record(&urgent).await.is_ok_and(|record| time(&record, "expiresAt") > ends);
        written = is_new.then(Timestamp::now);
    }
    let first = others.written().await;
    let Some(written) = written else {
        return Err(format!(
            "the Secret holds an expired token; {first} of {} first tokens were written meanwhile",
            others.sources
        ));
    };
    let late = (written - deadline).total(jiff::Unit::Second).unwrap();
    println!(
        "slow-api: the refresh was written {:.1} s after the start, {late:+.1} s from its deadline; {first} of {} first tokens were written meanwhile",
        late + HEAD_START.as_secs_f64(),
        others.sources
    );
    if late <= 0.0 { Ok(()) } else { Err(format!("the refresh was written {late:.1} s late")) }
}

/// A TokenSource alone in its namespace, with its first token, and when the next one must be there.
async fn urgent() -> (Fleet, Timestamp) {
    let fleet = Fleet::create(1, LIFETIME).await;
    let refresh = json!({"before": "90s", "propagationDelay": "85s"});
    let patch = Patch::Merge(json!({"spec": {"refresh": refresh}}));
    fleet.api().patch("source-0", &PatchParams::default(), &patch).await.unwrap();
    let operator = Operator::start_with(&["--namespace", &fleet.namespace]);
    let record = eventually("the first token", Duration::from_secs(30), async || record(&fleet).await).await;
    operator.stop(Duration::from_secs(60)).await;
    (fleet, time(&record, "expiresAt") - DEADLINE_BEFORE_END)
}

/// The operator's record of the token that the Secret holds.
async fn record(fleet: &Fleet) -> Result<Value, String> {
    let secret = fleet.secrets().get_metadata("token-0").await.map_err(|error| error.to_string())?;
    let annotations = secret.metadata.annotations.unwrap_or_default();
    let record = annotations.get("tokensource.dev/record").ok_or("no record yet")?;
    serde_json::from_str(record).map_err(|error| error.to_string())
}

fn time(record: &Value, name: &str) -> Timestamp {
    record[name].as_str().unwrap().parse().unwrap()
}
