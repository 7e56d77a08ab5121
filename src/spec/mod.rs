//! Resolves a TokenSource: validates the spec once and derives what reconciliation, token request and commands need.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod issuer;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use secrecy::SecretString;

use crate::digest::{provider_digest, short_digest};
use crate::key::Key;
use crate::providers::{Description, describe, needs_only_assertions, parse_seconds};
use crate::refresh::{PROMPT_DELAY, Policy, Tried, Wanted};
use crate::secret::{
    Minted, Owner, REFRESH_REQUEST_ANNOTATION, Record, Token, Version, template_digest, template_keys,
};
use crate::time::plus;
use token_endpoint::{Answer, Credentials, Grant, Lifetime, LifetimeSource};
use tokensource_api::permitted::{HELM_NAME_PREFIX, is_permitted_name};
use tokensource_api::{DeletionPolicy, Propagation, TokenSource, TokenSourceSpec, oversize};

pub use crate::providers::SpecError;
pub use issuer::{Blame, Issuer, IssuerError, is_of_endpoint, is_of_issuer, other_host};

/// The host in metrics and logs for a TokenSource whose spec has no valid one.
pub const NO_HOST: &str = "unknown";

/// The most bytes of a refresh request in the record; a longer one is replaced by its digest.
const MAX_REFRESH_REQUEST_BYTES: usize = 64;
/// The lifetime in seconds where response, token and spec state none.
const ASSUMED_LIFETIME: u64 = 15 * 60;

/// A validated spec.
#[derive(Debug)]
pub struct Resolved {
    /// The token request.
    pub description: Description,
    /// The refresh schedule.
    pub policy: Policy,
    /// Whether pods are annotated after a new token (`spec.target.propagation`).
    pub prompt: bool,
    /// The propagation delay where pods cannot be annotated, in seconds.
    unprompted_delay: u64,
    /// `spec.refresh.defaultLifetime`, in seconds.
    pub default_lifetime: Option<u64>,
    /// Nothing of a credentials Secret is needed but assertions that another program renews, or there is none.
    pub needs_only_assertions: bool,
    /// `spec.tls` as JSON. A change of it causes another attempt after a failure, but does not invalidate a token.
    pub tls: Option<String>,
    /// The desired state of the target.
    pub wanted: Wanted,
    /// The issuer that has lent provider, credentials and TLS.
    pub issuer: Option<Arc<Issuer>>,
}

/// The identity of a TokenSource, and the Secrets that it uses.
#[derive(Debug)]
pub struct Identity {
    /// Namespace and name.
    pub key: Key,
    /// Name and uid, as in the record.
    pub owner: Owner,
    /// The target Secret.
    pub target: Key,
    /// The credentials Secret, if there is one.
    pub credentials: Option<Key>,
    /// The namespace of that and of what `spec.tls` names, where an issuer lends them: the operator's own.
    pub lender: Option<Arc<str>>,
    /// The Secret in which a rotating refresh token is stored.
    pub refresh_token: Key,
}

impl Identity {
    /// The identity of `source`, whose key is `key`; `None` for an object without uid, which no API server sends.
    #[must_use]
    pub fn of(source: &TokenSource, key: &Key) -> Option<Self> {
        let target = source.target_name();
        Some(Identity {
            key: key.clone(),
            owner: Owner { name: (*key.name).into(), uid: source.metadata.uid.as_deref()?.into() },
            // Most have the same name: then the strings are shared.
            target: if *target == *key.name { key.clone() } else { key.sibling(target) },
            credentials: source.spec.credentials.secret_ref.as_ref().map(|it| key.sibling(it.name.as_str())),
            lender: None,
            refresh_token: key.sibling(source.refresh_token_secret_name()),
        })
    }

    /// The namespace of the credentials, and of what `spec.tls` names.
    #[must_use]
    pub fn material_namespace(&self) -> &Arc<str> {
        self.lender.as_ref().unwrap_or(&self.key.namespace)
    }

    /// The names of the Secrets whose changes trigger a reconciliation, the target first.
    #[must_use]
    pub fn secret_names(&self, spec: &TokenSourceSpec) -> Arc<[Arc<str>]> {
        let rotates =
            describe(spec).is_ok_and(|description| description.request.grant == Grant::RefreshToken);
        let stored = rotates.then_some(&self.refresh_token);
        let all = [Some(&self.target), self.credentials.as_ref(), stored].into_iter().flatten();
        all.map(|key| Arc::clone(&key.name)).collect()
    }
}

impl Resolved {
    /// Resolves a spec; `propagation_delay` (seconds) applies where the spec has none.
    ///
    /// # Errors
    /// As [`describe`], and for an invalid duration.
    pub fn of(source: &TokenSource, propagation_delay: u64) -> Result<Self, SpecError> {
        let spec = &source.spec;
        check_names(source)?;
        oversize(spec).map_or(Ok(()), |oversize| Err(SpecError::TooLarge(oversize)))?;
        let description = describe(spec)?;
        let refresh = spec.refresh.clone().unwrap_or_default();
        let target = spec.target.as_ref();
        let prompt = target.and_then(|target| target.propagation) == Some(Propagation::Prompt);
        let spec_delay = seconds("spec.refresh.propagationDelay", refresh.propagation_delay.as_deref())?;
        let policy = Policy {
            before: seconds("spec.refresh.before", refresh.before.as_deref())?,
            max_interval: seconds("spec.refresh.maxInterval", refresh.max_interval.as_deref())?
                .unwrap_or(description.max_interval),
            propagation_delay: spec_delay.unwrap_or(if prompt { PROMPT_DELAY } else { propagation_delay }),
            min_interval: 0,
        };
        let annotations = source.metadata.annotations.as_ref();
        let template = target.and_then(|target| target.template.as_ref());
        let deletion_policy = target.and_then(|target| target.deletion_policy).unwrap_or_default();
        Ok(Resolved {
            policy,
            prompt,
            unprompted_delay: spec_delay.unwrap_or(propagation_delay),
            default_lifetime: seconds("spec.refresh.defaultLifetime", refresh.default_lifetime.as_deref())?,
            needs_only_assertions: description.service_account.is_some()
                || needs_only_assertions(&spec.credentials, &description),
            tls: spec.tls.as_ref().map(|tls| serde_json::to_string(tls).unwrap_or_default()),
            wanted: Wanted {
                provider: provider_digest(spec).into(),
                refresh_request: annotations
                    .and_then(|all| all.get(REFRESH_REQUEST_ANNOTATION))
                    .map(|value| bounded_request(value).into()),
                template: template_digest(template).map(String::into_boxed_str),
                keys: template_keys(template),
                owner_reference: deletion_policy == DeletionPolicy::Delete,
            },
            description,
            issuer: None,
        })
    }

    /// The issuer lends what the request needs, and bounds how often it is made.
    pub fn set_issuer(&mut self, issuer: Arc<Issuer>) {
        self.policy.min_interval = issuer.min_refresh_interval();
        self.wanted.provider = issuer.digest(&self.wanted.provider).into();
        self.issuer = Some(issuer);
    }

    /// The host of the token endpoint, or of the issuer whose metadata names it.
    #[must_use]
    pub fn host(&self) -> &str {
        self.description.request.token_url.host_str().unwrap_or(NO_HOST)
    }

    /// Uses the delay of the kubelet's periodic sync, because pods cannot be annotated.
    pub fn use_unprompted_delay(&mut self) {
        self.policy.propagation_delay = self.unprompted_delay;
    }

    /// Whether the grant is `refresh_token`.
    #[must_use]
    pub fn sends_refresh_token(&self) -> bool {
        self.description.request.grant == Grant::RefreshToken
    }

    /// The version of the credentials Secret on which a token depends: of a Secret with nothing but assertions, which change
    /// every few minutes, and of no Secret, on none. Of an issuer's Secret, digests.
    #[must_use]
    pub fn credentials_version(&self, version: &Version) -> Version {
        match &self.issuer {
            _ if self.needs_only_assertions => Version::of_nothing(),
            Some(issuer) => issuer.version(version),
            None => version.clone(),
        }
    }

    /// The members of the record that follow from the response to a request sent at `sent_at` with `credentials`.
    #[must_use]
    pub fn minted(&self, answer: &Answer, credentials: &Credentials, sent_at: Timestamp) -> Minted {
        let mut remarks = vec![];
        let Lifetime { seconds, source } = answer.lifetime(sent_at, self.default_lifetime);
        let lifetime = seconds.unwrap_or_else(|| {
            remarks.push(format!("neither the answer nor the token says how long it lives, so {ASSUMED_LIFETIME} s are assumed: set spec.refresh.defaultLifetime"));
            ASSUMED_LIFETIME
        });
        if answer.token_type_missing {
            remarks.push("the answer has no token_type that can be told, so Bearer is assumed".into());
        }
        // The scope is written into the record and the status: it must contain no credential, sent or not.
        let is_reportable = |scope: &String| !credentials.are_told_in(scope);
        Minted {
            issued_at: sent_at,
            expires_at: plus(sent_at, lifetime),
            token_id: answer.token_id(),
            token_type: answer.token_type.clone(),
            scope: answer.scope.clone().filter(is_reportable),
            lifetime_is_assumed: matches!(source, LifetimeSource::Default | LifetimeSource::Unknown),
            is_jwt: answer.is_jwt(),
            remarks,
        }
    }

    /// The variables of a template, for the token of this record.
    #[must_use]
    pub fn token<'a>(
        &self,
        record: &'a Record,
        access_token: &'a SecretString,
        values: &'a BTreeMap<String, SecretString>,
    ) -> Token<'a> {
        // RFC 6749, section 5.1: a response without a scope grants the requested one.
        let requested = || self.description.request.scopes.join(" ").into();
        Token {
            access_token,
            token_type: &record.token_type,
            issued_at: record.issued_at,
            expires_at: record.expires_at,
            scope: record.scope.as_deref().map_or_else(requested, Cow::from),
            values,
        }
    }

    /// Digests of everything that a token request depends on. `credentials` is a [version](Self::credentials_version).
    #[must_use]
    pub fn tried(&self, credentials: Option<&Version>) -> Tried {
        let bounds = self.issuer.as_ref().map(|issuer| issuer.bounds());
        let further = [self.tls.as_deref(), self.wanted.template.as_deref(), bounds.as_deref()];
        let spec: Vec<&str> =
            [&*self.wanted.provider].into_iter().chain(further.into_iter().flatten()).collect();
        let none = || "none".to_owned();
        let request = self.wanted.refresh_request.as_deref();
        Tried {
            spec: short_digest(&spec),
            request: request.map_or_else(none, |request| short_digest(&[request])),
            credentials: credentials.map_or_else(none, |version| {
                short_digest(&[&version.uid.to_string(), &version.resource_version])
            }),
        }
    }
}

/// Refuses names that belong to Helm, of the target and of the Secret with the refresh token. The API server applies the same
/// rule; the operator repeats it because an older CustomResourceDefinition may be installed.
fn check_names(source: &TokenSource) -> Result<(), SpecError> {
    let own = source.metadata.name.as_deref().unwrap_or_default();
    for (field, name) in [("metadata.name", own), ("spec.target.name", source.target_name())] {
        if !is_permitted_name(name) {
            let problem =
                format!("names that begin with {HELM_NAME_PREFIX} belong to Helm; write another one");
            return Err(SpecError::Invalid { field, problem });
        }
    }
    Ok(())
}

/// A refresh request as it is recorded: the value, or its digest where it is too long.
fn bounded_request(request: &str) -> String {
    if request.len() <= MAX_REFRESH_REQUEST_BYTES { request.to_owned() } else { short_digest(&[request]) }
}

fn seconds(field: &'static str, value: Option<&str>) -> Result<Option<u64>, SpecError> {
    value.map(|value| parse_seconds(field, value)).transpose()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tried(client_authentication: serde_json::Value, resource_version: &str) -> Tried {
        let source = serde_json::from_value(json!({
            "apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource", "metadata": {"name": "source"},
            "spec": {
                "provider": {"oauth2": {
                    "tokenURL": "https://idp.example.com/t", "clientAuthentication": client_authentication,
                }},
                "credentials": {"secretRef": {"name": "svid"}, "clientID": "id"},
            },
        }));
        let version = Version { uid: "u".into(), resource_version: resource_version.into() };
        let resolved = Resolved::of(&source.unwrap(), 90).unwrap();
        resolved.tried(Some(&resolved.credentials_version(&version)))
    }

    /// A TokenSource with what an issuer has lent, but without its name.
    fn lent() -> Resolved {
        let source: TokenSource = serde_json::from_value(json!({
            "apiVersion": "tokensource.dev/v1alpha1", "kind": "TokenSource", "metadata": {"name": "source"},
            "spec": {"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "platform"}}},
        }))
        .unwrap();
        Resolved::of(&source, 90).unwrap()
    }

    /// Records and statuses have them, which the tenants read.
    #[test]
    fn digests_of_what_an_issuer_lends_cannot_be_computed_without_its_uid() {
        let version = Version { uid: "u".into(), resource_version: "7".into() };
        let seen = |uid: Option<&str>| {
            let mut resolved = lent();
            if let Some(uid) = uid {
                let (name, uid) = ("idp".into(), uid.to_owned());
                resolved.set_issuer(Arc::new(Issuer { name, uid, generation: 1, spec: None }));
            }
            let version = resolved.credentials_version(&version);
            let Tried { spec, credentials, .. } = resolved.tried(Some(&version));
            let wanted = [resolved.wanted.provider, version.resource_version].map(String::from);
            [&wanted[..], &[spec, credentials, version.uid.to_string()]].concat()
        };
        let (guessed, one, two) = (seen(None), seen(Some("one")), seen(Some("two")));
        for (at, digest) in one.iter().enumerate() {
            assert!(*digest != guessed[at] && *digest != two[at], "{at}");
        }
        assert_eq!(one, seen(Some("one")), "the same in every process");
    }

    /// A token that was not written, or an endpoint that was not asked, because of them is tried again at once.
    #[test]
    fn tried_depends_on_the_bounds_that_an_issuer_sets_to_tokens_and_endpoints() {
        let tried = |namespace: &str, scope: &str, addresses: &str| {
            let spec = serde_json::from_value(json!({
                "provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "platform"}},
                "namespaces": {"names": [namespace]}, "allow": {"scopes": [scope]},
                "endpoint": {"addresses": addresses},
            }));
            let mut resolved = lent();
            let (name, uid, spec) = ("idp".into(), "u".to_owned(), Some(spec.unwrap()));
            resolved.set_issuer(Arc::new(Issuer { name, uid, generation: 1, spec }));
            resolved.tried(None).spec
        };
        let before = tried("a", "read", "Public");
        assert_eq!(before, tried("b", "read", "Public"));
        assert!(before != tried("a", "write", "Public") && before != tried("a", "read", "Private"));
    }

    #[test]
    fn tried_of_a_secret_with_assertions_alone_does_not_depend_on_its_version() {
        let made = || json!({"assertion": {"from": "secretKey"}});
        assert_eq!(tried(made(), "1"), tried(made(), "2"), "a renewed assertion resets no wait");
        let post = || json!({"post": {}});
        assert_ne!(tried(post(), "1"), tried(post(), "2"));
    }
}
