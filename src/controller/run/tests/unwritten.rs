//! Tokens that wait to be written, and an API server that fails.

use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::controller::propagation::Prompt;
use crate::status::Reported;

fn vgs() -> Value {
    json!({"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "c"}}})
}

/// A token that fits, to be written over the one that the target holds.
fn pending_over(context: &Context, key: &Key) -> Box<NewToken> {
    let held = context.secrets.known(key).present().unwrap().record.clone().unwrap();
    let mut token = new_token();
    token.record.owner = held.owner.clone();
    token.record.inputs = held.inputs.clone();
    token.replaces = Some(held.token_id.clone());
    token
}

fn count(calls: &Arc<Mutex<Vec<String>>>, call: &str) -> usize {
    calls.lock().unwrap().iter().filter(|it| it.contains(call)).count()
}

/// An issuer may return the token of the session that lives: its record is another.
#[tokio::test(start_paused = true)]
async fn pending_token_that_the_target_holds_already_is_written_with_its_new_record() {
    let (_stop, context, calls) = context_with_calls();
    let key = source(&context, vgs());
    let (cached, mut state) = with_token(&context, &key, 300);
    let mut token = pending_over(&context, &key);
    token.record.token_id = "old".into();
    state.pending = Some(token);
    reconcile(&cached, &mut state, &context).await;
    assert_eq!(count(&calls, "PATCH /api/v1/namespaces/ns/secrets/a"), 1, "{:?}", calls.lock().unwrap());
    assert!(state.pending.is_some(), "its write failed");
}

/// Within one second, also the record is the same.
#[tokio::test(start_paused = true)]
async fn pending_token_is_written_where_another_writer_has_changed_what_the_target_holds() {
    let (_stop, context, calls) = context_with_calls();
    let key = source(&context, vgs());
    let (cached, mut state) = with_token(&context, &key, 300);
    let token = pending_over(&context, &key);
    observe(&context, &key, Some(facts("t", "2", Some(token.record.clone()), KeySet::default())));
    state.pending = Some(token);
    reconcile(&cached, &mut state, &context).await;
    assert_eq!(count(&calls, "PATCH /api/v1/namespaces/ns/secrets/a"), 1, "{:?}", calls.lock().unwrap());
    assert_eq!(context.mints.queued(), 0);
}

#[tokio::test(start_paused = true)]
async fn write_whose_answer_was_lost_counts_when_the_watch_shows_it() {
    let (_stop, context) = context();
    let key = source(&context, vgs());
    let (cached, mut state) = with_token(&context, &key, 300);
    let mut token = pending_over(&context, &key);
    token.credentials = Some([0; 16]);
    let record = token.record.clone();
    state.pending = Some(token);
    state.prompt = Some(Box::new(Prompt::default()));
    state.api_failures = 3;
    let prompt = json!({"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "c"}},
        "target": {"propagation": "Prompt"}});
    source(&context, prompt);
    let prompted = context.sources.get(&key).unwrap();
    drop(cached);
    reconcile(&prompted, &mut state, &context).await;
    assert!(state.pending.is_some() && state.prompt.as_ref().unwrap().next().is_none());

    let keys = context.secrets.known(&key).present().unwrap().owned_keys;
    observe(&context, &key, Some(facts("t", "2", Some(record), keys)));
    reconcile(&prompted, &mut state, &context).await;
    assert!(state.pending.is_none());
    assert!(state.minted_with.is_some(), "a label on the credentials costs no token");
    let next = state.prompt.as_ref().unwrap().next().expect("a round is due");
    assert!(next > Instant::now() && next < Instant::now() + Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn api_server_that_fails_for_secrets_alone_is_reported_seldom() {
    let (_stop, context, calls) = context_that_reports();
    let key = source(&context, vgs());
    let (cached, mut state) = with_token(&context, &key, 300);
    state.pending = Some(pending_over(&context, &key));
    let mut reports = vec![];
    for _ in 0..8 {
        reconcile(&cached, &mut state, &context).await;
        reports.push(count(&calls, "/tokensources/a/status"));
    }
    assert_eq!(reports, [0, 1, 1, 1, 1, 1, 1, 1], "the second failure, and nothing new after that");
}

/// An admission webhook may hang for longer than a call may take.
#[tokio::test(start_paused = true)]
async fn api_server_that_does_not_answer_about_secrets_is_reported() {
    let (_stop, context, calls) = context_that_reports();
    let key = source_named(&context, "silent", vgs());
    let (cached, mut state) = with_token(&context, &key, 300);
    state.pending = Some(pending_over(&context, &key));
    for reports in [0, 1] {
        reconcile(&cached, &mut state, &context).await;
        assert_eq!(count(&calls, "/tokensources/silent/status"), reports);
    }
}

/// While a list of Secrets begins, a target may be unknown.
#[tokio::test(start_paused = true)]
async fn token_in_an_unknown_target_is_not_reported_as_none() {
    let (_stop, context, calls) = context_that_reports();
    let key = source(&context, vgs());
    let (cached, mut state) = with_token(&context, &key, 300);
    context.secrets.forget("ns");
    state.api_failures = 1;
    let mut reported = Reported::default();
    reported.has_token = true;
    state.reported = Some(Box::new((u64::MAX, reported)));
    reconcile(&cached, &mut state, &context).await;
    assert_eq!((state.api_failures, count(&calls, "/tokensources/a/status")), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn source_of_a_failing_api_server_is_reconciled_when_its_token_expires() {
    let (_stop, context) = context();
    let key = source(&context, vgs());
    let (cached, mut state) = with_token(&context, &key, 2);
    state.pending = Some(pending_over(&context, &key));
    state.api_failures = 10;
    let again = reconcile(&cached, &mut state, &context).await.unwrap();
    assert!(again <= Duration::from_secs(2), "{again:?}");
}

/// Between its failures, a token request is queued without one.
#[tokio::test(start_paused = true)]
async fn failures_of_the_api_server_in_a_row_are_counted_across_token_requests() {
    let (_stop, context) = context();
    let key = source(&context, vgs());
    let (cached, mut state) = with_token(&context, &key, 300);
    let mut counts = vec![];
    for _ in 0..3 {
        reconcile(&cached, &mut state, &context).await;
        let (next, permit) = context.mints.next().await;
        context.mints.begin(&next).unwrap();
        drop(permit);
        let outcome = Err(Outcome::ApiServer("status 500".to_owned().into()));
        context
            .mints
            .finish(&key, MintResult { outcome, ..MintResult::empty("u".into(), MintReason::Due, None) });
        reconcile(&cached, &mut state, &context).await;
        counts.push(state.api_failures);
    }
    assert_eq!(counts, [1, 2, 3]);
}

/// A virtual machine that was paused has aged what is in memory, and a clock that was set back has not made it younger.
#[tokio::test]
async fn pending_token_is_as_old_as_the_clock_says() {
    let at = |second| Timestamp::from_second(1_800_000_000 + second).unwrap();
    for (set, moved) in [(7200, 0), (-7200, -7200)] {
        let ahead = Arc::new(AtomicI64::new(0));
        let shown = Arc::clone(&ahead);
        let read = move || Moment { wall: at(shown.load(Ordering::Relaxed)), ..Moment::default() };
        let clock = Clock::reading(read);
        clock.server_said(at(0), clock.moment());
        let mut pending = new_token();
        pending.refresh_at = at(100);
        pending.record.expires_at = at(200);
        let mut state = SourceState { pending: Some(pending), ..SourceState::default() };
        ahead.store(set, Ordering::Relaxed);
        clock.server_said(at(set), clock.moment());
        clock.check(Duration::ZERO);
        state.clock_is(clock.corrected());
        let pending = state.pending_for_decision(None, &clock).unwrap();
        assert_eq!((pending.refresh_at, pending.expires_at), (at(100 + moved), at(200 + moved)));
    }
}
