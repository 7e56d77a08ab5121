//! Installation access tokens of a GitHub App.
//! <https://docs.github.com/apps/creating-github-apps/authenticating-with-a-github-app/generating-an-installation-access-token-for-a-github-app>

use super::description::Description;
use super::spec_error::SpecError;
use super::values::parse_url;
use token_endpoint::{
    ClientAuthentication, GitHubApp, Grant, Pointer, PointerError, RequestDescription, ResponseMapping,
};
use tokensource_api as api;

/// The path is fixed: with a free one, the author of a TokenSource could send signed requests to other services.
pub(super) fn describe(spec: &api::GitHubApp) -> Result<Description, SpecError> {
    let field = "spec.provider.gitHubApp.host";
    let base = api_url(spec.host.as_deref().unwrap_or("github.com"));
    let url = format!("{base}/app/installations/{}/access_tokens", spec.installation_id);
    let pointer = |text: &str| {
        let invalid = |error: PointerError| SpecError::Invalid { field, problem: error.to_string() };
        text.parse::<Pointer>().map(Some).map_err(invalid)
    };
    let app = GitHubApp {
        repositories: spec.repositories.clone().unwrap_or_default(),
        permissions: spec.permissions.clone().unwrap_or_default(),
    };
    let request = RequestDescription {
        response: ResponseMapping {
            access_token: pointer("/token")?,
            expires_at: pointer("/expires_at")?,
            omits_token_type: true,
            ..ResponseMapping::default()
        },
        ..RequestDescription::new(parse_url(field, &url)?, Grant::GitHubApp(app), ClientAuthentication::None)
    };
    Ok(Description::new("gitHubApp", request))
}

/// The API of github.com, of a subdomain of ghe.com (data residency), or of an Enterprise Server.
/// <https://docs.github.com/enterprise-server/rest/using-the-rest-api/getting-started-with-the-rest-api>
fn api_url(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    match host.as_str() {
        "github.com" | "www.github.com" | "api.github.com" => "https://api.github.com".to_owned(),
        _ if host.ends_with(".ghe.com") => format!("https://api.{}", host.trim_start_matches("api.")),
        _ => format!("https://{host}/api/v3"),
    }
}
