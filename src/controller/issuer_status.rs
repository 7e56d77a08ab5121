//! Reports what is seen of ClusterTokenIssuers, all of them together and now and then: thousands of TokenSources may use one. Its
//! readers are the platform's, so that it says what the TokenSources do not; but nothing that a namespace wrote.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use tokensource_api::{ClusterTokenIssuerStatus, Reason};
use tokio::time::sleep;
use tracing::warn;

use super::cache::issuers::Answered;
use super::context::Context;
use crate::cluster::CallError;
use crate::secret::CREDENTIALS_LABEL;
use crate::spec::Issuer;
use crate::text::{shown, shown_message};

/// The time between two reports.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
const READY: &str = "Ready";
/// The reason of a Ready condition that is True, or Unknown.
const REQUEST_SUCCEEDED: &str = "RequestSucceeded";
const NOT_USED_YET: &str = "NotUsedYet";

/// What is counted of an issuer.
#[derive(Default)]
struct Counts {
    sources: i64,
    namespaces: BTreeSet<Arc<str>>,
    tokens: i64,
}

/// Writes the statuses that have changed, whenever this process leads. Never ends.
pub(super) async fn run(context: &Context) {
    loop {
        sleep(REPORT_INTERVAL).await;
        if context.leadership.leads() && context.is_warm() {
            report(context).await;
        }
    }
}

async fn report(context: &Context) {
    let issuers = context.issuers.all();
    if issuers.is_empty() {
        return;
    }
    let mut counts = counts(context);
    for issuer in issuers {
        let counts = counts.remove(&issuer.name).unwrap_or_default();
        let before = context.issuers.reported(&issuer.name);
        let after = status(context, &issuer, counts, &before).await;
        if after == before {
            continue;
        }
        match context.kubernetes.write_issuer_status(&issuer.name, &issuer.uid, &after).await {
            // The watch shows it, and says so where it was overwritten.
            Ok(()) | Err(CallError::NotFound | CallError::Conflict) => {}
            Err(error) => warn!(issuer = %issuer.name, %error, "the status of an issuer cannot be written"),
        }
    }
}

fn counts(context: &Context) -> HashMap<Arc<str>, Counts> {
    let mut counts: HashMap<Arc<str>, Counts> = HashMap::new();
    let now = context.now();
    for (issuer, source) in context.sources.with_issuers() {
        let lives = context.expiry(&source).is_some_and(|expires_at| expires_at > now);
        let counts = counts.entry(issuer).or_default();
        counts.sources += 1;
        counts.tokens += i64::from(lives);
        counts.namespaces.insert(source.namespace);
    }
    counts
}

async fn status(
    context: &Context,
    issuer: &Issuer,
    counts: Counts,
    before: &ClusterTokenIssuerStatus,
) -> ClusterTokenIssuerStatus {
    let known = before.conditions.iter().find(|it| it.type_ == READY);
    let (status, reason, message) = match problem(context, issuer).await {
        Some((reason, message)) => ("False", reason.as_str(), message),
        None => match context.issuers.answered(&issuer.name) {
            Answered::Failed(reason, message) => ("False", reason.as_str(), message),
            // Where this process has made none, another one may have seen it.
            Answered::Nothing if known.is_none_or(|it| it.status != "True") => {
                ("Unknown", NOT_USED_YET, "no token has been requested yet".to_owned())
            }
            Answered::Nothing | Answered::Succeeded => {
                ("True", REQUEST_SUCCEEDED, "the last token request went well".to_owned())
            }
        },
    };
    let since = known.filter(|it| it.status == status).map(|it| it.last_transition_time.clone());
    let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    ClusterTokenIssuerStatus {
        observed_generation: Some(issuer.generation),
        conditions: vec![Condition {
            type_: READY.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: shown_message(&message).into_owned(),
            observed_generation: Some(issuer.generation),
            last_transition_time: since.unwrap_or_else(|| Time(context.now())),
        }],
        sources: Some(counts.sources),
        namespaces: Some(number(counts.namespaces.len())),
        tokens: Some(counts.tokens),
    }
}

/// Why no request can be made.
async fn problem(context: &Context, issuer: &Issuer) -> Option<(Reason, String)> {
    if issuer.spec.is_none() {
        let message = "the spec does not fit the schema: is the CustomResourceDefinition of another version?";
        return Some((Reason::SpecInvalid, message.to_owned()));
    }
    let key = context.issuers.credentials(issuer)?;
    let (label, value) = CREDENTIALS_LABEL;
    let (namespace, name) = (&key.namespace, &key.name);
    let facts = match context.secrets.known_or_read(&key, &context.kubernetes).await {
        Ok(known) => known.present(),
        Err(CallError::Refused(message)) => {
            return Some((Reason::KubernetesApiError, format!("Secret {name}: {}", shown(&message))));
        }
        // It is tried again.
        Err(_) => return None,
    };
    match facts {
        None => Some((
            Reason::CredentialsNotFound,
            format!("Secret {name} does not exist in namespace {namespace}, the operator's own"),
        )),
        Some(facts) if !facts.released => Some((
            Reason::CredentialsInvalid,
            format!(
                "Secret {name} is not released for issuers: kubectl label secret {name} -n {namespace} {label}={value}"
            ),
        )),
        Some(_) => None,
    }
}
