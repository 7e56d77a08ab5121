//! What is answered in place of a request whose result is known.

use crate::error::Error;
use std::fmt;
use std::time::Duration;

/// The endpoint rejected this client a short time ago, so that nothing was sent.
#[derive(Clone, Debug)]
pub struct KnownRejection {
    /// What the endpoint answered.
    pub error: Box<Error>,
    /// When the client is tried again.
    pub retry_in: Duration,
}

impl std::error::Error for KnownRejection {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.error)
    }
}

impl fmt::Display for KnownRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}; the rejection holds for all requests with these credentials, which are tried again in {} s",
            self.error,
            self.retry_in.as_secs().max(1)
        )
    }
}
