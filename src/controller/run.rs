//! The order of starting and ending: the watches always, the two queues while this process leads.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use kube::Client;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tracing::{Instrument, error, warn};

use super::api_permits::{ApiPermit, Stake};
use super::cache::source::CachedSource;
use super::context::Context;
use super::reconcile::reconcile;
use super::{mint, spans, watch};
use crate::heartbeat::Loop;
use crate::key::Key;

/// How often the work queue shows that it makes progress.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// The wait before a TokenSource is reconciled again whose reconciliation panicked.
const PANIC_WAIT: Duration = Duration::from_secs(60);
/// The wait before what could not be written is tried again, when nothing new is begun any more.
const LAST_WRITE_WAIT: Duration = Duration::from_secs(1);
/// How long that is tried, after the last token request has ended.
const LAST_WRITES: Duration = Duration::from_secs(20);

/// Keeps the tokens of the TokenSources of `namespaces` (all where empty) fresh whenever this process leads, until it must
/// stop. A process that does not lead follows the watches too, and so can act at once when it does.
pub async fn run(client: Client, namespaces: &[String], context: Arc<Context>) {
    tokio::select! {
        () = watch::run(client, namespaces, &context) => {}
        () = lead(&context) => {}
    }
}

/// Runs both queues whenever this process leads, until it must stop and what had begun has ended.
async fn lead(context: &Arc<Context>) {
    while !context.leadership.is_stopping() {
        let may_act = async {
            context.leadership.wait_until_leading().await;
            context.warm().await;
        };
        tokio::select! {
            () = may_act => {}
            () = context.leadership.wait_until_stopping() => return,
            () = keep_beating(context) => {}
        }
        context.trigger_all();
        let ended = Notify::new();
        let mints = async {
            mint::run(context).await;
            ended.notify_one();
            // The work queue may still write results.
            loop {
                context.heartbeats.beat(Loop::MintQueue);
                sleep(HEARTBEAT).await;
            }
        };
        tokio::select! {
            () = mints => {}
            () = work(context, &ended) => {}
        }
        context.heartbeats.rest();
        context.end_term();
    }
}

/// A process that does not lead has nothing to do, and shows that it would.
async fn keep_beating(context: &Context) {
    loop {
        context.heartbeats.beat(Loop::WorkQueue);
        context.heartbeats.beat(Loop::MintQueue);
        context.work.retain(|_| false);
        sleep(HEARTBEAT).await;
    }
}

/// Reconciles what is due while this process leads. Then only writes what token requests have brought and still bring: it
/// is in memory alone.
async fn work(context: &Arc<Context>, mints_ended: &Notify) {
    let mut running = JoinSet::new();
    let mut last_result_at = None;
    let ends = context.leadership.wait_until_ended();
    tokio::pin!(ends);
    let mut has_ended = false;
    loop {
        context.heartbeats.beat(Loop::WorkQueue);
        let urgency = |key: &Key| context.urgency(key);
        tokio::select! {
            () = &mut ends, if !has_ended => {
                has_ended = true;
                context.work.retain(|key| context.has_unwritten(key));
                context.states.unwritten().into_iter().for_each(|source| context.trigger(source));
            }
            () = mints_ended.notified(), if last_result_at.is_none() => last_result_at = Some(Instant::now()),
            (key, permit) = context.work.next(Stake::Token, &context.permits, urgency) => {
                running.spawn(reconcile_one(Arc::clone(context), key, permit));
            }
            (key, permit) = context.work.next(Stake::Nothing, &context.permits, urgency) => {
                running.spawn(reconcile_one(Arc::clone(context), key, permit));
            }
            key = context.rounds.ended() => context.trigger(key),
            Some(_) = running.join_next() => {}
            () = sleep(if has_ended { LAST_WRITE_WAIT } else { HEARTBEAT }) => {}
        }
        if has_ended {
            context.work.retain(|key| context.has_unwritten(key));
        }
        if let Some(last_result_at) = last_result_at
            && has_ended
            && running.is_empty()
            && (context.work.len() == 0 || last_result_at.elapsed() > LAST_WRITES)
        {
            break;
        }
    }
    context.work.retain(|_| false);
}

/// A TokenSource that is being reconciled. It goes back to the work queue however that ends.
struct Running {
    context: Arc<Context>,
    key: Key,
    /// After how long to do it again, if nothing triggers it before.
    again: Option<Duration>,
}

impl Running {
    fn new(context: Arc<Context>, key: Key) -> Self {
        Running { context, key, again: Some(PANIC_WAIT) }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            error!(source = %self.key, "a bug: the reconciliation of this TokenSource panicked");
            self.context.metrics.count_panic();
        }
        self.context.work.done(self.key.clone(), self.again.map(|after| Instant::now() + after));
    }
}

/// Reconciles one TokenSource. It never fails, so that its trouble is its own.
async fn reconcile_one(context: Arc<Context>, key: Key, permit: ApiPermit) {
    let mut running = Running::new(Arc::clone(&context), key.clone());
    let _beat = context.heartbeats.reconciling();
    let may_begin = context.leadership.may_start();
    let is_selected = context.namespaces.selects(&key.namespace);
    if !is_selected {
        context.mints.cancel(&key);
    }
    let again = match context.sources.get(&key) {
        Some(source) if (may_begin && is_selected) || context.has_unwritten(&key) => {
            let again = reconcile_source(&source, &context).await;
            if !may_begin && context.has_unwritten(&key) {
                warn!(source = %key, "tokens are not written yet: trying again");
            }
            again
        }
        // Gone meanwhile, with what a token request brings.
        None => {
            drop(context.mints.take_result(&key));
            context.rounds.take(&key);
            None
        }
        Some(_) => None,
    };
    drop(permit);
    let again = if may_begin { again } else { again.map(|again| again.min(LAST_WRITE_WAIT)) };
    context.metrics.next_reconcile(&key, again);
    if !context.serves(&key) {
        context.metrics.forget(&key);
    }
    running.again = again;
}

async fn reconcile_source(source: &Arc<CachedSource>, context: &Arc<Context>) -> Option<Duration> {
    let key = &source.key;
    let _measured = context.metrics.reconciling(key);
    let mut state = context.states.take(key);
    let reconciled = {
        let work = reconcile(source, &mut state, context).instrument(spans::reconcile(key));
        AssertUnwindSafe(Box::pin(work)).catch_unwind().await
    };
    // What waits to be written outlives a panic.
    context.states.put(key, state, !context.sources.knows(key));
    reconciled.unwrap_or_else(|_| {
        error!(source = %key, "a bug: the reconciliation of this TokenSource panicked");
        context.metrics.count_panic();
        Some(PANIC_WAIT)
    })
}

#[cfg(test)]
mod tests {
    use std::mem::size_of;
    use std::sync::Mutex;

    use jiff::Timestamp;
    use serde_json::{Value, json};
    use tokio::sync::watch;

    use super::super::context::Parts;
    use super::super::mint_queue::{MintRequest, MintResult, NewToken};
    use super::super::outcome::Outcome;
    use super::super::report_rate::ReportTimes;
    use super::super::state::{Restoration, SourceState};
    use super::*;
    use crate::clock::Clock;
    use crate::cluster::{Kubernetes, SourceObject};
    use crate::heartbeat::Heartbeats;
    use crate::leadership::Leadership;
    use crate::metrics::Metrics;
    use crate::refresh::{Cause, MintReason, Policy};
    use crate::secret::{Facts, Inputs, KeySet, Minted, Owner, Record, Version};
    use crate::spec::Resolved;
    use token_endpoint::{Egress, Limits, Transport};

    /// A context that leads until `true` is sent, with an API server that answers nothing but errors.
    fn context() -> (watch::Sender<bool>, Arc<Context>) {
        let (stop, context, _) = context_with_calls();
        (stop, context)
    }

    /// The same, with the calls to the API server.
    fn context_with_calls() -> (watch::Sender<bool>, Arc<Context>, Arc<Mutex<Vec<String>>>) {
        let (stop, stopping) = watch::channel(false);
        let (context, calls) = context_led_by(Leadership::without_election(Arc::default(), stopping));
        (stop, context, calls)
    }

    fn context_led_by(leadership: Leadership) -> (Arc<Context>, Arc<Mutex<Vec<String>>>) {
        context_with_api_server(leadership, false)
    }

    /// With an API server that accepts a status, or answers nothing but errors.
    fn context_with_api_server(
        leadership: Leadership,
        accepts_status: bool,
    ) -> (Arc<Context>, Arc<Mutex<Vec<String>>>) {
        token_endpoint::transport::install_crypto_provider();
        let calls = Arc::<Mutex<Vec<String>>>::default();
        let made = Arc::clone(&calls);
        let unavailable = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            made.lock().unwrap().push(format!("{} {}", request.method(), request.uri().path()));
            let accepts = accepts_status && request.uri().path().ends_with("/status");
            async move {
                let (status, body) = if accepts {
                    (200, json!({"metadata": {"resourceVersion": "2"}}).to_string().into_bytes())
                } else {
                    (503, vec![])
                };
                let response = http::Response::builder().status(status);
                Ok::<_, std::convert::Infallible>(response.body(kube::client::Body::from(body)).unwrap())
            }
        });
        let clock = Arc::new(Clock::new());
        let context = Context::new(Parts {
            kubernetes: Kubernetes::new(Client::new(unavailable, "default")),
            transport: Transport::new(Arc::new(Egress::new(vec![], None, false, vec![])), "test").unwrap(),
            limits: Limits::default(),
            watches: 1,
            leadership,
            heartbeats: Arc::new(Heartbeats::default()),
            metrics: Arc::new(Metrics::new(Arc::clone(&clock))),
            clock,
            propagation_delay: 90,
            change_interval: Duration::from_secs(30),
            namespace_selector: None,
            require_credentials_label: false,
            template_metadata_only: vec![],
            instance: "test".into(),
            process: "test_1".into(),
            lease_duration: Duration::from_secs(15),
        });
        context.secrets.first_list_read();
        (Arc::new(context), calls)
    }

    /// A TokenSource in the cache.
    fn source(context: &Context, spec: Value) -> Key {
        source_named(context, "a", spec)
    }

    fn source_named(context: &Context, name: &str, spec: Value) -> Key {
        let ready = json!({"type": "Ready", "status": "True", "reason": "TokenValid", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        let status = json!({"conditions": [ready]});
        let metadata = json!({"namespace": "ns", "name": name, "uid": "u", "resourceVersion": "1", "generation": 1,
            "annotations": {"tokensource.dev/refresh-requested-at": "now"}});
        let object: SourceObject =
            serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap();
        let key = context.sources.put(object.into()).key;
        let names = Arc::clone(&context.sources.get(&key).unwrap().secrets);
        context.secrets.reference(&key, &[], &names);
        key
    }

    fn observe(context: &Context, secret: &Key, facts: Option<Facts>) {
        assert!(context.secrets.observe(secret, context.secrets.sending(secret), facts));
    }

    fn record(token_id: &str, expires_in: i64) -> Record {
        let now = Timestamp::now().as_second();
        let minted = Minted {
            issued_at: Timestamp::from_second(now).unwrap(),
            expires_at: Timestamp::from_second(now + expires_in).unwrap(),
            token_id: token_id.into(),
            token_type: "Bearer".into(),
            scope: None,
            lifetime_is_assumed: false,
            is_jwt: false,
            remarks: vec![],
        };
        let version = Version { uid: "c".into(), resource_version: "1".into() };
        let inputs = Inputs { provider: "p".into(), credentials: version };
        Record::new(Owner { name: "a".into(), uid: "u".into() }, inputs, None, minted, None)
    }

    /// A token request in flight gets this result.
    async fn requested(context: &Context, key: &Key, outcome: Result<Box<NewToken>, Outcome>) {
        let policy = Policy { before: None, max_interval: 3600, propagation_delay: 90 };
        let request =
            MintRequest { reason: MintReason::Due, cause: None, policy, expedite: false, original: None };
        context.mints.request(key, request, &"https://idp.example.com".parse().unwrap(), Instant::now());
        let (next, permit) = context.mints.next().await;
        context.mints.begin(&next).unwrap();
        drop(permit);
        let result = MintResult { outcome, ..MintResult::empty("u".into(), MintReason::Due, None) };
        context.mints.finish(key, result);
    }

    fn new_token(context: &Context) -> Box<NewToken> {
        Box::new(NewToken {
            record: record("new", 600),
            replaces: None,
            access_token: "token".into(),
            values: Default::default(),
            credentials: None,
            refresh_at: Timestamp::MAX,
            rewound: 0,
            received_at: Instant::now(),
            unwritten: Some(context.mints.count_unwritten()),
            is_blocked: false,
        })
    }

    /// How long it takes to stop.
    async fn stops(stop: &watch::Sender<bool>, context: &Arc<Context>) -> Duration {
        let running = tokio::spawn({
            let context = Arc::clone(context);
            async move { lead(&context).await }
        });
        tokio::time::sleep(Duration::from_secs(2)).await;
        let stopped_at = Instant::now();
        stop.send_replace(true);
        tokio::time::timeout(Duration::from_secs(120), running).await.expect("it stops").unwrap();
        stopped_at.elapsed()
    }

    /// The CustomResourceDefinition may have changed while the request was in flight.
    #[tokio::test(start_paused = true)]
    async fn result_for_a_source_that_does_not_fit_the_schema_does_not_keep_the_process() {
        let (stop, context) = context();
        let key = source(&context, json!({"provider": 1}));
        requested(&context, &key, Err(Outcome::Retry)).await;
        assert!(stops(&stop, &context).await < Duration::from_secs(2));
        assert!(!context.mints.has_result(&key));
    }

    /// A person has suspended the TokenSource while the request was in flight.
    #[tokio::test(start_paused = true)]
    async fn token_that_nothing_can_write_does_not_delay_the_end() {
        let (stop, context) = context();
        let key = source(
            &context,
            json!({"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "c"}}, "suspend": true}),
        );
        observe(&context, &key.sibling("c"), None);
        let target = Facts {
            version: Version { uid: "t".into(), resource_version: "1".into() },
            terminating: false,
            controller: None,
            record: Some(Arc::new(record("old", 300))),
            labelled: true,
            released: false,
            refresh_token_of: None,
            refresh_token_sent: None,
            offered_to: None,
            other_writer: None,
            owned_keys: KeySet::from_iter(["access_token"]),
            stored_at: None,
        };
        observe(&context, &key, Some(target));
        requested(&context, &key, Ok(new_token(&context))).await;
        let took = stops(&stop, &context).await;
        assert!(took < Duration::from_secs(3), "{took:?}");
    }

    /// While this process did not lead, another one may have written a newer token.
    #[tokio::test(start_paused = true)]
    async fn pending_token_does_not_survive_a_lost_term() {
        let clock = Arc::new(Clock::new());
        let lease_end = || Some(clock.moment().plus(Duration::from_secs(3600)));
        let (lease, leads) = watch::channel(lease_end());
        let (_stop, stopping) = watch::channel(false);
        let (context, calls) = context_led_by(Leadership::new(leads, Arc::clone(&clock), stopping));
        let spec = json!({"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "c"}}});
        let key = source(&context, spec);
        observe(&context, &key.sibling("c"), None);
        observe(&context, &key, None);
        requested(&context, &key, Ok(new_token(&context))).await;
        let running = tokio::spawn({
            let context = Arc::clone(&context);
            async move { lead(&context).await }
        });
        sleep(Duration::from_secs(10)).await;
        lease.send_replace(None);
        sleep(Duration::from_secs(60)).await;
        let count = || context.mints.unwritten();
        assert_eq!(count(), 0, "{:?}", calls.lock().unwrap());
        lease.send_replace(lease_end());
        sleep(Duration::from_secs(10)).await;
        assert!(context.states.take(&key).pending.is_none());
        running.abort();
    }

    /// Requests in flight may wait for the API server, for minutes; a restart would help nobody.
    #[tokio::test(start_paused = true)]
    async fn mint_queue_has_heartbeats_while_its_requests_end_after_a_lost_lease() {
        let clock = Arc::new(Clock::new());
        let lease_end = || Some(clock.moment().plus(Duration::from_secs(3600)));
        let (lease, leads) = watch::channel(lease_end());
        let (_stop, stopping) = watch::channel(false);
        let (context, _) = context_led_by(Leadership::new(leads, Arc::clone(&clock), stopping));
        let spec = json!({"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "c"}}});
        let key = source(&context, spec);
        let facts = json!({"uid": "u", "resourceVersion": "1"});
        let facts = Facts::of(&serde_json::from_value(facts).unwrap());
        observe(&context, &key.sibling("c"), facts);
        observe(&context, &key, None);
        let mut permits = vec![];
        for _ in 0..32 {
            permits.push(context.permits.acquire(Instant::now(), Stake::Token).await);
        }
        let policy = Policy { before: None, max_interval: 3600, propagation_delay: 90 };
        let request =
            MintRequest { reason: MintReason::Due, cause: None, policy, expedite: false, original: None };
        context.mints.request(&key, request, &"https://idp.example.com".parse().unwrap(), Instant::now());
        let running = tokio::spawn({
            let context = Arc::clone(&context);
            async move { lead(&context).await }
        });
        sleep(Duration::from_secs(5)).await;
        assert!(!context.mints.is_idle(), "in flight");
        lease.send_replace(None);
        for _ in 0..20 {
            sleep(Duration::from_secs(15)).await;
            for queue in [Loop::WorkQueue, Loop::MintQueue] {
                assert_eq!(context.heartbeats.check(queue, Instant::now()), Ok(()));
            }
        }
        drop(permits);
        running.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn source_whose_reconciliation_panics_anywhere_is_reconciled_again() {
        let (_stop, context) = context();
        let key = Key::new("ns", "a");
        context.trigger(key.clone());
        let next = || context.work.next(Stake::Nothing, &context.permits, |key| context.urgency(key));
        let (begun, _permit) = next().await;
        let running = Running::new(Arc::clone(&context), begun);
        let panicked = tokio::spawn(async move {
            let _running = running;
            panic!("a bug");
        });
        assert!(panicked.await.is_err());
        let before = Instant::now();
        assert_eq!(tokio::time::timeout(2 * PANIC_WAIT, next()).await.unwrap().0, key);
        assert_eq!(before.elapsed(), PANIC_WAIT);
    }

    #[tokio::test(start_paused = true)]
    async fn sources_that_request_tokens_with_what_they_write_are_stalled() {
        let (_stop, context, calls) = context_with_calls();
        let spec = |target: &str, credentials: &str| json!({"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": credentials}}, "target": {"name": target}});
        let circle = [("x", "y", "z"), ("y", "z", "x"), ("z", "x", "y")];
        let circle =
            circle.map(|(name, target, credentials)| source_named(&context, name, spec(target, credentials)));
        // One whose credentials are written by one of them, and one of a chain that begins with a person.
        let fed = source_named(&context, "fed", spec("fed", "x"));
        let chain = source_named(&context, "chain", spec("chain", "fed"));
        let reports = async |key: &Key| {
            let before = calls.lock().unwrap().len();
            let cached = context.sources.get(key).unwrap();
            let mut state = context.states.take(key);
            reconcile(&cached, &mut state, &context).await;
            calls.lock().unwrap()[before..].concat()
        };
        for key in &circle {
            let made = reports(key).await;
            assert_eq!(
                made,
                format!(
                    "PATCH /apis/tokensource.dev/v1alpha1/namespaces/ns/tokensources/{}/status",
                    key.name
                )
            );
        }
        for key in [&fed, &chain] {
            let made = reports(key).await;
            assert!(made.starts_with("GET /api/v1/namespaces/ns/secrets/"), "{made}");
        }
    }

    /// The target holds a token that was requested for the spec.
    fn with_token(context: &Context, key: &Key, expires_in: i64) -> (Arc<CachedSource>, SourceState) {
        let cached = context.sources.get(key).unwrap();
        let wanted = Resolved::of(&cached.source().unwrap(), 90).unwrap().wanted;
        let mut record = record("old", expires_in);
        record.inputs.provider.clone_from(&wanted.provider);
        record.template.clone_from(&wanted.template);
        observe(context, &key.sibling("c"), Some(facts("c", "1", None, wanted.keys)));
        observe(context, key, Some(facts("t", "1", Some(record), wanted.keys)));
        let mut state = context.states.take(key);
        state.uid = "u".into();
        state.write_allowed = true;
        (cached, state)
    }

    fn facts(uid: &str, resource_version: &str, record: Option<Record>, owned_keys: KeySet) -> Facts {
        Facts {
            version: Version { uid: uid.into(), resource_version: resource_version.into() },
            terminating: false,
            controller: None,
            record: record.map(Arc::new),
            labelled: true,
            released: false,
            refresh_token_of: None,
            refresh_token_sent: None,
            offered_to: None,
            other_writer: None,
            owned_keys,
            stored_at: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn change_counts_as_the_cause_of_a_request_only_where_that_was_sent() {
        let (_stop, context) = context();
        let key =
            source(&context, json!({"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "c"}}}));
        let (cached, mut state) = with_token(&context, &key, 3000);
        let sent_at = Some((Timestamp::now(), Instant::now()));
        sleep(Duration::from_secs(20)).await;
        for (sent_at, expected) in [(None, true), (None, true), (sent_at, false)] {
            reconcile(&cached, &mut state, &context).await;
            let (next, permit) = context.mints.next().await;
            let request = context.mints.begin(&next).unwrap();
            assert_eq!(request.cause, Some(Cause::Request));
            drop(permit);
            let result = MintResult::empty("u".into(), request.reason, request.cause);
            context.mints.finish(&key, MintResult { sent_at, ..result });
            reconcile(&cached, &mut state, &context).await;
            assert_eq!(context.mints.is_minting(&key), expected, "sent at {sent_at:?}");
        }
        sleep(Duration::from_secs(11)).await;
        reconcile(&cached, &mut state, &context).await;
        assert!(context.mints.is_minting(&key), "30 s after it was sent, whenever the response came");
    }

    #[tokio::test(start_paused = true)]
    async fn label_that_is_set_while_a_change_is_held_back_is_no_other_change() {
        let (_stop, context) = context();
        let key =
            source(&context, json!({"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "c"}}}));
        let (cached, mut state) = with_token(&context, &key, 3000);
        let now = Timestamp::now();
        state.restored = Some(Box::new(Restoration::again(None, now, None)));
        let least = Duration::from_secs(30);
        state.dampings.get_or_insert_default().of(Cause::Target).requested(least, Instant::now());
        let record = context.secrets.known(&key).present().unwrap().record.as_deref().cloned();
        for resource_version in ["2", "3"] {
            sleep(Duration::from_secs(1)).await;
            let changed = facts("t", resource_version, record.clone(), KeySet::default());
            observe(&context, &key, Some(changed));
            reconcile(&cached, &mut state, &context).await;
            assert!(!context.mints.is_minting(&key), "held back");
        }
        let damping = state.dampings.as_mut().unwrap().of(Cause::Target);
        let now = Instant::now();
        damping.requested(least, now);
        assert_eq!(damping.holds(0, least, now), Some(now + least), "it has not escalated");
    }

    #[tokio::test(start_paused = true)]
    async fn report_that_waits_gives_its_place_back_where_the_problem_passes() {
        let (_stop, stopping) = watch::channel(false);
        let leadership = Leadership::without_election(Arc::default(), stopping);
        let (context, calls) = context_with_api_server(leadership, true);
        let spec =
            json!({"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "c"}}, "suspend": true});
        let key = source(&context, spec);
        let (cached, mut state) = with_token(&context, &key, 3000);
        let target = context.secrets.known(&key).present().unwrap();
        reconcile(&cached, &mut state, &context).await;
        let patches = || calls.lock().unwrap().iter().filter(|call| call.starts_with("PATCH")).count();
        assert_eq!((patches(), state.reported.is_some()), (1, true));
        let mut others: Vec<ReportTimes> = (0..200).map(|_| ReportTimes::default()).collect();
        let now = Instant::now();
        for times in &mut others {
            times.due(None, false, &context.report_rate, now);
        }
        let waits = |state: &SourceState| state.report_times.as_ref().is_some_and(|times| times.is_waiting());
        observe(&context, &key, None);
        reconcile(&cached, &mut state, &context).await;
        assert_eq!((patches(), waits(&state)), (1, true));
        observe(&context, &key, Some(Facts::clone(&target)));
        reconcile(&cached, &mut state, &context).await;
        assert_eq!((patches(), waits(&state)), (1, false));
    }

    #[tokio::test(start_paused = true)]
    async fn pods_do_not_wait_for_a_status_that_cannot_be_written() {
        let (_stop, context, calls) = context_with_calls();
        let spec = json!({"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "c"}},
            "target": {"propagation": "Prompt"}, "suspend": true});
        let key = source(&context, spec);
        let (cached, mut state) = with_token(&context, &key, 3000);
        reconcile(&cached, &mut state, &context).await;
        sleep(Duration::from_millis(1)).await;
        let calls = calls.lock().unwrap();
        for call in [
            "PATCH /apis/tokensource.dev/v1alpha1/namespaces/ns/tokensources/a/status",
            "GET /api/v1/namespaces/ns/pods",
        ] {
            assert!(calls.iter().any(|made| made == call), "{calls:?}");
        }
    }

    /// The operator was down when the token expired, and its endpoint may be slow.
    #[tokio::test(start_paused = true)]
    async fn expired_token_is_reported_before_the_response_of_its_endpoint() {
        let (_stop, context, calls) = context_with_calls();
        let key =
            source(&context, json!({"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "c"}}}));
        let (cached, mut state) = with_token(&context, &key, -1);
        reconcile(&cached, &mut state, &context).await;
        assert!(context.mints.is_minting(&key));
        let calls = calls.lock().unwrap();
        assert!(calls.iter().any(|call| call.starts_with("PATCH") && call.ends_with("/status")), "{calls:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn token_that_the_api_server_does_not_take_is_tried_until_the_end_and_holds_requests_back_for_a_minute()
     {
        let (stop, context) = context();
        let key =
            source(&context, json!({"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "c"}}}));
        requested(&context, &key, Ok(new_token(&context))).await;
        let running = tokio::spawn({
            let context = Arc::clone(&context);
            async move { lead(&context).await }
        });
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(context.mints.unwritten(), 1);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(context.mints.unwritten(), 0, "others go on");
        let stopped_at = Instant::now();
        stop.send_replace(true);
        running.await.unwrap();
        assert!((20..25).contains(&stopped_at.elapsed().as_secs()), "{:?}", stopped_at.elapsed());
    }

    /// Ten thousand TokenSources fit into 64 MiB (docs/sizing.md). A change that needs more than this for each of them
    /// measures again, with `make bench SOURCES=10000`.
    #[test]
    fn a_cached_source_and_its_state_are_small() {
        let kept =
            [size_of::<CachedSource>(), size_of::<SourceState>(), size_of::<Facts>(), size_of::<Record>()];
        assert!(kept.iter().sum::<usize>() <= 960, "{kept:?}");
    }
}
