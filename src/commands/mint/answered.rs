//! What a usable answer means, told with the operator's own code.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};

use super::outline::{self, Member, Shown};
use super::report::{Answered, Report, Schedule, Target};
use crate::secret::{Inputs, Minted, Owner, Record, Template, TemplateError, Version};
use crate::spec::Resolved;
use crate::status::{Reported, Situation, status};
use crate::time::seconds_between;
use token_endpoint::{Answer, Credentials, Lifetime, LifetimeSource};
use tokensource_api::TokenSource;

/// A request that was answered.
#[derive(Clone, Copy)]
pub(super) struct Sent {
    pub(super) at: Timestamp,
    pub(super) took: Duration,
    /// Secrets are shown.
    pub(super) show: bool,
}

/// Writes down what a usable answer means.
pub(super) fn tell(
    report: &mut Report,
    source: &TokenSource,
    resolved: &Resolved,
    credentials: &Credentials,
    answer: &Answer,
    sent: Sent,
) -> Record {
    let at = Timestamp::from_second(sent.at.as_second()).unwrap_or(sent.at);
    let lifetime = answer.lifetime(at, resolved.default_lifetime);
    let minted = resolved.minted(answer, credentials, at);
    let text = |text: &str| match credentials.are_told_in(text) {
        true => Shown::secret(text, sent.show),
        false => Shown::Plain(text.to_owned()),
    };
    let token = answer.access_token.expose_secret();
    report.answer = Some(Answered {
        milliseconds: u64::try_from(sent.took.as_millis()).unwrap_or(u64::MAX),
        access_token: Shown::secret(token, sent.show),
        form: if token.starts_with("eyJ") && token.split('.').count() == 3 { "JWT" } else { "opaque" },
        token_id: minted.token_id.clone(),
        token_type: text(&answer.token_type),
        scope: answer.scope.as_deref().map(text),
        refresh_token: answer
            .refresh_token
            .as_ref()
            .map(|token| Shown::secret(token.expose_secret(), sent.show)),
        values: answer
            .values
            .iter()
            .map(|(name, value)| Member::new(name, Shown::secret(value.expose_secret(), sent.show)))
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
        report
            .remarks
            .push("this is the token that the target holds already: the issuer caches tokens".to_owned());
    }
    schedule(report, source, resolved, minted)
}

/// Why a token is taken to live that long.
fn because(answer: &Answer, lifetime: Lifetime) -> String {
    let said = answer.expires_in.filter(|seconds| *seconds > 0);
    match (lifetime.source, said) {
        (LifetimeSource::Answer, Some(said)) if Some(said) == lifetime.seconds => {
            "the answer says so (expires_in)".to_owned()
        }
        (LifetimeSource::Answer, _) => "the answer says so, as a time".to_owned(),
        (LifetimeSource::Token, Some(said)) => {
            format!("the token, a JWT, says so (exp), which is less than the {said} s of the answer")
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

/// When the operator would ask again, and what it would say, made with its own code.
fn schedule(report: &mut Report, source: &TokenSource, resolved: &Resolved, minted: Minted) -> Record {
    let owner = Owner {
        name: source.metadata.name.clone().unwrap_or_default(),
        uid: source.metadata.uid.clone().unwrap_or_default(),
    };
    let nobody = Version { uid: String::new(), resource_version: String::new() };
    let inputs = Inputs { provider: resolved.wanted.provider.clone(), credentials: nobody };
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
        told: None,
        before: &Reported::default(),
    };
    report.schedule = Some(Schedule {
        issued_at: at,
        expires_at: record.expires_at,
        refresh_after_seconds: resolved.policy.refresh_after(lifetime),
        refresh_at,
        conditions: status(&situation).conditions.into_iter().map(Into::into).collect(),
    });
    record
}

/// What the target would hold. Where secrets are not to be shown, it is rendered with their lengths in their place.
pub(super) fn target(
    source: &TokenSource,
    resolved: &Resolved,
    template: &Template<'_>,
    (record, answer): (&Record, &Answer),
    show: bool,
) -> Result<Target, TemplateError> {
    let hidden = |secret: &SecretString| Shown::secret(secret.expose_secret(), false).to_string().into();
    let rendered = template.render(&resolved.token(record, &answer.access_token, &answer.values))?;
    let values = answer.values.iter().map(|(name, value)| (name.clone(), hidden(value))).collect();
    let access_token = hidden(&answer.access_token);
    let outlined = resolved.token(record, &access_token, &values);
    Ok(Target {
        name: source.target_name().to_owned(),
        kind: rendered.kind.clone(),
        data: outline::target(&rendered, template.render(&outlined).ok().as_ref(), show),
    })
}
