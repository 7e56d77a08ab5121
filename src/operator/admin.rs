//! The admin server: `/livez`, `/readyz` and `/metrics`, over plain HTTP, or over TLS with `/metrics` for authorized scrapers.
//! Its responses contain no secret. The kubelet's probes ask at a Unix socket, so that no connection from the network can make
//! them fail.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::{CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tracing::{debug, info};

use super::chunked_text::ChunkedText;
use super::metrics_access::{Access, MetricsAccess};
use super::metrics_tls::MetricsTls;
use crate::cluster::Verdict;

/// The most connections that are served at the same time; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// The most responses with metrics at the same time: each has megabytes with ten thousand TokenSources.
const MAX_SCRAPES: usize = 2;
/// The timeout for the head of a request, and for the TLS handshake before it: connections without one must not hold the permits of others.
const HEAD_TIMEOUT: Duration = Duration::from_secs(1);
/// The timeout for request and response together.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_BUFFER_BYTES: usize = 16 * 1024;

pub(super) const METRICS_PATH: &str = "/metrics";

const PLAIN_TYPE: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const METRICS_TYPE: HeaderValue = HeaderValue::from_static(crate::metrics::CONTENT_TYPE);

/// The value of `--admin-address`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// No admin server.
    Off,
    /// This port on every address, of both families where the system has both.
    Everywhere(u16),
    /// This address.
    At(SocketAddr),
}

/// A value of `--admin-address` that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write an IP address and a port (127.0.0.1:8080), a port alone (:8080), or off")]
pub struct AdminAddressError;

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminAddress::Off => f.write_str("off"),
            AdminAddress::Everywhere(port) => write!(f, ":{port}"),
            AdminAddress::At(address) => address.fmt(f),
        }
    }
}

impl FromStr for AdminAddress {
    type Err = AdminAddressError;

    fn from_str(text: &str) -> Result<Self, AdminAddressError> {
        let port = text.strip_prefix(':').and_then(|port| port.parse().ok());
        match (text, port) {
            ("off", _) => Ok(AdminAddress::Off),
            (_, Some(port)) => Ok(AdminAddress::Everywhere(port)),
            _ => text.parse().map(AdminAddress::At).map_err(|_| AdminAddressError),
        }
    }
}

/// The result of one check.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HealthCheck {
    name: &'static str,
    /// The message of the failure; `None` where the check passed.
    failure: Option<String>,
}

impl HealthCheck {
    pub(super) fn new<E: fmt::Display>(name: &'static str, result: Result<(), E>) -> Self {
        HealthCheck { name, failure: result.err().map(|error| error.to_string()) }
    }

    pub(super) fn passed(name: &'static str) -> Self {
        HealthCheck { name, failure: None }
    }
}

/// Runs all checks of a page.
pub(super) type Probe = Box<dyn Fn() -> Vec<HealthCheck> + Send + Sync>;

/// The pages of the server.
pub(super) struct Pages {
    pub(super) live: Probe,
    pub(super) ready: Probe,
    /// All metrics.
    pub(super) metrics: Box<dyn Fn() -> ChunkedText + Send + Sync>,
}

/// TLS, and who may scrape.
pub(super) struct Security {
    pub(super) tls: MetricsTls,
    pub(super) access: MetricsAccess,
}

/// A running admin server. It stops when it is dropped.
pub(super) struct AdminServer(JoinHandle<()>);

impl AdminServer {
    /// Listens and serves; `None` for [`AdminAddress::Off`].
    pub(super) async fn start(
        address: AdminAddress,
        pages: Arc<Pages>,
        security: Option<Security>,
    ) -> io::Result<Option<Self>> {
        let listener = match address {
            AdminAddress::Off => return Ok(None),
            AdminAddress::At(address) => TcpListener::bind(address).await?,
            // On Linux and macOS this address accepts IPv4 too. A system without IPv6 refuses it.
            AdminAddress::Everywhere(port) => match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?
                }
                listener => listener?,
            },
        };
        let tls = security.is_some();
        info!(tls, address = %listener.local_addr()?, "serving /livez, /readyz and /metrics");
        Ok(Some(AdminServer(tokio::spawn(accept(Listener::Tcp(listener), pages, security)))))
    }

    /// Serves the same at a Unix socket, which processes of this pod alone can reach.
    pub(super) fn start_at_socket(path: &Path, pages: Arc<Pages>) -> io::Result<Self> {
        // One that this container left when it was restarted. Anything else is an error of the path.
        if path.symlink_metadata().is_ok_and(|it| it.file_type().is_socket()) {
            std::fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        Ok(AdminServer(tokio::spawn(accept(Listener::Socket(listener), pages, None))))
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

enum Listener {
    Tcp(TcpListener),
    Socket(UnixListener),
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Listener {
    /// A connection, and the address of its peer: at a Unix socket, a process of this pod.
    async fn accept(&self) -> io::Result<(Box<dyn Stream>, IpAddr)> {
        Ok(match self {
            Listener::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                (Box::new(stream), peer.ip())
            }
            Listener::Socket(listener) => (Box::new(listener.accept().await?.0), Ipv4Addr::LOCALHOST.into()),
        })
    }
}

async fn accept(listener: Listener, pages: Arc<Pages>, security: Option<Security>) {
    let security = Arc::new(security);
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let scrapes = Arc::new(Semaphore::new(MAX_SCRAPES));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let Ok((stream, peer)) = listener.accept().await else {
            // Usually too many open files, which is temporary.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (pages, scrapes, security) = (Arc::clone(&pages), Arc::clone(&scrapes), Arc::clone(&security));
        tokio::spawn(async move {
            let _permit = permit;
            let exchange = async {
                let (stream, access) = match &*security {
                    Some(security) => {
                        (handshake(stream, &security.tls).await?, Some((&security.access, peer)))
                    }
                    None => (stream, None),
                };
                serve(stream, &pages, &scrapes, access).await.map_err(io::Error::other)
            };
            match tokio::time::timeout(CONNECTION_TIMEOUT, exchange).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "admin request failed"),
                Err(_) => debug!("admin request timed out"),
            }
        });
    }
}

async fn handshake(stream: Box<dyn Stream>, tls: &MetricsTls) -> io::Result<Box<dyn Stream>> {
    match tokio::time::timeout(HEAD_TIMEOUT, tls.acceptor.accept(stream)).await {
        Ok(accepted) => Ok(Box::new(accepted?)),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Serves one request. Connections are not kept alive, because an idle one would occupy a permit.
async fn serve(
    stream: Box<dyn Stream>,
    pages: &Pages,
    scrapes: &Semaphore,
    access: Option<(&MetricsAccess, IpAddr)>,
) -> hyper::Result<()> {
    // Held until the whole response is sent.
    let scrape_permit = Mutex::new(None);
    let service = service_fn(|request: Request<Incoming>| {
        let scrape_permit = &scrape_permit;
        async move {
            if request.uri().path() == METRICS_PATH {
                if let Some((access, peer)) = access
                    && let Some(refusal) = refusal(access.check(request.headers(), peer).await)
                {
                    return Ok(refusal);
                }
                let permit = scrapes.acquire().await.ok();
                *scrape_permit.lock().unwrap_or_else(PoisonError::into_inner) = permit;
            }
            Ok::<_, Infallible>(respond(&request, pages))
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .max_buf_size(MAX_BUFFER_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

/// The response to a scrape that is not answered.
fn refusal(access: Access) -> Option<Response<ChunkedText>> {
    let (status, text) = match access {
        Access::Reviewed(Verdict::Allowed) => return None,
        Access::Reviewed(Verdict::Unauthenticated) => {
            (StatusCode::UNAUTHORIZED, "send the token of a ServiceAccount as bearer token\n")
        }
        Access::Reviewed(Verdict::Forbidden) => {
            (StatusCode::FORBIDDEN, "this user may not get /metrics: bind the ClusterRole metrics-reader\n")
        }
        Access::Busy => (StatusCode::TOO_MANY_REQUESTS, "too many unknown tokens\n"),
        Access::Unknown => (StatusCode::SERVICE_UNAVAILABLE, "the token could not be reviewed\n"),
    };
    let mut response = page(status, PLAIN_TYPE, text.to_owned());
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    Some(response)
}

/// The response to a request. Its body is ignored.
fn respond<B>(request: &Request<B>, pages: &Pages) -> Response<ChunkedText> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return page(StatusCode::METHOD_NOT_ALLOWED, PLAIN_TYPE, "only GET and HEAD\n".to_owned());
    }
    let verbose = request
        .uri()
        .query()
        .is_some_and(|query| query.split('&').any(|pair| pair.split('=').next() == Some("verbose")));
    match request.uri().path() {
        "/livez" => probe("livez", &(pages.live)(), verbose),
        "/readyz" => probe("readyz", &(pages.ready)(), verbose),
        METRICS_PATH => page(StatusCode::OK, METRICS_TYPE, (pages.metrics)()),
        _ => page(StatusCode::NOT_FOUND, PLAIN_TYPE, "there are /livez, /readyz and /metrics\n".to_owned()),
    }
}

/// The response to a probe in the format of Kubernetes: `ok`, or one line for each check with `?verbose` or after a failure.
fn probe(name: &str, checks: &[HealthCheck], verbose: bool) -> Response<ChunkedText> {
    let passed = checks.iter().all(|check| check.failure.is_none());
    if passed && !verbose {
        return page(StatusCode::OK, PLAIN_TYPE, "ok".to_owned());
    }
    let lines = checks.iter().map(|HealthCheck { name, failure }| match failure {
        None => format!("[+]{name} ok\n"),
        Some(failure) => format!("[-]{name} failed: {failure}\n"),
    });
    let (status, verdict) =
        if passed { (StatusCode::OK, "passed") } else { (StatusCode::INTERNAL_SERVER_ERROR, "failed") };
    page(status, PLAIN_TYPE, lines.collect::<String>() + &format!("{name} check {verdict}\n"))
}

fn page(status: StatusCode, media_type: HeaderValue, text: impl Into<ChunkedText>) -> Response<ChunkedText> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn pages(fails: bool) -> Pages {
        let checks = move || {
            let result = if fails { Err("no heartbeat") } else { Ok(()) };
            vec![HealthCheck::passed("ping"), HealthCheck::new("watches", result)]
        };
        Pages {
            live: Box::new(checks),
            ready: Box::new(checks),
            metrics: Box::new(|| "up 1\n".to_owned().into()),
        }
    }

    async fn get(method: Method, uri: &str, fails: bool) -> (u16, String) {
        let request = Request::builder().method(method).uri(uri).body(()).unwrap();
        let response = respond(&request, &pages(fails));
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn probe_responses_have_the_format_of_kubernetes() {
        for (uri, fails, status, body) in [
            ("/livez", false, 200, "ok"),
            ("/readyz", false, 200, "ok"),
            ("/livez?verbose", false, 200, "[+]ping ok\n[+]watches ok\nlivez check passed\n"),
            ("/readyz?a=b&verbose=1", false, 200, "[+]ping ok\n[+]watches ok\nreadyz check passed\n"),
            ("/livez", true, 500, "[+]ping ok\n[-]watches failed: no heartbeat\nlivez check failed\n"),
            ("/metrics", false, 200, "up 1\n"),
        ] {
            assert_eq!(get(Method::GET, uri, fails).await, (status, body.to_owned()), "{uri}");
        }
        assert_eq!(get(Method::GET, "/", false).await.0, 404);
        assert_eq!(get(Method::POST, "/livez", false).await.0, 405);
    }

    #[test]
    fn admin_address_parses_off_ports_and_addresses() {
        for (text, address) in [
            ("off", AdminAddress::Off),
            (":8080", AdminAddress::Everywhere(8080)),
            ("127.0.0.1:0", AdminAddress::At(SocketAddr::from(([127, 0, 0, 1], 0)))),
            ("[::1]:80", AdminAddress::At(SocketAddr::from((Ipv6Addr::LOCALHOST, 80)))),
        ] {
            assert_eq!(text.parse(), Ok(address), "{text}");
        }
        for wrong in ["", "8080", "localhost:8080", ":70000", "0.0.0.0"] {
            assert!(wrong.parse::<AdminAddress>().is_err(), "{wrong}");
        }
    }
}
