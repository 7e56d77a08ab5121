//! One row for each vendor of docs/vendors.md: the manifest there must lead to the request that the vendor documents, and
//! the documented response must be accepted. The source of a row is the page that its section of docs/vendors.md links to;
//! the order of members, and a JWT's `jti`, `iat` and `exp`, are our own.

mod plain;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::{HeaderMap, StatusCode};
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::golden_text;
use crate::providers::{describe, read_credentials};
use token_endpoint::{Attempt, read};
use tokensource_api::TokenSource;

const PAGE: &str = include_str!("../../../docs/vendors.md");
const RSA: &str = include_str!("../../../crates/token-endpoint/src/tests/keys/rsa.pem");
const RSA_CERTIFICATE: &str =
    include_str!("../../../crates/token-endpoint/src/tests/keys/rsa-certificate.pem");
const NOW: i64 = 1_795_323_600;
const JWT_BEARER: &str = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=JWT";
const CLIENT_ASSERTION: &str = "client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer\
                                &client_assertion=JWT";

struct Row {
    /// The heading in docs/vendors.md.
    vendor: &'static str,
    secret: &'static [(&'static str, &'static str)],
    /// Headers other than `Accept` and `Content-Type`, one on each line.
    headers: &'static str,
    /// The body, with `JWT` for an assertion.
    body: String,
    /// Header and claims of the assertion, without `jti`, `iat` and `exp`.
    jwt: Option<[Value; 2]>,
    response: Value,
    /// Seconds; `None` where the response has none.
    lifetime: Option<u64>,
}

const CLIENT: &[(&str, &str)] = &[("client_id", "id"), ("client_secret", "secret")];
const BASIC: &str = "authorization: Basic aWQ6c2VjcmV0\n"; // id:secret
const KEY: &[(&str, &str)] = &[("private_key.pem", RSA)];

/// The response of most vendors.
fn bearer(seconds: u64) -> Value {
    json!({"access_token": "opaque", "token_type": "Bearer", "expires_in": seconds})
}

fn client_credentials() -> Vec<Row> {
    let row = |vendor, headers, body: &str, response, lifetime| Row {
        vendor,
        secret: CLIENT,
        headers,
        body: body.to_owned(),
        jwt: None,
        response,
        lifetime: Some(lifetime),
    };
    vec![
        row(
            "Auth0",
            "",
            "grant_type=client_credentials&client_id=id&client_secret=secret&audience=https%3A%2F%2Fapi.example.com%2F",
            bearer(86_400),
            86_400,
        ),
        row(
            "Keycloak",
            BASIC,
            "grant_type=client_credentials",
            json!({
                "access_token": "opaque", "expires_in": 60, "refresh_expires_in": 0, "token_type": "Bearer",
                "not-before-policy": 0, "scope": "profile email",
            }),
            60,
        ),
        row("Okta", BASIC, "grant_type=client_credentials&scope=customScope", bearer(3600), 3600),
        Row {
            secret: &[("clientid", "sb-app!t1"), ("clientsecret", "a+b=")],
            // sb-app%21t1:a%2Bb%3D
            ..row(
                "SAP XSUAA",
                "authorization: Basic c2ItYXBwJTIxdDE6YSUyQmIlM0Q=\nx-cf-encoded-credentials: true\n",
                "grant_type=client_credentials",
                json!({
                    "access_token": "opaque", "token_type": "bearer", "expires_in": 43_199,
                    "scope": "uaa.resource", "jti": "x",
                }),
                43_199,
            )
        },
        row(
            "VNG Cloud v1",
            BASIC,
            r#"{"grant_type":"client_credentials","grantType":"client_credentials"}"#,
            json!({"accessToken": "opaque", "expiresIn": 1800}),
            1800,
        ),
    ]
}

fn signed() -> Vec<Row> {
    let row = |vendor, body: String, jwt, response, lifetime| Row {
        vendor,
        secret: KEY,
        headers: "",
        body,
        jwt: Some(jwt),
        response,
        lifetime: Some(lifetime),
    };
    let rs256 = || json!({"alg": "RS256", "typ": "JWT"});
    vec![
        Row {
            secret: &[("client_id", "abc123"), ("client_secret", "def234"), ("private_key.pem", RSA)],
            ..row(
                "Box",
                format!("{JWT_BEARER}&client_id=abc123&client_secret=def234"),
                [
                    json!({"alg": "RS512", "typ": "JWT", "kid": "abcd1234"}),
                    json!({
                        "iss": "abc123", "sub": "1234567", "box_sub_type": "enterprise",
                        "aud": "https://api.box.com/oauth2/token",
                    }),
                ],
                json!({"access_token": "opaque", "expires_in": 3600, "restricted_to": [], "token_type": "bearer"}),
                3600,
            )
        },
        row(
            "DocuSign",
            JWT_BEARER.to_owned(),
            [
                rs256(),
                json!({
                    "iss": "7c2b8d7e-xxxx-xxxx-xxxx-cda8a50dd73f", "sub": "464f7988-xxxx-xxxx-xxxx-781ee556ab7a",
                    "aud": "account-d.docusign.com", "scope": "signature impersonation",
                }),
            ],
            bearer(3600),
            3600,
        ),
        Row {
            secret: &[("key.json", "GOOGLE")],
            ..row(
                "Google",
                JWT_BEARER.to_owned(),
                [
                    json!({"alg": "RS256", "typ": "JWT", "kid": "0123456789abcdef"}),
                    json!({
                        "iss": "robot@project-123.iam.gserviceaccount.com", "sub": "user@example.com",
                        "scope": "https://www.googleapis.com/auth/devstorage.read_only",
                        "aud": "https://oauth2.googleapis.com/token",
                    }),
                ],
                bearer(3600),
                3600,
            )
        },
        Row {
            lifetime: None,
            ..row(
                "Salesforce",
                JWT_BEARER.to_owned(),
                [
                    rs256(),
                    json!({
                        "iss": "3MVG99OxTyEMCQ3gNp2PjkqeZKxnmAiG1xV4oHh9AKL", "sub": "my@email.com",
                        "aud": "https://login.salesforce.com",
                    }),
                ],
                json!({
                    "access_token": "00Dxx0000001gPL!AR8AQJXg5oj8jXSgxJfA0lBog", "scope": "web openid api id",
                    "instance_url": "https://yourInstance.salesforce.com", "token_type": "Bearer",
                    "id": "https://yourInstance.salesforce.com/id/00Dxx0000001gPLEAY/005xx000001SwiUAAS",
                }),
                0,
            )
        },
        Row {
            secret: &[("private_key.pem", RSA), ("certificate.pem", RSA_CERTIFICATE)],
            ..row(
                "Microsoft Entra ID",
                format!(
                    "grant_type=client_credentials&client_id=97e0a5b7-d745-40b6-94fe-5f77d35c6e05&{CLIENT_ASSERTION}\
                     &scope=https%3A%2F%2Fgraph.microsoft.com%2F.default"
                ),
                [
                    json!({
                        "alg": "PS256", "typ": "JWT",
                        "x5t#S256": include_str!("../../../crates/token-endpoint/src/tests/keys/rsa-certificate.x5t-s256").trim(),
                    }),
                    json!({
                        "iss": "97e0a5b7-d745-40b6-94fe-5f77d35c6e05", "sub": "97e0a5b7-d745-40b6-94fe-5f77d35c6e05",
                        "aud": "https://login.microsoftonline.com/contoso.onmicrosoft.com/oauth2/v2.0/token",
                    }),
                ],
                json!({"token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599, "access_token": "opaque"}),
                3599,
            )
        },
        Row {
            secret: &[("client_id", "0oa"), ("private_key.pem", RSA)],
            ..row(
                "Okta, for its own API",
                format!(
                    "grant_type=client_credentials&client_id=0oa&{CLIENT_ASSERTION}&scope=okta.users.read"
                ),
                [
                    json!({"alg": "RS256", "typ": "JWT", "kid": "my-key"}),
                    json!({"iss": "0oa", "sub": "0oa", "aud": "https://example.okta.com/oauth2/v1/token"}),
                ],
                bearer(3600),
                3600,
            )
        },
    ]
}

fn vendor_grants() -> Vec<Row> {
    let row = |vendor, secret, body: &str, response, lifetime| Row {
        vendor,
        secret,
        headers: "",
        body: body.to_owned(),
        jwt: None,
        response,
        lifetime,
    };
    vec![
        row(
            "Docker Hub",
            &[("token", "dckr_pat_x")],
            r#"{"grant_type":"password","identifier":"myusername","secret":"dckr_pat_x"}"#,
            json!({"access_token": "opaque"}),
            None,
        ),
        row(
            "Docker registry",
            &[("password", "A3ddj3w")],
            "grant_type=password&client_id=tokensource&scope=repository%3Asamalba%2Fmy-app%3Apull\
             &password=A3ddj3w&service=registry-1.docker.io&username=johndoe",
            json!({"access_token": "opaque", "expires_in": 900, "scope": "repository:samalba/my-app:pull"}),
            Some(900),
        ),
        row(
            "IBM Cloud",
            &[("api_key", "MY_APIKEY")],
            "grant_type=urn%3Aibm%3Aparams%3Aoauth%3Agrant-type%3Aapikey&apikey=MY_APIKEY",
            json!({
                "access_token": "opaque", "refresh_token": "not_supported", "token_type": "Bearer",
                "expires_in": 3600, "expiration": NOW + 3600, "scope": "ibm openid",
            }),
            Some(3600),
        ),
        row(
            "ServiceNow",
            &[("client_id", "id"), ("client_secret", "secret"), ("username", "admin"), ("password", "p w")],
            "grant_type=password&client_id=id&client_secret=secret&password=p%20w&username=admin",
            json!({
                "access_token": "opaque", "refresh_token": "another", "scope": "useraccount",
                "token_type": "Bearer", "expires_in": 1799,
            }),
            Some(1799),
        ),
        Row {
            headers: BASIC,
            ..row(
                "Zoom",
                CLIENT,
                "grant_type=account_credentials&account_id=abc123",
                json!({
                    "access_token": "opaque", "token_type": "bearer", "expires_in": 3600,
                    "scope": "user:read:user:admin", "api_url": "https://api.zoom.us",
                }),
                Some(3600),
            )
        },
    ]
}

fn rows() -> Vec<Row> {
    [client_credentials(), signed(), vendor_grants(), plain::rows()].into_iter().flatten().collect()
}

/// The manifest under each heading of docs/vendors.md, with its vendor.
fn manifests() -> BTreeMap<&'static str, TokenSource> {
    let sections = PAGE.split("\n## ").skip(1);
    sections
        .map(|section| {
            let vendor = section.lines().next().unwrap();
            assert!(section.lines().nth(2).unwrap().starts_with("<https://"), "{vendor}: the vendor's page");
            let manifest = section.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
            (vendor, serde_saphyr::from_str(manifest).unwrap())
        })
        .collect()
}

fn google_key_file() -> String {
    json!({
        "type": "service_account",
        "private_key_id": "0123456789abcdef",
        "private_key": RSA,
        "client_email": "robot@project-123.iam.gserviceaccount.com",
        "token_uri": "https://oauth2.googleapis.com/token",
    })
    .to_string()
}

fn data(secret: &[(&str, &str)]) -> BTreeMap<String, ByteString> {
    let value = |value: &str| ByteString(value.replace("GOOGLE", &google_key_file()).into_bytes());
    secret.iter().map(|(key, text)| ((*key).to_owned(), value(text))).collect()
}

/// Header and claims of a JWT, without the claims that differ in each request.
fn decoded(jwt: &str) -> [Value; 2] {
    let mut parts = jwt.split('.').map(|part| BASE64_URL_SAFE_NO_PAD.decode(part).unwrap());
    let [header, mut claims] = [(); 2].map(|()| serde_json::from_slice(&parts.next().unwrap()).unwrap());
    let claims_map: &mut serde_json::Map<String, Value> = Value::as_object_mut(&mut claims).unwrap();
    for name in ["jti", "iat", "exp"] {
        assert!(claims_map.remove(name).is_some(), "{name}");
    }
    [header, claims]
}

/// The assertion in a form.
fn assertion(body: &str) -> Option<&str> {
    let of = |name: &str, member: &'_ str| member.strip_prefix(name).map(str::len);
    body.split('&').find_map(|member| {
        let length = of("assertion=", member).or_else(|| of("client_assertion=", member))?;
        Some(&member[member.len() - length..])
    })
}

#[test]
fn vendor_manifests_lead_to_the_documented_request_and_response() {
    let mut manifests = manifests();
    let attempt = Attempt { now: jiff::Timestamp::from_second(NOW).unwrap(), jti: "one-time".into() };
    for row in rows() {
        let vendor = row.vendor;
        let source = manifests.remove(vendor).unwrap_or_else(|| panic!("docs/vendors.md: no {vendor}"));
        let description = describe(&source.spec).unwrap();
        let credentials =
            read_credentials(&source.spec.credentials, &description, None, &data(row.secret)).unwrap();
        assert!(credentials.remarks.is_empty(), "{vendor}: {:?}", credentials.remarks);
        let request = description.request.attempt(&credentials.credentials, &attempt).unwrap();

        let mut text = golden_text(&request);
        let body = text.split("\n\n").nth(1).unwrap();
        let signed = assertion(body).map(str::to_owned);
        if let Some(signed) = &signed {
            text = text.replace(signed, "JWT");
        }
        assert_eq!(signed.as_deref().map(decoded), row.jwt, "{vendor}");
        let encoding = if row.body.starts_with('{') { "json" } else { "x-www-form-urlencoded" };
        let mut headers: Vec<_> = row.headers.lines().map(|line| format!("{line}\n")).collect();
        headers.push("accept: application/json\n".to_owned());
        headers.push(format!("content-type: application/{encoding}\n"));
        headers.sort();
        let url = source.spec.provider.oauth2.unwrap().token_url.unwrap();
        assert_eq!(text, format!("POST {url}\n{}\n{}", headers.concat(), row.body), "{vendor}");

        let response = row.response.to_string();
        let response = read(StatusCode::OK, &HeaderMap::new(), response.as_bytes(), &request).unwrap();
        let token_type = if vendor == "eBay" { "Application Access Token" } else { "Bearer" };
        assert_eq!(response.token_type, token_type, "{vendor}");
        assert_eq!(response.lifetime(attempt.now, None).seconds, row.lifetime, "{vendor}");
    }
    assert!(manifests.is_empty(), "no row for {:?}", manifests.keys());
}
