#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! Whether a TokenSource owns a Secret.

use super::controller::SOURCE_KIND;
use super::facts::Facts;
use super::record::Owner;
use crate::text::shown;

/// Who owns the Secret under the target's name, from the point of view of a TokenSource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// This TokenSource.
    Ours,
    /// Another owner, who hands it over by an annotation.
    Offered,
    /// A deleted TokenSource of the same name; the Secret awaits garbage collection.
    Predecessors,
    /// Another owner. It must not be written.
    Foreign {
        /// The owner, as text for a condition's message.
        whose: String,
        /// Whether the owner could hand it over.
        adoptable: bool,
    },
}

/// Decides who owns a Secret. The controller in its ownerReferences decides, where it has one: it is ours if the uid is
/// ours, with or without a record. Without a controller it is ours if the record names this TokenSource, so that a
/// retained Secret is used again by a TokenSource of the same name; it is offered if the adoption annotation names this
/// TokenSource.
#[must_use]
pub fn ownership(secret: &Facts, source: &Owner) -> Ownership {
    let foreign = |whose, adoptable| Ownership::Foreign { whose, adoptable };
    if let Some(controller) = secret.controller() {
        return if *controller.uid == source.uid {
            Ownership::Ours
        } else if controller.kind == SOURCE_KIND && *controller.name == *source.name {
            Ownership::Predecessors
        } else {
            foreign(format!("it belongs to {} {}", shown(controller.kind), shown(controller.name)), false)
        };
    }
    if let Some(other) = &secret.rare().refresh_token_of {
        // It may be the only copy of the refresh token.
        return foreign(format!("it keeps the refresh token of TokenSource {}", shown(other)), false);
    }
    match &secret.record {
        Some(record) if record.owner.name == source.name => Ownership::Ours,
        _ if secret.rare().offered_to.as_deref() == Some(&source.name) => Ownership::Offered,
        Some(record) => foreign(format!("it belongs to TokenSource {}", shown(&record.owner.name)), true),
        None => foreign("this operator did not create it".into(), true),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::controller::ControlledBy;
    use super::super::facts::RareFacts;
    use super::super::record::Version;
    use super::super::record::{Inputs, Minted, Record};
    use super::*;

    fn secret(record_of: Option<&str>, controller: Option<(&str, &str, &str)>) -> Facts {
        let version = Version { uid: "s".into(), resource_version: "1".into() };
        let record = record_of.map(|name| {
            let minted = Minted {
                issued_at: jiff::Timestamp::UNIX_EPOCH,
                expires_at: jiff::Timestamp::UNIX_EPOCH,
                token_id: String::new(),
                token_type: String::new(),
                scope: None,
                lifetime_is_assumed: false,
                is_jwt: false,
                remarks: vec![],
            };
            let inputs = Inputs { provider: Box::default(), credentials: version.clone() };
            Arc::new(Record::new(Owner { name: name.into(), uid: "old".into() }, inputs, None, minted, None))
        });
        Facts {
            controlled_by: controller.map(|(kind, name, uid)| {
                ControlledBy::Other(Box::new((kind.into(), name.into(), uid.into())))
            }),
            record,
            ..Facts::labelled(version)
        }
    }

    #[test]
    fn ownership_follows_controller_then_record() {
        let foreign = |whose: &str, adoptable| Ownership::Foreign { whose: whose.into(), adoptable };
        for (record, controller, expected) in [
            (Some("me"), Some(("TokenSource", "me", "uid")), Ownership::Ours),
            (None, Some(("TokenSource", "me", "uid")), Ownership::Ours),
            (Some("me"), None, Ownership::Ours),
            (Some("me"), Some(("TokenSource", "me", "old")), Ownership::Predecessors),
            (Some("me"), Some(("Deployment", "me", "old")), foreign("it belongs to Deployment me", false)),
            (Some("you"), None, foreign("it belongs to TokenSource you", true)),
            (Some("you"), Some(("TokenSource", "you", "y")), foreign("it belongs to TokenSource you", false)),
            (None, None, foreign("this operator did not create it", true)),
        ] {
            let me = Owner { name: "me".into(), uid: "uid".into() };
            assert_eq!(ownership(&secret(record, controller), &me), expected, "{record:?} {controller:?}");
        }
    }

    #[test]
    fn ownership_of_an_offered_secret_is_foreign_where_another_owner_needs_it() {
        let me = Owner { name: "me".into(), uid: "uid".into() };
        let offered = |record, controller, to: &str| {
            let rare = RareFacts { offered_to: Some(to.into()), ..RareFacts::default() };
            ownership(&Facts { rare: Some(Box::new(rare)), ..secret(record, controller) }, &me)
        };
        assert_eq!(offered(None, None, "me"), Ownership::Offered);
        assert_eq!(offered(Some("you"), None, "me"), Ownership::Offered);
        assert_eq!(offered(Some("me"), None, "you"), Ownership::Ours, "the record counts, once there is one");
        assert!(matches!(offered(None, None, "you"), Ownership::Foreign { adoptable: true, .. }));
        let controlled = offered(None, Some(("ExternalSecret", "e", "x")), "me");
        assert!(matches!(controlled, Ownership::Foreign { adoptable: false, .. }));
        let rare = RareFacts {
            offered_to: Some("me".into()),
            refresh_token_of: Some("you".into()),
            ..RareFacts::default()
        };
        let refresh_token = Facts { rare: Some(Box::new(rare)), ..secret(None, None) };
        assert!(matches!(ownership(&refresh_token, &me), Ownership::Foreign { adoptable: false, .. }));
    }
}
