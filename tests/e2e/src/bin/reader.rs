//! An application in a pod, as docs/use-the-token.md describes it: reads the token's file at every call, and once more on a
//! 401. Beside that it reads the file every 100 ms and prints a line for each change, and a summary every ten seconds.
//!
//! `e2e-reader pause` only sleeps: it is also the container that holds a pod's namespaces.

#![allow(clippy::print_stdout)] // the pod's log is its result

use std::{
    env, fs,
    io::{self, Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// The precision of what is measured.
const INTERVAL: Duration = Duration::from_millis(100);
const REQUESTS_EVERY: Duration = Duration::from_secs(1);
const SUMMARY_EVERY: Duration = Duration::from_secs(10);
/// What one call of the resource server may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// The token in the file, and how often it was read after its end.
struct Held {
    token: String,
    expires_at: i64,
    /// The last read that returned it, in milliseconds since 1970.
    last_read: i64,
    expired: i64,
}

#[derive(Default)]
struct Counts {
    requests: u64,
    accepted: u64,
    /// Accepted at the second try, with the file read again.
    retried: u64,
    refused: u64,
    /// Without a response.
    failed: u64,
}

fn main() {
    if env::args().nth(1).as_deref() == Some("pause") {
        loop {
            thread::sleep(Duration::from_secs(3600));
        }
    }
    let file = setting("TOKEN_FILE", "/var/run/secrets/token/access_token");
    let resource = (setting("RESOURCE", ""), setting("RESOURCE_PATH", "/resource"));
    let mut held: Option<Held> = None;
    let mut counts = Counts::default();
    let (mut request_at, mut summary_at) = (Instant::now(), Instant::now());
    loop {
        let began = Instant::now();
        if let Ok(token) = fs::read_to_string(&file) {
            read(&mut held, token.trim());
        }
        if began >= request_at {
            request_at = began + REQUESTS_EVERY;
            call(&file, &resource, &mut counts);
        }
        if began >= summary_at {
            summary_at = began + SUMMARY_EVERY;
            summary(held.as_ref(), &counts);
        }
        thread::sleep(INTERVAL.saturating_sub(began.elapsed()));
    }
}

fn setting(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// Counts a read, and prints a line if the file holds another token than before.
fn read(held: &mut Option<Held>, token: &str) {
    let now = now();
    if let Some(same) = held.as_mut().filter(|held| held.token == token) {
        if now >= same.expires_at {
            same.expired += now - same.last_read.max(same.expires_at);
        }
        same.last_read = now;
        return;
    }
    let Some((issued_at, expires_at)) = times(token) else {
        print(&json!({"event": "unreadable", "at": now}));
        return;
    };
    let previous = held.as_ref().map(
        |previous| json!({"left": previous.expires_at - previous.last_read, "expired": previous.expired}),
    );
    print(&json!({
        "event": "token", "at": now, "age": now - issued_at, "lifetime": expires_at - issued_at, "previous": previous,
    }));
    *held = Some(Held { token: token.to_owned(), expires_at, last_read: now, expired: 0 });
}

/// When a JWT was issued and when it expires, in milliseconds since 1970.
fn times(token: &str) -> Option<(i64, i64)> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    Some((claims.get("iat")?.as_i64()? * 1000, claims.get("exp")?.as_i64()? * 1000))
}

/// Calls the resource server with what the file holds, and after a 401 once more.
fn call(file: &str, resource: &(String, String), counts: &mut Counts) {
    counts.requests += 1;
    let mut status = get(file, resource);
    let again = matches!(status, Ok(401));
    if again {
        status = get(file, resource);
    }
    match status {
        Ok(200) => {
            counts.accepted += 1;
            counts.retried += u64::from(again);
        }
        Ok(status) => {
            counts.refused += 1;
            print(&json!({"event": "refused", "at": now(), "status": status}));
        }
        Err(error) => {
            counts.failed += 1;
            print(&json!({"event": "failed", "at": now(), "error": error.to_string()}));
        }
    }
}

/// The status of a GET, of an address with a port and of a path. Plain HTTP/1.0 without a library, so that the image is small.
fn get(file: &str, (resource, path): &(String, String)) -> io::Result<u16> {
    let token = fs::read_to_string(file)?;
    let address = resource.parse().map_err(io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, CALL_TIMEOUT)?;
    stream.set_read_timeout(Some(CALL_TIMEOUT))?;
    stream.set_write_timeout(Some(CALL_TIMEOUT))?;
    let request =
        format!("GET {path} HTTP/1.0\r\nHost: {resource}\r\nAuthorization: Bearer {}\r\n\r\n", token.trim());
    stream.write_all(request.as_bytes())?;
    let mut head = [0; 12]; // HTTP/1.1 200
    stream.read_exact(&mut head)?;
    let status =
        str::from_utf8(&head).ok().and_then(|head| head.get(9..)).and_then(|status| status.parse().ok());
    status.ok_or_else(|| io::Error::other("no HTTP response"))
}

fn summary(held: Option<&Held>, counts: &Counts) {
    print(&json!({
        "event": "summary", "at": now(), "requests": counts.requests, "accepted": counts.accepted,
        "retried": counts.retried, "refused": counts.refused, "failed": counts.failed,
        "left": held.map(|held| held.expires_at - now()), "expired": held.map(|held| held.expired),
    }));
}

fn print(line: &Value) {
    println!("{line}");
}

/// In milliseconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
