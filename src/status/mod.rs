//! Status as a pure function of the known state. It is built from the same record as the decisions, so that the Ready
//! condition and the refresh schedule cannot disagree.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::hash::Hasher;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::refresh::{Policy, PropagationSafety};
use crate::secret::Record;
use crate::text::{shown, shown_message};
use tokensource_api::{Binding, LastFailure, Reason, TokenSourceStatus, TokenStatus};

mod error_text;
mod news;
mod reason;

pub use error_text::{error_text, error_text_in_full};
pub use news::News;
pub use reason::reason;

const READY: &str = "Ready";
const RECONCILING: &str = "Reconciling";
const STALLED: &str = "Stalled";
const PROPAGATION_SAFE: &str = "PropagationSafe";
const CONDITION_TYPES: [&str; 4] = [READY, RECONCILING, STALLED, PROPAGATION_SAFE];

/// The outcome of prompt propagation: annotating the pods that mount the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PropagationResult {
    /// The error, where it failed.
    pub failed: Option<String>,
    /// The pods that use the token in a way that does not follow the Secret.
    pub static_mounts: Option<String>,
}

/// Everything that the status depends on.
pub struct Situation<'a> {
    /// The time.
    pub now: Timestamp,
    /// The generation of the reconciled spec.
    pub generation: i64,
    /// The provider's name.
    pub provider: Option<&'a str>,
    /// The target's name.
    pub target: &'a str,
    /// The record on a target that is ours, and when its token is due for a refresh.
    pub token: Option<(&'a Record, Timestamp)>,
    /// The token was requested for the present spec, and the target holds it unchanged.
    pub fits_spec: bool,
    /// `spec.suspend`.
    pub suspended: bool,
    /// What prevents a token that is due.
    pub problem: Option<Problem>,
    /// A further remark for the message of a Ready condition that is True.
    pub remark: Option<String>,
    /// The failed attempts, for `status.lastFailure`.
    pub last_failure: Option<LastFailure>,
    /// The schedule of the spec.
    pub policy: Policy,
    /// Whether pods are annotated after a new token.
    pub prompt: bool,
    /// The outcome of annotating pods; `None` where this process has not tried yet.
    pub propagation: Option<&'a PropagationResult>,
    /// The status that was reported last.
    pub before: &'a Reported,
}

/// The part of a reported status that is remembered: what the next status depends on, and a digest to detect changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reported {
    digest: u64,
    /// `status.observedGeneration`; less than 1 where there is none.
    pub generation: i64,
    /// The condition about pods, where it reported a problem: another process repeats it until it has checked the pods.
    pub pods: Option<Box<Condition>>,
    conditions: Box<[ReportedCondition]>,
    /// `status.lastFailure`.
    pub last_failure: Option<Box<LastFailure>>,
    /// Whether `status.token` was set.
    pub has_token: bool,
}

/// Two of them are kept of each TokenSource.
#[derive(Clone, Debug, PartialEq)]
struct ReportedCondition {
    /// Its index in [`CONDITION_TYPES`].
    kind: u8,
    status: bool,
    reason: Option<Reason>,
    /// In seconds since 1970.
    since: u32,
}

impl ReportedCondition {
    /// `None` where it is of a type that this build does not know.
    fn of(condition: &Condition) -> Option<Self> {
        Some(ReportedCondition {
            kind: kind_of(&condition.type_)?,
            status: condition.status == "True",
            reason: Reason::of(&condition.reason),
            since: u32::try_from(condition.last_transition_time.0.as_second()).unwrap_or_default(),
        })
    }
}

fn kind_of(condition_type: &str) -> Option<u8> {
    (0..).zip(CONDITION_TYPES).find(|(_, of)| *of == condition_type).map(|(kind, _)| kind)
}

impl Reported {
    /// The part of `status` that is remembered.
    #[must_use]
    pub fn of(status: &TokenSourceStatus) -> Self {
        Reported {
            digest: digest(status),
            generation: status.observed_generation.unwrap_or(-1),
            pods: status
                .conditions
                .iter()
                .find(|it| is_about_pods(it))
                .cloned()
                .map(|it| Box::new(Condition { message: shown_message(&it.message).into_owned(), ..it })),
            conditions: status.conditions.iter().filter_map(ReportedCondition::of).collect(),
            last_failure: status.last_failure.clone().map(|last| {
                Box::new(LastFailure { message: shown_message(&last.message).into_owned(), ..last })
            }),
            has_token: status.token.is_some(),
        }
    }

    /// Whether `status` is identical.
    #[must_use]
    pub fn is(&self, status: &TokenSourceStatus) -> bool {
        self.digest == digest(status)
    }

    /// The digest of the whole status.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Status and reason of the Ready condition; the reason is `None` where this build does not know it.
    #[must_use]
    pub fn ready(&self) -> Option<(bool, Option<Reason>)> {
        let ready = self.conditions.iter().find(|condition| Some(condition.kind) == kind_of(READY))?;
        Some((ready.status, ready.reason))
    }

    /// The reason of the last failure, while attempts fail.
    #[must_use]
    pub fn failing(&self) -> Option<&str> {
        let last = self.last_failure.as_ref().filter(|last| last.count > 0)?;
        Some(&last.reason)
    }
}

fn is_about_pods(condition: &Condition) -> bool {
    let reasons = [Reason::PromptFailed.as_str(), Reason::StaticMount.as_str()];
    condition.type_ == PROPAGATION_SAFE && reasons.contains(&condition.reason.as_str())
}

fn digest(status: &TokenSourceStatus) -> u64 {
    struct Hashed(std::hash::DefaultHasher);
    impl std::io::Write for Hashed {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.write(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut hashed = Hashed(std::hash::DefaultHasher::new());
    // Cannot fail: strings, numbers and times only.
    let _ = serde_json::to_writer(&mut hashed, status);
    hashed.0.finish()
}

/// What prevents a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The reason of the condition.
    pub reason: Reason,
    /// The problem and its remedy.
    pub message: String,
    /// The operator recovers by itself, though this reason usually requires a user to act.
    pub passes: bool,
}

/// Whether a source without a valid token is Stalled (kstatus): a user must act before anything changes.
fn is_stalled_by(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ClientRejected
            | Reason::GrantRejected
            | Reason::ScopeRejected
            | Reason::RequestRejected
            | Reason::ResponseMalformed
            | Reason::EndpointRefusedByPolicy
            | Reason::SpecInvalid
            | Reason::TooManySources
            | Reason::TemplateInvalid
            | Reason::TargetConflict
            | Reason::TargetRefused
            | Reason::NamespaceNotOpened
    )
}

/// Builds the status of a TokenSource.
#[must_use]
pub fn status(situation: &Situation<'_>) -> TokenSourceStatus {
    let mut conditions = Conditions { situation, all: vec![] };
    conditions.ready();
    conditions.propagation();
    for condition in &mut conditions.all {
        condition.message = shown_message(&condition.message).into_owned();
    }
    TokenSourceStatus {
        observed_generation: Some(situation.generation),
        conditions: conditions.all,
        provider: situation.provider.map(str::to_owned),
        binding: Some(Binding { name: situation.target.to_owned() }),
        token: situation.token.map(|(record, refresh_at)| TokenStatus {
            id: shown(&record.token_id).into_owned(),
            issued_at: record.issued_at,
            expires_at: record.expires_at,
            refresh_at,
            token_type: shown(&record.token_type).into_owned(),
            scope: record.scope.as_deref().map(|scope| shown(scope).into_owned()),
        }),
        last_failure: last_failure(situation).map(|last| LastFailure {
            reason: shown(&last.reason).into_owned(),
            message: shown_message(&last.message).into_owned(),
            ..last
        }),
    }
}

/// The last failure stays in the status: after recovery with count 0, and while suspended with its count but without a
/// next attempt.
fn last_failure(situation: &Situation<'_>) -> Option<LastFailure> {
    if situation.last_failure.is_some() {
        return situation.last_failure.clone();
    }
    let last = situation.before.last_failure.as_deref()?.clone();
    let count = if situation.suspended { last.count } else { 0 };
    Some(LastFailure { count, next_attempt_at: None, inputs: None, ..last })
}

struct Conditions<'a> {
    situation: &'a Situation<'a>,
    all: Vec<Condition>,
}

impl Conditions<'_> {
    fn push(&mut self, kind: &'static str, status: bool, reason: Reason, message: String) {
        let same =
            |before: &&ReportedCondition| Some(before.kind) == kind_of(kind) && before.status == status;
        let before = self.situation.before.conditions.iter().find(same);
        let since = before.and_then(|before| Timestamp::from_second(before.since.into()).ok());
        let since = since.unwrap_or(self.situation.now);
        self.all.push(Condition {
            type_: kind.to_owned(),
            status: if status { "True" } else { "False" }.to_owned(),
            reason: reason.to_string(),
            message,
            observed_generation: Some(self.situation.generation),
            last_transition_time: Time(since),
        });
    }

    /// Ready, and while it is False Reconciling or Stalled.
    fn ready(&mut self) {
        let situation = self.situation;
        let token = situation.token.filter(|_| situation.fits_spec);
        let valid = token.filter(|(record, _)| situation.now < record.expires_at);
        if let Some((record, refresh_at)) = valid {
            let until = format!("the token {} is valid until {}", record.token_id, record.expires_at);
            let (reason, message) = match &situation.problem {
                Some(problem) => (Reason::RefreshFailing, format!("{}; {until}", problem.message)),
                None if situation.suspended => (
                    Reason::TokenValid,
                    format!("{until}; suspended, so it will not be refreshed: remove spec.suspend"),
                ),
                None => (
                    Reason::TokenValid,
                    format!("{until} and will be refreshed at {refresh_at}{}", self.remarks(record)),
                ),
            };
            return self.push(READY, true, reason, message);
        }
        if situation.suspended {
            let state = match (token, situation.token) {
                (Some((record, _)), _) => format!("the token expired at {}", record.expires_at),
                (None, Some(_)) => "the target holds no token for the present spec".to_owned(),
                (None, None) => "there is no token".to_owned(),
            };
            return self.push(
                READY,
                false,
                Reason::Suspended,
                format!("{state}, and none is asked for while spec.suspend is true"),
            );
        }
        let (reason, message) = match (&situation.problem, token) {
            (Some(problem), _) => (problem.reason, problem.message.clone()),
            (None, Some((record, _))) => (
                Reason::Expired,
                format!("the token expired at {}; a new one is being asked for", record.expires_at),
            ),
            (None, None) => (Reason::Requesting, "a token is being asked for".to_owned()),
        };
        self.push(READY, false, reason, message.clone());
        let passes = situation.problem.as_ref().is_some_and(|problem| problem.passes);
        let kind = if is_stalled_by(reason) && !passes { STALLED } else { RECONCILING };
        self.push(kind, true, reason, message);
    }

    fn remarks(&self, record: &Record) -> String {
        let of_before = self.situation.policy.remark(record.lifetime());
        let further = of_before.into_iter().chain(self.situation.remark.clone());
        record.remarks.iter().cloned().chain(further).map(|remark| format!("; {remark}")).collect()
    }

    fn propagation(&mut self) {
        let situation = self.situation;
        let Some((record, _)) = situation.token else { return };
        let result = situation.propagation.cloned();
        if situation.prompt
            && result.is_none()
            && let Some(reported) = situation.before.pods.as_deref()
        {
            // Another process reported it, and this one has not checked the pods yet.
            let observed_generation = Some(situation.generation);
            return self.all.push(Condition { observed_generation, ..reported.clone() });
        }
        let result = result.unwrap_or_default();
        let failed = result.failed.map(|failed| {
            let remedy = Reason::PromptFailed.remedy();
            let message = format!(
                "pods could not be annotated after the new token, and read it with the kubelet's periodic sync: {failed}; {remedy}"
            );
            (Reason::PromptFailed, message)
        });
        let static_mounts = result.static_mounts.map(|pods| {
            let remedy = Reason::StaticMount.remedy();
            (Reason::StaticMount, format!("{pods} keep the token from their start: {remedy}"))
        });
        let lifetime = self.lifetime(record);
        let (hard, soft) = match lifetime.0 {
            Reason::LifetimeTooShort | Reason::IssuerReturnsCachedTokens => (Some(lifetime), None),
            _ => (None, Some(lifetime)),
        };
        // The most severe problem comes first: its reason becomes the condition's.
        let all: Vec<_> = [failed, hard, static_mounts, soft].into_iter().flatten().collect();
        let Some((reason, _)) = all.first() else { return };
        let messages: Vec<_> = all.iter().map(|(_, message)| message.as_str()).collect();
        const LIMITATION: &str = "Environment variables and subPath mounts never follow a Secret.";
        let message = format!("{}. {LIMITATION}", messages.join("; "));
        self.push(PROPAGATION_SAFE, *reason == Reason::LifetimeSufficient, *reason, message);
    }

    /// Whether the token's lifetime is sufficient for readers of mounted files, with the numbers.
    fn lifetime(&self, record: &Record) -> (Reason, String) {
        let policy = self.situation.policy;
        if record.cached {
            let message = "the issuer gives the same token again until shortly before its end, so that a fresh one comes late; ask it for tokens that are not cached";
            return (Reason::IssuerReturnsCachedTokens, message.into());
        }
        let lifetime = record.lifetime();
        let after = policy.refresh_after(lifetime);
        let delay = policy.propagation_delay;
        let numbers = format!(
            "tokens live {lifetime} s, are refreshed after {after} s at the latest, and take up to {delay} s to reach a mounted file"
        );
        let prompt = if self.situation.prompt { "" } else { "set spec.target.propagation to Prompt, " };
        let remedies = if policy.before_is_too_short(lifetime) {
            "remove spec.refresh.before, which leaves less than the default rule does".to_owned()
        } else {
            format!(
                "have the issuer give longer tokens (VGS: accessTokenLifespan), {prompt}read the Secret through the API, or shorten the kubelet's sync period and say so in spec.refresh.propagationDelay"
            )
        };
        match policy.propagation(lifetime) {
            PropagationSafety::Safe => (
                Reason::LifetimeSufficient,
                format!(
                    "{numbers}; an outage of the endpoint of {} s goes unnoticed by readers of the file",
                    policy.longest_unnoticed_outage(lifetime)
                ),
            ),
            PropagationSafety::NoRetryRoom => (
                Reason::NoRetryRoom,
                format!("{numbers}; one failed attempt may leave an expired token in the file: {remedies}"),
            ),
            PropagationSafety::TooShort => (
                Reason::LifetimeTooShort,
                format!("{numbers}; readers of the file may find an expired token: {remedies}"),
            ),
        }
    }
}

#[cfg(test)]
mod tests;
