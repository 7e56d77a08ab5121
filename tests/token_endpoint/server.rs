//! A TCP server that performs scripted steps, for behaviour that a well-behaved server does not have.

use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A step of the script for a connection.
#[derive(Clone)]
pub(crate) enum Step {
    /// Read one whole request (head and Content-Length).
    Read,
    Write(Vec<u8>),
    Wait(Duration),
    /// One byte at a time, with a pause after each.
    Drip(Vec<u8>, Duration),
    /// Close with RST instead of FIN.
    Reset,
    /// Continue with the first step, on the same connection.
    Again,
}

pub(crate) fn write(text: impl AsRef<[u8]>) -> Step {
    Step::Write(text.as_ref().to_vec())
}

/// A complete answer with its Content-Length.
pub(crate) fn answer(status: &str, headers: &str, body: &str) -> Step {
    write(format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()))
}

pub(crate) struct Server {
    pub(crate) port: u16,
    requests: Arc<Mutex<Vec<String>>>,
    connections: Arc<Mutex<usize>>,
}

impl Server {
    /// Listens on a free port of 127.0.0.1 and performs `steps` on every connection.
    pub(crate) async fn start(steps: Vec<Step>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let connections = Arc::new(Mutex::new(0));
        let (seen, opened) = (Arc::clone(&requests), Arc::clone(&connections));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *opened.lock().unwrap() += 1;
                tokio::spawn(play(stream, steps.clone(), Arc::clone(&seen)));
            }
        });
        Self { port, requests, connections }
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }
}

async fn play(mut stream: TcpStream, steps: Vec<Step>, seen: Arc<Mutex<Vec<String>>>) -> std::io::Result<()> {
    let mut next = 0;
    while let Some(step) = steps.get(next) {
        next += 1;
        match step {
            Step::Read => {
                let Some(request) = read_request(&mut stream).await? else { return Ok(()) };
                seen.lock().unwrap().push(request);
            }
            Step::Write(bytes) => stream.write_all(bytes).await?,
            Step::Wait(time) => tokio::time::sleep(*time).await,
            Step::Drip(bytes, pause) => {
                for byte in bytes {
                    stream.write_all(&[*byte]).await?;
                    tokio::time::sleep(*pause).await;
                }
            }
            Step::Reset => {
                stream.set_zero_linger()?;
                return Ok(());
            }
            Step::Again => next = 0,
        }
    }
    stream.shutdown().await
}

pub(crate) async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Option<String>> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok())
                .unwrap_or(0);
            if body.len() >= length {
                return Ok(Some(text));
            }
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    }
}
