//! From a description and credentials to the bytes of a token request (RFC 6749, 4.4.2, 4.5 and 6; RFC 7521, 4;
//! RFC 8693, 2.1; RFC 8707, 2).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::assertion::{ASSERTION_LIFETIME, Assertion, Attempt, RESERVED_CLAIMS};
use super::certificate::{Outline, thumbprint};
use super::credentials::{Credential, Credentials};
use super::discovery::Issuer;
use super::grant::{BasicEncoding, ClientAuthentication, Grant, JwtBearer, PrivateKeyJwt, TokenExchange};
use super::headers::is_refused_header;
use super::key::{KeyError, PrivateKey, unfold};
use super::mapping::ResponseMapping;
use super::redact::{Redactor, percent_encode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret, SecretString};
use std::borrow::Cow;
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

    fn write(
        &self,
        credentials: &Credentials,
        attempt: Option<&Attempt>,
    ) -> Result<TokenRequest, RequestError> {
        if !self.token_url.username().is_empty() || self.token_url.password().is_some() {
            return Err(RequestError::UserInfoInUrl);
        }
        if self.issuer.as_ref().is_some_and(|issuer| *issuer.url() == self.token_url) {
            return Err(RequestError::NotDiscovered);
        }
        let key = if self.signs() { Some(PrivateKey::read(credentials.private_key()?)?) } else { None };
        let signer = match (&key, attempt) {
            (Some(key), Some(attempt)) => Some(Signer { description: self, credentials, key, attempt }),
            (Some(_), None) => return Err(RequestError::NotAnAttempt),
            (None, _) => None,
        };
        let mut draft = Draft::default();
        draft.headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        self.write_grant(&mut draft, credentials, signer.as_ref())?;
        self.write_client(&mut draft, credentials, signer.as_ref())?;
        self.write_target(&mut draft, signer.as_ref())?;
        self.write_parameters(&mut draft, credentials)?;
        self.write_headers(&mut draft, credentials)?;

        let (content_type, body) = match self.encoding {
            Encoding::Form => ("application/x-www-form-urlencoded", form(&draft.members)),
            Encoding::Json => ("application/json", json(&draft.members)),
        };
        draft.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        Ok(TokenRequest {
            url: self.token_url.clone(),
            headers: draft.headers,
            body: body.into(),
            sent: draft.sent,
            spends_credential: self.grant == Grant::RefreshToken,
            encoded_differs: draft.encoded_differs,
            response: self.response.clone(),
        })
    }

    fn write_grant<'a>(
        &'a self,
        draft: &mut Draft<'a>,
        credentials: &'a Credentials,
        signer: Option<&Signer<'a>>,
    ) -> Result<(), RequestError> {
        match &self.grant {
            Grant::ClientCredentials => draft.plain("grant_type", "client_credentials"),
            Grant::RefreshToken => {
                draft.plain("grant_type", "refresh_token");
                draft.secret("refresh_token", credentials.refresh_token()?);
            }
            Grant::JwtBearer(grant) => {
                draft.plain("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
                let signer = signer.ok_or(RequestError::NotAnAttempt)?;
                draft.secret("assertion", signer.grant(grant)?);
            }
            Grant::TokenExchange(exchange) => {
                let TokenExchange { subject_token_type, actor_token_type, requested_token_type } = exchange;
                draft.plain("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange");
                draft.secret("subject_token", credentials.subject_token()?);
                draft.plain("subject_token_type", subject_token_type);
                if let Some(actor_token_type) = actor_token_type {
                    draft.secret("actor_token", credentials.actor_token()?);
                    draft.plain("actor_token_type", actor_token_type);
                }
                if let Some(requested) = requested_token_type {
                    draft.plain("requested_token_type", requested);
                }
            }
            Grant::Custom { grant_type } => draft.plain("grant_type", grant_type),
        }
        Ok(())
    }

    fn write_client<'a>(
        &'a self,
        draft: &mut Draft<'a>,
        credentials: &'a Credentials,
        signer: Option<&Signer<'a>>,
    ) -> Result<(), RequestError> {
        match &self.client_authentication {
            ClientAuthentication::Basic(encoding) => {
                let (id, secret) = (credentials.client_id()?, credentials.client_secret()?);
                let pair = match encoding {
                    BasicEncoding::Percent => {
                        let pair = [percent_encode(id), percent_encode(secret)].join(":");
                        draft.encoded_differs = pair.len() != id.len() + 1 + secret.len();
                        pair
                    }
                    BasicEncoding::Raw if id.contains(':') => return Err(RequestError::ColonInClientId),
                    BasicEncoding::Raw => [id, secret].join(":"),
                };
                draft.headers.insert(AUTHORIZATION, basic(&pair));
                draft.sent.add_name(id);
                draft.sent.add(secret);
                draft.sent.add(&pair);
            }
            ClientAuthentication::Post => {
                draft.name("client_id", credentials.client_id()?);
                draft.secret("client_secret", credentials.client_secret()?);
            }
            ClientAuthentication::None => {
                if let Ok(id) = credentials.client_id() {
                    draft.name("client_id", id);
                }
            }
            ClientAuthentication::PrivateKeyJwt(method) => {
                draft.name("client_id", credentials.client_id()?);
                // RFC 7523, 2.2
                draft
                    .plain("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
                let signer = signer.ok_or(RequestError::NotAnAttempt)?;
                draft.secret("client_assertion", signer.client(method)?);
            }
            ClientAuthentication::Tls => draft.name("client_id", credentials.client_id()?),
        }
        Ok(())
    }

    /// Audience, resources and scope are no secrets: a server that names the scope it refuses helps.
    fn write_target<'a>(
        &'a self,
        draft: &mut Draft<'a>,
        signer: Option<&Signer<'a>>,
    ) -> Result<(), RequestError> {
        if let Some(audience) = &self.audience {
            draft.plain("audience", audience);
        }
        for resource in &self.resources {
            if resource.contains('#') || Url::parse(resource).is_err() {
                return Err(RequestError::Resource(resource.clone()));
            }
            draft.plain("resource", resource);
        }
        let in_the_assertion = signer.is_some_and(|signer| signer.claims_scope());
        let scope = self.scopes.join(" ");
        if !scope.is_empty() && !in_the_assertion {
            draft.plain("scope", scope);
        }
        Ok(())
    }

    fn write_parameters<'a>(
        &'a self,
        draft: &mut Draft<'a>,
        credentials: &'a Credentials,
    ) -> Result<(), RequestError> {
        let mut parameters: BTreeMap<&str, &str> =
            self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        for (name, key) in &self.secret_parameters {
            if parameters.insert(name, credentials.value(key)?).is_some() {
                return Err(RequestError::Reserved(name.clone()));
            }
        }
        for (name, value) in parameters {
            if is_reserved(name) {
                return Err(RequestError::Reserved(name.to_owned()));
            }
            draft.secret(name, value);
        }
        Ok(())
    }

    fn write_headers(&self, draft: &mut Draft<'_>, credentials: &Credentials) -> Result<(), RequestError> {
        let mut all: Vec<(&String, &str, bool)> =
            self.headers.iter().map(|(name, value)| (name, value.as_str(), false)).collect();
        for (name, key) in &self.secret_headers {
            all.push((name, credentials.value(key)?, true));
        }
        for (name, value, is_secret) in all {
            if is_refused_header(name) {
                return Err(RequestError::RefusedHeader(name.clone()));
            }
            let header = HeaderName::try_from(name).map_err(|_| RequestError::RefusedHeader(name.clone()))?;
            let mut written =
                HeaderValue::try_from(value).map_err(|_| RequestError::HeaderValue(name.clone()))?;
            written.set_sensitive(is_secret);
            if is_secret {
                draft.sent.add(value);
            } else {
                draft.sent.add_name(value);
            }
            draft.headers.insert(header, written);
        }
        Ok(())
    }
}

/// A request while it is written.
#[derive(Default)]
struct Draft<'a> {
    headers: HeaderMap,
    members: Vec<(&'a str, Cow<'a, str>)>,
    sent: Redactor,
    encoded_differs: bool,
}

impl<'a> Draft<'a> {
    fn plain(&mut self, name: &'a str, value: impl Into<Cow<'a, str>>) {
        self.members.push((name, value.into()));
    }

    /// Whatever the server says of the client, it is not repeated.
    fn name(&mut self, name: &'a str, value: impl Into<Cow<'a, str>>) {
        let value = value.into();
        self.sent.add_name(&value);
        self.members.push((name, value));
    }

    /// The same of a secret.
    fn secret(&mut self, name: &'a str, value: impl Into<Cow<'a, str>>) {
        let value = value.into();
        self.sent.add(&value);
        self.members.push((name, value));
    }
}

/// Everything that an assertion is made of.
struct Signer<'a> {
    description: &'a RequestDescription,
    credentials: &'a Credentials,
    key: &'a PrivateKey,
    attempt: &'a Attempt,
}

impl Signer<'_> {
    /// RFC 7523, 2.1.
    fn grant(&self, grant: &JwtBearer) -> Result<String, RequestError> {
        let google = self.key.google();
        let mut claims = grant.claims.clone();
        if let Some(name) = claims.keys().find(|name| RESERVED_CLAIMS.contains(&name.as_str())) {
            return Err(RequestError::ReservedClaim(name.clone()));
        }
        if self.claims_scope() {
            claims.insert("scope".into(), self.description.scopes.join(" ").into());
        }
        let issuer = match (&grant.issuer, google) {
            (Some(issuer), _) => issuer,
            (None, Some(google)) => &google.client_email,
            (None, None) => self.credentials.client_id()?,
        };
        let assertion = Assertion {
            issuer,
            subject: grant.subject.as_deref(),
            audience: grant.audience.as_deref().unwrap_or_else(|| self.audience()),
            lifetime: grant.lifetime,
            // Another one than that of the client's assertion in the same request.
            jti: format!("{}-grant", self.attempt.jti),
            claims,
            key_id: grant.key_id.as_deref().or(google.and_then(|google| google.private_key_id.as_deref())),
            thumbprint: None,
        };
        Ok(assertion.sign(self.key, grant.algorithm, self.attempt.now)?)
    }

    /// RFC 7523, 2.2 and 3: `iss` and `sub` are the client.
    fn client(&self, method: &PrivateKeyJwt) -> Result<String, RequestError> {
        let client_id = self.credentials.client_id()?;
        let assertion = Assertion {
            issuer: client_id,
            subject: Some(client_id),
            audience: method.audience.as_deref().unwrap_or_else(|| self.audience()),
            lifetime: ASSERTION_LIFETIME,
            jti: self.attempt.jti.clone(),
            claims: serde_json::Map::new(),
            key_id: method.key_id.as_deref(),
            thumbprint: if method.certificate { Some(self.thumbprint()?) } else { None },
        };
        Ok(assertion.sign(self.key, method.algorithm, self.attempt.now)?)
    }

    fn audience(&self) -> &str {
        let token_url = self.description.token_url.as_str();
        self.description.issuer.as_ref().map_or(token_url, Issuer::as_str)
    }

    /// Google reads scopes in the assertion, and nowhere else.
    fn claims_scope(&self) -> bool {
        matches!(self.description.grant, Grant::JwtBearer(_))
            && self.key.google().is_some()
            && !self.description.scopes.is_empty()
    }

    fn thumbprint(&self) -> Result<String, RequestError> {
        let pem = unfold(self.credentials.certificate()?);
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|_| RequestError::Certificate("is not PEM of a certificate"))?;
        let outline = Outline::read(&certificate).ok_or(RequestError::Certificate("is damaged"))?;
        if outline.public_key != self.key.public()?.as_slice() {
            return Err(RequestError::Certificate("is not that of the private key"));
        }
        Ok(thumbprint(&certificate))
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

fn basic(pair: &str) -> HeaderValue {
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair)))
        .unwrap_or_else(|_| unreachable!("base64 is made of header characters"));
    value.set_sensitive(true);
    value
}

fn form(members: &[(&str, Cow<'_, str>)]) -> String {
    let pairs: Vec<String> =
        members.iter().map(|(name, value)| [percent_encode(name), percent_encode(value)].join("=")).collect();
    pairs.join("&")
}

/// An object with its members in order, which a map type would sort. What comes several times (`resource`) is an array.
fn json(members: &[(&str, Cow<'_, str>)]) -> String {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let pairs: Vec<String> = members
        .chunk_by(|one, next| one.0 == next.0)
        .filter_map(|same| {
            let values: Vec<String> = same.iter().map(|(_, value)| quote(value)).collect();
            let value = values.join(",");
            let (name, _) = same.first()?;
            Some(if values.len() == 1 {
                format!("{}:{value}", quote(name))
            } else {
                format!("{}:[{value}]", quote(name))
            })
        })
        .collect();
    format!("{{{}}}", pairs.join(","))
}
