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
use crate::cluster::{Event, watch_namespaces, watch_secrets, watch_sources};
use crate::key::Key;
use crate::secret::Facts;

/// How often a TokenSource is reconciled to show that reconciliations are made.
const PROOF: Duration = Duration::from_secs(60);

/// Where TokenSources are followed: in one namespace, or in all.
#[derive(Default)]
struct Scope {
    namespace: Option<String>,
    /// Whether its Secrets have been listed once.
    is_listed: AtomicBool,
}

impl Scope {
    fn holds(&self, key: &Key) -> bool {
        self.namespace.as_deref().is_none_or(|namespace| namespace == &*key.namespace)
    }
}

/// Keeps the caches in step with the cluster, and triggers what a change concerns. Never ends.
pub(super) async fn run(client: Client, namespaces: &[String], context: &Context) {
    let scopes: Vec<Scope> = match namespaces {
        [] => vec![Scope::default()],
        some => {
            let of = |namespace: &String| Scope { namespace: Some(namespace.clone()), ..Scope::default() };
            some.iter().map(of).collect()
        }
    };
    let mut restorations = context.restorations.subscribe();
    let until_restored = async {
        loop {
            tokio::select! {
                () = watches(&client, &scopes, context) => {}
                // The sender lives as long as `context`.
                _ = restorations.changed() => context.storage_restored(),
            }
        }
    };
    tokio::join!(until_restored, clock_check::run(context), proofs(context));
}

/// Follows everything, from nothing.
async fn watches(client: &Client, scopes: &[Scope], context: &Context) {
    let mut all: Vec<BoxFuture<'_, ()>> = vec![];
    if let Some(labels) = context.namespaces.selector() {
        all.push(selected_namespaces(client.clone(), labels, context).boxed());
    }
    for scope in scopes {
        let (listed, sources_listed) = watch::channel(false);
        all.push(sources(client.clone(), scope, context, listed).boxed());
        all.push(secrets(client.clone(), scope, context, sources_listed).boxed());
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
                let cached = CachedSource::from(source);
                let (names, revision) = (Arc::clone(&cached.secrets), cached.revision());
                let Change { key, before, is_own_report, displaced } = context.sources.put(cached);
                displaced.into_iter().for_each(|other| context.trigger(other));
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
                let gone = context.sources.list_ends(epoch, |source| scope.holds(source));
                gone.iter().for_each(|gone| forget(context, gone));
                listed.send_replace(true);
            }
            Err(error) => warn!(%error, "the watch of TokenSources failed"),
        }
    }
}

/// The TokenSources that request tokens with what this one writes: whether that is a circle depends on it.
fn readers(context: &Context, source: &Key, target: &Arc<str>) {
    let users = context.secrets.users(&source.sibling(Arc::clone(target)));
    users.into_iter().filter(|user| user != source).for_each(|user| context.trigger(user));
}

/// A TokenSource is gone. A token request in flight ends, and its result is dropped, but for a refresh token.
fn forget(context: &Context, source: &Key) {
    if let Some((before, next)) = context.sources.remove(source) {
        next.into_iter().for_each(|other| context.trigger(other));
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
        let concerned = match events.next().await {
            Ok(Event::Init) => {
                epoch = context.secrets.list_begins();
                vec![]
            }
            Ok(Event::InitApply(secret)) => {
                let key = secret.key();
                count_too_large(context, secret.facts.as_ref());
                secret.facts.map(|facts| context.secrets.listed(&key, facts, epoch)).unwrap_or_default()
            }
            Ok(Event::Apply(secret)) => {
                let key = secret.key();
                count_too_large(context, secret.facts.as_ref());
                secret.facts.map(|facts| context.secrets.changed(&key, facts)).unwrap_or_default()
            }
            Ok(Event::Delete(secret)) => {
                let key = secret.key();
                secret.facts.map(|facts| context.secrets.deleted(&key, &facts)).unwrap_or_default()
            }
            Ok(Event::InitDone) => {
                let gone = context.secrets.list_ends(epoch, |secret| scope.holds(secret));
                if !scope.is_listed.swap(true, Ordering::Relaxed) {
                    context.secrets.first_list_read();
                }
                gone
            }
            Err(error) => {
                warn!(%error, "the watch of Secrets failed");
                vec![]
            }
        };
        concerned.into_iter().for_each(|source| context.trigger(source));
    }
}

fn count_too_large(context: &Context, facts: Option<&Facts>) {
    if facts.is_some_and(|facts| facts.too_large.is_some()) {
        context.metrics.object_too_large("secrets");
    }
}

/// The namespaces that the platform selects: the TokenSources of those that are selected since, or no more.
async fn selected_namespaces(client: Client, labels: &str, context: &Context) {
    let mut events = watch_namespaces(client, labels);
    let mut list = HashSet::new();
    loop {
        let changed = context.namespaces.handle(&mut list, events.next().await);
        if !changed.is_empty() {
            let of_them = |source: &Key| changed.iter().any(|it| **it == *source.namespace);
            context.sources.keys(of_them).into_iter().for_each(|source| context.trigger(source));
        }
    }
}

/// Any one TokenSource each minute, so that a work queue that makes no progress is seen. Where nothing has changed, a
/// reconciliation costs next to nothing.
async fn proofs(context: &Context) {
    loop {
        tokio::time::sleep(PROOF).await;
        if context.leadership.may_start()
            && let Some(source) = context.sources.any(|_| true)
        {
            context.heartbeats.expect_reconciliation();
            context.trigger(source);
        }
    }
}
