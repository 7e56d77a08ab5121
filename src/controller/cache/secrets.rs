//! The metadata of the Secrets that TokenSources name. No other Secret is cached, and no value.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

use crate::cluster::{CallError, Kubernetes};
use crate::key::Key;
use crate::secret::{Facts, Version};
use token_endpoint::ClientIdentity;

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

/// The Secrets that TokenSources name, kept up to date by watches and by the operator's own writes.
#[derive(Debug)]
pub struct Secrets {
    table: Mutex<SecretTable>,
    /// The number of watches that have not read their first list yet.
    unread: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct SecretTable {
    entries: HashMap<Key, SecretEntry>,
    /// The number of lists that watches have begun.
    epoch: u64,
}

#[derive(Debug)]
struct SecretEntry {
    /// The names of the TokenSources that use it.
    users: Vec<Arc<str>>,
    known: CachedSecret,
    /// The newest revision that was seen. Anything older is stale.
    revision: u64,
    /// The list during or after which it was last observed or first referenced.
    epoch: u64,
    /// The client of the last token request with the credentials in it.
    client: Option<Box<KnownClient>>,
}

/// The client of a token request with this version of the credentials, for this provider.
#[derive(Debug)]
struct KnownClient {
    version: Version,
    provider: String,
    client: ClientIdentity,
}

/// The revision in a resourceVersion: an increasing number in every version of Kubernetes, and documented as one since 1.35.
fn revision(facts: &Facts) -> u64 {
    facts.version.resource_version.parse().unwrap_or(u64::MAX)
}

impl Secrets {
    /// An empty cache that `watches` watches will fill.
    #[must_use]
    pub fn new(watches: usize) -> Self {
        Secrets { table: Mutex::default(), unread: watch::Sender::new(watches) }
    }

    /// Waits until every watch has read its first list.
    pub async fn ready(&self) {
        // The sender lives as long as `self`.
        let _ = self.unread.subscribe().wait_for(|unread| *unread == 0).await;
    }

    /// Whether every watch has read its first list.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.unread.borrow() == 0
    }

    /// Sets which Secrets a TokenSource uses instead of those `before`. Secrets without a user are removed.
    pub fn reference(&self, source: &Key, before: &[Arc<str>], names: &[Arc<str>]) {
        // The common case: this is called for every event.
        if before == names {
            return;
        }
        let table = &mut *self.lock();
        let epoch = table.epoch;
        for name in before.iter().filter(|name| !names.contains(name)) {
            table.release(&source.sibling(Arc::clone(name)), source);
        }
        for name in names.iter().filter(|name| !before.contains(name)) {
            let unknown = || SecretEntry {
                users: Vec::with_capacity(1),
                known: CachedSecret::Unknown,
                revision: 0,
                epoch,
                client: None,
            };
            let secret = table.entries.entry(source.sibling(Arc::clone(name))).or_insert_with(unknown);
            secret.users.push(Arc::clone(&source.name));
        }
    }

    /// When the token in a target expires.
    #[must_use]
    pub fn expiry(&self, target: &Key) -> Option<Timestamp> {
        match &self.lock().entries.get(target)?.known {
            CachedSecret::Present(facts) => facts.record.as_ref().map(|record| record.expires_at),
            _ => None,
        }
    }

    /// A Secret as it was last observed.
    #[must_use]
    pub fn known(&self, secret: &Key) -> CachedSecret {
        self.lock().entries.get(secret).map_or(CachedSecret::Unknown, |entry| entry.known.clone())
    }

    /// Stores the result of a live read or of the operator's own write: it is newer than the events of the watch so far.
    pub fn observe(&self, secret: &Key, facts: Option<Facts>) {
        let table = &mut *self.lock();
        let epoch = table.epoch;
        if let Some(entry) = table.entries.get_mut(secret) {
            match facts {
                Some(facts) => entry.present(facts),
                None => entry.known = CachedSecret::Absent,
            }
            entry.epoch = epoch;
        }
    }

    /// A Secret as it was last observed; reads its metadata if it is unknown.
    ///
    /// # Errors
    /// The read failed.
    pub(crate) async fn known_or_read(
        &self,
        secret: &Key,
        kubernetes: &Kubernetes,
    ) -> Result<CachedSecret, CallError> {
        let known = self.known(secret);
        if known != CachedSecret::Unknown {
            return Ok(known);
        }
        let facts = kubernetes.secret_facts(secret).await?;
        self.observe(secret, facts.clone());
        Ok(facts.map_or(CachedSecret::Absent, |facts| CachedSecret::Present(Arc::new(facts))))
    }

    /// The client of the last token request with this version of the credentials, for the provider with this digest.
    pub(crate) fn client(
        &self,
        credentials: &Key,
        version: &Version,
        provider: &str,
    ) -> Option<ClientIdentity> {
        let table = self.lock();
        let known = table.entries.get(credentials)?.client.as_deref()?;
        (known.version == *version && known.provider == provider).then_some(known.client)
    }

    /// Stores the client of a token request.
    pub(crate) fn remember_client(
        &self,
        credentials: &Key,
        version: &Version,
        provider: &str,
        client: ClientIdentity,
    ) {
        if let Some(entry) = self.lock().entries.get_mut(credentials) {
            let is_known = entry.client.as_deref().is_some_and(|known| {
                known.client == client && known.version == *version && known.provider == provider
            });
            if !is_known {
                let (version, provider) = (version.clone(), provider.to_owned());
                entry.client = Some(Box::new(KnownClient { version, provider, client }));
            }
        }
    }

    /// A watch begins to list. Returns the epoch for [`Self::list_ends`].
    pub fn list_begins(&self) -> u64 {
        let table = &mut *self.lock();
        table.epoch += 1;
        table.epoch
    }

    /// Stores a Secret from a list or a watch. Returns the TokenSources that use it, if it has changed.
    pub fn changed(&self, secret: &Key, facts: Facts) -> Vec<Key> {
        let table = &mut *self.lock();
        let epoch = table.epoch;
        let Some(entry) = table.entries.get_mut(secret) else { return vec![] };
        entry.epoch = epoch;
        // The event of the operator's own write is no change.
        let has_changed = match &entry.known {
            CachedSecret::Present(known) if **known == facts => false,
            _ => revision(&facts) >= entry.revision,
        };
        if !has_changed {
            return vec![];
        }
        entry.present(facts);
        entry.users_of(secret)
    }

    /// Handles the deletion of a Secret. Returns the TokenSources that use it.
    pub fn deleted(&self, secret: &Key, last: &Facts) -> Vec<Key> {
        let table = &mut *self.lock();
        let Some(entry) = table.entries.get_mut(secret) else { return vec![] };
        if revision(last) < entry.revision {
            return vec![];
        }
        entry.revision = revision(last);
        entry.known = CachedSecret::Absent;
        entry.users_of(secret)
    }

    /// The list that began as `epoch` has ended: the Secrets within its `scope` that it did not contain are absent. Returns
    /// the TokenSources that use them.
    pub fn list_ends(&self, epoch: u64, scope: impl Fn(&Key) -> bool) -> Vec<Key> {
        let table = &mut *self.lock();
        let gone = |(secret, entry): (&Key, &mut SecretEntry)| {
            if !scope(secret) || entry.epoch >= epoch || entry.known == CachedSecret::Absent {
                return vec![];
            }
            entry.known = CachedSecret::Absent;
            entry.users_of(secret)
        };
        table.entries.iter_mut().flat_map(gone).collect()
    }

    /// A watch has read its first list.
    pub fn first_list_read(&self) {
        self.unread.send_modify(|unread| *unread = unread.saturating_sub(1));
    }

    fn lock(&self) -> MutexGuard<'_, SecretTable> {
        // Ignores poisoning: no code panics between the steps of a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SecretTable {
    fn release(&mut self, secret: &Key, source: &Key) {
        if let Some(entry) = self.entries.get_mut(secret) {
            entry.users.retain(|user| *user != source.name);
            if entry.users.is_empty() {
                self.entries.remove(secret);
            }
        }
    }
}

impl SecretEntry {
    fn present(&mut self, facts: Facts) {
        self.revision = revision(&facts);
        self.known = CachedSecret::Present(Arc::new(facts));
    }

    fn users_of(&self, secret: &Key) -> Vec<Key> {
        self.users.iter().map(|user| secret.sibling(Arc::clone(user))).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts(revision: u64) -> Facts {
        let metadata = json!({"uid": "u", "resourceVersion": revision.to_string()});
        Facts::of(&serde_json::from_value(metadata).unwrap()).unwrap()
    }

    fn key(name: &str) -> Key {
        Key::new("ns", name)
    }

    fn names<const N: usize>(names: [&str; N]) -> [Arc<str>; N] {
        names.map(Into::into)
    }

    /// A TokenSource `source` with target `t`, listed at revision 10.
    fn secrets() -> Secrets {
        let secrets = Secrets::new(1);
        secrets.reference(&key("source"), &[], &names(["t", "c"]));
        let epoch = secrets.list_begins();
        assert_eq!(secrets.changed(&key("t"), facts(10)), [key("source")]);
        secrets.list_ends(epoch, |_| true);
        secrets
    }

    #[test]
    fn secrets_unreferenced_secret_is_not_cached() {
        let secrets = secrets();
        assert!(secrets.changed(&key("other"), facts(11)).is_empty());
        secrets.observe(&key("other"), Some(facts(11)));
        assert_eq!(secrets.known(&key("other")), CachedSecret::Unknown);
        secrets.reference(&key("source"), &names(["t", "c"]), &[]);
        assert!(secrets.lock().entries.is_empty());
    }

    #[test]
    fn secrets_missing_from_the_list_are_absent_and_later_references_unknown() {
        let secrets = secrets();
        assert_eq!(secrets.known(&key("c")), CachedSecret::Absent);
        secrets.reference(&key("later"), &[], &names(["l", "t"]));
        assert_eq!(secrets.known(&key("l")), CachedSecret::Unknown);
        assert_eq!(secrets.changed(&key("t"), facts(12)).len(), 2);
    }

    #[test]
    fn secrets_events_older_than_our_own_write_are_ignored() {
        let secrets = secrets();
        secrets.observe(&key("t"), Some(facts(20)));
        assert!(secrets.changed(&key("t"), facts(15)).is_empty());
        assert!(secrets.changed(&key("t"), facts(20)).is_empty(), "our own write is no change");
        assert!(secrets.deleted(&key("t"), &facts(15)).is_empty());
        assert_eq!(secrets.known(&key("t")), CachedSecret::Present(Arc::new(facts(20))));
        assert_eq!(secrets.deleted(&key("t"), &facts(21)), [key("source")]);
        assert_eq!(secrets.known(&key("t")), CachedSecret::Absent);
        assert!(secrets.changed(&key("t"), facts(20)).is_empty(), "an event from before the deletion");
    }

    #[test]
    fn secrets_second_list_finds_deletions_during_a_watch_outage() {
        let secrets = secrets();
        let epoch = secrets.list_begins();
        assert_eq!(secrets.list_ends(epoch, |_| false), []);
        assert_eq!(secrets.list_ends(epoch, |_| true), [key("source")]);
        assert_eq!(secrets.known(&key("t")), CachedSecret::Absent);
        let epoch = secrets.list_begins();
        secrets.observe(&key("t"), Some(facts(30)));
        assert_eq!(secrets.list_ends(epoch, |_| true), [], "written by us during the list");
    }

    #[test]
    fn secrets_lists_of_several_namespaces_are_independent() {
        let secrets = Secrets::new(2);
        secrets.reference(&key("source"), &[], &names(["t"]));
        let ours = secrets.list_begins();
        let _ = secrets.changed(&key("t"), facts(10));
        let theirs = secrets.list_begins();
        assert_eq!(secrets.list_ends(ours, |secret| &*secret.namespace == "ns"), []);
        assert_eq!(secrets.list_ends(theirs, |_| false), []);
        assert_eq!(secrets.known(&key("t")), CachedSecret::Present(Arc::new(facts(10))));
    }
}
