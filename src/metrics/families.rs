//! The families of metrics that are counted as things happen, with their labels.

use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::Metrics;
use tokensource_api::Reason;

/// What a token request led to where it went well.
const SUCCESS: &str = "success";

/// What a token request can fail with.
const FAILURES: [Reason; 8] = [
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
pub(super) struct MintLabels {
    pub(super) host: Arc<str>,
    pub(super) result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RequestLabels {
    verb: &'static str,
    resource: &'static str,
    code: Code,
}

/// The status of an answer; `None`: there was none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Code(Option<u16>);

impl EncodeLabelValue for Code {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> Result<(), std::fmt::Error> {
        match self.0 {
            Some(code) => EncodeLabelValue::encode(&code, encoder),
            None => EncodeLabelValue::encode(&"none", encoder),
        }
    }
}

impl RequestLabels {
    pub(super) fn new(verb: &'static str, resource: &'static str, code: Option<u16>) -> Self {
        RequestLabels { verb, resource, code: Code(code) }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabel {
    version: &'static str,
}

/// The label of what a token request led to.
pub(super) fn result(failed: Option<Reason>) -> &'static str {
    failed.map_or(SUCCESS, Reason::as_str)
}

/// The results that are shown from the start.
pub(super) fn results() -> impl Iterator<Item = &'static str> {
    FAILURES.into_iter().map(Reason::as_str).chain([SUCCESS])
}

/// All results that there can be.
pub(super) fn every_result() -> impl Iterator<Item = &'static str> {
    Reason::ALL.into_iter().map(Reason::as_str).chain([SUCCESS])
}

/// An attempt takes 30 s at most.
pub(super) fn request_duration() -> Histogram {
    Histogram::new([0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0])
}

/// A turn is waited for 60 s at most.
pub(super) fn request_wait() -> Histogram {
    Histogram::new([0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 15.0, 30.0, 60.0])
}

/// Most looks find nothing to do.
pub(super) fn reconcile_duration() -> Histogram {
    Histogram::new([0.0001, 0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 120.0])
}

/// Names them.
pub(super) fn register(registry: &mut Registry, metrics: &Metrics) {
    let mut add = |name: &str, help: &str, metric: &dyn Registers| metric.register(registry, name, help);
    add(
        "tokensource_token_requests",
        "Token requests, by the host of the token endpoint and what came of them",
        &metrics.mints,
    );
    add(
        "tokensource_token_request_duration_seconds",
        "How long token endpoints took to answer",
        &metrics.request_duration,
    );
    add(
        "tokensource_token_request_wait_seconds",
        "How long a turn at the token endpoint was waited for, before a token request began",
        &metrics.request_wait,
    );
    add(
        "tokensource_kubernetes_requests",
        "Requests to the Kubernetes API server, by what they asked for and the status of the answer (none: no answer)",
        &metrics.requests,
    );
    add(
        "tokensource_reconcile_pending",
        "Looks at TokenSources that are under way or wait for a turn",
        &metrics.reconciles_pending,
    );
    add(
        "tokensource_token_requests_queued",
        "Token requests that wait for their endpoint or their client",
        &metrics.requests_queued,
    );
    add(
        "tokensource_unwritten_tokens",
        "Tokens that were received and wait to be written",
        &metrics.unwritten,
    );
    add(
        "tokensource_reconcile_duration_seconds",
        "How long one look at a TokenSource took, with all that it led to",
        &metrics.reconcile_duration,
    );
    add(
        "tokensource_prompt_failures",
        "How often the pods that mount a target could not all be told of a new token",
        &metrics.prompt_failures,
    );
    add("tokensource_leader", "Whether this replica is the one that acts", &metrics.leader);
    add("tokensource_clock_steps", "How often the clock was set or the machine slept", &metrics.clock_steps);
    add(
        "tokensource_panics",
        "Bugs that ended a look at a TokenSource, and no more than that",
        &metrics.panics,
    );
    let version: Family<VersionLabel, Gauge> = Family::default();
    version.get_or_create(&VersionLabel { version: env!("CARGO_PKG_VERSION") }).set(1);
    add("tokensource_build_info", "The version of the operator; always 1", &version);
}

/// A metric that can be given to a registry, which keeps what shares its counts.
trait Registers {
    fn register(&self, registry: &mut Registry, name: &str, help: &str);
}

impl<M: prometheus_client::registry::Metric + Clone> Registers for M {
    fn register(&self, registry: &mut Registry, name: &str, help: &str) {
        registry.register(name, help, self.clone());
    }
}
