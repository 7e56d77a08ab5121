//! The transport through a proxy on loopback.

use crate::server::{Server, Step::Read, answer, read_request, write};
use crate::support::authority::Authority;
use crate::support::process::{RUN_LIMIT, output_within};
use crate::tls::{roots, serve};
use crate::{TIMEOUT, TOKEN, closed_port, request};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use token_endpoint::transport::install_crypto_provider;
use token_endpoint::{Class, Egress, EgressRefused, Error, Grant, Proxies, Tls, Transport};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

type Requests = Arc<Mutex<Vec<String>>>;

/// A tunnelling proxy that resolves every name to loopback. Returns its port and the requests that it received.
async fn tunnel() -> (u16, Requests) {
    tunnel_over(None).await
}

/// The same, which connections reach by TLS.
async fn secure_tunnel(certificate: CertificateDer<'static>, key: PrivateKeyDer<'static>) -> (u16, Requests) {
    install_crypto_provider();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![certificate], key).unwrap();
    tunnel_over(Some(TlsAcceptor::from(Arc::new(config)))).await
}

async fn tunnel_over(tls: Option<TlsAcceptor>) -> (u16, Requests) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (seen, tls) = (Arc::clone(&seen), tls.clone());
            tokio::spawn(async move {
                match tls {
                    None => relay(client, seen).await,
                    // Fails where the client does not trust the proxy.
                    Some(tls) => {
                        if let Ok(client) = tls.accept(client).await {
                            relay(client, seen).await;
                        }
                    }
                }
            });
        }
    });
    (port, asked)
}

async fn relay(mut client: impl AsyncRead + AsyncWrite + Unpin, seen: Requests) {
    let request = read_request(&mut client).await.unwrap().unwrap();
    let port = request.split([':', ' ']).nth(2).unwrap().parse().unwrap();
    seen.lock().unwrap().push(request);
    let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    let _ = copy_bidirectional(&mut client, &mut server).await;
}

fn through(proxy: &str, no_proxy: &str, allow: &[&str]) -> Transport {
    let proxies = Proxies::from_environment(|name| match name {
        "HTTPS_PROXY" | "HTTP_PROXY" => Some(proxy.to_owned()),
        "NO_PROXY" => Some(no_proxy.to_owned()),
        _ => None,
    })
    .unwrap();
    let allow = allow.iter().map(|rule| rule.parse().unwrap()).collect();
    let egress = Egress::new(allow, None, true, Vec::new());
    Transport::with_proxies(Arc::new(egress), "token-endpoint/test", proxies).unwrap()
}

#[tokio::test]
async fn proxy_resolves_names_that_only_it_knows() {
    let trusted = Authority::new("trusted");
    let named = trusted.issue(|params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("idp.example.com".try_into().unwrap())];
    });
    let server = serve(&named, None);
    let (port, asked) = tunnel().await;
    let url = format!("https://idp.example.com:{}/token", server.port);
    let request = request(&url, Grant::ClientCredentials);
    // No rule allows loopback: the policy does not apply to the address of the proxy.
    let transport = through(&format!("http://user:pass@127.0.0.1:{port}"), "", &[]);
    assert!(transport.send_over(&request, &roots(&trusted.pem), TIMEOUT).await.is_ok());
    let asked = asked.lock().unwrap().join("");
    assert!(asked.starts_with(&format!("CONNECT idp.example.com:{} HTTP/1.1", server.port)), "{asked}");
    assert!(asked.to_lowercase().contains("proxy-authorization: basic dxnlcjpwyxnz"), "{asked}");
    assert!(!asked.contains("grant_type"), "{asked}");
}

#[tokio::test]
async fn proxy_address_is_exempt_from_policy_as_proxy_only() {
    let proxy = Server::start(vec![Read, answer("200 OK", "", TOKEN)]).await;
    let address = format!("http://localhost:{}", proxy.port);
    let send = async |transport: Transport, url: &str| {
        transport.send(&request(url, Grant::ClientCredentials), TIMEOUT).await
    };
    assert!(send(through(&address, "", &[]), "http://idp.example.com/token").await.is_ok());
    assert!(proxy.requests()[0].starts_with("POST http://idp.example.com/token HTTP/1.1"));

    // The proxy as the endpoint, through the proxy and directly.
    for no_proxy in ["", "*"] {
        for host in ["localhost", "127.0.0.1"] {
            let url = format!("http://{host}:{}/token", proxy.port);
            let error = send(through(&address, no_proxy, &[]), &url).await.unwrap_err();
            assert!(
                matches!(
                    error,
                    Error::Egress(EgressRefused::Address { .. } | EgressRefused::ProxiedName { .. })
                ),
                "{error:?}"
            );
        }
    }
    assert_eq!(proxy.connections(), 1);
    // The policy applies to the addresses of a host in NO_PROXY.
    let direct = through(&address, "idp.invalid", &[]);
    assert!(matches!(send(direct, "http://idp.invalid/").await, Err(Error::Dns { .. })));
}

#[tokio::test]
async fn proxy_refusal_is_classified_by_status() {
    for (status, class, message) in [
        ("407 Proxy Authentication Required", Class::Rejected, "authorization required"),
        ("403 Forbidden", Class::Transient, "unsuccessful"),
        ("502 Bad Gateway", Class::Transient, "unsuccessful"),
    ] {
        let proxy =
            Server::start(vec![Read, write(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"))]).await;
        let transport = through(&format!("http://127.0.0.1:{}", proxy.port), "", &[]);
        let request = request("https://idp.example.com/token", Grant::ClientCredentials);
        let error = transport.send(&request, TIMEOUT).await.unwrap_err();
        assert!(matches!(error, Error::Proxy { .. }), "{error:?}");
        assert_eq!((error.class(), error.outcome_unknown()), (class, false));
        assert!(error.to_string().contains(message), "{error}");
    }
}

/// Runs itself in a process whose system roots are `authority.crt`.
#[tokio::test]
async fn proxy_with_tls_is_trusted_by_system_roots_alone() {
    let authority = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/token_endpoint/authority.crt");
    if std::env::var("SSL_CERT_FILE").as_deref() != Ok(authority) {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "proxy::proxy_with_tls_is_trusted_by_system_roots_alone"]);
        command.env("SSL_CERT_FILE", authority).env_remove("SSL_CERT_DIR");
        let child = output_within(command, "", RUN_LIMIT);
        assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
        return;
    }
    let tenants = Authority::new("tenant");
    let named = tenants.issue(|params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("idp.example.com".try_into().unwrap())];
    });
    let endpoint = serve(&named, None);
    let request =
        request(&format!("https://idp.example.com:{}/token", endpoint.port), Grant::ClientCredentials);

    // A proxy with a certificate of the system's roots, and an endpoint with one of the tenant's.
    let certificate = CertificateDer::from_pem_slice(include_bytes!("server.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("server.key")).unwrap();
    let (port, asked) = secure_tunnel(certificate, key).await;
    let transport = through(&format!("https://localhost:{port}"), "", &[]);
    assert!(transport.send_over(&request, &roots(&tenants.pem), TIMEOUT).await.is_ok());
    assert_eq!(asked.lock().unwrap().len(), 1);
    // The system's roots do not apply to the endpoint.
    let error = transport.send(&request, TIMEOUT).await.unwrap_err();
    assert!(matches!(error, Error::Certificate { .. }), "{error:?}");

    // A client certificate is for the endpoint alone: this proxy accepts none.
    let client = tenants.issue_client("client");
    let tls = Tls::new(Some(&tenants.pem), Some((&client.pem, &client.secret()))).unwrap();
    let strict = serve(&named, Some(&tenants));
    let url = format!("https://idp.example.com:{}/token", strict.port);
    let to_strict = super::request(&url, Grant::ClientCredentials);
    assert!(transport.send_over(&to_strict, &tls, TIMEOUT).await.is_ok());
    let error = transport.send_over(&to_strict, &roots(&tenants.pem), TIMEOUT).await.unwrap_err();
    assert!(matches!(error, Error::ClientCertificate { .. }), "{error:?}");

    // The tenant's authority vouches for no proxy.
    let fake = tenants.issue(|params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("localhost".try_into().unwrap())];
    });
    let (port, asked) = secure_tunnel(fake.der.clone(), fake.key.serialize_der().try_into().unwrap()).await;
    let transport = through(&format!("https://localhost:{port}"), "", &[]);
    let error = transport.send_over(&request, &roots(&tenants.pem), TIMEOUT).await.unwrap_err();
    assert_unreached(&error);
    assert!(error.hint().is_none(), "no root of the tenant's would help");
    assert!(error.to_string().contains("its certificate is not trusted: "), "{error}");
    assert!(!error.to_string().contains("localhost"), "{error}");
    assert!(asked.lock().unwrap().is_empty());
}

/// Accepts connections, and says nothing.
#[tokio::test]
async fn proxy_that_does_not_answer_is_named_and_not_the_endpoint() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let transport = through(&format!("https://127.0.0.1:{}", silent.local_addr().unwrap().port()), "", &[]);
    let request = request("https://idp.example.com/token", Grant::ClientCredentials);
    let error = transport.send(&request, Duration::from_secs(20)).await.unwrap_err();
    assert_unreached(&error);
    assert!(error.to_string().ends_with("no connection in time"), "{error}");
}

fn assert_unreached(error: &Error) {
    assert!(matches!(error, Error::ProxyUnreached { .. }), "{error:?}");
    assert_eq!((error.class(), error.outcome_unknown()), (Class::Transient, false));
    assert!(
        error.to_string().starts_with("the proxy on the way to idp.example.com cannot be reached: "),
        "{error}"
    );
}

#[tokio::test]
async fn proxy_that_is_not_reached_is_no_failure_of_the_endpoint() {
    let port = closed_port();
    for proxy in [
        format!("http://127.0.0.1:{port}"),
        format!("https://127.0.0.1:{port}"),
        "http://proxy.invalid".to_owned(),
    ] {
        for url in ["https://idp.example.com/token", "http://idp.example.com/token"] {
            let request = request(url, Grant::ClientCredentials);
            let error = through(&proxy, "", &[]).send(&request, TIMEOUT).await.unwrap_err();
            assert_unreached(&error);
        }
    }
}
