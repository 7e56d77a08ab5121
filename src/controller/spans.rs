//! The spans of traces. Where no traces are exported, none is ever made; log lines know nothing of them.

use futures::TryFutureExt;
use tracing::field::Empty;
use tracing::{Instrument, Span, info_span};

use super::reconcile::Pass;
use super::stop::Stop;
use crate::key::Key;
use crate::refresh::MintReason;

/// The target that tells them from everything else.
pub(crate) const TARGET: &str = "tokensource_operator::trace";
/// What the library takes as the status of a span.
const STATUS: &str = "otel.status_code";

/// A look that has its turn.
pub(super) fn look(key: &Key) -> Span {
    info_span!(target: TARGET, parent: None, "look", namespace = %key.namespace, name = %key.name, host = Empty)
}

/// To be called in a look.
pub(super) fn is_about(host: &str) {
    Span::current().record("host", host);
}

/// The write of a target.
pub(super) fn apply(target: &Key) -> Span {
    info_span!(target: TARGET, "apply", secret = %target.name, otel.status_code = Empty)
}

/// The write of a status.
pub(super) fn status() -> Span {
    info_span!(target: TARGET, "status", otel.status_code = Empty)
}

/// Does `work` within `span`. No `async fn`: that would hold `work` twice, and ten thousand looks may wait in here.
pub(super) fn within<T, E, W: Future<Output = Result<T, E>>>(
    span: Span,
    work: W,
) -> impl Future<Output = Result<T, E>> {
    let told = work.inspect_err(|_| {
        Span::current().record(STATUS, "error");
    });
    told.instrument(span)
}

impl Pass<'_> {
    /// Mints within a span that tells what came of it.
    pub(super) fn mint_within_span(&mut self, why: MintReason) -> impl Future<Output = Result<(), Stop>> {
        let span = info_span!(
            target: TARGET,
            "mint",
            host = self.resolved.host(),
            why = %why,
            result = Empty,
            token_id = Empty,
            otel.status_code = Empty
        );
        within(span, async move {
            let minted = self.mint(why).await;
            self.tell_of_mint(&minted);
            minted
        })
    }

    fn tell_of_mint(&self, minted: &Result<(), Stop>) {
        let span = Span::current();
        match minted {
            Ok(()) => {
                span.record("result", "success");
                if let Some(token) = self.memory.pending.as_ref().and_then(|pending| pending.token.as_ref()) {
                    span.record("token_id", token.record.token_id.as_str());
                }
            }
            Err(Stop::Failed(attempt)) => {
                span.record("result", attempt.reason.as_str());
            }
            Err(_) => {}
        }
    }
}
