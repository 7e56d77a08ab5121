//! Follows the Secrets of each namespace that has TokenSources, where the operator has its rights by RoleBindings of namespaces.
//! Each is listed every minute; the busiest are watched, too. Only these reads decide whether a namespace is bound.

mod plan;
mod watches;

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::stream::{FuturesUnordered, StreamExt};
use kube::Client;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::cache::bindings::Access;
use super::context::Context;
use super::secret_events;
use crate::cluster::{Event, FollowError, may_list_secrets, watch_secrets};
use crate::heartbeat::Loop;
use plan::{Answer, Plan};
use watches::Watches;

/// Namespaces that are read at once.
const MAX_READS: usize = 8;
/// How often this shows that it makes progress.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// How namespaces are read.
pub(super) struct Reads<'a> {
    /// A client of their own: each watch needs a connection, and refusals are no fault, so that they are not counted.
    pub(super) client: &'a Client,
    /// The most watches at once.
    pub(super) watches: usize,
    /// How often each namespace is listed.
    pub(super) interval: Duration,
    /// Whether each namespace that had TokenSources at the start has been read once.
    pub(super) is_listed: &'a AtomicBool,
}

/// Waits, and shows meanwhile that nothing is stuck: the API server may answer late, as after a restoration.
async fn beating(work: impl Future<Output = ()>, context: &Context) {
    let mut work = pin!(work);
    while tokio::time::timeout(HEARTBEAT, work.as_mut()).await.is_err() {
        context.heartbeats.beat(Loop::Namespaces);
    }
}

/// See the module. Never ends.
pub(super) async fn run(reads: Reads<'_>, context: &Context, mut sources_listed: watch::Receiver<bool>) {
    let listed = async {
        let _ = sources_listed.wait_for(|listed| *listed).await;
        context.namespaces.ready().await;
    };
    beating(listed, context).await;
    let mut unread: HashSet<Arc<str>> = context.bindings.namespaces().into_iter().collect();
    let mut plan = Plan::new(reads.interval);
    unread.iter().for_each(|namespace| plan.ask(namespace, Instant::now()));
    let mut running = FuturesUnordered::new();
    let mut watches = Watches::new(reads.watches);
    loop {
        context.heartbeats.beat(Loop::Namespaces);
        let now = Instant::now();
        while running.len() < MAX_READS
            && let Some(namespace) = plan.next(now)
        {
            if context.bindings.sources(&namespace) == 0 {
                unread.remove(&namespace);
                plan.forget(&namespace);
                watches.end(&namespace);
            } else if context.namespaces.selects(&namespace) {
                let is_watched = watches.has(&namespace);
                running.push(read(reads.client.clone(), namespace, is_watched, context));
            } else {
                unread.remove(&namespace);
                watches.end(&namespace);
                plan.forget(&namespace);
                // Another release may serve it until it is selected again: what is known now says nothing then.
                if context.bindings.shown(&namespace, Access::Unknown) {
                    context.secrets.forget(&namespace);
                }
                plan.ask(&namespace, now + reads.interval);
            }
        }
        // A namespace that cannot be read stops no other.
        if unread.is_empty() && !reads.is_listed.swap(true, Ordering::Relaxed) {
            context.secrets.first_list_read();
        }
        let wake = plan.next_due().filter(|_| running.len() < MAX_READS);
        let wake = wake.map_or(now + HEARTBEAT, |due| due.min(now + HEARTBEAT));
        tokio::select! {
            asked = context.bindings.asked() => {
                asked.iter().for_each(|namespace| plan.ask(namespace, now));
            }
            Some((namespace, read)) = running.next() => {
                unread.remove(&namespace);
                let answer = answer(&read);
                let shown = plan.answered(&namespace, answer, Instant::now());
                if let Err(error) = read
                    && plan.began_to_fail(&namespace)
                {
                    warn!(%namespace, %error, "the Secrets of a namespace cannot be listed; trying again");
                }
                if let Some(access) = shown {
                    believe(&namespace, access, &mut watches, context);
                }
                let load = context.bindings.sources(&namespace);
                if answer == Answer::Granted && watches.admits(&namespace, load) {
                    let watch = follow(reads.client.clone(), Arc::clone(&namespace), context);
                    watches.begin(&namespace, load, watch.boxed());
                }
            }
            // It was refused: a list says whether that lasts.
            namespace = watches.ended() => plan.ask(&namespace, now),
            () = sleep_until(wake) => {}
        }
    }
}

/// What is known of a namespace ends with the right to read it.
fn believe(namespace: &Arc<str>, access: Access, watches: &mut Watches<'_>, context: &Context) {
    if access == Access::Refused {
        watches.end(namespace);
    }
    if !context.bindings.shown(namespace, access) {
        return;
    }
    match access {
        Access::Refused => {
            context.secrets.forget(namespace);
            info!(%namespace, "namespace not opened: no RoleBinding grants the operator its rights there");
        }
        _ => info!(%namespace, "namespace opened, its TokenSources are reconciled"),
    }
    context.sources.keys(Some(namespace)).into_iter().for_each(|source| context.trigger(source));
}

fn answer(read: &Result<(), FollowError>) -> Answer {
    match read {
        Ok(()) => Answer::Granted,
        Err(error) if error.is_forbidden() => Answer::Refused,
        Err(_) => Answer::Failed,
    }
}

/// Lists the Secrets of a namespace. Of one that is watched, only whether it may: the watch would not tell, because the API
/// server does not end it with the right.
async fn read(
    client: Client,
    namespace: Arc<str>,
    is_watched: bool,
    context: &Context,
) -> (Arc<str>, Result<(), FollowError>) {
    let read = match is_watched {
        true => may_list_secrets(&client, &namespace).await,
        false => list(client, &namespace, context).await,
    };
    (namespace, read)
}

async fn list(client: Client, namespace: &Arc<str>, context: &Context) -> Result<(), FollowError> {
    let mut events = watch_secrets(client, Some(namespace));
    let mut epoch = 0;
    loop {
        let event = events.next().await?;
        let has_ended = matches!(event, Event::InitDone);
        secret_events::handle(context, event, &mut epoch, Some(namespace));
        if has_ended {
            return Ok(());
        }
    }
}

/// Follows the Secrets of a namespace until that is refused. Returns the namespace.
async fn follow(client: Client, namespace: Arc<str>, context: &Context) -> Arc<str> {
    let mut events = watch_secrets(client, Some(&namespace));
    let mut epoch = 0;
    loop {
        match events.next().await {
            Ok(event) => {
                secret_events::handle(context, event, &mut epoch, Some(&namespace));
            }
            Err(error) if error.is_forbidden() => return namespace,
            Err(error) => warn!(%namespace, %error, "the watch of Secrets failed"),
        }
    }
}
