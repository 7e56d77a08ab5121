//! Reports a usable token response: its members, and what the operator would do with it, computed by the operator's code.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};

use super::redacted::{self, Member};
use super::report::{MintReport, ResponseReport, SchedulePreview, TargetPreview};
use crate::commands::redacted::RedactedValue;
use crate::secret::{Inputs, Minted, Owner, Record, Template, TemplateError, Version};
use crate::spec::Resolved;
use crate::status::{Reported, Situation, status};
use crate::time::seconds_between;
use token_endpoint::{Answer, Credentials, Lifetime, LifetimeSource};
use tokensource_api::TokenSource;

/// A request that was answered.
#[derive(Clone, Copy)]
pub(super) struct Exchange {
    /// In whole seconds.
    pub(super) sent_at: Timestamp,
    pub(super) took: Duration,
    pub(super) show_secrets: bool,
}

/// Adds a usable response to the report. Returns the record that the operator would write.
pub(super) fn report_response(
    report: &mut MintReport,
    source: &TokenSource,
    resolved: &Resolved,
    credentials: &Credentials,
    answer: &Answer,
    exchange: Exchange,
) -> Record {
    let show = exchange.show_secrets;
    let at = exchange.sent_at;
    let lifetime = answer.lifetime(at, resolved.default_lifetime);
    let minted = resolved.minted(answer, credentials, at);
    let text = |text: &str| match credentials.are_told_in(text) {
        true => RedactedValue::secret(text, show),
        false => RedactedValue::Plain(text.to_owned()),
    };
    let token = answer.access_token.expose_secret();
    report.answer = Some(ResponseReport {
        milliseconds: u64::try_from(exchange.took.as_millis()).unwrap_or(u64::MAX),
        access_token: RedactedValue::secret(token, show),
        form: if answer.is_jwt() { "JWT" } else { "opaque" },
        token_id: minted.token_id.clone(),
        token_type: text(&answer.token_type),
        scope: answer.scope.as_deref().map(text),
        refresh_token: answer
            .refresh_token
            .as_ref()
            .map(|token| RedactedValue::secret(token.expose_secret(), show)),
        values: answer
            .values
            .iter()
            .map(|(name, value)| Member::new(name, RedactedValue::secret(value.expose_secret(), show)))
            .collect(),
        lifetime_seconds: seconds_between(minted.issued_at, minted.expires_at),
        lifetime_source: match lifetime.source {
            LifetimeSource::Answer => "answer",
            LifetimeSource::Token => "token",
            LifetimeSource::Default => "default",
            LifetimeSource::Unknown => "assumed",
        },
        lifetime_because: because(answer, lifetime),
    });
    let held = source.status.as_ref().and_then(|status| status.token.as_ref());
    if held.is_some_and(|held| held.id == minted.token_id) {
        report.remarks.push(
            match minted.lifetime_is_assumed {
                true => "this is the token that the target holds already",
                false => "this is the token that the target holds already: the issuer caches tokens",
            }
            .to_owned(),
        );
    }
    schedule(report, source, resolved, minted)
}

/// Where the lifetime of a token is from.
fn because(answer: &Answer, lifetime: Lifetime) -> String {
    let expires_in = answer.expires_in.filter(|seconds| *seconds > 0);
    match (lifetime.source, expires_in) {
        (LifetimeSource::Answer, Some(expires_in)) if Some(expires_in) == lifetime.seconds => {
            "the answer says so (expires_in)".to_owned()
        }
        (LifetimeSource::Answer, _) => "the answer says so, as a time".to_owned(),
        (LifetimeSource::Token, Some(expires_in)) => {
            format!("the token, a JWT, says so (exp), which is less than the {expires_in} s of the answer")
        }
        (LifetimeSource::Token, None) => "the token, a JWT, says so (exp)".to_owned(),
        (LifetimeSource::Default, _) => {
            "neither the answer nor the token says; spec.refresh.defaultLifetime does".to_owned()
        }
        (LifetimeSource::Unknown, _) => {
            "neither the answer nor the token says, so that this is assumed: set spec.refresh.defaultLifetime"
                .to_owned()
        }
    }
}

/// Adds when the operator would request the next token, and the conditions that it would report.
fn schedule(report: &mut MintReport, source: &TokenSource, resolved: &Resolved, minted: Minted) -> Record {
    let owner = Owner {
        name: source.metadata.name.as_deref().unwrap_or_default().into(),
        uid: source.metadata.uid.as_deref().unwrap_or_default().into(),
    };
    let credentials = Version::of_nothing();
    let inputs = Inputs { provider: resolved.wanted.provider.clone(), credentials };
    let record = Record::new(owner, inputs, None, minted, None);
    let (at, lifetime) = (record.issued_at, record.lifetime());
    let refresh_at = resolved.policy.refresh_at(&record.owner.uid, at, lifetime);
    let situation = Situation {
        now: at,
        generation: source.metadata.generation.unwrap_or_default(),
        provider: Some(resolved.description.provider),
        target: source.target_name(),
        token: Some((&record, refresh_at)),
        fits_spec: true,
        suspended: source.spec.suspend == Some(true),
        problem: None,
        remark: None,
        last_failure: None,
        policy: resolved.policy,
        prompt: resolved.prompt,
        propagation: None,
        before: &Reported::default(),
    };
    report.schedule = Some(SchedulePreview {
        issued_at: at,
        expires_at: record.expires_at,
        refresh_after_seconds: resolved.policy.refresh_after(lifetime),
        refresh_at,
        conditions: status(&situation).conditions.into_iter().map(Into::into).collect(),
    });
    record
}

/// The content of the target Secret. Unless secrets are shown, it is rendered with their lengths in their place.
pub(super) fn target_preview(
    source: &TokenSource,
    resolved: &Resolved,
    template: &Template<'_>,
    (record, answer): (&Record, &Answer),
    show: bool,
) -> Result<TargetPreview, TemplateError> {
    let redact =
        |secret: &SecretString| RedactedValue::secret(secret.expose_secret(), false).to_string().into();
    let rendered = template.render(&resolved.token(record, &answer.access_token, &answer.values))?;
    let values = answer.values.iter().map(|(name, value)| (name.clone(), redact(value))).collect();
    let access_token = redact(&answer.access_token);
    let redacted_token = resolved.token(record, &access_token, &values);
    Ok(TargetPreview {
        name: source.target_name().to_owned(),
        kind: rendered.kind.clone(),
        data: redacted::target_data(&rendered, template.render(&redacted_token).ok().as_ref(), show),
    })
}
