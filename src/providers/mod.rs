//! Turns `spec.provider` into the description of a token request: one file for each provider. Pure.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod credentials;
mod description;
mod github_app;
mod oauth2;
mod service_account;
mod spec_error;
mod stored_value;
mod values;
mod vgs;
mod vmware_cloud_director;
mod vng_cloud;

use tokensource_api::{self as api, TokenSourceSpec};

pub use credentials::{
    CredentialsError, ReadCredentials, needs_only_assertions, needs_only_refresh_token, read_credentials,
};
pub use description::{Description, NamedKeys, ServiceAccountUse};
pub use service_account::{add_token, is_audience};
pub use spec_error::SpecError;
pub use values::parse_seconds;

/// Derives the token request from a spec.
///
/// # Errors
/// The spec violates a rule that the API server applies, or contains a URL that only the API server's parser accepts.
pub fn describe(spec: &TokenSourceSpec) -> Result<Description, SpecError> {
    let provider = &spec.provider;
    let api::Provider { vgs, vng_cloud, vmware_cloud_director, git_hub_app, oauth2 } = provider;
    let description = match (vgs, vng_cloud, vmware_cloud_director, git_hub_app, oauth2) {
        (Some(vgs), None, None, None, None) => vgs::describe(vgs),
        (None, Some(vng_cloud), None, None, None) => vng_cloud::describe(vng_cloud),
        (None, None, Some(vcd), None, None) => vmware_cloud_director::describe(vcd),
        (None, None, None, Some(app), None) => github_app::describe(app),
        (None, None, None, None, Some(oauth2)) => oauth2::describe(oauth2),
        _ => Err(SpecError::Provider),
    }?;
    let service_account = service_account::service_account(spec, &description)?;
    Ok(Description { service_account, ..description })
}

#[cfg(test)]
mod tests;
