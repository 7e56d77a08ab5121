//! One row for each vendor: the request and the answer as its documentation has them. The presets' own rows are in
//! `request` and `response`.

use super::description;
use super::grants::{NOW, attempt, jwt, map};
use super::keys::{RSA, RSA_CERTIFICATE, google_key_file};
use crate::oauth::{
    Algorithm, BasicEncoding, ClientAuthentication, Credentials, Encoding, Grant, JwtBearer, PrivateKeyJwt,
    RequestDescription, ResponseMapping, read,
};
use http::{HeaderMap, StatusCode};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

struct Row {
    vendor: &'static str,
    /// The vendor's page.
    page: &'static str,
    token_url: &'static str,
    description: RequestDescription,
    credentials: Credentials,
    authorization: Option<&'static str>,
    /// With `JWT` for an assertion.
    body: &'static str,
    /// Of the assertion.
    claims: Option<Value>,
    status: u16,
    answer: Value,
    /// Seconds from the moment at which [`attempt`] is made; `None`: the answer does not say.
    lifetime: Option<u64>,
    values: &'static [(&'static str, &'static str)],
}

fn client(id: &str, secret: &str) -> Credentials {
    Credentials { client_id: Some(id.into()), client_secret: Some(secret.into()), ..Credentials::default() }
}

fn custom(grant_type: &str) -> Grant {
    Grant::Custom { grant_type: grant_type.into() }
}

fn jwt_bearer(grant: JwtBearer) -> Grant {
    Grant::JwtBearer(Box::new(grant))
}

const PUBLIC: ClientAuthentication = ClientAuthentication::None;

#[allow(clippy::too_many_lines)] // it is a table
fn rows() -> Vec<Row> {
    vec![
        Row {
            vendor: "Google service account",
            page: "https://developers.google.com/identity/protocols/oauth2/service-account",
            token_url: "https://oauth2.googleapis.com/token",
            description: RequestDescription {
                grant: jwt_bearer(JwtBearer {
                    subject: Some("user@example.com".into()),
                    lifetime: 3600,
                    ..JwtBearer::default()
                }),
                client_authentication: PUBLIC,
                scopes: vec!["https://www.googleapis.com/auth/prediction".into()],
                ..description()
            },
            credentials: Credentials {
                private_key: Some(google_key_file().into()),
                ..Credentials::default()
            },
            authorization: None,
            body: "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=JWT",
            claims: Some(json!({
                "iss": "robot@project-123.iam.gserviceaccount.com",
                "sub": "user@example.com",
                "scope": "https://www.googleapis.com/auth/prediction",
                "aud": "https://oauth2.googleapis.com/token",
                "iat": NOW - 10, "exp": NOW + 3590, "jti": "one-time-grant",
            })),
            status: 200,
            answer: json!({
                "access_token": "1/8xbJqaOZXSUZbHLl5EOtu1pxz3fmmetKx9W8CV4t79M",
                "scope": "https://www.googleapis.com/auth/prediction",
                "token_type": "Bearer",
                "expires_in": 3600,
            }),
            lifetime: Some(3600),
            values: &[],
        },
        Row {
            vendor: "Salesforce",
            page: "https://help.salesforce.com/s/articleView?id=sf.remoteaccess_oauth_jwt_flow.htm",
            token_url: "https://login.salesforce.com/services/oauth2/token",
            description: RequestDescription {
                grant: jwt_bearer(JwtBearer {
                    subject: Some("my@email.com".into()),
                    audience: Some("https://login.salesforce.com".into()),
                    issuer: Some("3MVG99OxTyEMCQ3gNp2PjkqeZKxnmAiG1xV4oHh9AKL".into()),
                    ..JwtBearer::default()
                }),
                client_authentication: PUBLIC,
                response: ResponseMapping {
                    values: [("instance_url".to_owned(), "/instance_url".parse().unwrap())].into(),
                    ..ResponseMapping::default()
                },
                ..description()
            },
            credentials: Credentials { private_key: Some(RSA.into()), ..Credentials::default() },
            authorization: None,
            body: "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=JWT",
            claims: Some(json!({
                "iss": "3MVG99OxTyEMCQ3gNp2PjkqeZKxnmAiG1xV4oHh9AKL",
                "sub": "my@email.com",
                "aud": "https://login.salesforce.com",
                "iat": NOW - 10, "exp": NOW + 45, "jti": "one-time-grant",
            })),
            status: 200,
            answer: json!({
                "access_token": "00Dxx0000001gPL!AR8AQJXg5oj8jXSgxJfA0lBog",
                "scope": "web openid api id",
                "instance_url": "https://yourInstance.salesforce.com",
                "id": "https://yourInstance.salesforce.com/id/00Dxx0000001gPLEAY/005xx000001SwiUAAS",
                "token_type": "Bearer",
            }),
            lifetime: None,
            values: &[("instance_url", "https://yourInstance.salesforce.com")],
        },
        Row {
            vendor: "Box",
            page: "https://developer.box.com/guides/authentication/jwt/without-sdk",
            token_url: "https://api.box.com/oauth2/token",
            description: RequestDescription {
                grant: jwt_bearer(JwtBearer {
                    subject: Some("1234567".into()),
                    claims: json!({"box_sub_type": "enterprise"}).as_object().unwrap().clone(),
                    algorithm: Algorithm::Rs512,
                    key_id: Some("abcd1234".into()),
                    ..JwtBearer::default()
                }),
                client_authentication: ClientAuthentication::Post,
                ..description()
            },
            credentials: Credentials { private_key: Some(RSA.into()), ..client("abc123", "def234") },
            authorization: None,
            body: "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=JWT\
                   &client_id=abc123&client_secret=def234",
            claims: Some(json!({
                "iss": "abc123", "sub": "1234567", "box_sub_type": "enterprise",
                "aud": "https://api.box.com/oauth2/token",
                "iat": NOW - 10, "exp": NOW + 45, "jti": "one-time-grant",
            })),
            status: 200,
            answer: json!({
                "access_token": "c3FIOG9vSGV4VHo4QzAyg5T1JvNnJoZ3ExaVNyQWw6WjRsanRKZG5lQk9qUE1BVQ",
                "expires_in": 3600, "restricted_to": [], "token_type": "bearer",
            }),
            lifetime: Some(3600),
            values: &[],
        },
        Row {
            vendor: "DocuSign",
            page: "https://developers.docusign.com/platform/auth/jwt-get-token/",
            token_url: "https://account-d.docusign.com/oauth/token",
            description: RequestDescription {
                grant: jwt_bearer(JwtBearer {
                    issuer: Some("5c2b8d7e-integration-key".into()),
                    subject: Some("464f7988-user-id".into()),
                    audience: Some("account-d.docusign.com".into()),
                    claims: json!({"scope": "signature impersonation"}).as_object().unwrap().clone(),
                    lifetime: 3000,
                    ..JwtBearer::default()
                }),
                client_authentication: PUBLIC,
                ..description()
            },
            credentials: Credentials { private_key: Some(RSA.into()), ..Credentials::default() },
            authorization: None,
            body: "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=JWT",
            claims: Some(json!({
                "iss": "5c2b8d7e-integration-key", "sub": "464f7988-user-id",
                "aud": "account-d.docusign.com", "scope": "signature impersonation",
                "iat": NOW - 10, "exp": NOW + 3000, "jti": "one-time-grant",
            })),
            status: 200,
            answer: json!({
                "access_token": "eyJ0eXAi.AAAA.x", "token_type": "Bearer", "expires_in": 3600,
                "scope": "signature impersonation",
            }),
            lifetime: Some(3600),
            values: &[],
        },
        Row {
            vendor: "Zoom",
            page: "https://developers.zoom.us/docs/internal-apps/s2s-oauth/",
            token_url: "https://zoom.us/oauth/token",
            description: RequestDescription {
                grant: custom("account_credentials"),
                parameters: map([("account_id", "acc-1")]),
                ..description()
            },
            credentials: client("id", "secret"),
            authorization: Some("Basic aWQ6c2VjcmV0"),
            body: "grant_type=account_credentials&account_id=acc-1",
            claims: None,
            status: 200,
            answer: json!({
                "access_token": "zoom-token", "token_type": "bearer", "expires_in": 3599,
                "scope": "user:read:admin", "api_url": "https://api.zoom.us",
            }),
            lifetime: Some(3599),
            values: &[],
        },
        Row {
            vendor: "IBM Cloud",
            page: "https://cloud.ibm.com/docs/account?topic=account-iamtoken_from_apikey",
            token_url: "https://iam.cloud.ibm.com/identity/token",
            description: RequestDescription {
                grant: custom("urn:ibm:params:oauth:grant-type:apikey"),
                client_authentication: PUBLIC,
                secret_parameters: map([("apikey", "api_key")]),
                response: ResponseMapping {
                    expires_at: Some("/expiration".parse().unwrap()),
                    ..ResponseMapping::default()
                },
                ..description()
            },
            credentials: Credentials {
                values: [("api_key".to_owned(), "MY_APIKEY".into())].into(),
                ..Credentials::default()
            },
            authorization: None,
            body: "grant_type=urn%3Aibm%3Aparams%3Aoauth%3Agrant-type%3Aapikey&apikey=MY_APIKEY",
            claims: None,
            status: 200,
            answer: json!({
                "access_token": "ibm-token", "refresh_token": "not_supported", "ims_user_id": 118_123,
                "token_type": "Bearer", "expires_in": 3600, "expiration": NOW + 3600, "scope": "ibm openid",
            }),
            lifetime: Some(3600),
            values: &[],
        },
        Row {
            vendor: "Docker registry",
            page: "https://distribution.github.io/distribution/spec/auth/oauth/",
            token_url: "https://auth.docker.io/token",
            description: RequestDescription {
                grant: custom("password"),
                client_authentication: PUBLIC,
                scopes: vec!["repository:library/alpine:pull".into()],
                parameters: map([("service", "registry.docker.io"), ("username", "someone")]),
                secret_parameters: map([("password", "token")]),
                ..description()
            },
            credentials: Credentials {
                client_id: Some("tokensource".into()),
                values: [("token".to_owned(), "dckr_pat_x".into())].into(),
                ..Credentials::default()
            },
            authorization: None,
            body: "grant_type=password&client_id=tokensource&scope=repository%3Alibrary%2Falpine%3Apull\
                   &password=dckr_pat_x&service=registry.docker.io&username=someone",
            claims: None,
            status: 200,
            answer: json!({
                "access_token": "docker-token", "scope": "repository:library/alpine:pull",
                "expires_in": 900, "issued_at": "2026-11-22T05:00:00Z",
            }),
            lifetime: Some(900),
            values: &[],
        },
        Row {
            vendor: "Docker Hub",
            page: "https://docs.docker.com/reference/api/hub/latest/",
            token_url: "https://hub.docker.com/v2/auth/token",
            description: RequestDescription {
                grant: custom("password"), // it does not mind the member
                client_authentication: PUBLIC,
                encoding: Encoding::Json,
                parameters: map([("identifier", "someone")]),
                secret_parameters: map([("secret", "token")]),
                ..description()
            },
            credentials: Credentials {
                values: [("token".to_owned(), "dckr_pat_x".into())].into(),
                ..Credentials::default()
            },
            authorization: None,
            body: r#"{"grant_type":"password","identifier":"someone","secret":"dckr_pat_x"}"#,
            claims: None,
            status: 200,
            answer: json!({"access_token": "hub-token"}),
            lifetime: None,
            values: &[],
        },
        Row {
            vendor: "ServiceNow",
            page: "https://www.servicenow.com/docs/csh?topicname=c_OAuthApplications.html",
            token_url: "https://instance.service-now.com/oauth_token.do",
            description: RequestDescription {
                grant: custom("password"),
                client_authentication: ClientAuthentication::Post,
                secret_parameters: map([("username", "user"), ("password", "password")]),
                ..description()
            },
            credentials: Credentials {
                values: [("user".to_owned(), "admin".into()), ("password".to_owned(), "p w".into())].into(),
                ..client("id", "secret")
            },
            authorization: None,
            body: "grant_type=password&client_id=id&client_secret=secret&password=p%20w&username=admin",
            claims: None,
            status: 200,
            answer: json!({
                "access_token": "sn-token", "refresh_token": "sn-refresh", "scope": "useraccount",
                "token_type": "Bearer", "expires_in": 1799,
            }),
            lifetime: Some(1799),
            values: &[],
        },
        Row {
            vendor: "Microsoft Entra",
            page: "https://learn.microsoft.com/entra/identity-platform/certificate-credentials",
            token_url: "https://login.microsoftonline.com/contoso.com/oauth2/v2.0/token",
            description: RequestDescription {
                client_authentication: ClientAuthentication::PrivateKeyJwt(PrivateKeyJwt {
                    algorithm: Algorithm::Ps256,
                    key_id: None,
                    audience: None,
                    certificate: true,
                }),
                scopes: vec!["https://graph.microsoft.com/.default".into()],
                ..description()
            },
            credentials: Credentials {
                private_key: Some(RSA.into()),
                certificate: Some(RSA_CERTIFICATE.into()),
                client_id: Some("11112222-bbbb".into()),
                ..Credentials::default()
            },
            authorization: None,
            body: "grant_type=client_credentials&client_id=11112222-bbbb&client_assertion_type=\
                   urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion=JWT\
                   &scope=https%3A%2F%2Fgraph.microsoft.com%2F.default",
            claims: Some(json!({
                "iss": "11112222-bbbb", "sub": "11112222-bbbb",
                "aud": "https://login.microsoftonline.com/contoso.com/oauth2/v2.0/token",
                "iat": NOW - 10, "exp": NOW + 45, "jti": "one-time",
            })),
            status: 200,
            answer: json!({
                "token_type": "Bearer", "expires_in": 3599, "ext_expires_in": 3599,
                "access_token": "entra-token",
            }),
            lifetime: Some(3599),
            values: &[],
        },
        Row {
            vendor: "Auth0",
            page: "https://auth0.com/docs/get-started/authentication-and-authorization-flow/client-credentials-flow",
            token_url: "https://tenant.auth0.com/oauth/token",
            description: RequestDescription {
                client_authentication: ClientAuthentication::Post,
                audience: Some("https://api.example.com/".into()),
                ..description()
            },
            credentials: client("id", "secret"),
            authorization: None,
            body: "grant_type=client_credentials&client_id=id&client_secret=secret\
                   &audience=https%3A%2F%2Fapi.example.com%2F",
            claims: None,
            status: 200,
            answer: json!({"access_token": "auth0-token", "token_type": "Bearer", "expires_in": 86400}),
            lifetime: Some(86_400),
            values: &[],
        },
        Row {
            vendor: "SAP XSUAA",
            page: "https://github.com/cloudfoundry/uaa",
            token_url: "https://tenant.authentication.eu10.hana.ondemand.com/oauth/token",
            description: RequestDescription {
                client_authentication: ClientAuthentication::Basic(BasicEncoding::Percent),
                headers: map([("X-CF-ENCODED-CREDENTIALS", "true")]),
                ..description()
            },
            credentials: client("sb-app!t1", "a+b="),
            authorization: Some("Basic c2ItYXBwJTIxdDE6YSUyQmIlM0Q="),
            body: "grant_type=client_credentials",
            claims: None,
            status: 200,
            answer: json!({"access_token": "sap-token", "token_type": "bearer", "expires_in": 43199, "jti": "x"}),
            lifetime: Some(43_199),
            values: &[],
        },
        Row {
            vendor: "VNG Cloud v1",
            page: "https://github.com/vngcloud/terraform-provider-vngcloud",
            token_url: "https://iamapis.vngcloud.vn/accounts-api/v1/auth/token",
            description: RequestDescription {
                client_authentication: ClientAuthentication::Basic(BasicEncoding::Raw),
                encoding: Encoding::Json,
                parameters: map([("grantType", "client_credentials")]),
                response: ResponseMapping {
                    access_token: Some("/accessToken".parse().unwrap()),
                    expires_in: Some("/expiresIn".parse().unwrap()),
                    ..ResponseMapping::default()
                },
                ..description()
            },
            credentials: client("id", "secret"),
            authorization: Some("Basic aWQ6c2VjcmV0"),
            body: r#"{"grant_type":"client_credentials","grantType":"client_credentials"}"#,
            claims: None,
            status: 200,
            answer: json!({"accessToken": "vng-token", "expiresIn": 1800}),
            lifetime: Some(1800),
            values: &[],
        },
    ]
}

#[test]
fn every_vendor_is_asked_as_it_documents_and_understood() {
    for row in rows() {
        let vendor = row.vendor;
        assert!(row.page.starts_with("https://"));
        let description = RequestDescription { token_url: row.token_url.parse().unwrap(), ..row.description };
        let request = description.attempt(&row.credentials, &attempt()).unwrap();

        let mut body = request.body().expose_secret().to_owned();
        let assertion = body
            .split('&')
            .find_map(|member| member.strip_prefix("assertion=").or(member.strip_prefix("client_assertion=")))
            .map(str::to_owned);
        assert_eq!(assertion.is_some(), row.claims.is_some(), "{vendor}");
        if let (Some(assertion), Some(claims)) = (assertion, row.claims) {
            body = body.replace(&assertion, "JWT");
            assert_eq!(jwt(&assertion).1, claims, "{vendor}");
        }
        assert_eq!(body, row.body, "{vendor}");
        let authorization = request.headers().get("authorization").map(|value| value.to_str().unwrap());
        assert_eq!(authorization, row.authorization, "{vendor}");

        let status = StatusCode::from_u16(row.status).unwrap();
        let answer = read(status, &HeaderMap::new(), row.answer.to_string().as_bytes(), &request).unwrap();
        assert_eq!(answer.token_type, "Bearer", "{vendor}");
        assert_eq!(answer.lifetime(attempt().now, None).seconds, row.lifetime, "{vendor}");
        let values: Vec<(&str, &str)> =
            answer.values.iter().map(|(name, value)| (name.as_str(), value.expose_secret())).collect();
        assert_eq!(values, row.values, "{vendor}");
    }
}
