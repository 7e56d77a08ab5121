//! What a request is sent to, and whose limits hold for it.

use super::limits::Limits;
use url::Url;

/// An endpoint: a token URL, or an issuer whose token endpoint is to be discovered. It shares the limits of its origin, unless it
/// has limits of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Names the endpoint among those of a tenant.
    pub(super) endpoint: String,
    /// Names what is limited.
    pub(super) origin: String,
    /// Those of the origin, if they are not those of the limiter.
    pub(super) limits: Option<Limits>,
}

impl From<&Url> for Destination {
    fn from(endpoint: &Url) -> Self {
        let origin = endpoint.origin().ascii_serialization();
        Self { endpoint: endpoint.as_str().to_owned(), origin, limits: None }
    }
}

impl Destination {
    /// An endpoint for a group of requests that have limits of their own, and no circuit and no rate in common with others to the
    /// same endpoint; each limit is 1 at least.
    #[must_use]
    pub fn of_group(group: &str, limits: Limits, endpoint: &Url) -> Self {
        // A URL has no space.
        Self {
            endpoint: format!("{group} {endpoint}"),
            origin: format!("{group} "),
            limits: Some(limits.at_least_one()),
        }
    }
}
