//! What is counted, and how Prometheus reads it. Whoever has something to count calls a method of [`Metrics`] and sees
//! no type of Prometheus.
//!
//! Every label has a closed set of values, but for the names of TokenSources and of hosts: series of a TokenSource go
//! with it, and there are at most [`hosts::MOST`] hosts.

mod families;
mod hosts;
mod process;
mod requests;
mod sources;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

pub use requests::CountRequests;
pub use sources::{Sight, Times};

use crate::key::Key;
use families::{HostLabel, MintLabels, RequestLabels};
use hosts::Hosts;
use sources::Sources;
use tokensource_api::Reason;

/// The media type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

type Histograms = Family<HostLabel, Histogram, fn() -> Histogram>;

/// All that is counted.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    sources: Arc<Mutex<Sources>>,
    hosts: Mutex<Hosts>,
    mints: Family<MintLabels, Counter>,
    request_duration: Histograms,
    request_wait: Histograms,
    requests: Family<RequestLabels, Counter>,
    reconciles_pending: Gauge,
    requests_queued: Gauge,
    unwritten: Gauge,
    reconcile_duration: Histogram,
    prompt_failures: Counter,
    leader: Gauge,
    clock_steps: Counter,
    panics: Counter,
}

/// A look at a TokenSource that is going on.
#[derive(Debug)]
pub struct Look<'a> {
    metrics: &'a Metrics,
    begun: Instant,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Nothing counted yet.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let metrics = Metrics {
            sources: Arc::default(),
            hosts: Mutex::default(),
            mints: Family::default(),
            request_duration: Family::new_with_constructor(families::request_duration),
            request_wait: Family::new_with_constructor(families::request_wait),
            requests: Family::default(),
            reconciles_pending: Gauge::default(),
            requests_queued: Gauge::default(),
            unwritten: Gauge::default(),
            reconcile_duration: families::reconcile_duration(),
            prompt_failures: Counter::default(),
            leader: Gauge::default(),
            clock_steps: Counter::default(),
            panics: Counter::default(),
            registry: Registry::default(),
        };
        families::register(&mut registry, &metrics);
        registry.register_collector(Box::new(sources::Collected(Arc::clone(&metrics.sources))));
        registry.register_collector(Box::new(process::Process));
        Metrics { registry, ..metrics }
    }

    /// Writes everything, in Prometheus' text format.
    pub fn write(&self, text: &mut impl fmt::Write) {
        // Writing into memory does not fail.
        let _ = prometheus_text::encode(text, &self.registry);
    }

    /// A token was asked for at `host`, and this came of it.
    pub fn minted(&self, host: &str, failed: Option<Reason>, took: Option<Duration>) {
        let host = self.host(host);
        if let Some(took) = took {
            self.request_duration
                .get_or_create(&HostLabel { host: host.clone() })
                .observe(took.as_secs_f64());
        }
        self.mints.get_or_create(&MintLabels { host, result: families::result(failed) }).inc();
    }

    /// A turn at `host` came after this time, or waiting for it was given up.
    pub fn waited(&self, host: &str, waited: Duration) {
        let host = self.host(host);
        self.request_wait.get_or_create(&HostLabel { host }).observe(waited.as_secs_f64());
    }

    /// The Kubernetes API server answered, or (`None`) did not.
    pub fn requested(&self, verb: &'static str, resource: &'static str, code: Option<u16>) {
        self.requests.get_or_create(&RequestLabels::new(verb, resource, code)).inc();
    }

    /// How many reconciliations are due or running, how many token requests wait, and how many tokens wait to be written.
    pub fn queues(&self, reconciles: usize, token_requests: usize, unwritten: usize) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.reconciles_pending.set(number(reconciles));
        self.requests_queued.set(number(token_requests));
        self.unwritten.set(number(unwritten));
    }

    /// Somebody looks at a TokenSource until what is returned is dropped.
    #[must_use]
    pub fn look(&self, source: &Key) -> Look<'_> {
        self.next_reconcile(source, None);
        Look { metrics: self, begun: Instant::now() }
    }

    /// The next look at a TokenSource is due in this time at the latest; `None` where only a change brings one.
    pub fn next_reconcile(&self, source: &Key, after: Option<Duration>) {
        lock(&self.sources).next_reconcile(source, after.map(|after| Instant::now() + after));
    }

    /// What a look has found.
    pub fn saw(&self, source: &Key, sight: Sight) {
        lock(&self.sources).saw(source, sight, Timestamp::now());
    }

    /// A TokenSource is gone, or no longer served.
    pub fn forget(&self, source: &Key) {
        let host = lock(&self.sources).forget(source);
        if let Some(gone) = host.and_then(|host| lock(&self.hosts).release(&host)) {
            self.remove_host(&gone);
        }
    }

    /// No TokenSource is served any more: another replica leads.
    pub fn forget_all(&self) {
        let sources = lock(&self.sources).names();
        for source in sources {
            self.forget(&source);
        }
    }

    /// Pods could not be told of a new token.
    pub fn prompt_failed(&self) {
        self.prompt_failures.inc();
    }

    /// Whether this replica leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// The wall clock was set, or the machine slept.
    pub fn clock_stepped(&self) {
        self.clock_steps.inc();
    }

    /// A bug, caught.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// Notes the host of the token endpoint of a TokenSource, in the place of the one that it had before.
    pub fn belongs(&self, source: &Key, host: &str) {
        let mut sources = lock(&self.sources);
        let before = sources.host(source);
        if before.as_deref() == Some(host) {
            return;
        }
        let mut hosts = lock(&self.hosts);
        let gone = before.and_then(|before| hosts.release(&before));
        let host = hosts.claim(host);
        sources.belongs(source, Arc::clone(&host), Timestamp::now());
        drop((sources, hosts));
        self.introduce(&host);
        if let Some(gone) = gone {
            self.remove_host(&gone);
        }
    }

    fn host(&self, host: &str) -> Arc<str> {
        lock(&self.hosts).known(host)
    }

    /// Has the counters of a host begin at 0: an increase from nothing to 1 is none for Prometheus.
    fn introduce(&self, host: &Arc<str>) {
        if self.mints.get(&MintLabels { host: Arc::clone(host), result: families::result(None) }).is_some() {
            return;
        }
        for result in families::results() {
            let _ = self.mints.get_or_create(&MintLabels { host: Arc::clone(host), result });
        }
    }

    fn remove_host(&self, host: &Arc<str>) {
        for result in families::every_result() {
            self.mints.remove(&MintLabels { host: Arc::clone(host), result });
        }
        let label = HostLabel { host: Arc::clone(host) };
        self.request_duration.remove(&label);
        self.request_wait.remove(&label);
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        self.metrics.reconcile_duration.observe(self.begun.elapsed().as_secs_f64());
    }
}

/// Every change is complete before anything can panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod drift;
#[cfg(test)]
mod tests;
