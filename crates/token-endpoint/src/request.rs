//! Token requests (RFC 6749, 4.4.2, 4.5 and 6; RFC 7521, 4; RFC 8693, 2.1; RFC 8707, 2).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod github;
mod signer;
mod write;

use super::assertion::Attempt;
use super::credentials::Credentials;
use super::discovery::Issuer;
use super::error::RequestError;
use super::grant::{ClientAuthentication, Grant};
use super::limits::{MAX_REQUEST, MAX_REQUEST_BODY, MAX_REQUEST_HEADERS};

use super::mapping::ResponseMapping;
use super::redact::Redactor;
use bytes::Bytes;
use http::HeaderMap;
use secrecy::{ExposeSecret, SecretString};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use url::Url;

/// What every request has, in bytes: names of members and headers, types of grants, tokens and media.
const MIN_REQUEST: usize = 2048;

/// Members of a request that `parameters` cannot set, because this client sets them itself. In ASCII lower case.
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

/// Whether `name` is one of [`RESERVED`], in any ASCII case, since some servers ignore the case.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name))
}

/// A token request without its secrets.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestDescription {
    /// The token endpoint (RFC 6749, 3.2). It may have a query, but no user name or password. [`Issuer::url`] until the endpoint
    /// of the [`issuer`](Self::issuer) is discovered.
    pub token_url: Url,
    /// The issuer whose endpoint [`Discovery`](super::Discovery) finds or found.
    pub issuer: Option<Issuer>,
    /// The authorization grant (RFC 6749, 1.3).
    pub grant: Grant,
    /// How the client authenticates (RFC 6749, 2.3).
    pub client_authentication: ClientAuthentication,
    /// The encoding of the body.
    pub encoding: Encoding,
    /// Joined with spaces into `scope`, which is left out if there are none.
    pub scopes: Vec<String>,
    /// The intended audience of the token (RFC 8693, 2.1; also Auth0 and others).
    pub audience: Option<String>,
    /// The resources at which the token will be used (RFC 8707, 2): absolute URIs without a fragment, or GUIDs.
    pub resources: Vec<String>,
    /// Further members of the body, written last. Names in [`RESERVED`] are refused.
    pub parameters: BTreeMap<String, String>,
    /// Further members with values from [`Credentials::values`]: member -> key.
    pub secret_parameters: BTreeMap<String, String>,
    /// Further headers. Names in [`REFUSED_HEADERS`](super::REFUSED_HEADERS) are refused.
    pub headers: BTreeMap<String, String>,
    /// Further headers with values from [`Credentials::values`]: header -> key.
    pub secret_headers: BTreeMap<String, String>,
    /// Where the members of the answer are.
    pub response: ResponseMapping,
}

/// The encoding of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `application/x-www-form-urlencoded` (RFC 6749).
    Form,
    /// A JSON object of strings, for example for VNG Cloud.
    Json,
}

impl RequestDescription {
    /// A form with only the grant and the client authentication.
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

    /// Whether each attempt signs an assertion, so that only [`Self::attempt`] can write the request.
    #[must_use]
    pub fn signs(&self) -> bool {
        matches!(self.grant, Grant::JwtBearer(_) | Grant::GitHubApp(_))
            || matches!(self.client_authentication, ClientAuthentication::PrivateKeyJwt(_))
    }

    /// The most bytes that a request with these credentials holds, as far as it is not signed. Encodings make up to six bytes of
    /// one, one value may be that of many parameters and headers, and what was sent is kept once more, so that messages hide it.
    #[must_use]
    pub fn most_bytes(&self, credentials: &Credentials) -> usize {
        let named =
            [&self.secret_parameters, &self.secret_headers].into_iter().flatten().map(|(name, key)| {
                let value = credentials.values.get(key).map_or(0, |value| value.expose_secret().len());
                name.len() + value
            });
        let plain = [&self.parameters, &self.headers].into_iter().flatten();
        let plain = plain.map(|(name, value)| name.len() + value.len());
        let texts = self.scopes.iter().chain(&self.resources).chain(&self.audience);
        let texts: usize = texts.map(|text| text.len() + 1).sum();
        let values = credentials.bytes() + named.chain(plain).sum::<usize>() + texts;
        let written = (6 * values + MIN_REQUEST).min(MAX_REQUEST_BODY + MAX_REQUEST_HEADERS);
        let pair = match self.client_authentication {
            ClientAuthentication::Basic(_) => 3 * credentials.bytes() + 1,
            _ => 0,
        };
        // Texts that may be shown are there by the word, too.
        let hidden = values + texts + credentials.bytes() + pair;
        (written + hidden).min(MAX_REQUEST)
    }

    /// Writes a request without a signature. See [`Self::attempt`].
    ///
    /// # Errors
    /// Those of [`Self::attempt`]; and the description signs.
    pub fn request(&self, credentials: &Credentials) -> Result<TokenRequest, RequestError> {
        self.write(credentials, None)
    }

    /// Writes the request: `grant_type`, the members of the grant, those of the client, `audience`, `resource`, `scope`, then
    /// the parameters by name. The same input gives the same bytes, except for signatures whose algorithm is randomized.
    ///
    /// # Errors
    /// A credential is missing or cannot be used, a name is reserved, or a value cannot be expressed.
    pub fn attempt(
        &self,
        credentials: &Credentials,
        attempt: &Attempt,
    ) -> Result<TokenRequest, RequestError> {
        self.write(credentials, Some(attempt))
    }
}

/// A token request, to be sent with POST. It holds secrets; its `Debug` prints no header values, no body and no query of the
/// URL.
#[derive(Clone)]
pub struct TokenRequest {
    url: Url,
    headers: HeaderMap,
    body: Arc<SecretString>,
    sent: Redactor,
    spends_credential: bool,
    encoded_differs: bool,
    is_by_grant_alone: bool,
    is_for_github: bool,
    response: ResponseMapping,
}

impl TokenRequest {
    /// The token endpoint.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// All headers except those of the connection and User-Agent. Authorization is marked as sensitive.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The body, with its secrets.
    #[must_use]
    pub fn body(&self) -> &SecretString {
        &self.body
    }

    /// The same without a copy.
    pub(super) fn body_bytes(&self) -> Bytes {
        struct Body(Arc<SecretString>);
        impl AsRef<[u8]> for Body {
            fn as_ref(&self) -> &[u8] {
                self.0.expose_secret().as_bytes()
            }
        }
        Bytes::from_owner(Body(Arc::clone(&self.body)))
    }

    /// The bytes that it holds: body, headers, and what messages hide.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        self.body.expose_secret().len() + headers + self.sent.bytes()
    }

    /// Whether the request may spend its credential (a refresh token), so that the endpoint accepts it only once.
    #[must_use]
    pub fn spends_credential(&self) -> bool {
        self.spends_credential
    }

    /// Whether percent-encoding changed the id or the secret of Basic authentication, so that a server that does not decode
    /// rejects it.
    pub(super) fn encoded_differs(&self) -> bool {
        self.encoded_differs
    }

    /// Whether nothing authenticates the client, so that a rejection mostly means the grant.
    pub(super) fn is_by_grant_alone(&self) -> bool {
        self.is_by_grant_alone
    }

    /// Whether it is answered in the words of GitHub's API.
    pub(super) fn is_for_github(&self) -> bool {
        self.is_for_github
    }

    /// Where the members of the answer are.
    pub(super) fn response(&self) -> &ResponseMapping {
        &self.response
    }

    /// Redacts in messages what was sent.
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
