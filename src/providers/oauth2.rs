//! Any OAuth 2.0 token endpoint (RFC 6749).

use super::{Description, SpecError, description, parse_url};
use crate::api;
use crate::oauth::{BasicEncoding, ClientAuthentication, Encoding, Grant, RequestDescription};

pub(super) fn describe(spec: &api::OAuth2) -> Result<Description, SpecError> {
    let grant = match &spec.grant {
        Some(grant) if grant.refresh_token.is_some() => Grant::RefreshToken,
        _ => Grant::ClientCredentials,
    };
    Ok(description(
        "oauth2",
        RequestDescription {
            encoding: match spec.request_encoding.unwrap_or_default() {
                api::RequestEncoding::Form => Encoding::Form,
                api::RequestEncoding::Json => Encoding::Json,
            },
            scopes: spec.scopes.clone().unwrap_or_default(),
            parameters: spec.parameters.clone().unwrap_or_default(),
            ..RequestDescription::new(
                parse_url("spec.provider.oauth2.tokenURL", &spec.token_url)?,
                grant,
                client_authentication(spec.client_authentication.as_ref()),
            )
        },
    ))
}

fn client_authentication(spec: Option<&api::ClientAuthentication>) -> ClientAuthentication {
    match spec {
        Some(api::ClientAuthentication { post: Some(_), .. }) => ClientAuthentication::Post,
        Some(api::ClientAuthentication { none: Some(_), .. }) => ClientAuthentication::None,
        Some(api::ClientAuthentication { basic: Some(basic), .. }) => {
            ClientAuthentication::Basic(match basic.encoding.unwrap_or_default() {
                api::BasicEncoding::Percent => BasicEncoding::Percent,
                api::BasicEncoding::Raw => BasicEncoding::Raw,
            })
        }
        _ => ClientAuthentication::Basic(BasicEncoding::Percent),
    }
}
