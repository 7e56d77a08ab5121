//! Vendors' error answers, each with its source: the vendor's documentation or source code, or a public report. A comment
//! marks a status that the source does not name. No error bodies were found for Ping, Adobe, HCP and the token endpoint of
//! MongoDB Atlas.

use super::{ID, answer_with, credentials, description};
use crate::Class::{self, Limited, Rejected, Transient, Unclear};
use crate::ErrorKind::{
    self, ClientRejected, GrantRejected, RateLimited, RequestRejected, ScopeRejected, Unavailable,
};
use crate::error::Reach::{self, Client, Grant, Own, Request};
use crate::{RequestDescription, read};
use http::{HeaderMap, StatusCode};

struct Row {
    vendor: &'static str,
    /// `https://` is left out.
    source: &'static str,
    status: u16,
    body: &'static str,
    means: (Class, ErrorKind, Reach),
}

const fn row(
    vendor: &'static str,
    source: &'static str,
    status: u16,
    body: &'static str,
    means: (Class, ErrorKind, Reach),
) -> Row {
    Row { vendor, source, status, body, means }
}

const WRONG_SECRET: (Class, ErrorKind, Reach) = (Rejected, ClientRejected, Client);
const DEAD_TOKEN: (Class, ErrorKind, Reach) = (Rejected, GrantRejected, Grant);

#[rustfmt::skip]
static ROWS: &[Row] = &[
    row("Apigee", "cloud.google.com/apigee/docs/api-platform/reference/policies/oauth-http-status-code-reference", 401, r#"{"ErrorCode" : "invalid_client", "Error" :"ClientId is Invalid"}"#, WRONG_SECRET),
    row("Apigee", "cloud.google.com/apigee/docs/api-platform/reference/policies/oauth-http-status-code-reference", 401, r#"{"fault":{"faultstring":"Invalid client identifier {0}","detail":{"errorcode":"oauth.v2.InvalidClientIdentifier"}}}"#, WRONG_SECRET),
    row("Apigee", "cloud.google.com/apigee/docs/api-platform/reference/policies/oauth-http-status-code-reference", 400, r#"{"ErrorCode" : "invalid_request", "Error" :"Required param : grant_type"}"#, (Rejected, RequestRejected, Request)),
    row("Apigee", "discuss.google.dev/t/http-429-as-default-status-code-for-quota-policy-violation/17548", 500, r#"{"fault":{"faultstring":"Rate limit quota violation. Quota limit exceeded. Identifier : _default","detail":{"errorcode":"policies.ratelimit.QuotaViolation"}}}"#, (Transient, RateLimited, Own)),
    row("Atlassian", "developer.atlassian.com/cloud/oauth/getting-started/refresh-tokens", 403, r#"{"error": "invalid_grant", "error_description": "Unknown or invalid refresh token."}"#, DEAD_TOKEN),
    row("authentik", "github.com/goauthentik/authentik/issues/2575", 400, r#"{"error":"invalid_client","error_description":"Client authentication failed (e.g., unknown client, no client authentication included, or unsupported authentication method)"}"#, WRONG_SECRET),
    row("authentik", "github.com/louislam/uptime-kuma/issues/4282", 400, r#"{"error":"invalid_grant","error_description":"The provided authorization grant or refresh token is invalid, expired, revoked"}"#, DEAD_TOKEN),
    row("AWS sign-in", "docs.aws.amazon.com/sdk-for-python/v4/reference/clients/signin/errors/TooManyRequestsError", 429, r#"{"error":"INVALID_REQUEST"}"#, (Limited, RateLimited, Client)),
    // The status is that of other reports; the format is documented: https://learn.microsoft.com/rest/api/containerregistry
    row("Azure Container Registry", "github.com/SparebankenVest/azure-key-vault-to-kubernetes/issues/484", 401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required, visit https://aka.ms/acr/authorization for more information."}]}"#, WRONG_SECRET),
    row("Cognito", "docs.aws.amazon.com/cognito/latest/developerguide/token-endpoint.html", 400, r#"{"error":"invalid_client"}"#, WRONG_SECRET),
    row("Cognito", "docs.aws.amazon.com/cognito/latest/developerguide/token-endpoint.html", 400, r#"{"error":"unauthorized_client"}"#, (Rejected, ClientRejected, Request)),
    row("CrowdStrike", "github.com/CrowdStrike/ansible_collection_falcon/issues/173", 400, r#"{"meta":{"powered_by":"csam"},"errors":[{"code":400,"message":"Failed to generate access token for clientID=the-client-id."}]}"#, (Rejected, ClientRejected, Own)),
    row("CrowdStrike", "github.com/CrowdStrike/ansible_collection_falcon/issues/373", 401, r#"{"meta":{"query_time":1.86e-7},"errors":[{"code":401,"message":"access denied, authorization failed"}]}"#, WRONG_SECRET),
    row("CrowdStrike", "github.com/CrowdStrike/psfalcon/issues/254", 403, r#"{"errors":[{"code":403,"message":"access denied, authorization failed"}]}"#, (Rejected, ClientRejected, Own)),
    // The status is not in the source.
    row("Databricks", "github.com/databricks/databricks-sql-nodejs/issues/279", 401, r#"{"error":"invalid_client","error_description":"Client authentication failed"}"#, WRONG_SECRET),
    row("eBay", "github.com/hendt/ebay-api/issues/77", 400, r#"{"error":"invalid_grant","error_description":"the provided authorization refresh token is invalid or was issued to another client"}"#, DEAD_TOKEN),
    row("Entra ID", "github.com/DataThirstLtd/azure.databricks.cicd.tools/issues/99", 401, r#"{"error":"invalid_client","error_description":"AADSTS7000215: Invalid client secret is provided.\r\nTrace ID: 3","error_codes":[7000215],"timestamp":"2019-12-10 10:04:56Z","error_uri":"https://login.microsoftonline.com/error?code=7000215"}"#, WRONG_SECRET),
    row("Exact Online", "github.com/websmurf/laravel-exact-online/issues/31", 400, r#"{"error":"access_denied","error_description":"Rate limit exceeded: access_token not expired"}"#, (Rejected, ClientRejected, Request)),
    row("GitHub", "docs.github.com/en/apps/oauth-apps/maintaining-oauth-apps/troubleshooting-oauth-app-access-token-request-errors", 200, r#"{"error":"incorrect_client_credentials","error_description":"The client_id and/or client_secret passed are incorrect."}"#, (Rejected, ClientRejected, Request)),
    row("Hydra", "github.com/ory/hydra/issues/2907", 401, r#"{"error":"invalid_client","error_description":"Client authentication failed (e.g., unknown client, no client authentication included, or unsupported authentication method).","status_code":401}"#, WRONG_SECRET),
    row("JFrog", "github.com/jfrog/jfrog-cli/issues/1634", 401, r#"{"errors":[{"status":401,"message":"Bad credentials"}]}"#, WRONG_SECRET),
    row("Keycloak", "github.com/keycloak/keycloak/blob/main/services/src/main/java/org/keycloak/authentication/authenticators/client/ClientIdAndSecretAuthenticator.java", 401, r#"{"error":"unauthorized_client","error_description":"Invalid client or Invalid client credentials"}"#, WRONG_SECRET),
    row("Laravel Passport", "github.com/lucadegasperi/oauth2-server-laravel/issues/592", 500, r#"{"message":"Client authentication failed.","status_code":500}"#, (Transient, Unavailable, Own)),
    row("MongoDB Atlas", "github.com/mongodb/atlas-github-action/pull/36", 401, r#"{"error":401,"reason":"Unauthorized","detail":"You are not authorized for this resource."}"#, WRONG_SECRET),
    row("PayPal", "pastebin.com/KzKKfuPV", 401, r#"{"error":"invalid_client","error_description":"Client Authentication failed"}"#, WRONG_SECRET),
    row("ServiceNow", "www.servicenow.com/community/developer-forum/oauth2-token-request-returned-401/td-p/3590623", 401, r#"{"error_description":"access_denied","error":"server_error"}"#, WRONG_SECRET),
    row("Shopify", "community.shopify.dev/t/client-credentials-grant-returning-app-not-installed-error-despite-app-being-installed/33287", 400, "<html>Oauth error app_not_installed: The application is not installed on this shop.</html>", (Unclear, Unavailable, Own)),
    row("Spotify", "github.com/kalbhor/MusicRepair/issues/41", 400, r#"{"error":"invalid_client","error_description":"Invalid client"}"#, WRONG_SECRET),
    row("Tailscale", "github.com/tailscale/gitops-acl-action/issues/33", 401, r#"{"message":"API token invalid"}"#, WRONG_SECRET),
    row("Tailscale", "github.com/adinhodovic/tailscale-exporter/issues/34", 403, r#"{"message":"OAuth client cannot grant scopes \"users:read dns:read\""}"#, (Rejected, ScopeRejected, Own)),
    row("Twitch", "github.com/nicklaw5/helix/blob/main/authentication_test.go", 403, r#"{"status":403,"message":"invalid client secret"}"#, (Rejected, ClientRejected, Own)),
    row("Twitch", "github.com/twitchdev/issues/issues/1037", 400, r#"{"status":400,"message":"Invalid refresh token"}"#, (Rejected, GrantRejected, Own)),
    row("WSO2", "github.com/wso2/product-is/issues/9653", 401, r#"{"error_description":"Client Authentication failed.","error":"invalid_client"}"#, WRONG_SECRET),
    // Also for requests that come too often: https://developer.x.com/ja/docs/basics/authentication/api-reference/token
    row("X", "github.com/trufflesecurity/trufflehog/issues/3673", 403, r#"{"errors":[{"code":99,"message":"Unable to verify your credentials","label":"authenticity_token_error"}]}"#, (Rejected, ClientRejected, Own)),
    row("X", "docs.x.com/fundamentals/rate-limits", 429, r#"{"errors":[{"code":88,"message":"Rate limit exceeded"}]}"#, (Limited, RateLimited, Client)),
    // The status is not in the source.
    row("Xero", "developer.xero.com/documentation/oauth2/troubleshooting", 400, r#"{"error":"invalid_client"}"#, WRONG_SECRET),
    row("Xero", "github.com/XeroAPI/xoauth/issues/9", 400, r#"{"error":"unauthorized_client"}"#, (Rejected, ClientRejected, Request)),
    row("Xero", "nango.dev/blog/xero-oauth-refresh-token-invalid-grant", 400, r#"{"error":"invalid_grant","error_description":"Token has been expired or revoked."}"#, DEAD_TOKEN),
    // The status is that of https://github.com/zitadel/oidc/blob/main/pkg/op/error.go
    row("Zitadel", "github.com/zitadel/zitadel/issues/9961", 400, r#"{"error":"invalid_client","error_description":"client not found"}"#, WRONG_SECRET),
    // A wrong secret.
    row("Zitadel", "github.com/zitadel/zitadel/blob/main/internal/api/oidc/client_credentials.go", 400, r#"{"error":"invalid_request","error_description":"Errors.User.Machine.Secret.Invalid"}"#, (Rejected, RequestRejected, Request)),
    row("Zitadel", "github.com/zitadel/zitadel/issues/9745", 500, r#"{"error":"server_error","error_description":"Errors.Internal"}"#, (Transient, Unavailable, Own)),
    row("Zoho", "www.zoho.com/crm/developer/docs/api/v8/token-validity.html", 400, r#"{"error":"Access Denied","error_description":"You have made too many requests continuously. Please try again after some time.","status":"failure"}"#, (Limited, RateLimited, Own)),
];

#[test]
fn answer_of_each_vendor_means_what_its_documentation_says() {
    // What was sent is no part of a sentence.
    let description =
        RequestDescription { scopes: vec!["users:read".into(), "dns:read".into()], ..description() };
    let request = description.request(&credentials()).unwrap();
    for Row { vendor, source, status, body, means } in ROWS {
        let status = StatusCode::from_u16(*status).unwrap();
        let error = read(status, &HeaderMap::new(), body.as_bytes(), &request).unwrap_err();
        let meaning = (error.class(), error.kind(), error.reach());
        assert_eq!(meaning, *means, "{vendor} (https://{source}): {body}");
        assert!(!error.to_string().contains(ID), "{error}");
    }
}

#[test]
fn answer_rows_name_their_sources_in_order_of_vendors() {
    let vendors: Vec<_> = ROWS.iter().map(|row| row.vendor.to_lowercase()).collect();
    assert!(vendors.is_sorted(), "{vendors:?}");
    assert!(ROWS.iter().all(|row| row.source.contains('.') && row.source.contains('/')));
}

/// The same bodies with 429 and `Retry-After` are a rate limit.
#[test]
fn answer_of_each_vendor_with_429_is_a_rate_limit() {
    for Row { vendor, body, .. } in ROWS {
        let error = answer_with(429, &[("retry-after", "60")], body).unwrap_err();
        assert_eq!((error.class(), error.retry_after()), (Limited, Some(60)), "{vendor}: {body}");
    }
}
