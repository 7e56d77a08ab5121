//! A TokenSource turned into what the steps of a reconcile need, once and for all: what cannot be wrong any more.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use secrecy::SecretString;

use crate::digest::{provider_digest, short_digest};
use crate::key::Key;
use crate::providers::{Description, SpecError, describe, parse_seconds};
use crate::refresh::{PROMPT_DELAY, Policy, Tried, Wanted};
use crate::secret::{
    Minted, Owner, REFRESH_REQUEST_ANNOTATION, Record, Token, Version, template_digest, template_keys,
};
use crate::time::plus;
use token_endpoint::{Answer, Credentials, Grant};
use tokensource_api::{DeletionPolicy, Propagation, TokenSource, TokenSourceSpec};

/// The host of a TokenSource whose spec names none that can be read.
pub const NO_HOST: &str = "unknown";

/// The longest refresh request that is kept as it is, in bytes: it goes into the record.
const LONGEST_REQUEST: usize = 64;
/// How long a token is taken to live where neither the answer nor the token nor the spec says, in seconds.
const ASSUMED_LIFETIME: u64 = 15 * 60;
/// The longest scope that is kept, in bytes.
const LONGEST_SCOPE: usize = 1024;

/// What a TokenSource asks for.
#[derive(Debug)]
pub struct Resolved {
    /// What is asked of which endpoint.
    pub description: Description,
    /// When to refresh.
    pub policy: Policy,
    /// Pods are told of new tokens.
    pub prompt: bool,
    /// How long a mounted file may lag behind the Secret where pods cannot be told, in seconds.
    unprompted_delay: u64,
    /// How long a token lives where nobody says, in seconds.
    pub default_lifetime: Option<u64>,
    /// `spec.tls` as text: a failed attempt is made again when it changes, but no token is given up for it.
    pub tls: Option<String>,
    /// What the target should be.
    pub wanted: Wanted,
}

/// Who a TokenSource is, and the Secrets that it names.
#[derive(Debug)]
pub struct Identity {
    /// Its namespace and name.
    pub key: Key,
    /// Its name and uid.
    pub owner: Owner,
    /// The target.
    pub target: Key,
    /// The credentials.
    pub credentials: Key,
    /// Where a rotating refresh token is kept.
    pub refresh_token: Key,
}

impl Identity {
    /// The identity of the TokenSource of this key; `None` for an object without uid, which no API server sends.
    #[must_use]
    pub fn of(source: &TokenSource, key: &Key) -> Option<Self> {
        Some(Identity {
            key: key.clone(),
            owner: Owner { name: key.name.to_string(), uid: source.metadata.uid.clone()? },
            target: key.sibling(source.target_name()),
            credentials: key.sibling(source.spec.credentials.secret_ref.name.as_str()),
            refresh_token: key.sibling(source.refresh_token_secret_name()),
        })
    }

    /// The names of the Secrets whose changes matter to this spec, the target's first.
    #[must_use]
    pub fn secret_names(&self, spec: &TokenSourceSpec) -> Arc<[Arc<str>]> {
        let rotates =
            describe(spec).is_ok_and(|description| description.request.grant == Grant::RefreshToken);
        let kept = rotates.then_some(&self.refresh_token);
        [&self.target, &self.credentials].into_iter().chain(kept).map(|key| Arc::clone(&key.name)).collect()
    }
}

impl Resolved {
    /// Resolves a spec; `propagation_delay` (seconds) holds where the spec names none.
    ///
    /// # Errors
    /// See [`describe`]; and a duration that is none.
    pub fn of(source: &TokenSource, propagation_delay: u64) -> Result<Self, SpecError> {
        let spec = &source.spec;
        let description = describe(spec)?;
        let refresh = spec.refresh.clone().unwrap_or_default();
        let target = spec.target.as_ref();
        let prompt = target.and_then(|target| target.propagation) == Some(Propagation::Prompt);
        let said_delay = seconds("spec.refresh.propagationDelay", refresh.propagation_delay.as_deref())?;
        let policy = Policy {
            before: seconds("spec.refresh.before", refresh.before.as_deref())?,
            max_interval: seconds("spec.refresh.maxInterval", refresh.max_interval.as_deref())?
                .unwrap_or(description.max_interval),
            propagation_delay: said_delay.unwrap_or(if prompt { PROMPT_DELAY } else { propagation_delay }),
        };
        let annotations = source.metadata.annotations.as_ref();
        let template = target.and_then(|target| target.template.as_ref());
        let deletion_policy = target.and_then(|target| target.deletion_policy).unwrap_or_default();
        Ok(Resolved {
            policy,
            prompt,
            unprompted_delay: said_delay.unwrap_or(propagation_delay),
            default_lifetime: seconds("spec.refresh.defaultLifetime", refresh.default_lifetime.as_deref())?,
            tls: spec.tls.as_ref().map(|tls| serde_json::to_string(tls).unwrap_or_default()),
            wanted: Wanted {
                provider: provider_digest(spec),
                refresh_request: annotations
                    .and_then(|all| all.get(REFRESH_REQUEST_ANNOTATION))
                    .map(|value| bounded(value)),
                template: template_digest(template),
                keys: template_keys(template),
                owner_reference: deletion_policy == DeletionPolicy::Delete,
            },
            description,
        })
    }

    /// The host of the token endpoint, or of the issuer by which it is found.
    #[must_use]
    pub fn host(&self) -> &str {
        self.description.request.token_url.host_str().unwrap_or(NO_HOST)
    }

    /// Counts on the kubelet's own pace, because pods cannot be told.
    pub fn leave_pods_to_the_kubelet(&mut self) {
        self.policy.propagation_delay = self.unprompted_delay;
    }

    /// Whether a refresh token is what is sent.
    #[must_use]
    pub fn sends_refresh_token(&self) -> bool {
        self.description.request.grant == Grant::RefreshToken
    }

    /// What the record of the token in `answer` says, for a request that was sent at `sent_at` with `credentials`.
    #[must_use]
    pub fn minted(&self, answer: &Answer, credentials: &Credentials, sent_at: Timestamp) -> Minted {
        let mut remarks = vec![];
        let lifetime = answer.lifetime(sent_at, self.default_lifetime).seconds.unwrap_or_else(|| {
            remarks.push(format!("neither the answer nor the token says how long it lives, so {ASSUMED_LIFETIME} s are assumed: set spec.refresh.defaultLifetime"));
            ASSUMED_LIFETIME
        });
        if answer.token_type_missing {
            remarks.push("the answer has no token_type, so Bearer is assumed".into());
        }
        // It goes into an annotation and into status, which have bounds.
        let fits = |scope: &String| scope.len() <= LONGEST_SCOPE && !credentials.are_told_in(scope);
        Minted {
            issued_at: sent_at,
            expires_at: plus(sent_at, lifetime),
            token_id: answer.token_id(),
            token_type: answer.token_type.clone(),
            scope: answer.scope.clone().filter(fits),
            remarks,
        }
    }

    /// What a template is rendered with, for the token of this record.
    #[must_use]
    pub fn token<'a>(
        &self,
        record: &'a Record,
        access_token: &'a SecretString,
        values: &'a BTreeMap<String, SecretString>,
    ) -> Token<'a> {
        // RFC 6749, 5.1: an answer that does not say grants what was asked for.
        let asked_for = || self.description.request.scopes.join(" ").into();
        Token {
            access_token,
            token_type: &record.token_type,
            issued_at: record.issued_at,
            expires_at: record.expires_at,
            scope: record.scope.as_deref().map_or_else(asked_for, Cow::from),
            values,
        }
    }

    /// What an attempt would be made with.
    #[must_use]
    pub fn tried(&self, credentials: Option<&Version>) -> Tried {
        let further = [self.tls.as_deref(), self.wanted.template.as_deref()];
        let spec: Vec<&str> =
            [self.wanted.provider.as_str()].into_iter().chain(further.into_iter().flatten()).collect();
        let none = || "none".to_owned();
        let request = self.wanted.refresh_request.as_deref();
        Tried {
            spec: short_digest(&spec),
            request: request.map_or_else(none, |request| short_digest(&[request])),
            credentials: credentials
                .map_or_else(none, |version| short_digest(&[&version.uid, &version.resource_version])),
        }
    }
}

/// A refresh request as it is recorded: any other value is another one.
fn bounded(request: &str) -> String {
    if request.len() <= LONGEST_REQUEST { request.to_owned() } else { short_digest(&[request]) }
}

fn seconds(field: &'static str, value: Option<&str>) -> Result<Option<u64>, SpecError> {
    value.map(|value| parse_seconds(field, value)).transpose()
}
