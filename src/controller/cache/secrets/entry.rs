//! What is known of one Secret, and which TokenSources use it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::sync::Arc;

use token_endpoint::RequestIdentity;

use crate::key::Key;
use crate::restorations;
use crate::secret::{Facts, Version};

/// A Secret as the cache knows it.
#[derive(Clone, Debug, PartialEq)]
pub enum CachedSecret {
    /// It has not been listed or read yet.
    Unknown,
    /// It does not exist.
    Absent,
    /// It exists.
    Present(Arc<Facts>),
}

impl CachedSecret {
    /// Its metadata, where it exists as far as is known.
    #[must_use]
    pub fn present(self) -> Option<Arc<Facts>> {
        self.observed().flatten()
    }

    /// Its metadata where it exists, once that is known.
    #[must_use]
    pub fn observed(self) -> Option<Option<Arc<Facts>>> {
        match self {
            CachedSecret::Unknown => None,
            CachedSecret::Absent => Some(None),
            CachedSecret::Present(facts) => Some(Some(facts)),
        }
    }
}

#[derive(Debug)]
pub(super) struct SecretEntry {
    /// The names of the TokenSources that use it, first those whose target it is.
    pub(super) users: Vec<Arc<str>>,
    /// The number of those.
    pub(super) writers: u32,
    pub(super) known: CachedSecret,
    /// The newest revision that was seen. Anything older is stale.
    pub(super) revision: u64,
    /// The list during or after which the call was sent, or the watch event came, that last showed it; or during or after
    /// which it was first referenced.
    pub(super) epoch: u64,
    /// The list during or after which that call was answered.
    pub(super) answered_epoch: u64,
    /// How often it was shown.
    pub(super) changes: u32,
    /// The identity of the last token request with the credentials in it.
    pub(super) request: Option<Box<KnownRequest>>,
}

/// The identity of a token request with this version of the credentials, for this provider.
#[derive(Debug)]
pub(super) struct KnownRequest {
    pub(super) version: Version,
    pub(super) provider: String,
    pub(super) identity: RequestIdentity,
}

/// The resourceVersion as a number.
pub(super) fn revision(facts: &Facts) -> u64 {
    restorations::comparable(Some(&facts.version.resource_version))
}

impl SecretEntry {
    /// Nothing is known yet. It is first referenced during or after the list `epoch`.
    pub(super) fn unread(epoch: u64) -> Self {
        SecretEntry {
            users: Vec::with_capacity(1),
            writers: 0,
            known: CachedSecret::Unknown,
            revision: 0,
            epoch,
            answered_epoch: epoch,
            changes: 0,
            request: None,
        }
    }

    pub(super) fn present(&mut self, facts: Facts) {
        self.revision = revision(&facts);
        self.shows(CachedSecret::Present(Arc::new(facts)));
    }

    pub(super) fn add(&mut self, user: Arc<str>, writes: bool) {
        let at = if writes { 0 } else { self.users.len() };
        self.users.insert(at, user);
        self.writers += u32::from(writes);
    }

    pub(super) fn remove(&mut self, user: &Arc<str>) {
        let (mut at, mut writers) = (0, self.writers);
        self.users.retain(|it| {
            let stays = it != user;
            if !stays && at < self.writers {
                writers -= 1;
            }
            at += 1;
            stays
        });
        self.writers = writers;
    }

    pub(super) fn absent(&mut self) {
        self.shows(CachedSecret::Absent);
    }

    pub(super) fn unknown(&mut self) {
        self.shows(CachedSecret::Unknown);
    }

    fn shows(&mut self, known: CachedSecret) {
        self.known = known;
        self.changes = self.changes.wrapping_add(1);
    }

    pub(super) fn writers_count(&self) -> usize {
        usize::try_from(self.writers).unwrap_or(usize::MAX)
    }

    pub(super) fn users_of(&self, secret: &Key) -> Vec<Key> {
        self.users.iter().map(|user| secret.sibling(Arc::clone(user))).collect()
    }
}
