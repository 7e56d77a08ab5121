//! The loop: what concerns TokenSources goes into the agenda, and looks begin as turns come.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use kube::runtime::watcher;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::Context;
use super::agenda::Agenda;
use super::reconcile::{deadline, reconcile};
use super::turns::Turn;
use crate::key::Key;

/// What leads to looks.
pub(super) struct Causes {
    /// The TokenSources, as they appear and change.
    pub(super) sources: BoxStream<'static, watcher::Result<Key>>,
    /// The first lists have been read, of TokenSources and then of Secrets.
    pub(super) listed: watch::Receiver<bool>,
    /// The TokenSources that a change of something else concerns.
    pub(super) changed: BoxStream<'static, Key>,
    /// Something concerns all of them.
    pub(super) all: BoxStream<'static, ()>,
    /// All of them.
    pub(super) all_of_it: Box<dyn Fn() -> Vec<Key> + Send>,
}

type Looks = JoinSet<(Key, Option<Instant>)>;

impl Causes {
    /// Takes in what changes, and does nothing about it.
    pub(super) async fn keep_warm(&mut self) {
        loop {
            tokio::select! {
                Some(source) = self.sources.next() => {
                    if let Err(error) = source {
                        warn!(%error, "watching TokenSources");
                    }
                }
                Some(_) = self.changed.next() => {}
                Some(()) = self.all.next() => {}
                else => return,
            }
        }
    }
}

/// Looks at every TokenSource once, and from then on whenever something concerns it, until `ends`; then lets the looks end
/// that have begun.
pub(super) async fn run(causes: Causes, context: Arc<Context>, ends: impl Future<Output = ()>) {
    let Causes { mut sources, mut listed, mut changed, mut all, all_of_it } = causes;
    let mut agenda = Agenda::default();
    let mut looks = Looks::new();
    let (mut ends, mut listed) = (pin!(ends), pin!(listed.wait_for(|listed| *listed)));
    let mut is_listed = false;
    let mut pending = 0;
    let by = |key: &Key| deadline(key, &context);
    loop {
        pending = context.metrics.reconciles_pending(pending, agenda.due() + looks.len());
        let (next, time) = (agenda.next_deadline(), agenda.next_time());
        tokio::select! {
            () = &mut ends => break,
            _ = &mut listed, if !is_listed => {
                is_listed = true;
                all_of_it().into_iter().for_each(|source| concern(&mut agenda, source, by));
            }
            Some(source) = sources.next() => match source {
                Ok(source) => concern(&mut agenda, source, by),
                Err(error) => warn!(%error, "watching TokenSources"),
            },
            Some(key) = changed.next() => concern(&mut agenda, key, by),
            Some(()) = all.next() => {
                all_of_it().into_iter().for_each(|source| concern(&mut agenda, source, by));
            }
            Some(ended) = looks.join_next() => {
                // No look panics: see reconcile.
                if let Ok((key, again)) = ended {
                    agenda.end(key, again);
                }
            }
            () = sleep_until(time.unwrap_or_else(Instant::now)), if time.is_some() => {
                agenda.ripen(Instant::now(), by);
            }
            turn = context.turns.take(next.unwrap_or_else(Instant::now)), if is_listed && next.is_some() => {
                begin(&mut agenda, &mut looks, &context, turn);
            }
        }
    }
    while looks.join_next().await.is_some() {}
    context.metrics.reconciles_pending(pending, 0);
}

fn concern(agenda: &mut Agenda, key: Key, by: impl Fn(&Key) -> Instant) {
    let deadline = by(&key);
    agenda.concern(key, deadline);
}

fn begin(agenda: &mut Agenda, looks: &mut Looks, context: &Arc<Context>, turn: Turn) {
    let Some(key) = agenda.begin() else { return };
    let Some(source) = context.sources.get(&key) else {
        // Gone meanwhile.
        context.heartbeats.rest();
        return agenda.end(key, None);
    };
    let context = Arc::clone(context);
    looks.spawn(async move {
        let again = reconcile(&source, &context, turn).await;
        (key, again.map(|after| Instant::now() + after))
    });
}

#[cfg(test)]
mod tests {
    use std::mem::size_of;

    use super::super::cache::source::Watched;
    use super::super::memory::Memory;
    use super::super::reconcile::look_at;
    use super::*;
    use crate::secret::{Facts, Record};

    /// The future that a function returns.
    fn future<'a, F>(_: fn(&'a Watched, &'a Context, Turn) -> F) -> usize {
        size_of::<F>()
    }

    /// Ten thousand TokenSources fit into 64 MiB, and a hundred looks beside them (docs/sizing.md). Whoever needs more than
    /// this for each of them measures again, with `make bench SOURCES=10000`.
    #[test]
    fn a_source_is_small_and_so_is_a_look() {
        let kept = [size_of::<Watched>(), size_of::<Memory>(), size_of::<Facts>(), size_of::<Record>()];
        assert!(kept.iter().sum::<usize>() <= 960, "{kept:?}");
        assert!(future(look_at) <= 6 * 1024, "{}", future(look_at));
    }
}
