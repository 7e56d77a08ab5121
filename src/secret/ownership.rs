#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! Whose Secret is whose.

use super::facts::Facts;
use super::record::Owner;

/// What a Secret under the target's name is to a TokenSource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Ours to write.
    Ours,
    /// Somebody else's, who hands it over.
    Offered,
    /// It belongs to a TokenSource of the same name that is gone, and awaits garbage collection.
    Predecessors,
    /// Somebody else's: hands off.
    Foreign {
        /// Whose, in words for a condition's message.
        whose: String,
        /// It could be handed over.
        adoptable: bool,
    },
}

/// A target is ours if its record names this TokenSource and, where it has a controller, that is our uid; it is
/// offered if the annotation of whoever may write it says so, and nobody else controls it.
///
/// A Secret that lost its record but has us for its controller is ours too; one that was retained has no
/// controller, and a TokenSource of the same name takes it up again.
#[must_use]
pub fn ownership(secret: &Facts, source: &Owner) -> Ownership {
    let foreign = |whose, adoptable| Ownership::Foreign { whose, adoptable };
    if let Some(controller) = &secret.controller {
        return if controller.uid == source.uid {
            Ownership::Ours
        } else if controller.kind == "TokenSource" && controller.name == source.name {
            Ownership::Predecessors
        } else {
            foreign(format!("it belongs to {} {}", controller.kind, controller.name), false)
        };
    }
    if let Some(other) = &secret.refresh_token_of {
        // It may be the only copy.
        return foreign(format!("it keeps the refresh token of TokenSource {other}"), false);
    }
    match &secret.record {
        Some(record) if record.owner.name == source.name => Ownership::Ours,
        _ if secret.offered_to.as_deref() == Some(&source.name) => Ownership::Offered,
        Some(record) => foreign(format!("it belongs to TokenSource {}", record.owner.name), true),
        None => foreign("this operator did not create it".into(), true),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::facts::{Controller, KeySet};
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
                remarks: vec![],
            };
            let inputs = Inputs { provider: String::new(), credentials: version.clone() };
            Arc::new(Record::new(Owner { name: name.into(), uid: "old".into() }, inputs, None, minted, None))
        });
        Facts {
            version,
            terminating: false,
            controller: controller.map(|(kind, name, uid)| Controller {
                kind: kind.into(),
                name: name.into(),
                uid: uid.into(),
            }),
            record,
            labelled: true,
            lent: false,
            refresh_token_of: None,
            offered_to: None,
            other_writer: None,
            owned_keys: KeySet::default(),
        }
    }

    #[test]
    fn whose_secret_is_whose() {
        let foreign = |words: &str, adoptable| Ownership::Foreign { whose: words.into(), adoptable };
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
    fn a_secret_is_handed_over_unless_somebody_else_holds_it() {
        let me = Owner { name: "me".into(), uid: "uid".into() };
        let offered = |record, controller, to: &str| {
            ownership(&Facts { offered_to: Some(to.into()), ..secret(record, controller) }, &me)
        };
        assert_eq!(offered(None, None, "me"), Ownership::Offered);
        assert_eq!(offered(Some("you"), None, "me"), Ownership::Offered);
        assert_eq!(offered(Some("me"), None, "you"), Ownership::Ours, "the record counts, once there is one");
        assert!(matches!(offered(None, None, "you"), Ownership::Foreign { adoptable: true, .. }));
        let held = offered(None, Some(("ExternalSecret", "e", "x")), "me");
        assert!(matches!(held, Ownership::Foreign { adoptable: false, .. }));
        let mut kept = secret(None, None);
        kept.offered_to = Some("me".into());
        kept.refresh_token_of = Some("you".into());
        assert!(matches!(ownership(&kept, &me), Ownership::Foreign { adoptable: false, .. }));
    }
}
