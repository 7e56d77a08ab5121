//! The order of starting and ending: the watches always, the two queues while this process leads.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use kube::Client;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep};
use tracing::{Instrument, error, warn};

use super::api_permits::ApiPermit;
use super::cache::bindings::Access;
use super::cache::source::CachedSource;
use super::context::Context;
use super::reconcile::reconcile;
use super::watch::Followed;
use super::{mint, spans, watch};
use crate::heartbeat::Loop;
use crate::key::Key;
use crate::leadership::EndOfTerm;

/// How often the work queue shows that it makes progress.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// The wait before a TokenSource is reconciled again whose reconciliation panicked.
const PANIC_WAIT: Duration = Duration::from_secs(60);
/// The wait before what could not be written is tried again, when nothing new is begun any more.
const LAST_WRITE_WAIT: Duration = Duration::from_secs(1);
/// How long that is tried, after the last token request has ended.
const LAST_WRITES: Duration = Duration::from_secs(20);

/// Keeps the tokens of the TokenSources that are followed fresh whenever this process leads, until it must stop. A process that does not lead follows the watches too, and so can act at once when it does.
///
/// The watches and both queues are tasks of their own: what wakes one does not poll the others.
pub async fn run(client: Client, followed: Followed, context: Arc<Context>) {
    let mut watches = JoinSet::new();
    watches.spawn({
        let context = Arc::clone(&context);
        async move { watch::run(client, &followed, &context).await }
    });
    tokio::select! {
        Some(ended) = watches.join_next() => expect_no_panic(ended),
        () = lead(&context) => {}
    }
}

/// Goes on with the panic of a task: the process ends, and Kubernetes starts another.
fn expect_no_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
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
        let mut mints = JoinSet::new();
        let ends = context.leadership.end_of_term();
        mints.spawn(mint::run(Arc::clone(context), ends.clone()));
        work(context, mints, ends).await;
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
async fn work(context: &Arc<Context>, mut mints: JoinSet<()>, mut ends: EndOfTerm) {
    let mut running = JoinSet::new();
    let mut last_result_at = None;
    let mut has_ended = false;
    loop {
        context.heartbeats.beat(Loop::WorkQueue);
        if mints.is_empty() {
            context.heartbeats.beat(Loop::MintQueue); // it has nothing to do any more
        }
        let urgency = |key: &Key| context.urgency(key);
        tokio::select! {
            () = &mut ends, if !has_ended => {
                has_ended = true;
                context.work.retain(|key| context.has_unwritten(key));
                context.states.unwritten().into_iter().for_each(|source| context.trigger(source));
            }
            Some(ended) = mints.join_next() => {
                expect_no_panic(ended);
                last_result_at = Some(Instant::now());
            }
            (key, permit) = context.work.next(&context.permits, urgency) => {
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
            && (context.work.known() == 0 || last_result_at.elapsed() > LAST_WRITES)
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
    let is_selected = context.namespaces.selects(&key.namespace)
        && context.bindings.access(&key.namespace) != Access::Unknown;
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
        // The lease is over by the clock, which may have been set, while this process still has it.
        Some(_) if is_selected && !may_begin => Some(LAST_WRITE_WAIT),
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
    let is_gone = !context.sources.knows(key);
    context.states.put(key, state, is_gone);
    if is_gone {
        context.forget(key);
    } else if let Some(shown) = context.sources.get(key) {
        context.states.has_shown(key, shown.revision);
    }
    reconciled.unwrap_or_else(|_| {
        error!(source = %key, "a bug: the reconciliation of this TokenSource panicked");
        context.metrics.count_panic();
        Some(PANIC_WAIT)
    })
}

#[cfg(test)]
mod tests;
