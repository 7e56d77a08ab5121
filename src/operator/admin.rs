//! The admin server: `/livez`, `/readyz` and `/metrics`, over plain HTTP. It tells nothing that is secret.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tracing::{debug, info};

use super::text::Text;

/// Connections that are served at once; more wait to be accepted.
const AT_ONCE: usize = 64;
/// Of these, that are sent metrics: megabytes each, with ten thousand TokenSources.
const SCRAPES_AT_ONCE: usize = 2;
/// How long a client may take for the head of its request, and all together.
const HEAD_LIMIT: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(10);

const METRICS_PATH: &str = "/metrics";

const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const METRICS: HeaderValue = HeaderValue::from_static(crate::metrics::CONTENT_TYPE);

/// What `--admin-address` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminAddress {
    /// No admin server.
    Off,
    /// This port on every address, of both families where the system has both.
    Everywhere(u16),
    /// This address.
    At(SocketAddr),
}

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
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = text.strip_prefix(':').and_then(|port| port.parse().ok());
        match (text, port) {
            ("off", _) => Ok(AdminAddress::Off),
            (_, Some(port)) => Ok(AdminAddress::Everywhere(port)),
            _ => text.parse().map(AdminAddress::At).map_err(|_| {
                "write an IP address and a port (127.0.0.1:8080), a port alone (:8080), or off".into()
            }),
        }
    }
}

/// One thing that has to be well.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Check {
    pub(super) name: &'static str,
    /// What is wrong, in words for people.
    pub(super) result: Result<(), String>,
}

/// Asks for the state of all checks.
pub(super) type Probe = Box<dyn Fn() -> Vec<Check> + Send + Sync>;

/// What is served.
pub(super) struct Pages {
    pub(super) live: Probe,
    pub(super) ready: Probe,
    /// Writes all metrics.
    pub(super) metrics: Box<dyn Fn(&mut Text) + Send + Sync>,
}

/// A running admin server. It ends when it is dropped.
pub(super) struct Admin(JoinHandle<()>);

impl Admin {
    /// Listens, and serves until this is dropped; `None` where nobody wants that.
    pub(super) async fn start(address: AdminAddress, pages: Pages) -> io::Result<Option<Self>> {
        let listener = match address {
            AdminAddress::Off => return Ok(None),
            AdminAddress::At(address) => TcpListener::bind(address).await?,
            // Linux and macOS accept IPv4 there as well. A system without IPv6 refuses the address.
            AdminAddress::Everywhere(port) => match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await?
                }
                listener => listener?,
            },
        };
        info!(address = %listener.local_addr()?, "serving /livez, /readyz and /metrics");
        Ok(Some(Admin(tokio::spawn(accept(listener, Arc::new(pages))))))
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn accept(listener: TcpListener, pages: Arc<Pages>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let scrapes = Arc::new(Semaphore::new(SCRAPES_AT_ONCE));
    loop {
        // It is never closed.
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Too many open files, most likely: that passes.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let (pages, scrapes) = (Arc::clone(&pages), Arc::clone(&scrapes));
        tokio::spawn(async move {
            let _place = place;
            match tokio::time::timeout(LIMIT, serve(stream, &pages, &scrapes)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "a client of the admin server"),
                Err(_) => debug!("a client of the admin server took too long"),
            }
        });
    }
}

/// One request: a probe comes every few seconds, so that a connection kept open would only hold a place.
async fn serve(stream: TcpStream, pages: &Pages, scrapes: &Semaphore) -> hyper::Result<()> {
    // Held until all is sent.
    let turn = Mutex::new(None);
    let answer = service_fn(|request: Request<Incoming>| {
        let turn = &turn;
        async move {
            if request.uri().path() == METRICS_PATH {
                *turn.lock().unwrap_or_else(PoisonError::into_inner) = scrapes.acquire().await.ok();
            }
            Ok::<_, Infallible>(answer(&request, pages))
        }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .keep_alive(false)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), answer)
        .await
}

/// The answer to a request, whose body is not looked at.
fn answer<B>(request: &Request<B>, pages: &Pages) -> Response<Text> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return page(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET and HEAD\n".to_owned());
    }
    let verbose = request
        .uri()
        .query()
        .is_some_and(|query| query.split('&').any(|pair| pair.split('=').next() == Some("verbose")));
    match request.uri().path() {
        "/livez" => probe("livez", &(pages.live)(), verbose),
        "/readyz" => probe("readyz", &(pages.ready)(), verbose),
        METRICS_PATH => {
            let mut text = Text::default();
            (pages.metrics)(&mut text);
            page(StatusCode::OK, METRICS, text)
        }
        _ => page(StatusCode::NOT_FOUND, PLAIN, "there are /livez, /readyz and /metrics\n".to_owned()),
    }
}

/// The answer to a probe, in the words of Kubernetes' own: `ok`, or line by line with `?verbose` or where something is wrong.
fn probe(name: &str, checks: &[Check], verbose: bool) -> Response<Text> {
    let passed = checks.iter().all(|check| check.result.is_ok());
    if passed && !verbose {
        return page(StatusCode::OK, PLAIN, "ok".to_owned());
    }
    let lines = checks.iter().map(|Check { name, result }| match result {
        Ok(()) => format!("[+]{name} ok\n"),
        Err(problem) => format!("[-]{name} failed: {problem}\n"),
    });
    let (status, verdict) =
        if passed { (StatusCode::OK, "passed") } else { (StatusCode::INTERNAL_SERVER_ERROR, "failed") };
    page(status, PLAIN, lines.collect::<String>() + &format!("{name} check {verdict}\n"))
}

fn page(status: StatusCode, media_type: HeaderValue, text: impl Into<Text>) -> Response<Text> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use http_body_util::BodyExt;

    use super::*;

    fn pages(sick: bool) -> Pages {
        let checks = move || {
            let result = if sick { Err("nobody looks".to_owned()) } else { Ok(()) };
            vec![Check { name: "ping", result: Ok(()) }, Check { name: "watches", result }]
        };
        Pages {
            live: Box::new(checks),
            ready: Box::new(checks),
            metrics: Box::new(|text| text.write_str("up 1\n").unwrap()),
        }
    }

    async fn ask(method: Method, uri: &str, sick: bool) -> (u16, String) {
        let request = Request::builder().method(method).uri(uri).body(()).unwrap();
        let response = answer(&request, &pages(sick));
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn probes_answer_as_those_of_kubernetes() {
        for (uri, sick, status, body) in [
            ("/livez", false, 200, "ok"),
            ("/readyz", false, 200, "ok"),
            ("/livez?verbose", false, 200, "[+]ping ok\n[+]watches ok\nlivez check passed\n"),
            ("/readyz?a=b&verbose=1", false, 200, "[+]ping ok\n[+]watches ok\nreadyz check passed\n"),
            ("/livez", true, 500, "[+]ping ok\n[-]watches failed: nobody looks\nlivez check failed\n"),
            ("/metrics", false, 200, "up 1\n"),
        ] {
            assert_eq!(ask(Method::GET, uri, sick).await, (status, body.to_owned()), "{uri}");
        }
        assert_eq!(ask(Method::GET, "/", false).await.0, 404);
        assert_eq!(ask(Method::POST, "/livez", false).await.0, 405);
    }

    #[test]
    fn addresses_are_read() {
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
