//! Server and client certificates of the transport.

use crate::support::authority::{Authority, Leaf};
use crate::support::process::{RUN_LIMIT, first_line, wait_within};
use crate::{TIMEOUT, TOKEN, request, transport};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientCertVerifierBuilder, WebPkiClientVerifier};
use secrecy::{ExposeSecret, SecretString};
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use token_endpoint::limits::{
    MAX_BUNDLE, MAX_BUNDLE_CERTIFICATES, MAX_CHAIN, MAX_CHAIN_CERTIFICATES, MAX_CREDENTIAL,
};
use token_endpoint::transport::install_crypto_provider;
use token_endpoint::{
    Answer, CertificateProblem, Class, Egress, EgressRefused, Error, ErrorKind, Grant, Hint, KeyError, Tls,
    TlsError, Transport,
};

pub(crate) struct Server {
    pub(crate) port: u16,
    connections: Arc<AtomicUsize>,
}

/// Asks clients for a certificate of this authority.
pub(crate) fn clients_of(authority: &Authority) -> ClientCertVerifierBuilder {
    install_crypto_provider();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der.clone()).unwrap();
    WebPkiClientVerifier::builder(roots.into())
}

/// Without `clients`, none is asked for a certificate.
pub(crate) fn server_config(
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    clients: Option<ClientCertVerifierBuilder>,
) -> Arc<ServerConfig> {
    install_crypto_provider();
    let builder = ServerConfig::builder();
    let builder = match clients {
        Some(clients) => builder.with_client_cert_verifier(clients.build().unwrap()),
        None => builder.with_no_client_auth(),
    };
    Arc::new(builder.with_single_cert(vec![certificate], key).unwrap())
}

/// Answers every request with a token. With `clients`, only to clients with a certificate of that authority.
pub(crate) fn serve(leaf: &Leaf, clients: Option<&Authority>) -> Server {
    let key = PrivatePkcs8KeyDer::from(leaf.key.serialize_der()).into();
    let config = server_config(leaf.der.clone(), key, clients.map(clients_of));
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = Arc::new(AtomicUsize::new(0));
    let opened = Arc::clone(&connections);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            opened.fetch_add(1, Ordering::Relaxed);
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            std::thread::spawn(move || answer(connection, stream?));
        }
    });
    Server { port, connections }
}

fn answer(connection: rustls::ServerConnection, stream: std::net::TcpStream) -> std::io::Result<()> {
    let mut tls = rustls::StreamOwned::new(connection, stream);
    let mut buffer = [0; 4096];
    loop {
        if tls.read(&mut buffer)? == 0 {
            return Ok(());
        }
        write!(tls, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{TOKEN}", TOKEN.len())?;
        tls.flush()?;
    }
}

pub(crate) fn roots(pem: &str) -> Tls {
    Tls::new(Some(pem), None).unwrap()
}

async fn ask(transport: &Transport, server: &Server, tls: &Tls) -> Result<Answer, Error> {
    ask_host(transport, "127.0.0.1", server, tls).await
}

async fn ask_host(transport: &Transport, host: &str, server: &Server, tls: &Tls) -> Result<Answer, Error> {
    let url = format!("https://{host}:{}/token", server.port);
    transport.send_over(&request(&url, Grant::ClientCredentials), tls, TIMEOUT).await
}

fn assert_untrusted(result: Result<Answer, Error>, expected: CertificateProblem) {
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Certificate { problem, .. } if problem == expected), "{error:?}");
    assert_eq!((error.class(), error.kind()), (Class::Rejected, ErrorKind::Unavailable));
    let hint = match expected {
        CertificateProblem::SelfSigned => Some(Hint::TrustCertificate),
        CertificateProblem::UnknownAuthority => Some(Hint::TrustAuthority),
        _ => None,
    };
    assert_eq!(error.hint(), hint);
    assert!(!error.outcome_unknown());
}

#[tokio::test]
async fn tls_ca_bundle_replaces_system_roots() {
    let (trusted, other) = (Authority::new("trusted"), Authority::new("other"));
    let server = serve(&trusted.issue(|_| ()), None);
    let transport = transport(&["127.0.0.1"]);
    assert_eq!(
        ask(&transport, &server, &roots(&trusted.pem)).await.unwrap().access_token.expose_secret(),
        "t"
    );
    let both = format!("# two\n{}\n{}", other.pem, trusted.pem);
    assert!(ask(&transport, &server, &roots(&both)).await.is_ok());
    for tls in [roots(&other.pem), Tls::default()] {
        assert_untrusted(ask(&transport, &server, &tls).await, CertificateProblem::UnknownAuthority);
    }
}

#[tokio::test]
async fn tls_ca_bundle_is_refused_by_choice() {
    let trusted = Authority::new("trusted");
    let server = serve(&trusted.issue(|_| ()), None);
    let egress = Egress::new(vec!["127.0.0.1".parse().unwrap()], None, true, Vec::new());
    let egress = Arc::new(egress.without_custom_roots());
    let transport = Transport::new(egress, "token-endpoint/test").unwrap();
    let error = ask(&transport, &server, &roots(&trusted.pem)).await.unwrap_err();
    assert!(matches!(error, Error::Egress(EgressRefused::CustomRoots)), "{error:?}");
    assert_eq!(server.connections.load(Ordering::Relaxed), 0);
    // A client certificate is none.
    let client = trusted.issue_client("client");
    let tls = Tls::new(None, Some((&client.pem, &client.key.serialize_pem().into()))).unwrap();
    assert_untrusted(ask(&transport, &server, &tls).await, CertificateProblem::UnknownAuthority);
}

#[tokio::test]
async fn tls_untrusted_certificate_error_says_why() {
    let trusted = Authority::new("trusted");
    let long_ago = |params: &mut CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let to_come = |params: &mut CertificateParams| params.not_before = rcgen::date_time_ymd(2090, 1, 1);
    let elsewhere = |params: &mut CertificateParams| {
        params.subject_alt_names = vec![SanType::DnsName("idp.example.com".try_into().unwrap())];
    };
    let nameless = |params: &mut CertificateParams| params.subject_alt_names.clear();
    let for_clients = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    };
    let transport = transport(&["127.0.0.1"]);
    let tls = roots(&trusted.pem);
    for (leaf, problem) in [
        (trusted.issue(long_ago), CertificateProblem::Expired),
        (trusted.issue(to_come), CertificateProblem::NotYetValid),
        (trusted.issue(elsewhere), CertificateProblem::OtherName),
        (trusted.issue(nameless), CertificateProblem::NoName),
        (trusted.issue(for_clients), CertificateProblem::NotForServers),
        (Leaf::self_signed(|_| ()), CertificateProblem::SelfSigned),
    ] {
        assert_untrusted(ask(&transport, &serve(&leaf, None), &tls).await, problem);
    }
}

#[tokio::test]
async fn tls_self_signed_certificate_in_bundle_is_trusted() {
    let transport = transport(&["127.0.0.1"]);
    // RFC 5280, 4.1.2.5: without an end.
    let endless = Leaf::self_signed(|params| params.not_after = rcgen::date_time_ymd(9999, 12, 31));
    assert!(ask(&transport, &serve(&endless, None), &roots(&endless.pem)).await.is_ok());
    let leaf = Leaf::self_signed(|_| ());
    let server = serve(&leaf, None);
    assert!(ask(&transport, &server, &roots(&leaf.pem)).await.is_ok());
    assert_untrusted(
        ask_host(&transport, "localhost", &server, &roots(&leaf.pem)).await,
        CertificateProblem::OtherName,
    );
    assert_untrusted(
        ask(&transport, &server, &roots(&Leaf::self_signed(|_| ()).pem)).await,
        CertificateProblem::SelfSigned,
    );

    for (leaf, problem) in [
        (
            Leaf::self_signed(|params| params.not_after = rcgen::date_time_ymd(2020, 1, 1)),
            CertificateProblem::Expired,
        ),
        (
            Leaf::self_signed(|params| params.not_before = rcgen::date_time_ymd(2090, 1, 1)),
            CertificateProblem::NotYetValid,
        ),
        (Leaf::self_signed(|params| params.subject_alt_names.clear()), CertificateProblem::NoName),
    ] {
        assert_untrusted(ask(&transport, &serve(&leaf, None), &roots(&leaf.pem)).await, problem);
    }
}

#[tokio::test]
async fn tls_client_certificate_of_known_authority_is_accepted() {
    let (trusted, other) = (Authority::new("trusted"), Authority::new("other"));
    let server = serve(&trusted.issue(|_| ()), Some(&trusted));
    let transport = transport(&["127.0.0.1"]);
    let client = trusted.issue_client("client");
    let tls = |client: &Leaf| Tls::new(Some(&trusted.pem), Some((&client.pem, &client.secret()))).unwrap();
    assert!(tls(&client).has_client_certificate());
    assert!(ask(&transport, &server, &tls(&client)).await.is_ok());

    for tls in [roots(&trusted.pem), tls(&other.issue_client("client"))] {
        let error = ask(&transport, &server, &tls).await.unwrap_err();
        assert!(matches!(error, Error::ClientCertificate { .. }), "{error:?}");
        assert_eq!((error.class(), error.kind()), (Class::Rejected, ErrorKind::ClientRejected));
        assert!(error.to_string().contains("does not accept the client certificate"), "{error}");
    }
}

#[tokio::test]
async fn tls_client_certificate_by_renegotiation_is_named_and_not_tried_at_speed() {
    let folder = tempfile::tempdir().unwrap();
    let trusted = Authority::new("trusted");
    let leaf = trusted.issue(|_| ());
    let (certificate, key) = (folder.path().join("tls.crt"), folder.path().join("tls.key"));
    std::fs::write(&certificate, &leaf.pem).unwrap();
    std::fs::write(&key, leaf.key_pem()).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/token_endpoint/renegotiation.mjs");
    let mut node = Command::new("node");
    node.args([script.as_ref(), certificate.as_os_str(), key.as_os_str()]);
    // It ends when its stdin closes: with this value, however the test ends.
    let mut node = node.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let port = first_line(node.stdout.take().unwrap(), RUN_LIMIT).unwrap().trim().parse().unwrap();
    let server = Server { port, connections: Arc::default() };

    let transport = transport(&["127.0.0.1"]);
    let client = trusted.issue_client("client");
    let with_certificate = Tls::new(Some(&trusted.pem), Some((&client.pem, &client.secret()))).unwrap();
    for tls in [with_certificate, roots(&trusted.pem)] {
        let error = ask(&transport, &server, &tls).await.unwrap_err();
        assert!(matches!(error, Error::Renegotiation { .. }), "{error:?}");
        assert_eq!((error.class(), error.kind()), (Class::Unclear, ErrorKind::Unavailable));
        assert!(
            error.outcome_unknown() && error.to_string().contains("have it ask in the handshake"),
            "{error}"
        );
    }
    drop(node.stdin.take());
    wait_within(&mut node, "renegotiation.mjs", RUN_LIMIT);
}

#[tokio::test]
async fn tls_cut_connection_may_be_renegotiation_only_with_a_client_certificate_and_tls_1_2() {
    let trusted = Authority::new("trusted");
    let leaf = trusted.issue(|_| ());
    let client = trusted.issue_client("client");
    let with_certificate = Tls::new(Some(&trusted.pem), Some((&client.pem, &client.secret()))).unwrap();
    for (versions, tls, may_be) in [
        (&[&rustls::version::TLS12][..], &with_certificate, true),
        (&[&rustls::version::TLS12], &roots(&trusted.pem), false),
        (&[&rustls::version::TLS13], &with_certificate, false),
    ] {
        let server = closing(&leaf, versions);
        let error = ask(&transport(&["127.0.0.1"]), &server, tls).await.unwrap_err();
        assert_eq!(matches!(error, Error::Renegotiation { .. }), may_be, "{error:?}");
        assert_eq!(error.class(), Class::Transient, "a load balancer may have cut it");
        assert_eq!(matches!(error, Error::Cut { .. }), !may_be, "{error:?}");
    }
}

/// Closes each connection when it has read a request.
fn closing(leaf: &Leaf, versions: &[&'static rustls::SupportedProtocolVersion]) -> Server {
    install_crypto_provider();
    let key = PrivatePkcs8KeyDer::from(leaf.key.serialize_der()).into();
    let builder = ServerConfig::builder_with_protocol_versions(versions).with_no_client_auth();
    let config = Arc::new(builder.with_single_cert(vec![leaf.der.clone()], key).unwrap());
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut tls = rustls::StreamOwned::new(connection, stream.unwrap());
            let _ = tls.read(&mut [0; 4096]);
        }
    });
    Server { port, connections: Arc::default() }
}

#[tokio::test]
async fn tls_rotated_certificates_take_effect_at_once() {
    let (before, after) = (Authority::new("before"), Authority::new("after"));
    let transport = transport(&["127.0.0.1"]);
    let (old, new) = (serve(&before.issue(|_| ()), None), serve(&after.issue(|_| ()), None));
    assert!(ask(&transport, &old, &roots(&before.pem)).await.is_ok());
    assert!(ask(&transport, &new, &roots(&before.pem)).await.is_err());
    assert!(ask(&transport, &new, &roots(&after.pem)).await.is_ok());

    // Equal certificates share an HTTP client and its connection; a renewed certificate gets new ones.
    let server = serve(&before.issue(|_| ()), Some(&before));
    let (first, second) = (before.issue_client("client"), before.issue_client("client"));
    for (client, connections) in [(&first, 1), (&first, 1), (&second, 2), (&first, 2)] {
        let tls = Tls::new(Some(&before.pem), Some((&client.pem, &client.secret()))).unwrap();
        ask(&transport, &server, &tls).await.unwrap();
        assert_eq!(server.connections.load(Ordering::Relaxed), connections);
    }
}

#[test]
fn tls_invalid_certificate_or_key_is_refused() {
    let trusted = Authority::new("trusted");
    let (client, other) = (trusted.issue_client("a"), trusted.issue_client("b"));
    let bundle = |text: &str| Tls::new(Some(text), None).unwrap_err();
    assert_eq!(bundle(""), TlsError::EmptyBundle);
    let other_pem = |label: &str, in_bundle| TlsError::OtherPem { label: label.to_owned(), in_bundle };
    assert_eq!(bundle(&client.key.serialize_pem()), other_pem("PRIVATE KEY", true));
    let pkcs7 = bundle("-----BEGIN PKCS7-----\nAAAA\n-----END PKCS7-----\n");
    assert!(pkcs7.to_string().contains("`openssl pkcs7 -print_certs"), "{pkcs7}");
    let openssl = |pem: &str| {
        pem.replace("CERTIFICATE-----", "TRUSTED CERTIFICATE-----").replace(" TRUSTED TRUSTED", " TRUSTED")
    };
    for pem in [openssl(&trusted.pem), [trusted.pem.as_str(), &openssl(&trusted.pem)].concat()] {
        let error = bundle(&pem);
        assert_eq!(error, TlsError::Trusted { in_bundle: true });
        assert!(
            error.is_about_bundle() && error.to_string().contains("`openssl x509 -in trusted.pem"),
            "{error}"
        );
    }
    let damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    assert_eq!(bundle(&format!("{}{damaged}", trusted.pem)), TlsError::DamagedBundle(2));

    let with = |chain: &str, key: SecretString| Tls::new(None, Some((chain, &key))).unwrap_err();
    assert_eq!(with("", client.secret()), TlsError::ClientCertificate);
    assert_eq!(with(damaged, client.secret()), TlsError::ClientCertificate);
    assert_eq!(with(&openssl(&client.pem), client.secret()), TlsError::Trusted { in_bundle: false });
    assert_eq!(with(&client.key.serialize_pem(), client.secret()), other_pem("PRIVATE KEY", false));
    assert_eq!(with(&client.pem, other.secret()), TlsError::OtherKey);
    assert!(TlsError::OtherKey.to_string().contains("openssl x509"));
    assert_eq!(with(&client.pem, client.pem.clone().into()), TlsError::Key(KeyError::Certificate));
    let printed = format!("{:?}", Tls::new(None, Some((&client.pem, &client.secret()))).unwrap());
    assert!(!printed.contains("PRIVATE"), "{printed}");
}

/// PEM of a certificate with one more byte at its end.
fn with_trailing_byte(pem: &str) -> String {
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = [BASE64_STANDARD.decode(body).unwrap(), vec![0]].concat();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", BASE64_STANDARD.encode(der))
}

#[test]
fn tls_bundle_that_no_connection_can_use_is_refused_before_any() {
    let trusted = Authority::new("trusted");
    let bundle = |text: &str| Tls::new(Some(text), None).unwrap_err();
    let damaged = with_trailing_byte(&trusted.pem);
    assert_eq!(bundle(&damaged), TlsError::DamagedBundle(1));
    assert_eq!(bundle(&format!("{}{damaged}", trusted.pem)), TlsError::DamagedBundle(2));
    // The byte inside of the certificate: webpki, which verifies servers, does not read it.
    let body: String = trusted.pem.lines().filter(|line| !line.starts_with('-')).collect();
    let mut der = BASE64_STANDARD.decode(body).unwrap();
    assert_eq!(der[..2], [0x30, 0x82]);
    let length = u16::from_be_bytes([der[2], der[3]]) + 1;
    der[2..4].copy_from_slice(&length.to_be_bytes());
    der.push(0);
    let inside =
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", BASE64_STANDARD.encode(der));
    assert_eq!(bundle(&inside), TlsError::UnusableBundle);
    assert!(TlsError::UnusableBundle.is_about_bundle());
    assert!(Tls::new(Some(&format!("{}{inside}", trusted.pem)), None).is_ok());
}

#[test]
fn tls_material_is_bounded() {
    let trusted = Authority::new("trusted");
    let bundle = |text: &str| Tls::new(Some(text), None).map(drop);
    assert_eq!(bundle(&trusted.pem.repeat(MAX_BUNDLE_CERTIFICATES)), Ok(()));
    assert_eq!(bundle(&trusted.pem.repeat(MAX_BUNDLE_CERTIFICATES + 1)), Err(TlsError::LongBundle));
    assert_eq!(
        bundle(&format!("{}{}", "# text\n".repeat(MAX_BUNDLE / 7), trusted.pem)),
        Err(TlsError::LongBundle)
    );
    let client = trusted.issue_client("a");
    let with = |chain: &str, key: SecretString| Tls::new(None, Some((chain, &key))).map(drop);
    assert_eq!(with(&client.pem.repeat(MAX_CHAIN_CERTIFICATES), client.secret()), Ok(()));
    assert_eq!(
        with(&client.pem.repeat(MAX_CHAIN_CERTIFICATES + 1), client.secret()),
        Err(TlsError::LongChain)
    );
    assert_eq!(with(&"x".repeat(MAX_CHAIN + 1), client.secret()), Err(TlsError::LongChain));
    assert_eq!(with(&client.pem, "x".repeat(MAX_CREDENTIAL + 1).into()), Err(TlsError::LongKey));
    assert!(TlsError::LongBundle.to_string().contains("more than 524288 bytes or 512 certificates"));
}

/// A tenant that has many certificates pushes out its own clients, and no others'.
#[tokio::test]
async fn tls_client_of_a_tenant_stays_while_another_tenant_uses_many_certificates() {
    let trusted = Authority::new("trusted");
    let server = serve(&trusted.issue(|_| ()), None);
    let transport = transport(&["127.0.0.1"]);
    let (honest, other) = (transport.for_tenant("honest"), transport.for_tenant("other"));
    let tls = honest.tls(Some(&trusted.pem), None).unwrap();
    ask(&honest, &server, &tls).await.unwrap();
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
    for n in 0..100 {
        // The same certificate, and another bundle.
        let tls = other.tls(Some(&format!("# {n}\n{}", trusted.pem)), None).unwrap();
        ask(&other, &server, &tls).await.unwrap();
    }
    let before = server.connections.load(Ordering::Relaxed);
    // Its connection is still in its pool.
    ask(&honest, &server, &tls).await.unwrap();
    assert_eq!(server.connections.load(Ordering::Relaxed), before);
}
