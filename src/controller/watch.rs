//! Every watch, and what it triggers. All begin anew where the API server's storage was restored.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use kube::Client;
use tokio::sync::watch;
use tracing::warn;

use super::cache::source::CachedSource;
use super::cache::sources::Change;
use super::clock_check;
use super::context::Context;
use super::{issuer_watch, secret_events, served};
use crate::cluster::{Event, watch_namespaces, watch_secrets, watch_sources};
use crate::key::Key;

/// The time between two portions of TokenSources whose Secrets have changed: more of one namespace than token endpoints and the
/// API server can serve.
const PORTION_INTERVAL: Duration = Duration::from_millis(100);
/// How often a TokenSource is reconciled to show that reconciliations are made.
const PROOF: Duration = Duration::from_secs(60);

/// Where TokenSources are followed, and how their Secrets are.
pub enum Followed {
    /// Everywhere, with rights in the cluster.
    Everywhere,
    /// In these namespaces.
    In(Vec<String>),
    /// Everywhere, with rights by RoleBindings of namespaces.
    WhereBound {
        /// The client for Secrets: each watch needs a connection of its own.
        client: Client,
        /// The most watches of namespaces at once; the others are listed in turn.
        watches: usize,
        /// How often the Secrets of each namespace are listed.
        interval: Duration,
    },
}

/// One namespace, or all.
#[derive(Default)]
struct Scope {
    namespace: Option<String>,
    /// Whether its Secrets have been listed once.
    is_listed: AtomicBool,
}

/// Keeps the caches in step with the cluster, and triggers what a change concerns. Never ends.
pub(super) async fn run(client: Client, followed: &Followed, context: &Context) {
    let scopes: Vec<Scope> = match followed {
        Followed::Everywhere | Followed::WhereBound { .. } => vec![Scope::default()],
        Followed::In(namespaces) => {
            let of = |namespace: &String| Scope { namespace: Some(namespace.clone()), ..Scope::default() };
            namespaces.iter().map(of).collect()
        }
    };
    let settings = context.issuers.settings().filter(|settings| settings.follows_secrets);
    let lender = settings
        .map(|settings| Scope { namespace: Some(settings.namespace.to_string()), ..Scope::default() });
    let mut restorations = context.restorations.subscribe();
    let until_restored = async {
        loop {
            tokio::select! {
                () = watches(&client, followed, &scopes, lender.as_ref(), context) => {}
                // The sender lives as long as `context`.
                _ = restorations.changed() => context.storage_restored(),
            }
        }
    };
    tokio::join!(until_restored, crowds(context), clock_check::run(context), proofs(context));
}

/// Follows everything, from nothing.
async fn watches(
    client: &Client,
    followed: &Followed,
    scopes: &[Scope],
    lender: Option<&Scope>,
    context: &Context,
) {
    let mut all: Vec<BoxFuture<'_, ()>> = vec![];
    if let Some(labels) = context.namespaces.selector() {
        all.push(selected_namespaces(client.clone(), labels, context).boxed());
    }
    if let Some(lender) = lender {
        // Which of them matter, issuers say.
        let (_, listed) = watch::channel(true);
        all.push(secrets(client.clone(), lender, context, listed).boxed());
    }
    all.push(issuer_watch::run(client.clone(), context).boxed());
    for scope in scopes {
        let (listed, sources_listed) = watch::channel(false);
        all.push(sources(client.clone(), scope, context, listed).boxed());
        all.push(match followed {
            Followed::WhereBound { client, watches, interval } => {
                let is_listed = &scope.is_listed;
                let (watches, interval) = (*watches, *interval);
                let reads = served::Reads { client, watches, interval, is_listed };
                served::run(reads, context, sources_listed).boxed()
            }
            _ => secrets(client.clone(), scope, context, sources_listed).boxed(),
        });
    }
    join_all(all).await;
}

/// TokenSources: each that appears or changes.
async fn sources(client: Client, scope: &Scope, context: &Context, listed: watch::Sender<bool>) {
    let mut events = watch_sources(client, scope.namespace.as_deref());
    let mut epoch = 0;
    loop {
        match events.next().await {
            Ok(Event::Init) => epoch = context.sources.list_begins(),
            Ok(Event::Apply(source) | Event::InitApply(source)) => {
                if source.is_too_large {
                    context.metrics.object_too_large("tokensources");
                }
                let mut cached = CachedSource::after(source, |key| context.sources.get(key));
                cached.secrets = context.secrets.shared(&cached.key.namespace, &cached.secrets);
                let (names, revision) = (Arc::clone(&cached.secrets), cached.revision);
                let Change { key, before, is_own_report, others } = context.sources.put(cached);
                others.into_iter().for_each(|other| context.trigger(other));
                if before.is_none() {
                    context.bindings.source_added(&key.namespace);
                }
                let before = before.map(|before| Arc::clone(&before.secrets)).unwrap_or_default();
                context.secrets.reference(&key, &before, &names);
                if before != names {
                    before.first().into_iter().chain(names.first()).for_each(|it| readers(context, &key, it));
                }
                if is_own_report {
                    context.states.has_shown(&key, revision);
                } else {
                    context.trigger(key);
                }
            }
            Ok(Event::Delete(source)) => forget(context, &Key::of(&source.metadata)),
            Ok(Event::InitDone) => {
                // What went while the watch was down was reported by no event.
                let gone = context.sources.list_ends(epoch, scope.namespace.as_deref());
                gone.iter().for_each(|gone| forget(context, gone));
                listed.send_replace(true);
            }
            Err(error) => warn!(%error, "the watch of TokenSources failed"),
        }
    }
}

/// The TokenSources that request tokens with what this one writes: whether that is a circle depends on it.
fn readers(context: &Context, source: &Key, target: &Arc<str>) {
    let users = context.secrets.concerned(&source.sibling(Arc::clone(target)));
    users.into_iter().filter(|user| user != source).for_each(|user| context.trigger(user));
}

/// A TokenSource is gone. A token request in flight ends, and its result is dropped, but for a refresh token.
fn forget(context: &Context, source: &Key) {
    if let Some((before, next)) = context.sources.remove(source) {
        next.into_iter().for_each(|other| context.trigger(other));
        context.bindings.source_removed(&source.namespace);
        context.secrets.reference(source, &before.secrets, &[]);
        before.secrets.first().into_iter().for_each(|target| readers(context, source, target));
    }
    context.mints.cancel(source);
    context.states.forget(source);
    context.forget(source);
}

/// The metadata of Secrets: the TokenSources that use one that changed. Only after the TokenSources have been listed is it
/// known which Secrets matter.
async fn secrets(
    client: Client,
    scope: &Scope,
    context: &Context,
    mut sources_listed: watch::Receiver<bool>,
) {
    let _ = sources_listed.wait_for(|listed| *listed).await;
    let mut events = watch_secrets(client, scope.namespace.as_deref());
    let mut epoch = 0;
    loop {
        match events.next().await {
            Ok(event) => {
                let has_ended = matches!(event, Event::InitDone);
                secret_events::handle(context, event, &mut epoch, scope.namespace.as_deref());
                if has_ended && !scope.is_listed.swap(true, Ordering::Relaxed) {
                    context.secrets.first_list_read();
                }
            }
            Err(error) => warn!(%error, "the watch of Secrets failed"),
        }
    }
}

/// Those of a namespace with many whose Secrets have changed.
async fn crowds(context: &Context) {
    loop {
        context.secrets.next_of_crowds().await.into_iter().for_each(|source| context.trigger(source));
        tokio::time::sleep(PORTION_INTERVAL).await;
    }
}

/// The namespaces that the platform selects: the TokenSources of those that are selected since, or no more.
async fn selected_namespaces(client: Client, labels: &str, context: &Context) {
    let mut events = watch_namespaces(client, labels);
    let mut list = HashSet::new();
    loop {
        for namespace in context.namespaces.handle(&mut list, events.next().await) {
            context.bindings.ask(&namespace);
            context.sources.keys(Some(&namespace)).into_iter().for_each(|source| context.trigger(source));
        }
    }
}

/// Any one TokenSource each minute, so that a work queue that makes no progress is seen. Where nothing has changed, a
/// reconciliation costs next to nothing.
async fn proofs(context: &Context) {
    loop {
        tokio::time::sleep(PROOF).await;
        if context.leadership.may_start()
            && let Some(source) = context.sources.any()
        {
            context.heartbeats.expect_reconciliation();
            context.trigger(source);
        }
    }
}
