//! The target Secret, by the checks of the operator itself.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use k8s_openapi::api::core::v1::Secret;
use tokensource_api::TokenStatus;

use super::Assessment;
use crate::commands::explain::cluster::Found;
use crate::commands::explain::report::{Finding, Level};
use crate::commands::readers::HeldToken;
use crate::refresh::{MintReason, Observed, needed};
use crate::secret::{Facts, Owner, Ownership, Record, Version, ownership};
use crate::text::shown;

impl Assessment<'_> {
    /// The target Secret, and the token where the Secret belongs to this TokenSource.
    pub(super) fn target(&self, found: &Found, secret: &str, facts: &Facts) -> (Finding, Option<HeldToken>) {
        let metadata = &self.source.metadata;
        let me = Owner {
            name: metadata.name.as_deref().unwrap_or_default().into(),
            uid: metadata.uid.as_deref().unwrap_or_default().into(),
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
            id: record.token_id.to_string(),
            issued_at: reported.map_or(record.issued_at, |it| it.issued_at.min(record.issued_at)),
            expires_at: reported.map_or(record.expires_at, |it| it.expires_at.min(record.expires_at)),
        };
        (self.own_target(found, &me, facts, record), Some(token))
    }

    /// What status says of the token that the record names.
    fn reported(&self, record: &Record) -> Option<&TokenStatus> {
        self.status.token.as_ref().filter(|reported| *reported.id == *record.token_id)
    }

    /// The same where an issuer lends what its record would be compared with: the operator has done that.
    fn lent_target(&self, secret: &str, issuer: &str) -> Finding {
        let conditions = &self.status.conditions;
        let is_ready = conditions.iter().any(|it| it.type_ == "Ready" && it.status == "True");
        let (level, said) = match is_ready {
            true => (Level::Well, "for the present spec, as status says"),
            false => (Level::NotValid, "and status does not say that it is for the present spec"),
        };
        Finding::new(
            level,
            format!("{secret} holds a token through ClusterTokenIssuer {}, {said}", shown(issuer)),
        )
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
            if let Some(issuer) = &self.source.spec.issuer_ref {
                return self.lent_target(secret, &issuer.name);
            }
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
                let writer = facts.rare().other_writer.as_deref().map(|writer| format!(" ({writer})"));
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
}

fn version_of(secret: &Secret) -> Version {
    let metadata = &secret.metadata;
    Version {
        uid: metadata.uid.as_deref().unwrap_or_default().into(),
        resource_version: metadata.resource_version.as_deref().unwrap_or_default().into(),
    }
}
