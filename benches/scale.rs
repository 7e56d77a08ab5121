//! What a fleet costs, against a real control plane and a real authorization server:
//! `make bench SOURCES=10000` (1000 where nothing is said).
//!
//! Memory is absolute; time is a ratio to a bare loop that does the same calls in the same run, because machines
//! are noisy.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "a benchmark prints, and stops where it cannot go on"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use support::authorization_server::{AuthorizationServer, ClientSpec, http_client};
use support::control_plane::ControlPlane;
use tokensource_operator::api::TokenSource;

const AT_ONCE: usize = 32;
const CLIENT: &str = "fleet";

#[tokio::main]
async fn main() {
    let sources: usize = std::env::var("SOURCES").ok().map_or(1000, |n| n.parse().unwrap());
    let control_plane = ControlPlane::shared();
    let client = control_plane.client().await;
    let namespace = control_plane.namespace("scale").await;
    let server = AuthorizationServer::shared();
    server
        .client(ClientSpec {
            id: CLIENT.into(),
            secret: Some("secret".into()),
            token_endpoint_auth_method: "client_secret_post",
            grant_types: vec!["client_credentials"],
            access_token_ttl: 3600,
            ..ClientSpec::default()
        })
        .await;

    println!("creating {sources} TokenSources, all with the same credentials Secret");
    fleet(&client, &namespace, server, sources).await;

    let operator = Operator::start();
    let begun = Instant::now();
    until_minted(server, sources).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let first = operator.usage();
    println!(
        "first mints: {:.0}/s; memory {} MiB now, {} MiB at most",
        per_second(sources, begun),
        first.resident,
        first.peak
    );
    drop(operator);

    let operator = Operator::start();
    tokio::time::sleep(Duration::from_secs(15)).await;
    let restarted = operator.usage();
    let mints = server.requests(CLIENT).await.total;
    println!(
        "after a restart: {} token requests; memory {} MiB now, {} MiB at most",
        mints - sources as u64,
        restarted.resident,
        restarted.peak
    );
    tokio::time::sleep(Duration::from_secs(20)).await;
    println!("idle for 20 s: {:.2} s of CPU", operator.usage().cpu - restarted.cpu);

    // The first refresh of a process rehearses the write; the second is like all that follow.
    let refreshes = sources.min(2000);
    let (first, _) = refresh(&operator, &client, &namespace, server, (refreshes, "1")).await;
    let (second, rate) = refresh(&operator, &client, &namespace, server, (refreshes, "2")).await;
    drop(operator);

    let (before, begun) = (Usage::of(std::process::id()), Instant::now());
    bare_loop(&client, &namespace, server, refreshes).await;
    let (bare_rate, bare) =
        (per_second(refreshes, begun), (Usage::of(std::process::id()).cpu - before.cpu) / refreshes as f64);
    println!(
        "a refresh: {:.2} ms of CPU at {rate:.0}/s (the first of a process {:.2} ms); a bare loop of the same calls: {:.2} ms at {bare_rate:.0}/s; ratio {:.2}",
        second * 1e3,
        first * 1e3,
        bare * 1e3,
        second / bare
    );
}

/// Asks for that many refreshes; returns the seconds of CPU that each cost the operator, and how many there were a second.
async fn refresh(
    operator: &Operator,
    client: &Client,
    namespace: &str,
    server: &AuthorizationServer,
    (refreshes, request): (usize, &str),
) -> (f64, f64) {
    let mints = server.requests(CLIENT).await.total as usize;
    let (before, begun) = (operator.usage(), Instant::now());
    request_refreshes(client, namespace, (refreshes, request)).await;
    until_minted(server, mints + refreshes).await;
    let rate = per_second(refreshes, begun);
    tokio::time::sleep(Duration::from_secs(3)).await;
    ((operator.usage().cpu - before.cpu) / refreshes as f64, rate)
}

async fn fleet(client: &Client, namespace: &str, server: &AuthorizationServer, sources: usize) {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let credentials = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "credentials"},
        "stringData": {"client_id": CLIENT, "client_secret": "secret"}});
    secrets.patch("credentials", &PatchParams::apply("bench"), &Patch::Apply(&credentials)).await.unwrap();
    let api: Api<TokenSource> = Api::namespaced(client.clone(), namespace);
    stream::iter(0..sources)
        .for_each_concurrent(AT_ONCE, |n| {
            let source = json!({"apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource",
                "metadata": {"name": format!("source-{n}")},
                "spec": {"provider": {"vgs": {"tokenURL": server.vgs_token_url()}},
                    "credentials": {"secretRef": {"name": "credentials"}},
                    "target": {"name": format!("token-{n}")}}});
            let api = api.clone();
            async move {
                let params = PatchParams::apply("bench");
                api.patch(&format!("source-{n}"), &params, &Patch::Apply(&source)).await.unwrap();
            }
        })
        .await;
}

async fn request_refreshes(client: &Client, namespace: &str, (refreshes, request): (usize, &str)) {
    let api: Api<TokenSource> = Api::namespaced(client.clone(), namespace);
    let body = json!({"metadata": {"annotations": {"tokensource.dev/refresh-requested-at": request}}});
    stream::iter(0..refreshes)
        .for_each_concurrent(AT_ONCE, |n| {
            let (api, body) = (api.clone(), &body);
            async move {
                api.patch(&format!("source-{n}"), &PatchParams::default(), &Patch::Merge(body))
                    .await
                    .unwrap();
            }
        })
        .await;
}

/// The least that any operator does for a refresh: token request, credentials, target, status.
async fn bare_loop(client: &Client, namespace: &str, server: &AuthorizationServer, refreshes: usize) {
    let http = http_client();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let sources: Api<TokenSource> = Api::namespaced(client.clone(), namespace);
    let url = server.vgs_token_url();
    stream::iter(0..refreshes)
        .for_each_concurrent(AT_ONCE, |n| {
            let (http, secrets, sources, url) = (http.clone(), secrets.clone(), sources.clone(), url.clone());
            async move {
                secrets.get("credentials").await.unwrap();
                let answer = http
                    .post(url)
                    .header("content-type", "application/x-www-form-urlencoded")
                    .body(format!("grant_type=client_credentials&client_id={CLIENT}&client_secret=secret"))
                    .send()
                    .await
                    .unwrap();
                let answer: serde_json::Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
                let target = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("bare-{n}")},
                    "stringData": {"access_token": answer["access_token"]}});
                let params = PatchParams::apply("bench").force();
                secrets.patch_metadata(&format!("bare-{n}"), &params, &Patch::Apply(&target)).await.unwrap();
                let status = json!({"status": {"binding": {"name": format!("bare-{n}")}}});
                sources
                    .patch_status(&format!("source-{n}"), &PatchParams::default(), &Patch::Merge(&status))
                    .await
                    .unwrap();
            }
        })
        .await;
}

async fn until_minted(server: &AuthorizationServer, total: usize) {
    let begun = Instant::now();
    while (server.requests(CLIENT).await.total as usize) < total {
        assert!(begun.elapsed() < Duration::from_secs(600), "not all were minted within 10 minutes");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

fn per_second(count: usize, begun: Instant) -> f64 {
    count as f64 / begun.elapsed().as_secs_f64()
}

/// The operator, for all namespaces.
struct Operator(Child);

impl Operator {
    fn start() -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_tokensource-operator"))
            .args(["run", "--allow-http", "--egress-allow", "127.0.0.0/8", "--log-level", "warn"])
            .args(["--admin-address", "off", "--leader-elect=false"])
            .env("KUBECONFIG", ControlPlane::shared().kubeconfig_path())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Operator(child)
    }

    fn usage(&self) -> Usage {
        Usage::of(self.0.id())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a process has used, from /proc (Linux).
struct Usage {
    /// MiB of memory in use.
    resident: u64,
    /// MiB of memory in use at the most.
    peak: u64,
    /// Seconds of CPU.
    cpu: f64,
}

impl Usage {
    fn of(process: u32) -> Self {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{process}/{file}")).unwrap();
        let status = read("status");
        let mib = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
        };
        let stat = read("stat");
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        // Clock ticks, of which Linux has 100 a second for user space.
        let ticks = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        Usage { resident: mib("VmRSS:"), peak: mib("VmHWM:"), cpu: ticks / 100.0 }
    }
}
