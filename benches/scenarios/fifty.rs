//! Fifty issuers that together ask for more than the API server can take, beside another tenant's tokens.

use std::time::{Duration, Instant};

use kube::Api;
use serde_json::json;
use tokensource_api::TokenSource;

use super::first_mints::origins;
use crate::fleet::cost::Sample;
use crate::fleet::lateness::Lateness;
use crate::fleet::operator::Operator;
use crate::fleet::{self, Fleet, create_sources, setting};
use crate::support::authorization_server::AuthorizationServer;
use crate::support::control_plane::ControlPlane;

/// By how much the other tenant's refreshes may come after they were due, in seconds (99th percentile). They have 30.
const MAX_LATENESS: i64 = 5;
/// Tokens in memory alone: no more than what all tenants may have under way, of which the crowd may have four fifths.
const MAX_UNWRITTEN: f64 = 320.0;

pub async fn run() -> Result<(), String> {
    let urls = origins(AuthorizationServer::shared(), 50).await;
    let crowd = Fleet::create_at(&urls, setting("SOURCES", 5000), 10).await;
    let others = others(setting("OTHERS", 200)).await;
    let mut operator = Operator::start();
    // All of both have a token, and the first expiries are reported.
    crowd.until_minted(2 * crowd.sources).await;

    let (before, answered, begun) = (Sample::take(operator.usage()), crowd.answered().await, Instant::now());
    let seconds = setting("SECONDS", 180);
    let late = tokio::spawn(Lateness::observe(others.clone(), Duration::from_secs(seconds as u64)));
    let (mut unwritten, mut queued) = (0_f64, 0_f64);
    while begun.elapsed() < Duration::from_secs(seconds as u64) {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let metrics = fleet::metrics().await.unwrap();
        let value = |name: &str| fleet::value(&metrics, name).unwrap_or_default();
        unwritten = unwritten.max(value("tokensource_unwritten_tokens"));
        queued = queued.max(value("tokensource_token_requests_queued"));
    }
    let (late, usage) = (late.await.unwrap(), operator.usage());
    let cost = before.cost(&usage, crowd.answered().await - answered);
    let metrics = fleet::metrics().await.unwrap();
    let expired = |namespace: &str| {
        let label = format!("namespace=\"{namespace}\"");
        fleet::series_of(&metrics, "tokensource_token_expired_seconds_total", &label).sum::<f64>()
    };
    let expired = expired(others.namespace().unwrap_or_default());
    println!(
        "fifty issuers: {cost}; {queued} requests waited at most, {unwritten} tokens were unwritten; {}",
        usage.memory()
    );
    println!("the other tenant: {late}; {expired:.0} s expired");
    operator.stop(Duration::from_secs(60)).await;
    if expired > 0.0 || late.at(99) > MAX_LATENESS || unwritten > MAX_UNWRITTEN {
        return Err("the crowd took another tenant's turn, or tokens piled up".to_owned());
    }
    Ok(())
}

/// TokenSources of another tenant, with tokens of 60 s.
async fn others(count: usize) -> Api<TokenSource> {
    let (control_plane, server) = (ControlPlane::shared(), AuthorizationServer::shared());
    let namespace = control_plane.namespace("others").await;
    fleet::accept(&namespace, "secret", 60).await;
    let client = control_plane.client().await;
    fleet::write_credentials(&Api::namespaced(client.clone(), &namespace), &namespace).await;
    let api: Api<TokenSource> = Api::namespaced(client, &namespace);
    let spec = |n: usize| {
        json!({"provider": {"vgs": {"tokenURL": server.vgs_token_url()}},
            "credentials": {"secretRef": {"name": "credentials"}}, "target": {"name": format!("token-{n}")}})
    };
    create_sources(count, |_| api.clone(), spec).await;
    api
}
