//! A proxy in front of the real API server, one address for each replica, that spoils calls as the journal says.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::fault::Way;
use super::journal::Journal;
use super::watch;
use crate::support::relay::read_request;

/// Longer than the operator's timeout for a call.
pub const LATE: Duration = Duration::from_secs(12);
/// Headers of one connection.
const OF_THIS_CONNECTION: [&str; 6] =
    ["host", "connection", "content-length", "transfer-encoding", "keep-alive", "date-of-proxy"];

/// Ends when it is dropped.
pub struct Proxy {
    acceptor: JoinHandle<()>,
    folder: tempfile::TempDir,
}

impl Proxy {
    pub async fn start(client: Client, journal: Arc<Journal>, replica: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let server = format!("http://{}", listener.local_addr().expect("its address"));
        let acceptor = tokio::spawn(async move {
            let expired = Arc::default();
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let call = Served {
                    client: client.clone(),
                    journal: Arc::clone(&journal),
                    replica,
                    expired: Arc::clone(&expired),
                };
                connections.spawn(async move { call.serve(stream).await });
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": server}}],
            "users": [{"name": "proxy", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        });
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
        Self { acceptor, folder }
    }

    pub fn kubeconfig_path(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

/// One connection, with one request.
pub struct Served {
    client: Client,
    pub journal: Arc<Journal>,
    pub replica: usize,
    /// The paths whose next watch gets 410 Gone.
    pub expired: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Served {
    async fn serve(&self, mut stream: TcpStream) -> Option<()> {
        let (head, body) = read_request(&mut stream).await?;
        let mut words = head.lines().next()?.split(' ');
        let (method, uri) = (words.next()?, words.next()?);
        let (verb, resource) = name(method, uri)?;
        let way = self.journal.enter(self.replica, verb, &resource);
        if verb == "watch" {
            let request = forwarded(&head, body)?;
            return watch::serve(self, stream, way, uri, &resource, || self.client.send(request)).await;
        }
        let _in_flight = self.journal.in_flight(&resource);
        match way {
            Some(Way::Status(status)) => return refuse(&mut stream, status).await,
            Some(Way::Reset) => return reset(stream),
            Some(Way::KilledBefore) => {
                self.journal.kill(self.replica).await;
                return None;
            }
            Some(Way::RequestLate) => tokio::time::sleep(LATE).await,
            _ => {}
        }
        let answer = self.client.send(forwarded(&head, body)?).await.ok()?;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        if parts.status.is_success() && !matches!(verb, "get" | "list" | "dry-run") {
            self.journal.wrote(verb, &resource);
        }
        match way {
            Some(Way::AnswerLost) => return reset(stream),
            Some(Way::KilledAfter) => {
                self.journal.kill(self.replica).await;
                return None;
            }
            Some(Way::AnswerLate) => tokio::time::sleep(LATE).await,
            _ => {}
        }
        let head = head_of(parts.status.as_u16(), &parts.headers, Some(body.len()));
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(&body).await.ok()?;
        stream.shutdown().await.ok()
    }
}

/// Verb and resource of a request to the API server, with the object's name and the subresource.
fn name(method: &str, uri: &str) -> Option<(&'static str, String)> {
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    let segments: Vec<_> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let rest = match segments.as_slice() {
        ["api", _, "namespaces", _, rest @ ..] | ["apis", _, _, "namespaces", _, rest @ ..]
            if !rest.is_empty() =>
        {
            rest
        }
        ["api", _, rest @ ..] | ["apis", _, _, rest @ ..] => rest,
        other => other,
    };
    let resource = rest.join("/");
    let verb = match method {
        "GET" if query.contains("watch=true") => "watch",
        "GET" if rest.len() < 2 => "list",
        "GET" => "get",
        _ if query.contains("dryRun=") => "dry-run",
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => return None,
    };
    Some((verb, resource))
}

fn forwarded(head: &str, body: Vec<u8>) -> Option<Request<Body>> {
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ');
    let mut request = Request::builder().method(words.next()?).uri(words.next()?);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        if !OF_THIS_CONNECTION.contains(&name.to_ascii_lowercase().as_str()) {
            request = request.header(name, value);
        }
    }
    request.body(Body::from(body)).ok()
}

/// The head of an answer; without a length, the body ends with the connection.
pub fn head_of(status: u16, headers: &HeaderMap, length: Option<usize>) -> String {
    let mut head = format!("HTTP/1.1 {status} .\r\nconnection: close\r\n");
    for (name, value) in headers {
        if !OF_THIS_CONNECTION.contains(&name.as_str()) {
            head += &format!("{name}: {}\r\n", value.to_str().unwrap_or_default());
        }
    }
    if let Some(length) = length {
        head += &format!("content-length: {length}\r\n");
    }
    head + "\r\n"
}

/// Answers as the API server does with this status.
pub async fn refuse(stream: &mut TcpStream, status: u16) -> Option<()> {
    let reason = match status {
        409 => "Conflict",
        429 => "TooManyRequests",
        _ => "ServiceUnavailable",
    };
    let body = status_object(status, reason).to_string();
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/json".parse().ok()?);
    if status == 429 {
        headers.insert("retry-after", "1".parse().ok()?);
    }
    let head = head_of(status, &headers, Some(body.len()));
    stream.write_all(format!("{head}{body}").as_bytes()).await.ok()?;
    stream.shutdown().await.ok()
}

pub fn status_object(status: u16, reason: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "spoiled by a test", "reason": reason, "code": status,
    })
}

pub fn reset(stream: TcpStream) -> Option<()> {
    stream.set_zero_linger().ok()
}
