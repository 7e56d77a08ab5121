#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! The controller of a Secret.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::record::Record;
use crate::uid::Uid;

/// `kind` in the ownerReference of a target.
pub(super) const SOURCE_KIND: &str = "TokenSource";

/// The most characters of the name of an object.
const MAX_NAME_CHARS: usize = 253;

/// The controller of a Secret, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlledBy {
    /// The TokenSource that the record names, as for nearly all targets.
    Recorded,
    /// Another object, or that of a Secret without a record: kind, name and uid.
    Other(Box<(Box<str>, Box<str>, Uid)>),
}

/// The controller of a Secret, from its ownerReferences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Controller<'a> {
    /// `kind` of the reference.
    pub kind: &'a str,
    /// `name` of the reference.
    pub name: &'a str,
    /// `uid` of the reference.
    pub uid: &'a Uid,
}

impl ControlledBy {
    /// What is stored of an ownerReference, beside the record.
    pub(super) fn of(owner: OwnerReference, record: Option<&Record>) -> Self {
        let uid = name(owner.uid).into();
        let is_recorded = owner.kind == SOURCE_KIND
            && record.is_some_and(|record| *record.owner.name == *owner.name && record.owner.uid == uid);
        if is_recorded {
            return ControlledBy::Recorded;
        }
        ControlledBy::Other(Box::new((name(owner.kind).into(), name(owner.name).into(), uid)))
    }

    /// The controller of a Secret with this record.
    pub(super) fn named<'a>(&'a self, record: Option<&'a Record>) -> Option<Controller<'a>> {
        let (kind, name, uid) = match self {
            ControlledBy::Recorded => {
                let owner = &record?.owner;
                (SOURCE_KIND, &*owner.name, &owner.uid)
            }
            ControlledBy::Other(other) => (&*other.0, &*other.1, &other.2),
        };
        Some(Controller { kind, name, uid })
    }
}

/// What should be a name, stored up to one character more than a name has: then it is that of no object.
pub(super) fn name(text: String) -> String {
    if text.len() <= MAX_NAME_CHARS { text } else { text.chars().take(MAX_NAME_CHARS + 1).collect() }
}
