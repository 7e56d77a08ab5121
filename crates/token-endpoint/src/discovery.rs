//! The token endpoint in an issuer's metadata (OpenID Connect Discovery 1.0, 4; RFC 8414).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::error::DiscoveryProblem;
use super::json::parse;
use super::limits::MAX_ENDPOINT;
use super::redact::Redactor;
use http::StatusCode;
use serde_json::Value;
use std::fmt;
use std::str::FromStr;
use url::Url;

/// An issuer identifier (RFC 8414, 2). Issuers are compared as text (RFC 8414, 3.3; RFC 3986, 6.2.1), so that a slash at the
/// end makes a difference.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Issuer {
    text: String,
    url: Url,
}

/// A text is not an [`Issuer`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no issuer: {problem}")]
pub struct IssuerError {
    text: String,
    problem: &'static str,
}

impl Issuer {
    /// The identifier as a URL. The metadata is not there but under `/.well-known/`.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The text from which it was parsed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Issuer {
    type Err = IssuerError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |problem| IssuerError { text: text.to_owned(), problem };
        let url = Url::parse(text).map_err(|_| error("write a URL such as https://idp.example.com"))?;
        if !matches!(url.scheme(), "https" | "http") || url.host().is_none() {
            return Err(error("write a URL such as https://idp.example.com"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(error("it must have neither query nor fragment (RFC 8414, 2)"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(error("it must not hold a user name or a password"));
        }
        Ok(Self { text: text.to_owned(), url })
    }
}

impl Issuer {
    /// The locations of its metadata, in the order in which they are tried: OpenID Connect appends to the path (Discovery 1.0,
    /// 4), RFC 8414, 3.1 puts the path at the end; both without a slash at its end.
    pub(super) fn locations(&self) -> [Url; 2] {
        let path = self.url.path().trim_end_matches('/');
        [
            format!("{path}/.well-known/openid-configuration"),
            format!("/.well-known/oauth-authorization-server{path}"),
        ]
        .map(|location| {
            let mut url = self.url.clone();
            url.set_path(&location);
            url
        })
    }
}

/// The members of an issuer's metadata (RFC 8414, 2) that this client uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    token_endpoint: Url,
    /// `mtls_endpoint_aliases` (RFC 8705, 5).
    mtls_token_endpoint: Option<Url>,
}

impl Metadata {
    /// The token endpoint for clients with a certificate or without one.
    pub(super) fn token_endpoint(&self, has_client_certificate: bool) -> &Url {
        self.mtls_token_endpoint.as_ref().filter(|_| has_client_certificate).unwrap_or(&self.token_endpoint)
    }
}

/// Reads the answer from one of the [`Issuer::locations`].
pub(super) fn read_metadata(
    issuer: &Issuer,
    status: StatusCode,
    body: Option<&[u8]>,
) -> Result<Metadata, DiscoveryProblem> {
    let document = body.filter(|_| status.is_success()).and_then(parse);
    let document = document.ok_or(DiscoveryProblem::NotFound(status))?;
    let named = document.get("issuer").and_then(Value::as_str);
    if named != Some(issuer.as_str()) {
        let named = named.and_then(|named| Redactor::default().clean_identifier(named));
        return Err(DiscoveryProblem::OtherIssuer(named));
    }
    let endpoint = |value: Option<&Value>| {
        let url = Url::parse(value?.as_str().filter(|url| url.len() <= MAX_ENDPOINT)?).ok()?;
        (url.has_host() && url.username().is_empty() && url.password().is_none()).then_some(url)
    };
    Ok(Metadata {
        token_endpoint: endpoint(document.get("token_endpoint")).ok_or(DiscoveryProblem::NoTokenEndpoint)?,
        mtls_token_endpoint: endpoint(document.pointer("/mtls_endpoint_aliases/token_endpoint")),
    })
}
