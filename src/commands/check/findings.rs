//! What follows from what was read. Pure.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde::Serialize;

use super::read::{Operator, Seen};
use crate::cluster::{CallError, Right};
use crate::commands::installation::{InstallationError, account_of_policy};
use crate::commands::operator::flag;
use crate::key::Key;
use crate::text::shown_message;
use crate::time::seconds_between;

/// The first minor version of Kubernetes 1 that the chart accepts.
const FIRST_MINOR: u32 = 31;
/// The version of this binary, which is that of its release.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The lease duration where the Lease names none, in seconds.
const USUAL_LEASE_SECONDS: u64 = 15;

/// How it is with a part, in the order of severity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Grade {
    Ok,
    /// It may not be read.
    Unknown,
    Warn,
    Fail,
}

impl Grade {
    pub(super) fn exit_code(self) -> u8 {
        match self {
            Grade::Ok => 0,
            Grade::Unknown | Grade::Warn => 3,
            Grade::Fail => 2,
        }
    }
}

/// A part of the cluster, and how it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    pub(super) grade: Grade,
    pub(super) part: &'static str,
    pub(super) message: String,
}

fn finding(grade: Grade, part: &'static str, message: impl Into<String>) -> Finding {
    Finding { grade, part, message: shown_message(&message.into()).into_owned() }
}

fn unread(part: &'static str, what: &str, error: &CallError) -> Finding {
    finding(Grade::Unknown, part, format!("{what} cannot be read: {error}"))
}

pub(super) fn findings(now: Timestamp, seen: &Seen) -> Vec<Finding> {
    let mut all = vec![version(seen), definition(seen)];
    match &seen.operators {
        Ok(operators) => operators.iter().for_each(|operator| all.extend(of_operator(now, operator))),
        Err(error @ (InstallationError::Unread(_) | InstallationError::Unlocated(_))) => {
            all.push(finding(Grade::Unknown, "operator", error.to_string()));
        }
        Err(error) => {
            let message = format!("{error}; or install it, see docs/install.md");
            all.push(finding(Grade::Fail, "operator", message));
        }
    }
    all.push(policies(seen));
    all.push(own_rights(seen));
    all
}

fn version(seen: &Seen) -> Finding {
    const PART: &str = "kubernetes";
    match &seen.version {
        Err(error) => finding(Grade::Fail, PART, format!("the API server does not answer: {error}")),
        Ok(((1, minor), text)) if *minor < FIRST_MINOR => {
            finding(Grade::Fail, PART, format!("{text} is too old: 1.{FIRST_MINOR} is needed"))
        }
        Ok((_, text)) => finding(Grade::Ok, PART, text.clone()),
    }
}

fn definition(seen: &Seen) -> Finding {
    const PART: &str = "definition";
    let definition = match &seen.definition {
        Ok(Some(definition)) => definition,
        Ok(None) => {
            return finding(
                Grade::Fail,
                PART,
                "the CustomResourceDefinition tokensources.tokensource.dev is not installed: kubectl apply --server-side -f crds/",
            );
        }
        Err(error) => {
            return match &seen.sources {
                Ok(_) => finding(
                    Grade::Ok,
                    PART,
                    format!(
                        "TokenSources of {} can be listed; the definition itself may not be read",
                        seen.namespace
                    ),
                ),
                Err(_) => unread(PART, "the CustomResourceDefinition", error),
            };
        }
    };
    installed(PART, definition, &tokensource_api::crd(), "TokenSources")
}

/// The definition of the issuers that an operator serves.
fn issuer_definition(read: &Result<Option<CustomResourceDefinition>, CallError>) -> Finding {
    const PART: &str = "issuers";
    match read {
        Ok(Some(definition)) => {
            installed(PART, definition, &tokensource_api::issuer_crd(), "ClusterTokenIssuers")
        }
        Ok(None) => finding(
            Grade::Fail,
            PART,
            "the operator serves ClusterTokenIssuers (--issuers-namespace), and their CustomResourceDefinition clustertokenissuers.tokensource.dev is not installed: kubectl apply --server-side -f crds/",
        ),
        Err(error) => unread(PART, "the CustomResourceDefinition of ClusterTokenIssuers", error),
    }
}

/// A definition that is there, beside that of this version.
fn installed(
    part: &'static str,
    definition: &CustomResourceDefinition,
    ours: &CustomResourceDefinition,
    objects: &str,
) -> Finding {
    let conditions = definition.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let mut established = conditions.filter(|it| it.type_ == "Established");
    if let Some(condition) = established.next().filter(|it| it.status != "True") {
        let message = condition.message.clone().unwrap_or_default();
        return finding(Grade::Fail, part, format!("it is not established: {message}"));
    }
    if schema(definition) != schema(ours) {
        return finding(
            Grade::Warn,
            part,
            format!(
                "its schema is not that of version {VERSION}: apply the CustomResourceDefinition of the operator's release"
            ),
        );
    }
    finding(Grade::Ok, part, format!("{objects} are known, with the schema of version {VERSION}"))
}

/// What the API server applies of a definition.
fn schema(definition: &CustomResourceDefinition) -> Vec<serde_json::Value> {
    let versions = definition.spec.versions.iter();
    versions.map(|version| serde_json::json!([version.name, version.served, version.schema])).collect()
}

fn of_operator(now: Timestamp, operator: &Operator) -> Vec<Finding> {
    let metadata = &operator.deployment.metadata;
    let key = Key::of(metadata);
    let mut all = vec![];
    let status = operator.deployment.status.clone().unwrap_or_default();
    let wanted = operator.deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let available = status.available_replicas.unwrap_or_default();
    all.push(match (wanted, available) {
        (0, _) => finding(Grade::Fail, "operator", format!("Deployment {key} is scaled to 0")),
        (_, 0) => {
            finding(Grade::Fail, "operator", format!("Deployment {key} has no available pod of {wanted}"))
        }
        (wanted, available) if available < wanted => finding(
            Grade::Warn,
            "operator",
            format!("Deployment {key} has {available} available pods of {wanted}"),
        ),
        _ => finding(
            Grade::Ok,
            "operator",
            format!("Deployment {key} has {available} available pods of {wanted}"),
        ),
    });
    let version = metadata.labels.as_ref().and_then(|labels| labels.get("app.kubernetes.io/version"));
    all.push(match version.map(String::as_str) {
        Some(VERSION) => finding(Grade::Ok, "version", format!("{VERSION}, as this command")),
        Some(other) => finding(
            Grade::Warn,
            "version",
            format!("the operator has version {other}, and this command {VERSION}: use that of the operator"),
        ),
        None => finding(Grade::Unknown, "version", format!("Deployment {key} has no label with its version")),
    });
    if let Some((lease, read)) = &operator.lease {
        all.push(leader(now, lease, read));
    }
    all.extend(operator_rights(&operator.rights));
    all.extend(operator.issuers.as_ref().map(issuer_definition));
    all
}

fn leader(now: Timestamp, key: &Key, lease: &Result<Option<Lease>, CallError>) -> Finding {
    const PART: &str = "leader";
    let lease = match lease {
        Err(error) => return unread(PART, &format!("Lease {key}"), error),
        Ok(None) => {
            return finding(Grade::Fail, PART, format!("Lease {key} does not exist: no operator leads"));
        }
        Ok(Some(lease)) => lease.spec.clone().unwrap_or_default(),
    };
    let holder = lease.holder_identity.unwrap_or_default();
    let Some(renewed) = lease.renew_time.map(|time| time.0).filter(|_| !holder.is_empty()) else {
        return finding(Grade::Fail, PART, format!("nothing holds Lease {key}: no operator leads"));
    };
    let duration = lease.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    let ago = seconds_between(renewed, now);
    // The clock of this machine may differ a little.
    if ago > 2 * duration.unwrap_or(USUAL_LEASE_SECONDS) {
        return finding(
            Grade::Fail,
            PART,
            format!("{holder} has not renewed Lease {key} for {ago} s: no operator leads"),
        );
    }
    finding(Grade::Ok, PART, format!("{holder}, by Lease {key}"))
}

fn operator_rights(rights: &[(Right, Result<bool, CallError>)]) -> Option<Finding> {
    const PART: &str = "rights";
    if rights.is_empty() {
        return None; // granted by namespace: the TokenSources say where one is missing
    }
    if let Some((_, Err(error))) = rights.iter().find(|(_, may)| may.is_err()) {
        return Some(unread(PART, "what the operator may do", error));
    }
    let missing = named(rights, false);
    Some(match missing.is_empty() {
        true => finding(Grade::Ok, PART, "the operator may do what it does by default"),
        false => finding(
            Grade::Fail,
            PART,
            format!("the operator may not {}: apply the chart's roles", missing.join("; ")),
        ),
    })
}

fn named(rights: &[(Right, Result<bool, CallError>)], granted: bool) -> Vec<String> {
    rights.iter().filter(|(_, may)| *may == Ok(granted)).map(|(right, _)| right.to_string()).collect()
}

fn policies(seen: &Seen) -> Finding {
    const PART: &str = "policies";
    let (policies, bindings) = match (&seen.policies, &seen.bindings) {
        (Err(error), _) | (_, Err(error)) => return unread(PART, "admission policies", error),
        (Ok(policies), Ok(bindings)) => (policies, bindings),
    };
    let operators = seen.operators.as_deref().unwrap_or_default();
    let lacking = operators.iter().filter_map(|operator| lacks_policy(operator, policies));
    let of_policies = policies.iter().filter_map(|policy| Some((Grade::Fail, problem(policy, bindings)?)));
    let (grades, problems): (Vec<_>, Vec<_>) = of_policies.chain(lacking).unzip();
    match grades.into_iter().max() {
        Some(grade) => finding(grade, PART, problems.join("; ")),
        None if policies.is_empty() => finding(Grade::Warn, PART, no_policy("the operator")),
        None => {
            let names: Vec<_> =
                policies.iter().filter_map(|policy| policy.metadata.name.as_deref()).collect();
            finding(Grade::Ok, PART, format!("in force: {}", names.join(", ")))
        }
    }
}

fn no_policy(operator: &str) -> String {
    format!(
        "no admission policy keeps {operator} from writing other Secrets: install that of the chart (admissionPolicy.enabled)"
    )
}

/// Other policies of the chart, which are about what comes in, do not limit the operator.
fn lacks_policy(operator: &Operator, policies: &[ValidatingAdmissionPolicy]) -> Option<(Grade, String)> {
    let is_its =
        |policy: &ValidatingAdmissionPolicy| account_of_policy(policy).as_ref() == Some(&operator.account);
    if policies.iter().any(is_its) {
        return None;
    }
    let said = no_policy(&Key::of(&operator.deployment.metadata).to_string());
    Some(match flag(&operator.deployment, "service-account-tokens-allowed").is_empty() {
        true => (Grade::Warn, said),
        // The right to create them comes with the policy, or not at all.
        false => (Grade::Fail, format!("{said}, without which it may create tokens of any ServiceAccount")),
    })
}

fn problem(
    policy: &ValidatingAdmissionPolicy,
    bindings: &[ValidatingAdmissionPolicyBinding],
) -> Option<String> {
    let name = policy.metadata.name.as_deref().unwrap_or_default();
    let binding = bindings
        .iter()
        .filter_map(|binding| binding.spec.as_ref())
        .find(|binding| binding.policy_name.as_deref() == Some(name));
    let Some(binding) = binding else { return Some(format!("{name} has no binding, so it has no effect")) };
    let denies = binding.validation_actions.iter().flatten().any(|action| action == "Deny");
    if !denies {
        return Some(format!("the binding of {name} does not deny"));
    }
    let checking = policy.status.as_ref().and_then(|status| status.type_checking.as_ref());
    let warning = checking.and_then(|checking| checking.expression_warnings.as_ref()?.first())?;
    Some(format!("{name} has an expression that the API server cannot check: {}", warning.warning))
}

fn own_rights(seen: &Seen) -> Finding {
    const PART: &str = "you";
    if let Some((_, Err(error))) = seen.own.iter().find(|(_, may)| may.is_err()) {
        return unread(PART, "what you may do", error);
    }
    let (may, may_not) = (named(&seen.own, true), named(&seen.own, false));
    let list = |rights: Vec<String>| if rights.is_empty() { "nothing".to_owned() } else { rights.join("; ") };
    let message = match may_not.is_empty() {
        true => format!("may {}", list(may)),
        false => format!("may {}, and not {}", list(may), list(may_not)),
    };
    finding(Grade::Ok, PART, message)
}

#[cfg(test)]
mod tests;
