//! Lists the objects of a kind, and follows them: what kube's watcher does, in bounded memory. A page is reduced while it
//! arrives, an item at a time, and so is each line of a watch. It asks for nothing that API servers lack.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderValue;
use http::header::ACCEPT_ENCODING;
use kube::Client;
use kube::api::{ListParams, WatchParams};
use kube::core::Request;
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

use super::body::{Body, List, ListMetadata, parse};
use super::message::message;
use super::objects::Read;
use super::reduce::Reduced;
use crate::text::shown;

/// The objects of the first page, and of one after a large page: the API server has them all in memory.
const MIN_PAGE_SIZE: u32 = 100;
/// The most objects of a page. For each page, etcd counts the objects that are left: a list of many small ones takes less time in
/// few pages.
const MAX_PAGE_SIZE: u32 = 1000;
/// A page with more bytes is large. None is asked for that would be, if its objects are as those before.
const LARGE_PAGE: usize = 4 << 20;
/// Pages that are read at once. The buffers of each connection grow to about half a MiB.
static PAGES: Semaphore = Semaphore::const_new(16);
/// The timeout of the head of a response. The API server's own is 60 s.
pub(super) const HEAD_TIMEOUT: Duration = Duration::from_secs(65);
/// The timeout of one item.
const ITEM_TIMEOUT: Duration = Duration::from_secs(30);
/// The timeout of a line of a watch: kube asks the API server to end a watch after 290 s.
const LINE_TIMEOUT: Duration = Duration::from_secs(295);
/// A watch that ends sooner has failed: the next one has to wait.
const MIN_WATCH: Duration = Duration::from_secs(5);
/// The wait after a failure, without jitter. It doubles.
const MIN_WAIT: Duration = Duration::from_millis(800);
const MAX_WAIT: Duration = Duration::from_secs(30);
/// The status of an API server that has no events from this version on any more: everything is listed anew.
const GONE: u16 = 410;
/// The status of a request that RBAC does not grant.
const FORBIDDEN: u16 = 403;

/// What happens to the objects of a kind.
#[derive(Debug)]
pub(crate) enum Event<K> {
    /// A list begins: what it does not contain does not exist.
    Init,
    /// An object of the list.
    InitApply(K),
    /// The list has ended.
    InitDone,
    /// An object was created or changed.
    Apply(K),
    /// An object was deleted.
    Delete(K),
}

/// A list or a watch failed. It is tried again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FollowError {
    #[error("list: {}", message(.0))]
    List(#[source] kube::Error),
    #[error("watch: {}", message(.0))]
    Watch(#[source] kube::Error),
    #[error("the API server has ended the watch: {message} (status {code})")]
    Ended { code: u16, message: String },
    #[error("no answer in time")]
    Timeout,
    #[error("the list has no resourceVersion")]
    NoVersion,
}

impl FollowError {
    /// Whether RBAC does not grant the list or the watch.
    pub(crate) fn is_forbidden(&self) -> bool {
        let (FollowError::List(error) | FollowError::Watch(error)) = self else { return false };
        matches!(error, kube::Error::Api(status) if status.code == FORBIDDEN)
    }
}

/// Follows the objects of a kind. It never ends.
pub(crate) struct Follow<K> {
    client: Client,
    path: String,
    labels: Option<String>,
    place: Place,
    /// The objects of the next page.
    page_size: u32,
    /// Failures in a row.
    failures: u32,
    contact: Contact,
    /// No request is sent before.
    not_before: Option<Instant>,
    kind: PhantomData<fn() -> K>,
}

/// When a watch was last answered: what it follows was known then.
#[derive(Clone, Debug)]
pub(crate) struct Contact(Arc<Mutex<Instant>>);

impl Contact {
    /// The time since then.
    pub(crate) fn age(&self) -> Duration {
        self.last().elapsed()
    }

    fn renew(&self) {
        *self.last() = Instant::now();
    }

    fn last(&self) -> MutexGuard<'_, Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(crate) fn of_now() -> Self {
        Contact(Arc::new(Mutex::new(Instant::now())))
    }
}

enum Place {
    /// A list is to begin.
    Start,
    /// The page with this continue token is next.
    Page(Option<String>),
    /// A page arrives.
    List(Body, Option<SemaphorePermit<'static>>),
    /// A watch is to begin from this version.
    Listed(String),
    Watch {
        version: String,
        body: Body,
        begun: Instant,
    },
}

#[derive(Deserialize)]
struct Line<T> {
    r#type: String,
    object: T,
}

#[derive(Deserialize)]
struct Bookmark {
    metadata: ListMetadata,
}

/// Of an object that cannot be read.
#[derive(Default, Deserialize)]
struct Named {
    metadata: NamedMetadata,
}

#[derive(Default, Deserialize)]
struct NamedMetadata {
    namespace: Option<String>,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Status {
    code: Option<u16>,
    message: Option<String>,
}

impl<K: Read> Follow<K> {
    /// Follows the objects of a namespace, or of all, with these labels.
    pub(super) fn new(client: Client, namespace: Option<&str>, labels: Option<&str>) -> Self {
        let (path, labels) = (K::url_path(&(), namespace), labels.map(str::to_owned));
        Follow {
            client,
            path,
            labels,
            place: Place::Start,
            page_size: MIN_PAGE_SIZE,
            failures: 0,
            contact: Contact(Arc::new(Mutex::new(Instant::now()))),
            not_before: None,
            kind: PhantomData,
        }
    }

    /// When the API server last showed these objects.
    pub(crate) fn contact(&self) -> Contact {
        self.contact.clone()
    }

    /// What happens next. After an error the next call waits before it sends a request.
    pub(crate) async fn next(&mut self) -> Result<Event<K>, FollowError> {
        let next = self.step().await;
        if next.is_err() {
            self.failed();
        }
        next
    }

    async fn step(&mut self) -> Result<Event<K>, FollowError> {
        loop {
            // What fails begins with a list, unless a watch can go on.
            match std::mem::replace(&mut self.place, Place::Start) {
                Place::Start => {
                    self.page_size = MIN_PAGE_SIZE;
                    self.place = Place::Page(None);
                    return Ok(Event::Init);
                }
                Place::Page(next) => self.place = self.page(next).await?,
                Place::List(body, permit) => {
                    if let Some(event) = self.listed(body, permit).await? {
                        return Ok(event);
                    }
                }
                Place::Listed(version) => {
                    self.place = Place::Listed(version.clone());
                    self.place = self.watch(version).await?;
                }
                Place::Watch { version, body, begun } => {
                    if let Some(event) = self.line(version, body, begun).await? {
                        return Ok(event);
                    }
                }
            }
        }
    }

    async fn page(&mut self, next: Option<String>) -> Result<Place, FollowError> {
        self.wait().await;
        // Without a resourceVersion: the newest state, from etcd. With 0, an API server may answer from an old cache.
        let page = ListParams { label_selector: self.labels.clone(), ..ListParams::default() };
        let page = ListParams { continue_token: next, ..page.limit(self.page_size) };
        let request = Request::new(&*self.path);
        let request = if K::metadata_api() { request.list_metadata(&page) } else { request.list(&page) };
        let request = request.map_err(|error| FollowError::List(kube::Error::BuildRequest(error)))?;
        let permit = PAGES.acquire().await.ok();
        let body = Body::of(&self.client, request, K::responses().list);
        let body = timeout(HEAD_TIMEOUT, body).await.map_err(|_| FollowError::Timeout)?;
        Ok(Place::List(body.map_err(FollowError::List)?, permit))
    }

    async fn listed(
        &mut self,
        mut body: Body,
        permit: Option<SemaphorePermit<'static>>,
    ) -> Result<Option<Event<K>>, FollowError> {
        let next = timeout(ITEM_TIMEOUT, body.next()).await.map_err(|_| FollowError::Timeout)?;
        let Some(reduced) = next.map_err(FollowError::List)? else { return Err(FollowError::NoVersion) };
        if reduced.is_item {
            self.place = Place::List(body, permit);
            return Ok(K::read(&reduced).map(Event::InitApply).map_err(|_| self.left_out(&reduced)).ok());
        }
        let List { metadata } = parse(&reduced).map_err(FollowError::List)?;
        if let Some(next) = metadata.next() {
            if body.received > LARGE_PAGE {
                self.page_size = MIN_PAGE_SIZE;
            } else if body.received <= LARGE_PAGE / 2 {
                self.page_size = MAX_PAGE_SIZE.min(self.page_size * 2);
            }
            self.place = Place::Page(Some(next));
            return Ok(None);
        }
        self.place = Place::Listed(metadata.version().ok_or(FollowError::NoVersion)?);
        self.failures = 0;
        self.contact.renew();
        Ok(Some(Event::InitDone))
    }

    async fn watch(&mut self, version: String) -> Result<Place, FollowError> {
        self.wait().await;
        let watch = WatchParams { label_selector: self.labels.clone(), ..WatchParams::default() };
        let request = Request::new(&*self.path);
        let request = match K::metadata_api() {
            true => request.watch_metadata(&watch, &version),
            false => request.watch(&watch, &version),
        };
        let mut request = request.map_err(|error| FollowError::Watch(kube::Error::BuildRequest(error)))?;
        // From Kubernetes 1.37 on each event would be a gzip member of its own.
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let body = Body::of(&self.client, request, K::responses().event);
        let body = timeout(HEAD_TIMEOUT, body).await.map_err(|_| FollowError::Timeout)?;
        match body {
            Ok(body) => {
                self.contact.renew();
                Ok(Place::Watch { version, body, begun: Instant::now() })
            }
            Err(error) => {
                if matches!(&error, kube::Error::Api(status) if status.code == GONE) {
                    self.place = Place::Start;
                }
                Err(FollowError::Watch(error))
            }
        }
    }

    async fn line(
        &mut self,
        version: String,
        mut body: Body,
        begun: Instant,
    ) -> Result<Option<Event<K>>, FollowError> {
        let next = timeout(LINE_TIMEOUT, body.next()).await;
        let reduced = match next {
            Ok(Ok(Some(reduced))) => reduced,
            // It is followed on from the last version. Where that fails again at once, it is said.
            ended => {
                self.place = Place::Listed(version);
                if begun.elapsed() >= MIN_WATCH {
                    return Ok(None);
                }
                return match ended {
                    Ok(Err(error)) => Err(FollowError::Watch(error)),
                    _ => {
                        debug!(path = self.path, "a watch ended at once");
                        self.failed();
                        Ok(None)
                    }
                };
            }
        };
        self.contact.renew();
        self.place = Place::Listed(version.clone());
        let Line { r#type: kind, object: IgnoredAny } = parse(&reduced).map_err(FollowError::Watch)?;
        let changed: fn(K) -> Event<K> = match &*kind {
            "ADDED" | "MODIFIED" => Event::Apply,
            "DELETED" => Event::Delete,
            "BOOKMARK" => {
                let Line::<Bookmark> { object, .. } = parse(&reduced).map_err(FollowError::Watch)?;
                let version = object.metadata.version().unwrap_or(version);
                self.place = Place::Watch { version, body, begun };
                return Ok(None);
            }
            _ => return Err(self.ended(&reduced)),
        };
        let Ok(object) = K::read_changed(&reduced) else {
            self.left_out(&reduced);
            let version =
                parse::<Line<Bookmark>>(&reduced).ok().and_then(|line| line.object.metadata.version());
            // Without a version the line would come again and again: a list leaves the object out.
            self.place = version.map_or(Place::Start, |version| Place::Watch { version, body, begun });
            return Ok(None);
        };
        let version = object.meta().resource_version.clone().filter(|version| !version.is_empty());
        let Some(version) = version else {
            self.place = Place::Start;
            return Err(FollowError::NoVersion);
        };
        self.failures = 0;
        self.place = Place::Watch { version, body, begun };
        Ok(Some(changed(object)))
    }

    /// An object cannot be read. What is in it may be a tenant's choice, so that it must not stop the others.
    fn left_out(&self, reduced: &Reduced) {
        let object =
            parse::<Line<Named>>(reduced).map(|line| line.object).or_else(|_| parse::<Named>(reduced));
        let Named { metadata } = object.unwrap_or_default();
        let (namespace, name) = (metadata.namespace.unwrap_or_default(), metadata.name.unwrap_or_default());
        warn!(path = self.path, %namespace, %name, "an object that cannot be read is left out");
    }

    /// The API server sends an error instead of an object.
    fn ended(&mut self, reduced: &Reduced) -> FollowError {
        let status = match parse::<Line<Status>>(reduced) {
            Ok(line) => line.object,
            Err(error) => return FollowError::Watch(error),
        };
        let code = status.code.unwrap_or_default();
        if code == GONE {
            self.place = Place::Start;
        }
        FollowError::Ended { code, message: shown(&status.message.unwrap_or_default()).into_owned() }
    }

    fn failed(&mut self) {
        let wait = MIN_WAIT.saturating_mul(1 << self.failures.min(10)).min(MAX_WAIT);
        // A random number: the hash of nothing, with random keys.
        let part = RandomState::new().hash_one(()) % 1000;
        let jitter = wait.mul_f64(part as f64 / 2000.0);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(Instant::now() + wait + jitter);
    }

    async fn wait(&mut self) {
        if let Some(until) = self.not_before {
            sleep_until(until).await;
            self.not_before = None;
        }
    }
}

#[cfg(test)]
mod tests;
