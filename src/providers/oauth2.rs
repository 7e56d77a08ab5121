//! Any OAuth 2.0 token endpoint (RFC 6749).

use super::{Description, SpecError, description, parse_url};
use crate::api;
use crate::oauth::{
    BasicEncoding, ClientAuthentication, Encoding, Grant, Pointer, PointerError, RequestDescription,
    ResponseMapping,
};

pub(super) fn describe(spec: &api::OAuth2) -> Result<Description, SpecError> {
    let grant = match &spec.grant {
        Some(api::Grant { refresh_token: Some(_), .. }) => Grant::RefreshToken,
        Some(api::Grant { custom: Some(custom), .. }) => {
            Grant::Custom { grant_type: custom.grant_type.clone() }
        }
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
            audience: spec.audience.clone(),
            resources: spec.resources.clone().unwrap_or_default(),
            parameters: spec.parameters.clone().unwrap_or_default(),
            secret_parameters: spec.secret_parameters.clone().unwrap_or_default(),
            headers: spec.headers.clone().unwrap_or_default(),
            secret_headers: spec.secret_headers.clone().unwrap_or_default(),
            response: spec.response.as_ref().map(response).transpose()?.unwrap_or_default(),
            ..RequestDescription::new(
                parse_url("spec.provider.oauth2.tokenURL", &spec.token_url)?,
                grant,
                client_authentication(spec.client_authentication.as_ref()),
            )
        },
    ))
}

fn response(spec: &api::ResponseMapping) -> Result<ResponseMapping, SpecError> {
    Ok(ResponseMapping {
        access_token: pointer("spec.provider.oauth2.response.accessToken", spec.access_token.as_deref())?,
        expires_in: pointer("spec.provider.oauth2.response.expiresIn", spec.expires_in.as_deref())?,
        expires_at: pointer("spec.provider.oauth2.response.expiresAt", spec.expires_at.as_deref())?,
        refresh_token: pointer("spec.provider.oauth2.response.refreshToken", spec.refresh_token.as_deref())?,
        ..ResponseMapping::default()
    })
}

fn pointer(field: &'static str, value: Option<&str>) -> Result<Option<Pointer>, SpecError> {
    let invalid = |error: PointerError| SpecError::Invalid { field, problem: error.to_string() };
    value.map(|value| value.parse().map_err(invalid)).transpose()
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
