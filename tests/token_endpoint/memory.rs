//! What hundreds of answers take that are the choice of tenants, measured in a process of its own.
#![cfg(target_os = "linux")]

use crate::server::read_request;
use crate::{request, run_alone, transport};
use std::time::Duration;
use token_endpoint::{Error, Grant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Runs the test of this name in a process of its own.
fn is_alone(test: &str) -> bool {
    if std::env::var("MEMORY_OF").as_deref() == Ok(test) {
        return true;
    }
    run_alone(test, |command| {
        command.env("MEMORY_OF", test);
    });
    false
}

/// The most memory that this process has had, in MiB.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() / 1024
}

/// Begins a response with this many bytes of headers to each request, and never ends it.
async fn endless(headers: usize) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let line = format!("X-Long: {}\r\n", "x".repeat(4000));
    let head: &'static str = format!("HTTP/1.1 200 OK\r\n{}", line.repeat(headers / line.len())).leak();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = read_request(&mut stream).await;
                let _ = stream.write_all(head.as_bytes()).await;
                // Until the client goes.
                let _ = read_request(&mut stream).await;
            });
        }
    });
    port
}

/// The operator took 330 MB for the first of them while it used reqwest.
#[tokio::test]
async fn memory_of_300_answers_that_do_not_end_their_headers_is_little() {
    if !is_alone("memory::memory_of_300_answers_that_do_not_end_their_headers_is_little") {
        return;
    }
    let transport = transport(&["127.0.0.1"]);
    let before = peak();
    // What is refused, and what is kept until the time is over.
    for headers in [360_000, 30_000] {
        let mut ports = Vec::new();
        for _ in 0..8 {
            ports.push(endless(headers).await);
        }
        let mut tasks = JoinSet::new();
        for port in ports.iter().cycle().take(300) {
            let transport = transport.clone();
            let request = request(&format!("http://127.0.0.1:{port}/token"), Grant::ClientCredentials);
            tasks.spawn(async move { transport.send(&request, Duration::from_secs(3)).await });
        }
        while let Some(ended) = tasks.join_next().await {
            let error = ended.unwrap().unwrap_err();
            assert!(matches!(error, Error::Cut { .. } | Error::Timeout { .. }), "{error:?}");
        }
        let taken = peak() - before;
        assert!(taken < 40, "{headers} bytes of headers: {taken} MiB");
    }
}
