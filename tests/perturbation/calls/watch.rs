//! Watches, each of whose events may be spoiled.

use std::collections::VecDeque;
use std::time::Duration;

use http::Response;
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::fault::Way;
use super::proxy::{Served, head_of, refuse, reset, status_object};

/// By how much a stale watch is late.
const LAG: Duration = Duration::from_secs(3);
/// How long a silent watch says nothing.
const SILENCE: Duration = Duration::from_secs(6);
/// How long an event waits for the next one.
const REORDERED: Duration = Duration::from_secs(2);

/// One watch from its start to its end.
pub async fn serve<F>(
    call: &Served,
    mut stream: TcpStream,
    way: Option<Way>,
    uri: &str,
    resource: &str,
    send: impl FnOnce() -> F,
) -> Option<()>
where
    F: Future<Output = kube::Result<Response<Body>>>,
{
    let path = uri.split('?').next()?.to_owned();
    match way {
        Some(Way::Status(status)) => return refuse(&mut stream, status).await,
        Some(Way::Reset) => return reset(stream),
        Some(Way::KilledBefore) => {
            call.journal.kill(call.replica).await;
            return None;
        }
        _ => {}
    }
    let is_expired = {
        let mut expired = call.expired.lock().unwrap();
        let place = expired.iter().position(|it| *it == path);
        place.map(|place| expired.swap_remove(place)).is_some()
    };
    if is_expired || way == Some(Way::WatchGone) {
        let gone = json!({"type": "ERROR", "object": status_object(410, "Expired")});
        let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{gone}\n");
        stream.write_all(answer.as_bytes()).await.ok()?;
        return stream.shutdown().await.ok();
    }

    let answer = send().await.ok()?;
    let head = head_of(answer.status().as_u16(), answer.headers(), None);
    let (mut from_client, mut to_client) = stream.split();
    to_client.write_all(head.as_bytes()).await.ok()?;
    let (lines, mut events) = mpsc::unbounded_channel();
    let read = read_lines(answer.into_body(), lines);
    let pass_on = async {
        pass_on(call, &path, resource, &mut events, &mut to_client).await;
        to_client.shutdown().await.ok()
    };
    let mut nothing = [0; 16];
    tokio::select! {
        end = pass_on => end,
        // The client has left; its later events are another connection's.
        _ = from_client.read(&mut nothing) => None,
        () = async { read.await; std::future::pending().await } => None,
    }
}

async fn read_lines(mut body: Body, lines: mpsc::UnboundedSender<(Instant, Vec<u8>)>) {
    let mut buffer: VecDeque<u8> = VecDeque::new();
    while let Some(Ok(frame)) = body.frame().await {
        let Some(data) = frame.data_ref() else { continue };
        buffer.extend(data);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            if lines.send((Instant::now(), line)).is_err() {
                return;
            }
        }
    }
}

async fn pass_on(
    call: &Served,
    path: &str,
    resource: &str,
    events: &mut mpsc::UnboundedReceiver<(Instant, Vec<u8>)>,
    to_client: &mut (impl AsyncWriteExt + Unpin),
) -> Option<()> {
    let mut lag = Duration::ZERO;
    loop {
        let (read_at, line) = next(events).await?;
        let is_event = !line.starts_with(br#"{"type":"BOOKMARK""#);
        let way = if is_event { call.journal.enter(call.replica, "event", resource) } else { None };
        match way {
            Some(Way::WatchCut) => return None,
            Some(Way::WatchExpired) => {
                call.expired.lock().unwrap().push(path.to_owned());
                return None;
            }
            Some(Way::KilledBefore) => {
                call.journal.kill(call.replica).await;
                return None;
            }
            Some(Way::WatchSilent) => {
                let _in_flight = call.journal.in_flight(resource);
                tokio::time::sleep(SILENCE).await;
                return None;
            }
            Some(Way::WatchStale) => lag = LAG,
            Some(Way::WatchReordered) => {
                let _in_flight = call.journal.in_flight(resource);
                if let Ok(following) = timeout(REORDERED, next(events)).await {
                    let (_, following) = following?;
                    // The API server keeps the order of the events of one object.
                    let same = uid(&following) == uid(&line);
                    let both = if same { [line, following] } else { [following, line] };
                    to_client.write_all(&both.concat()).await.ok()?;
                    continue;
                }
            }
            _ => {}
        }
        if lag > Duration::ZERO {
            let _in_flight = call.journal.in_flight(resource);
            sleep_until(read_at + lag).await;
        }
        to_client.write_all(&line).await.ok()?;
    }
}

/// The next event; `None` at the end of the watch.
async fn next(events: &mut mpsc::UnboundedReceiver<(Instant, Vec<u8>)>) -> Option<(Instant, Vec<u8>)> {
    std::future::poll_fn(|context| events.poll_recv(context)).await
}

fn uid(line: &[u8]) -> Option<String> {
    let event: Value = serde_json::from_slice(line).ok()?;
    event["object"]["metadata"]["uid"].as_str().map(str::to_owned)
}
