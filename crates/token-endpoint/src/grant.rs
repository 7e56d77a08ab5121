//! Authorization grants (RFC 6749, 1.3) and client authentication (RFC 6749, 2.3).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::assertion::ASSERTION_LIFETIME;
use super::key::Algorithm;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// The authorization grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// RFC 6749, 4.4.
    ClientCredentials,
    /// RFC 6749, 6.
    RefreshToken,
    /// An assertion that this client signs (RFC 7523, 2.1): Google, Salesforce, Box, DocuSign.
    JwtBearer(Box<JwtBearer>),
    /// An assertion that another program has made (RFC 7523, 2.1): [`Credentials::assertion`](field@super::Credentials::assertion).
    Assertion,
    /// Exchanges one token for another (RFC 8693).
    TokenExchange(TokenExchange),
    /// An installation access token of a GitHub App, which is GitHub's own and no OAuth: `Authorization` is signed by the app's
    /// key, and the body holds what the token is limited to. Nothing else of a description is sent.
    GitHubApp(GitHubApp),
    /// An extension grant (RFC 6749, 4.5); its members are parameters of the request.
    Custom {
        /// The value of `grant_type`.
        grant_type: String,
        /// The member that holds [`Credentials::assertion`](field@super::Credentials::assertion), if one does.
        assertion: Option<String>,
    },
}

impl Grant {
    /// Whether the member `name` holds the assertion, in any ASCII case.
    pub(super) fn sends_assertion_as(&self, name: &str) -> bool {
        matches!(self, Grant::Custom { assertion: Some(member), .. } if member.eq_ignore_ascii_case(name))
    }
}

/// The claims of the assertion that is the grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtBearer {
    /// `iss`; `None`: the key file's `client_email`, else the client id.
    pub issuer: Option<String>,
    /// `sub`: the subject for whom the token is requested.
    pub subject: Option<String>,
    /// `aud`; `None`: the issuer if it was discovered, else the token endpoint.
    pub audience: Option<String>,
    /// Further claims. Names in [`RESERVED_CLAIMS`](super::RESERVED_CLAIMS) are refused.
    pub claims: Map<String, Value>,
    /// The signature algorithm.
    pub algorithm: Algorithm,
    /// `kid`; `None`: the key file's, if there is one.
    pub key_id: Option<String>,
    /// Seconds, at most [`MAX_ASSERTION_LIFETIME`](super::MAX_ASSERTION_LIFETIME).
    pub lifetime: u64,
}

impl Default for JwtBearer {
    fn default() -> Self {
        Self {
            issuer: None,
            subject: None,
            audience: None,
            claims: Map::new(),
            algorithm: Algorithm::Rs256,
            key_id: None,
            lifetime: ASSERTION_LIFETIME,
        }
    }
}

/// What an installation access token is limited to; empty: nothing less than the installation.
/// <https://docs.github.com/rest/apps/apps#create-an-installation-access-token-for-an-app>
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GitHubApp {
    /// Names of repositories, without their owner.
    pub repositories: Vec<String>,
    /// Permission -> `read`, `write` or `admin`.
    pub permissions: BTreeMap<String, String>,
}

/// RFC 8693, 2.1. The tokens themselves are credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenExchange {
    /// The type of the subject token, for example `urn:ietf:params:oauth:token-type:jwt`.
    pub subject_token_type: String,
    /// The type of the actor token; `None`: no actor token is sent.
    pub actor_token_type: Option<String>,
    /// The type of the requested token; `None`: the server's default.
    pub requested_token_type: Option<String>,
}

/// Client authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// HTTP Basic (RFC 6749, 2.3.1).
    Basic(BasicEncoding),
    /// `client_id` and `client_secret` in the body (RFC 6749, 2.3.1).
    Post,
    /// A public client: `client_id` in the body, if there is one (VMware Cloud Director has none).
    None,
    /// An assertion that the client signs (RFC 7523, 2.2; OpenID Connect Core 9, `private_key_jwt`).
    PrivateKeyJwt(PrivateKeyJwt),
    /// An assertion that another program has made (RFC 7521, 4.2), for example a SPIFFE JWT-SVID, with `client_id` in the body
    /// if there is one: [`Credentials::client_assertion`](field@super::Credentials::client_assertion).
    Assertion {
        /// `client_assertion_type`, for example `urn:ietf:params:oauth:client-assertion-type:jwt-bearer`.
        assertion_type: String,
    },
    /// The client certificate of the connection (RFC 8705), with `client_id` in the body.
    Tls,
}

/// The assertion that authenticates the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrivateKeyJwt {
    /// The signature algorithm.
    pub algorithm: Algorithm,
    /// `kid`.
    pub key_id: Option<String>,
    /// `aud`; `None`: the issuer if it was discovered, else the token endpoint.
    pub audience: Option<String>,
    /// Whether `x5t#S256` carries the thumbprint of [`Credentials::certificate`](field@super::Credentials::certificate), as Entra
    /// requires.
    pub certificate: bool,
}

/// The encoding of id and secret before base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BasicEncoding {
    /// Percent-encoded (RFC 6749, 2.3.1).
    Percent,
    /// Unchanged (RFC 7617), for servers that do not decode.
    Raw,
}
