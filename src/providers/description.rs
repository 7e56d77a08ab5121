//! The token request that a spec describes.

use crate::refresh::DEFAULT_MAX_INTERVAL;
use token_endpoint::RequestDescription;

/// The token request of a spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// The provider's name in the spec.
    pub provider: &'static str,
    /// The token request, without secrets.
    pub request: RequestDescription,
    /// The keys of the credentials Secret that fields of `spec.provider` name.
    pub keys: NamedKeys,
    /// The default of `refresh.maxInterval`, in seconds.
    pub max_interval: u64,
}

/// Keys of the credentials Secret that fields of `spec.provider` name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamedKeys {
    /// The key of the certificate of an assertion (`x5t#S256`).
    pub certificate: Option<String>,
    /// The key of the subject token (RFC 8693).
    pub subject_token: Option<String>,
    /// The key of the actor token (RFC 8693).
    pub actor_token: Option<String>,
    /// The key of the assertion that another program makes (RFC 7523, 2.1).
    pub assertion: Option<String>,
    /// The key of the client assertion that another program makes (RFC 7521, 4.2).
    pub client_assertion: Option<String>,
}

impl Description {
    /// Without keys, and with the general default of `refresh.maxInterval`.
    pub(super) fn new(provider: &'static str, request: RequestDescription) -> Self {
        Description { provider, request, keys: NamedKeys::default(), max_interval: DEFAULT_MAX_INTERVAL }
    }
}
