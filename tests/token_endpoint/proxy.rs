//! The transport through a proxy on loopback.

use crate::server::{Server, Step::Read, answer, read_request, write};
use crate::support::authority::Authority;
use crate::tls::{clients_of, roots, serve, server_config};
use crate::{CLOSED_PORT, TIMEOUT, TOKEN, request, run_alone};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use token_endpoint::{Class, Egress, EgressRefused, Error, Grant, Proxies, Tls, Transport};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

type Requests = Arc<Mutex<Vec<String>>>;

/// Among the requests, where a client presented a certificate to the proxy.
const CERTIFICATE: &str = "a client certificate";

/// A tunnelling proxy that resolves every name to loopback. Returns its port and the requests that it received.
async fn tunnel() -> (u16, Requests) {
    tunnel_over(None).await
}

/// The same, which connections reach by TLS.
async fn secure_tunnel(config: Arc<rustls::ServerConfig>) -> (u16, Requests) {
    tunnel_over(Some(TlsAcceptor::from(config))).await
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
                            if client.get_ref().1.peer_certificates().is_some() {
                                seen.lock().unwrap().push(CERTIFICATE.to_owned());
                            }
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
        return run_alone("proxy::proxy_with_tls_is_trusted_by_system_roots_alone", |command| {
            command.env("SSL_CERT_FILE", authority).env_remove("SSL_CERT_DIR");
        });
    }
    let tenants = Authority::new("tenant");
    let named = tenants.issue(|params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("idp.example.com".try_into().unwrap())];
    });
    let endpoint = serve(&named, None);
    let request =
        request(&format!("https://idp.example.com:{}/token", endpoint.port), Grant::ClientCredentials);

    // A proxy with a certificate of the system's roots, which asks clients for one, and an endpoint with one of the tenant's.
    let certificate = CertificateDer::from_pem_slice(include_bytes!("server.crt")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("server.key")).unwrap();
    let asking = Some(clients_of(&tenants).allow_unauthenticated());
    let (port, asked) = secure_tunnel(server_config(certificate.clone(), key.clone_key(), asking)).await;
    let transport = through(&format!("https://localhost:{port}"), "", &[]);
    assert!(transport.send_over(&request, &roots(&tenants.pem), TIMEOUT).await.is_ok());
    assert_eq!(asked.lock().unwrap().len(), 1);
    // The system's roots do not apply to the endpoint.
    let error = transport.send(&request, TIMEOUT).await.unwrap_err();
    assert!(matches!(error, Error::Certificate { .. }), "{error:?}");

    let misnamed = through(&format!("https://127.0.0.1:{port}"), "", &[]);
    let error = misnamed.send_over(&request, &roots(&tenants.pem), TIMEOUT).await.unwrap_err();
    assert_unreached(&error);
    assert!(error.to_string().ends_with("its certificate is for another name than its URL has"), "{error}");

    // A client certificate is for the endpoint alone, though the proxy would accept it.
    let client = tenants.issue_client("client");
    let tls = Tls::new(Some(&tenants.pem), Some((&client.pem, &client.secret()))).unwrap();
    let strict = serve(&named, Some(&tenants));
    let url = format!("https://idp.example.com:{}/token", strict.port);
    let to_strict = super::request(&url, Grant::ClientCredentials);
    let before = asked.lock().unwrap().len();
    assert!(transport.send_over(&to_strict, &tls, TIMEOUT).await.is_ok());
    let to_proxy = asked.lock().unwrap().clone();
    assert!(to_proxy.len() > before && !to_proxy.iter().any(|it| it == CERTIFICATE), "{to_proxy:?}");
    let error = transport.send_over(&to_strict, &roots(&tenants.pem), TIMEOUT).await.unwrap_err();
    assert!(matches!(error, Error::ClientCertificate { .. }), "{error:?}");

    // A proxy that requires a client certificate refuses the connection after its handshake.
    let (port, asked) = secure_tunnel(server_config(certificate, key, Some(clients_of(&tenants)))).await;
    let closed = through(&format!("https://localhost:{port}"), "", &[]);
    let error = closed.send_over(&request, &roots(&tenants.pem), TIMEOUT).await.unwrap_err();
    assert_unreached(&error);
    assert!(asked.lock().unwrap().is_empty());

    // The tenant's authority vouches for no proxy.
    let fake = tenants.issue(|params| {
        params.subject_alt_names = vec![rcgen::SanType::DnsName("localhost".try_into().unwrap())];
    });
    let key = fake.key.serialize_der().try_into().unwrap();
    let (port, asked) = secure_tunnel(server_config(fake.der.clone(), key, None)).await;
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
    for proxy in [
        format!("http://127.0.0.1:{CLOSED_PORT}"),
        format!("https://127.0.0.1:{CLOSED_PORT}"),
        "http://proxy.invalid".to_owned(),
    ] {
        for url in ["https://idp.example.com/token", "http://idp.example.com/token"] {
            let request = request(url, Grant::ClientCredentials);
            let error = through(&proxy, "", &[]).send(&request, TIMEOUT).await.unwrap_err();
            assert_unreached(&error);
        }
    }
}
