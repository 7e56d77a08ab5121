//! Assesses what was read: findings with their severity. Pure.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::cluster::{Found, ReadError, ServiceAccountFacts};
use super::report::{ExplainReport, Finding, LastFailureReport, Level, SecretReader, span, when};
use crate::commands::output::ConditionReport;
use crate::commands::readers::{HeldToken, Reads};
use crate::digest::sha256;
use crate::providers::{CredentialsError, read_credentials};
use crate::refresh::{MintReason, Observed, needed};
use crate::secret::{
    Facts, Owner, Ownership, Pod, Record, STORED_REFRESH_TOKEN_KEY, Use, UseKind, Version, ownership,
    template_key_names,
};
use crate::spec::Resolved;
use crate::text::{shell_word, shown, shown_message};
use crate::time::seconds_between;
use tokensource_api::{AUDIENCES_ANNOTATION, Reason, TokenSource, TokenSourceStatus, TokenStatus};

/// A refresh or an attempt that is overdue by more than this is a finding, in seconds.
const MAX_DELAY: u64 = 120;
/// The data key of the digest of the original from which a stored refresh token descends.
const ORIGINAL_DIGEST_KEY: &str = "seed_sha256";

struct Assessment<'a> {
    now: Timestamp,
    source: &'a TokenSource,
    status: TokenSourceStatus,
    /// `None` where the spec is invalid.
    resolved: Option<Resolved>,
    /// SHA-256 of the refresh token in the credentials.
    original: Option<String>,
    report: ExplainReport,
}

/// Assesses what was read; `propagation_delay` (seconds) applies where the spec has none.
pub(super) fn assess(
    now: Timestamp,
    namespace: &str,
    found: &Found,
    propagation_delay: u64,
) -> ExplainReport {
    let source = &found.source;
    let resolved = Resolved::of(source, propagation_delay);
    let name = source.metadata.name.as_deref().unwrap_or_default();
    let mut assessment = Assessment {
        now,
        source,
        status: source.status.clone().unwrap_or_default(),
        report: ExplainReport { source: format!("{namespace}/{name}"), ..ExplainReport::default() },
        resolved: None,
        original: None,
    };
    let invalid = match resolved {
        Ok(resolved) => {
            assessment.report.provider = Some(resolved.description.provider);
            assessment.resolved = Some(resolved);
            None
        }
        Err(error) => Some(Finding::new(Level::NotValid, error.to_string())),
    };
    let token = assessment.token(found);
    let next = assessment.next(token.as_ref(), found);
    assessment.report.next = invalid.unwrap_or(next);
    assessment.report.credentials = assessment.credentials(found);
    assessment.report.refresh_token = assessment.refresh_token(found);
    assessment.failure_and_conditions();
    assessment.readers(found, token.as_ref());
    assessment.report.verdict = assessment.verdict();
    assessment.report
}

impl Assessment<'_> {
    fn unknown(&mut self, error: &ReadError, consequence: &str) {
        self.report.not_known.push(format!("{}, so {consequence}", shown_message(&error.to_string())));
    }

    /// The token and the Secret that holds it. The record on the Secret is authoritative, not the status; only where another
    /// clock wrote the record, status may know better how old the token is.
    fn token(&mut self, found: &Found) -> Option<HeldToken> {
        let secret = self.source.target_name().to_owned();
        let reported = self.status.token.as_ref().map(|token| HeldToken {
            id: token.id.clone(),
            issued_at: token.issued_at,
            expires_at: token.expires_at,
        });
        let (target, token) = match &found.target {
            Ok(Some(facts)) => self.target(found, &secret, facts),
            Ok(None) => (Finding::new(Level::NotValid, format!("{secret} does not exist")), None),
            Err(error) => {
                self.unknown(error, "what status says of the token is taken for true");
                (Finding::new(Level::Well, format!("{secret}, as status says")), reported)
            }
        };
        self.report.target = target;
        self.report.token = match &token {
            None => Finding::new(Level::NotValid, "none"),
            Some(token) if token.expires_at <= self.now => {
                let ended = when(self.now, token.expires_at);
                Finding::new(Level::NotValid, format!("{} has ended, at {ended}", token.id))
            }
            Some(token) => {
                let (until, since) = (when(self.now, token.expires_at), when(self.now, token.issued_at));
                Finding::new(Level::Well, format!("{} is valid until {until}, issued {since}", token.id))
            }
        };
        token
    }

    /// The target Secret, and the token where the Secret belongs to this TokenSource.
    fn target(&self, found: &Found, secret: &str, facts: &Facts) -> (Finding, Option<HeldToken>) {
        let metadata = &self.source.metadata;
        let me = Owner {
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
        };
        let not_valid = |text: String| Finding::new(Level::NotValid, format!("{secret} {text}"));
        if let Some(part) = facts.too_large {
            let text =
                format!("has a {} that is too large to be read, so it is not known whose it is", part.path());
            return (not_valid(text), None);
        }
        match ownership(facts, &me) {
            Ownership::Foreign { whose, .. } => {
                return (not_valid(format!("is not this TokenSource's: {whose}")), None);
            }
            Ownership::Predecessors => {
                return (
                    not_valid(
                        "belongs to a TokenSource of this name that is gone, and will be collected".into(),
                    ),
                    None,
                );
            }
            Ownership::Offered => {
                return (not_valid("is handed over to it, and holds no token of its yet".into()), None);
            }
            Ownership::Ours => {}
        }
        let Some(record) = facts.record.as_deref() else {
            return (
                not_valid(
                    "has lost the operator's record, or another version of the operator wrote it, so a new token will be asked for"
                        .into(),
                ),
                None,
            );
        };
        let reported = self.reported(record);
        let token = HeldToken {
            id: record.token_id.clone(),
            issued_at: reported.map_or(record.issued_at, |it| it.issued_at.min(record.issued_at)),
            expires_at: reported.map_or(record.expires_at, |it| it.expires_at.min(record.expires_at)),
        };
        (self.own_target(found, &me, facts, record), Some(token))
    }

    /// What status says of the token that the record names.
    fn reported(&self, record: &Record) -> Option<&TokenStatus> {
        self.status.token.as_ref().filter(|reported| reported.id == record.token_id)
    }

    /// A target Secret with a record of this TokenSource: whether it is unchanged and for the present spec, by the checks of
    /// the operator itself.
    fn own_target(&self, found: &Found, me: &Owner, facts: &Facts, record: &Record) -> Finding {
        let secret = self.source.target_name();
        let not_valid = |text: String| Finding::new(Level::NotValid, format!("{secret} {text}"));
        if facts.terminating {
            return not_valid("is being deleted".into());
        }
        let Some(resolved) = &self.resolved else {
            let text = format!("{secret} holds a token, but the spec is invalid, so it cannot be for that");
            return Finding::new(Level::NotValid, text);
        };
        let credentials = found.credentials.as_ref().ok().and_then(Option::as_ref).map(version_of);
        let credentials = match resolved.description.service_account {
            Some(_) => Some(Version::of_nothing()),
            None => credentials.map(|version| resolved.credentials_version(&version)),
        };
        let observed = Observed {
            target: Some(facts),
            credentials: credentials.as_ref(),
            ..Observed::nothing(me, &resolved.wanted, resolved.policy)
        };
        match needed(self.now, &observed) {
            Some(MintReason::TemplateChanged) => {
                return not_valid(
                    "is written with an earlier spec.target.template; the operator writes it with the present one together with a new token"
                        .into(),
                );
            }
            Some(MintReason::TargetChanged) if record.is_of_another_version() => {
                return not_valid("was written by another version of the operator, with other keys".into());
            }
            Some(MintReason::TargetChanged) => {
                let writer = facts.other_writer.as_deref().map(|writer| format!(" ({writer})"));
                return not_valid(format!(
                    "does not hold it as it was written: another writer{} changed or removed a key",
                    writer.unwrap_or_default()
                ));
            }
            Some(MintReason::SpecChanged) => {
                return not_valid("holds a token that was requested for an earlier spec".into());
            }
            Some(MintReason::CredentialsChanged) => {
                let credentials = self.credentials_name();
                return Finding::new(
                    Level::Attention,
                    format!(
                        "{secret} holds a token of an earlier version of Secret {credentials}: if its values have changed, the operator asks for a new token"
                    ),
                );
            }
            _ => {}
        }
        match self.reported(record) {
            Some(_) => {
                Finding::new(Level::Well, format!("{secret} holds it as it was written, and status agrees"))
            }
            None if self.status.token.as_ref().is_some_and(|it| it.issued_at > record.issued_at) => {
                Finding::new(
                    Level::Attention,
                    format!(
                        "{secret} holds an earlier token than status names: it was put back, for example from a backup"
                    ),
                )
            }
            None => {
                let reported = self.status.token.as_ref().map_or("no token", |token| &token.id);
                Finding::new(
                    Level::Attention,
                    format!(
                        "{secret} holds it as it was written, but status names {reported}: it was not reported yet"
                    ),
                )
            }
        }
    }

    /// What the operator does next.
    fn next(&self, token: Option<&HeldToken>, found: &Found) -> Finding {
        let (now, metadata) = (self.now, &self.source.metadata);
        let attention = |text: String| Finding::new(Level::Attention, text);
        let is_late = |at: Timestamp| seconds_between(at, now) > MAX_DELAY;
        if metadata.deletion_timestamp.is_some() {
            return attention("nothing: the TokenSource is being deleted".into());
        }
        match (self.status.observed_generation.filter(|seen| *seen >= 0), metadata.generation) {
            (None, _) => {
                return attention(
                    "no operator has reconciled it: check that one runs, and that it watches this namespace"
                        .into(),
                );
            }
            (Some(seen), Some(present)) if seen < present => {
                return attention(format!(
                    "the operator has not reconciled the present spec (generation {present}) yet, only generation {seen}"
                ));
            }
            _ => {}
        }
        if self.source.spec.suspend == Some(true) {
            return attention("nothing: spec.suspend is true".into());
        }
        if let Some(failure) = self.status.last_failure.as_ref().filter(|failure| failure.count > 0) {
            return attention(match failure.next_attempt_at {
                Some(at) if is_late(at) => {
                    format!(
                        "another attempt has been due since {}: check that the operator runs",
                        when(now, at)
                    )
                }
                Some(at) => format!("another attempt at {}", when(now, at)),
                None => "nothing, before something changes".into(),
            });
        }
        // The operator runs, and says itself why no token follows.
        if self.ready_problem().is_some() {
            return match self.has("Stalled") {
                true => attention("nothing, before something changes".into()),
                false => attention("a new token, once the problem in the conditions is solved".into()),
            };
        }
        let requested =
            self.resolved.as_ref().and_then(|resolved| resolved.wanted.refresh_request.as_deref());
        let fulfilled = match &found.target {
            Ok(Some(facts)) => facts.record.as_deref().and_then(|record| record.refresh_request.as_deref()),
            _ => requested,
        };
        if requested.is_some() && requested != fulfilled {
            return Finding::new(Level::Well, "a new token at once: the annotation asks for it");
        }
        match &self.status.token {
            Some(reported) if is_late(reported.refresh_at) => attention(format!(
                "a new token has been due since {}: check that the operator runs",
                when(now, reported.refresh_at)
            )),
            Some(reported) if token.is_some() => {
                Finding::new(Level::Well, format!("a new token at {}", when(now, reported.refresh_at)))
            }
            _ => Finding::new(Level::Well, "a token at once"),
        }
    }

    /// The reason of the Ready condition, where it is what keeps the operator from asking for a token.
    fn ready_problem(&self) -> Option<&str> {
        let progress = [Reason::TokenValid, Reason::Requesting, Reason::Expired].map(Reason::as_str);
        let ready = self.status.conditions.iter().find(|it| it.type_ == "Ready")?;
        Some(ready.reason.as_str()).filter(|reason| !progress.contains(reason))
    }

    fn has(&self, kind: &str) -> bool {
        self.status.conditions.iter().any(|it| it.type_ == kind && it.status == "True")
    }

    /// The name of the credentials Secret; empty where there is none.
    fn credentials_name(&self) -> &str {
        self.source.spec.credentials.secret_ref.as_ref().map_or("", |secret| &secret.name)
    }

    fn credentials(&mut self, found: &Found) -> Option<Finding> {
        if let Some(facts) = &found.service_account {
            return self.service_account(facts);
        }
        let spec = &self.source.spec.credentials;
        let secret: Option<&Secret> = match &found.credentials {
            Err(error) => {
                self.unknown(error, "whether the credentials are complete is not known");
                return None;
            }
            Ok(secret) => secret.as_ref(),
        };
        let description = &self.resolved.as_ref()?.description;
        let none = BTreeMap::new();
        let read = match secret {
            None => Err(CredentialsError::secret_not_found(spec, description)),
            Some(secret) => {
                let data = secret.data.as_ref().unwrap_or(&none);
                read_credentials(spec, description, secret.type_.as_deref(), data)
            }
        };
        Some(match read {
            Ok(read) => {
                self.original = read.credentials.refresh_token.as_ref().map(sha256);
                let remarks: String = read.remarks.iter().map(|remark| format!("; {remark}")).collect();
                let secret = self.credentials_name();
                Finding::new(Level::Well, format!("Secret {secret} has what is needed{remarks}"))
            }
            Err(error) => Finding::new(Level::Attention, error.to_string()),
        })
    }

    /// What the issuer must have been told of the ServiceAccount's tokens, and whether it consents to them.
    fn service_account(&mut self, facts: &ServiceAccountFacts) -> Option<Finding> {
        let wanted = self.resolved.as_ref()?.description.service_account.clone()?;
        let issuer = match &facts.issuer {
            Ok(issuer) => issuer.clone(),
            Err(error) => {
                self.unknown(error, "the claim iss of the ServiceAccount's tokens is not known");
                "not known".to_owned()
            }
        };
        let namespace = self.source.metadata.namespace.as_deref().unwrap_or_default();
        let (name, audience, minutes) = (&wanted.name, &wanted.audience, wanted.expiration / 60);
        let told = format!(
            "tokens of ServiceAccount {name}: subject {}, audience {audience}, issuer {issuer}, valid for {minutes} min",
            wanted.subject(namespace)
        );
        let lists = |consent: &str| consent.split(',').any(|consented| consented.trim() == audience);
        match &facts.consent {
            Ok(consent) if consent.as_deref().is_some_and(lists) => Some(Finding::new(Level::Well, told)),
            Ok(_) => Some(Finding::new(
                Level::Attention,
                format!(
                    "{told}; but its annotation {AUDIENCES_ANNOTATION} does not list this audience: kubectl annotate serviceaccount {name} -n {namespace} {AUDIENCES_ANNOTATION}={}",
                    shell_word(audience)
                ),
            )),
            Err(error) => {
                self.unknown(error, "whether the ServiceAccount consents is not known");
                Some(Finding::new(Level::Well, told))
            }
        }
    }

    /// Where the refresh token is kept that is sent next.
    fn refresh_token(&mut self, found: &Found) -> Option<Finding> {
        if !self.resolved.as_ref()?.sends_refresh_token() {
            return None;
        }
        let (name, of_credentials) =
            (self.source.refresh_token_secret_name(), self.credentials_name().to_owned());
        let well = |text: String| Some(Finding::new(Level::Well, text));
        let secret = match &found.refresh_token {
            Err(error) => {
                self.unknown(error, "which refresh token is sent next is not known");
                return None;
            }
            Ok(None) => {
                return well(format!(
                    "that of Secret {of_credentials} is sent: no other has come back yet (there is no Secret {name})"
                ));
            }
            Ok(Some(secret)) => secret,
        };
        let facts = Facts::of(&secret.metadata);
        let owner = facts.as_ref().and_then(|facts| facts.refresh_token_of.as_deref());
        if owner != self.source.metadata.name.as_deref() {
            return Some(Finding::new(
                Level::Attention,
                format!(
                    "Secret {name} is not the operator's, so a refresh token that comes back could not be saved and none is sent: rename the Secret or the TokenSource"
                ),
            ));
        }
        if facts.is_some_and(|facts| facts.refresh_token_sent.is_some()) {
            return well(format!(
                "a request with it is under way, or ended without an answer; what comes back is saved in Secret {name}"
            ));
        }
        let value = |key: &str| {
            let value = secret.data.as_ref()?.get(key)?;
            std::str::from_utf8(&value.0).ok()
        };
        let descends = |key: &str| self.original.is_none() || value(key) == self.original.as_deref();
        if value(STORED_REFRESH_TOKEN_KEY).is_some() {
            return well(match descends(ORIGINAL_DIGEST_KEY) {
                true => format!("that of Secret {name} is sent, which came back last"),
                false => format!(
                    "that of Secret {of_credentials} is sent: it is another than the one from which that of Secret {name} descends"
                ),
            });
        }
        well(format!("that of Secret {of_credentials} is sent: the server returns no other"))
    }

    fn failure_and_conditions(&mut self) {
        self.report.last_failure = self.status.last_failure.as_ref().map(|last| LastFailureReport {
            at: last.at,
            ago: span(seconds_between(last.at, self.now)),
            reason: shown(&last.reason).into_owned(),
            message: shown_message(&last.message).into_owned(),
            count: last.count,
            remedy: reason(&last.reason).map(Reason::remedy),
        });
        self.report.conditions = self.status.conditions.iter().map(condition_report).collect();
    }

    fn readers(&mut self, found: &Found, token: Option<&HeldToken>) {
        let secret = self.source.target_name();
        let pods = match found.pods.as_ref() {
            Err(error) => {
                return self.unknown(error, &format!("who uses Secret {secret}, and how, is not known"));
            }
            Ok(pods) => pods,
        };
        let delay = self.propagation_delay();
        let mut readers = vec![];
        let target = self.source.spec.target.as_ref();
        let keys = template_key_names(target.and_then(|target| target.template.as_ref()));
        for pod in pods {
            let missing = pod.missing_item(secret, &keys);
            for used in pod.uses(secret) {
                readers.push(SecretReader {
                    pod: pod.metadata.name.clone(),
                    container: used.container.to_owned(),
                    way: used.way,
                    reads: match missing {
                        Some(key) if used.way != UseKind::Environment => missing_item(key),
                        _ => container_token(self.now, token, delay, pod, used),
                    },
                });
            }
        }
        self.report.readers = Some(readers);
    }

    /// The longest time by which a mounted file lags behind the Secret, in seconds.
    fn propagation_delay(&mut self) -> u64 {
        let failed = self.status.conditions.iter().any(|it| it.reason == Reason::PromptFailed.as_str());
        let Some(resolved) = &mut self.resolved else { return 0 };
        if failed {
            resolved.use_unprompted_delay();
        }
        resolved.policy.propagation_delay
    }

    fn verdict(&self) -> Level {
        let report = &self.report;
        let findings = [&report.token, &report.target, &report.next].into_iter();
        let findings = findings.chain(&report.credentials).chain(&report.refresh_token);
        let readers = report.readers.iter().flatten().map(|reader| &reader.reads);
        let conditions =
            self.status.conditions.iter().map(|it| match (it.type_.as_str(), it.status.as_str()) {
                ("Ready", "False") => Level::NotValid,
                ("PropagationSafe", "False") => Level::Attention,
                _ => Level::Well,
            });
        findings.chain(readers).map(|it| it.level).chain(conditions).max().unwrap_or_default()
    }
}

fn version_of(secret: &Secret) -> Version {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    Version { uid: text(&secret.metadata.uid), resource_version: text(&secret.metadata.resource_version) }
}

fn reason(name: &str) -> Option<Reason> {
    Reason::ALL.into_iter().find(|reason| reason.as_str() == name)
}

fn condition_report(condition: &Condition) -> ConditionReport {
    let is_good = match condition.type_.as_str() {
        "Reconciling" | "Stalled" => true, // Ready has the same remedy.
        _ => condition.status == "True" && condition.reason != Reason::RefreshFailing.as_str(),
    };
    let remedy = if is_good { None } else { reason(&condition.reason).map(Reason::remedy) };
    ConditionReport { remedy, ..condition.clone().into() }
}

fn missing_item(key: &str) -> Finding {
    let text = format!(
        "mounts key {key} by `items`, which spec.target.template does not write: unless another writer adds it, the kubelet updates nothing of the volume, and no new pod with it starts"
    );
    Finding::new(Level::Attention, text)
}

/// Which token a container reads.
fn container_token(
    now: Timestamp,
    token: Option<&HeldToken>,
    delay: u64,
    pod: &Pod,
    used: Use<'_>,
) -> Finding {
    let well = |text: String| Finding::new(Level::Well, text);
    let attention = |text: String| Finding::new(Level::Attention, text);
    let Some(token) = token else {
        return match pod.phase() {
            "Running" => well("no token is known that it could have".into()),
            phase => well(format!("is not running yet ({phase})")),
        };
    };
    match Reads::of(now, token, delay, pod, used) {
        Reads::NotRunning => well(format!("is not running yet ({})", pod.phase())),
        Reads::SinceStart(at) => well(format!("has had this token since its start at {}", when(now, at))),
        Reads::SinceAnnotation(at) => well(format!("was annotated for this token at {}", when(now, at))),
        Reads::Since(at) => well(format!("has had this token since {} at the latest", when(now, at))),
        Reads::From(at) => well(format!("may read the token before it until {}", when(now, at))),
        Reads::FixedAtThis(at) => {
            attention(format!("has this token from its start at {}, and will get no other", when(now, at)))
        }
        Reads::Fixed => attention("has the token from its start, and never another".into()),
        Reads::FixedAtEarlier { started_at, ends_at } => {
            let ended = if ends_at <= now { "has ended by now" } else { "is an earlier one" };
            let lifetime = span(seconds_between(token.issued_at, token.expires_at));
            attention(format!(
                "still has the token from its start at {}, which {ended} (tokens live {lifetime})",
                when(now, started_at)
            ))
        }
    }
}

#[cfg(test)]
mod tests;
