//! A server that follows a script, also against the protocol: one reply for each connection, the last one for all further
//! ones. It keeps every request, and closes each connection after its reply.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// What happens to one connection when its request has been read.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A JSON response.
    Json(u16, String),
    /// 200 with this JSON, when the test adds a permit.
    Held(Arc<Semaphore>, String),
    /// A response of any media type: status, headers, body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// 307 to the URL, which keeps method and body.
    Redirect(String),
    /// Exactly these bytes.
    Raw(Vec<u8>),
    /// A JSON response, byte by byte with a pause before each.
    Drip(String, Duration),
    /// No byte, ever.
    HangBeforeHeaders,
    /// 200 and a Content-Length, but no body, ever.
    HangAfterHeaders,
    /// RST instead of a response.
    Reset,
    /// FIN instead of a response.
    Close,
    /// A JSON string of so many bytes, with a right Content-Length or chunked.
    Oversize { bytes: usize, chunked: bool },
    /// A body with a wrong Content-Length.
    LyingLength { claimed: usize, body: String },
    /// Bytes that are not HTTP.
    Garbage,
    /// 400 with head and body of the request as text: some servers echo credentials.
    Echo,
    /// 401 `invalid_client`, whose description is the value that follows this text in the request, as sent and decoded.
    EchoAsError(&'static str),
}

/// A request as received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Request line and headers, without the empty line.
    pub head: String,
    pub body: Vec<u8>,
}

impl Recorded {
    /// The value of a header, if it was sent.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// Ends when it is dropped.
pub struct ScriptedServer {
    address: SocketAddr,
    state: Arc<Mutex<ScriptState>>,
    acceptor: JoinHandle<()>,
}

#[derive(Default)]
struct ScriptState {
    script: VecDeque<Reply>,
    requests: Vec<Recorded>,
    connections: usize,
}

impl ScriptedServer {
    /// At least one reply.
    pub async fn start(script: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("its address");
        let state = Arc::new(Mutex::new(ScriptState {
            script: script.into_iter().collect(),
            ..ScriptState::default()
        }));
        let shared = Arc::clone(&state);
        let acceptor = tokio::spawn(async move {
            // Dropped with this task, and the connections with it.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let reply = {
                    let mut state = shared.lock().unwrap();
                    state.connections += 1;
                    if state.script.len() > 1 {
                        state.script.pop_front()
                    } else {
                        state.script.front().cloned()
                    }
                };
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    // A client may disconnect.
                    let _ = serve(stream, reply.expect("a script has at least one reply"), &shared).await;
                });
            }
        });
        Self { address, state, acceptor }
    }

    /// Replaces the script, by a reply that contains the server's address.
    pub fn now(&self, reply: Reply) {
        self.state.lock().unwrap().script = [reply].into();
    }

    /// `http://127.0.0.1:PORT` and the path, which begins with a slash.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections there were, with or without a request.
    pub fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    pub fn requests(&self) -> Vec<Recorded> {
        self.state.lock().unwrap().requests.clone()
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn serve(mut stream: TcpStream, reply: Reply, state: &Mutex<ScriptState>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let Some(request) = read_request(&mut stream).await? else { return Ok(()) };
    state.lock().unwrap().requests.push(request.clone());
    match reply {
        Reply::Json(status, body) => stream.write_all(&json(status, &body)).await?,
        Reply::Held(permits, body) => {
            permits.acquire().await.expect("it is never closed").forget();
            stream.write_all(&json(200, &body)).await?;
        }
        Reply::Answer(status, headers, body) => stream.write_all(&answer(status, &headers, &body)).await?,
        Reply::Redirect(to) => stream.write_all(&answer(307, &[("location", to)], b"")).await?,
        Reply::Raw(bytes) => stream.write_all(&bytes).await?,
        Reply::Drip(body, pause) => {
            for byte in json(200, &body) {
                tokio::time::sleep(pause).await;
                stream.write_all(&[byte]).await?;
            }
        }
        Reply::HangBeforeHeaders => until_closed(&mut stream).await,
        Reply::HangAfterHeaders => {
            stream.write_all(&head(200, &[("content-type", "application/json".to_owned())], 100)).await?;
            until_closed(&mut stream).await;
        }
        Reply::Reset => {
            stream.set_zero_linger()?;
            return Ok(());
        }
        Reply::Close => {}
        Reply::Oversize { bytes, chunked } => oversize(&mut stream, bytes, chunked).await?,
        Reply::LyingLength { claimed, body } => {
            stream.write_all(&head(200, &[("content-type", "application/json".to_owned())], claimed)).await?;
            stream.write_all(body.as_bytes()).await?;
        }
        Reply::Garbage => stream.write_all(b"\x00\x01\xfe\xff garbage, no HTTP\r\n\r\n").await?,
        Reply::Echo => {
            let echo = [request.head.as_bytes(), b"\r\n\r\n", &request.body].concat();
            stream.write_all(&answer(400, &[("content-type", "text/plain".to_owned())], &echo)).await?;
        }
        Reply::EchoAsError(before) => {
            let body =
                serde_json::json!({"error": "invalid_client", "error_description": repeat(&request, before)});
            stream.write_all(&json(401, &body.to_string())).await?;
        }
    }
    stream.shutdown().await
}

fn repeat(request: &Recorded, before: &str) -> String {
    let text = format!("{}\r\n\r\n{}", request.head, String::from_utf8_lossy(&request.body));
    let from = text.find(before).unwrap_or_else(|| panic!("no {before:?} in the request")) + before.len();
    let value = text[from..].split(['&', '\r']).next().unwrap_or_default();
    let decoded = url::form_urlencoded::parse(format!("v={value}").as_bytes())
        .map(|(_, value)| value.into_owned())
        .collect::<String>();
    format!("wrong: {value} {decoded}")
}

/// `None` if the client left before its request was whole.
async fn read_request(stream: &mut TcpStream) -> std::io::Result<Option<Recorded>> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let mut request = Recorded {
            head: String::from_utf8_lossy(&bytes[..end]).into_owned(),
            body: bytes[end + 4..].to_vec(),
        };
        let length = request.header("content-length").map_or(0, |value| value.parse().expect("a length"));
        while request.body.len() < length {
            if stream.read_buf(&mut request.body).await? == 0 {
                return Ok(None);
            }
        }
        return Ok(Some(request));
    }
}

async fn until_closed(stream: &mut TcpStream) {
    while stream.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
}

async fn oversize(stream: &mut TcpStream, bytes: usize, chunked: bool) -> std::io::Result<()> {
    if !chunked {
        let body = format!("\"{}\"", "x".repeat(bytes.saturating_sub(2)));
        return stream.write_all(&json(200, &body)).await;
    }
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        .await?;
    stream.write_all(b"1\r\n\"\r\n").await?;
    let mut left = bytes.saturating_sub(2);
    while left > 0 {
        let size = left.min(64 * 1024);
        stream.write_all(format!("{size:x}\r\n{}\r\n", "x".repeat(size)).as_bytes()).await?;
        left -= size;
    }
    stream.write_all(b"1\r\n\"\r\n0\r\n\r\n").await
}

fn json(status: u16, body: &str) -> Vec<u8> {
    answer(status, &[("content-type", "application/json".to_owned())], body.as_bytes())
}

fn answer(status: u16, headers: &[(&str, String)], body: &[u8]) -> Vec<u8> {
    [head(status, headers, body.len()), body.to_vec()].concat()
}

fn head(status: u16, headers: &[(&str, String)], length: usize) -> Vec<u8> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    // Each connection has one reply.
    format!("HTTP/1.1 {status} Scripted\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n")
        .into_bytes()
}
