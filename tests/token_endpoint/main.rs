//! The transport against misbehaving servers on loopback.
#![cfg(test)] // lets clippy allow panics in helpers

mod discovery;
mod echo;
mod memory;
mod provider;
mod proxy;
mod server;
mod site;
#[path = "../support/mod.rs"]
mod support;
mod tls;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::ExposeSecret;
use server::Step::{Again, Drip, Read, Reset, Wait, Write};
use server::{Server, Step, answer, write};
use std::io::{Read as _, Write as _};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::process::{RUN_LIMIT, output_within, said};
use token_endpoint::transport::{MAX_BODY, install_crypto_provider};
use token_endpoint::{
    Answer, BasicEncoding, CertificateProblem, Class, ClientAuthentication, Credentials, Egress,
    EgressRefused, Error, ErrorKind, Grant, Hint, RequestDescription, TokenRequest, Transport,
};

const TOKEN: &str = r#"{"access_token":"t","token_type":"bearer","expires_in":300}"#;
const TIMEOUT: Duration = Duration::from_secs(20);

fn request(url: &str, grant: Grant) -> TokenRequest {
    let description = RequestDescription {
        scopes: vec!["email".into()],
        ..RequestDescription::new(
            url.parse().unwrap(),
            grant,
            ClientAuthentication::Basic(BasicEncoding::Percent),
        )
    };
    let credentials = Credentials {
        client_id: Some("s6BhdRkqt3".into()),
        client_secret: Some("gX1fBat3bV".into()),
        refresh_token: Some("refresh-1".into()),
        ..Credentials::default()
    };
    description.request(&credentials).unwrap()
}

fn transport(allow: &[&str]) -> Transport {
    let allow = allow.iter().map(|rule| rule.parse().unwrap()).collect();
    Transport::new(Arc::new(Egress::new(allow, None, true, Vec::new())), "token-endpoint/test").unwrap()
}

/// Runs the test of this name in a process of its own, whose environment `set` changes.
fn run_alone(test: &str, set: impl FnOnce(&mut Command)) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    set(command.args(["--exact", test]));
    let child = output_within(command, "", RUN_LIMIT);
    // Of a wrong name, none is run, without an error.
    let has_run = String::from_utf8_lossy(&child.stdout).contains("1 passed");
    assert!(child.status.success() && has_run, "{}", said(&child));
}

async fn send_url(url: &str, timeout: Duration) -> Result<Answer, Error> {
    transport(&["127.0.0.1"]).send(&request(url, Grant::ClientCredentials), timeout).await
}

/// Sends one request to a server that performs `steps`.
async fn send(steps: Vec<Step>, timeout: Duration) -> Result<Answer, Error> {
    let server = Server::start(steps).await;
    send_url(&format!("http://127.0.0.1:{}/token", server.port), timeout).await
}

fn assert_timeout(error: &Error, started: Instant) {
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
    assert_eq!((error.class(), error.kind()), (Class::Transient, ErrorKind::Unavailable));
    assert!(error.outcome_unknown());
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn transport_sends_expected_bytes() {
    let server = Server::start(vec![Read, answer("200 OK", "", TOKEN)]).await;
    let url = format!("http://127.0.0.1:{}/oauth/token?tenant=a", server.port);
    let answer = send_url(&url, TIMEOUT).await.unwrap();
    assert_eq!(answer.access_token.expose_secret(), "t");
    assert_eq!(answer.expires_in, Some(300));

    let mut lines: Vec<String> = server.requests()[0].split("\r\n").map(str::to_owned).collect();
    let request_line = lines.remove(0);
    let body = lines.pop().unwrap();
    lines.retain(|line| !line.is_empty());
    lines.sort();
    assert_eq!(request_line, "POST /oauth/token?tenant=a HTTP/1.1");
    assert_eq!(
        lines,
        [
            "Accept-Encoding: identity".to_owned(),
            "Accept: application/json".to_owned(),
            "Authorization: Basic czZCaGRSa3F0MzpnWDFmQmF0M2JW".to_owned(),
            "Content-Length: 41".to_owned(),
            "Content-Type: application/x-www-form-urlencoded".to_owned(),
            format!("Host: 127.0.0.1:{}", server.port),
            "User-Agent: token-endpoint/test".to_owned(),
        ]
    );
    assert_eq!(body, "grant_type=client_credentials&scope=email");
}

#[tokio::test]
async fn transport_hanging_server_times_out() {
    let started = Instant::now();
    let error = send(vec![Read, Wait(TIMEOUT)], Duration::from_secs(1)).await.unwrap_err();
    assert_timeout(&error, started);
    assert!(error.to_string().contains("within 1 s"), "{error}");
}

#[tokio::test]
async fn transport_dripping_server_times_out() {
    let pause = Duration::from_millis(20);
    let head = b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n".to_vec();
    for steps in
        [vec![Read, Drip(head.repeat(99), pause)], vec![Read, Write(head), Drip(vec![b' '; 9999], pause)]]
    {
        let started = Instant::now();
        assert_timeout(&send(steps, Duration::from_secs(1)).await.unwrap_err(), started);
    }
}

#[tokio::test]
async fn transport_body_above_limit_is_not_read() {
    let body = format!("{{\"access_token\":\"t\"{}}}", " ".repeat(MAX_BODY));
    for framing in [
        answer("200 OK", "", &body),
        write(format!("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999\r\n\r\n{body}")),
        write(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{body}")),
        write(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffff\r\n{body}")),
    ] {
        let error = send(vec![Read, framing, Wait(TIMEOUT)], TIMEOUT).await.unwrap_err();
        assert_eq!((error.class(), error.kind()), (Class::Malformed, ErrorKind::MalformedResponse));
        assert!(error.to_string().contains("more than 262144 bytes"), "{error}");
    }
    let error =
        send(vec![Read, answer("502 Bad Gateway", "", &body), Wait(TIMEOUT)], TIMEOUT).await.unwrap_err();
    assert_eq!((error.class(), error.outcome_unknown()), (Class::Transient, true));

    let longest = format!("{{\"access_token\":\"t\"{}}}", " ".repeat(MAX_BODY - 20));
    assert!(send(vec![Read, answer("200 OK", "", &longest)], TIMEOUT).await.is_ok());
}

#[tokio::test]
async fn transport_header_section_above_limit_is_not_read() {
    // The library reads some more than the limit, as its buffer grows.
    let head = |bytes: usize| format!("X-Long: {}\r\n", "x".repeat(bytes));
    assert!(send(vec![Read, answer("200 OK", &head(30_000), TOKEN)], TIMEOUT).await.is_ok());
    let many = |count: usize| "A: b\r\n".repeat(count);
    assert!(send(vec![Read, answer("200 OK", &many(90), TOKEN)], TIMEOUT).await.is_ok());
    for headers in [head(70_000), head(360_000), many(120)] {
        // The server goes on waiting: it is the client that ends it.
        let steps = vec![Read, answer("200 OK", &headers, TOKEN), Wait(TIMEOUT)];
        let error = send(steps, TIMEOUT).await.unwrap_err();
        assert!(matches!(error, Error::Cut { .. }), "{error:?}");
        assert!(error.to_string().ends_with("more than 100 headers, or 32768 bytes of them"), "{error}");
        assert_eq!((error.class(), error.outcome_unknown()), (Class::Transient, true));
    }
}

/// Tenants that drip large bodies keep no answer of usual size waiting, nor the large ones of others.
#[tokio::test]
async fn transport_large_bodies_are_few_and_shared_among_tenants() {
    let large = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n{{\"access_token\":\"{}",
        "t".repeat(20_000)
    );
    let dripping = Server::start(vec![Read, write(large), Wait(TIMEOUT)]).await;
    let transport = transport(&["127.0.0.1"]);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let transport = transport.for_tenant("dripping");
        let request = request(&format!("http://127.0.0.1:{}/", dripping.port), Grant::ClientCredentials);
        tasks.spawn(async move { transport.send(&request, TIMEOUT).await });
    }
    support::eventually("all have sent their request", TIMEOUT, async || match dripping.requests().len() {
        40 => Ok(()),
        sent => Err(sent),
    })
    .await;
    let long = format!("{{\"access_token\":\"{}\"}}", "t".repeat(60_000));
    for (tenant, body) in [("dripping", TOKEN), ("honest", &long)] {
        let server = Server::start(vec![Read, answer("200 OK", "", body)]).await;
        let request = request(&format!("http://127.0.0.1:{}/", server.port), Grant::ClientCredentials);
        assert!(transport.for_tenant(tenant).send(&request, TIMEOUT).await.is_ok(), "{tenant}");
    }
    let server = Server::start(vec![Read, answer("200 OK", "", &long)]).await;
    let held_up = request(&format!("http://127.0.0.1:{}/", server.port), Grant::ClientCredentials);
    let waits = transport.for_tenant("dripping").send(&held_up, Duration::from_secs(1)).await;
    assert!(matches!(waits, Err(Error::Timeout { .. })), "{waits:?}");

    let medium = format!("{{\"access_token\":\"{}\"}}", "t".repeat(40_000));
    let server = Server::start(vec![Read, answer("200 OK", "", &medium)]).await;
    let spends = request(&format!("http://127.0.0.1:{}/", server.port), Grant::RefreshToken);
    let sent = transport.for_tenant("dripping").send(&spends, TIMEOUT).await;
    assert!(sent.is_ok(), "the next refresh token may be in it: {sent:?}");
}

#[tokio::test]
async fn transport_cut_connection_leaves_outcome_unknown() {
    for steps in [
        vec![Read],
        vec![Read, Reset],
        vec![Reset],
        vec![Read, write("HTTP/1.1 200 OK\r\nContent-Len")],
        vec![Read, write(format!("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{TOKEN}"))],
        vec![Read, write(format!("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{TOKEN}")), Reset],
        vec![Read, write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")],
        vec![Read, write("SSH-2.0-OpenSSH_9.9\r\n")],
        vec![Read, write([0xff; 100])],
        vec![Read, write("HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n")],
    ] {
        let error = send(steps, TIMEOUT).await.unwrap_err();
        assert!(matches!(error, Error::Cut { .. }), "{error:?}");
        assert_eq!((error.class(), error.kind()), (Class::Transient, ErrorKind::Unavailable));
        assert!(error.outcome_unknown());
    }
}

#[tokio::test]
async fn transport_content_length_that_cuts_json_is_malformed() {
    let short = write(format!("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{TOKEN}"));
    let error = send(vec![Read, short], TIMEOUT).await.unwrap_err();
    assert_eq!(error.class(), Class::Malformed);
}

#[tokio::test]
async fn transport_token_dead_on_arrival_is_malformed_and_leaves_its_refresh_token() {
    // {"exp":1500000000}
    let body =
        r#"{"access_token":"e30.eyJleHAiOjE1MDAwMDAwMDB9.c2ln","expires_in":300,"refresh_token":"next"}"#;
    for (date, dead) in [
        ("", true),
        ("Date: Tue, 14 Jul 2026 02:40:31 GMT\r\n", true),
        ("Date: Fri, 14 Jul 2017 02:40:00 GMT\r\n", false),
    ] {
        let outcome = send(vec![Read, answer("200 OK", date, body)], TIMEOUT).await;
        assert_eq!(outcome.is_err(), dead, "{date}");
        let Err(error) = outcome else { continue };
        assert_eq!((error.class(), error.kind()), (Class::Malformed, ErrorKind::MalformedResponse));
        assert_eq!(error.refresh_token().unwrap().expose_secret(), "next");
        assert!(error.to_string().contains("HTTP 200, but with a token that had expired "), "{error}");
    }
}

#[tokio::test]
async fn transport_redirect_is_not_followed() {
    let elsewhere = Server::start(vec![Read, answer("200 OK", "", TOKEN)]).await;
    for status in ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"] {
        let location = format!("Location: http://127.0.0.1:{}/token\r\n", elsewhere.port);
        let error = send(vec![Read, answer(status, &location, "")], TIMEOUT).await.unwrap_err();
        assert_eq!((error.class(), error.kind()), (Class::Rejected, ErrorKind::RequestRejected));
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn transport_failure_is_not_retried() {
    let server = Server::start(vec![Read, answer("503 Unavailable", "Retry-After: 7\r\n", ""), Again]).await;
    let error = send_url(&format!("http://127.0.0.1:{}/", server.port), TIMEOUT).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(7));
    assert_eq!(server.requests().len(), 1);
}

/// `{"access_token":"t","expires_in":300,"refresh_token":"next"}` as `gzip` writes it.
const GZIP: &str =
    "H4sIAAAAAAACA6tWSkxOTi0uji/Jz07NU7JSKlHSUUqtKMgsSi2OzwQKGBsY6CgVpaYB+RlwRXmpFSVKtQCIcNhLPAAAAA==";

fn with_body(status: &str, headers: &str, body: &[u8]) -> Vec<Step> {
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
    vec![Read, Write([head.as_bytes(), body].concat())]
}

#[tokio::test]
async fn transport_compressed_body_is_decoded_whatever_its_label() {
    let gzip = BASE64_STANDARD.decode(GZIP).unwrap();
    for label in
        ["", "Content-Encoding: gzip\r\n", "Content-Encoding: br\r\n", "Content-Encoding: identity\r\n"]
    {
        let answer = send(with_body("200 OK", label, &gzip), TIMEOUT).await.unwrap();
        assert_eq!(answer.access_token.expose_secret(), "t", "{label}");
        assert_eq!(answer.refresh_token.unwrap().expose_secret(), "next", "{label}");
    }
    assert!(send(vec![Read, answer("200 OK", "Content-Encoding: gzip\r\n", TOKEN)], TIMEOUT).await.is_ok());
}

#[tokio::test]
async fn transport_truncated_compressed_body_leaves_outcome_unknown() {
    let gzip = BASE64_STANDARD.decode(GZIP).unwrap();
    let cut = &gzip[..30];
    let error = send(with_body("200 OK", "", cut), TIMEOUT).await.unwrap_err();
    assert!(matches!(error, Error::Cut { .. }) && error.outcome_unknown(), "{error:?}");
    let error = send(with_body("503 Unavailable", "", cut), TIMEOUT).await.unwrap_err();
    assert!(error.to_string().contains("HTTP 503"), "{error}");
    // The document is whole, and may hold the only valid refresh token.
    let answer = send(with_body("200 OK", "", &gzip[..gzip.len() - 8]), TIMEOUT).await.unwrap();
    assert_eq!(answer.refresh_token.unwrap().expose_secret(), "next");
}

#[tokio::test]
async fn transport_body_in_another_encoding_is_named() {
    for (status, class) in [("200 OK", Class::Malformed), ("400 Bad Request", Class::Unclear)] {
        let steps =
            with_body(status, "Content-Encoding: BR\r\nContent-Type: application/json\r\n", b"\x0b\x02\x80");
        let error = send(steps, TIMEOUT).await.unwrap_err();
        assert_eq!(error.class(), class);
        let text = error.to_string();
        assert!(
            text.contains("3 bytes of application/json in the encoding br, though none was asked for"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn transport_connection_is_reused_except_for_refresh_tokens() {
    for (grant, connections) in [(Grant::ClientCredentials, 1), (Grant::RefreshToken, 3)] {
        let server = Server::start(vec![Read, answer("200 OK", "", TOKEN), Again]).await;
        let transport = transport(&["127.0.0.1"]);
        for _ in 0..3 {
            let request = request(&format!("http://127.0.0.1:{}/token", server.port), grant.clone());
            transport.send(&request, TIMEOUT).await.unwrap();
        }
        assert_eq!(server.connections(), connections, "{grant:?}");
        assert_eq!(server.requests().len(), 3);
    }
}

/// A port of loopback at which nothing listens, also while other tests bind free ones.
const CLOSED_PORT: u16 = 1;

#[tokio::test]
async fn transport_closed_port_error_names_host() {
    let url = format!("http://127.0.0.1:{CLOSED_PORT}/token?secret=1");
    let error = send_url(&url, TIMEOUT).await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert!(error.to_string().contains("127.0.0.1: Connection refused"), "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");
    assert_eq!((error.class(), error.outcome_unknown()), (Class::Transient, false));
}

#[tokio::test]
async fn transport_unresolvable_name_error_names_host() {
    let error = send_url("https://idp.invalid/token", TIMEOUT).await.unwrap_err();
    assert!(matches!(error, Error::Dns { .. }), "{error:?}");
    assert!(error.to_string().contains("idp.invalid"), "{error}");
    assert_eq!((error.class(), error.outcome_unknown()), (Class::Transient, false));
}

#[tokio::test]
async fn transport_egress_policy_applies_to_resolved_addresses() {
    let server = Server::start(vec![Read, answer("200 OK", "", TOKEN)]).await;
    let port = server.port;
    let other_port = format!("127.0.0.1:{}", port ^ 1);
    for host in ["127.0.0.1", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "localhost"] {
        for allow in [&[][..], &["localhost"][..], &[other_port.as_str()][..]] {
            let url = format!("http://{host}:{port}/token");
            let error =
                transport(allow).send(&request(&url, Grant::ClientCredentials), TIMEOUT).await.unwrap_err();
            assert!(matches!(error, Error::Egress(EgressRefused::Address { .. })), "{url}: {error:?}");
            assert_eq!((error.class(), error.kind()), (Class::Configuration, ErrorKind::EgressRefused));
            assert!(error.to_string().contains("loopback"), "{error}");
            assert!(matches!(error.hint(), Some(Hint::AllowEgress(_))), "{error:?}");
        }
    }
    assert_eq!(server.connections(), 0);

    // localhost may resolve to ::1 too: only the allowed address is used.
    let allow = format!("127.0.0.1:{port}");
    for host in ["127.0.0.1", "2130706433", "localhost"] {
        let request = request(&format!("http://{host}:{port}/token"), Grant::ClientCredentials);
        assert!(transport(&[allow.as_str()]).send(&request, TIMEOUT).await.is_ok(), "{host}");
    }
}

/// Answers one request on `https://localhost`, with a certificate from `authority.crt`.
fn tls_server() -> u16 {
    install_crypto_provider();
    let certificate = CertificateDer::from_pem_slice(include_bytes!("server.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("server.key")).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept()?;
        let mut tls =
            rustls::StreamOwned::new(rustls::ServerConnection::new(Arc::new(config)).unwrap(), stream);
        tls.read_exact(&mut [0])?; // the first record holds the whole request
        write!(tls, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{TOKEN}", TOKEN.len())?;
        tls.flush()
    });
    port
}

#[tokio::test]
async fn transport_untrusted_certificate_is_of_class_rejected() {
    let error = send_url(&format!("https://localhost:{}/token", tls_server()), TIMEOUT).await.unwrap_err();
    assert!(
        matches!(error, Error::Certificate { problem: CertificateProblem::UnknownAuthority, .. }),
        "{error:?}"
    );
    assert_eq!(error.hint(), Some(Hint::TrustAuthority));
    assert_eq!((error.class(), error.kind()), (Class::Rejected, ErrorKind::Unavailable));
    assert!(!error.outcome_unknown());
}

/// Runs itself in a process whose system roots are `authority.crt`.
#[tokio::test]
async fn transport_system_authorities_are_trusted() {
    let authority = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/token_endpoint/authority.crt");
    if std::env::var("SSL_CERT_FILE").as_deref() != Ok(authority) {
        return run_alone("transport_system_authorities_are_trusted", |command| {
            command.env("SSL_CERT_FILE", authority).env_remove("SSL_CERT_DIR");
        });
    }
    let answer = send_url(&format!("https://localhost:{}/token", tls_server()), TIMEOUT).await.unwrap();
    assert_eq!(answer.access_token.expose_secret(), "t");

    let error = send_url(&format!("https://127.0.0.1:{}/token", tls_server()), TIMEOUT).await.unwrap_err();
    assert!(error.to_string().contains("it is for another name"), "{error}");
    assert_eq!(error.class(), Class::Rejected);
}

#[tokio::test]
async fn transport_failed_handshake_is_of_class_transient() {
    for steps in [vec![], vec![Reset], vec![answer("400 Bad Request", "", "")]] {
        let server = Server::start(steps).await;
        let error = send_url(&format!("https://127.0.0.1:{}/token", server.port), TIMEOUT).await.unwrap_err();
        assert!(matches!(error, Error::Handshake { .. } | Error::Connect { .. }), "{error:?}");
        assert_eq!((error.class(), error.outcome_unknown()), (Class::Transient, false));
    }
}

#[tokio::test]
async fn transport_connect_times_out_after_five_seconds() {
    let server = Server::start(vec![Wait(TIMEOUT)]).await;
    let started = Instant::now();
    let error = send_url(&format!("https://127.0.0.1:{}/token", server.port), TIMEOUT).await.unwrap_err();
    assert!(matches!(error, Error::ConnectTimeout { .. }), "{error:?}");
    assert_eq!(error.hint(), Some(Hint::CheckFirewall));
    assert_eq!((error.class(), error.outcome_unknown()), (Class::Transient, false));
    assert!(started.elapsed() < Duration::from_secs(8));
}
