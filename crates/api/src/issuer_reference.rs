//! `spec.issuerRef` and `spec.request`: a TokenSource that asks a ClusterTokenIssuer.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// A ClusterTokenIssuer, which has endpoint, credentials and TLS.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct IssuerReference {
    /// The issuer's name.
    #[schemars(length(min = 1, max = 63), regex(pattern = rules::OBJECT_NAME))]
    pub name: String,
}

/// What is asked of the issuer, within what it allows.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct IssuerRequest {
    /// The scopes to request; default: those of the issuer, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 256)))]
    #[x_kube(validation = Rule::new(rules::SCOPES).message(rules::SCOPES_MESSAGE), merge_strategy = ListMerge::Atomic)]
    pub scopes: Option<Vec<String>>,
    /// The audience of the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub audience: Option<String>,
    /// The resources at which the token will be used (RFC 8707).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 2048)))]
    #[x_kube(validation = Rule::new(rules::RESOURCES).message(rules::RESOURCES_MESSAGE), merge_strategy = ListMerge::Atomic)]
    pub resources: Option<Vec<String>>,
    /// The ServiceAccount of this namespace whose tokens prove its identity, where the issuer takes such tokens and names none itself. Its annotation `tokensource.dev/audiences` must list the issuer's audience.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub service_account_name: Option<String>,
}
