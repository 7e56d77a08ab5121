//! `spec.provider.gitHubApp`: installation access tokens of a GitHub App.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::rules;

/// A GitHub App. `credentials.clientID` (or clientIDKey) is the app's client id or its app id, `credentials.privateKeyKey` names its private key.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct GitHubApp {
    /// The installation's id: the number at the end of the URL of the page on which it is configured.
    #[serde(rename = "installationID")]
    #[schemars(range(min = 1, max = 9_007_199_254_740_991_i64))]
    pub installation_id: i64,
    /// The host of GitHub: github.com, a subdomain of ghe.com, or that of an Enterprise Server, with the port if it is not 443; default: github.com.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 261))]
    #[x_kube(validation = Rule::new(rules::HOST).message("write the host alone, with a port if it is not 443, for example github.example.com"))]
    pub host: Option<String>,
    /// The repositories that the token may use, by name and without the owner; default: all of the installation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 500), inner(length(min = 1, max = 100)))]
    #[x_kube(validation = Rule::new(rules::REPOSITORIES).message("write the names of repositories without their owner, for example website, not acme/website"), merge_strategy = ListMerge::Atomic)]
    pub repositories: Option<Vec<String>>,
    /// The permissions of the token, for example `contents: read`; default: all of the installation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "permissions_schema")]
    pub permissions: Option<BTreeMap<String, String>>,
}

fn permissions_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "enum": ["read", "write", "admin"]},
        "x-kubernetes-validations": [{
            "rule": "self.all(name, name.matches('^[a-z][a-z_]{0,63}$'))",
            "message": "write permissions as GitHub's API names them, for example contents or pull_requests",
        }],
    })
}
