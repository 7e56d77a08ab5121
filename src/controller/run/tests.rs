mod issuers;
mod leadership;
mod unwritten;

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
use crate::clock::{Clock, Moment};
use crate::cluster::{Kubernetes, SourceObject};
use crate::heartbeat::Heartbeats;
use crate::leadership::Leadership;
use crate::metrics::Metrics;
use crate::refresh::{Cause, MintReason, Policy};
use crate::secret::{Facts, Inputs, KeySet, Minted, Owner, Record, Version};
use crate::spec::Resolved;
use crate::token_request::ServiceAccountTokens;
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

/// The same, with an API server that accepts a status.
fn context_that_reports() -> (watch::Sender<bool>, Arc<Context>, Arc<Mutex<Vec<String>>>) {
    let (stop, stopping) = watch::channel(false);
    let leadership = Leadership::without_election(Arc::default(), stopping);
    let (context, calls) = context_with_api_server(leadership, true);
    (stop, context, calls)
}

fn leading(context: &Arc<Context>) -> tokio::task::JoinHandle<()> {
    let context = Arc::clone(context);
    tokio::spawn(async move { lead(&context).await })
}

fn context_led_by(leadership: Leadership) -> (Arc<Context>, Arc<Mutex<Vec<String>>>) {
    context_with_api_server(leadership, false)
}

/// With an API server that accepts a status, or answers nothing but errors. About Secret `silent` it does not answer.
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
        let is_silent = request.uri().path().ends_with("/secrets/silent");
        async move {
            if is_silent {
                std::future::pending::<()>().await;
            }
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
        max_sources_per_namespace: None,
        watches: 1,
        leadership,
        heartbeats: Arc::new(Heartbeats::default()),
        metrics: Arc::new(Metrics::new(Arc::clone(&clock))),
        clock,
        propagation_delay: 90,
        change_interval: Duration::from_secs(30),
        namespace_selector: None,
        grant: None,
        require_credentials_label: false,
        service_account_tokens: ServiceAccountTokens::none(),
        issuers: None,
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
    let key = context.sources.put(CachedSource::after(object, |_| None)).key;
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
async fn requested(context: &Context, key: &Key, mut outcome: Result<Box<NewToken>, Outcome>) {
    let policy = Policy { before: None, max_interval: 3600, propagation_delay: 90, min_interval: 0 };
    let request =
        MintRequest { reason: MintReason::Due, cause: None, policy, expedite: None, original: None };
    context.mints.request(
        key,
        request,
        &"https://idp.example.com".parse::<url::Url>().unwrap(),
        Instant::now(),
    );
    let (next, permit) = context.mints.next().await;
    context.mints.begin(&next).unwrap();
    if let Ok(token) = &mut outcome {
        token.unwritten = Some(context.mints.count_unwritten(permit.underway()));
    }
    drop(permit);
    let result = MintResult { outcome, ..MintResult::empty("u".into(), MintReason::Due, None) };
    context.mints.finish(key, result);
}

fn new_token() -> Box<NewToken> {
    Box::new(NewToken {
        record: record("new", 600),
        replaces: None,
        access_token: "token".into(),
        values: Default::default(),
        credentials: None,
        refresh_at: Timestamp::MAX,
        is_unusable: false,
        rewound: 0,
        received_at: Instant::now(),
        unwritten: None,
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
        record: Some(Arc::new(record("old", 300))),
        owned_keys: KeySet::from_iter(["access_token"]),
        ..Facts::labelled(Version { uid: "t".into(), resource_version: "1".into() })
    };
    observe(&context, &key, Some(target));
    requested(&context, &key, Ok(new_token())).await;
    let took = stops(&stop, &context).await;
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn source_whose_reconciliation_panics_anywhere_is_reconciled_again() {
    let (_stop, context) = context();
    let key = Key::new("ns", "a");
    context.trigger(key.clone());
    let next = || context.work.next(&context.permits, |key| context.urgency(key));
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
            format!("PATCH /apis/tokensource.dev/v1alpha1/namespaces/ns/tokensources/{}/status", key.name)
        );
    }
    for key in [&fed, &chain] {
        let made = reports(key).await;
        assert!(made.starts_with("GET /api/v1/namespaces/ns/secrets/"), "{made}");
    }
}

/// The target holds a token that was requested for the spec.
fn with_token(context: &Context, key: &Key, expires_in: i64) -> (Arc<CachedSource>, Box<SourceState>) {
    let cached = context.sources.get(key).unwrap();
    let wanted = Resolved::of(&cached.source().unwrap(), 90).unwrap().wanted;
    let mut record = record("old", expires_in);
    record.owner.name = (*key.name).into();
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
        record: record.map(Arc::new),
        owned_keys,
        ..Facts::labelled(Version { uid: uid.into(), resource_version: resource_version.into() })
    }
}

#[tokio::test(start_paused = true)]
async fn change_counts_as_the_cause_of_a_request_only_where_that_was_sent() {
    let (_stop, context) = context();
    let key = source(&context, json!({"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "c"}}}));
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
    let key = source(&context, json!({"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "c"}}}));
    let (cached, mut state) = with_token(&context, &key, 3000);
    let now = Timestamp::now();
    state.restored.get_or_insert_default().by_token = Some(Restoration::again(None, now, None));
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
    assert_eq!(damping.holds(0, least, false, now), Some(now + least), "it has not escalated");
}

#[tokio::test(start_paused = true)]
async fn report_that_waits_gives_its_place_back_where_the_problem_passes() {
    let (_stop, context, calls) = context_that_reports();
    let spec = json!({"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "c"}}, "suspend": true});
    let key = source(&context, spec);
    let (cached, mut state) = with_token(&context, &key, 3000);
    let target = context.secrets.known(&key).present().unwrap();
    reconcile(&cached, &mut state, &context).await;
    let patches = || calls.lock().unwrap().iter().filter(|call| call.starts_with("PATCH")).count();
    assert_eq!((patches(), state.reported.is_some()), (1, true));
    let mut others: Vec<ReportTimes> = (0..200).map(|_| ReportTimes::default()).collect();
    let now = Instant::now();
    for times in &mut others {
        times.due(None, false, &context.report_rate, &"ns".into(), now);
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
    let key = source(&context, json!({"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "c"}}}));
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
    let key = source(&context, json!({"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "c"}}}));
    requested(&context, &key, Ok(new_token())).await;
    let running = leading(&context);
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(context.mints.unwritten(), 1);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(context.mints.unwritten(), 0, "others go on");
    let stopped_at = Instant::now();
    stop.send_replace(true);
    tokio::time::timeout(Duration::from_secs(120), running).await.expect("it stops").unwrap();
    assert!((20..25).contains(&stopped_at.elapsed().as_secs()), "{:?}", stopped_at.elapsed());
}

/// Ten thousand TokenSources fit into 64 MiB (docs/sizing.md). A change that needs more than this (and texts) for each of them
/// measures again, with `make bench SOURCES=10000`.
#[test]
fn a_cached_source_and_its_state_are_small() {
    let kept = [size_of::<CachedSource>(), size_of::<SourceState>(), size_of::<Facts>(), size_of::<Record>()];
    assert!(kept.iter().sum::<usize>() <= 960, "{kept:?}");
}
