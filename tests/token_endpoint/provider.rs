//! Against a certified authorization server, over TLS.

use crate::support::authority::{Authority, Leaf};
use crate::support::authorization_server::{AuthorizationServer, ClientSpec};
use crate::{TIMEOUT, transport};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use rcgen::KeyPair;
use secrecy::ExposeSecret;
use serde_json::json;
use std::sync::OnceLock;
use token_endpoint::{
    Algorithm, Answer, Attempt, BasicEncoding, Class, ClientAuthentication, Credentials, Discovery, Encoding,
    Error, ErrorKind, Grant, PrivateKeyJwt, RequestDescription, Tls, Transport,
};

struct World {
    server: AuthorizationServer,
    authority: Authority,
    clients: Authority,
}

/// One server for all tests here; each has a client of its own.
fn world() -> &'static World {
    static WORLD: OnceLock<World> = OnceLock::new();
    WORLD.get_or_init(|| {
        let (authority, clients) = (Authority::new("servers"), Authority::new("clients"));
        let server = AuthorizationServer::start_tls(&authority, &clients);
        World { server, authority, clients }
    })
}

impl World {
    fn tls(&self) -> Tls {
        Tls::new(Some(&self.authority.pem), None).unwrap()
    }

    fn tls_as(&self, client: &Leaf) -> Tls {
        Tls::new(Some(&self.authority.pem), Some((&client.pem, &client.secret()))).unwrap()
    }

    fn discovered(&self, client_authentication: ClientAuthentication) -> RequestDescription {
        let issuer: token_endpoint::Issuer = self.server.issuer().parse().unwrap();
        RequestDescription {
            issuer: Some(issuer.clone()),
            ..RequestDescription::new(issuer.url().clone(), Grant::ClientCredentials, client_authentication)
        }
    }

    async fn request_token(
        &self,
        transport: &Transport,
        description: &RequestDescription,
        credentials: &Credentials,
        tls: &Tls,
    ) -> Result<Answer, Error> {
        let description = Discovery::new(transport.clone()).locate(description, tls, TIMEOUT).await?;
        let attempt = transport.attempt(&description.token_url);
        transport.send_over(&description.attempt(credentials, &attempt)?, tls, TIMEOUT).await
    }

    async fn is_valid(&self, answer: &Answer) -> bool {
        self.server.is_valid(answer.access_token.expose_secret()).await
    }
}

fn client(id: &str, secret: &str) -> Credentials {
    Credentials { client_id: Some(id.into()), client_secret: Some(secret.into()), ..Credentials::default() }
}

fn local() -> Transport {
    transport(&["127.0.0.1"])
}

#[tokio::test]
async fn provider_accepts_basic_and_post_secrets_at_discovered_endpoint() {
    let world = world();
    for (id, method, authentication) in [
        ("ba:sic", "client_secret_basic", ClientAuthentication::Basic(BasicEncoding::Percent)),
        ("po:st", "client_secret_post", ClientAuthentication::Post),
    ] {
        let secret = "s%+ &=:/\"secret";
        let spec = ClientSpec {
            id: id.to_owned(),
            secret: Some(secret.to_owned()),
            token_endpoint_auth_method: method,
            ..ClientSpec::default()
        };
        world.server.client(spec).await;
        let description = world.discovered(authentication);
        let answer =
            world.request_token(&local(), &description, &client(id, secret), &world.tls()).await.unwrap();
        assert_eq!(answer.expires_in, Some(300));
        assert!(world.is_valid(&answer).await);
        let error = world
            .request_token(&local(), &description, &client(id, "wrong"), &world.tls())
            .await
            .unwrap_err();
        assert_eq!((error.class(), error.kind()), (Class::Rejected, ErrorKind::ClientRejected));
    }
}

/// The public half as a JWK, and the private half as PEM.
fn key(algorithm: Algorithm) -> (serde_json::Value, String) {
    let (curve, alg) = match algorithm {
        Algorithm::Es256 => (&rcgen::PKCS_ECDSA_P256_SHA256, "ES256"),
        Algorithm::Es384 => (&rcgen::PKCS_ECDSA_P384_SHA384, "ES384"),
        Algorithm::EdDsa => (&rcgen::PKCS_ED25519, "EdDSA"),
        _ => {
            let certificate = include_str!("../../crates/token-endpoint/src/tests/keys/rsa-public.pem");
            let der: String = certificate.lines().filter(|line| !line.starts_with('-')).collect();
            let der = BASE64_STANDARD.decode(der).unwrap();
            // SubjectPublicKeyInfo of RSA with 2048 bits: the modulus is at 33, the exponent at the end.
            let n = BASE64_URL_SAFE_NO_PAD.encode(&der[33..33 + 256]);
            let jwk = json!({"kty": "RSA", "n": n, "e": "AQAB", "kid": "k"});
            return (jwk, include_str!("../../crates/token-endpoint/src/tests/keys/rsa.pem").to_owned());
        }
    };
    let pair = KeyPair::generate_for(curve).unwrap();
    let raw = rcgen::PublicKeyData::der_bytes(&pair);
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let jwk = if alg == "EdDSA" {
        json!({"kty": "OKP", "crv": "Ed25519", "x": encode(raw), "kid": "k"})
    } else {
        let (x, y) = raw[1..].split_at((raw.len() - 1) / 2);
        let crv = if alg == "ES256" { "P-256" } else { "P-384" };
        json!({"kty": "EC", "crv": crv, "x": encode(x), "y": encode(y), "kid": "k"})
    };
    (jwk, pair.serialize_pem())
}

#[tokio::test]
async fn provider_accepts_assertion_of_every_algorithm_once() {
    let (world, transport) = (world(), local());
    for algorithm in [
        Algorithm::Rs256,
        Algorithm::Rs384,
        Algorithm::Rs512,
        Algorithm::Ps256,
        Algorithm::Es256,
        Algorithm::Es384,
        Algorithm::EdDsa,
    ] {
        let (jwk, pem) = key(algorithm);
        let id = format!("signs-{algorithm}");
        let spec = ClientSpec {
            id: id.clone(),
            secret: None,
            token_endpoint_auth_method: "private_key_jwt",
            jwks: Some(json!({"keys": [jwk]})),
            ..ClientSpec::default()
        };
        world.server.client(spec).await;
        let method =
            PrivateKeyJwt { algorithm, key_id: Some("k".into()), audience: None, certificate: false };
        let description = world.discovered(ClientAuthentication::PrivateKeyJwt(method));
        let credentials =
            Credentials { client_id: Some(id), private_key: Some(pem.into()), ..Credentials::default() };
        for _ in 0..2 {
            let answer =
                world.request_token(&transport, &description, &credentials, &world.tls()).await.unwrap();
            assert!(world.is_valid(&answer).await, "{algorithm}");
        }

        let located =
            Discovery::new(transport.clone()).locate(&description, &world.tls(), TIMEOUT).await.unwrap();
        let attempt = transport.attempt(&located.token_url);
        let replayed = located.attempt(&credentials, &attempt).unwrap();
        assert!(transport.send_over(&replayed, &world.tls(), TIMEOUT).await.is_ok());
        let error = transport.send_over(&replayed, &world.tls(), TIMEOUT).await.unwrap_err();
        assert_eq!(error.code(), Some("invalid_client"), "a replay: {error}");
        let late = Attempt { now: "2020-01-01T00:00:00Z".parse().unwrap(), jti: "late".into() };
        let late = located.attempt(&credentials, &late).unwrap();
        assert!(transport.send_over(&late, &world.tls(), TIMEOUT).await.is_err());
    }
}

#[tokio::test]
async fn provider_accepts_client_certificate_and_its_renewal() {
    let (world, transport) = (world(), local());
    let spec = ClientSpec {
        id: "by-certificate".to_owned(),
        secret: None,
        token_endpoint_auth_method: "tls_client_auth",
        tls_client_auth_san_dns: Some("client.example.com".to_owned()),
        ..ClientSpec::default()
    };
    world.server.client(spec).await;
    let issue = |name: &str| world.clients.issue_client(name);
    let description = world.discovered(ClientAuthentication::Tls);
    let credentials = Credentials { client_id: Some("by-certificate".into()), ..Credentials::default() };
    // A renewed certificate is used at once, and the old one still works.
    let (first, renewed) = (issue("client.example.com"), issue("client.example.com"));
    for leaf in [&first, &renewed, &first] {
        let answer =
            world.request_token(&transport, &description, &credentials, &world.tls_as(leaf)).await.unwrap();
        assert!(world.is_valid(&answer).await);
    }
    for tls in [world.tls(), world.tls_as(&issue("other.example.com"))] {
        let error = world.request_token(&transport, &description, &credentials, &tls).await.unwrap_err();
        assert_eq!(error.code(), Some("invalid_client"), "{error}");
    }
}

#[tokio::test]
async fn provider_grants_registered_resource_only() {
    let world = world();
    let spec = ClientSpec {
        id: "resources".to_owned(),
        resources: Some(vec!["https://a.example.com".to_owned()]),
        access_token_format: "jwt",
        ..ClientSpec::default()
    };
    world.server.client(spec).await;
    let plain = world.discovered(ClientAuthentication::Basic(BasicEncoding::Percent));
    let asks = |resource: &str| RequestDescription { resources: vec![resource.to_owned()], ..plain.clone() };
    let credentials = client("resources", "secret");
    let answer = world
        .request_token(&local(), &asks("https://a.example.com"), &credentials, &world.tls())
        .await
        .unwrap();
    let claims = answer.access_token.expose_secret().split('.').nth(1).unwrap();
    let claims: serde_json::Value =
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
    assert_eq!(claims["aud"], "https://a.example.com");
    let error = world
        .request_token(&local(), &asks("https://b.example.com"), &credentials, &world.tls())
        .await
        .unwrap_err();
    assert_eq!((error.code(), error.kind()), (Some("invalid_target"), ErrorKind::RequestRejected));
}

#[tokio::test]
async fn provider_rotates_refresh_token_and_revokes_grant_on_reuse() {
    let (world, transport) = (world(), local());
    let spec = ClientSpec {
        id: "rotates".to_owned(),
        grant_types: vec!["refresh_token"],
        rotate_refresh_token: true,
        ..ClientSpec::default()
    };
    world.server.client(spec).await;
    let original = world.server.seed_refresh_token("rotates").await;
    let description = RequestDescription {
        grant: Grant::RefreshToken,
        encoding: Encoding::Form,
        ..world.discovered(ClientAuthentication::Basic(BasicEncoding::Percent))
    };
    let with = |token: &str| Credentials { refresh_token: Some(token.into()), ..client("rotates", "secret") };
    let first = world.request_token(&transport, &description, &with(&original), &world.tls()).await.unwrap();
    let second = first.refresh_token.as_ref().unwrap().expose_secret().to_owned();
    assert_ne!(second, original);
    let third = world.request_token(&transport, &description, &with(&second), &world.tls()).await.unwrap();
    let third_token = third.refresh_token.as_ref().unwrap().expose_secret().to_owned();
    for dead in [&original, &third_token] {
        let error =
            world.request_token(&transport, &description, &with(dead), &world.tls()).await.unwrap_err();
        assert_eq!((error.code(), error.kind()), (Some("invalid_grant"), ErrorKind::GrantRejected));
    }
    assert!(!world.is_valid(&third).await);
}
