//! TokenSources of many namespaces at one ClusterTokenIssuer with a shared client: first tokens, a client that is rejected, and a
//! rotated secret.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokensource_api::{ClusterTokenIssuer, TokenSource};

use super::{calls, print_calls};
use crate::fleet::cost::Sample;
use crate::fleet::operator::Operator;
use crate::fleet::{CLIENT, Fleet, create_sources, request_refreshes, setting};
use crate::scenarios::refreshes::UNLIMITED;
use crate::support::control_plane::ControlPlane;

/// A rejected client is asked again after 30 s, 2 min, 10 min, and 30 s after a rejection where a person asks for a token.
const REJECTED_FOR: Duration = Duration::from_secs(60);
/// What was on its way when the first rejection came is rejected within this time, and says nothing of the waits.
const ON_ITS_WAY: Duration = Duration::from_secs(2);

pub async fn run() -> Result<(), String> {
    let (sources, namespaces) = (setting("SOURCES", 10_000), setting("NAMESPACES", 20));
    let control_plane = ControlPlane::shared();
    let fleet = Fleet::empty(sources, 3600).await;
    create_issuer(&fleet).await;
    let mut tenants = vec![];
    for _ in 0..namespaces {
        tenants.push(control_plane.namespace("tenant").await);
    }
    let api = |n: usize| of(&fleet.client, &tenants, n);
    let spec =
        |n: usize| json!({"issuerRef": {"name": fleet.namespace}, "target": {"name": format!("token-{n}")}});
    create_sources(sources, api, spec).await;

    let flags = ["--issuers-namespace", &fleet.namespace, "--issuers-controller", &fleet.namespace];
    let flags: Vec<&str> = UNLIMITED.iter().copied().chain(flags).collect();
    let mut operator = Operator::start_with(&flags);
    let begun = Instant::now();
    fleet.until_minted(sources).await;
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "issuer: {sources} first tokens in {namespaces} namespaces in {seconds:.0} s ({:.0}/s); {}",
        sources as f64 / seconds,
        operator.usage().memory()
    );

    // The secret is rotated at the issuer first, and every TokenSource wants a token.
    fleet.server.set_secret(CLIENT, "rotated").await;
    let (before, calls_before, begun) = (fleet.mints().await, calls().await, Instant::now());
    let usage_before = operator.usage();
    let at_first = async {
        fleet.until_minted(before + 1).await;
        tokio::time::sleep(ON_ITS_WAY).await;
        fleet.mints().await - before
    };
    let ((), at_first) = tokio::join!(request_refreshes(sources, api, "1"), at_first);
    tokio::time::sleep(REJECTED_FOR.saturating_sub(begun.elapsed())).await;
    let (repeated, waited) = (fleet.mints().await - before - at_first, begun.elapsed());
    println!(
        "issuer: {at_first} rejected requests at first, {repeated} more in {:.0} s, {:.2} s of CPU",
        waited.as_secs_f64(),
        operator.usage().cpu - usage_before.cpu
    );
    print_calls("source", sources as f64, &calls_before, &calls().await);

    let (answered, before, begun) = (fleet.answered().await, Sample::take(operator.usage()), Instant::now());
    let secret = json!({"stringData": {"client_secret": "rotated"}});
    let params = PatchParams::default();
    fleet.secrets().patch("credentials", &params, &Patch::Merge(secret)).await.unwrap();
    while fleet.answered().await < answered + sources {
        if begun.elapsed() > Duration::from_secs(900) {
            return Err("the rotated secret has not reached all TokenSources after 15 minutes".to_owned());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("issuer: rotated for all in {seconds:.0} s; {}", before.cost(&operator.usage(), sources));
    let most = waited.as_secs() as usize / 30;
    if repeated > most { Err(format!("a rejected client was asked {repeated} times more")) } else { Ok(()) }
}

async fn create_issuer(fleet: &Fleet) {
    let credentials = json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "credentials", "labels": {"tokensource.dev/credentials": "true"}},
        "stringData": {"client_id": CLIENT, "client_secret": "secret"}});
    let secrets: Api<Secret> = fleet.secrets();
    secrets.create(&PostParams::default(), &serde_json::from_value(credentials).unwrap()).await.unwrap();
    let issuer = json!({"apiVersion": "tokensource.dev/v1alpha1", "kind": "ClusterTokenIssuer",
        "metadata": {"name": fleet.namespace},
        "spec": {"controller": fleet.namespace,
            "provider": {"vgs": {"tokenURL": fleet.server.vgs_token_url()}},
            "credentials": {"secretRef": {"name": "credentials"}},
            "namespaces": {"all": true}, "allow": {"withoutScopes": true}}});
    let issuers: Api<ClusterTokenIssuer> = Api::all(fleet.client.clone());
    issuers.create(&PostParams::default(), &serde_json::from_value(issuer).unwrap()).await.unwrap();
}

/// The namespace of a TokenSource.
fn of(client: &Client, tenants: &[String], source: usize) -> Api<TokenSource> {
    Api::namespaced(client.clone(), &tenants[source % tenants.len()])
}
