//! From a description and credentials to the bytes of a token request (RFC 6749, 4.4.2 and 6).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::redact::{Redactor, percent_encode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
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
    /// The token endpoint (RFC 6749, 3.2). It may have a query, but no user name or password.
    pub token_url: Url,
    /// How the token is earned.
    pub grant: Grant,
    /// How the client says who it is.
    pub client_authentication: ClientAuthentication,
    /// How the body is written.
    pub encoding: Encoding,
    /// Joined with spaces into `scope`; none: no such member.
    pub scopes: Vec<String>,
    /// Further members of the body, written last. Names in [`RESERVED`] are refused.
    pub parameters: BTreeMap<String, String>,
}

/// The authorization grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// RFC 6749, 4.4.
    ClientCredentials,
    /// RFC 6749, 6.
    RefreshToken,
}

/// Client authentication (RFC 6749, 2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// HTTP Basic (RFC 6749, 2.3.1).
    Basic(BasicEncoding),
    /// `client_id` and `client_secret` in the body (RFC 6749, 2.3.1).
    Post,
    /// A public client: `client_id` in the body if there is one (VMware Cloud Director has none).
    None,
}

/// How id and secret are written before base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BasicEncoding {
    /// Percent-encoded, as RFC 6749, 2.3.1 demands.
    Percent,
    /// As they are (RFC 7617), for servers that do not decode.
    Raw,
}

/// How the body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `application/x-www-form-urlencoded`, as RFC 6749 demands.
    Form,
    /// One JSON object of strings, as VNG Cloud takes it.
    Json,
}

/// What a request may need to know from a Secret. All that a [`RequestDescription`] does not need is ignored.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The client identifier (RFC 6749, 2.2).
    pub client_id: Option<String>,
    /// The client's password.
    pub client_secret: Option<SecretString>,
    /// For [`Grant::RefreshToken`].
    pub refresh_token: Option<SecretString>,
}

impl Credentials {
    /// Whether a text from a server repeats the client's secret or the refresh token.
    #[must_use]
    pub fn are_told_in(&self, text: &str) -> bool {
        [&self.client_secret, &self.refresh_token]
            .into_iter()
            .flatten()
            .any(|secret| !secret.expose_secret().is_empty() && text.contains(secret.expose_secret()))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn shown<T>(value: Option<&T>) -> &'static str {
            if value.is_some() { "[redacted]" } else { "none" }
        }
        f.debug_struct("Credentials")
            .field("client_id", &shown(self.client_id.as_ref()))
            .field("client_secret", &shown(self.client_secret.as_ref()))
            .field("refresh_token", &shown(self.refresh_token.as_ref()))
            .finish()
    }
}

/// One of the [`Credentials`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// [`Credentials::client_id`].
    ClientId,
    /// [`Credentials::client_secret`].
    ClientSecret,
    /// [`Credentials::refresh_token`].
    RefreshToken,
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credential::ClientId => "client id",
            Credential::ClientSecret => "client secret",
            Credential::RefreshToken => "refresh token",
        })
    }
}

/// Why no request can be made of a description and credentials.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The description needs a credential that is absent or empty.
    #[error("the request needs a {0}, and the credentials hold none")]
    Missing(Credential),
    /// `parameters` names a member of [`RESERVED`].
    #[error("the parameter {0:?} is reserved: the operator writes it by itself")]
    Reserved(String),
    /// RFC 7617, 2: the server would split such an id at its colon, and count a failed login.
    #[error(
        "the client id has a colon, which Basic authentication with encoding Raw cannot carry: use encoding Percent, or post"
    )]
    ColonInClientId,
    /// An HTTP client would turn them into an Authorization header of its own.
    #[error("the token URL must not hold a user name or a password")]
    UserInfoInUrl,
}

impl RequestDescription {
    /// Writes the request: `grant_type`, the grant's members, `client_id`, `client_secret`, `scope`, then the
    /// parameters by name. The same input gives the same bytes.
    ///
    /// # Errors
    /// A credential is missing, a parameter is reserved, or something cannot be expressed.
    pub fn request(&self, credentials: &Credentials) -> Result<TokenRequest, RequestError> {
        if !self.token_url.username().is_empty() || self.token_url.password().is_some() {
            return Err(RequestError::UserInfoInUrl);
        }
        if let Some(name) = self.parameters.keys().find(|name| is_reserved(name)) {
            return Err(RequestError::Reserved(name.clone()));
        }
        let id = || present(credentials.client_id.as_deref(), Credential::ClientId);
        let secret = || expose(credentials.client_secret.as_ref(), Credential::ClientSecret);

        let mut sent = Redactor::default();
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let mut encoded_differs = false;
        let mut members: Vec<(&str, &str)> = Vec::new();

        match self.grant {
            Grant::ClientCredentials => members.push(("grant_type", "client_credentials")),
            Grant::RefreshToken => {
                let token = expose(credentials.refresh_token.as_ref(), Credential::RefreshToken)?;
                sent.add(token);
                members.extend([("grant_type", "refresh_token"), ("refresh_token", token)]);
            }
        }
        match self.client_authentication {
            ClientAuthentication::Basic(encoding) => {
                let (id, secret) = (id()?, secret()?);
                let pair = match encoding {
                    BasicEncoding::Percent => {
                        let pair = [percent_encode(id), percent_encode(secret)].join(":");
                        encoded_differs = pair.len() != id.len() + 1 + secret.len();
                        pair
                    }
                    BasicEncoding::Raw if id.contains(':') => return Err(RequestError::ColonInClientId),
                    BasicEncoding::Raw => [id, secret].join(":"),
                };
                headers.insert(AUTHORIZATION, basic(&pair));
                sent.add(id);
                sent.add(secret);
                sent.add(&pair);
            }
            ClientAuthentication::Post => {
                let (id, secret) = (id()?, secret()?);
                sent.add(id);
                sent.add(secret);
                members.extend([("client_id", id), ("client_secret", secret)]);
            }
            ClientAuthentication::None => {
                if let Ok(id) = id() {
                    sent.add(id);
                    members.push(("client_id", id));
                }
            }
        }
        let scope = self.scopes.join(" ");
        if !scope.is_empty() {
            members.push(("scope", &scope)); // no secret: a server that names the scope it refuses helps
        }
        for (name, value) in &self.parameters {
            sent.add(value);
            members.push((name, value));
        }

        let (content_type, body) = match self.encoding {
            Encoding::Form => ("application/x-www-form-urlencoded", form(&members)),
            Encoding::Json => ("application/json", json(&members)),
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Ok(TokenRequest {
            url: self.token_url.clone(),
            headers,
            body: body.into(),
            sent,
            grant: self.grant,
            encoded_differs,
        })
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
    grant: Grant,
    encoded_differs: bool,
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
        self.grant == Grant::RefreshToken
    }

    /// Whether Basic authentication changed the id or the secret by percent-encoding, so that a server that does
    /// not decode must reject it.
    pub(super) fn encoded_differs(&self) -> bool {
        self.encoded_differs
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

fn present(value: Option<&str>, which: Credential) -> Result<&str, RequestError> {
    value.filter(|value| !value.is_empty()).ok_or(RequestError::Missing(which))
}

fn expose(value: Option<&SecretString>, which: Credential) -> Result<&str, RequestError> {
    present(value.map(ExposeSecret::expose_secret), which)
}

fn basic(pair: &str) -> HeaderValue {
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair)))
        .unwrap_or_else(|_| unreachable!("base64 is made of header characters"));
    value.set_sensitive(true);
    value
}

fn form(members: &[(&str, &str)]) -> String {
    let pairs: Vec<String> =
        members.iter().map(|(name, value)| [percent_encode(name), percent_encode(value)].join("=")).collect();
    pairs.join("&")
}

/// An object with its members in order, which a map type would sort.
fn json(members: &[(&str, &str)]) -> String {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let pairs: Vec<String> =
        members.iter().map(|(name, value)| [quote(name), quote(value)].join(":")).collect();
    format!("{{{}}}", pairs.join(","))
}
