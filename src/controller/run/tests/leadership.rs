//! Terms of leadership: what a former or a later leader, or a clock that was set, may not spoil.

use super::*;

/// The Lease of a context. It is held for an hour at the beginning.
struct HeldLease {
    clock: Arc<Clock>,
    held_until: watch::Sender<Option<Moment>>,
    _stop: watch::Sender<bool>,
}

impl HeldLease {
    fn acquire(&self) {
        self.held_until.send_replace(Some(self.clock.moment().plus(Duration::from_secs(3600))));
    }

    fn lose(&self) {
        self.held_until.send_replace(None);
    }
}

fn context_led_by_lease() -> (HeldLease, Arc<Context>, Arc<Mutex<Vec<String>>>) {
    let ((held_until, leads), (_stop, stopping)) = (watch::channel(None), watch::channel(false));
    let lease = HeldLease { clock: Arc::new(Clock::new()), held_until, _stop };
    lease.acquire();
    let leadership = Leadership::new(leads, Arc::clone(&lease.clock), stopping);
    let (context, calls) = context_led_by(leadership);
    (lease, context, calls)
}

/// While this process did not lead, another one may have written a newer token.
#[tokio::test(start_paused = true)]
async fn pending_token_does_not_survive_a_lost_term() {
    let (lease, context, calls) = context_led_by_lease();
    let spec = json!({"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "c"}}});
    let key = source(&context, spec);
    observe(&context, &key.sibling("c"), None);
    observe(&context, &key, None);
    requested(&context, &key, Ok(new_token())).await;
    let running = leading(&context);
    sleep(Duration::from_secs(10)).await;
    lease.lose();
    sleep(Duration::from_secs(60)).await;
    let count = || context.mints.unwritten();
    assert_eq!(count(), 0, "{:?}", calls.lock().unwrap());
    lease.acquire();
    sleep(Duration::from_secs(10)).await;
    assert!(context.states.take(&key).pending.is_none());
    running.abort();
}

/// A former leader may write the token that it requested before this process led.
#[tokio::test(start_paused = true)]
async fn pending_token_is_newer_than_what_a_former_leader_wrote_late() {
    let (lease, context, _) = context_led_by_lease();
    let key = source(&context, json!({"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "c"}}}));
    let (cached, mut state) = with_token(&context, &key, 300);
    let mut token = new_token();
    token.replaces = Some("the one before".into());
    let late = context.secrets.known(&key).present().unwrap().record.clone().unwrap();
    token.record.inputs = late.inputs.clone();
    token.record.issued_at = late.issued_at + Duration::from_secs(1);
    state.pending = Some(token);
    reconcile(&cached, &mut state, &context).await;
    assert!(state.pending.is_some(), "its write failed");
    let older = state.pending.as_mut().unwrap();
    // The paused clock may be in the second before, and a time that lies ahead counts as now.
    older.record.issued_at = late.issued_at - Duration::from_secs(1);
    reconcile(&cached, &mut state, &context).await;
    assert!(state.pending.is_none(), "another process led meanwhile");

    let mut token = new_token();
    token.replaces = Some("the one before".into());
    token.record.issued_at = late.issued_at + Duration::from_secs(1);
    state.pending = Some(token);
    lease.lose();
    reconcile(&cached, &mut state, &context).await;
    assert!(state.pending.is_none(), "another process leads");
}

/// The clock may be set beyond the end of the lease, and back before the next renewal looks.
#[tokio::test(start_paused = true)]
async fn source_that_is_due_while_the_lease_seems_over_is_reconciled_when_it_is_not() {
    let (lease, context, calls) = context_led_by_lease();
    let key = source(&context, json!({"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "c"}}}));
    let running = leading(&context);
    sleep(Duration::from_secs(5)).await;
    lease.held_until.send_replace(Some(lease.clock.moment()));
    context.trigger(key);
    sleep(Duration::from_millis(1500)).await;
    let before = calls.lock().unwrap().len();
    lease.acquire();
    sleep(Duration::from_millis(1500)).await;
    assert!(calls.lock().unwrap().len() > before, "it was reconciled");
    running.abort();
}

/// Requests in flight may wait for the API server, for minutes; a restart would not help.
#[tokio::test(start_paused = true)]
async fn mint_queue_has_heartbeats_while_its_requests_end_after_a_lost_lease() {
    let (lease, context, _) = context_led_by_lease();
    let spec = json!({"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "c"}}});
    let key = source(&context, spec);
    let facts = json!({"uid": "u", "resourceVersion": "1"});
    let facts = Facts::of(&serde_json::from_value(facts).unwrap());
    observe(&context, &key.sibling("c"), facts);
    observe(&context, &key, None);
    let mut permits = vec![];
    for n in 0..40 {
        permits.push(context.permits.acquire(&format!("ns-{n}").into()).await);
    }
    let policy = Policy { before: None, max_interval: 3600, propagation_delay: 90, min_interval: 0 };
    let request =
        MintRequest { reason: MintReason::Due, cause: None, policy, expedite: None, original: None };
    context.mints.request(
        &key,
        request,
        &"https://idp.example.com".parse::<url::Url>().unwrap(),
        Instant::now(),
    );
    let running = leading(&context);
    sleep(Duration::from_secs(5)).await;
    assert!(!context.mints.is_idle(), "in flight");
    lease.lose();
    for _ in 0..20 {
        sleep(Duration::from_secs(15)).await;
        for queue in [Loop::WorkQueue, Loop::MintQueue] {
            assert_eq!(context.heartbeats.check(queue, Instant::now()), Ok(()));
        }
    }
    drop(permits);
    running.abort();
}
