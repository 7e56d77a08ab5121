//! The metrics of the operator. Callers use the methods of [`Metrics`] and no type of the Prometheus library.
//!
//! Every label has a closed set of values, except the names of TokenSources, of ClusterTokenIssuers and of hosts: the series of
//! the former are removed with them, and there are at most 250 hosts.

mod families;
mod hosts;
mod issuers;
mod lock;
mod process;
mod requests;
mod sources;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use prometheus_client::encoding::prometheus_text;
use prometheus_client::registry::Registry;

pub use issuers::ObservedIssuer;
pub use requests::CountRequests;
pub use sources::{ObservedSource, TokenTimes};

use crate::clock::Clock;
use crate::key::Key;
use families::{ApiRequestLabels, Families, HostLabel, ResourceLabel, TokenRequestLabels};
use hosts::Hosts;
use issuers::{IssuerCollector, ReportedIssuers};
use lock::lock;
use sources::SourceTable;
use tokensource_api::Reason;

/// The media type of [`Metrics::write`].
pub const CONTENT_TYPE: &str = prometheus_text::CONTENT_TYPE;

/// All metrics.
#[derive(Debug)]
pub struct Metrics {
    /// In the order in which they are written. Each series of TokenSources has one of its own.
    registries: Vec<Registry>,
    sources: Arc<Mutex<SourceTable>>,
    issuers: Arc<Mutex<ReportedIssuers>>,
    hosts: Mutex<Hosts>,
    families: Families,
    clock: Arc<Clock>,
}

/// Measures the duration of a reconciliation, until it is dropped.
#[derive(Debug)]
pub struct ReconcileTimer<'a> {
    metrics: &'a Metrics,
    begun: Instant,
}

impl Metrics {
    /// Metrics with all counts at 0. `clock` decides whether a token has expired.
    #[must_use]
    pub fn new(clock: Arc<Clock>) -> Self {
        let mut registry = Registry::default();
        let families = Families::new();
        families.register(&mut registry);
        let issuers = Arc::default();
        registry.register_collector(Box::new(IssuerCollector(Arc::clone(&issuers))));
        registry.register_collector(Box::new(process::ProcessCollector));
        let sources = Arc::default();
        let of_sources = sources::collectors(&sources, &clock).map(|collector| {
            let mut registry = Registry::default();
            registry.register_collector(Box::new(collector));
            registry
        });
        let registries = [registry].into_iter().chain(of_sources).collect();
        Metrics { registries, sources, issuers, hosts: Mutex::default(), families, clock }
    }

    /// The number of parts in which metrics are written.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.registries.len()
    }

    /// Writes a part of all metrics in the text format of Prometheus.
    pub fn write(&self, part: usize, text: &mut impl fmt::Write) {
        if let Some(registry) = self.registries.get(part) {
            // Writing into memory does not fail.
            let _ = prometheus_text::encode(text, registry);
        }
    }

    /// Counts a token request at `host`, through `issuer` where one lends: the reason of its failure, and its duration if it was
    /// sent.
    pub fn token_requested(
        &self,
        host: &str,
        issuer: Option<&Arc<str>>,
        failed: Option<Reason>,
        took: Option<Duration>,
    ) {
        let result = families::result(failed);
        if let Some(issuer) = issuer {
            lock(&self.issuers).requested(issuer, result);
        }
        let host = self.host(host);
        if let Some(took) = took {
            self.families
                .token_request_duration
                .get_or_create(&HostLabel { host: host.clone() })
                .observe(took.as_secs_f64());
        }
        self.families.token_requests.get_or_create(&TokenRequestLabels { host, result }).inc();
    }

    /// Records the time for which a token request waited for a permit of the endpoint, also where it got none.
    pub fn request_waited(&self, host: &str, waited: Duration) {
        let host = self.host(host);
        self.families.token_request_wait.get_or_create(&HostLabel { host }).observe(waited.as_secs_f64());
    }

    /// Counts a request to the Kubernetes API server with the status of the response; `None` where there was none.
    pub fn api_request(&self, verb: &'static str, resource: &'static str, code: Option<u16>) {
        self.families.api_requests.get_or_create(&ApiRequestLabels::new(verb, resource, code)).inc();
    }

    /// How many reconciliations are due or running, how many token requests wait, and how many tokens wait to be written.
    pub fn queues(&self, reconciles: usize, token_requests: usize, unwritten: usize) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.families.reconciles_pending.set(number(reconciles));
        self.families.requests_queued.set(number(token_requests));
        self.families.unwritten.set(number(unwritten));
    }

    /// How many rotated refresh tokens are in memory alone.
    pub fn unsaved_refresh_tokens(&self, unsaved: usize) {
        self.families.unsaved_refresh_tokens.set(i64::try_from(unsaved).unwrap_or(i64::MAX));
    }

    /// A reconciliation of a TokenSource starts. It ends when the returned timer is dropped.
    #[must_use]
    pub fn reconciling(&self, source: &Key) -> ReconcileTimer<'_> {
        self.next_reconcile(source, None);
        ReconcileTimer { metrics: self, begun: Instant::now() }
    }

    /// The next reconciliation of a TokenSource is due after this time; `None` where only a change triggers one.
    pub fn next_reconcile(&self, source: &Key, after: Option<Duration>) {
        lock(&self.sources).next_reconcile(source, after.map(|after| Instant::now() + after));
    }

    /// Sets the state of a TokenSource after a reconciliation.
    pub fn observed(&self, source: &Key, observed: ObservedSource) {
        lock(&self.sources).set_observed(source, observed, self.clock.now());
    }

    /// Removes the series of a TokenSource that is deleted or no longer selected.
    pub fn forget(&self, source: &Key) {
        let host = lock(&self.sources).forget(source);
        if let Some(gone) = host.and_then(|host| lock(&self.hosts).release(&host)) {
            self.remove_host(&gone);
        }
    }

    /// Removes the series of all TokenSources, because another replica leads.
    pub fn forget_all(&self) {
        let sources = lock(&self.sources).names();
        for source in sources {
            self.forget(&source);
        }
    }

    /// Sets what is known of ClusterTokenIssuers; none while another replica leads.
    pub fn set_issuers(&self, issuers: Vec<ObservedIssuer>) {
        lock(&self.issuers).set(issuers);
    }

    /// Sets for how long the watches of ClusterTokenIssuers have not been answered, by resource.
    pub fn set_issuers_unread(&self, unread: Vec<(&'static str, Duration)>) {
        lock(&self.issuers).unread = unread;
    }

    /// Counts a failure to annotate pods after a new token.
    pub fn prompt_failed(&self) {
        self.families.prompt_failures.inc();
    }

    /// Sets whether this replica leads.
    pub fn leads(&self, leads: bool) {
        self.families.leader.set(leads.into());
    }

    /// Counts a step of the wall clock: it was set, or the machine slept.
    pub fn clock_stepped(&self) {
        self.families.clock_steps.inc();
    }

    /// Sets by how many seconds the API server's clock is ahead of this node's, if that is known.
    pub fn clock_difference(&self, seconds: Option<i64>) {
        self.families.clock_difference.set(seconds.unwrap_or(0));
    }

    /// Sets by how many seconds the clock of a token endpoint's host is ahead.
    pub fn endpoint_clock_difference(&self, host: &str, seconds: i64) {
        let host = self.host(host);
        self.families.endpoint_clock_difference.get_or_create(&HostLabel { host }).set(seconds);
    }

    /// Counts a panic of a reconciliation.
    pub fn count_panic(&self) {
        self.families.panics.inc();
    }

    /// Counts an object that was shown, a part of which is too large to be read.
    pub fn object_too_large(&self, resource: &'static str) {
        self.families.too_large.get_or_create(&ResourceLabel { resource }).inc();
    }

    /// Sets the host of the token endpoint of a TokenSource, and the issuer that lends it.
    pub fn set_host(&self, source: &Key, host: &str, issuer: Option<&Arc<str>>) {
        let mut sources = lock(&self.sources);
        let before = sources.host(source);
        if before.as_deref() == Some(host) {
            sources.set_issuer(source, issuer);
            return;
        }
        let mut hosts = lock(&self.hosts);
        let gone = before.and_then(|before| hosts.release(&before));
        let host = hosts.claim(host, &source.namespace);
        sources.set_host(source, Arc::clone(&host), self.clock.now());
        sources.set_issuer(source, issuer);
        drop((sources, hosts));
        self.create_counters(&host);
        if let Some(gone) = gone {
            self.remove_host(&gone);
        }
    }

    fn host(&self, host: &str) -> Arc<str> {
        lock(&self.hosts).label(host)
    }

    /// Creates the counters of a host with 0. Prometheus does not see an increase where a series starts at 1.
    fn create_counters(&self, host: &Arc<str>) {
        if self
            .families
            .token_requests
            .get(&TokenRequestLabels { host: Arc::clone(host), result: families::result(None) })
            .is_some()
        {
            return;
        }
        for result in families::expected_results() {
            let _ = self
                .families
                .token_requests
                .get_or_create(&TokenRequestLabels { host: Arc::clone(host), result });
        }
    }

    fn remove_host(&self, host: &Arc<str>) {
        for result in families::all_results() {
            self.families.token_requests.remove(&TokenRequestLabels { host: Arc::clone(host), result });
        }
        let label = HostLabel { host: Arc::clone(host) };
        self.families.token_request_duration.remove(&label);
        self.families.token_request_wait.remove(&label);
        self.families.endpoint_clock_difference.remove(&label);
    }
}

impl Drop for ReconcileTimer<'_> {
    fn drop(&mut self) {
        self.metrics.families.reconcile_duration.observe(self.begun.elapsed().as_secs_f64());
    }
}

#[cfg(test)]
mod drift;
#[cfg(test)]
mod tests;
