//! Tokens of ServiceAccounts in place of a credentials Secret.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// The annotation of a ServiceAccount by which its owner allows tokens for these audiences, separated by commas.
pub const AUDIENCES_ANNOTATION: &str = "tokensource.dev/audiences";

/// A ServiceAccount of the TokenSource's own namespace. For each token request the operator asks the API server for one of its tokens, sends it once, and keeps it nowhere.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountToken {
    /// The ServiceAccount's name. Its annotation `tokensource.dev/audiences` must list the audience.
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub name: String,
    /// The claim aud of the token, which the endpoint expects; default: provider.oauth2.issuer. The platform must allow it for the endpoint's host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new(rules::AUDIENCE).message(rules::AUDIENCE_MESSAGE))]
    pub audience: Option<String>,
    /// The lifetime of the token, from 10m to 1h; default: 10m. Some issuers' access tokens live no longer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new(rules::SERVICE_ACCOUNT_TOKEN_EXPIRATION).message(rules::SERVICE_ACCOUNT_TOKEN_EXPIRATION_MESSAGE))]
    pub expiration: Option<String>,
}
