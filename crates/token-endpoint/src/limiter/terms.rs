//! How a request may wait.

use std::time::Duration;

/// How a request may wait for its client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// It spends its credential, and goes alone.
    pub exclusive: bool,
    /// A token lives that it would replace: it waits no longer than this for an endpoint that fails by itself, whatever the
    /// endpoint asks for.
    pub patience: Option<Duration>,
    /// The token that it would replace is about to expire, as it is by the deadline of a request with patience: one such
    /// request of a client waits for half a minute at most, unless the client is locked out, and one in two minutes passes
    /// doubt.
    pub is_last_attempt: bool,
}
