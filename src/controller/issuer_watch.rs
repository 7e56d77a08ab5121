//! The watches of ClusterTokenIssuers and of the labels of namespaces, and what a change of them triggers.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kube::{Client, ResourceExt};
use tracing::warn;

use super::cache::issuers::{CredentialsChange, IssuerWatch, user};
use super::context::Context;
use super::issuer_status;
use crate::cluster::{Event, LabelledNamespace, watch_issuers, watch_labels};

/// The time between two reconciliations of all TokenSources of an issuer.
const CHANGE_INTERVAL: Duration = Duration::from_secs(1);

/// Keeps the issuers in step with the cluster. Never ends.
pub(super) async fn run(client: Client, context: &Context) {
    let Some(settings) = context.issuers.settings() else { return std::future::pending().await };
    let labels = async {
        if !settings.names_only {
            namespaces(client.clone(), context).await;
        }
    };
    tokio::join!(issuers(client.clone(), context), labels, changes(context), issuer_status::run(context));
}

async fn issuers(client: Client, context: &Context) {
    let mut events = watch_issuers(client);
    context.issuers.follow(IssuerWatch::Issuers, events.contact());
    let (mut listed, mut is_first) = (BTreeSet::new(), true);
    loop {
        match events.next().await {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(issuer)) => {
                listed.insert(issuer.name_any());
                put(context, issuer.name_any(), context.issuers.put(issuer));
            }
            Ok(Event::Apply(issuer)) => put(context, issuer.name_any(), context.issuers.put(issuer)),
            Ok(Event::Delete(issuer)) => {
                put(context, issuer.name_any(), context.issuers.remove(&issuer.name_any()));
            }
            Ok(Event::InitDone) => {
                for name in context.issuers.others(&listed) {
                    put(context, name.to_string(), context.issuers.remove(&name));
                }
                if std::mem::take(&mut is_first) {
                    context.issuers.first_list_read();
                }
            }
            Err(error) => warn!(%error, "the watch of ClusterTokenIssuers failed"),
        }
    }
}

/// The Secret of an issuer has changed: the cache follows another one.
fn put(context: &Context, issuer: String, change: CredentialsChange) {
    let [before, now] = change;
    if before != now {
        let user = user(&issuer);
        before.iter().for_each(|secret| context.secrets.release(secret, &user));
        now.iter().for_each(|secret| context.secrets.follow(secret, Arc::clone(&user)));
    }
}

async fn namespaces(client: Client, context: &Context) {
    let mut events = watch_labels(client);
    context.issuers.follow(IssuerWatch::Namespaces, events.contact());
    let (mut listed, mut is_first) = (BTreeSet::new(), true);
    let set = |namespace: LabelledNamespace| {
        let name = namespace.name_any();
        if context.issuers.set_labels(&name, Some(namespace.labels)) {
            trigger(context, &name);
        }
    };
    loop {
        match events.next().await {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(namespace)) => {
                listed.insert(namespace.name_any());
                set(namespace);
            }
            Ok(Event::Apply(namespace)) => set(namespace),
            Ok(Event::Delete(namespace)) => {
                context.issuers.set_labels(&namespace.name_any(), None);
            }
            Ok(Event::InitDone) => {
                for name in context.issuers.other_namespaces(&listed) {
                    context.issuers.set_labels(&name, None);
                }
                if std::mem::take(&mut is_first) {
                    context.issuers.first_list_read();
                }
            }
            Err(error) => warn!(%error, "the watch of namespaces failed"),
        }
    }
}

fn trigger(context: &Context, namespace: &str) {
    context.sources.of_issuers(Some(namespace), |_| true).into_iter().for_each(|it| context.trigger(it));
}

/// The TokenSources of issuers that have changed, or whose Secret has.
async fn changes(context: &Context) {
    loop {
        let changed = context.issuers.next_changed().await;
        let sources = context.sources.of_issuers(None, |issuer| changed.contains(issuer));
        sources.into_iter().for_each(|source| context.trigger(source));
        tokio::time::sleep(CHANGE_INTERVAL).await;
    }
}
