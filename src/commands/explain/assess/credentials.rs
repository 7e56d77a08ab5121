//! What the token request sends: client credentials, the ServiceAccount's token, the refresh token.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use tokensource_api::AUDIENCES_ANNOTATION;

use super::Assessment;
use crate::commands::explain::cluster::Found;
use crate::commands::explain::report::{Finding, Level};
use crate::commands::explain::service_account::ServiceAccountFacts;
use crate::digest::sha256;
use crate::key::Key;
use crate::providers::{CredentialsError, ServiceAccountUse, read_credentials};
use crate::secret::{Facts, STORED_REFRESH_TOKEN_KEY, not_released};
use crate::text::{shell_word, shown};

/// The data key of the digest of the original from which a stored refresh token descends.
const ORIGINAL_DIGEST_KEY: &str = "seed_sha256";

impl Assessment<'_> {
    /// The name of the credentials Secret; empty where there is none.
    pub(super) fn credentials_name(&self) -> &str {
        self.source.spec.credentials.secret_ref.as_ref().map_or("", |secret| &secret.name)
    }

    pub(super) fn credentials(&mut self, found: &Found) -> Option<Finding> {
        if let Some(facts) = &found.service_account {
            return Some(self.service_account(facts));
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
                let name = self.credentials_name();
                let facts = secret.and_then(|secret| Facts::of(&secret.metadata));
                if self.operator.needs_label && facts.is_some_and(|facts| !facts.released) {
                    let namespace = self.source.metadata.namespace.as_deref().unwrap_or_default();
                    Finding::new(Level::Attention, not_released(&Key::new(namespace, name)))
                } else {
                    Finding::new(Level::Well, format!("Secret {name} has what is needed{remarks}"))
                }
            }
            Err(error) => Finding::new(Level::Attention, error.to_string()),
        })
    }

    /// What the issuer must have been told of the ServiceAccount's tokens, and whether it consents to them.
    fn service_account(&mut self, facts: &ServiceAccountFacts) -> Finding {
        let issuer = match &facts.issuer {
            Ok(issuer) => issuer.clone(),
            Err(error) => {
                self.unknown(error, "the claim iss of the ServiceAccount's tokens is not known");
                "not known".to_owned()
            }
        };
        let namespace = self.source.metadata.namespace.as_deref().unwrap_or_default();
        let (name, subject) = (&facts.name, ServiceAccountUse::subject_of(namespace, &facts.name));
        let told = |audience: &str, lifetime: &str| {
            format!(
                "tokens of ServiceAccount {name}: subject {subject}, audience {audience}, issuer {issuer}{lifetime}"
            )
        };
        let (audience, told) = match &facts.used {
            Ok(used) => {
                (&used.audience, told(&used.audience, &format!(", valid for {} min", used.expiration / 60)))
            }
            Err(error) => {
                self.unknown(error, "whether the ServiceAccount consents to its audience is not known");
                let consent = facts.consent.as_ref().ok().map(|consent| consent.as_deref().unwrap_or("none"));
                let listed = consent
                    .map(|listed| format!("; its annotation {AUDIENCES_ANNOTATION} lists {}", shown(listed)));
                let told = told("that of the ClusterTokenIssuer", "");
                return Finding::new(Level::Well, format!("{told}{}", listed.unwrap_or_default()));
            }
        };
        let lists = |consent: &str| consent.split(',').any(|consented| consented.trim() == audience);
        match &facts.consent {
            Ok(consent) if consent.as_deref().is_some_and(lists) => Finding::new(Level::Well, told),
            Ok(_) => Finding::new(
                Level::Attention,
                format!(
                    "{told}; but its annotation {AUDIENCES_ANNOTATION} does not list this audience: kubectl annotate serviceaccount {name} -n {namespace} {AUDIENCES_ANNOTATION}={}",
                    shell_word(audience)
                ),
            ),
            Err(error) => {
                self.unknown(error, "whether the ServiceAccount consents is not known");
                Finding::new(Level::Well, told)
            }
        }
    }

    /// Where the refresh token is kept that is sent next.
    pub(super) fn refresh_token(&mut self, found: &Found) -> Option<Finding> {
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
        let owner = facts.as_ref().and_then(|facts| facts.rare().refresh_token_of.as_deref());
        if owner != self.source.metadata.name.as_deref() {
            return Some(Finding::new(
                Level::Attention,
                format!(
                    "Secret {name} is not the operator's, so a refresh token that comes back could not be saved and none is sent: rename the Secret or the TokenSource"
                ),
            ));
        }
        if facts.is_some_and(|facts| facts.rare().refresh_token_sent.is_some()) {
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
}
