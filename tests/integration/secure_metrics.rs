//! Metrics over TLS, for authorized scrapers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::support::account::kubeconfig_of;
use super::support::chart::{Account, install};
use super::support::eventually;
use super::support::operator::Operator;
use super::support::scene::{SOON, Scene};

/// Verifies nothing, as a scraper with `insecureSkipVerify`.
#[derive(Debug)]
struct AnyServer;

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// Status and body of a request with this bearer token.
async fn get(operator: &Operator, path: &str, token: Option<&str>) -> (u16, String) {
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer))
        .with_no_client_auth();
    let stream = TcpStream::connect(operator.admin_address()).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let authorization = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let head = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{authorization}Connection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    stream.read_to_end(&mut response).await.unwrap();
    let response = String::from_utf8(response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

/// The token in a kubeconfig of a ServiceAccount.
async fn token_of(scene: &Scene, account: &str) -> String {
    scene.apply(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}})).await;
    let folder = kubeconfig_of(&scene.namespace, account).await;
    let text = std::fs::read_to_string(folder.path().join("kubeconfig")).unwrap();
    let kubeconfig: serde_json::Value = serde_json::from_str(&text).unwrap();
    kubeconfig["users"][0]["user"]["token"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn secure_metrics_are_served_to_authorized_scrapers_alone() {
    let scene = Scene::bare("secure-metrics").await;
    let name = &scene.namespace;
    let values = json!({
        "crds": {"enabled": false},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
        "metrics": {"secure": true},
    });
    install(name, values).await;
    let reader = format!("--clusterrole=tokensource-operator.{name}-metrics-reader");
    let binding =
        ["create", "clusterrolebinding", name, &reader, &format!("--serviceaccount={name}:scraper")];
    scene.kubectl(&binding, "").await;
    let (scraper, other) = (token_of(&scene, "scraper").await, token_of(&scene, "other").await);
    let account = Account::of(name).await;
    for (who, what) in [
        (account.user.as_str(), ["create", "tokenreviews.authentication.k8s.io"]),
        (&format!("system:serviceaccount:{name}:scraper"), ["get", "/metrics"]),
    ] {
        let question = ["auth", "can-i", what[0], what[1], &format!("--as={who}")];
        eventually("the rights take effect", SOON, async || scene.try_kubectl(&question, "").await).await;
    }
    let selector = format!("kubernetes.io/metadata.name={name}");
    let flags = [
        &["run", "--admin-address", "127.0.0.1:0", "--metrics-secure", "--leader-election-namespace", name][..],
        &["--namespace-selector", &selector],
    ];
    let operator = Operator::launch(&account.kubeconfig(), "secure", &flags.concat()).await;

    assert_eq!(get(&operator, "/livez", None).await, (200, "ok".to_owned()));
    assert_eq!(get(&operator, "/metrics", None).await.0, 401);
    for _ in 0..50 {
        assert_eq!(get(&operator, "/metrics", Some("wrong")).await.0, 401);
        assert_eq!(get(&operator, "/metrics", Some(&other)).await.0, 403);
    }
    let mut body = String::new();
    for _ in 0..10 {
        let (status, metrics) = get(&operator, "/metrics", Some(&scraper)).await;
        assert_eq!(status, 200, "{metrics}");
        body = metrics;
    }
    let count = |resource: &str| {
        let start = format!("tokensource_kubernetes_requests_total{{verb=\"create\",resource=\"{resource}\"");
        let line = body.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{body}"));
        line.rsplit_once(' ').unwrap().1.to_owned()
    };
    // Once for each token, and for each user.
    assert_eq!((count("tokenreviews"), count("subjectaccessreviews")), ("3".to_owned(), "2".to_owned()));
    // Neither a handshake nor a head that does not come occupies a connection for long.
    let began = Instant::now();
    let mut silent = TcpStream::connect(operator.admin_address()).await.unwrap();
    timeout(SOON, silent.read_to_end(&mut vec![])).await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let log = operator.log();
    assert!(!log.contains(&scraper) && !log.contains(&other));
}
