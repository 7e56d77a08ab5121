//! Installation access tokens of GitHub Apps.
//! <https://docs.github.com/rest/apps/apps#create-an-installation-access-token-for-an-app>

use super::grants::{NOW, attempt, body, jwt, map};
use super::header_map;
use super::keys::{P256, RSA};
use crate::{
    Class, ClientAuthentication, Credentials, Error, ErrorKind, GitHubApp, Grant, Hint, RequestDescription,
    RequestError, ResponseMapping, TokenRequest, read,
};
use http::StatusCode;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

fn describe(app: GitHubApp) -> RequestDescription {
    let pointer = |text: &str| Some(text.parse().unwrap());
    RequestDescription {
        response: ResponseMapping {
            access_token: pointer("/token"),
            expires_at: pointer("/expires_at"),
            omits_token_type: true,
            ..ResponseMapping::default()
        },
        ..RequestDescription::new(
            "https://api.github.com/app/installations/42/access_tokens".parse().unwrap(),
            Grant::GitHubApp(app),
            ClientAuthentication::None,
        )
    }
}

fn credentials(key: &str) -> Credentials {
    Credentials {
        client_id: Some("Iv23liabcdef".into()),
        private_key: Some(key.into()),
        ..Credentials::default()
    }
}

fn request() -> TokenRequest {
    describe(GitHubApp::default()).attempt(&credentials(RSA), &attempt()).unwrap()
}

#[test]
fn github_request_is_as_documented() {
    let limited = GitHubApp {
        repositories: vec!["website".into(), "api".into()],
        permissions: map([("issues", "write"), ("contents", "read")]),
    };
    let request = describe(limited).attempt(&credentials(RSA), &attempt()).unwrap();
    let header = |name: &str| request.headers()[name].to_str().unwrap();
    assert_eq!(request.headers().len(), 4);
    assert_eq!(header("accept"), "application/vnd.github+json");
    assert_eq!(header("x-github-api-version"), "2022-11-28");
    assert_eq!(header("content-type"), "application/json");
    assert!(request.headers()["authorization"].is_sensitive());
    let (head, claims) = jwt(header("authorization").strip_prefix("Bearer ").unwrap());
    assert_eq!(head, json!({"alg": "RS256", "typ": "JWT"}));
    // At most 10 minutes.
    assert_eq!(claims, json!({"iat": NOW - 60, "exp": NOW + 300, "iss": "Iv23liabcdef"}));
    assert_eq!(
        serde_json::from_str::<Value>(body(&request)).unwrap(),
        json!({"repositories": ["website", "api"], "permissions": {"contents": "read", "issues": "write"}})
    );
    assert_eq!(body(&self::request()), "{}");
    let error = describe(GitHubApp::default()).attempt(&credentials(P256), &attempt()).unwrap_err();
    assert!(matches!(error, RequestError::Key(_)), "{error}");
}

#[test]
fn github_answer_of_any_length_is_read() {
    let date = [("date", "Sun, 22 Nov 2026 05:00:00 GMT")];
    for token in [
        "ghs_16C7e42F292c6912E7710c838347Ae178B4a".to_owned(),
        format!("ghs_1_eyJh.{}.c2ln", "a".repeat(2000)),
    ] {
        let answer = json!({
            "token": token, "expires_at": "2026-11-22T06:00:00Z", "permissions": {"contents": "read"},
            "repository_selection": "selected",
        });
        let answer =
            read(StatusCode::CREATED, &header_map(&date), answer.to_string().as_bytes(), &request()).unwrap();
        assert_eq!(answer.access_token.expose_secret(), token);
        assert_eq!((answer.token_type.as_str(), answer.token_type_missing), ("Bearer", false));
        assert_eq!(answer.lifetime(attempt().now, None).seconds, Some(3600));
    }
}

fn refusal(status: u16, headers: &[(&'static str, &'static str)], message: &str) -> Error {
    let body = json!({"message": message, "documentation_url": "https://docs.github.com/rest"}).to_string();
    read(StatusCode::from_u16(status).unwrap(), &header_map(headers), body.as_bytes(), &request())
        .unwrap_err()
}

#[test]
fn github_refusals_are_classified_by_their_status() {
    let installation = Some(Hint::CheckGitHubInstallation);
    for (status, message, class, kind, hint) in [
        (
            401,
            "A JSON web token could not be decoded",
            Class::Rejected,
            ErrorKind::ClientRejected,
            Some(Hint::CheckGitHubKey),
        ),
        (404, "Not Found", Class::Rejected, ErrorKind::RequestRejected, installation.clone()),
        (
            422,
            "There is at least one repository that does not exist or is not accessible to the parent installation.",
            Class::Rejected,
            ErrorKind::RequestRejected,
            installation.clone(),
        ),
        (
            403,
            "This installation has been suspended",
            Class::Rejected,
            ErrorKind::RequestRejected,
            installation.clone(),
        ),
        (502, "Server Error", Class::Transient, ErrorKind::Unavailable, None),
    ] {
        let error = refusal(status, &[], message);
        assert_eq!((error.class(), error.kind(), error.hint()), (class, kind, hint), "{status} {error}");
        assert_eq!(error.retry_after(), None);
    }
    // A page of a proxy before an Enterprise Server is no answer of it.
    let page =
        read(StatusCode::NOT_FOUND, &header_map(&[("content-type", "text/html")]), b"<html>", &request());
    assert_eq!(page.unwrap_err().class(), Class::Unclear);
}

#[test]
fn github_rate_limits_are_obeyed() {
    // <https://docs.github.com/rest/using-the-rest-api/rate-limits-for-the-rest-api>
    let date = ("date", "Sun, 22 Nov 2026 05:00:00 GMT");
    let reset = ("x-ratelimit-reset", "1795325400"); // in half an hour
    for (status, headers, wait) in [
        (403, &[date, ("x-ratelimit-remaining", "0"), reset][..], Some(1800)),
        (429, &[date, ("x-ratelimit-remaining", "0"), reset], Some(1800)),
        (403, &[date, ("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "9999999999")], Some(3600)),
        (403, &[date, ("retry-after", "60"), ("x-ratelimit-remaining", "0"), reset], Some(60)),
        (429, &[date], None),
    ] {
        let error = refusal(status, headers, "API rate limit exceeded for installation ID 42.");
        assert_eq!((error.class(), error.kind()), (Class::Limited, ErrorKind::RateLimited), "{headers:?}");
        assert_eq!(error.retry_after(), wait, "{headers:?}");
    }
    let unlimited = refusal(403, &[date, ("x-ratelimit-remaining", "4999"), reset], "Forbidden");
    assert_eq!((unlimited.class(), unlimited.retry_after()), (Class::Rejected, None));
}
