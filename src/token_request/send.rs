//! Sends a token request.

use std::time::Duration;

use jiff::Timestamp;
use secrecy::SecretString;
use token_endpoint::{Answer, Error, Tls, TokenRequest, Transport};
use tokio::time::Instant;

/// A token request that was sent, and its outcome.
pub(crate) struct Sent {
    pub(crate) outcome: Result<Answer, Error>,
    /// When it was sent, in whole seconds. Lifetimes count from then.
    pub(crate) at: Timestamp,
    pub(crate) took: Duration,
}

/// Sends `request` once, and reads the response within `timeout`. It is `now`, in whole seconds. A new refresh token is given
/// to `keep` first.
pub(crate) async fn send(
    transport: &Transport,
    request: &TokenRequest,
    tls: &Tls,
    timeout: Duration,
    now: Timestamp,
    keep: impl FnOnce(&SecretString),
) -> Sent {
    let begun = Instant::now();
    let outcome = Box::pin(transport.send_keeping(request, tls, timeout, keep)).await;
    Sent { outcome, at: now, took: begun.elapsed() }
}
