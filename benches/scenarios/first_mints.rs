//! First mints that come faster than they are written: how many unwritten tokens are in memory, and what SIGTERM loses.
//! `WRITE_DELAY=500` has each write wait 500 ms, so that minting is faster than writing on any machine.

use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};

use crate::fleet::operator::{Operator, Usage};
use crate::fleet::{self, Fleet, setting};
use crate::support::authorization_server::AuthorizationServer;
use crate::support::relay::{Relay, Slow};

const LIMIT: Duration = Duration::from_secs(1800);
/// Longer than the operator gives itself.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// One endpoint without a limit. 20,000 sources take some five minutes on two cores, 100,000 half an hour.
pub async fn lifted() -> Result<(), String> {
    let fleet = Fleet::create(setting("SOURCES", 20_000), 1800).await;
    until_stopped("lifted", fleet, &["--endpoint-max-per-second=100000", "--endpoint-max-in-flight=10000"])
        .await
}

/// Twenty origins at their default limits.
pub async fn twenty() -> Result<(), String> {
    let urls = origins(AuthorizationServer::shared(), 20).await;
    let fleet = Fleet::create_at(&urls, setting("SOURCES", 10_000), 1800).await;
    until_stopped("twenty", fleet, &[]).await
}

/// Runs until half of the tokens are answered, and sends SIGTERM then.
async fn until_stopped(name: &str, fleet: Fleet, flags: &[&str]) -> Result<(), String> {
    let api_before = Usage::of_api_server();
    let relay = Relay::start(fleet.client.clone()).await;
    let write_delay = setting("WRITE_DELAY", 0);
    let mut operator = if write_delay > 0 {
        relay.delay(Slow::Writes, Duration::from_millis(write_delay as u64));
        Operator::start_at(&relay.kubeconfig_path(), flags)
    } else {
        Operator::start_with(flags)
    };
    let (begun, mut unwritten, mut reported) = (Instant::now(), 0, None);
    let answered = loop {
        assert!(begun.elapsed() < LIMIT, "half of the tokens were not answered within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
        let answered = fleet.answered().await;
        unwritten = unwritten.max(answered.saturating_sub(fleet.written().await));
        let metrics = fleet::metrics().await.unwrap_or_default(); // it may be starting
        let now = fleet::value(&metrics, "tokensource_unwritten_tokens");
        reported = now.map(|now| now.max(reported.unwrap_or(0.0))).or(reported);
        if answered * 2 >= fleet.sources {
            break answered;
        }
    };
    let (usage, api, seconds) = (operator.usage(), Usage::of_api_server(), begun.elapsed().as_secs_f64());
    let written = fleet.written().await;
    println!(
        "{name}: {answered} tokens in {seconds:.0} s ({:.0}/s), {written} written; {unwritten} unwritten at most (metric: {}); each written one cost the operator {:.2} ms of CPU and kube-apiserver {:.2} ms; {}",
        answered as f64 / seconds,
        reported.map_or("none".to_owned(), |reported| reported.to_string()),
        usage.cpu / written as f64 * 1e3,
        (api.cpu - api_before.cpu) / written as f64 * 1e3,
        usage.memory()
    );

    let took = operator.stop(STOP_LIMIT).await;
    let (answered, written) = (fleet.answered().await, fleet.written().await);
    let lost = answered.saturating_sub(written);
    println!(
        "{name}: SIGTERM: ended after {:.1} s; {answered} answered, {written} written, {lost} lost",
        took.as_secs_f64()
    );
    if lost == 0 { Ok(()) } else { Err(format!("{lost} tokens were lost at SIGTERM")) }
}

/// The server's token endpoint by ways through ports of their own, each of which is an origin to the operator.
pub(super) async fn origins(server: &'static AuthorizationServer, count: usize) -> Vec<String> {
    let mut urls = Vec::new();
    for _ in 0..count {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        urls.push(server.vgs_token_url().replacen(server.url(), &origin, 1));
        tokio::spawn(async move {
            while let Ok((mut inner, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut outer = TcpStream::connect(server.url().trim_start_matches("http://")).await?;
                    tokio::io::copy_bidirectional(&mut inner, &mut outer).await
                });
            }
        });
    }
    urls
}
