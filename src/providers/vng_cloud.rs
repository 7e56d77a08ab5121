//! VNG Cloud (GreenNode) IAM, for vStorage and other services.
//! <https://docs.vngcloud.vn/vng-cloud-document/vn/identity-and-access-management>

use super::description::Description;
use super::spec_error::SpecError;
use super::values::parse_url;
use token_endpoint::{BasicEncoding, ClientAuthentication, Encoding, Grant, RequestDescription};
use tokensource_api::VngCloud;

const TOKEN_URL: &str = "https://iamapis.vngcloud.vn/accounts-api/v2/auth/token";

/// JSON, with id and secret (UUIDs) unencoded in HTTP Basic. The scope is always sent.
pub(super) fn describe(spec: &VngCloud) -> Result<Description, SpecError> {
    let token_url = spec.token_url.as_deref().unwrap_or(TOKEN_URL);
    Ok(Description::new(
        "vngCloud",
        RequestDescription {
            encoding: Encoding::Json,
            scopes: spec.scopes.clone().unwrap_or_else(|| vec!["email".into()]),
            ..RequestDescription::new(
                parse_url("spec.provider.vngCloud.tokenURL", token_url)?,
                Grant::ClientCredentials,
                ClientAuthentication::Basic(BasicEncoding::Raw),
            )
        },
    ))
}
