//! What the operator has made of a TokenSource, and whether it is what a fresh object would show.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Secret;
use tokensource_api::TokenSource;

/// Labels that the operator itself sets, or that a TokenSource's name is a part of.
const OWN_LABELS: &str = "tokensource.dev/";

/// An outcome without what differs between two objects: names, times and texts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// `Ready True TokenValid`, for the present generation.
    pub conditions: Vec<String>,
    pub target: Option<TargetOutcome>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetOutcome {
    pub kind: String,
    pub keys: BTreeSet<String>,
    pub labels: BTreeSet<String>,
    pub annotations: BTreeSet<String>,
    pub has_owner: bool,
}

impl Outcome {
    /// `None` while the status is about an earlier generation.
    pub fn of(source: &TokenSource, target: Option<&Secret>, foreign: &[String]) -> Option<Self> {
        let status = source.status.as_ref()?;
        if status.observed_generation != source.metadata.generation || status.conditions.is_empty() {
            return None;
        }
        let conditions =
            status.conditions.iter().map(|it| format!("{} {} {}", it.type_, it.status, it.reason)).collect();
        let target =
            target.filter(|target| is_of(target, source)).map(|target| TargetOutcome::of(target, foreign));
        Some(Outcome { conditions, target })
    }

    pub fn ready(&self) -> &str {
        self.conditions.first().map_or("", |condition| condition.as_str())
    }

    pub fn is_ready(&self) -> bool {
        self.ready().starts_with("Ready True")
    }

    /// Whether this is what `fresh` shows. `keeps`: a token that was requested earlier is one for the present spec, so
    /// that it stays where a fresh object gets none.
    pub fn is_as(&self, fresh: &Outcome, keeps: bool) -> bool {
        if self == fresh {
            return true;
        }
        if fresh.is_ready() {
            return false;
        }
        // The earlier token stays in the target, untouched.
        let same_reason = |outcome: &Outcome| -> Vec<String> {
            outcome.conditions.iter().filter(|it| !it.starts_with("PropagationSafe")).cloned().collect()
        };
        let old_stays = self.target.is_some() && fresh.target.is_none();
        let kept = ["Ready True RefreshFailing", "Ready True TokenValid"].contains(&self.ready());
        (old_stays && same_reason(self) == same_reason(fresh)) || (keeps && kept)
    }
}

/// Whether the record on a Secret names this TokenSource.
fn is_of(secret: &Secret, source: &TokenSource) -> bool {
    let record = secret.metadata.annotations.as_ref().and_then(|all| all.get("tokensource.dev/record"));
    let record: Option<serde_json::Value> = record.and_then(|record| serde_json::from_str(record).ok());
    record.is_some_and(|record| {
        Some(record["owner"]["name"].as_str().unwrap_or_default()) == source.metadata.name.as_deref()
    })
}

impl TargetOutcome {
    fn of(secret: &Secret, foreign: &[String]) -> Self {
        let own = |name: &String| !foreign.contains(name);
        let names = |all: &Option<std::collections::BTreeMap<String, String>>| -> BTreeSet<String> {
            let all = all.iter().flatten();
            all.filter(|(name, _)| own(name) && !name.starts_with(OWN_LABELS))
                .map(|(name, value)| format!("{name}={value}"))
                .collect()
        };
        TargetOutcome {
            kind: secret.type_.clone().unwrap_or_default(),
            keys: secret.data.iter().flatten().map(|(key, _)| key.clone()).filter(own).collect(),
            labels: names(&secret.metadata.labels),
            annotations: names(&secret.metadata.annotations),
            has_owner: secret
                .metadata
                .owner_references
                .iter()
                .flatten()
                .any(|it| it.controller == Some(true)),
        }
    }
}
