//! Requests with the token of a ServiceAccount, as the issuers document them (docs/keyless.md).

use std::collections::BTreeMap;

use serde_json::{Value, json};
use token_endpoint::Attempt;

use super::super::{add_token, describe};
use super::golden_text;
use crate::providers::SpecError;
use tokensource_api::{TokenSource, TokenSourceSpec};

const PAGE: &str = include_str!("../../../docs/keyless.md");
const ASSERTION: &str = "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=TOKEN";
const EXCHANGED: &str = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token=TOKEN&subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt";

fn spec(oauth2: Value, credentials: Value) -> TokenSourceSpec {
    serde_json::from_value(json!({"provider": {"oauth2": oauth2}, "credentials": credentials})).unwrap()
}

/// What the token of the ServiceAccount says, and the request, with `TOKEN` for the token.
fn request(spec: &TokenSourceSpec) -> (String, String) {
    let mut description = describe(spec).unwrap();
    if let Some(issuer) = &description.request.issuer {
        // As the metadata of a Keycloak realm say.
        description.request.token_url =
            format!("{}/protocol/openid-connect/token", issuer.url()).parse().unwrap();
    }
    let account = description.service_account.as_ref().unwrap();
    let mut credentials = account.credentials(&spec.credentials, "ns");
    let said = format!("{} {}", credentials.asserted.as_deref().unwrap(), account.expiration);
    add_token(&description.request, &mut credentials, &"TOKEN".into());
    let attempt = Attempt { now: "2026-11-22T05:00:00Z".parse().unwrap(), jti: "j".into() };
    let request = description.request.attempt(&credentials, &attempt).unwrap();
    assert!(request.headers().get("authorization").is_none() && !format!("{request:?}").contains("TOKEN"));
    (said, golden_text(&request))
}

/// The TokenSource of each section of docs/keyless.md that has one.
fn manifests() -> BTreeMap<&'static str, TokenSource> {
    let sections = PAGE.split("\n##").skip(1).filter_map(|section| {
        let heading = section.lines().next().unwrap().trim_start_matches(['#', ' ']);
        let block = section.split("```yaml\n").nth(1)?.split("```").next().unwrap();
        let objects: Vec<Value> = serde_saphyr::from_multiple(block).unwrap();
        let source = objects.into_iter().find(|object| object["kind"] == "TokenSource")?;
        Some((heading, serde_json::from_value(source).unwrap()))
    });
    sections.collect()
}

/// A row for each manifest: its source is the page that its section links to. The order of members is our own.
#[test]
fn service_account_token_is_sent_as_each_issuer_documents_it() {
    let mut manifests = manifests();
    let id = "22222222-2222-2222-2222-222222222222";
    let google =
        "iam.googleapis.com/projects/123456789/locations/global/workloadIdentityPools/pool/providers/cluster";
    let google_token = format!("https://{google}");
    for (section, url, audience, expiration, body) in [
        // Keycloak: the issuer, where the endpoint is discovered; no client_id.
        (
            "The ServiceAccount consents, and the TokenSource names it",
            "https://idp.example.com/realms/payments/protocol/openid-connect/token",
            "https://idp.example.com/realms/payments",
            600,
            format!("grant_type=client_credentials&{ASSERTION}"),
        ),
        (
            "Microsoft Entra ID, without a secret",
            "https://login.microsoftonline.com/11111111-1111-1111-1111-111111111111/oauth2/v2.0/token",
            "api://AzureADTokenExchange",
            600,
            format!(
                "grant_type=client_credentials&client_id={id}&{ASSERTION}&scope=https%3A%2F%2Fgraph.microsoft.com%2F.default"
            ),
        ),
        // Two audiences: that of the token, and that of the request.
        (
            "Google, without a key",
            "https://sts.googleapis.com/v1/token",
            google_token.as_str(),
            3600,
            format!(
                "{EXCHANGED}&requested_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token&audience=%2F%2F{}&scope=https%3A%2F%2Fwww.googleapis.com%2Fauth%2Fcloud-platform",
                google.replace('/', "%2F")
            ),
        ),
        (
            "Databricks, without a secret",
            "https://dbc-a1b2345c-d6e7.cloud.databricks.com/oidc/v1/token",
            "https://dbc-a1b2345c-d6e7.cloud.databricks.com",
            3600,
            format!("{EXCHANGED}&client_id={id}&scope=all-apis"),
        ),
        (
            "Tailscale, without a secret",
            "https://api.tailscale.com/api/v2/oauth/token-exchange",
            "api.tailscale.com/T123456CNTRL-kdef456",
            600,
            "grant_type=authorization_code&jwt=TOKEN&client_id=T123456CNTRL-kdef456".to_owned(),
        ),
        (
            "Curity",
            "https://login.example.com/oauth/v2/oauth-token",
            "https://login.example.com/oauth/v2/oauth-token",
            600,
            format!("grant_type=client_credentials&{ASSERTION}&scope=reports"),
        ),
    ] {
        let source = manifests.remove(section).unwrap_or_else(|| panic!("docs/keyless.md: no {section}"));
        let (said, request) = request(&source.spec);
        assert_eq!(
            said,
            format!("system:serviceaccount:ns:payments for {audience} {expiration}"),
            "{section}"
        );
        let headers = "accept: application/json\ncontent-type: application/x-www-form-urlencoded\n";
        assert_eq!(request, format!("POST {url}\n{headers}\n{body}"), "{section}");
    }
    assert!(manifests.is_empty(), "no row for {:?}", manifests.keys());
}

/// What no manifest of the page has.
#[test]
fn service_account_token_is_sent_as_grant_and_client_authentication_say() {
    let token = || json!({"name": "payments", "audience": "aud"});
    let keyless = || json!({"serviceAccountToken": token()});
    let with_id = || json!({"serviceAccountToken": token(), "clientID": "id"});
    for (oauth2, credentials, expected) in [
        // The client's id is not sent without `sendClientID`.
        (
            json!({"clientAuthentication": {"serviceAccountToken": {}}}),
            with_id(),
            format!("grant_type=client_credentials&{ASSERTION}"),
        ),
        (
            json!({"grant": {"assertion": {"from": "serviceAccountToken"}}}),
            keyless(),
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=TOKEN".to_owned(),
        ),
        // A custom grant sends it also where `clientAuthentication` is not written.
        (
            json!({"grant": {"custom": {"grantType": "a", "serviceAccountTokenParameter": "jwt"}}}),
            with_id(),
            "grant_type=a&jwt=TOKEN&client_id=id".to_owned(),
        ),
    ] {
        let mut oauth2 = oauth2;
        oauth2["tokenURL"] = json!("https://idp.example.com/token");
        let (_, request) = request(&spec(oauth2.clone(), credentials));
        assert_eq!(request.split("\n\n").nth(1), Some(expected.as_str()), "{oauth2}");
    }
}

/// An object may be older than the rules of the API server.
#[test]
fn service_account_token_in_a_spec_that_the_api_server_refuses_is_an_error() {
    let url = "https://idp.example.com/token";
    let by_client = json!({"tokenURL": url, "clientAuthentication": {"serviceAccountToken": {}}});
    let token = |change: Value| {
        let mut token = json!({"name": "payments", "audience": "aud"});
        token.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        json!({"serviceAccountToken": token})
    };
    let both = json!({"serviceAccountToken": {"name": "a", "audience": "b"}, "secretRef": {"name": "c"}});
    for (oauth2, credentials, words) in [
        (by_client.clone(), json!({}), "exactly one of secretRef and serviceAccountToken"),
        (by_client.clone(), both, "exactly one of secretRef and serviceAccountToken"),
        (by_client.clone(), json!({"secretRef": {"name": "c"}}), "sends the token of a ServiceAccount"),
        (json!({"tokenURL": url}), token(json!({})), "does not send it"),
        (by_client.clone(), token(json!({"audience": null})), "write one audience"),
        (by_client.clone(), token(json!({"audience": "a,b"})), "write one audience"),
        (by_client.clone(), token(json!({"expiration": "5m"})), "from 10m to 1h"),
        (by_client.clone(), token(json!({"expiration": "2h"})), "from 10m to 1h"),
        (
            json!({
                "tokenURL": url, "clientAuthentication": {"post": {}},
                "grant": {"assertion": {"from": "serviceAccountToken"}},
            }),
            token(json!({})),
            "the request needs client id too",
        ),
        (
            json!({"tokenURL": url, "clientAuthentication": {"serviceAccountToken": {}}, "secretHeaders": {"X-A": "a"}}),
            token(json!({})),
            "the request needs value too",
        ),
        (
            json!({"tokenURL": url, "clientAuthentication": {"serviceAccountToken": {}}, "grant": {"refreshToken": {}}}),
            token(json!({})),
            "the request needs refresh token too",
        ),
    ] {
        let error: SpecError = describe(&spec(oauth2.clone(), credentials)).unwrap_err();
        assert!(error.to_string().contains(words), "{oauth2}: {error}");
    }
}

#[test]
fn service_account_token_has_the_issuer_for_its_audience_and_ten_minutes() {
    let oauth2 =
        json!({"issuer": "https://idp.example.com/a/", "clientAuthentication": {"serviceAccountToken": {}}});
    let described = |token: Value| {
        describe(&spec(oauth2.clone(), json!({"serviceAccountToken": token})))
            .unwrap()
            .service_account
            .unwrap()
    };
    let used = described(json!({"name": "a"}));
    assert_eq!((used.audience.as_str(), used.expiration), ("https://idp.example.com/a/", 600));
    let used = described(json!({"name": "a", "audience": "b", "expiration": "1h"}));
    assert_eq!((used.audience.as_str(), used.expiration), ("b", 3600));
}
