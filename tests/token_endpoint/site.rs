//! A web server whose pages a test writes and may change while it runs.

use crate::server::read_request;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

#[derive(Clone, Default)]
pub(crate) struct Site {
    port: u16,
    pages: Arc<Mutex<HashMap<String, (u16, String)>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Site {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let site = Self { port: listener.local_addr().unwrap().port(), ..Self::default() };
        let shared = site.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let site = shared.clone();
                tokio::spawn(async move {
                    let Ok(Some(request)) = read_request(&mut stream).await else { return };
                    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
                    let page = site.pages.lock().unwrap().get(&path).cloned();
                    site.asked.lock().unwrap().push(path);
                    let (status, body) = page.unwrap_or((404, "<html>".to_owned()));
                    let length = body.len();
                    let answer = format!(
                        "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
                    );
                    let _ = stream.write_all(answer.as_bytes()).await;
                });
            }
        });
        site
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub(crate) fn write(&self, path: &str, status: u16, body: impl Into<String>) {
        self.pages.lock().unwrap().insert(path.to_owned(), (status, body.into()));
    }

    /// The paths of the requests since the last call.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}
