//! Reports what is seen of ClusterTokenIssuers, all of them together and now and then: thousands of TokenSources may use one. Its
//! readers are the platform's, so that it says what the TokenSources do not; but nothing that a namespace wrote.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::Resource;
use tokensource_api::{ClusterTokenIssuer, ClusterTokenIssuerStatus, Reason};
use tokio::time::{Instant, sleep};
use tracing::{debug, info, warn};

use super::cache::issuer_answers::Answered;
use super::cache::issuers::IssuerWatch;
use super::context::Context;
use crate::cluster::CallError;
use crate::metrics::ObservedIssuer;
use crate::secret::CREDENTIALS_LABEL;
use crate::spec::Issuer;
use crate::text::{shown, shown_message};

/// The time between two reports of the counts.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);
/// The shortest time between two reports, where an issuer begins to fail or to work.
const MIN_REPORT_INTERVAL: Duration = Duration::from_secs(1);
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
    let mut outdated = BTreeSet::new();
    loop {
        tokio::select! {
            () = context.issuers.has_news() => sleep(MIN_REPORT_INTERVAL).await,
            () = sleep(REPORT_INTERVAL) => {}
        }
        note_outdated(context, &mut outdated);
        if context.leadership.leads() && context.is_warm() {
            report(context).await;
        } else {
            context.metrics.set_issuers(vec![]);
        }
    }
}

/// Says which watches have begun to fail for too long, and which are answered again: TokenSources may go on then.
fn note_outdated(context: &Context, outdated: &mut BTreeSet<IssuerWatch>) {
    let unread = context.issuers.unread();
    context.metrics.set_issuers_unread(unread.iter().map(|(what, age)| (what.resource(), *age)).collect());
    for (what, age) in unread {
        let (resource, seconds) = (what.resource(), age.as_secs());
        if context.issuers.is_outdated(what) {
            if outdated.insert(what) {
                warn!(
                    resource,
                    seconds, "a watch fails for so long that issuers lend nothing by what it has shown"
                );
            }
        } else if outdated.remove(&what) {
            info!(resource, "the watch is answered again, and issuers lend by it");
            context.sources.of_issuers(None, |_| true).into_iter().for_each(|source| context.trigger(source));
        }
    }
}

async fn report(context: &Context) {
    let issuers = context.issuers.all();
    let mut observed = vec![];
    let mut counts = counts(context, &issuers);
    for issuer in issuers {
        let counts = counts.remove(&issuer.name).unwrap_or_default();
        let before = context.issuers.reported(&issuer.name);
        let after = status(context, &issuer, counts, &before).await;
        observed.push(observed_issuer(&issuer, &after));
        if after == before {
            continue;
        }
        match context.kubernetes.write_issuer_status(&issuer.name, &issuer.uid, &after).await {
            Ok(()) => publish(context, &issuer, &before, &after).await,
            // The watch shows it, and says so where it was overwritten.
            Err(CallError::NotFound | CallError::Conflict) => {}
            Err(error) => warn!(issuer = %issuer.name, %error, "the status of an issuer cannot be written"),
        }
    }
    context.metrics.set_issuers(observed);
}

/// An event where Ready becomes True or False, or has another reason. Those who may read the namespace `default` may not be those who
/// may read issuers, so that it has no more than the class of a failure.
async fn publish(
    context: &Context,
    issuer: &Issuer,
    before: &ClusterTokenIssuerStatus,
    after: &ClusterTokenIssuerStatus,
) {
    let Some((warning, reason, note)) = event(before, after) else { return };
    let regarding = ObjectReference {
        api_version: Some(ClusterTokenIssuer::api_version(&()).into_owned()),
        kind: Some(ClusterTokenIssuer::kind(&()).into_owned()),
        name: Some(issuer.name.to_string()),
        uid: Some(issuer.uid.clone()),
        ..ObjectReference::default()
    };
    let sending = context.kubernetes.publish_event(regarding, &context.instance, warning, &reason, note);
    if let Err(error) = Box::pin(sending).await {
        debug!(issuer = %issuer.name, %error, "an event could not be sent");
    }
}

fn event(
    before: &ClusterTokenIssuerStatus,
    after: &ClusterTokenIssuerStatus,
) -> Option<(bool, String, &'static str)> {
    let ready = |status: &ClusterTokenIssuerStatus| {
        let ready = status.conditions.iter().find(|it| it.type_ == READY)?;
        Some((ready.status.clone(), ready.reason.clone()))
    };
    let (status, reason) = ready(after).filter(|now| ready(before).as_ref() != Some(now))?;
    match &*status {
        "True" => Some((false, reason, "token requests through this issuer succeed")),
        "False" => Some((true, reason, "no token can be requested through this issuer: its status says why")),
        _ => None,
    }
}

fn observed_issuer(issuer: &Issuer, status: &ClusterTokenIssuerStatus) -> ObservedIssuer {
    let ready = status.conditions.iter().find(|it| it.type_ == READY && it.status != "Unknown");
    ObservedIssuer {
        name: Arc::clone(&issuer.name),
        ready: ready.map(|ready| (ready.status == "True", ready.reason.clone())),
        sources: status.sources.unwrap_or_default(),
    }
}

/// Of namespaces that the operator serves. A tenant that an issuer does not serve counts by the tokens alone that it still has.
fn counts(context: &Context, issuers: &[Arc<Issuer>]) -> HashMap<Arc<str>, Counts> {
    let issuers: HashMap<&str, &Issuer> = issuers.iter().map(|issuer| (&*issuer.name, &**issuer)).collect();
    let mut counts: HashMap<Arc<str>, Counts> = HashMap::new();
    let now = context.now();
    for (name, source) in context.sources.with_issuers() {
        let Some(issuer) = issuers.get(&*name).filter(|_| context.may_act_in(&source.namespace)) else {
            continue;
        };
        let lives = context.expiry(&source).is_some_and(|expires_at| expires_at > now);
        let counts = counts.entry(name).or_default();
        counts.tokens += i64::from(lives);
        if context.issuers.serves(issuer, &source.namespace) {
            counts.sources += 1;
            counts.namespaces.insert(Arc::clone(&source.namespace));
        }
    }
    counts
}

async fn status(
    context: &Context,
    issuer: &Issuer,
    counts: Counts,
    before: &ClusterTokenIssuerStatus,
) -> ClusterTokenIssuerStatus {
    let number = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    let problem = problem(context, issuer).await;
    let answered = context.issuers.answered(&issuer.name, Instant::now());
    ClusterTokenIssuerStatus {
        observed_generation: Some(issuer.generation),
        conditions: vec![ready(problem, answered, &before.conditions, issuer.generation, context.now())],
        sources: Some(counts.sources),
        namespaces: Some(number(counts.namespaces.len())),
        tokens: Some(counts.tokens),
    }
}

/// Ready, as a problem that was found out or as the token requests say it.
fn ready(
    problem: Option<(Reason, String)>,
    answered: Answered,
    before: &[Condition],
    generation: i64,
    now: Timestamp,
) -> Condition {
    let known = before.iter().find(|it| it.type_ == READY);
    let (status, reason, message) = match problem {
        Some((reason, message)) => ("False", reason.as_str(), message),
        None => match answered {
            Answered::Failed(reason, message) => ("False", reason.as_str(), message),
            Answered::Succeeded => ("True", REQUEST_SUCCEEDED, "the last token request went well".to_owned()),
            // Where this process has made none, another one may have seen it.
            Answered::Nothing => match known.filter(|it| is_answer(it, generation)) {
                Some(known) => (&*known.status, &*known.reason, known.message.clone()),
                None => ("Unknown", NOT_USED_YET, "no token has been requested yet".to_owned()),
            },
        },
    };
    let since = known.filter(|it| it.status == status).map(|it| it.last_transition_time.clone());
    Condition {
        type_: READY.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: shown_message(&message).into_owned(),
        observed_generation: Some(generation),
        last_transition_time: since.unwrap_or(Time(now)),
    }
}

/// Whether a condition says what came of a token request by this generation of the issuer. The others are found out anew.
fn is_answer(condition: &Condition, generation: i64) -> bool {
    let is_found_out = [
        Reason::IssuerNotReady,
        Reason::SpecInvalid,
        Reason::KubernetesApiError,
        Reason::CredentialsNotFound,
        Reason::CredentialsInvalid,
    ]
    .map(Reason::as_str)
    .contains(&&*condition.reason);
    condition.observed_generation == Some(generation) && condition.status != "Unknown" && !is_found_out
}

/// Why no request can be made.
async fn problem(context: &Context, issuer: &Issuer) -> Option<(Reason, String)> {
    let selects = issuer.spec.as_ref().is_some_and(|spec| spec.namespaces.selector.is_some());
    let needed = [IssuerWatch::Issuers].into_iter().chain(selects.then_some(IssuerWatch::Namespaces));
    if let Some(what) = needed.into_iter().find(|what| context.issuers.is_outdated(*what)) {
        let message = format!(
            "the operator has not been able to watch {} for some minutes, and requests no token by what it knew: see its log",
            what.resource()
        );
        return Some((Reason::IssuerNotReady, message));
    }
    if let Some(fault) = issuer.fault() {
        return Some((Reason::SpecInvalid, fault));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn failed(reason: Reason) -> Answered {
        Answered::Failed(reason, "400 at idp.example.com".into())
    }

    /// Status, reason and the second of the transition, one after the other.
    fn conditions(seen: Vec<(Option<Reason>, Answered, i64)>) -> Vec<(String, String, i64)> {
        let mut before = vec![];
        let mut all = vec![];
        for (second, (problem, answered, generation)) in seen.into_iter().enumerate() {
            let problem = problem.map(|reason| (reason, "a problem".to_owned()));
            let ready = ready(problem, answered, &before, generation, at(second as i64));
            all.push((ready.status.clone(), ready.reason.clone(), ready.last_transition_time.0.as_second()));
            before = vec![ready];
        }
        all
    }

    #[test]
    fn issuer_status_is_ready_while_its_credentials_are_there_and_requests_succeed() {
        let missing = || Some(Reason::CredentialsNotFound);
        let seen = conditions(vec![
            (None, Answered::Nothing, 1),
            (missing(), Answered::Nothing, 1),
            // A token may still come with what was read before.
            (missing(), Answered::Succeeded, 1),
            (None, Answered::Nothing, 1),
            (None, failed(Reason::ClientRejected), 1),
            (None, failed(Reason::EndpointUnavailable), 1),
            (None, Answered::Succeeded, 1),
            (None, Answered::Succeeded, 2),
        ]);
        let expected = [
            ("Unknown", "NotUsedYet", 0),
            ("False", "CredentialsNotFound", 1),
            ("False", "CredentialsNotFound", 1),
            ("Unknown", "NotUsedYet", 3),
            ("False", "ClientRejected", 4),
            ("False", "EndpointUnavailable", 4),
            ("True", "RequestSucceeded", 6),
            ("True", "RequestSucceeded", 6),
        ];
        assert_eq!(seen, expected.map(|(status, reason, at)| (status.to_owned(), reason.to_owned(), at)));
    }

    #[test]
    fn issuer_event_is_published_when_ready_changes_and_names_only_the_class_of_a_failure() {
        let status = |answered: Answered| ClusterTokenIssuerStatus {
            conditions: vec![ready(None, answered, &[], 1, at(0))],
            ..ClusterTokenIssuerStatus::default()
        };
        let works = || status(Answered::Succeeded);
        let rejected = || status(failed(Reason::ClientRejected));
        let (warning, reason, note) = event(&works(), &rejected()).unwrap();
        assert_eq!((warning, &*reason), (true, "ClientRejected"));
        assert!(!note.contains("idp.example.com"));
        assert!(event(&rejected(), &status(failed(Reason::EndpointUnavailable))).is_some());
        assert!(event(&rejected(), &rejected()).is_none());
        assert!(event(&Default::default(), &status(Answered::Nothing)).is_none());
        assert_eq!(event(&Default::default(), &works()).unwrap().1, "RequestSucceeded");
    }

    #[test]
    fn issuer_status_of_another_process_holds_until_the_issuer_or_its_credentials_change() {
        let after = |known: Answered, problem: Option<Reason>, generation: i64| {
            conditions(vec![(problem, known, 1), (None, Answered::Nothing, generation)])[1].1.clone()
        };
        assert_eq!(after(Answered::Succeeded, None, 1), "RequestSucceeded");
        assert_eq!(after(failed(Reason::ClientRejected), None, 1), "ClientRejected");
        assert_eq!(after(failed(Reason::ClientRejected), None, 2), "NotUsedYet", "it was edited since");
        assert_eq!(after(Answered::Succeeded, Some(Reason::CredentialsInvalid), 1), "NotUsedYet", "mended");
    }
}
