//! From a description and credentials to the bytes of a token request (RFC 6749, 4.4.2, 4.5 and 6; RFC 7521, 4;
//! RFC 8693, 2.1; RFC 8707, 2).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod signer;
mod write;

use super::assertion::Attempt;
use super::credentials::{Credential, Credentials};
use super::discovery::Issuer;
use super::grant::{ClientAuthentication, Grant};
use super::key::KeyError;
use super::mapping::ResponseMapping;
use super::redact::Redactor;
use http::HeaderMap;
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;
use std::fmt;
use url::Url;

/// Members of a request that only this module writes; `parameters` cannot set them. In ASCII lower case.
pub const RESERVED: &[&str] = &[
    "actor_token",
    "actor_token_type",
    "assertion",
    "audience",
    "client_assertion",
    "client_assertion_type",
    "client_id",
    "client_secret",
    "grant_type",
    "refresh_token",
    "requested_token_type",
    "resource",
    "scope",
    "subject_token",
    "subject_token_type",
];

/// Whether `name` is one of [`RESERVED`], in any ASCII case: some servers do not mind the case either.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name))
}

/// What to ask of which token endpoint, without any secret.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestDescription {
    /// The token endpoint (RFC 6749, 3.2). It may have a query, but no user name or password. Until the endpoint of
    /// an [`issuer`](Self::issuer) is discovered: [`Issuer::url`].
    pub token_url: Url,
    /// Whose endpoint is to be discovered, or was.
    pub issuer: Option<Issuer>,
    /// How the token is earned.
    pub grant: Grant,
    /// How the client says who it is.
    pub client_authentication: ClientAuthentication,
    /// How the body is written.
    pub encoding: Encoding,
    /// Joined with spaces into `scope`; none: no such member.
    pub scopes: Vec<String>,
    /// Who shall accept the token, as RFC 8693, 2.1, Auth0 and others write it.
    pub audience: Option<String>,
    /// Where the token shall be used (RFC 8707, 2): absolute URIs without a fragment.
    pub resources: Vec<String>,
    /// Further members of the body, written last. Names in [`RESERVED`] are refused.
    pub parameters: BTreeMap<String, String>,
    /// The same with values from [`Credentials::values`]: member -> key.
    pub secret_parameters: BTreeMap<String, String>,
    /// Further headers. Names in [`REFUSED_HEADERS`](super::REFUSED_HEADERS) are refused.
    pub headers: BTreeMap<String, String>,
    /// The same with values from [`Credentials::values`]: header -> key.
    pub secret_headers: BTreeMap<String, String>,
    /// Where the answer has what.
    pub response: ResponseMapping,
}

/// How the body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `application/x-www-form-urlencoded`, as RFC 6749 demands.
    Form,
    /// One JSON object of strings, as VNG Cloud takes it.
    Json,
}

/// Why no request can be made of a description and credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The description needs a credential that is absent or empty.
    #[error("the request needs a {0}, and the credentials hold none")]
    Missing(Credential),
    /// A secret parameter or header needs a value that is absent or empty.
    #[error("the request needs a value under the key {0:?}, and the credentials hold none")]
    MissingValue(String),
    /// `parameters` names a member of [`RESERVED`], or both kinds of parameters name the same.
    #[error("the parameter {0:?} is reserved: the operator writes it by itself")]
    Reserved(String),
    /// `claims` names one of [`RESERVED_CLAIMS`](super::RESERVED_CLAIMS).
    #[error("the claim {0:?} is reserved: the operator writes it by itself")]
    ReservedClaim(String),
    /// A header of [`REFUSED_HEADERS`](super::REFUSED_HEADERS), or no header name.
    #[error("the header {0:?} cannot be set")]
    RefusedHeader(String),
    /// A value with a line break or other control characters.
    #[error("the value of the header {0:?} holds characters that a header cannot carry")]
    HeaderValue(String),
    /// RFC 8707, 2.
    #[error("the resource {0:?} is no absolute URI without a fragment (RFC 8707)")]
    Resource(String),
    /// RFC 7617, 2: the server would split such an id at its colon, and count a failed login.
    #[error(
        "the client id has a colon, which Basic authentication with encoding Raw cannot carry: use encoding Percent, or post"
    )]
    ColonInClientId,
    /// An HTTP client would turn them into an Authorization header of its own.
    #[error("the token URL must not hold a user name or a password")]
    UserInfoInUrl,
    /// The private key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The certificate cannot be named.
    #[error("the certificate {0}")]
    Certificate(&'static str),
    /// A caller's fault: something is to be signed, and no [`Attempt`] was given.
    #[error("the request is to be signed, and nobody says when")]
    NotAnAttempt,
    /// A caller's fault: the endpoint is to be discovered first.
    #[error("the token endpoint has not been discovered yet")]
    NotDiscovered,
}

impl RequestDescription {
    /// A form to `token_url` with nothing further in it.
    #[must_use]
    pub fn new(token_url: Url, grant: Grant, client_authentication: ClientAuthentication) -> Self {
        Self {
            token_url,
            issuer: None,
            grant,
            client_authentication,
            encoding: Encoding::Form,
            scopes: Vec::new(),
            audience: None,
            resources: Vec::new(),
            parameters: BTreeMap::new(),
            secret_parameters: BTreeMap::new(),
            headers: BTreeMap::new(),
            secret_headers: BTreeMap::new(),
            response: ResponseMapping::default(),
        }
    }

    /// Whether every attempt signs something anew, so that it takes [`Self::attempt`] to make a request.
    #[must_use]
    pub fn signs(&self) -> bool {
        matches!(self.grant, Grant::JwtBearer(_))
            || matches!(self.client_authentication, ClientAuthentication::PrivateKeyJwt(_))
    }

    /// A request that holds no signature. See [`Self::attempt`].
    ///
    /// # Errors
    /// As there; and where something is to be signed.
    pub fn request(&self, credentials: &Credentials) -> Result<TokenRequest, RequestError> {
        self.write(credentials, None)
    }

    /// Writes the request: `grant_type`, the grant's members, the client's, `audience`, `resource`, `scope`, then the
    /// parameters by name. The same input gives the same bytes, but for signatures whose algorithm is randomized.
    ///
    /// # Errors
    /// A credential is missing or no key, a name is reserved, or something cannot be expressed.
    pub fn attempt(
        &self,
        credentials: &Credentials,
        attempt: &Attempt,
    ) -> Result<TokenRequest, RequestError> {
        self.write(credentials, Some(attempt))
    }
}

/// A token request, ready to be sent with POST. Holds secrets: its `Debug` prints neither header values, nor the
/// body, nor the URL's query.
#[derive(Clone)]
pub struct TokenRequest {
    url: Url,
    headers: HeaderMap,
    body: SecretString,
    sent: Redactor,
    spends_credential: bool,
    encoded_differs: bool,
    response: ResponseMapping,
}

impl TokenRequest {
    /// Where to.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// All headers but those of the connection and the User-Agent. Authorization is marked as sensitive.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The body, secrets included.
    #[must_use]
    pub fn body(&self) -> &SecretString {
        &self.body
    }

    /// Whether the endpoint may act on this request only once: a refresh token may be spent by it.
    #[must_use]
    pub fn spends_credential(&self) -> bool {
        self.spends_credential
    }

    /// Whether Basic authentication changed the id or the secret by percent-encoding, so that a server that does
    /// not decode must reject it.
    pub(super) fn encoded_differs(&self) -> bool {
        self.encoded_differs
    }

    /// Where the answer has what.
    pub(super) fn response(&self) -> &ResponseMapping {
        &self.response
    }

    /// What must not appear in a message.
    pub(super) fn sent(&self) -> &Redactor {
        &self.sent
    }
}

impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenRequest")
            .field("host", &self.url.host_str())
            .field("path", &self.url.path())
            .field("headers", &self.headers.keys().map(http::HeaderName::as_str).collect::<Vec<_>>())
            .field("body_bytes", &self.body.expose_secret().len())
            .finish()
    }
}
