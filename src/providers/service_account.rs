//! Tokens of ServiceAccounts in place of a credentials Secret (`spec.credentials.serviceAccountToken`).

use secrecy::SecretString;
use tokensource_api::{self as api, TokenOrigin, TokenSourceSpec};

use super::credentials::needs_secret;
use super::description::{Description, ServiceAccountUse};
use super::spec_error::SpecError;
use super::values::parse_seconds;
use token_endpoint::{ClientAuthentication, Credentials, Grant, RequestDescription};

/// The shortest lifetime of a token that Kubernetes makes, in seconds, and the default here.
const MIN_EXPIRATION: u64 = 10 * 60;
/// The longest lifetime, in seconds.
const MAX_EXPIRATION: u64 = 60 * 60;

/// Adds the token wherever the request sends it.
pub fn add_token(request: &RequestDescription, credentials: &mut Credentials, token: &SecretString) {
    let here = |is: bool| is.then(|| token.clone());
    let is_assertion = matches!(request.grant, Grant::Assertion | Grant::Custom { assertion: Some(_), .. });
    credentials.assertion = here(is_assertion);
    credentials.subject_token = here(matches!(request.grant, Grant::TokenExchange(_)));
    credentials.client_assertion =
        here(matches!(request.client_authentication, ClientAuthentication::Assertion { .. }));
}

/// Whether a grant sends the token.
pub(super) fn is_sent_by(grant: &api::Grant) -> bool {
    let from = |origin: Option<TokenOrigin>| origin == Some(TokenOrigin::ServiceAccountToken);
    from(grant.assertion.as_ref().map(|grant| grant.from))
        || from(grant.token_exchange.as_ref().and_then(|grant| grant.subject))
        || grant.custom.as_ref().is_some_and(|grant| grant.service_account_token_parameter.is_some())
}

/// The token that `description` needs of a ServiceAccount. The rules of the API server are repeated, because an object may be
/// older than they are.
pub(super) fn service_account(
    spec: &TokenSourceSpec,
    description: &Description,
) -> Result<Option<ServiceAccountUse>, SpecError> {
    let invalid = |field, problem: &str| SpecError::Invalid { field, problem: problem.to_owned() };
    let credentials = &spec.credentials;
    if credentials.secret_ref.is_some() == credentials.service_account_token.is_some() {
        let problem = "exactly one of secretRef and serviceAccountToken must be set";
        return Err(invalid("spec.credentials", problem));
    }
    let oauth2 = spec.provider.oauth2.as_ref();
    let by_client =
        oauth2.and_then(|oauth2| oauth2.client_authentication.as_ref()?.service_account_token.as_ref());
    let by_grant = oauth2.is_some_and(|oauth2| oauth2.grant.as_ref().is_some_and(is_sent_by));
    let is_used = by_client.is_some() || by_grant;
    let Some(token) = &credentials.service_account_token else {
        let problem = "this provider sends the token of a ServiceAccount: write serviceAccountToken in place of secretRef";
        return if is_used { Err(invalid("spec.credentials", problem)) } else { Ok(None) };
    };
    let field = "spec.credentials.serviceAccountToken";
    if !is_used {
        let problem = "this provider does not send it: set oauth2.clientAuthentication.serviceAccountToken, or a grant with it";
        return Err(invalid(field, problem));
    }
    let expiration = token.expiration.as_deref();
    let expiration =
        expiration.map(|it| parse_seconds("spec.credentials.serviceAccountToken.expiration", it));
    let expiration = expiration.transpose()?.unwrap_or(MIN_EXPIRATION);
    if !(MIN_EXPIRATION..=MAX_EXPIRATION).contains(&expiration) {
        return Err(invalid(
            "spec.credentials.serviceAccountToken.expiration",
            "write a duration from 10m to 1h",
        ));
    }
    // It becomes a part of a path.
    let is_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.".contains(&byte);
    if token.name.is_empty() || !token.name.bytes().all(is_name) || token.name.contains("..") {
        return Err(invalid(
            "spec.credentials.serviceAccountToken.name",
            "write the name of a ServiceAccount",
        ));
    }
    let audience = token.audience.as_ref().or_else(|| oauth2?.issuer.as_ref());
    let Some(audience) = audience.filter(|audience| is_audience(audience)) else {
        let problem = "write one audience in printable ASCII, without spaces and commas";
        return Err(invalid("spec.credentials.serviceAccountToken.audience", problem));
    };
    let used = ServiceAccountUse {
        name: token.name.clone(),
        audience: audience.clone(),
        expiration,
        sends_client_id: by_client.is_none_or(|client| client.send_client_id == Some(true)),
    };
    let description = Description { service_account: Some(used.clone()), ..description.clone() };
    match needs_secret(credentials, &description) {
        Some(needed) => Err(SpecError::Invalid {
            field,
            problem: format!("the request needs {needed} too, and there is no credentials Secret"),
        }),
        None => Ok(Some(used)),
    }
}

/// Whether it is an audience as the annotation of a ServiceAccount and the operator's flag can name it.
#[must_use]
pub fn is_audience(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',')
}
