//! What a spec means: one small file per provider turns it into a description of a token request, and one
//! engine mints for all. Pure.
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

pub use credentials::{CredentialsError, Resolved, needs_only_the_refresh_token, read_credentials};

/// What a spec asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// The provider's name in the spec.
    pub provider: &'static str,
    /// The token request, without any secret.
    pub request: RequestDescription,
    /// The keys of the credentials Secret that the provider's own fields name.
    pub keys: NamedKeys,
    /// `refresh.maxInterval` where the spec does not say, in seconds.
    pub max_interval: u64,
}

/// Keys of the credentials Secret that `spec.credentials` does not name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NamedKeys {
    /// The certificate that an assertion names.
    pub certificate: Option<String>,
    /// The token to exchange.
    pub subject_token: Option<String>,
    /// The token of who acts on the subject's behalf.
    pub actor_token: Option<String>,
}

/// What is wrong with a spec that the API server's rules did not find.
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
        /// What it holds.
        value: String,
        /// What the parser says.
        problem: String,
    },
    /// A value is not what it should be.
    #[error("{field}: {problem}")]
    Invalid {
        /// The field's path.
        field: &'static str,
        /// What is wrong with it, and with which value.
        problem: String,
    },
    /// A duration cannot be parsed.
    #[error("{field}: {value:?} is not a duration; write for example 90s or 1h30m")]
    Duration {
        /// The field's path.
        field: &'static str,
        /// What it holds.
        value: String,
    },
}

impl SpecError {
    /// The reason for conditions.
    #[must_use]
    pub fn reason(&self) -> Reason {
        Reason::SpecInvalid
    }
}

/// Turns a spec into what it asks for.
///
/// # Errors
/// Where the spec is one that the API server's rules refuse, or a URL that they take for one and is none.
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

/// A duration in whole seconds.
///
/// # Errors
/// It is none.
pub fn parse_seconds(field: &'static str, value: &str) -> Result<u64, SpecError> {
    let parsed =
        value.parse::<SignedDuration>().ok().and_then(|duration| u64::try_from(duration.as_secs()).ok());
    parsed.ok_or_else(|| SpecError::Duration { field, value: value.to_owned() })
}

fn parse_url(field: &'static str, value: &str) -> Result<Url, SpecError> {
    Url::parse(value).map_err(|error| SpecError::Url {
        field,
        value: value.to_owned(),
        problem: error.to_string(),
    })
}

#[cfg(test)]
mod tests;
