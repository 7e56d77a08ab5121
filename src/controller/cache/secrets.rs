//! The metadata of the Secrets that TokenSources name. No other Secret is cached, and no value.

mod entry;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

use super::by_namespace::ByNamespace;
use super::crowds::{Crowds, Users};
use super::shared_reads::SharedReads;
use crate::cluster::{CallError, Kubernetes};
use crate::key::Key;
use crate::restorations::Restorations;
use crate::secret::{Facts, Version};
use k8s_openapi::api::core::v1::Secret;
use token_endpoint::RequestIdentity;

pub use entry::CachedSecret;
use entry::{KnownRequest, SecretEntry, revision};

/// How often a Secret is read in a row that changes while it is read.
const MAX_READS: usize = 3;

/// The Secrets that TokenSources name, kept up to date by watches and by the operator's own writes.
#[derive(Debug)]
pub struct Secrets {
    table: Mutex<SecretTable>,
    /// The number of watches that have not read their first list yet.
    unread: watch::Sender<usize>,
    restorations: Arc<Restorations>,
    reads: SharedReads<Result<Option<Arc<Secret>>, CallError>>,
    crowds: Crowds,
}

#[derive(Debug, Default)]
struct SecretTable {
    entries: ByNamespace<SecretEntry>,
    /// The number of lists that watches have begun.
    epoch: u64,
}

/// A Secret's place in the cache when a call about it was sent: what has been shown since may be newer than the answer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    epoch: u64,
    changes: u32,
}

impl Secrets {
    /// An empty cache that `watches` watches will fill.
    #[must_use]
    pub fn new(watches: usize, restorations: Arc<Restorations>) -> Self {
        Secrets {
            table: Mutex::default(),
            unread: watch::Sender::new(watches),
            restorations,
            reads: SharedReads::default(),
            crowds: Crowds::default(),
        }
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

    /// Sets which Secrets a TokenSource uses instead of those `before`; the first is its target. Secrets without a user are
    /// removed.
    pub fn reference(&self, source: &Key, before: &[Arc<str>], names: &[Arc<str>]) {
        // The common case: this is called for every event.
        if before == names {
            return;
        }
        let table = &mut *self.lock();
        let epoch = table.epoch;
        // A Secret that becomes the target, or is it no more, is referenced anew.
        let stays = |name: &Arc<str>| {
            before.contains(name)
                && names.contains(name)
                && (before.first() == Some(name)) == (names.first() == Some(name))
        };
        for name in before.iter().filter(|name| !stays(name)) {
            table.release(&source.sibling(Arc::clone(name)), &source.name);
        }
        for (at, name) in names.iter().enumerate().filter(|(_, name)| !stays(name)) {
            let key = source.sibling(Arc::clone(name));
            let secret = table.entries.get_or_insert_with(&key, || SecretEntry::unread(epoch));
            secret.add(Arc::clone(&source.name), at == 0);
        }
    }

    /// The same names, in the memory of those that are cached already: many TokenSources of a namespace use one Secret.
    pub(crate) fn shared(&self, namespace: &str, names: &Arc<[Arc<str>]>) -> Arc<[Arc<str>]> {
        let table = self.lock();
        let shared = |name: &Arc<str>| Arc::clone(table.entries.name(namespace, name).unwrap_or(name));
        if names.iter().all(|name| Arc::ptr_eq(&shared(name), name)) {
            return Arc::clone(names);
        }
        names.iter().map(shared).collect()
    }

    /// An issuer uses a Secret.
    pub(crate) fn follow(&self, secret: &Key, issuer: Arc<str>) {
        let table = &mut *self.lock();
        let epoch = table.epoch;
        table.entries.get_or_insert_with(secret, || SecretEntry::unread(epoch)).add(issuer, false);
    }

    /// An issuer uses a Secret no more.
    pub(crate) fn release(&self, secret: &Key, issuer: &Arc<str>) {
        self.lock().release(secret, issuer);
    }

    /// The TokenSources whose target a Secret is.
    #[must_use]
    pub fn writers(&self, secret: &Key) -> Vec<Key> {
        let table = self.lock();
        let Some(entry) = table.entries.get(secret) else { return vec![] };
        entry.users.iter().take(entry.writers_count()).map(|user| secret.sibling(Arc::clone(user))).collect()
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

    /// The TokenSources that use a Secret.
    fn users(&self, secret: &Key) -> Users {
        let table = self.lock();
        let Some(entry) = table.entries.get(secret) else { return Users::default() };
        let mut writers = entry.users_of(secret);
        let readers = writers.split_off(entry.writers_count().min(writers.len()));
        Users { writers, readers }
    }

    /// The TokenSources that something about a Secret concerns; none where those of the namespace are many: then
    /// [`Self::next_of_crowds`] returns them.
    #[must_use]
    pub fn concerned(&self, secret: &Key) -> Vec<Key> {
        let table = self.lock();
        table.entries.get(secret).map_or_else(Vec::new, |entry| self.users_or_crowd(secret, entry))
    }

    fn users_or_crowd(&self, secret: &Key, entry: &SecretEntry) -> Vec<Key> {
        if self.crowds.admit(secret, entry.users.len()) {
            return entry.users_of(secret);
        }
        self.crowds.add(secret);
        vec![]
    }

    /// Waits for TokenSources that use Secrets that have changed, where those of a namespace are many or a call has shown the change
    /// before the watch: some of each namespace. For one caller at a time.
    pub async fn next_of_crowds(&self) -> Vec<Key> {
        self.crowds.next(|secret| self.users(secret)).await
    }

    /// A call about this Secret is about to be sent. Its answer is for [`Self::observe`].
    #[must_use]
    pub(crate) fn sending(&self, secret: &Key) -> Sent {
        let table = self.lock();
        let changes = table.entries.get(secret).map_or(0, |entry| entry.changes);
        Sent { epoch: table.epoch, changes }
    }

    /// Stores the answer to a read or to the operator's own write; `None`: the Secret does not exist. Returns whether it was
    /// stored: it is not where something newer was shown after the call was sent. An absence has no age, so that it gives way
    /// to anything that was shown since. Where it has changed, [`Self::next_of_crowds`] returns its users, if there are several.
    pub(crate) fn observe(&self, secret: &Key, sent: Sent, facts: Option<Facts>) -> bool {
        let table = &mut *self.lock();
        let epoch = table.epoch;
        let Some(entry) = table.entries.get_mut(secret) else { return true };
        let has_moved = entry.changes != sent.changes;
        let answered = facts.as_ref().map(revision);
        if has_moved && answered.is_none_or(|answered| answered < entry.revision) {
            return false;
        }
        if let Some(answered) = answered.filter(|answered| *answered < entry.revision) {
            self.restorations.noticed(&secret.to_string(), entry.revision, answered);
        }
        let is_news = entry.known.clone().observed().is_some_and(|known| known.as_deref() != facts.as_ref());
        match facts {
            Some(facts) => entry.present(facts),
            None => entry.absent(),
        }
        entry.epoch = entry.epoch.max(sent.epoch);
        entry.answered_epoch = epoch;
        // The watch event of it will be no change, so that it triggers none of the other users.
        if is_news && entry.users.len() > 1 {
            self.crowds.add(secret);
        }
        true
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
        let facts = self.read_facts(secret, kubernetes).await?;
        Ok(facts.map_or(CachedSecret::Absent, |facts| CachedSecret::Present(Arc::new(facts))))
    }

    /// Reads the metadata of a Secret, and stores it.
    ///
    /// # Errors
    /// The read failed.
    pub(crate) async fn read_facts(
        &self,
        secret: &Key,
        kubernetes: &Kubernetes,
    ) -> Result<Option<Facts>, CallError> {
        self.read(secret, || kubernetes.secret_facts(secret), Clone::clone).await
    }

    /// Reads a Secret, and stores its metadata.
    ///
    /// # Errors
    /// The read failed.
    pub(crate) async fn read_secret(
        &self,
        secret: &Key,
        kubernetes: &Kubernetes,
    ) -> Result<Option<Secret>, CallError> {
        let facts = |found: &Option<Secret>| found.as_ref().and_then(|found| Facts::of(&found.metadata));
        self.read(secret, || kubernetes.secret(secret), facts).await
    }

    /// Reads a Secret that many TokenSources may read at once, and stores its metadata.
    ///
    /// # Errors
    /// The read failed.
    pub(crate) async fn read_shared(
        &self,
        secret: &Key,
        kubernetes: &Kubernetes,
    ) -> Result<Option<Arc<Secret>>, CallError> {
        let facts = |found: &Option<Arc<Secret>>| Facts::of(&found.as_ref()?.metadata);
        let call = || async { kubernetes.secret(secret).await.map(|found| found.map(Arc::new)) };
        self.read(secret, || self.reads.read(secret, call), facts).await
    }

    /// Reads again where the watch has shown something newer meanwhile.
    async fn read<T, F: Future<Output = Result<T, CallError>>>(
        &self,
        secret: &Key,
        call: impl Fn() -> F,
        facts: impl Fn(&T) -> Option<Facts>,
    ) -> Result<T, CallError> {
        let mut reads = 1;
        loop {
            let sent = self.sending(secret);
            let found = call().await?;
            if self.observe(secret, sent, facts(&found)) || reads == MAX_READS {
                return Ok(found);
            }
            reads += 1;
        }
    }

    /// The Secrets of a namespace may not be read any more: nothing is known of them.
    pub(crate) fn forget(&self, namespace: &str) {
        self.lock().entries.change(Some(namespace), |_, _, entry| {
            entry.unknown();
            entry.revision = 0;
            entry.request = None;
        });
    }

    /// The storage was restored: requests are not known by the versions of before, whose numbers may be given again.
    pub(crate) fn forget_requests(&self) {
        self.lock().entries.change(None, |_, _, entry| entry.request = None);
    }

    /// The identity of the last token request with this version of the credentials, for the provider with this digest.
    pub(crate) fn request_identity(
        &self,
        credentials: &Key,
        version: &Version,
        provider: &str,
    ) -> Option<RequestIdentity> {
        let table = self.lock();
        let known = table.entries.get(credentials)?.request.as_deref()?;
        (known.version == *version && known.provider == provider).then_some(known.identity)
    }

    /// Stores the identity of a token request.
    pub(crate) fn remember_request(
        &self,
        credentials: &Key,
        version: &Version,
        provider: &str,
        identity: RequestIdentity,
    ) {
        if let Some(entry) = self.lock().entries.get_mut(credentials) {
            let is_known = entry.request.as_deref().is_some_and(|known| {
                known.identity == identity && known.version == *version && known.provider == provider
            });
            if !is_known {
                let (version, provider) = (version.clone(), provider.to_owned());
                entry.request = Some(Box::new(KnownRequest { version, provider, identity }));
            }
        }
    }

    /// A watch begins to list. Returns the epoch for [`Self::list_ends`].
    pub fn list_begins(&self) -> u64 {
        let table = &mut *self.lock();
        table.epoch += 1;
        table.epoch
    }

    /// Stores a Secret from the list that began as `epoch`: it replaces what was known before the list began. What a call has
    /// shown that was sent since stays; where the list seems to be newer, or the call was on its way when the list began, the
    /// Secret is read anew. Returns the TokenSources that use it, if it has changed.
    pub fn listed(&self, secret: &Key, facts: Facts, epoch: u64) -> Vec<Key> {
        let table = &mut *self.lock();
        let Some(entry) = table.entries.get_mut(secret) else { return vec![] };
        let (listed, known) = (revision(&facts), entry.revision);
        let is_same = matches!(&entry.known, CachedSecret::Present(known) if **known == facts);
        let is_before = entry.epoch < epoch;
        let was_on_its_way = is_before && entry.answered_epoch >= epoch && listed < known;
        if is_same || (!is_before && listed <= known) {
            entry.epoch = entry.epoch.max(epoch);
            return vec![];
        }
        if entry.known != CachedSecret::Unknown && (was_on_its_way || !is_before) {
            entry.unknown();
        } else {
            if listed < known {
                self.restorations.noticed(&secret.to_string(), known, listed);
            }
            entry.present(facts);
        }
        entry.epoch = epoch;
        entry.answered_epoch = epoch;
        self.users_or_crowd(secret, entry)
    }

    /// Stores a Secret from a watch. Returns the TokenSources that use it, if it has changed.
    pub fn changed(&self, secret: &Key, facts: Facts) -> Vec<Key> {
        let table = &mut *self.lock();
        let epoch = table.epoch;
        let Some(entry) = table.entries.get_mut(secret) else { return vec![] };
        // The event of the operator's own write is no change.
        let has_changed = match &entry.known {
            CachedSecret::Present(known) if **known == facts => false,
            _ => revision(&facts) >= entry.revision,
        };
        if !has_changed {
            return vec![];
        }
        entry.present(facts);
        entry.epoch = epoch;
        entry.answered_epoch = epoch;
        self.users_or_crowd(secret, entry)
    }

    /// Handles the deletion of a Secret. Returns the TokenSources that use it.
    pub fn deleted(&self, secret: &Key, last: &Facts) -> Vec<Key> {
        let table = &mut *self.lock();
        let Some(entry) = table.entries.get_mut(secret) else { return vec![] };
        if revision(last) < entry.revision {
            return vec![];
        }
        entry.revision = revision(last);
        entry.absent();
        self.users_or_crowd(secret, entry)
    }

    /// The list of a namespace (`None`: of all) that began as `epoch` has ended: the Secrets that it did not contain are absent,
    /// and those of them that a call on its way has shown are read anew. Returns the TokenSources that use them.
    pub fn list_ends(&self, epoch: u64, namespace: Option<&str>) -> Vec<Key> {
        let mut concerned = vec![];
        self.lock().entries.change(namespace, |namespace, name, entry| {
            if entry.epoch >= epoch {
                return;
            }
            // After a restoration of the storage it may appear again with a lower one.
            entry.revision = 0;
            if entry.known == CachedSecret::Absent {
                return;
            }
            if entry.answered_epoch >= epoch {
                entry.unknown();
            } else {
                entry.absent();
            }
            let secret = Key::from_parts(Arc::clone(namespace), Arc::clone(name));
            concerned.extend(self.users_or_crowd(&secret, entry));
        });
        concerned
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
    fn release(&mut self, secret: &Key, user: &Arc<str>) {
        if let Some(entry) = self.entries.get_mut(secret) {
            entry.remove(user);
            if entry.users.is_empty() {
                self.entries.remove(secret);
            }
        }
    }
}

#[cfg(test)]
mod tests;
