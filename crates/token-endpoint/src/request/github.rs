//! Requests for installation access tokens of GitHub Apps.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::signer::Signer;
use crate::assertion::jws;
use crate::error::RequestError;
use crate::grant::GitHubApp;
use crate::key::Algorithm;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use secrecy::SecretString;
use serde_json::{Map, Value, json};

/// GitHub recommends that `iat` lies this many seconds in the past.
const BACKDATING: i64 = 60;
/// Seconds. GitHub refuses more than 10 minutes.
const LIFETIME: i64 = 5 * 60;
/// The version of GitHub's REST API that Enterprise Server 3.9 and later have too.
const API_VERSION: &str = "2022-11-28";

/// The JWT by which an app authenticates itself: `iss` is its client id or its app id.
/// <https://docs.github.com/apps/creating-github-apps/authenticating-with-a-github-app/generating-a-json-web-token-jwt-for-a-github-app>
pub(super) fn assertion(signer: &Signer<'_>) -> Result<SecretString, RequestError> {
    let now = signer.attempt.now.as_second();
    let header = Map::from_iter([("alg".to_owned(), "RS256".into()), ("typ".to_owned(), "JWT".into())]);
    let claims = Map::from_iter([
        ("iat".to_owned(), now.saturating_sub(BACKDATING).into()),
        ("exp".to_owned(), now.saturating_add(LIFETIME).into()),
        ("iss".to_owned(), signer.credentials.client_id()?.into()),
    ]);
    Ok(jws(header, claims, signer.key, Algorithm::Rs256)?.into())
}

/// Sets the headers that GitHub documents.
pub(super) fn set_headers(headers: &mut HeaderMap, assertion: &str) -> Result<(), RequestError> {
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/vnd.github+json"));
    headers.insert(HeaderName::from_static("x-github-api-version"), HeaderValue::from_static(API_VERSION));
    let name = header::AUTHORIZATION;
    let mut bearer = HeaderValue::try_from(format!("Bearer {assertion}"))
        .map_err(|_| RequestError::HeaderValue(name.to_string()))?;
    bearer.set_sensitive(true);
    headers.insert(name, bearer);
    Ok(())
}

/// The body: what the token is limited to.
pub(super) fn body(app: &GitHubApp) -> String {
    let mut body = Map::new();
    if !app.repositories.is_empty() {
        body.insert("repositories".to_owned(), json!(app.repositories));
    }
    if !app.permissions.is_empty() {
        body.insert("permissions".to_owned(), json!(app.permissions));
    }
    Value::from(body).to_string()
}
