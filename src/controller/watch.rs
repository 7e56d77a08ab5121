//! The watches, and how what they see reaches the TokenSources that it concerns.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::stream;
use futures::{Stream, StreamExt, TryStreamExt, future};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use super::looks::{self, Causes};
use super::reconcile::look_again;
use super::resolved::Identity;
use super::watched::Watched;
use super::{Context, Key, Pulse};
use crate::target::Facts;

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

/// Reconciles the TokenSources of `namespaces` (all where empty) whenever this process leads, until it is told to stop, and
/// then lets running reconciles end.
pub async fn run(client: Client, namespaces: &[String], context: Arc<Context>) {
    let scopes: Vec<Option<String>> = match namespaces {
        [] => vec![None],
        some => some.iter().cloned().map(Some).collect(),
    };
    let follow = |scope| follow(client.clone(), scope, Arc::clone(&context));
    future::join_all(scopes.into_iter().map(follow)).await;
}

/// Follows one namespace, or all. Whoever does not lead follows too, and so can act at once when its turn comes.
async fn follow(client: Client, namespace: Option<String>, context: Arc<Context>) {
    while !context.mandate.is_stopping() {
        let mut causes = causes(client.clone(), namespace.clone(), &context);
        let may_act = async {
            context.mandate.begins().await;
            context.warm().await;
        };
        tokio::select! {
            () = may_act => {}
            () = context.mandate.stops() => return,
            () = causes.keep_warm() => {}
        }
        let store = causes.store.clone();
        let proofs = proofs(store.clone(), Arc::clone(&context.pulse));
        causes.changed = stream::select(causes.changed, proofs).boxed();
        looks::run(causes, Arc::clone(&context), context.mandate.ends()).await;
        context.pulse.rest();
        write_what_is_left(&store, &context).await;
    }
}

/// What leads to looks at the TokenSources of one namespace, or of all.
fn causes(client: Client, namespace: Option<String>, context: &Arc<Context>) -> Causes {
    let scope = namespace.clone().unwrap_or_else(|| "all namespaces".into());
    let (store, writer) = reflector::store();
    let (listed, mut first_list) = watch::channel(false);
    let sources = sources(client.clone(), namespace.as_deref(), Arc::clone(context), listed);
    let secrets = changed_sources(client.clone(), namespace, Arc::clone(context));
    // Only after the TokenSources are known is it known which Secrets matter.
    let changed = stream::once(async move {
        let _ = first_list.wait_for(|listed| *listed).await;
        secrets
    });
    let selected = selected_sources(client, Arc::clone(context));
    Causes {
        sources: sources.reflect(writer).applied_objects().boxed(),
        store,
        changed: stream::select(changed.flatten(), selected).boxed(),
        all: clock_steps(Arc::clone(context), scope).boxed(),
    }
}

/// Asks for a look at some TokenSource each minute, to see that looks are made. Where nothing has changed, a look costs next
/// to nothing.
fn proofs(store: reflector::Store<Watched>, pulse: Arc<Pulse>) -> impl Stream<Item = Key> + Send {
    let minutes = stream::unfold((), |()| async {
        tokio::time::sleep(PROOF).await;
        Some(((), ()))
    });
    minutes.filter_map(move |()| {
        let some = store.find(|_| true);
        if some.is_some() {
            pulse.await_look();
        }
        future::ready(some.map(|source| source.key()))
    })
}

/// What was minted and could not be written, because the API server did not answer, is in memory alone, and may be the only
/// copy of a refresh token. So it is tried again, for a while.
async fn write_what_is_left(store: &reflector::Store<Watched>, context: &Arc<Context>) {
    for _ in 0..LAST_TRIES {
        let left = context.memories.unwritten();
        let left = left
            .iter()
            .filter_map(|key| store.get(&reflector::ObjectRef::new(&key.name).within(&key.namespace)));
        let looks: Vec<_> = left.map(|source| look_again(source, context)).collect();
        if looks.is_empty() {
            return;
        }
        warn!(sources = looks.len(), "what was minted is not written yet: trying again");
        future::join_all(looks).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The TokenSources, and the Secrets that they name kept in step.
fn sources(
    client: Client,
    namespace: Option<&str>,
    context: Arc<Context>,
    listed: watch::Sender<bool>,
) -> impl Stream<Item = watcher::Result<Event<Watched>>> + Send + use<> {
    let api: Api<Watched> = match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let scope = namespace.map(str::to_owned);
    // What a list names that is not the first: what went while the watch was down was told by no event.
    let mut named: Option<HashSet<Key>> = None;
    watcher::watcher(api, in_small_pages()).default_backoff().inspect_ok(move |event| match event {
        Event::Init => named = listed.borrow().then(HashSet::new),
        Event::Apply(watched) | Event::InitApply(watched) => {
            if let Some(named) = &mut named {
                named.insert(watched.key());
            }
            let Ok(source) = watched.source() else { return };
            if let Some(identity) = Identity::of(&source) {
                context.secrets.reference(&identity.key, &identity.secret_names(&source.spec));
            }
        }
        Event::Delete(watched) => forget(&context, &watched.key()),
        Event::InitDone => {
            if let Some(named) = named.take() {
                let known = context.secrets.sources(scope.as_deref());
                known.iter().filter(|source| !named.contains(source)).for_each(|gone| forget(&context, gone));
            }
            listed.send_replace(true);
        }
    })
}

/// The largest part of an object is its managedFields, and a whole page of them is in memory at once.
fn in_small_pages() -> watcher::Config {
    watcher::Config::default().page_size(PAGE)
}

/// A TokenSource is gone.
fn forget(context: &Context, source: &Key) {
    context.secrets.forget(source);
    context.memories.forget(source);
    context.metrics.forget(source);
}

/// Follows the metadata of Secrets, and yields the TokenSources that a change concerns.
fn changed_sources(
    client: Client,
    namespace: Option<String>,
    context: Arc<Context>,
) -> impl Stream<Item = Key> + Send {
    let api: Api<PartialObjectMeta<Secret>> = match &namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let mut epoch = 0;
    let mut listed = false;
    let events = watcher::watcher(api, in_small_pages()).default_backoff();
    let users = events.map(move |event| {
        let secrets = &context.secrets;
        match &event {
            Ok(Event::Init) => {
                epoch = secrets.list_begins();
                vec![]
            }
            Ok(Event::InitApply(secret) | Event::Apply(secret)) => match Facts::of(&secret.metadata) {
                Some(facts) => secrets.changed(&key_of(secret), facts),
                None => vec![],
            },
            Ok(Event::Delete(secret)) => match Facts::of(&secret.metadata) {
                Some(facts) => secrets.deleted(&key_of(secret), &facts),
                None => vec![],
            },
            Ok(Event::InitDone) => {
                let gone = secrets.list_ends(namespace.as_deref(), epoch);
                if !listed {
                    listed = true;
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
                context.secrets.sources_in(&changed)
            })
            .flat_map(stream::iter)
    })
}

fn key_of(secret: &PartialObjectMeta<Secret>) -> Key {
    Key::new(
        secret.metadata.namespace.as_deref().unwrap_or_default(),
        secret.metadata.name.as_deref().unwrap_or_default(),
    )
}

/// Timers sleep on the monotonic clock, tokens expire by the wall clock: when the two part, because the clock was
/// set or the machine slept, every source is looked at again. While they agree, no source costs anything.
/// Each comparison is a sign of life of the loop for `scope`.
fn clock_steps(context: Arc<Context>, scope: String) -> impl Stream<Item = ()> + Send + 'static {
    stream::unfold((Instant::now(), Timestamp::now()), move |(monotonic, wall)| {
        let (context, scope) = (Arc::clone(&context), scope.clone());
        async move {
            context.pulse.tick(&scope);
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
