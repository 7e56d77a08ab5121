//! Sends a token request.

use std::time::Duration;

use jiff::Timestamp;
use token_endpoint::{Answer, Error, Tls, TokenRequest, Transport};
use tokio::time::Instant;

use crate::time::in_whole_seconds;

/// A token request that was sent, and its outcome.
pub(crate) struct Sent {
    pub(crate) outcome: Result<Answer, Error>,
    /// When it was sent, in whole seconds. Lifetimes count from then.
    pub(crate) at: Timestamp,
    pub(crate) took: Duration,
}

/// Sends `request` once, and reads the response within `timeout`.
pub(crate) async fn send(
    transport: &Transport,
    request: &TokenRequest,
    tls: &Tls,
    timeout: Duration,
) -> Sent {
    let at = in_whole_seconds(Timestamp::now());
    let begun = Instant::now();
    let outcome = Box::pin(transport.send_over(request, tls, timeout)).await;
    Sent { outcome, at, took: begun.elapsed() }
}
