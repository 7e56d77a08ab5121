//! Any OAuth 2.0 token endpoint (RFC 6749).

use serde_json::Value;
use url::Url;

use super::description::{Description, NamedKeys};
use super::service_account::is_sent_by;
use super::spec_error::SpecError;
use super::values::{parse_seconds, parse_url};
use token_endpoint::{
    ASSERTION_LIFETIME, Algorithm, BasicEncoding, ClientAuthentication, Encoding, Grant, Issuer, IssuerError,
    JwtBearer, Pointer, PointerError, PrivateKeyJwt, RequestDescription, ResponseMapping, TokenExchange,
};
use tokensource_api as api;

/// RFC 7523, 2.2.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

pub(super) fn describe(spec: &api::OAuth2) -> Result<Description, SpecError> {
    let default_grant = api::Grant::default();
    let grant = spec.grant.as_ref().unwrap_or(&default_grant);
    let client_authentication = client_authentication(spec.client_authentication.as_ref(), grant);
    let (token_url, issuer) = endpoint(spec)?;
    let request = RequestDescription {
        issuer,
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
        ..RequestDescription::new(token_url, self::grant(grant)?, client_authentication)
    };
    let exchange = grant.token_exchange.as_ref();
    let signed = spec.client_authentication.as_ref().and_then(|it| it.private_key_jwt.as_ref());
    Ok(Description {
        keys: NamedKeys {
            certificate: signed.and_then(|signed| signed.certificate_key.clone()),
            subject_token: exchange.and_then(|exchange| exchange.subject_token_key.clone()),
            actor_token: exchange.and_then(|exchange| exchange.actor_token_key.clone()),
            assertion: grant.assertion.as_ref().and_then(|it| it.key.clone()),
            client_assertion: spec
                .client_authentication
                .as_ref()
                .and_then(|it| it.assertion.as_ref())
                .and_then(|it| it.key.clone()),
        },
        ..Description::new("oauth2", request)
    })
}

/// The token endpoint. For an issuer it is looked up at each token request, and the URL here is the issuer's.
fn endpoint(spec: &api::OAuth2) -> Result<(Url, Option<Issuer>), SpecError> {
    let invalid = |field, problem: String| SpecError::Invalid { field, problem };
    match (&spec.token_url, &spec.issuer) {
        (Some(token_url), None) => Ok((parse_url("spec.provider.oauth2.tokenURL", token_url)?, None)),
        (None, Some(issuer)) => {
            let issuer: Issuer = issuer
                .parse()
                .map_err(|error: IssuerError| invalid("spec.provider.oauth2.issuer", error.to_string()))?;
            Ok((issuer.url().clone(), Some(issuer)))
        }
        _ => Err(invalid("spec.provider.oauth2", "exactly one of tokenURL and issuer must be set".into())),
    }
}

fn grant(spec: &api::Grant) -> Result<Grant, SpecError> {
    Ok(match spec {
        api::Grant { refresh_token: Some(_), .. } => Grant::RefreshToken,
        api::Grant { jwt_bearer: Some(spec), .. } => {
            let claims = spec.claims.clone().unwrap_or_default();
            let lifetime = spec.lifetime.as_deref();
            let lifetime =
                lifetime.map(|it| parse_seconds("spec.provider.oauth2.grant.jwtBearer.lifetime", it));
            Grant::JwtBearer(Box::new(JwtBearer {
                issuer: spec.issuer.clone(),
                subject: spec.subject.clone(),
                audience: spec.audience.clone(),
                claims: claims.into_iter().map(|(name, value)| (name, Value::from(value))).collect(),
                algorithm: algorithm(spec.algorithm),
                key_id: spec.key_id.clone(),
                lifetime: lifetime.transpose()?.unwrap_or(ASSERTION_LIFETIME),
            }))
        }
        api::Grant { assertion: Some(_), .. } => Grant::Assertion,
        api::Grant { token_exchange: Some(spec), .. } => Grant::TokenExchange(TokenExchange {
            subject_token_type: spec.subject_token_type.clone(),
            actor_token_type: spec.actor_token_type.clone(),
            requested_token_type: spec.requested_token_type.clone(),
        }),
        api::Grant { custom: Some(custom), .. } => Grant::Custom {
            grant_type: custom.grant_type.clone(),
            assertion: custom.service_account_token_parameter.clone(),
        },
        _ => Grant::ClientCredentials,
    })
}

fn algorithm(spec: Option<api::Algorithm>) -> Algorithm {
    match spec.unwrap_or_default() {
        api::Algorithm::Rs256 => Algorithm::Rs256,
        api::Algorithm::Rs384 => Algorithm::Rs384,
        api::Algorithm::Rs512 => Algorithm::Rs512,
        api::Algorithm::Ps256 => Algorithm::Ps256,
        api::Algorithm::Es256 => Algorithm::Es256,
        api::Algorithm::Es384 => Algorithm::Es384,
        api::Algorithm::EdDsa => Algorithm::EdDsa,
    }
}

fn response(spec: &api::ResponseMapping) -> Result<ResponseMapping, SpecError> {
    let refresh_token = spec.refresh_token.as_deref().unwrap_or("/refresh_token");
    if spec.access_token.as_deref() == Some(refresh_token) {
        return Err(SpecError::Invalid {
            field: "spec.provider.oauth2.response.accessToken",
            problem: format!("{refresh_token} leads to the refresh token, which no pod may read"),
        });
    }
    Ok(ResponseMapping {
        access_token: pointer("spec.provider.oauth2.response.accessToken", spec.access_token.as_deref())?,
        expires_in: pointer("spec.provider.oauth2.response.expiresIn", spec.expires_in.as_deref())?,
        expires_at: pointer("spec.provider.oauth2.response.expiresAt", spec.expires_at.as_deref())?,
        refresh_token: pointer("spec.provider.oauth2.response.refreshToken", spec.refresh_token.as_deref())?,
        omits_token_type: false,
        values: spec.values.iter().flatten().map(value).collect::<Result<_, _>>()?,
    })
}

/// A name and the JSON pointer of a member that templates may use.
fn value((name, at): (&String, &String)) -> Result<(String, Pointer), SpecError> {
    let field = "spec.provider.oauth2.response.values";
    let invalid = |problem: String| SpecError::Invalid { field, problem };
    let pointer: Pointer = at.parse().map_err(|error: PointerError| invalid(error.to_string()))?;
    if pointer.is_secret() {
        return Err(invalid(format!(
            "{at} leads to a token or a secret, which is out of a template's reach"
        )));
    }
    Ok((name.clone(), pointer))
}

fn pointer(field: &'static str, value: Option<&str>) -> Result<Option<Pointer>, SpecError> {
    let invalid = |error: PointerError| SpecError::Invalid { field, problem: error.to_string() };
    value.map(|value| value.parse().map_err(invalid)).transpose()
}

fn client_authentication(
    spec: Option<&api::ClientAuthentication>,
    grant: &api::Grant,
) -> ClientAuthentication {
    match spec {
        Some(api::ClientAuthentication { post: Some(_), .. }) => ClientAuthentication::Post,
        Some(api::ClientAuthentication { none: Some(_), .. }) => ClientAuthentication::None,
        Some(api::ClientAuthentication { tls: Some(_), .. }) => ClientAuthentication::Tls,
        Some(api::ClientAuthentication { private_key_jwt: Some(spec), .. }) => {
            ClientAuthentication::PrivateKeyJwt(PrivateKeyJwt {
                algorithm: algorithm(spec.algorithm),
                key_id: spec.key_id.clone(),
                audience: spec.audience.clone(),
                certificate: spec.certificate_key.is_some(),
            })
        }
        Some(api::ClientAuthentication { assertion: Some(spec), .. }) => ClientAuthentication::Assertion {
            assertion_type: spec.assertion_type.clone().unwrap_or_else(|| JWT_BEARER.to_owned()),
        },
        Some(api::ClientAuthentication { service_account_token: Some(_), .. }) => {
            ClientAuthentication::Assertion { assertion_type: JWT_BEARER.to_owned() }
        }
        Some(api::ClientAuthentication { basic: Some(basic), .. }) => {
            ClientAuthentication::Basic(match basic.encoding.unwrap_or_default() {
                api::BasicEncoding::Percent => BasicEncoding::Percent,
                api::BasicEncoding::Raw => BasicEncoding::Raw,
            })
        }
        // The assertion identifies the client.
        _ if grant.jwt_bearer.is_some() || grant.assertion.is_some() || is_sent_by(grant) => {
            ClientAuthentication::None
        }
        _ => ClientAuthentication::Basic(BasicEncoding::Percent),
    }
}
