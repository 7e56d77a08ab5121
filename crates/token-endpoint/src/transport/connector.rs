//! Connections to token endpoints: names within the egress policy, the proxy, TLS. The HTTP library is used below reqwest, which
//! sets no bound on the header section of an answer.

use super::limits::CONNECT_TIMEOUT;
use super::lookups::Lookups;
use super::resolver::{BoxError, Resolver, TENANT};
use super::turns::Tenant;
use crate::egress::Egress;
use http::{HeaderMap, HeaderValue, Uri};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::proxy::Tunnel;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::error::Error as StdError;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tower_service::Service;

/// Ends before [`CONNECT_TIMEOUT`] does for the whole way, and after [`LOOKUP_TIMEOUT`](super::LOOKUP_TIMEOUT).
const PROXY_CONNECT_TIMEOUT: Duration = Duration::from_millis(4500);

type Connecting = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

/// No connection within [`CONNECT_TIMEOUT`].
#[derive(Debug, thiserror::Error)]
#[error("no connection in time")]
pub(super) struct ConnectTimedOut;

/// The proxy of the process cannot be reached, so that nothing is known of the endpoint.
#[derive(Debug, thiserror::Error)]
#[error("the proxy is not reached")]
pub(super) struct ProxyUnreached(#[source] BoxError);

/// The proxy of a client.
#[derive(Clone)]
pub(super) struct Proxy {
    /// Without user name and password.
    pub(super) uri: Uri,
    /// Those, as a header.
    pub(super) authorization: Option<HeaderValue>,
    /// Where it is reached by TLS: by the system's roots and without a client certificate, since those of a tenant are for the
    /// endpoint.
    pub(super) tls: Option<Arc<ClientConfig>>,
}

/// Connects to endpoints, each time within [`CONNECT_TIMEOUT`].
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) egress: Arc<Egress>,
    pub(super) lookups: Arc<Lookups>,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) proxy: Option<Proxy>,
    pub(super) user_agent: HeaderValue,
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = BoxError;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, endpoint: Uri) -> Connecting {
        let connector = self.clone();
        // Here, where the request is polled, and not in the future, which the client may poll elsewhere.
        let tenant = TENANT.try_with(Tenant::clone).unwrap_or_default();
        Box::pin(async move {
            let connected = timeout(CONNECT_TIMEOUT, connector.connect(endpoint, tenant)).await;
            connected.unwrap_or_else(|_| Err(ConnectTimedOut.into()))
        })
    }
}

impl Connector {
    async fn connect(self, endpoint: Uri, tenant: Tenant) -> Result<Stream, BoxError> {
        let is_secure = is_https(&endpoint);
        let Some(proxy) = &self.proxy else {
            let resolver = Resolver::within_policy(self.egress, self.lookups, tenant, port(&endpoint));
            let stream = tcp(resolver, endpoint.clone()).await?;
            return if is_secure { secured(stream, self.tls, &endpoint).await } else { Ok(stream) };
        };
        let mut to_proxy = ToProxy { proxy: proxy.clone(), lookups: Arc::clone(&self.lookups) };
        if !is_secure {
            return Ok(Stream { is_proxy: true, ..to_proxy.call(proxy.uri.clone()).await? });
        }
        let mut headers = HeaderMap::new();
        headers.insert(http::header::USER_AGENT, self.user_agent);
        headers.extend(proxy.authorization.clone().map(|it| (http::header::PROXY_AUTHORIZATION, it)));
        let mut tunnel = Tunnel::new(proxy.uri.clone(), to_proxy).with_headers(headers);
        let stream = tunnel.call(endpoint.clone()).await.map_err(of_tunnel)?;
        secured(stream, self.tls, &endpoint).await
    }
}

/// With TLS 1.3 a proxy refuses the client's certificate when it is asked for the tunnel. Its answers have no source.
fn of_tunnel(error: impl StdError + Send + Sync + 'static) -> BoxError {
    let is_cut = error.source().is_some_and(|source| source.is::<io::Error>());
    if is_cut { ProxyUnreached(error.into()).into() } else { error.into() }
}

/// Connects to the proxy alone.
struct ToProxy {
    proxy: Proxy,
    lookups: Arc<Lookups>,
}

impl Service<Uri> for ToProxy {
    type Response = Stream;
    type Error = BoxError;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, proxy: Uri) -> Connecting {
        let (lookups, tls) = (Arc::clone(&self.lookups), self.proxy.tls.clone());
        Box::pin(async move {
            let connect = async {
                let stream = tcp(Resolver::of_proxy(lookups, port(&proxy)), proxy.clone()).await?;
                match tls {
                    Some(tls) => secured(stream, tls, &proxy).await,
                    None => Ok(stream),
                }
            };
            let connected = timeout(PROXY_CONNECT_TIMEOUT, connect).await;
            connected.unwrap_or_else(|_| Err(ConnectTimedOut.into())).map_err(|it| ProxyUnreached(it).into())
        })
    }
}

fn is_https(uri: &Uri) -> bool {
    uri.scheme() == Some(&http::uri::Scheme::HTTPS)
}

fn port(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if is_https(uri) { 443 } else { 80 })
}

/// An address in the URI needs no look-up: the policy has judged it with the URL.
async fn tcp(resolver: Resolver, uri: Uri) -> Result<Stream, BoxError> {
    let mut connector = HttpConnector::new_with_resolver(resolver);
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
    Ok(Stream::new(connector.call(uri).await?))
}

async fn secured(stream: Stream, config: Arc<ClientConfig>, server: &Uri) -> Result<Stream, BoxError> {
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']);
    let name = ServerName::try_from(host.to_owned())?;
    let secured = TlsConnector::from(config).connect(name, TokioIo::new(stream)).await?;
    Ok(Stream::new(TokioIo::new(secured)))
}

trait Io: Read + Write + Send + Unpin {}
impl<T: Read + Write + Send + Unpin> Io for T {}

/// A connection, with TLS or without.
pub(super) struct Stream {
    io: Box<dyn Io>,
    is_proxy: bool,
}

impl Stream {
    fn new(io: impl Read + Write + Send + Unpin + 'static) -> Self {
        Stream { io: Box::new(io), is_proxy: false }
    }
}

impl Connection for Stream {
    /// Requests to a proxy name the whole URL.
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.is_proxy)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        all: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, all)
    }
}
