//! The order of starting and ending: the watches always, the two queues while this process leads.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use kube::Client;
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
/// How long that is tried.
const LAST_WRITES: Duration = Duration::from_secs(20);

/// Keeps the tokens of the TokenSources of `namespaces` (all where empty) fresh whenever this process leads, until it is told to
/// stop. A process that does not lead follows the watches too, and so can act at once when it does.
pub async fn run(client: Client, namespaces: &[String], context: Arc<Context>) {
    tokio::select! {
        () = watch::run(client, namespaces, &context) => {}
        () = lead(&context) => {}
    }
}

/// Runs both queues whenever this process leads, until it is told to stop and what had begun has ended.
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
        context.sources.keys(|_| true).into_iter().for_each(|source| context.trigger(source));
        tokio::join!(mint::run(context), work(context));
        context.heartbeats.rest();
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
/// is in memory alone, and may be the only copy of a refresh token.
async fn work(context: &Arc<Context>) {
    let mut running = JoinSet::new();
    let ends = context.leadership.wait_until_ended();
    tokio::pin!(ends);
    let mut ended_at = None;
    loop {
        context.heartbeats.beat(Loop::WorkQueue);
        let urgency = |key: &Key| context.urgency(key);
        tokio::select! {
            () = &mut ends, if ended_at.is_none() => {
                ended_at = Some(Instant::now());
                context.work.retain(|key| context.has_unwritten(key));
                context.states.unwritten().into_iter().for_each(|source| context.trigger(source));
            }
            (key, permit) = context.work.next(Stake::Token, &context.permits, urgency) => {
                running.spawn(reconcile_one(Arc::clone(context), key, permit));
            }
            (key, permit) = context.work.next(Stake::Nothing, &context.permits, urgency) => {
                running.spawn(reconcile_one(Arc::clone(context), key, permit));
            }
            key = context.rounds.ended() => context.trigger(key),
            // No reconciliation panics: see reconcile_one.
            Some(ended) = running.join_next() => {
                if let Ok((key, again)) = ended {
                    context.work.done(key, again.map(|after| Instant::now() + after));
                }
            }
            () = sleep(if ended_at.is_some() { LAST_WRITE_WAIT } else { HEARTBEAT }) => {}
        }
        if let Some(ended_at) = ended_at {
            context.work.retain(|key| context.has_unwritten(key));
            let is_done = running.is_empty() && context.work.len() == 0;
            let is_late = running.is_empty() && ended_at.elapsed() > LAST_WRITES;
            if context.mints.is_idle() && (is_done || is_late) {
                break;
            }
        }
    }
    context.work.retain(|_| false);
}

/// Reconciles one TokenSource. It never fails, so that its trouble is its own. Returns after how long to do it again, if
/// nothing triggers it before.
async fn reconcile_one(context: Arc<Context>, key: Key, permit: ApiPermit) -> (Key, Option<Duration>) {
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
        // Gone meanwhile: of what a token request brings, nothing is kept but a refresh token.
        None => {
            context.states.drop_result(&key, context.mints.take_result(&key));
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
    (key, again)
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

    use super::super::state::SourceState;
    use super::*;
    use crate::secret::{Facts, Record};

    /// Ten thousand TokenSources fit into 64 MiB (docs/sizing.md). A change that needs more than this for each of them
    /// measures again, with `make bench SOURCES=10000`.
    #[test]
    fn a_cached_source_and_its_state_are_small() {
        let kept =
            [size_of::<CachedSource>(), size_of::<SourceState>(), size_of::<Facts>(), size_of::<Record>()];
        assert!(kept.iter().sum::<usize>() <= 960, "{kept:?}");
    }
}
