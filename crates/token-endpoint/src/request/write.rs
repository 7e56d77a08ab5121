//! Writes the members and headers of a request.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::signer::Signer;
use super::{Encoding, RequestDescription, TokenRequest, github, is_reserved};
use crate::assertion::Attempt;
use crate::credentials::Credentials;
use crate::error::RequestError;
use crate::grant::{BasicEncoding, ClientAuthentication, GitHubApp, Grant, TokenExchange};
use crate::headers::is_refused_header;
use crate::key::PrivateKey;
use crate::lifetime::expiry;
use crate::limits::{MAX_REQUEST_BODY, MAX_REQUEST_HEADERS};
use crate::redact::{Redactor, percent_encode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use secrecy::ExposeSecret as _;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use url::Url;

impl RequestDescription {
    pub(super) fn write(
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
        if let (Grant::GitHubApp(app), Some(signer)) = (&self.grant, &signer) {
            return self.write_for_github(app, signer);
        }
        let mut draft = Draft::default();
        for stored in credentials.stored.values() {
            draft.sent.add_name(stored.expose_secret());
        }
        draft.headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        self.write_grant(&mut draft, credentials, attempt, signer.as_ref())?;
        self.write_client(&mut draft, credentials, attempt, signer.as_ref())?;
        self.write_target(&mut draft, signer.as_ref())?;
        self.write_parameters(&mut draft, credentials)?;
        self.write_headers(&mut draft, credentials)?;

        let (content_type, body) = match self.encoding {
            Encoding::Form => ("application/x-www-form-urlencoded", draft.body(form)?),
            Encoding::Json => ("application/json", draft.body(json)?),
        };
        draft.headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        check_headers(&draft.headers)?;
        Ok(TokenRequest {
            url: self.token_url.clone(),
            headers: draft.headers,
            body: Arc::new(body.into()),
            sent: draft.sent,
            spends_credential: self.grant == Grant::RefreshToken,
            encoded_differs: draft.encoded_differs,
            is_by_grant_alone: self.client_authentication == ClientAuthentication::None && !self.signs(),
            is_for_github: false,
            response: self.response.clone(),
        })
    }

    fn write_for_github(&self, app: &GitHubApp, signer: &Signer<'_>) -> Result<TokenRequest, RequestError> {
        let assertion = github::assertion(signer)?;
        let (mut headers, mut sent) = (HeaderMap::new(), Redactor::default());
        github::set_headers(&mut headers, assertion.expose_secret())?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        sent.add(assertion.expose_secret());
        sent.add_name(signer.credentials.client_id()?);
        check_headers(&headers)?;
        Ok(TokenRequest {
            url: self.token_url.clone(),
            headers,
            body: Arc::new(github::body(app).into()),
            sent,
            spends_credential: false,
            encoded_differs: false,
            is_by_grant_alone: false,
            is_for_github: true,
            response: self.response.clone(),
        })
    }

    fn write_grant<'a>(
        &'a self,
        draft: &mut Draft<'a>,
        credentials: &'a Credentials,
        attempt: Option<&Attempt>,
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
            Grant::Assertion => {
                draft.plain("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer");
                let assertion = credentials.assertion()?;
                check_alive(assertion, attempt)?;
                draft.secret("assertion", assertion);
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
            // Written by itself.
            Grant::GitHubApp(_) => return Err(RequestError::NotAnAttempt),
            Grant::Custom { grant_type, assertion } => {
                draft.plain("grant_type", grant_type);
                if let Some(name) = assertion {
                    if is_reserved(name) {
                        return Err(RequestError::Reserved(name.clone()));
                    }
                    let assertion = credentials.assertion()?;
                    check_alive(assertion, attempt)?;
                    draft.secret(name, assertion);
                }
            }
        }
        Ok(())
    }

    fn write_client<'a>(
        &'a self,
        draft: &mut Draft<'a>,
        credentials: &'a Credentials,
        attempt: Option<&Attempt>,
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
                check_headers(&draft.headers)?;
                draft.sent.add_name(id);
                draft.sent.add(secret);
                draft.sent.add(&pair);
            }
            ClientAuthentication::Post => {
                draft.name("client_id", credentials.client_id()?);
                draft.secret("client_secret", credentials.client_secret()?);
            }
            ClientAuthentication::None => {
                if let Some(id) = credentials.client_id_if_any()? {
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
            ClientAuthentication::Assertion { assertion_type } => {
                if let Some(id) = credentials.client_id_if_any()? {
                    draft.name("client_id", id);
                }
                let assertion = credentials.client_assertion()?;
                check_alive(assertion, attempt)?;
                draft.plain("client_assertion_type", assertion_type);
                draft.secret("client_assertion", assertion);
            }
            ClientAuthentication::Tls => draft.name("client_id", credentials.client_id()?),
        }
        Ok(())
    }

    /// Audience, resources and scope are not redacted in messages: the name of a refused scope helps users.
    fn write_target<'a>(
        &'a self,
        draft: &mut Draft<'a>,
        signer: Option<&Signer<'a>>,
    ) -> Result<(), RequestError> {
        if let Some(audience) = &self.audience {
            draft.sent.add_plain(audience);
            draft.plain("audience", audience);
        }
        for resource in &self.resources {
            let is_uri = !resource.contains('#') && Url::parse(resource).is_ok();
            if !is_uri && !is_guid(resource) {
                return Err(RequestError::Resource(resource.clone()));
            }
            draft.sent.add_plain(resource);
            draft.plain("resource", resource);
        }
        let in_assertion = signer.is_some_and(|signer| signer.claims_scope());
        let scope = self.scopes.join(" ");
        draft.sent.add_plain(&scope);
        if !scope.is_empty() && !in_assertion {
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
            if is_reserved(name) || self.grant.sends_assertion_as(name) {
                return Err(RequestError::Reserved(name.to_owned()));
            }
            if self.secret_parameters.contains_key(name) {
                draft.secret(name, value);
            } else {
                draft.name(name, value);
            }
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
            draft.headers.insert(header, written);
            check_headers(&draft.headers)?;
            if is_secret {
                draft.sent.add(value);
            } else {
                draft.sent.add_name(value);
            }
        }
        Ok(())
    }
}

/// A request that is being written.
#[derive(Default)]
struct Draft<'a> {
    headers: HeaderMap,
    members: Vec<(&'a str, Cow<'a, str>)>,
    /// Of all members, also of those that were left out because they are too many.
    bytes: usize,
    /// The longest member, and its bytes.
    longest: (&'a str, usize),
    sent: Redactor,
    encoded_differs: bool,
}

impl<'a> Draft<'a> {
    /// Adds a member that may appear in messages.
    fn plain(&mut self, name: &'a str, value: impl Into<Cow<'a, str>>) {
        self.push(name, value.into(), |_, _| {});
    }

    /// Adds a member that is redacted in messages.
    fn name(&mut self, name: &'a str, value: impl Into<Cow<'a, str>>) {
        self.push(name, value.into(), Redactor::add_name);
    }

    /// Adds a secret, which is redacted in messages and not allowed in mapped values.
    fn secret(&mut self, name: &'a str, value: impl Into<Cow<'a, str>>) {
        self.push(name, value.into(), Redactor::add);
    }

    /// Keeps no more than a body may have: one value may be that of many parameters.
    fn push(&mut self, name: &'a str, value: Cow<'a, str>, redact: impl FnOnce(&mut Redactor, &str)) {
        let bytes = name.len() + value.len();
        self.bytes = self.bytes.saturating_add(bytes);
        if bytes > self.longest.1 {
            self.longest = (name, bytes);
        }
        if self.bytes <= MAX_REQUEST_BODY {
            redact(&mut self.sent, &value);
            self.members.push((name, value));
        }
    }

    fn body(
        &self,
        encode: impl FnOnce(&[(&str, Cow<'_, str>)]) -> Option<String>,
    ) -> Result<String, RequestError> {
        let body = if self.bytes <= MAX_REQUEST_BODY { encode(&self.members) } else { None };
        body.ok_or_else(|| RequestError::LongBody(self.longest.0.to_owned()))
    }
}

/// The bytes of a header in a request: name, colon, space, value and line break.
fn header_length(name: &HeaderName, value: &HeaderValue) -> usize {
    name.as_str().len() + value.len() + 4
}

fn check_headers(headers: &HeaderMap) -> Result<(), RequestError> {
    let lengths = || headers.iter().map(|(name, value)| (header_length(name, value), name));
    if lengths().map(|(length, _)| length).sum::<usize>() <= MAX_REQUEST_HEADERS {
        return Ok(());
    }
    let longest = lengths().max_by_key(|(length, _)| *length);
    Err(RequestError::LongHeaders(longest.map(|(_, name)| name.to_string()).unwrap_or_default()))
}

/// Refuses an assertion whose time is over: the endpoint would count a failed login. One that is no JWT is not judged.
fn check_alive(assertion: &str, attempt: Option<&Attempt>) -> Result<(), RequestError> {
    let ends = attempt.and_then(|attempt| Some(attempt.now.as_second() - expiry(assertion)?));
    match ends.and_then(|ended_for| u64::try_from(ended_for).ok()) {
        Some(ended_for) => Err(RequestError::ExpiredAssertion(ended_for)),
        None => Ok(()),
    }
}

/// The id of an application: Microsoft Entra and AD FS take it in place of a URI.
fn is_guid(text: &str) -> bool {
    let groups =
        text.split('-').map(|group| group.bytes().all(|b| b.is_ascii_hexdigit()).then_some(group.len()));
    groups.eq([8, 4, 4, 4, 12].map(Some))
}

fn basic(pair: &str) -> HeaderValue {
    let mut value = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair)))
        .unwrap_or_else(|_| unreachable!("base64 has only characters that a header may hold"));
    value.set_sensitive(true);
    value
}

/// `None`: it would have more than [`MAX_REQUEST_BODY`] bytes.
fn form(members: &[(&str, Cow<'_, str>)]) -> Option<String> {
    let mut form = String::new();
    for (name, value) in members {
        let separator = if form.is_empty() { "" } else { "&" };
        form.extend([separator, &percent_encode(name), "=", &percent_encode(value)]);
        if form.len() > MAX_REQUEST_BODY {
            return None;
        }
    }
    Some(form)
}

/// An object with its members in order, which a map type would sort. A member with several values (`resource`) is an array.
/// `None`: it would have more than [`MAX_REQUEST_BODY`] bytes.
fn json(members: &[(&str, Cow<'_, str>)]) -> Option<String> {
    let quote = |text: &str| serde_json::Value::from(text).to_string();
    let mut json = "{".to_owned();
    for same in members.chunk_by(|one, next| one.0 == next.0) {
        let Some((name, _)) = same.first() else { continue };
        let is_array = same.len() > 1;
        let separator = if json.len() > 1 { "," } else { "" };
        json.extend([separator, &quote(name), ":", if is_array { "[" } else { "" }]);
        for (at, (_, value)) in same.iter().enumerate() {
            json.extend([if at > 0 { "," } else { "" }, &quote(value)]);
            if json.len() > MAX_REQUEST_BODY {
                return None;
            }
        }
        json.push_str(if is_array { "]" } else { "" });
    }
    json.push('}');
    (json.len() <= MAX_REQUEST_BODY).then_some(json)
}
