//! What a token is requested for.

use k8s_openapi::api::core::v1::Secret;

use crate::cluster::{Kubernetes, TokenCheck};
use crate::spec::Issuer;
use crate::token_request::tls::Named;
use tokensource_api::TokenSource;

/// A TokenSource, and its credentials where they exist. No `Debug`: that of a Secret prints its values.
pub(super) struct Input {
    pub(super) namespace: Option<String>,
    pub(super) source: TokenSource,
    /// The ClusterTokenIssuer that has lent what the source has.
    pub(super) issuer: Option<Issuer>,
    pub(super) credentials: Option<Secret>,
    /// The objects that `spec.tls` names.
    pub(super) named: Named,
    /// The cluster from which all this was read.
    pub(super) cluster: Option<(Kubernetes, TokenCheck)>,
}
