use super::keys::{P256, RSA, RSA_CERTIFICATE, google_key_file};
use super::{credentials, description};
use crate::{
    Algorithm, Attempt, ClientAuthentication, Credential, Credentials, Encoding, Grant, JwtBearer,
    PrivateKeyJwt, RESERVED_CLAIMS, RequestDescription, RequestError, TokenExchange, TokenRequest,
};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub(super) fn attempt() -> Attempt {
    Attempt { now: "2026-11-22T05:00:00Z".parse().unwrap(), jti: "one-time".into() }
}

pub(super) const NOW: i64 = 1_795_323_600;

pub(super) fn body(request: &TokenRequest) -> &str {
    request.body().expose_secret()
}

pub(super) fn members(request: &TokenRequest) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(body(request).as_bytes()).into_owned().collect()
}

/// Header and claims.
pub(super) fn jwt(text: &str) -> (Value, Value) {
    let parts: Vec<&str> = text.split('.').collect();
    assert_eq!(parts.len(), 3, "{text}");
    let part = |part| serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap();
    (part(parts[0]), part(parts[1]))
}

pub(super) fn map<const N: usize>(entries: [(&str, &str); N]) -> BTreeMap<String, String> {
    entries.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

fn private_key_jwt(algorithm: Algorithm) -> PrivateKeyJwt {
    PrivateKeyJwt { algorithm, key_id: None, audience: None, certificate: false }
}

fn with_key(key: &str) -> Credentials {
    Credentials { private_key: Some(key.into()), ..credentials() }
}

fn authenticated(method: PrivateKeyJwt) -> RequestDescription {
    RequestDescription { client_authentication: ClientAuthentication::PrivateKeyJwt(method), ..description() }
}

#[test]
fn client_assertion_has_claims_of_rfc_7523() {
    let description = authenticated(private_key_jwt(Algorithm::Es256));
    let request = description.attempt(&with_key(P256), &attempt()).unwrap();
    let (members_part, assertion) = body(&request).rsplit_once('=').unwrap();
    assert_eq!(
        members_part,
        "grant_type=client_credentials&client_id=the-client-id&client_assertion_type=\
         urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion"
    );
    let (header, claims) = jwt(assertion);
    assert_eq!(header, json!({"alg": "ES256", "typ": "JWT"}));
    assert_eq!(
        claims,
        json!({
            "iss": "the-client-id",
            "sub": "the-client-id",
            "aud": "https://idp.example.com/oauth/token",
            "iat": NOW - 10,
            "exp": NOW + 45,
            "jti": "one-time",
        })
    );
    assert!(request.headers().get("authorization").is_none());
    assert!(!request.spends_credential());
}

#[test]
fn client_assertion_rs256_equals_openssl_signature() {
    let request = authenticated(private_key_jwt(Algorithm::Rs256)).attempt(&with_key(RSA), &attempt());
    // The signature was made with `openssl dgst -sha256 -sign rsa.pem`.
    assert_eq!(members(&request.unwrap())["client_assertion"], include_str!("keys/assertion.jwt").trim());
}

#[test]
fn assertion_audience_is_configured_or_issuer_or_endpoint() {
    let audience = |description: &RequestDescription| {
        let request = description.attempt(&with_key(P256), &attempt()).unwrap();
        jwt(&members(&request)["client_assertion"]).1["aud"].clone()
    };
    let plain = authenticated(private_key_jwt(Algorithm::Es256));
    assert_eq!(audience(&plain), "https://idp.example.com/oauth/token");
    let issuer = Some("https://idp.example.com".parse().unwrap());
    let discovered = RequestDescription { issuer, ..plain };
    assert_eq!(audience(&discovered), "https://idp.example.com"); // unchanged, without a slash
    let configured =
        PrivateKeyJwt { audience: Some("https://aud.example".into()), ..private_key_jwt(Algorithm::Es256) };
    let client_authentication = ClientAuthentication::PrivateKeyJwt(configured);
    assert_eq!(audience(&RequestDescription { client_authentication, ..discovered }), "https://aud.example");
}

#[test]
fn client_assertion_with_certificate_has_thumbprint() {
    let method =
        PrivateKeyJwt { key_id: Some("k1".into()), certificate: true, ..private_key_jwt(Algorithm::Ps256) };
    let description = authenticated(method);
    let credentials = Credentials { certificate: Some(RSA_CERTIFICATE.to_owned()), ..with_key(RSA) };
    let request = description.attempt(&credentials, &attempt()).unwrap();
    let (header, _) = jwt(&members(&request)["client_assertion"]);
    let thumbprint = include_str!("keys/rsa-certificate.x5t-s256").trim();
    assert_eq!(header, json!({"alg": "PS256", "typ": "JWT", "kid": "k1", "x5t#S256": thumbprint}));

    let refused = |certificate: Option<&str>, key| {
        let credentials = Credentials { certificate: certificate.map(str::to_owned), ..with_key(key) };
        description.attempt(&credentials, &attempt()).unwrap_err()
    };
    assert_eq!(refused(None, RSA), RequestError::Missing(Credential::Certificate));
    assert!(matches!(refused(Some(RSA), RSA), RequestError::Certificate("is not PEM of a certificate")));
    let other = rcgen::generate_simple_self_signed(["x".to_owned()]).unwrap().cert.pem();
    assert!(
        matches!(refused(Some(&other), RSA), RequestError::Certificate(problem) if problem.contains("not that"))
    );
}

#[test]
fn request_with_two_assertions_has_different_ids() {
    let description = RequestDescription {
        grant: Grant::JwtBearer(Box::new(JwtBearer {
            algorithm: Algorithm::Es256,
            subject: Some("subject-1".into()),
            ..JwtBearer::default()
        })),
        ..authenticated(private_key_jwt(Algorithm::Es256))
    };
    let request = description.attempt(&with_key(P256), &attempt()).unwrap();
    let members = members(&request);
    let (grant, client) = (jwt(&members["assertion"]).1, jwt(&members["client_assertion"]).1);
    assert_eq!(grant["jti"], "one-time-grant");
    assert_eq!(client["jti"], "one-time");
    assert_eq!((&grant["iss"], &grant["sub"]), (&json!("the-client-id"), &json!("subject-1")));
}

#[test]
fn assertion_lifetime_is_clamped_to_an_hour() {
    for (lifetime, lives) in [(0, 1), (45, 45), (60, 60), (3590, 3590), (3600, 3590), (u64::MAX, 3590)] {
        let grant = JwtBearer { lifetime, algorithm: Algorithm::Es256, ..JwtBearer::default() };
        let description = RequestDescription { grant: Grant::JwtBearer(Box::new(grant)), ..description() };
        let request = description.attempt(&with_key(P256), &attempt()).unwrap();
        let claims = jwt(&members(&request)["assertion"]).1;
        assert_eq!(claims["exp"].as_i64().unwrap() - NOW, lives, "{lifetime}");
    }
}

#[test]
fn assertion_reserved_claim_is_refused() {
    assert!(RESERVED_CLAIMS.is_sorted());
    for claim in RESERVED_CLAIMS {
        let claims = serde_json::Map::from_iter([((*claim).to_owned(), json!("x"))]);
        let grant = Grant::JwtBearer(Box::new(JwtBearer { claims, ..JwtBearer::default() }));
        let error = RequestDescription { grant, ..description() }.attempt(&with_key(RSA), &attempt());
        assert_eq!(error.unwrap_err(), RequestError::ReservedClaim((*claim).to_owned()));
    }
}

#[test]
fn request_that_signs_needs_attempt_and_key() {
    let description = authenticated(private_key_jwt(Algorithm::Rs256));
    assert!(description.signs() && !super::description().signs());
    assert_eq!(description.request(&with_key(RSA)).unwrap_err(), RequestError::NotAnAttempt);
    let error = description.attempt(&credentials(), &attempt()).unwrap_err();
    assert_eq!(error, RequestError::Missing(Credential::PrivateKey));
    let error = description.attempt(&with_key(P256), &attempt()).unwrap_err();
    assert!(matches!(error, RequestError::Key(_)), "{error:?}");
}

#[test]
fn request_with_undiscovered_issuer_is_refused() {
    let issuer: crate::Issuer = "https://idp.example.com/realm".parse().unwrap();
    let description =
        RequestDescription { token_url: issuer.url().clone(), issuer: Some(issuer), ..description() };
    assert_eq!(description.request(&credentials()).unwrap_err(), RequestError::NotDiscovered);
}

/// RFC 8693, 2.3.
#[test]
fn token_exchange_equals_example_of_rfc_8693() {
    let description = RequestDescription {
        grant: Grant::TokenExchange(TokenExchange {
            subject_token_type: "urn:ietf:params:oauth:token-type:access_token".into(),
            actor_token_type: None,
            requested_token_type: None,
        }),
        resources: vec!["https://backend.example.com/api".into()],
        ..description()
    };
    let credentials = Credentials {
        client_id: Some("rs08".into()),
        client_secret: Some("long-secure-random-secret".into()),
        subject_token: Some("accVkjcJyb4BWCxGsndESCJQbdFMogUC5PbRDqceLTC".into()),
        ..Credentials::default()
    };
    let request = description.request(&credentials).unwrap();
    assert_eq!(request.headers()["authorization"], "Basic cnMwODpsb25nLXNlY3VyZS1yYW5kb20tc2VjcmV0");
    let rfc = "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange\
               &resource=https%3A%2F%2Fbackend.example.com%2Fapi\
               &subject_token=accVkjcJyb4BWCxGsndESCJQbdFMogUC5PbRDqceLTC\
               &subject_token_type=urn%3Aietf%3Aparams%3Aoauth%3Atoken-type%3Aaccess_token";
    let sorted = |text: &str| {
        let mut parts: Vec<String> = text.split('&').map(str::to_owned).collect();
        parts.sort();
        parts
    };
    assert_eq!(sorted(body(&request)), sorted(rfc));

    let with_actor = TokenExchange {
        subject_token_type: "urn:ietf:params:oauth:token-type:jwt".into(),
        actor_token_type: Some("urn:ietf:params:oauth:token-type:jwt".into()),
        requested_token_type: Some("urn:ietf:params:oauth:token-type:access_token".into()),
    };
    let description = RequestDescription {
        grant: Grant::TokenExchange(with_actor),
        audience: Some("payments".into()),
        ..description
    };
    let missing = description.request(&credentials).unwrap_err();
    assert_eq!(missing, RequestError::Missing(Credential::ActorToken));
    let credentials = Credentials { actor_token: Some("actor-1".into()), ..credentials };
    let members = members(&description.request(&credentials).unwrap());
    assert_eq!(members["actor_token"], "actor-1");
    assert_eq!(members["actor_token_type"], "urn:ietf:params:oauth:token-type:jwt");
    assert_eq!(members["requested_token_type"], "urn:ietf:params:oauth:token-type:access_token");
    assert_eq!(members["audience"], "payments");
}

/// RFC 8707, 2.
#[test]
fn request_several_resources_are_repeated_or_an_array() {
    let resources: Vec<String> =
        ["https://cal.example.com/", "https://contacts.example.com/"].map(Into::into).into();
    let form = RequestDescription { resources: resources.clone(), ..description() };
    assert_eq!(
        body(&form.request(&credentials()).unwrap()),
        "grant_type=client_credentials&resource=https%3A%2F%2Fcal.example.com%2F\
         &resource=https%3A%2F%2Fcontacts.example.com%2F"
    );
    let json = RequestDescription { encoding: Encoding::Json, ..form };
    assert_eq!(
        body(&json.request(&credentials()).unwrap()),
        r#"{"grant_type":"client_credentials","resource":["https://cal.example.com/","https://contacts.example.com/"]}"#
    );
    let guid = RequestDescription {
        resources: vec!["00000003-0000-0000-C000-000000000000".into()],
        ..description()
    };
    assert!(
        body(&guid.request(&credentials()).unwrap())
            .ends_with("&resource=00000003-0000-0000-C000-000000000000")
    );
    for resource in ["relative", "https://a.example/#fragment", "", "00000003-0000-0000-C000-00000000000g"] {
        let description = RequestDescription { resources: vec![resource.into()], ..description() };
        let error = description.request(&credentials()).unwrap_err();
        assert_eq!(error, RequestError::Resource(resource.into()));
    }
}

#[test]
fn request_secret_parameters_and_headers_are_read_from_credentials() {
    let description = RequestDescription {
        grant: Grant::Custom { grant_type: "acme".into(), assertion: None },
        parameters: map([("b", "2")]),
        secret_parameters: map([("apikey", "api_key")]),
        headers: map([("X-Tenant", "acme"), ("Accept", "application/vnd.acme+json")]),
        secret_headers: map([("X-Api-Key", "api_key")]),
        ..description()
    };
    let missing = description.request(&credentials()).unwrap_err();
    assert_eq!(missing, RequestError::MissingValue("api_key".into()));
    let values = [("api_key".to_owned(), "k-4711".into())].into();
    let credentials = Credentials { values, ..credentials() };
    let request = description.request(&credentials).unwrap();
    assert_eq!(body(&request), "grant_type=acme&apikey=k-4711&b=2");
    assert_eq!(request.headers()["x-tenant"], "acme");
    assert_eq!(request.headers()["accept"], "application/vnd.acme+json");
    assert_eq!(request.headers()["x-api-key"], "k-4711");
    assert!(request.headers()["x-api-key"].is_sensitive());
    assert!(!format!("{request:?} {credentials:?}").contains("k-4711"));

    for parameters in [map([("assertion", "api_key")]), map([("b", "api_key")])] {
        let description = RequestDescription { secret_parameters: parameters, ..description.clone() };
        assert!(matches!(description.request(&credentials).unwrap_err(), RequestError::Reserved(_)));
    }
    for (name, value) in [("X-A", "a\r\nb: c"), ("X-A", "a\0")] {
        let description = RequestDescription { headers: map([(name, value)]), ..description.clone() };
        let error = description.request(&credentials).unwrap_err();
        assert_eq!(error, RequestError::HeaderValue(name.into()));
    }
}

#[test]
fn request_refused_header_is_an_error() {
    assert!(crate::REFUSED_HEADERS.is_sorted());
    for name in [
        "Authorization",
        "authorization",
        "Cookie",
        "Host",
        "Content-Type",
        "Content-Length",
        "Connection",
        "Transfer-Encoding",
        "TE",
        "Trailer",
        "Upgrade",
        "Expect",
        "Proxy-Authorization",
        "Forwarded",
        "X-Forwarded-For",
        "Metadata",
        "Metadata-Flavor",
        "X-aws-ec2-metadata-token",
        "Impersonate-User",
        "X Y",
        "",
    ] {
        let description = RequestDescription { headers: map([(name, "x")]), ..description() };
        let error = description.request(&credentials()).unwrap_err();
        assert_eq!(error, RequestError::RefusedHeader(name.into()));
    }
    for name in ["X-Tenant", "Accept", "Content", "X-Forwarded"] {
        assert!(!crate::is_refused_header(name), "{name}");
    }
}

#[test]
fn request_tls_client_sends_only_client_id() {
    let description =
        RequestDescription { client_authentication: ClientAuthentication::Tls, ..description() };
    let request = description.request(&credentials()).unwrap();
    assert_eq!(body(&request), "grant_type=client_credentials&client_id=the-client-id");
    assert!(request.headers().get("authorization").is_none());
}

#[test]
fn jwt_bearer_google_key_file_needs_no_further_configuration() {
    let description = RequestDescription {
        grant: Grant::JwtBearer(Box::default()),
        client_authentication: ClientAuthentication::None,
        scopes: vec!["https://www.googleapis.com/auth/devstorage.read_only".into()],
        ..description()
    };
    let credentials = Credentials { private_key: Some(google_key_file().into()), ..Credentials::default() };
    let request = description.attempt(&credentials, &attempt()).unwrap();
    let members = members(&request);
    assert_eq!(members.keys().collect::<Vec<_>>(), ["assertion", "grant_type"]);
    let (header, claims) = jwt(&members["assertion"]);
    assert_eq!(header["kid"], "0123456789abcdef");
    assert_eq!(claims["scope"], "https://www.googleapis.com/auth/devstorage.read_only");
}
