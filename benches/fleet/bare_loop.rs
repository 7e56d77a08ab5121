//! The minimum that an operator must do for a refresh, as a loop: token request, credentials, target, status.

use std::time::Duration;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use serde_json::{Value, json};
use tokensource_api::TokenSource;

use super::cost::{Cost, Sample};
use super::operator::Usage;
use super::{AT_ONCE, CLIENT, Fleet};
use crate::support::authorization_server::http_client;

/// Refreshes so many targets, at most `rate` a second, beside the two watches that an operator has open. The loop writes
/// the status of one TokenSource, so the operator must have reported one, and must have ended.
pub async fn run(fleet: &Fleet, refreshes: usize, rate: f64) -> Cost {
    let watches = [tokio::spawn(follow_secrets(fleet)), tokio::spawn(follow_sources(fleet))];
    // The watches list what there is first.
    tokio::time::sleep(Duration::from_secs(5)).await;
    // One that names a token, as the status of every refresh does.
    let sources = fleet.api().list(&ListParams::default().limit(500)).await.unwrap();
    let mut statuses = sources.items.into_iter().filter_map(|source| source.status);
    let status = json!(statuses.find(|status| status.token.is_some()).expect("a source with a token"));
    let call = Calls { fleet, http: http_client(), url: fleet.server.vgs_token_url(), status };
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
    let before = Sample::take(Usage::of(std::process::id()));
    let paced = stream::poll_fn(|context| ticks.poll_tick(context).map(Some)).enumerate().take(refreshes);
    paced.for_each_concurrent(AT_ONCE, |(n, _)| call.refresh(n)).await;
    let cost = before.cost(&Usage::of(std::process::id()), refreshes);
    watches.iter().for_each(tokio::task::JoinHandle::abort);
    cost
}

fn follow_secrets(fleet: &Fleet) -> impl Future<Output = ()> + use<> {
    let secrets: Api<PartialObjectMeta<Secret>> = Api::namespaced(fleet.client.clone(), &fleet.namespace);
    watcher::watcher(secrets, watcher::Config::default()).for_each(|_| async {})
}

fn follow_sources(fleet: &Fleet) -> impl Future<Output = ()> + use<> {
    watcher::watcher::<TokenSource>(fleet.api(), watcher::Config::default()).for_each(|_| async {})
}

struct Calls<'f> {
    fleet: &'f Fleet,
    http: reqwest::Client,
    url: String,
    status: Value,
}

impl Calls<'_> {
    async fn refresh(&self, n: usize) {
        let (secrets, sources) = (self.fleet.secrets(), self.fleet.api());
        secrets.get("credentials").await.unwrap();
        let answer = self
            .http
            .post(&self.url)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(format!("grant_type=client_credentials&client_id={CLIENT}&client_secret=secret"))
            .send()
            .await
            .unwrap();
        let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        let n = n % self.fleet.sources;
        let target = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("bare-{n}")},
            "stringData": {"access_token": answer["access_token"]}});
        let params = PatchParams::apply("bench").force();
        secrets.patch_metadata(&format!("bare-{n}"), &params, &Patch::Apply(&target)).await.unwrap();
        let mut status = self.status.clone();
        status["token"]["issuedAt"] = json!(jiff::Timestamp::now());
        let patch = Patch::Merge(json!({"status": status}));
        sources.patch_status(&format!("source-{n}"), &PatchParams::default(), &patch).await.unwrap();
    }
}
