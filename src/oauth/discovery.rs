//! Where an issuer says that its token endpoint is (OpenID Connect Discovery 1.0, 4; RFC 8414).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::fmt;
use std::str::FromStr;
use url::Url;

/// An issuer identifier (RFC 8414, 2). Compared as the text that it is (RFC 8414, 3.3; RFC 3986, 6.2.1): whether it
/// ends in a slash makes a difference.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Issuer {
    text: String,
    url: Url,
}

/// Why a text is no [`Issuer`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no issuer: {problem}")]
pub struct IssuerError {
    text: String,
    problem: &'static str,
}

impl Issuer {
    /// As a URL; where no metadata is.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// As it was written.
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
