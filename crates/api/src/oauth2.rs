//! `spec.provider.oauth2`: any token endpoint of OAuth 2.0.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::assertion::{AssertionGrant, ClientAssertion, JwtBearer, PrivateKeyJwt, TokenOrigin};
use super::rules;

/// Any OAuth 2.0 token endpoint.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(rules::ENDPOINT_OR_ISSUER).message("exactly one of tokenURL and issuer must be set"),
    validation = Rule::new(rules::PARAMETER_ONCE).message("parameters and secretParameters must not name the same member: remove it from one of them"),
    validation = Rule::new(rules::HEADER_ONCE).message("headers and secretHeaders must not name the same header: remove it from one of them"),
)]
pub struct OAuth2 {
    /// The token endpoint (RFC 6749, section 3.2), for example `https://idp.example.com/oauth/token`. Either this or issuer.
    #[serde(default, rename = "tokenURL", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = Rule::new(rules::TOKEN_URL).message(rules::TOKEN_URL_MESSAGE))]
    pub token_url: Option<String>,
    /// The issuer, for example `https://idp.example.com`, whose metadata (OpenID Connect Discovery, RFC 8414) names the token endpoint. Either this or tokenURL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = Rule::new(rules::ISSUER).message("write the issuer exactly as its metadata has it, as an absolute https URL without user name, password, query and fragment, for example https://idp.example.com"))]
    pub issuer: Option<String>,
    /// The grant by which the token is requested: exactly one member; default: clientCredentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<Grant>,
    /// How the client authenticates: exactly one member; default: basic (with the grants jwtBearer and assertion, and with credentials.serviceAccountToken: none).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_authentication: Option<ClientAuthentication>,
    /// The encoding of the request's body: Form (application/x-www-form-urlencoded, RFC 6749) or JSON; default: Form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_encoding: Option<RequestEncoding>,
    /// The scopes to request (RFC 6749, section 3.3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 256)))]
    #[x_kube(validation = Rule::new(rules::SCOPES).message(rules::SCOPES_MESSAGE), merge_strategy = ListMerge::Atomic)]
    pub scopes: Option<Vec<String>>,
    /// The audience of the token, for endpoints that take the parameter `audience` (Auth0, RFC 8693 and others).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub audience: Option<String>,
    /// The resources at which the token will be used (RFC 8707): absolute URIs without a fragment, or the GUIDs of applications, as Microsoft Entra ID and AD FS take them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), inner(length(min = 1, max = 2048)))]
    #[x_kube(validation = Rule::new(rules::RESOURCES).message(rules::RESOURCES_MESSAGE), merge_strategy = ListMerge::Atomic)]
    pub resources: Option<Vec<String>>,
    /// Further members of the request's body. Not for secrets: they are readable by everyone who may read the TokenSource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::parameters_schema")]
    pub parameters: Option<BTreeMap<String, String>>,
    /// Further members of the request's body with secret values: the member's name, and the key of the credentials Secret that holds its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::secret_parameters_schema")]
    pub secret_parameters: Option<BTreeMap<String, String>>,
    /// Further headers of the request. Not for secrets: they are readable by everyone who may read the TokenSource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::headers_schema")]
    pub headers: Option<BTreeMap<String, String>>,
    /// Further headers of the request with secret values: the header's name, and the key of the credentials Secret that holds its value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::secret_headers_schema")]
    pub secret_headers: Option<BTreeMap<String, String>>,
    /// Where the members of the token response are, for endpoints that do not follow RFC 6749.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response: Option<ResponseMapping>,
}

/// JSON pointers (RFC 6901) into the token response, for example `/data/accessToken`. The defaults are the members of RFC 6749.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(rules::ONE_EXPIRY).message("expiresIn is a number of seconds, expiresAt a point in time: write one of them"))]
pub struct ResponseMapping {
    /// The access token; default: /access_token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new(rules::POINTER).message(rules::POINTER_MESSAGE))]
    pub access_token: Option<String>,
    /// The access token's lifetime in seconds; default: /expires_in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new(rules::POINTER).message(rules::POINTER_MESSAGE))]
    pub expires_in: Option<String>,
    /// The access token's expiry instead of its lifetime: RFC 3339, or seconds or milliseconds since 1970. No default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new(rules::POINTER).message(rules::POINTER_MESSAGE))]
    pub expires_at: Option<String>,
    /// A refresh token that replaces the one that was sent; default: /refresh_token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new(rules::POINTER).message(rules::POINTER_MESSAGE))]
    pub refresh_token: Option<String>,
    /// Further members that templates may use, by the name under which a template finds them: `values: {instance_url: /instance_url}` is `{{ values.instance_url }}`. Texts, numbers and booleans; never a token or a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::values_schema")]
    pub values: Option<BTreeMap<String, String>>,
}

/// The grant by which the token is requested: exactly one member.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(rules::ONE_GRANT).message("exactly one of clientCredentials, refreshToken, jwtBearer, assertion, tokenExchange and custom must be set; a member left empty is dropped, so write `refreshToken: {}`, not `refreshToken:`"))]
pub struct Grant {
    /// The client credentials grant (RFC 6749, section 4.4).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_credentials: Option<Empty>,
    /// The refresh token grant (RFC 6749, section 6). A refresh token that rotates is stored in the Secret `<name>-refresh-token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<Empty>,
    /// An assertion that the client signs (RFC 7523, section 2.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt_bearer: Option<JwtBearer>,
    /// An assertion that another program makes and renews (RFC 7523, section 2.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<AssertionGrant>,
    /// Token exchange (RFC 8693).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_exchange: Option<TokenExchange>,
    /// A vendor's own grant (RFC 6749, section 4.5). Its parameters are set in parameters and secretParameters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom: Option<CustomGrant>,
}

/// Token exchange (RFC 8693).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(rules::ACTOR).message("actorTokenKey and actorTokenType belong together: write both or none"),
    validation = Rule::new(rules::SUBJECT_HAS_NO_KEY).message("subjectTokenKey is for subject: secretKey; remove it"),
)]
pub struct TokenExchange {
    /// Where the token to exchange is from: secretKey or serviceAccountToken; default: secretKey.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<TokenOrigin>,
    /// The key of the credentials Secret that holds the token to exchange, with subject: secretKey; default: subject_token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::SECRET_KEY))]
    pub subject_token_key: Option<String>,
    /// The type of the token to exchange, for example `urn:ietf:params:oauth:token-type:access_token`.
    #[schemars(length(min = 1, max = 256))]
    pub subject_token_type: String,
    /// The key of the credentials Secret that holds the actor token: the token of the party that acts on the subject's behalf. No default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::SECRET_KEY))]
    pub actor_token_key: Option<String>,
    /// The type of the actor token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub actor_token_type: Option<String>,
    /// The type of the requested token. No default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub requested_token_type: Option<String>,
}

/// A vendor's own grant.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CustomGrant {
    /// The value of grant_type, for example `account_credentials`.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = Rule::new(rules::CUSTOM_GRANT).message("this grant has a member of its own beside custom: use that"))]
    pub grant_type: String,
    /// The member of the request's body that holds the token of credentials.serviceAccountToken, for example `jwt`. No default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new(rules::service_account_token_parameter()).message("members of the request that have a field of their own (grant_type, client_id, client_assertion, ...) cannot be named here: use that field"))]
    pub service_account_token_parameter: Option<String>,
}

/// How the client authenticates: exactly one member.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(rules::ONE_CLIENT_AUTHENTICATION).message("exactly one of basic, post, privateKeyJWT, assertion, serviceAccountToken, tls and none must be set; a member left empty is dropped, so write `post: {}`, not `post:`"))]
pub struct ClientAuthentication {
    /// HTTP Basic with id and secret (RFC 6749, section 2.3.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic: Option<Basic>,
    /// client_id and client_secret in the request's body (RFC 6749, section 2.3.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post: Option<Empty>,
    /// An assertion that the client signs (RFC 7523, section 2.2), and client_id in the body.
    #[serde(default, rename = "privateKeyJWT", skip_serializing_if = "Option::is_none")]
    pub private_key_jwt: Option<PrivateKeyJwt>,
    /// An assertion that another program makes and renews, for example a SPIFFE JWT-SVID (RFC 7521, section 4.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<ClientAssertion>,
    /// The token of credentials.serviceAccountToken as the assertion (RFC 7523, section 2.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_token: Option<ServiceAccountTokenAssertion>,
    /// The client certificate in spec.tls.clientCertificateRef (RFC 8705), and client_id in the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Empty>,
    /// A public client: client_id in the body, if one is set, and no secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub none: Option<Empty>,
}

/// HTTP Basic authentication.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Basic {
    /// The encoding of id and secret: Percent or Raw; default: Percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<BasicEncoding>,
}

/// The token of a ServiceAccount as the client's assertion.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountTokenAssertion {
    /// true: client_id is in the body too, which some issuers require and others refuse; default: false.
    #[serde(default, rename = "sendClientID", skip_serializing_if = "Option::is_none")]
    pub send_client_id: Option<bool>,
}

/// A member that has no fields of its own yet: write `{}`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
pub struct Empty {}

#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
/// The encoding of id and secret in HTTP Basic. Percent: percent-encoded first, as RFC 6749 requires; Raw: unchanged, for servers that do not decode; default: Percent.
pub enum BasicEncoding {
    #[default]
    /// Percent-encoded before base64.
    Percent,
    /// Unchanged before base64.
    Raw,
}

#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
/// The encoding of the request's body. Form: application/x-www-form-urlencoded (RFC 6749); JSON: application/json; default: Form.
pub enum RequestEncoding {
    #[default]
    /// `application/x-www-form-urlencoded`.
    Form,
    /// `application/json`.
    #[serde(rename = "JSON")]
    Json,
}
