//! Requests with the token of a ServiceAccount, as the issuers document them (docs/keyless.md).

use serde_json::{Value, json};
use token_endpoint::Attempt;

use super::super::{add_token, describe};
use crate::providers::SpecError;
use tokensource_api::TokenSourceSpec;

const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

fn spec(oauth2: Value, credentials: Value) -> TokenSourceSpec {
    serde_json::from_value(json!({"provider": {"oauth2": oauth2}, "credentials": credentials})).unwrap()
}

/// The body that is sent, with `TOKEN` for the token.
fn body(oauth2: Value, credentials: Value) -> String {
    let spec = spec(oauth2, credentials);
    let description = describe(&spec).unwrap();
    let account = description.service_account.as_ref().unwrap();
    let mut credentials = account.credentials(&spec.credentials, "ns");
    assert_eq!(credentials.asserted.as_deref(), Some("system:serviceaccount:ns:payments for aud"));
    add_token(&description.request, &mut credentials, &"TOKEN".into());
    let attempt = Attempt { now: "2026-11-22T05:00:00Z".parse().unwrap(), jti: "j".into() };
    let request = description.request.attempt(&credentials, &attempt).unwrap();
    assert!(request.headers().get("authorization").is_none() && !format!("{request:?}").contains("TOKEN"));
    secrecy::ExposeSecret::expose_secret(request.body()).to_owned()
}

#[test]
fn service_account_token_is_sent_as_each_issuer_documents_it() {
    let token = || json!({"name": "payments", "audience": "aud"});
    let keyless = || json!({"serviceAccountToken": token()});
    let with_id = || json!({"serviceAccountToken": token(), "clientID": "id"});
    let url = "https://idp.example.com/token";
    let exchange = json!({"subject": "serviceAccountToken", "subjectTokenType": JWT});
    let assertion = "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=TOKEN";
    let exchanged = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token=TOKEN&subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Ajwt";
    for (oauth2, credentials, expected) in [
        // Keycloak 26.5 refuses a client_id, Microsoft Entra requires it.
        (
            json!({"clientAuthentication": {"serviceAccountToken": {}}}),
            with_id(),
            format!("grant_type=client_credentials&{assertion}"),
        ),
        (
            json!({"clientAuthentication": {"serviceAccountToken": {"sendClientID": true}}, "scopes": ["a/.default"]}),
            with_id(),
            format!("grant_type=client_credentials&client_id=id&{assertion}&scope=a%2F.default"),
        ),
        (
            json!({"grant": {"assertion": {"from": "serviceAccountToken"}}}),
            keyless(),
            "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=TOKEN".to_owned(),
        ),
        // Databricks.
        (
            json!({"grant": {"tokenExchange": exchange}, "scopes": ["all-apis"]}),
            with_id(),
            format!("{exchanged}&client_id=id&scope=all-apis"),
        ),
        // Google: two audiences.
        (
            json!({"grant": {"tokenExchange": exchange}, "audience": "//iam.googleapis.com/p"}),
            keyless(),
            format!("{exchanged}&audience=%2F%2Fiam.googleapis.com%2Fp"),
        ),
        // Tailscale.
        (
            json!({"grant": {"custom": {"grantType": "authorization_code", "serviceAccountTokenParameter": "jwt"}}}),
            with_id(),
            "grant_type=authorization_code&jwt=TOKEN&client_id=id".to_owned(),
        ),
    ] {
        let mut oauth2 = oauth2;
        oauth2["tokenURL"] = json!(url);
        assert_eq!(body(oauth2.clone(), credentials), expected, "{oauth2}");
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
