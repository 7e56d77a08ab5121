//! What people are told: status as a pure function of what is known. It is built from the same record that
//! decisions are made of, so that "ready?" and "refresh?" cannot disagree.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::hash::Hasher;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::refresh::{Policy, Propagation};
use crate::secret::Record;
use tokensource_api::{Binding, LastFailure, Reason, TokenSourceStatus, TokenStatus};

mod error_text;
mod reason;

pub use error_text::error_text;
pub use reason::reason;

const READY: &str = "Ready";
const RECONCILING: &str = "Reconciling";
const STALLED: &str = "Stalled";
const PROPAGATION_SAFE: &str = "PropagationSafe";
/// The types of all conditions.
const KINDS: [&str; 4] = [READY, RECONCILING, STALLED, PROPAGATION_SAFE];

/// What came of telling pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// What failed.
    pub failed: Option<String>,
    /// The pods that have the token in a way that does not follow the Secret.
    pub fixed: Option<String>,
}

/// Everything that status depends on.
pub struct Situation<'a> {
    /// The time.
    pub now: Timestamp,
    /// The generation of the spec that was looked at.
    pub generation: i64,
    /// The provider's name.
    pub provider: Option<&'a str>,
    /// The target's name.
    pub target: &'a str,
    /// The record on a target that is ours, with the time of its refresh.
    pub token: Option<(&'a Record, Timestamp)>,
    /// The token was minted for the present spec, and the target still holds it as it was written.
    pub fits_spec: bool,
    /// `spec.suspend`.
    pub suspended: bool,
    /// What stands in the way of a token that is wanted, if anything.
    pub problem: Option<Problem>,
    /// What else people should know of a token that is fine.
    pub remark: Option<String>,
    /// The failed attempts, for `status.lastFailure`.
    pub last_failure: Option<LastFailure>,
    /// The schedule that the spec asks for.
    pub policy: Policy,
    /// Pods are told of new tokens.
    pub prompt: bool,
    /// What came of that; `None`: this process has not tried yet.
    pub told: Option<&'a Told>,
    /// What people were told so far.
    pub before: &'a Reported,
}

/// What is kept of a status: what the next one depends on, and whether that is another one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reported {
    digest: u64,
    /// The generation of the spec that it spoke of; less than 1: none.
    pub generation: i64,
    /// The condition about pods, where something was wrong with them: another process repeats it until it has looked.
    pub pods: Option<Box<Condition>>,
    conditions: Box<[ReportedCondition]>,
    /// The failed attempts.
    pub last_failure: Option<Box<LastFailure>>,
    /// There was a token.
    pub has_token: bool,
}

#[derive(Clone, Debug, PartialEq)]
struct ReportedCondition {
    kind: &'static str,
    status: bool,
    reason: Option<Reason>,
    since: Timestamp,
}

impl Reported {
    /// What is kept of `status`.
    #[must_use]
    pub fn of(status: &TokenSourceStatus) -> Self {
        let kept = |condition: &Condition| {
            Some(ReportedCondition {
                kind: KINDS.into_iter().find(|kind| *kind == condition.type_)?,
                status: condition.status == "True",
                reason: Reason::ALL.into_iter().find(|reason| reason.as_str() == condition.reason),
                since: condition.last_transition_time.0,
            })
        };
        Reported {
            digest: digest(status),
            generation: status.observed_generation.unwrap_or(-1),
            pods: status.conditions.iter().find(|it| is_about_pods(it)).cloned().map(Box::new),
            conditions: status.conditions.iter().filter_map(kept).collect(),
            last_failure: status.last_failure.clone().map(Box::new),
            has_token: status.token.is_some(),
        }
    }

    /// Whether `status` says the same, to the letter.
    #[must_use]
    pub fn is(&self, status: &TokenSourceStatus) -> bool {
        self.digest == digest(status)
    }

    /// Ready's status and reason.
    #[must_use]
    pub fn ready(&self) -> Option<(bool, Option<Reason>)> {
        let ready = self.conditions.iter().find(|condition| condition.kind == READY)?;
        Some((ready.status, ready.reason))
    }

    /// Why attempts fail, while they do.
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
    // Strings, numbers and times: nothing that JSON refuses.
    let _ = serde_json::to_writer(&mut hashed, status);
    hashed.0.finish()
}

/// What stands in the way of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Its reason.
    pub reason: Reason,
    /// What is wrong, and what to do.
    pub message: String,
    /// It passes by itself, though its reason mostly calls for a person.
    pub passes: bool,
}

/// Whether a person must act before anything changes (kstatus' Stalled), for a source without a valid token.
fn needs_a_person(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ClientRejected
            | Reason::GrantRejected
            | Reason::ScopeRejected
            | Reason::RequestRejected
            | Reason::ResponseMalformed
            | Reason::EndpointRefusedByPolicy
            | Reason::SpecInvalid
            | Reason::TemplateInvalid
            | Reason::TargetConflict
            | Reason::TargetRefused
    )
}

/// Builds the status.
#[must_use]
pub fn status(situation: &Situation<'_>) -> TokenSourceStatus {
    let mut conditions = Conditions { situation, all: vec![] };
    conditions.ready();
    conditions.propagation();
    TokenSourceStatus {
        observed_generation: Some(situation.generation),
        conditions: conditions.all,
        provider: situation.provider.map(str::to_owned),
        binding: Some(Binding { name: situation.target.to_owned() }),
        token: situation.token.map(|(record, refresh_at)| TokenStatus {
            id: record.token_id.clone(),
            issued_at: record.issued_at,
            expires_at: record.expires_at,
            refresh_at,
            token_type: record.token_type.clone(),
            scope: record.scope.clone(),
        }),
        last_failure: last_failure(situation),
    }
}

/// The last failure stays: while it is suspended as it was, but that no attempt is going to be made, and after recovery with
/// count 0.
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
        let same = |before: &&ReportedCondition| before.kind == kind && before.status == status;
        let before = self.situation.before.conditions.iter().find(same);
        let since = before.map_or(self.situation.now, |before| before.since);
        self.all.push(Condition {
            type_: kind.to_owned(),
            status: if status { "True" } else { "False" }.to_owned(),
            reason: reason.to_string(),
            message,
            observed_generation: Some(self.situation.generation),
            last_transition_time: Time(since),
        });
    }

    /// Ready, with Reconciling or Stalled while it is not.
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
            let what = match (token, situation.token) {
                (Some((record, _)), _) => format!("the token expired at {}", record.expires_at),
                (None, Some(_)) => "the target holds no token for the present spec".to_owned(),
                (None, None) => "there is no token".to_owned(),
            };
            return self.push(
                READY,
                false,
                Reason::Suspended,
                format!("{what}, and none is asked for while spec.suspend is true"),
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
        let kind = if needs_a_person(reason) && !passes { STALLED } else { RECONCILING };
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
        let told = situation.told.cloned();
        if situation.prompt
            && told.is_none()
            && let Some(said) = situation.before.pods.as_deref()
        {
            // It was said by another process, and this one has not looked yet.
            let observed_generation = Some(situation.generation);
            return self.all.push(Condition { observed_generation, ..said.clone() });
        }
        let told = told.unwrap_or_default();
        let failed = told.failed.map(|failed| {
            let remedy = Reason::PromptFailed.remedy();
            let words = format!(
                "pods could not be told of the new token, and read it at the kubelet's own pace: {failed}; {remedy}"
            );
            (Reason::PromptFailed, words)
        });
        let fixed = told.fixed.map(|pods| {
            let remedy = Reason::StaticMount.remedy();
            (Reason::StaticMount, format!("{pods} keep the token from their start: {remedy}"))
        });
        let lifetime = self.lifetime(record);
        let (hard, soft) = match lifetime.0 {
            Reason::LifetimeTooShort | Reason::IssuerReturnsCachedTokens => (Some(lifetime), None),
            _ => (None, Some(lifetime)),
        };
        // The worst first: its reason is the condition's.
        let all: Vec<_> = [failed, hard, fixed, soft].into_iter().flatten().collect();
        let Some((reason, _)) = all.first() else { return };
        let words: Vec<_> = all.iter().map(|(_, words)| words.as_str()).collect();
        const NEVER: &str = "Environment variables and subPath mounts never follow a Secret.";
        let message = format!("{}. {NEVER}", words.join("; "));
        self.push(PROPAGATION_SAFE, *reason == Reason::LifetimeSufficient, *reason, message);
    }

    /// What the token's lifetime means for readers of mounted files.
    fn lifetime(&self, record: &Record) -> (Reason, String) {
        let policy = self.situation.policy;
        if record.cached {
            let words = "the issuer gives the same token again until shortly before its end, so that a fresh one comes late; ask it for tokens that are not cached";
            return (Reason::IssuerReturnsCachedTokens, words.into());
        }
        // A token that the issuer hands out again is judged by the life that it had when it was new to us.
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
            Propagation::Safe => (
                Reason::LifetimeSufficient,
                format!(
                    "{numbers}; an outage of the endpoint of {} s goes unnoticed by readers of the file",
                    policy.longest_unnoticed_outage(lifetime)
                ),
            ),
            Propagation::NoRetryRoom => (
                Reason::NoRetryRoom,
                format!("{numbers}; one failed attempt may leave an expired token in the file: {remedies}"),
            ),
            Propagation::TooShort => (
                Reason::LifetimeTooShort,
                format!("{numbers}; readers of the file may find an expired token: {remedies}"),
            ),
        }
    }
}

#[cfg(test)]
mod tests;
