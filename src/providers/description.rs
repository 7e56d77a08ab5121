//! The token request that a spec describes.

use crate::refresh::DEFAULT_MAX_INTERVAL;
use token_endpoint::{Credentials, RequestDescription};
use tokensource_api as api;

/// The token request of a spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// The provider's name in the spec.
    pub provider: &'static str,
    /// The token request, without secrets.
    pub request: RequestDescription,
    /// The keys of the credentials Secret that fields of `spec.provider` name.
    pub keys: NamedKeys,
    /// The ServiceAccount whose token is sent, in place of a credentials Secret.
    pub service_account: Option<ServiceAccountUse>,
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

/// The token of a ServiceAccount that a request needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccountUse {
    /// The name of the ServiceAccount, in the namespace of the TokenSource.
    pub name: String,
    /// The claim `aud`.
    pub audience: String,
    /// The lifetime in seconds.
    pub expiration: u64,
    /// Whether the client's id is sent.
    pub(super) sends_client_id: bool,
}

impl ServiceAccountUse {
    /// The claim `sub` of its tokens.
    #[must_use]
    pub fn subject(&self, namespace: &str) -> String {
        Self::subject_of(namespace, &self.name)
    }

    /// The claim `sub` of the tokens of a ServiceAccount: its user name in the API server.
    #[must_use]
    pub fn subject_of(namespace: &str, name: &str) -> String {
        format!("system:serviceaccount:{namespace}:{name}")
    }

    /// The credentials of a request without the token, which is asked for when the request is sent.
    #[must_use]
    pub fn credentials(&self, spec: &api::Credentials, namespace: &str) -> Credentials {
        let asserted = format!("{} for {}", self.subject(namespace), self.audience);
        Credentials {
            client_id: spec.client_id.clone().filter(|_| self.sends_client_id),
            asserted: Some(asserted.clone()),
            client_asserted: Some(asserted),
            ..Credentials::default()
        }
    }
}

impl Description {
    /// Without keys, and with the general default of `refresh.maxInterval`.
    pub(super) fn new(provider: &'static str, request: RequestDescription) -> Self {
        Description {
            provider,
            request,
            keys: NamedKeys::default(),
            service_account: None,
            max_interval: DEFAULT_MAX_INTERVAL,
        }
    }
}
