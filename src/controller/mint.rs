//! Begins token requests by the earliest deadline, each as a task of its own that leaves its result in the slot.

use std::sync::Arc;
use std::time::Duration;

use token_endpoint::EndpointPermit;
use tokensource_api::Reason;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{Instrument, error};

use super::context::Context;
use super::mint_queue::{MintRequest, MintResult};
use super::mint_request::{Ended, request_token};
use super::outcome::Outcome;
use super::spans;
use crate::heartbeat::Loop;
use crate::key::Key;
use crate::leadership::EndOfTerm;
use crate::refresh::MintReason;

/// How often the queue shows that it makes progress.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// The wait before a TokenSource is reconciled that needed no token when its turn came.
const NOT_NEEDED_WAIT: Duration = Duration::from_secs(1);

/// Begins token requests while this process leads, by the earliest deadline; then takes back those that have not begun, and
/// waits for those that have.
pub(super) async fn run(context: Arc<Context>, mut ends: EndOfTerm) {
    let mut tasks = JoinSet::new();
    loop {
        context.heartbeats.beat(Loop::MintQueue);
        tokio::select! {
            biased;
            () = &mut ends => break,
            Some(_) = tasks.join_next() => {}
            (key, permit) = context.mints.next() => {
                if let Some(request) = context.mints.begin(&key) {
                    tasks.spawn(mint(Arc::clone(&context), key, request, permit));
                }
            }
            () = sleep(HEARTBEAT) => {}
        }
    }
    context.mints.clear();
    while !tasks.is_empty() {
        context.heartbeats.beat(Loop::MintQueue);
        tokio::select! {
            _ = tasks.join_next() => {}
            () = sleep(HEARTBEAT) => {}
        }
    }
}

async fn mint(context: Arc<Context>, key: Key, request: MintRequest, permit: EndpointPermit<Key>) {
    let mut slot = SlotInFlight { context: &context, key: &key, reason: request.reason, is_over: false };
    let span = spans::token_request(&key, request.reason);
    let requested = async {
        let ended = request_token(&context, &key, request, permit).await;
        if let Ended::Result(result) = &ended
            && let Err(outcome) = &result.outcome
        {
            spans::failed(outcome);
        }
        ended
    };
    match Box::pin(requested.instrument(span)).await {
        Ended::Result(result) => slot.finish(*result),
        Ended::Parked => slot.is_over = true,
        Ended::NotNeeded => {
            slot.abandon();
            // Not urgent, because a trigger says what has changed; and a brake, should the reconciliation see it otherwise.
            sleep(NOT_NEEDED_WAIT).await;
            context.trigger(key.clone());
        }
    }
}

/// A slot that is in flight. Dropped by a panic, it has a failure for its result, so that the TokenSource is not stuck.
struct SlotInFlight<'a> {
    context: &'a Context,
    key: &'a Key,
    reason: MintReason,
    is_over: bool,
}

impl SlotInFlight<'_> {
    fn finish(&mut self, result: MintResult) {
        self.is_over = true;
        self.context.mints.finish(self.key, result);
        self.context.trigger(self.key.clone());
    }

    fn abandon(&mut self) {
        self.is_over = true;
        self.context.mints.abandon(self.key);
    }
}

impl Drop for SlotInFlight<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        if !std::thread::panicking() {
            // The process ends before the request did.
            return self.context.mints.abandon(self.key);
        }
        error!(source = %self.key, "a bug: the token request of this TokenSource panicked");
        self.context.metrics.count_panic();
        let uid = self.context.sources.get(self.key).and_then(|source| source.uid().cloned());
        let message = "the token request ended by a bug of the operator: see its log".to_owned();
        let outcome = Err(Outcome::passing(Reason::EndpointUnavailable, message));
        self.finish(MintResult { outcome, ..MintResult::empty(uid.unwrap_or_default(), self.reason, None) });
    }
}
