//! The metrics that are updated by events, with their labels.

use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use tokensource_api::Reason;

/// The label `result` of a successful token request.
const SUCCESS: &str = "success";

/// The reasons with which token requests usually fail.
const EXPECTED_FAILURES: [Reason; 8] = [
    Reason::ClientRejected,
    Reason::GrantRejected,
    Reason::ScopeRejected,
    Reason::RequestRejected,
    Reason::RateLimited,
    Reason::EndpointUnavailable,
    Reason::EndpointRefusedByPolicy,
    Reason::ResponseMalformed,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct HostLabel {
    pub(super) host: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct TokenRequestLabels {
    pub(super) host: Arc<str>,
    pub(super) result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ApiRequestLabels {
    verb: &'static str,
    resource: &'static str,
    code: StatusCode,
}

/// The status of a response; `None` where there was none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct StatusCode(Option<u16>);

impl EncodeLabelValue for StatusCode {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        match self.0 {
            Some(code) => EncodeLabelValue::encode(&code, encoder),
            None => EncodeLabelValue::encode(&"none", encoder),
        }
    }
}

impl ApiRequestLabels {
    pub(super) fn new(verb: &'static str, resource: &'static str, code: Option<u16>) -> Self {
        ApiRequestLabels { verb, resource, code: StatusCode(code) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ResourceLabel {
    pub(super) resource: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabel {
    version: &'static str,
}

/// The label `result` of a token request.
pub(super) fn result(failed: Option<Reason>) -> &'static str {
    failed.map_or(SUCCESS, Reason::as_str)
}

/// The results whose counters exist from the start.
pub(super) fn expected_results() -> impl Iterator<Item = &'static str> {
    EXPECTED_FAILURES.into_iter().map(Reason::as_str).chain([SUCCESS])
}

/// All possible results.
pub(super) fn all_results() -> impl Iterator<Item = &'static str> {
    Reason::ALL.into_iter().map(Reason::as_str).chain([SUCCESS])
}

/// A token request takes at most 30 s.
fn token_request_duration() -> Histogram {
    Histogram::new([0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
}

fn token_request_wait() -> Histogram {
    Histogram::new([0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0])
}

/// Most reconciliations find nothing to do and take less than a millisecond.
fn reconcile_duration() -> Histogram {
    Histogram::new([0.0001, 0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 120.0])
}

type Histograms = Family<HostLabel, Histogram, fn() -> Histogram>;

/// The metrics.
#[derive(Debug)]
pub(super) struct Families {
    pub(super) token_requests: Family<TokenRequestLabels, Counter>,
    pub(super) token_request_duration: Histograms,
    pub(super) token_request_wait: Histograms,
    pub(super) api_requests: Family<ApiRequestLabels, Counter>,
    pub(super) reconciles_pending: Gauge,
    pub(super) requests_queued: Gauge,
    pub(super) unwritten: Gauge,
    pub(super) unsaved_refresh_tokens: Gauge,
    pub(super) reconcile_duration: Histogram,
    pub(super) prompt_failures: Counter,
    pub(super) leader: Gauge,
    pub(super) clock_steps: Counter,
    pub(super) clock_difference: Gauge,
    pub(super) endpoint_clock_difference: Family<HostLabel, Gauge>,
    pub(super) panics: Counter,
    pub(super) too_large: Family<ResourceLabel, Counter>,
}

impl Families {
    /// With all counts at 0.
    pub(super) fn new() -> Self {
        Families {
            token_requests: Family::default(),
            token_request_duration: Family::new_with_constructor(token_request_duration),
            token_request_wait: Family::new_with_constructor(token_request_wait),
            api_requests: Family::default(),
            reconciles_pending: Gauge::default(),
            requests_queued: Gauge::default(),
            unwritten: Gauge::default(),
            unsaved_refresh_tokens: Gauge::default(),
            reconcile_duration: reconcile_duration(),
            prompt_failures: Counter::default(),
            leader: Gauge::default(),
            clock_steps: Counter::default(),
            clock_difference: Gauge::default(),
            endpoint_clock_difference: Family::default(),
            panics: Counter::default(),
            too_large: Family::default(),
        }
    }

    /// Registers the metrics by name.
    pub(super) fn register(&self, registry: &mut Registry) {
        let mut add = |name: &str, help: &str, metric: &dyn Registers| metric.register(registry, name, help);
        add(
            "tokensource_token_requests",
            "Token requests, by the host of the token endpoint and their result",
            &self.token_requests,
        );
        add(
            "tokensource_token_request_duration_seconds",
            "The duration of token requests",
            &self.token_request_duration,
        );
        add(
            "tokensource_token_request_wait_seconds",
            "How long token requests waited for a permit of the token endpoint",
            &self.token_request_wait,
        );
        add(
            "tokensource_kubernetes_requests",
            "Requests to the Kubernetes API server, by verb, resource and the status of the response (none: no response)",
            &self.api_requests,
        );
        add(
            "tokensource_reconcile_pending",
            "Reconciliations that run, or are due and wait for an API permit",
            &self.reconciles_pending,
        );
        add(
            "tokensource_token_requests_queued",
            "Token requests that wait for their endpoint or their client",
            &self.requests_queued,
        );
        add(
            "tokensource_unwritten_tokens",
            "Tokens that were received and wait to be written",
            &self.unwritten,
        );
        add(
            "tokensource_unsaved_refresh_tokens",
            "Rotated refresh tokens that are in the memory of this replica alone",
            &self.unsaved_refresh_tokens,
        );
        add(
            "tokensource_reconcile_duration_seconds",
            "The duration of reconciliations",
            &self.reconcile_duration,
        );
        add(
            "tokensource_prompt_failures",
            "How often not all pods that mount a target could be annotated after a new token",
            &self.prompt_failures,
        );
        add("tokensource_leader", "Whether this replica leads", &self.leader);
        add("tokensource_clock_steps", "How often the clock was set or the machine slept", &self.clock_steps);
        add(
            "tokensource_clock_difference_seconds",
            "By how many seconds the Kubernetes API server's clock is ahead of the wall clock of this node; 0 until it is known",
            &self.clock_difference,
        );
        add(
            "tokensource_endpoint_clock_difference_seconds",
            "By how many seconds the clock of the token endpoint's host is ahead, when it last answered",
            &self.endpoint_clock_difference,
        );
        add(
            "tokensource_panics",
            "Panics, each of which ended one reconciliation or token request",
            &self.panics,
        );
        add(
            "tokensource_too_large_objects",
            "How often an object was listed, or shown by a watch, a part of which is too large to be read",
            &self.too_large,
        );
        let version: Family<VersionLabel, Gauge> = Family::default();
        version.get_or_create(&VersionLabel { version: env!("CARGO_PKG_VERSION") }).set(1);
        add("tokensource_build_info", "The version of the operator; always 1", &version);
    }
}

/// A metric that can be registered. The registry stores a clone that shares the counts.
trait Registers {
    fn register(&self, registry: &mut Registry, name: &str, help: &str);
}

impl<M: prometheus_client::registry::Metric + Clone> Registers for M {
    fn register(&self, registry: &mut Registry, name: &str, help: &str) {
        registry.register(name, help, self.clone());
    }
}
