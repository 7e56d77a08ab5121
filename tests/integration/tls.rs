//! `spec.tls`, against the authorization server over TLS.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use serde_json::{Value, json};

use super::oauth2::source;
use super::support::authorization_server::{AuthorizationServer, ClientSpec};
use super::support::control_plane::ControlPlane;
use super::support::operator::Operator;
use super::support::scene::Scene;

pub(super) struct Authority {
    pub(super) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
struct Pair {
    certificate: String,
    key: String,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

pub(super) fn authority(name: &str) -> Authority {
    let key = KeyPair::generate().unwrap();
    let mut params = params(name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    Authority { pem, issuer: Issuer::new(params, key) }
}

fn loopback() -> SanType {
    SanType::IpAddress([127, 0, 0, 1].into())
}

impl Authority {
    fn server(&self) -> Pair {
        let mut params = params("server");
        params.subject_alt_names = vec![loopback()];
        self.sign(params)
    }

    fn client(&self, name: &str) -> Pair {
        let mut params = params(name);
        params.subject_alt_names = vec![SanType::DnsName(name.try_into().unwrap())];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair { certificate, key: key.serialize_pem() }
    }
}

/// A scene whose server speaks TLS.
async fn scene(
    prefix: &str,
    start: impl FnOnce(&dyn Fn(&str, &str) -> PathBuf) -> AuthorizationServer,
) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let server = start(&file);
    let control_plane = ControlPlane::shared();
    let namespace = control_plane.namespace(prefix).await;
    // It ends with this process.
    Scene {
        namespace,
        control_plane,
        client: control_plane.client().await,
        server: Box::leak(Box::new(server)),
    }
}

async fn by_authority(prefix: &str, servers: &Authority, clients: &Authority) -> Scene {
    started_by(AuthorizationServer::start_tls, prefix, servers, clients).await
}

async fn started_by(
    start: fn(&Path, &Path, &Path, &str) -> AuthorizationServer,
    prefix: &str,
    servers: &Authority,
    clients: &Authority,
) -> Scene {
    let pair = servers.server();
    scene(prefix, |file| {
        start(
            &file("server.crt", &pair.certificate),
            &file("server.key", &pair.key),
            &file("clients.crt", &clients.pem),
            &servers.pem,
        )
    })
    .await
}

async fn config_map(scene: &Scene, name: &str, data: Value) {
    let metadata = json!({"name": name});
    scene.apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})).await;
}

async fn start(scene: &Scene) -> Operator {
    Operator::start_with(&scene.namespace, &["--egress-allow", "127.0.0.0/8"]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority() {
    let servers = authority("servers");
    let scene = by_authority("tls-authority", &servers, &authority("clients")).await;
    let client =
        ClientSpec { id: scene.namespace.clone(), secret: Some("right".into()), ..ClientSpec::default() };
    scene.server.client(client).await;
    scene.credentials("right").await;
    let _operator = start(&scene).await;
    let mut manifest = source(&scene, json!({"tokenURL": scene.server.vgs_token_url()}));
    scene.apply(manifest.clone()).await;
    scene.told("False EndpointUnavailable", &["not trusted", "spec.tls.caBundle"]).await;

    // The changed TokenSource is tried at once; nobody watches the ConfigMap, but it is looked for again and again.
    manifest["spec"]["tls"] = json!({"caBundle": {"configMapKeyRef": {"name": "roots", "key": "ca.crt"}}});
    scene.apply(manifest).await;
    scene.told("False SpecInvalid", &["key ca.crt of ConfigMap roots", "no such ConfigMap"]).await;
    config_map(&scene, "roots", json!({"other": "x"})).await;
    scene.told("False SpecInvalid", &["key ca.crt of ConfigMap roots", "no such key"]).await;
    config_map(&scene, "roots", json!({"ca.crt": "no certificate"})).await;
    let ask = async |value: &str| {
        let request = format!("tokensource.dev/refresh-requested-at={value}");
        scene.kubectl(&["annotate", "tokensource", "source", "--overwrite", &request], "").await;
    };
    ask("1").await;
    scene.told("False SpecInvalid", &["ConfigMap roots", "the CA bundle holds no certificate"]).await;
    assert_eq!(scene.mints().await, 0);
    config_map(&scene, "roots", json!({"ca.crt": servers.pem})).await;
    ask("2").await;
    scene.ready("True TokenValid").await;

    // The wrong roots: read anew at the next mint, and the old token stays.
    config_map(&scene, "roots", json!({"ca.crt": authority("others").pem})).await;
    ask("3").await;
    scene.told("True RefreshFailing", &["not trusted"]).await;
    assert_eq!(scene.mints().await, 1);

    // As while an authority is replaced: the old and the new one.
    let both = format!("{}{}", authority("others").pem, servers.pem);
    config_map(&scene, "roots", json!({"ca.crt": both})).await;
    scene.force_refresh("4").await;
    scene.ready("True TokenValid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_director_that_signs_for_itself() {
    let key = KeyPair::generate().unwrap();
    let mut params = params("vcd");
    params.subject_alt_names = vec![loopback()];
    // What such a server presents is both an authority and a server, which TLS libraries refuse.
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = params.self_signed(&key).unwrap().pem();
    let scene = scene("tls-director", |file| {
        let key = file("server.key", &key.serialize_pem());
        AuthorizationServer::start_self_signed(&file("server.crt", &certificate), &key)
    })
    .await;
    let client = ClientSpec {
        id: scene.namespace.clone(),
        secret: None,
        token_endpoint_auth_method: "none",
        grant_types: vec!["refresh_token"],
        tenant: Some("acme".into()),
        ..ClientSpec::default()
    };
    scene.server.client(client).await;
    let seed = scene.server.seed_refresh_token(&scene.namespace).await;
    scene.secret("credentials", &[("refresh_token", &seed)]).await;
    scene.secret("vcd", &[("certificate", &certificate)]).await;
    let _operator = start(&scene).await;
    let host = scene.server.url().trim_start_matches("https://");
    let mut manifest = scene.source(json!({}));
    manifest["spec"]["provider"] = json!({"vmwareCloudDirector": {"host": host, "tenant": "acme"}});
    scene.apply(manifest.clone()).await;
    scene.told("False EndpointUnavailable", &["it is self-signed", "spec.tls.caBundle"]).await;
    manifest["spec"]["tls"] = json!({"caBundle": {"secretKeyRef": {"name": "vcd", "key": "certificate"}}});
    scene.apply(manifest).await;
    let token = scene.new_token(None).await;
    assert!(scene.server.is_valid(&token).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_and_its_rotation() {
    let (servers, clients) = (authority("servers"), authority("clients"));
    let scene = by_authority("tls-client", &servers, &clients).await;
    let client = ClientSpec {
        id: scene.namespace.clone(),
        secret: None,
        token_endpoint_auth_method: "tls_client_auth",
        tls_client_auth_san_dns: Some("client.example.com".into()),
        ..ClientSpec::default()
    };
    scene.server.client(client).await;
    scene.secret("credentials", &[("client_id", &scene.namespace)]).await;
    config_map(&scene, "roots", json!({"ca.crt": servers.pem})).await;
    let flags = ["--egress-allow", "127.0.0.0/8", "--log-level", "trace"];
    let operator = Operator::start_with(&scene.namespace, &flags).await;
    let mut manifest =
        source(&scene, json!({"issuer": scene.server.issuer(), "clientAuthentication": {"tls": {}}}));
    manifest["spec"]["tls"] = json!({
        "caBundle": {"configMapKeyRef": {"name": "roots", "key": "ca.crt"}},
        "clientCertificateRef": {"name": "client"},
    });
    scene.apply(manifest).await;
    scene
        .told("False SpecInvalid", &["spec.tls.clientCertificateRef, Secret client", "no such Secret"])
        .await;

    let (first, second) = (clients.client("client.example.com"), clients.client("client.example.com"));
    scene.secret("client", &[("tls.crt", &first.certificate), ("tls.key", &second.key)]).await;
    scene.told("False SpecInvalid", &["Secret client", "is not that of the private key"]).await;
    scene.secret("client", &[("tls.crt", &first.certificate), ("tls.key", &first.key)]).await;
    let token = scene.new_token(None).await;
    assert!(scene.server.is_valid(&token).await);
    let last = scene.server.requests(&scene.namespace).await.last.unwrap();
    assert_eq!(last.parameters, ["grant_type", "client_id"]);

    // A certificate that the server does not take, and one that it does: without a restart.
    let other = clients.client("other.example.com");
    scene.secret("client", &[("tls.crt", &other.certificate), ("tls.key", &other.key)]).await;
    let ask = |value: &str| format!("tokensource.dev/refresh-requested-at={value}");
    scene.kubectl(&["annotate", "tokensource", "source", &ask("1")], "").await;
    scene.told("True RefreshFailing", &["invalid_client"]).await;
    scene.secret("client", &[("tls.crt", &second.certificate), ("tls.key", &second.key)]).await;
    scene.force_refresh("2").await;
    scene.ready("True TokenValid").await;
    let log = operator.stop().await;
    for line in [first, second, other].iter().flat_map(|pair| pair.key.lines()) {
        assert!(line.starts_with("-----") || !log.contains(line), "a key is told");
    }
}

/// A server that asks for certificates at an endpoint of its own says so in its metadata (RFC 8705, 5).
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_for_client_certificates() {
    let (servers, clients) = (authority("servers"), authority("clients"));
    let scene = started_by(AuthorizationServer::start_mtls_alias, "tls-alias", &servers, &clients).await;
    let client = ClientSpec {
        id: scene.namespace.clone(),
        secret: None,
        token_endpoint_auth_method: "tls_client_auth",
        tls_client_auth_san_dns: Some("client.example.com".into()),
        ..ClientSpec::default()
    };
    scene.server.client(client).await;
    scene.secret("credentials", &[("client_id", &scene.namespace)]).await;
    config_map(&scene, "roots", json!({"ca.crt": servers.pem})).await;
    let pair = clients.client("client.example.com");
    scene.secret("client", &[("tls.crt", &pair.certificate), ("tls.key", &pair.key)]).await;
    let _operator = start(&scene).await;
    let apply = async |endpoint: Value| {
        let mut oauth2 = endpoint;
        oauth2["clientAuthentication"] = json!({"tls": {}});
        let mut manifest = source(&scene, oauth2);
        manifest["spec"]["tls"] = json!({
            "caBundle": {"configMapKeyRef": {"name": "roots", "key": "ca.crt"}},
            "clientCertificateRef": {"name": "client"},
        });
        scene.apply(manifest).await;
    };
    // The endpoint for everybody asks for no certificate, so it sees none.
    apply(json!({"tokenURL": scene.server.vgs_token_url()})).await;
    scene.told("False ClientRejected", &["invalid_client"]).await;
    apply(json!({"issuer": scene.server.issuer()})).await;
    let token = scene.new_token(None).await;
    assert!(scene.server.is_valid(&token).await);
}
