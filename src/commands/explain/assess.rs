//! Assesses what was read: findings with their severity. Pure.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod credentials;
mod readers;
mod target;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use tokensource_api::{Reason, TokenSource, TokenSourceStatus};

use super::cluster::Found;
use super::operator_flags::OperatorFlags;
use super::read_error::ReadError;
use super::report::{ExplainReport, Finding, LastFailureReport, Level, span, when};
use crate::commands::output::ConditionReport;
use crate::commands::readers::HeldToken;
use crate::spec::Resolved;
use crate::text::{shown, shown_message};
use crate::time::seconds_between;

/// A refresh or an attempt that is overdue by more than this is a finding, in seconds.
const MAX_DELAY: u64 = 120;

struct Assessment<'a> {
    now: Timestamp,
    operator: OperatorFlags,
    source: &'a TokenSource,
    status: TokenSourceStatus,
    /// `None` where the spec is invalid.
    resolved: Option<Resolved>,
    /// SHA-256 of the refresh token in the credentials.
    original: Option<String>,
    report: ExplainReport,
}

/// Assesses what was read.
pub(super) fn assess(
    now: Timestamp,
    namespace: &str,
    found: &Found,
    operator: OperatorFlags,
) -> ExplainReport {
    let source = &found.source;
    let resolved = Resolved::of(source, operator.propagation_delay);
    let name = source.metadata.name.as_deref().unwrap_or_default();
    let mut assessment = Assessment {
        now,
        operator,
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
        // What the issuer lends is the platform's, and what is wrong with it status says.
        Err(_) if source.spec.issuer_ref.is_some() => {
            assessment.report.provider = Some("issuerRef");
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

    fn failure_and_conditions(&mut self) {
        let has_issuer = self.source.spec.issuer_ref.is_some();
        let remedy = |name: &str| Reason::of(name).map(|reason| reason.remedy_for(has_issuer));
        self.report.last_failure = self.status.last_failure.as_ref().map(|last| LastFailureReport {
            at: last.at,
            ago: span(seconds_between(last.at, self.now)),
            reason: shown(&last.reason).into_owned(),
            message: shown_message(&last.message).into_owned(),
            count: last.count,
            remedy: remedy(&last.reason),
        });
        let conditions = self.status.conditions.iter();
        self.report.conditions = conditions.map(|it| condition_report(it, remedy)).collect();
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

fn condition_report(condition: &Condition, remedy: impl Fn(&str) -> Option<&'static str>) -> ConditionReport {
    let is_good = match condition.type_.as_str() {
        "Reconciling" | "Stalled" => true, // Ready has the same remedy.
        _ => condition.status == "True" && condition.reason != Reason::RefreshFailing.as_str(),
    };
    let remedy = if is_good { None } else { remedy(&condition.reason) };
    ConditionReport { remedy, ..condition.clone().into() }
}

#[cfg(test)]
mod tests;
