//! Signed assertions of `provider.oauth2`: client authentication (RFC 7523, section 2.2) and grant (section 2.1).

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::rules;

/// An assertion that the client signs with the key under credentials.privateKeyKey (RFC 7523, section 2.1), as Google, Salesforce, Box and DocuSign use it.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct JwtBearer {
    /// The claim iss; default: the client_email of Google's key file, else the client's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub issuer: Option<String>,
    /// The claim sub: the user on whose behalf the token is requested. No default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub subject: Option<String>,
    /// The claim aud; default: the issuer, where spec.provider.oauth2.issuer is set, else the token endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub audience: Option<String>,
    /// Further claims, as strings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "rules::claims_schema")]
    pub claims: Option<BTreeMap<String, String>>,
    /// The signature algorithm, which must suit the key and the issuer; default: RS256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Algorithm>,
    /// The header kid; default: the private_key_id of Google's key file, else none.
    #[serde(default, rename = "keyID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub key_id: Option<String>,
    /// The lifetime of the assertion (not of the token), from 1s to 1h; default: 45s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new(rules::ASSERTION_LIFETIME).message("write a duration from 1s to 1h, for example 45s: many issuers refuse assertions that live longer than a minute"))]
    pub lifetime: Option<String>,
}

/// An assertion that authenticates the client, signed with the key under credentials.privateKeyKey (RFC 7523, section 2.2).
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct PrivateKeyJwt {
    /// The signature algorithm, which must suit the key and the issuer; default: RS256.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<Algorithm>,
    /// The header kid. No default.
    #[serde(default, rename = "keyID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub key_id: Option<String>,
    /// The claim aud; default: the issuer, where spec.provider.oauth2.issuer is set, else the token endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub audience: Option<String>,
    /// The key of the credentials Secret that holds the certificate of the private key. Its digest becomes the header x5t#S256, which Microsoft Entra ID requires. No default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::SECRET_KEY))]
    pub certificate_key: Option<String>,
}

/// An assertion that another program makes and renews, or the token of a ServiceAccount (RFC 7523, section 2.1). A renewed one alone requests no token.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(rules::ASSERTION_HAS_NO_KEY).message("key is for from: secretKey; remove it"))]
pub struct AssertionGrant {
    /// Where the assertion is from.
    pub from: TokenOrigin,
    /// The key of the credentials Secret that holds the assertion, with from: secretKey; default: assertion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::SECRET_KEY))]
    pub key: Option<String>,
}

/// An assertion that another program makes and renews, for example a SPIFFE JWT-SVID (RFC 7521, section 4.2). A renewed one alone requests no token. client_id is in the body where clientID or clientIDKey is set.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClientAssertion {
    /// Where the assertion is from.
    pub from: AssertionSource,
    /// The key of the credentials Secret that holds the assertion, with from: secretKey; default: client_assertion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = rules::SECRET_KEY))]
    pub key: Option<String>,
    /// The value of client_assertion_type; default: `urn:ietf:params:oauth:client-assertion-type:jwt-bearer`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub assertion_type: Option<String>,
}

#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
/// Where an assertion is from. secretKey: a key of the credentials Secret.
pub enum AssertionSource {
    #[default]
    /// A key of the credentials Secret, which another program keeps fresh.
    #[serde(rename = "secretKey")]
    SecretKey,
}

#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
/// Where a token is from. secretKey: a key of the credentials Secret; serviceAccountToken: the ServiceAccount in credentials.serviceAccountToken.
pub enum TokenOrigin {
    #[default]
    /// A key of the credentials Secret, which another program keeps fresh.
    #[serde(rename = "secretKey")]
    SecretKey,
    /// A token of a ServiceAccount.
    #[serde(rename = "serviceAccountToken")]
    ServiceAccountToken,
}

#[derive(schemars::JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
/// A signature algorithm of JWS. RS256, RS384, RS512 and PS256 are for RSA keys, ES256 for keys on P-256, ES384 for P-384, EdDSA for Ed25519; default: RS256.
pub enum Algorithm {
    #[default]
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    #[serde(rename = "RS384")]
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    #[serde(rename = "RS512")]
    Rs512,
    /// RSASSA-PSS with SHA-256.
    #[serde(rename = "PS256")]
    Ps256,
    /// ECDSA with P-256 and SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// ECDSA with P-384 and SHA-384.
    #[serde(rename = "ES384")]
    Es384,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    EdDsa,
}
