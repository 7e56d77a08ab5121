//! A proxy to the API server that breaks watches as happens in real clusters: they are cut, and when they are resumed
//! their resourceVersion has expired (410 Gone), so that everything must be listed again.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Ends when it is dropped.
pub struct Relay {
    state: Arc<RelayState>,
    acceptor: JoinHandle<()>,
    folder: tempfile::TempDir,
}

struct RelayState {
    client: Client,
    /// Requests with this in their URI are cut and held until released.
    held: watch::Sender<Option<&'static str>>,
    /// How often each path was listed.
    lists: Mutex<HashMap<String, usize>>,
    /// Method and path of every request except reads.
    writes: Mutex<Vec<String>>,
    /// The paths whose next watch gets 410 Gone.
    expired: Mutex<Vec<String>>,
    /// How long slow requests wait before they are passed on.
    delay: Mutex<Option<(Slow, Duration)>>,
}

/// Which requests are slow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slow {
    /// All but watches and lists, which would delay only the start.
    Calls,
    /// Those that change an object, as with a slow disk of etcd; dry runs do not.
    Writes,
}

impl RelayState {
    /// Whether this watch of the path gets 410 Gone; the next one does not.
    fn take_expired(&self, path: &str) -> bool {
        let mut expired = self.expired.lock().unwrap();
        let place = expired.iter().position(|it| it == path);
        place.map(|place| expired.swap_remove(place)).is_some()
    }
}

impl Relay {
    pub async fn start(client: Client) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let server = format!("http://{}", listener.local_addr().expect("its address"));
        let state = Arc::new(RelayState {
            client,
            held: watch::Sender::new(None),
            lists: Mutex::default(),
            writes: Mutex::default(),
            expired: Mutex::default(),
            delay: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        let acceptor = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                connections.spawn(async move { serve(stream, &shared).await });
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "relay",
            "clusters": [{"name": "relay", "cluster": {"server": server}}],
            "users": [{"name": "relay", "user": {}}],
            "contexts": [{"name": "relay", "context": {"cluster": "relay", "user": "relay"}}],
        });
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
        Self { state, acceptor, folder }
    }

    pub fn kubeconfig_path(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// Cuts every watch; none is answered until [`Self::expire`].
    pub fn cut(&self) {
        self.hold("watch=true");
    }

    /// Cuts every request that has this in its URI (all have a slash); none is answered until [`Self::release`].
    pub fn hold(&self, what: &'static str) {
        self.state.held.send_replace(Some(what));
    }

    /// Delays these requests, as a slow API server does.
    pub fn delay(&self, slow: Slow, delay: Duration) {
        *self.state.delay.lock().unwrap() = Some((slow, delay));
    }

    /// Passes everything again.
    pub fn release(&self) {
        self.state.held.send_replace(None);
    }

    /// Passes watches again, after one 410 Gone for each path.
    pub fn expire(&self) {
        *self.state.expired.lock().unwrap() = self.state.lists.lock().unwrap().keys().cloned().collect();
        self.release();
    }

    /// The writes requested so far: method and path.
    pub fn writes(&self) -> Vec<String> {
        self.state.writes.lock().unwrap().clone()
    }

    /// The number of lists of each path so far, in ascending order.
    pub fn lists(&self) -> Vec<usize> {
        let mut counts: Vec<_> = self.state.lists.lock().unwrap().values().copied().collect();
        counts.sort_unstable();
        counts
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

/// One request for each connection.
async fn serve(mut stream: TcpStream, state: &RelayState) -> Option<()> {
    let (head, body) = read_request(&mut stream).await?;
    let mut lines = head.lines();
    let mut words = lines.next()?.split(' ');
    let (method, uri) = (words.next()?, words.next()?);
    let path = uri.split('?').next()?.to_owned();
    let is_watch = uri.contains("watch=true");
    if method != "GET" {
        state.writes.lock().unwrap().push(format!("{method} {path}"));
    }
    let mut held = state.held.subscribe();
    let is_held = |held: &Option<&str>| held.is_some_and(|held| uri.contains(held));
    held.wait_for(|held| !is_held(held)).await.ok()?;
    if is_watch && state.take_expired(&path) {
        let gone = json!({"type": "ERROR", "object": {
            "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
            "message": "too old resource version", "reason": "Expired", "code": 410,
        }});
        let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{gone}\n");
        stream.write_all(answer.as_bytes()).await.ok()?;
        return stream.shutdown().await.ok();
    }

    // A GET of a path without an object's name is a list.
    let is_list = method == "GET" && (path.ends_with("/tokensources") || path.ends_with("/secrets"));
    let delay = *state.delay.lock().unwrap();
    if let Some((slow, delay)) = delay {
        let is_write = method != "GET" && !uri.contains("dryRun=");
        let is_slow = match slow {
            Slow::Calls => !is_list,
            Slow::Writes => is_write,
        };
        if is_slow {
            tokio::time::sleep(delay).await;
        }
    }

    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        let of_this_connection = ["host", "connection", "content-length"];
        if !of_this_connection.contains(&name.to_ascii_lowercase().as_str()) {
            request = request.header(name, value);
        }
    }
    let answer = state.client.send(request.body(Body::from(body)).ok()?).await.ok()?;
    let mut head = format!("HTTP/1.1 {} .\r\nconnection: close\r\n", answer.status().as_u16());
    for name in ["content-type", "date"] {
        if let Some(value) = answer.headers().get(name).and_then(|it| it.to_str().ok()) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    stream.write_all(format!("{head}\r\n").as_bytes()).await.ok()?;
    let mut body = answer.into_body();
    let pass_on = async {
        while let Some(Ok(frame)) = body.frame().await {
            stream.write_all(frame.data_ref()?).await.ok()?;
        }
        Some(())
    };
    tokio::select! {
        _ = pass_on => {}
        _ = held.wait_for(is_held) => {}
    }
    if is_list && !is_watch {
        *state.lists.lock().unwrap().entry(path).or_default() += 1;
    }
    stream.shutdown().await.ok()
}

/// Head and body of one request; `None` if the client left before it was whole.
pub async fn read_request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut body = bytes[end + 4..].to_vec();
        let length = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map_or(0, |(_, value)| value.parse().expect("a length"));
        while body.len() < length {
            if stream.read_buf(&mut body).await.ok()? == 0 {
                return None;
            }
        }
        return Some((head, body));
    }
}
