//! A proxy in front of the real authorization server: it sees which refresh tokens are sent and received, and spoils token
//! requests.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::fault::Way;
use super::journal::{Exchange, Journal, TOKEN};
use super::proxy::{LATE, head_of, refuse, reset};
use crate::support::authorization_server::http_client;
use crate::support::relay::read_request;

/// Ends when it is dropped.
pub struct Endpoint {
    url: String,
    acceptor: JoinHandle<()>,
}

impl Endpoint {
    /// Passes token requests to `target`.
    pub async fn start(target: String, journal: Arc<Journal>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let url = format!("http://{}/token", listener.local_addr().expect("its address"));
        let client = http_client();
        let acceptor = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (client, target, journal) = (client.clone(), target.clone(), Arc::clone(&journal));
                connections.spawn(async move { serve(stream, &client, &target, &journal).await });
            }
        });
        Self { url, acceptor }
    }

    pub fn token_url(&self) -> &str {
        &self.url
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    client: &reqwest::Client,
    target: &str,
    journal: &Arc<Journal>,
) -> Option<()> {
    let (head, body) = read_request(&mut stream).await?;
    let _in_flight = journal.in_flight(TOKEN);
    let refresh_token = parameter(&body, "refresh_token");
    let way = journal.enter(0, "request", TOKEN);
    if let Some(refresh_token) = refresh_token.clone() {
        journal.exchanged(Exchange::Sent { refresh_token });
    }
    if matches!(way, Some(Way::Status(_) | Way::Reset | Way::KilledBefore)) {
        journal.exchanged(Exchange::Unspent);
    }
    match way {
        Some(Way::Status(status)) => return refuse(&mut stream, status).await,
        Some(Way::Reset) => return reset(stream),
        Some(Way::KilledBefore) => {
            journal.kill(0).await;
            return None;
        }
        _ => {}
    }
    let mut request = client.post(target).body(body);
    for (name, value) in head.lines().skip(1).filter_map(|line| line.split_once(": ")) {
        if ["content-type", "authorization", "accept"].contains(&name.to_ascii_lowercase().as_str()) {
            request = request.header(name, value);
        }
    }
    let answer = request.send().await.ok()?;
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let body = answer.bytes().await.ok()?;
    match way {
        Some(Way::AnswerLost) => return reset(stream),
        Some(Way::AnswerLate) => tokio::time::sleep(LATE).await,
        _ => {}
    }
    // Before the operator can send the next one.
    let answer: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    match (refresh_token, answer["refresh_token"].as_str()) {
        (Some(spent), Some(successor)) if spent != successor => {
            journal.exchanged(Exchange::Received { spent, successor: successor.to_owned() });
        }
        _ => journal.exchanged(Exchange::Unspent),
    }
    let head = head_of(status, &headers, Some(body.len()));
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(&body).await.ok()?;
    if way == Some(Way::KilledAfter) {
        journal.kill(0).await;
    }
    stream.shutdown().await.ok()
}

fn parameter(body: &[u8], name: &str) -> Option<String> {
    url::form_urlencoded::parse(body).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}
