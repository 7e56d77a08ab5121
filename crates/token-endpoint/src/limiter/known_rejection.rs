//! What is answered in place of a request whose result is known.

use super::hold::Hold;
use crate::error::{Class, Error};
use std::fmt;
use std::time::Duration;
use tokio::time::Instant;

/// The endpoint rejected such a request a short time ago, or asked to wait, so that nothing was sent.
#[derive(Clone, Debug)]
pub struct KnownRejection {
    /// What the endpoint answered.
    pub error: Box<Error>,
    /// What the answer implies for all requests that share it.
    pub class: Class,
    /// Which requests share it.
    pub shared_by: SharedBy,
    /// When one of them is tried again.
    pub retry_in: Duration,
}

/// The requests that share an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedBy {
    /// Those of all tenants that are lent the client.
    Group,
    /// Those with the same client and credential.
    Client,
    /// Those that also have the same refresh token, subject token or assertion.
    Grant,
    /// Those that also have the same scopes and parameters.
    Request,
}

impl KnownRejection {
    /// By what holds back those that share it.
    pub(super) fn of(hold: &Hold, shared_by: SharedBy, now: Instant) -> Self {
        Self { error: Box::new(hold.error.clone()), class: hold.class, shared_by, retry_in: hold.until - now }
    }
}

impl std::error::Error for KnownRejection {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.error)
    }
}

impl fmt::Display for KnownRejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let who = match self.shared_by {
            SharedBy::Group => "of all that are lent these credentials",
            SharedBy::Client => "with these credentials",
            SharedBy::Grant => "with this grant",
            SharedBy::Request => "that are the same",
        };
        let seconds = self.retry_in.as_secs().max(1);
        write!(
            f,
            "{}; the answer holds for all requests {who}, which are tried again in {seconds} s",
            self.error
        )
    }
}
