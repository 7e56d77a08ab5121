//! The kind `ClusterTokenIssuer`: an endpoint and its credentials, which the platform lends to namespaces.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::issuer_status::ClusterTokenIssuerStatus;
use super::reference::SecretReference;
use super::rules;
use super::service_account_token::ServiceAccountToken;
use super::tls::Tls;
use super::token_source::{Credentials, Provider};

/// The value of `spec.controller` where it names none, and of the operator's flag `--issuers-controller`.
pub const DEFAULT_CONTROLLER: &str = "tokensource.dev/operator";

/// The spec of a `ClusterTokenIssuer`: the token endpoint, its credentials, and which namespaces may ask it for what.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[kube(
    group = "tokensource.dev",
    version = "v1alpha1",
    kind = "ClusterTokenIssuer",
    plural = "clustertokenissuers",
    shortname = "cti",
    status = "ClusterTokenIssuerStatus",
    derive = "PartialEq",
    doc = "A ClusterTokenIssuer names a token endpoint and credentials once, for the TokenSources of namespaces that the platform chooses. Its Secrets are in the operator's own namespace.",
    printcolumn(json_path = ".status.conditions[?(@.type==\"Ready\")].status", name = "Ready", type_ = "string"),
    printcolumn(json_path = ".status.conditions[?(@.type==\"Ready\")].reason", name = "Reason", type_ = "string"),
    printcolumn(json_path = ".status.sources", name = "Sources", type_ = "integer"),
    printcolumn(json_path = ".status.namespaces", name = "Namespaces", type_ = "integer"),
    printcolumn(json_path = ".status.tokens", name = "Tokens", type_ = "integer"),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date"),
    validation = Rule::new(rules::ISSUER_NAME_FITS).message("the name may have at most 63 characters and no dots, because it is the value of the label tokensource.dev/issuer of Secrets; write another metadata.name"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(rules::ISSUER_PROVIDER).message("an issuer has provider oauth2, vgs or vngCloud: requests to the others name no scopes that it could limit"),
    validation = Rule::new(rules::ISSUER_ASKS_NOTHING).message("scopes, audience and resources belong to the requests of TokenSources: write what these may ask for in spec.allow"),
    validation = Rule::new(rules::ISSUER_HAS_NO_REFRESH_TOKEN).message("an issuer has no grant refreshToken: a refresh token that rotates cannot be shared"),
    validation = Rule::new(rules::VGS_KEY_NEEDS_VGS).message(rules::VGS_KEY_NEEDS_VGS_MESSAGE).field_path(".credentials.vgsServiceAccountKey"),
    validation = Rule::new(rules::TLS_NEEDS_CERTIFICATE).message(rules::TLS_NEEDS_CERTIFICATE_MESSAGE),
    validation = Rule::new(rules::SERVICE_ACCOUNT_TOKEN_IS_USED).message(rules::SERVICE_ACCOUNT_TOKEN_IS_USED_MESSAGE).field_path(".credentials"),
    validation = Rule::new(rules::SERVICE_ACCOUNT_TOKEN_IS_ALONE).message(rules::SERVICE_ACCOUNT_TOKEN_IS_ALONE_MESSAGE).field_path(".credentials"),
    validation = Rule::new(rules::SERVICE_ACCOUNT_TOKEN_HAS_AUDIENCE).message(rules::SERVICE_ACCOUNT_TOKEN_HAS_AUDIENCE_MESSAGE).field_path(".credentials"),
    validation = Rule::new(rules::SERVICE_ACCOUNT_TOKEN_HAS_CLIENT).message(rules::SERVICE_ACCOUNT_TOKEN_HAS_CLIENT_MESSAGE).field_path(".credentials"),
)]
pub struct ClusterTokenIssuerSpec {
    /// The operator that serves this issuer, by its flag --issuers-controller. Cannot be changed.
    #[serde(default = "default_controller")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(rules::IMMUTABLE).message("spec.controller cannot be changed; create another ClusterTokenIssuer"))]
    pub controller: String,
    /// The provider at which tokens are requested: exactly one member, as in a TokenSource, without scopes, audience and resources.
    pub provider: Provider,
    /// The credentials of the token requests.
    pub credentials: IssuerCredentials,
    /// TLS to the token endpoint. Its Secrets and ConfigMap are in the operator's own namespace; Secrets must have the label tokensource.dev/credentials=true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Where the token endpoint may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<IssuerEndpoint>,
    /// The namespaces whose TokenSources may use this issuer: exactly one member.
    pub namespaces: IssuerNamespaces,
    /// What TokenSources may ask for. What is absent is not allowed.
    pub allow: IssuerAllow,
    /// How often the endpoint is asked through this issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<IssuerLimits>,
    /// Which `spec.refresh` TokenSources may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<IssuerRefresh>,
}

fn default_controller() -> String {
    DEFAULT_CONTROLLER.to_owned()
}

/// The client's credentials: exactly one of secretRef and serviceAccountToken.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(rules::ONE_CREDENTIALS).message(rules::ONE_CREDENTIALS_MESSAGE),
    validation = Rule::new(rules::ISSUER_TOKEN_HAS_NO_KEYS).message("serviceAccountToken stands in place of a Secret: remove clientIDKey, clientSecretKey, privateKeyKey and vgsServiceAccountKey; the client's id is clientID"),
    validation = Rule::new(rules::ONE_CLIENT_ID).message(rules::ONE_CLIENT_ID_MESSAGE),
    validation = Rule::new(rules::VGS_KEY_ALONE).message(rules::VGS_KEY_ALONE_MESSAGE).field_path(".vgsServiceAccountKey"),
)]
pub struct IssuerCredentials {
    /// A Secret in the operator's own namespace with the label tokensource.dev/credentials=true. All TokenSources are then one client, which resource servers cannot tell apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretReference>,
    /// A ServiceAccount of each namespace, whose tokens prove its identity: there is no secret, and each namespace is a subject of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_token: Option<IssuerServiceAccountToken>,
    /// The client's id, where it is not secret.
    #[serde(default, rename = "clientID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub client_id: Option<String>,
    /// The key of the Secret that holds the client's id; default: client_id.
    #[serde(default, rename = "clientIDKey", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::SECRET_KEY))]
    pub client_id_key: Option<String>,
    /// The key of the Secret that holds the client's secret; default: client_secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::SECRET_KEY))]
    pub client_secret_key: Option<String>,
    /// The key of the Secret that holds the private key for privateKeyJWT and jwtBearer, in PEM; default: private_key.pem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::SECRET_KEY))]
    pub private_key_key: Option<String>,
    /// The key of the Secret that holds the output of `vgs apply service-account`, instead of id and secret. No default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::SECRET_KEY))]
    pub vgs_service_account_key: Option<String>,
}

/// Tokens of a ServiceAccount in the namespace of the TokenSource. Its annotation `tokensource.dev/audiences` must list the audience.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct IssuerServiceAccountToken {
    /// Whose ServiceAccount it is: TokenSourceNamespace.
    pub from: IdentityOrigin,
    /// The ServiceAccount's name in every namespace. Without it, each TokenSource names one in request.serviceAccountName.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub name: Option<String>,
    /// The claim aud of the token, which the endpoint expects; default: provider.oauth2.issuer. The operator must allow it for the endpoint's host (--service-account-tokens-allowed).
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

#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
/// Whose ServiceAccount proves the identity. TokenSourceNamespace: one of the TokenSource's own namespace.
pub enum IdentityOrigin {
    /// One of the TokenSource's own namespace.
    TokenSourceNamespace,
}

/// Where the token endpoint may be.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct IssuerEndpoint {
    /// Public: at public addresses, and where the operator's flags allow it; Private: at private ones too, but never at link-local addresses, metadata services and the API server; default: Public.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<Addresses>,
    /// The hosts at which the metadata of provider.oauth2.issuer may place the token endpoint, besides the issuer's own host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 261)))]
    #[x_kube(validation = Rule::new(rules::HOSTS).message("write hosts alone, with a port if it is not 443, for example idp.example.com or idp.example.com:8443"), merge_strategy = ListMerge::Atomic)]
    pub hosts: Option<Vec<String>>,
}

#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
/// The addresses that a token endpoint may have. Public: public ones; Private: private ones too; default: Public.
pub enum Addresses {
    #[default]
    /// Public addresses.
    Public,
    /// Private addresses too.
    Private,
}

/// The namespaces that may use an issuer: exactly one member.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(rules::ONE_CONSENT).message("exactly one of names, selector and `all: true` must be set"))]
pub struct IssuerNamespaces {
    /// Their names. Everyone who may create a namespace of such a name may use the issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), inner(length(min = 1, max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub names: Option<Vec<String>>,
    /// Their labels. Everyone who may set these labels may use the issuer: that should be the platform alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<NamespaceLabels>,
    /// true: every namespace that the operator serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<bool>,
}

/// The labels of namespaces.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceLabels {
    /// Labels that a namespace must all have.
    #[schemars(schema_with = "rules::match_labels_schema")]
    pub match_labels: BTreeMap<String, String>,
}

/// What TokenSources may ask for: exact and case-sensitive. What is absent is not allowed.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(rules::DEFAULT_SCOPES_ARE_ALLOWED).message("defaultScopes are requested where a TokenSource names none, and must all be in scopes"))]
pub struct IssuerAllow {
    /// The scopes that a TokenSource may ask for. A token with a scope that is not here is not written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 256)))]
    #[x_kube(validation = Rule::new(rules::SCOPES).message(rules::SCOPES_MESSAGE), merge_strategy = ListMerge::Atomic)]
    pub scopes: Option<Vec<String>>,
    /// The scopes that are requested for a TokenSource that names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 256)))]
    #[x_kube(validation = Rule::new(rules::SCOPES).message(rules::SCOPES_MESSAGE), merge_strategy = ListMerge::Atomic)]
    pub default_scopes: Option<Vec<String>>,
    /// true: a TokenSource may ask for no scope at all where there are no defaultScopes, so that the endpoint decides what the token may do; default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub without_scopes: Option<bool>,
    /// The audiences that a TokenSource may ask for. Where there are some, it must ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 2048)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub audiences: Option<Vec<String>>,
    /// The resources (RFC 8707) that a TokenSource may ask for. Where there are some, it must ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 2048)))]
    #[x_kube(validation = Rule::new(rules::RESOURCES).message(rules::RESOURCES_MESSAGE), merge_strategy = ListMerge::Atomic)]
    pub resources: Option<Vec<String>>,
}

/// How often the endpoint is asked through an issuer, by all of its TokenSources together.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct IssuerLimits {
    /// Token requests under way at once; default: the operator's --endpoint-max-in-flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_in_flight: Option<i32>,
    /// Token requests that begin in a second, evenly spread; default: the operator's --endpoint-max-per-second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_per_second: Option<i32>,
}

/// The bounds of the `spec.refresh` of TokenSources.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct IssuerRefresh {
    /// The shortest time between two refreshes of a TokenSource, for example 10m; of tokens that live shorter, half of their lifetime. Default: 30s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new(rules::DURATION).message(rules::DURATION_MESSAGE))]
    pub min_interval: Option<String>,
}

impl IssuerCredentials {
    /// As the credentials of a TokenSource; `service_account` is the name of the ServiceAccount whose tokens are sent, if any are.
    #[must_use]
    pub fn of_source(&self, service_account: Option<String>) -> Credentials {
        let token = self.service_account_token.as_ref();
        Credentials {
            secret_ref: self.secret_ref.clone(),
            service_account_token: token.map(|token| ServiceAccountToken {
                name: service_account.unwrap_or_default(),
                audience: token.audience.clone(),
                expiration: token.expiration.clone(),
            }),
            client_id: self.client_id.clone(),
            client_id_key: self.client_id_key.clone(),
            client_secret_key: self.client_secret_key.clone(),
            refresh_token_key: None,
            private_key_key: self.private_key_key.clone(),
            vgs_service_account_key: self.vgs_service_account_key.clone(),
        }
    }
}
