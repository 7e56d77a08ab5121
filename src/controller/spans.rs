//! The spans of traces. Where no traces are exported, none is ever made; log lines do not show them.

use futures::TryFutureExt;
use tracing::field::Empty;
use tracing::{Instrument, Span, info_span};

use super::outcome::Outcome;
use crate::key::Key;
use crate::refresh::MintReason;

/// The target that tells them from everything else.
pub(crate) const TARGET: &str = "tokensource_operator::trace";
/// What the library takes as the status of a span.
const STATUS: &str = "otel.status_code";

/// A reconciliation.
pub(super) fn reconcile(key: &Key) -> Span {
    info_span!(target: TARGET, parent: None, "reconcile", namespace = %key.namespace, name = %key.name, host = Empty)
}

/// To be called in a reconciliation or in a token request.
pub(super) fn is_about(host: &str) {
    Span::current().record("host", host);
}

/// A token request, from when it begins until its result is there.
pub(super) fn token_request(key: &Key, reason: MintReason) -> Span {
    info_span!(
        target: TARGET,
        parent: None,
        "token_request",
        namespace = %key.namespace,
        name = %key.name,
        host = Empty,
        reason = %reason,
        result = Empty,
        token_id = Empty,
        otel.status_code = Empty
    )
}

/// To be called in a token request: it brought this token.
pub(super) fn received(token_id: &str) {
    Span::current().record("result", "success").record("token_id", token_id);
}

/// To be called in a token request: it brought none.
pub(super) fn failed(outcome: &Outcome) {
    let span = Span::current();
    span.record(STATUS, "error");
    if let Outcome::Failed(attempt) = outcome {
        span.record("result", attempt.reason.as_str());
    }
}

/// The write of a target.
pub(super) fn apply(target: &Key) -> Span {
    info_span!(target: TARGET, "apply", secret = %target.name, otel.status_code = Empty)
}

/// The write of a status.
pub(super) fn status() -> Span {
    info_span!(target: TARGET, "status", otel.status_code = Empty)
}

/// Does `work` within `span`. No `async fn`: that would hold `work` twice.
pub(super) fn within<T, E, W: Future<Output = Result<T, E>>>(
    span: Span,
    work: W,
) -> impl Future<Output = Result<T, E>> {
    let recorded = work.inspect_err(|_| {
        Span::current().record(STATUS, "error");
    });
    recorded.instrument(span)
}
