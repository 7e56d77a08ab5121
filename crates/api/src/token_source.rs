use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::github_app::GitHubApp;
use super::issuer_reference::{IssuerReference, IssuerRequest};
use super::oauth2::OAuth2;
use super::reference::SecretReference;
use super::rules;
use super::service_account_token::ServiceAccountToken;
use super::status::TokenSourceStatus;
use super::template::Template;
use super::tls::Tls;

/// The spec of a `TokenSource`: the token endpoint, the credentials and the target Secret.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[kube(
    group = "tokensource.dev",
    version = "v1alpha1",
    kind = "TokenSource",
    plural = "tokensources",
    shortname = "tks",
    category = "tokensource",
    namespaced,
    status = "TokenSourceStatus",
    derive = "PartialEq",
    doc = "A TokenSource requests an access token at an OAuth 2.0 token endpoint, writes it into a Secret of its own namespace, and refreshes it before it expires.",
    printcolumn(json_path = ".status.conditions[?(@.type==\"Ready\")].status", name = "Ready", type_ = "string"),
    printcolumn(json_path = ".status.conditions[?(@.type==\"Ready\")].reason", name = "Reason", type_ = "string"),
    // A string: a column of type date prints `<invalid>` for a time in the future.
    printcolumn(json_path = ".status.token.expiresAt", name = "Expires", type_ = "string"),
    printcolumn(json_path = ".status.binding.name", name = "Target", type_ = "string"),
    printcolumn(json_path = ".metadata.creationTimestamp", name = "Age", type_ = "date"),
    printcolumn(json_path = ".status.provider", name = "Provider", type_ = "string", priority = 1),
    printcolumn(json_path = ".status.token.refreshAt", name = "Refresh at", type_ = "string", priority = 1),
    printcolumn(json_path = ".status.token.id", name = "Token id", type_ = "string", priority = 1),
    printcolumn(json_path = ".status.lastFailure.count", name = "Failures", type_ = "integer", priority = 1),
    validation = Rule::new(rules::NAME_FITS).message("the name may have at most 239 characters, because the Secret `<name>-refresh-token` must be nameable; write a shorter metadata.name"),
    validation = Rule::new(rules::TARGET_IS_NOT_CREDENTIALS).message("the target Secret (spec.target.name, else the TokenSource's own name) must not be the credentials Secret: the token would overwrite the credentials; write another spec.target.name"),
    validation = Rule::new(rules::TARGET_IS_NOT_TLS).message("the target Secret (spec.target.name, else the TokenSource's own name) must not be a Secret that spec.tls names: the token would overwrite the certificates; write another spec.target.name"),
    validation = Rule::new(rules::TARGET_IS_NOT_REFRESH_TOKEN).message("the Secret `<name>-refresh-token` is where the operator keeps a refresh token that rotates; write another spec.target.name"),
    validation = Rule::new(rules::NAMES_ARE_NOT_HELMS).message("names that begin with sh.helm.release.v1. belong to Helm, which would read the target Secret as a release; write another metadata.name or spec.target.name"),
    validation = Rule::new(rules::CREDENTIALS_ARE_NOT_REFRESH_TOKEN).message("the Secret `<name>-refresh-token` belongs to the operator; write another spec.credentials.secretRef.name"),
    validation = Rule::new(rules::TARGET_IMMUTABLE).message("spec.target.name cannot be changed, because pods would go on reading the old Secret; create another TokenSource"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(rules::ISSUER_OR_PROVIDER).message("write provider and credentials, or issuerRef alone: provider, credentials and tls are the issuer's"),
    validation = Rule::new(rules::REQUEST_NEEDS_ISSUER).message("request is for issuerRef; without an issuer, scopes, audience and resources are fields of provider").field_path(".request"),
    validation = Rule::new(rules::VGS_KEY_NEEDS_VGS).message(rules::VGS_KEY_NEEDS_VGS_MESSAGE).field_path(".credentials.vgsServiceAccountKey"),
    validation = Rule::new(rules::TLS_NEEDS_CERTIFICATE).message(rules::TLS_NEEDS_CERTIFICATE_MESSAGE),
    validation = Rule::new(rules::VCD_HAS_NO_CLIENT).message("provider vmwareCloudDirector authenticates by its API token alone; remove clientID, clientIDKey and clientSecretKey, and name the token's key by refreshTokenKey").field_path(".credentials"),
    validation = Rule::new(rules::SERVICE_ACCOUNT_TOKEN_IS_USED).message(rules::SERVICE_ACCOUNT_TOKEN_IS_USED_MESSAGE).field_path(".credentials"),
    validation = Rule::new(rules::SERVICE_ACCOUNT_TOKEN_IS_ALONE).message(rules::SERVICE_ACCOUNT_TOKEN_IS_ALONE_MESSAGE).field_path(".credentials"),
    validation = Rule::new(rules::SERVICE_ACCOUNT_TOKEN_HAS_AUDIENCE).message(rules::SERVICE_ACCOUNT_TOKEN_HAS_AUDIENCE_MESSAGE).field_path(".credentials"),
    validation = Rule::new(rules::SERVICE_ACCOUNT_TOKEN_HAS_CLIENT).message(rules::SERVICE_ACCOUNT_TOKEN_HAS_CLIENT_MESSAGE).field_path(".credentials"),
)]
pub struct TokenSourceSpec {
    /// The provider at which the token is requested: exactly one member. Required without issuerRef.
    #[serde(default, skip_serializing_if = "Provider::is_absent")]
    pub provider: Provider,
    /// The credentials of the token request. Required without issuerRef.
    #[serde(default, skip_serializing_if = "Credentials::is_absent")]
    pub credentials: Credentials,
    /// A ClusterTokenIssuer of the platform, in place of provider, credentials and tls. The operator must serve issuers (--issuers-namespace).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer_ref: Option<IssuerReference>,
    /// What is asked of the issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<IssuerRequest>,
    /// TLS to the token endpoint, for endpoints whose certificate the system's roots do not verify or that require a client certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// The Secret that receives the token, and that pods mount.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Target>,
    /// When the token is refreshed. The defaults suit nearly every case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Refresh>,
    /// true: leave the Secret unchanged and request no token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

/// The provider at which the token is requested: exactly one member.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(rules::ONE_PROVIDER).message("exactly one of vgs, vngCloud, vmwareCloudDirector, gitHubApp and oauth2 must be set; a member left empty is dropped, so write `vgs: {}`, not `vgs:`"))]
pub struct Provider {
    /// Very Good Security: Vault API, Account Updater and Network Tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vgs: Option<Vgs>,
    /// VNG Cloud (GreenNode) IAM, for vStorage and other services.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vng_cloud: Option<VngCloud>,
    /// VMware Cloud Director, for example Hi GIO Cloud, with an API token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmware_cloud_director: Option<VmwareCloudDirector>,
    /// A GitHub App: installation access tokens, for repositories and the API of GitHub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_hub_app: Option<GitHubApp>,
    /// Any other OAuth 2.0 token endpoint (RFC 6749).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth2: Option<OAuth2>,
}

/// Very Good Security.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Vgs {
    /// The scopes to request, of those that the service account has; default: none are named, and VGS grants all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 256)))]
    #[x_kube(validation = Rule::new(rules::SCOPES).message(rules::SCOPES_MESSAGE), merge_strategy = ListMerge::Atomic)]
    pub scopes: Option<Vec<String>>,
    /// Replaces the token endpoint of VGS.
    #[serde(default, rename = "tokenURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = Rule::new(rules::TOKEN_URL).message(rules::TOKEN_URL_MESSAGE))]
    pub token_url: Option<String>,
}

/// VNG Cloud (GreenNode) IAM.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VngCloud {
    /// The scopes to request; default: email.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 256)))]
    #[x_kube(validation = Rule::new(rules::SCOPES).message(rules::SCOPES_MESSAGE), merge_strategy = ListMerge::Atomic)]
    pub scopes: Option<Vec<String>>,
    /// Replaces the token endpoint of VNG Cloud.
    #[serde(default, rename = "tokenURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = Rule::new(rules::TOKEN_URL).message(rules::TOKEN_URL_MESSAGE))]
    pub token_url: Option<String>,
}

/// VMware Cloud Director.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(rules::TENANT_OR_SYSTEM).message("exactly one of `tenant: NAME` and `system: true` must be set"))]
pub struct VmwareCloudDirector {
    /// The host of the Cloud Director, with the port if it is not 443: `vcd.example.com` or `vcd.example.com:8443`.
    #[schemars(length(min = 1, max = 261))]
    #[x_kube(validation = Rule::new(rules::HOST).message("write the host alone, with a port if it is not 443, for example vcd.example.com or vcd.example.com:8443"))]
    pub host: String,
    /// The organization (tenant) that the API token belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new(rules::TENANT).message("write the organization's name as in its URL: no slash, backslash or control character, and not `.` or `..`"))]
    pub tenant: Option<String>,
    /// true: the API token belongs to the provider (the System organization).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<bool>,
    /// Replaces the token endpoint that follows from host and tenant.
    #[serde(default, rename = "tokenURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = Rule::new(rules::TOKEN_URL).message(rules::TOKEN_URL_MESSAGE))]
    pub token_url: Option<String>,
}

/// The client's credentials, in the TokenSource's own namespace: exactly one of secretRef and serviceAccountToken.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(rules::ONE_CREDENTIALS).message(rules::ONE_CREDENTIALS_MESSAGE),
    validation = Rule::new(rules::SERVICE_ACCOUNT_TOKEN_HAS_NO_KEYS).message("serviceAccountToken stands in place of a Secret: remove clientIDKey, clientSecretKey, refreshTokenKey, privateKeyKey and vgsServiceAccountKey; the client's id is clientID"),
    validation = Rule::new(rules::ONE_CLIENT_ID).message(rules::ONE_CLIENT_ID_MESSAGE),
    validation = Rule::new(rules::VGS_KEY_ALONE).message(rules::VGS_KEY_ALONE_MESSAGE).field_path(".vgsServiceAccountKey"),
)]
pub struct Credentials {
    /// The Secret. All values are read from it at one resourceVersion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretReference>,
    /// A ServiceAccount whose tokens prove the client's identity, so that there is no secret. The platform must allow the audience together with the endpoint's host, and the ServiceAccount must have the annotation `tokensource.dev/audiences`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_token: Option<ServiceAccountToken>,
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
    /// The key of the Secret that holds the refresh token, or a VMware Cloud Director API token; default: refresh_token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::SECRET_KEY))]
    pub refresh_token_key: Option<String>,
    /// The key of the Secret that holds the private key for privateKeyJWT, jwtBearer and gitHubApp, in PEM (PKCS#8, PKCS#1 or SEC 1), or Google's key file of a service account; default: private_key.pem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::SECRET_KEY))]
    pub private_key_key: Option<String>,
    /// The key of the Secret that holds the output of `vgs apply service-account`, instead of id and secret. No default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::SECRET_KEY))]
    pub vgs_service_account_key: Option<String>,
}

/// The Secret that receives the token.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// The Secret's name; default: the TokenSource's own. Cannot be changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::OBJECT_NAME))]
    pub name: Option<String>,
    /// What happens to the Secret when the TokenSource is deleted: Delete or Retain; default: Delete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deletion_policy: Option<DeletionPolicy>,
    /// How a new token reaches the files in pods: Periodic or Prompt; default: Periodic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub propagation: Option<Propagation>,
    /// The type, metadata and keys of the Secret, instead of the three default keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Template>,
}

#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
/// What happens to the Secret when the TokenSource is deleted. Delete: it is deleted too; Retain: it stays, with the token that it holds; default: Delete.
pub enum DeletionPolicy {
    #[default]
    /// The Secret is garbage-collected with the TokenSource.
    Delete,
    /// The Secret stays, with the token that it holds.
    Retain,
}

#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
/// How a new token reaches the files in pods. Periodic: by the kubelet's periodic sync, about 90 s; Prompt: the running pods that mount the Secret are annotated at each new token, so that the kubelet reads it at once (the platform must allow the operator to patch pods); default: Periodic.
pub enum Propagation {
    #[default]
    /// The kubelet's periodic sync.
    Periodic,
    /// The pods are annotated, so that the kubelet reads the Secret at once.
    Prompt,
}

/// When the token is refreshed. Durations are written as in Go: `90s`, `15m`, `1h30m`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Refresh {
    /// Refresh when this much of the lifetime is left; default: a third of the lifetime, and at least 150s where the lifetime allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new(rules::DURATION).message(rules::DURATION_MESSAGE))]
    pub before: Option<String>,
    /// The lifetime of a token where neither the token response nor the token itself states one; at least 1m; default: 15m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new(rules::DEFAULT_LIFETIME).message(rules::DEFAULT_LIFETIME_MESSAGE))]
    pub default_lifetime: Option<String>,
    /// Refresh at least this often, also where the token lives longer; at least 30s; default: 24h (vmwareCloudDirector: 15m).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new(rules::MAX_INTERVAL).message(rules::MAX_INTERVAL_MESSAGE))]
    pub max_interval: Option<String>,
    /// The longest time by which a mounted file lags behind the Secret; at most 1h; default: the operator's --default-propagation-delay (90s).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new(rules::PROPAGATION_DELAY).message(rules::PROPAGATION_DELAY_MESSAGE))]
    pub propagation_delay: Option<String>,
}

impl Provider {
    /// Whether there is none.
    fn is_absent(&self) -> bool {
        *self == Self::default()
    }
}

impl Credentials {
    /// Whether there are none.
    fn is_absent(&self) -> bool {
        *self == Self::default()
    }
}

impl TokenSource {
    /// The name of the target Secret: `spec.target.name`, else the TokenSource's own.
    #[must_use]
    pub fn target_name(&self) -> &str {
        let own = self.metadata.name.as_deref().unwrap_or_default();
        self.spec.target.as_ref().and_then(|target| target.name.as_deref()).unwrap_or(own)
    }

    /// The name of the Secret in which the operator stores a rotating refresh token.
    #[must_use]
    pub fn refresh_token_secret_name(&self) -> String {
        format!("{}-refresh-token", self.metadata.name.as_deref().unwrap_or_default())
    }
}
