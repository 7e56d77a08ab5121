//! The watches, and how what they see reaches the TokenSources that it concerns.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use futures::{Stream, StreamExt, TryStreamExt, future};
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use super::cache::source::Watched;
use super::looks::{self, Causes};
use super::reconcile::look_again;
use super::{Context, Key};
use crate::cluster::{SecretHead, Source};

/// Objects in a page of a list.
const PAGE: u32 = 100;
/// How often some TokenSource is looked at, to see that looks are made.
const PROOF: Duration = Duration::from_secs(60);
/// How often a process that ends, or leads no more, tries to write what is left.
const LAST_TRIES: usize = 20;
/// How often the two clocks are compared.
const CLOCK_CHECK: Duration = Duration::from_secs(10);
/// How far they may drift apart between two comparisons.
const CLOCK_STEP: Duration = Duration::from_secs(5);

/// Where TokenSources are followed: in one namespace, or in all.
#[derive(Clone)]
struct Scope(Option<String>);

impl Scope {
    fn holds(&self, key: &Key) -> bool {
        self.0.as_deref().is_none_or(|namespace| namespace == &*key.namespace)
    }

    fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(&self, client: Client) -> Api<K> {
        match &self.0 {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        }
    }
}

/// Reconciles the TokenSources of `namespaces` (all where empty) whenever this process leads, until it is told to stop, and
/// then lets running reconciles end.
pub async fn run(client: Client, namespaces: &[String], context: Arc<Context>) {
    let scopes: Vec<Scope> = match namespaces {
        [] => vec![Scope(None)],
        some => some.iter().cloned().map(Some).map(Scope).collect(),
    };
    let follow = |scope| follow(client.clone(), scope, Arc::clone(&context));
    future::join_all(scopes.into_iter().map(follow)).await;
}

/// Follows one namespace, or all. Whoever does not lead follows too, and so can act at once when its turn comes.
async fn follow(client: Client, scope: Scope, context: Arc<Context>) {
    while !context.leadership.is_stopping() {
        let mut causes = causes(client.clone(), scope.clone(), &context);
        let may_act = async {
            context.leadership.begins().await;
            context.warm().await;
        };
        tokio::select! {
            () = may_act => {}
            () = context.leadership.stops() => return,
            () = causes.keep_warm() => {}
        }
        let proofs = proofs(scope.clone(), Arc::clone(&context));
        causes.changed = stream::select(causes.changed, proofs).boxed();
        looks::run(causes, Arc::clone(&context), context.leadership.ends()).await;
        context.heartbeats.rest();
        write_what_is_left(&scope, &context).await;
    }
}

/// What leads to looks at the TokenSources of one namespace, or of all.
fn causes(client: Client, scope: Scope, context: &Arc<Context>) -> Causes {
    let (tell_sources, mut sources_listed) = watch::channel(false);
    let (tell_secrets, listed) = watch::channel(false);
    let sources = sources(client.clone(), scope.clone(), Arc::clone(context), tell_sources);
    let secrets = changed_sources(client.clone(), scope.clone(), Arc::clone(context), tell_secrets);
    // Only after the TokenSources are known is it known which Secrets matter.
    let changed = stream::once(async move {
        let _ = sources_listed.wait_for(|listed| *listed).await;
        secrets
    });
    let selected = selected_sources(client, Arc::clone(context));
    let all_of_it = {
        let (scope, context) = (scope.clone(), Arc::clone(context));
        move || context.sources.keys(|source| scope.holds(source))
    };
    Causes {
        sources: sources.boxed(),
        listed,
        changed: stream::select(changed.flatten(), selected).boxed(),
        all: clock_steps(Arc::clone(context), scope).boxed(),
        all_of_it: Box::new(all_of_it),
    }
}

/// Asks for a look at some TokenSource each minute, to see that looks are made. Where nothing has changed, a look costs next
/// to nothing.
fn proofs(scope: Scope, context: Arc<Context>) -> impl Stream<Item = Key> + Send {
    let minutes = stream::unfold((), |()| async {
        tokio::time::sleep(PROOF).await;
        Some(((), ()))
    });
    minutes.filter_map(move |()| {
        let some = context.sources.any(|source| scope.holds(source));
        if some.is_some() {
            context.heartbeats.await_look();
        }
        future::ready(some)
    })
}

/// What was minted and could not be written, because the API server did not answer, is in memory alone, and may be the only
/// copy of a refresh token. So it is tried again, for a while.
async fn write_what_is_left(scope: &Scope, context: &Arc<Context>) {
    for _ in 0..LAST_TRIES {
        let left = context.memories.unwritten().into_iter().filter(|source| scope.holds(source));
        let left = left.filter_map(|source| context.sources.get(&source));
        let looks: Vec<_> = left.map(|source| look_again(source, context)).collect();
        if looks.is_empty() {
            return;
        }
        warn!(sources = looks.len(), "what was minted is not written yet: trying again");
        future::join_all(looks).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// Keeps the TokenSources, and the Secrets that they name, in step with the cluster, and yields those that have appeared or
/// changed.
fn sources(
    client: Client,
    scope: Scope,
    context: Arc<Context>,
    listed: watch::Sender<bool>,
) -> impl Stream<Item = watcher::Result<Key>> + Send {
    let api: Api<Source> = scope.api(client);
    let mut epoch = 0;
    let events = watcher::watcher(api, in_small_pages()).default_backoff();
    events.try_filter_map(move |event| {
        let changed = match event {
            Event::Init => {
                epoch = context.sources.list_begins();
                None
            }
            Event::Apply(source) | Event::InitApply(source) => {
                let watched = Watched::from(source);
                let names = Arc::clone(&watched.secrets);
                let (key, before) = context.sources.put(watched);
                let before = before.map(|before| Arc::clone(&before.secrets)).unwrap_or_default();
                context.secrets.reference(&key, &before, &names);
                Some(key)
            }
            Event::Delete(source) => {
                forget(&context, &Key::of(&source.metadata));
                None
            }
            Event::InitDone => {
                // What went while the watch was down was told by no event.
                let gone = context.sources.list_ends(epoch, |source| scope.holds(source));
                gone.iter().for_each(|gone| forget(&context, gone));
                listed.send_replace(true);
                None
            }
        };
        future::ok(changed)
    })
}

/// The largest part of an object is its managedFields, and a whole page of them is in memory at once.
fn in_small_pages() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

/// A TokenSource is gone.
fn forget(context: &Context, source: &Key) {
    if let Some(before) = context.sources.remove(source) {
        context.secrets.reference(source, &before.secrets, &[]);
    }
    context.memories.forget(source);
    context.metrics.forget(source);
}

/// Follows the metadata of Secrets, and yields the TokenSources that a change concerns.
fn changed_sources(
    client: Client,
    scope: Scope,
    context: Arc<Context>,
    listed: watch::Sender<bool>,
) -> impl Stream<Item = Key> + Send {
    let api: Api<SecretHead> = scope.api(client);
    let mut epoch = 0;
    let events = watcher::watcher(api, in_small_pages()).default_backoff();
    let users = events.map(move |event| {
        let secrets = &context.secrets;
        match event {
            Ok(Event::Init) => {
                epoch = secrets.list_begins();
                vec![]
            }
            Ok(Event::InitApply(secret) | Event::Apply(secret)) => {
                let key = secret.key();
                secret.facts.map(|facts| secrets.changed(&key, facts)).unwrap_or_default()
            }
            Ok(Event::Delete(secret)) => {
                let key = secret.key();
                secret.facts.map(|facts| secrets.deleted(&key, &facts)).unwrap_or_default()
            }
            Ok(Event::InitDone) => {
                let gone = secrets.list_ends(epoch, |secret| scope.holds(secret));
                if !listed.send_replace(true) {
                    secrets.first_list_read();
                }
                gone
            }
            Err(error) => {
                warn!(%error, "watching Secrets");
                vec![]
            }
        }
    });
    users.flat_map(stream::iter)
}

/// Follows the namespaces that the platform selects, and yields the TokenSources of those that are selected since, or
/// no more. Without a selector it yields nothing.
fn selected_sources(client: Client, context: Arc<Context>) -> impl Stream<Item = Key> + Send {
    let labels = context.namespaces.selector().map(str::to_owned);
    stream::iter(labels).flat_map(move |labels| {
        let api: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
        let context = Arc::clone(&context);
        let mut list = HashSet::new();
        watcher::watcher(api, watcher::Config::default().labels(&labels))
            .default_backoff()
            .map(move |event| {
                let changed = context.namespaces.take_in(&mut list, event);
                match &changed[..] {
                    [] => vec![],
                    changed => {
                        context.sources.keys(|source| changed.iter().any(|it| **it == *source.namespace))
                    }
                }
            })
            .flat_map(stream::iter)
    })
}

/// Timers sleep on the monotonic clock, tokens expire by the wall clock: when the two part, because the clock was
/// set or the machine slept, every source is looked at again. While they agree, no source costs anything.
/// Each comparison is a sign of life of the loop for `scope`.
fn clock_steps(context: Arc<Context>, scope: Scope) -> impl Stream<Item = ()> + Send + 'static {
    stream::unfold((Instant::now(), Timestamp::now()), move |(monotonic, wall)| {
        let (context, scope) = (Arc::clone(&context), scope.clone());
        async move {
            context.heartbeats.tick(scope.0.as_deref().unwrap_or("all namespaces"));
            tokio::time::sleep(CLOCK_CHECK).await;
            let now = (Instant::now(), Timestamp::now());
            let passed = now.0.duration_since(monotonic);
            let difference = now.1.duration_since(wall).unsigned_abs().abs_diff(passed);
            if difference > CLOCK_STEP {
                context.metrics.clock_stepped();
                warn!(
                    seconds = difference.as_secs(),
                    "the clock was set, or the machine slept: every TokenSource is looked at again"
                );
            }
            Some((difference > CLOCK_STEP, now))
        }
    })
    .filter_map(|stepped| async move { stepped.then_some(()) })
}
