#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! Whose Secret is whose.

use super::facts::Facts;
use super::record::Owner;

/// What a Secret under the target's name is to a TokenSource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Ours to write.
    Ours,
    /// It belongs to a TokenSource of the same name that is gone, and awaits garbage collection.
    Predecessors,
    /// Somebody else's: hands off. The words say whose, for a condition's message.
    Foreign(String),
}

/// A target is ours if its record names this TokenSource and, where it has a controller, that is our uid.
///
/// A Secret that lost its record but has us for its controller is ours too; one that was retained has no
/// controller, and a TokenSource of the same name takes it up again.
#[must_use]
pub fn ownership(secret: &Facts, source: &Owner) -> Ownership {
    if let Some(controller) = &secret.controller {
        return if controller.uid == source.uid {
            Ownership::Ours
        } else if controller.kind == "TokenSource" && controller.name == source.name {
            Ownership::Predecessors
        } else {
            Ownership::Foreign(format!("it belongs to {} {}", controller.kind, controller.name))
        };
    }
    match &secret.record {
        Some(record) if record.owner.name == source.name => Ownership::Ours,
        Some(record) => Ownership::Foreign(format!("it belongs to TokenSource {}", record.owner.name)),
        None => Ownership::Foreign("this operator did not create it".into()),
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
            owned_keys: KeySet::default(),
        }
    }

    #[test]
    fn whose_secret_is_whose() {
        let foreign = |words: &str| Ownership::Foreign(words.into());
        for (record, controller, expected) in [
            (Some("me"), Some(("TokenSource", "me", "uid")), Ownership::Ours),
            (None, Some(("TokenSource", "me", "uid")), Ownership::Ours),
            (Some("me"), None, Ownership::Ours),
            (Some("me"), Some(("TokenSource", "me", "old")), Ownership::Predecessors),
            (Some("me"), Some(("Deployment", "me", "old")), foreign("it belongs to Deployment me")),
            (Some("you"), None, foreign("it belongs to TokenSource you")),
            (Some("you"), Some(("TokenSource", "you", "y")), foreign("it belongs to TokenSource you")),
            (None, None, foreign("this operator did not create it")),
        ] {
            let me = Owner { name: "me".into(), uid: "uid".into() };
            assert_eq!(ownership(&secret(record, controller), &me), expected, "{record:?} {controller:?}");
        }
    }
}
