//! Turns `spec.provider` into the description of a token request: one file for each provider. Pure.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod credentials;
mod oauth2;
mod vgs;
mod vmware_cloud_director;
mod vng_cloud;

use jiff::SignedDuration;
use url::Url;

use crate::refresh::DEFAULT_MAX_INTERVAL;
use token_endpoint::RequestDescription;
use tokensource_api::{Reason, TokenSourceSpec};

pub use credentials::{CredentialsError, ReadCredentials, needs_only_refresh_token, read_credentials};

/// The token request of a spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// The provider's name in the spec.
    pub provider: &'static str,
    /// The token request, without secrets.
    pub request: RequestDescription,
    /// The keys of the credentials Secret that fields of `spec.provider` name.
    pub keys: NamedKeys,
    /// The default of `refresh.maxInterval`, in seconds.
    pub max_interval: u64,
}

/// Keys of the credentials Secret that fields of `spec.provider` name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamedKeys {
    /// The key of the certificate of an assertion (`x5t#S256`).
    pub certificate: Option<String>,
    /// The key of the subject token (RFC 8693).
    pub subject_token: Option<String>,
    /// The key of the actor token (RFC 8693).
    pub actor_token: Option<String>,
}

/// An error in a spec that the validation rules of the API server did not find.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// None or several members of `spec.provider` are set.
    #[error("spec.provider must have exactly one member")]
    Provider,
    /// The URL of the token endpoint cannot be parsed.
    #[error(
        "{field}: {value:?} is not a URL: {problem}; write for example https://idp.example.com/oauth/token"
    )]
    Url {
        /// The field's path.
        field: &'static str,
        /// The field's value.
        value: String,
        /// The parser's error.
        #[source]
        problem: url::ParseError,
    },
    /// A value is invalid.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field's path.
        field: &'static str,
        /// The problem and the value.
        problem: String,
    },
    /// A duration cannot be parsed.
    #[error("{field}: {value:?} is not a duration; write for example 90s or 1h30m")]
    Duration {
        /// The field's path.
        field: &'static str,
        /// The field's value.
        value: String,
    },
}

impl SpecError {
    /// The reason of the condition that reports this error.
    #[must_use]
    pub fn reason(&self) -> Reason {
        Reason::SpecInvalid
    }
}

/// Derives the token request from a spec.
///
/// # Errors
/// The spec violates a rule that the API server applies, or contains a URL that only the API server's parser accepts.
pub fn describe(spec: &TokenSourceSpec) -> Result<Description, SpecError> {
    let provider = &spec.provider;
    match (&provider.vgs, &provider.vng_cloud, &provider.vmware_cloud_director, &provider.oauth2) {
        (Some(vgs), None, None, None) => vgs::describe(vgs),
        (None, Some(vng_cloud), None, None) => vng_cloud::describe(vng_cloud),
        (None, None, Some(vcd), None) => vmware_cloud_director::describe(vcd),
        (None, None, None, Some(oauth2)) => oauth2::describe(oauth2),
        _ => Err(SpecError::Provider),
    }
}

fn description(provider: &'static str, request: RequestDescription) -> Description {
    Description { provider, request, keys: NamedKeys::default(), max_interval: DEFAULT_MAX_INTERVAL }
}

/// Parses a duration into whole seconds.
///
/// # Errors
/// The value is not a duration or is negative.
pub fn parse_seconds(field: &'static str, value: &str) -> Result<u64, SpecError> {
    let parsed =
        value.parse::<SignedDuration>().ok().and_then(|duration| u64::try_from(duration.as_secs()).ok());
    parsed.ok_or_else(|| SpecError::Duration { field, value: value.to_owned() })
}

fn parse_url(field: &'static str, value: &str) -> Result<Url, SpecError> {
    Url::parse(value).map_err(|problem| SpecError::Url { field, value: value.to_owned(), problem })
}

#[cfg(test)]
mod tests;
