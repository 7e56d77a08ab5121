//! What is known of the Secrets that TokenSources name: metadata alone, and nothing of any other Secret.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

use crate::cluster::{CallError, Kubernetes};
use crate::key::Key;
use crate::secret::{Facts, Version};
use token_endpoint::ClientIdentity;

/// What is known of one Secret.
#[derive(Clone, Debug, PartialEq)]
pub enum Known {
    /// Nobody has looked yet.
    Nothing,
    /// It does not exist.
    Absent,
    /// It exists.
    Present(Arc<Facts>),
}

/// The Secrets that TokenSources name, kept up to date by a watch and by the operator's own writes.
#[derive(Debug)]
pub struct Secrets {
    inner: Mutex<Inner>,
    /// How many watches have not read their first list yet.
    unread: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Inner {
    secrets: HashMap<Key, Entry>,
    /// Counts the lists that a watch began.
    epoch: u64,
}

#[derive(Debug)]
struct Entry {
    /// The names of the TokenSources that use it.
    users: Vec<Arc<str>>,
    known: Known,
    /// The newest revision of this Secret that was seen: what is older is stale.
    revision: u64,
    /// The list during or after which it was last looked at or first named.
    epoch: u64,
    /// The client of the last token request with the credentials in it.
    client: Option<Box<KnownClient>>,
}

/// The client of a token request, for this state of the credentials and this provider.
#[derive(Debug)]
struct KnownClient {
    version: Version,
    provider: String,
    client: ClientIdentity,
}

/// The revision in a resourceVersion: a number that grows, for every API server since Kubernetes began and
/// by its documentation since 1.35.
fn revision(facts: &Facts) -> u64 {
    facts.version.resource_version.parse().unwrap_or(u64::MAX)
}

impl Secrets {
    /// Knows nothing yet; `watches` watches will tell.
    #[must_use]
    pub fn new(watches: usize) -> Self {
        Secrets { inner: Mutex::default(), unread: watch::Sender::new(watches) }
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

    /// Says which Secrets a TokenSource uses, instead of those that it used before. What nobody uses is forgotten.
    pub fn reference(&self, source: &Key, before: &[Arc<str>], names: &[Arc<str>]) {
        // Mostly nothing has changed: this is called for every event.
        if before == names {
            return;
        }
        let inner = &mut *self.lock();
        let epoch = inner.epoch;
        for name in before.iter().filter(|name| !names.contains(name)) {
            inner.release(&source.sibling(Arc::clone(name)), source);
        }
        for name in names.iter().filter(|name| !before.contains(name)) {
            let unknown = || Entry {
                users: Vec::with_capacity(1),
                known: Known::Nothing,
                revision: 0,
                epoch,
                client: None,
            };
            let secret = inner.secrets.entry(source.sibling(Arc::clone(name))).or_insert_with(unknown);
            secret.users.push(Arc::clone(&source.name));
        }
    }

    /// When the token expires that a target holds.
    #[must_use]
    pub fn expiry(&self, target: &Key) -> Option<Timestamp> {
        match &self.lock().secrets.get(target)?.known {
            Known::Present(facts) => facts.record.as_ref().map(|record| record.expires_at),
            _ => None,
        }
    }

    /// What is known of a Secret.
    #[must_use]
    pub fn known(&self, secret: &Key) -> Known {
        self.lock().secrets.get(secret).map_or(Known::Nothing, |entry| entry.known.clone())
    }

    /// Takes in what a live read or a write of ours showed: it is newer than what the watch has said so far.
    pub fn observe(&self, secret: &Key, facts: Option<Facts>) {
        let inner = &mut *self.lock();
        let epoch = inner.epoch;
        if let Some(entry) = inner.secrets.get_mut(secret) {
            match facts {
                Some(facts) => entry.present(facts),
                None => entry.known = Known::Absent,
            }
            entry.epoch = epoch;
        }
    }

    /// What is known of a Secret; reads its metadata where no watch has shown it yet.
    ///
    /// # Errors
    /// The API server does not answer.
    pub(crate) async fn known_or_read(
        &self,
        secret: &Key,
        kubernetes: &Kubernetes,
    ) -> Result<Known, CallError> {
        let known = self.known(secret);
        if known != Known::Nothing {
            return Ok(known);
        }
        let facts = kubernetes.secret_facts(secret).await?;
        self.observe(secret, facts.clone());
        Ok(facts.map_or(Known::Absent, |facts| Known::Present(Arc::new(facts))))
    }

    /// The client of a token request with these credentials in this state, for the provider with this digest, where one
    /// was made before.
    pub(crate) fn client(
        &self,
        credentials: &Key,
        version: &Version,
        provider: &str,
    ) -> Option<ClientIdentity> {
        let inner = self.lock();
        let known = inner.secrets.get(credentials)?.client.as_deref()?;
        (known.version == *version && known.provider == provider).then_some(known.client)
    }

    /// Remembers the client of a token request.
    pub(crate) fn remember_client(
        &self,
        credentials: &Key,
        version: &Version,
        provider: &str,
        client: ClientIdentity,
    ) {
        if let Some(entry) = self.lock().secrets.get_mut(credentials) {
            let is_known = entry.client.as_deref().is_some_and(|known| {
                known.client == client && known.version == *version && known.provider == provider
            });
            if !is_known {
                let (version, provider) = (version.clone(), provider.to_owned());
                entry.client = Some(Box::new(KnownClient { version, provider, client }));
            }
        }
    }

    /// A watch begins to list: what the list does not name has gone. To be handed to [`Self::list_ends`].
    pub fn list_begins(&self) -> u64 {
        let inner = &mut *self.lock();
        inner.epoch += 1;
        inner.epoch
    }

    /// Takes in a Secret from the list or the watch. Returns the TokenSources that use it.
    pub fn changed(&self, secret: &Key, facts: Facts) -> Vec<Key> {
        let inner = &mut *self.lock();
        let epoch = inner.epoch;
        let Some(entry) = inner.secrets.get_mut(secret) else { return vec![] };
        entry.epoch = epoch;
        // Our own write comes back as what it is known to have become.
        let is_news = match &entry.known {
            Known::Present(known) if **known == facts => false,
            _ => revision(&facts) >= entry.revision,
        };
        if !is_news {
            return vec![];
        }
        entry.present(facts);
        entry.users_of(secret)
    }

    /// Takes in the deletion of a Secret. Returns the TokenSources that use it.
    pub fn deleted(&self, secret: &Key, last: &Facts) -> Vec<Key> {
        let inner = &mut *self.lock();
        let Some(entry) = inner.secrets.get_mut(secret) else { return vec![] };
        if revision(last) < entry.revision {
            return vec![];
        }
        entry.revision = revision(last);
        entry.known = Known::Absent;
        entry.users_of(secret)
    }

    /// The list that began as `epoch` has ended. Returns the TokenSources whose Secrets have gone, of those in it.
    pub fn list_ends(&self, epoch: u64, of_it: impl Fn(&Key) -> bool) -> Vec<Key> {
        let inner = &mut *self.lock();
        let gone = |(secret, entry): (&Key, &mut Entry)| {
            if !of_it(secret) || entry.epoch >= epoch || entry.known == Known::Absent {
                return vec![];
            }
            entry.known = Known::Absent;
            entry.users_of(secret)
        };
        inner.secrets.iter_mut().flat_map(gone).collect()
    }

    /// A watch has read its first list.
    pub fn first_list_read(&self) {
        self.unread.send_modify(|unread| *unread = unread.saturating_sub(1));
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is complete before anything can panic.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn release(&mut self, secret: &Key, source: &Key) {
        if let Some(entry) = self.secrets.get_mut(secret) {
            entry.users.retain(|user| *user != source.name);
            if entry.users.is_empty() {
                self.secrets.remove(secret);
            }
        }
    }
}

impl Entry {
    fn present(&mut self, facts: Facts) {
        self.revision = revision(&facts);
        self.known = Known::Present(Arc::new(facts));
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
    fn nothing_is_kept_of_other_peoples_secrets() {
        let secrets = secrets();
        assert!(secrets.changed(&key("other"), facts(11)).is_empty());
        secrets.observe(&key("other"), Some(facts(11)));
        assert_eq!(secrets.known(&key("other")), Known::Nothing);
        secrets.reference(&key("source"), &names(["t", "c"]), &[]);
        assert!(secrets.lock().secrets.is_empty());
    }

    #[test]
    fn what_the_list_does_not_name_is_absent_and_what_came_later_is_unknown() {
        let secrets = secrets();
        assert_eq!(secrets.known(&key("c")), Known::Absent);
        secrets.reference(&key("later"), &[], &names(["l", "t"]));
        assert_eq!(secrets.known(&key("l")), Known::Nothing);
        assert_eq!(secrets.changed(&key("t"), facts(12)).len(), 2);
    }

    #[test]
    fn a_watch_that_lags_behind_our_own_write_changes_nothing() {
        let secrets = secrets();
        secrets.observe(&key("t"), Some(facts(20)));
        assert!(secrets.changed(&key("t"), facts(15)).is_empty());
        assert!(secrets.changed(&key("t"), facts(20)).is_empty(), "our own write is no news");
        assert!(secrets.deleted(&key("t"), &facts(15)).is_empty());
        assert_eq!(secrets.known(&key("t")), Known::Present(Arc::new(facts(20))));
        assert_eq!(secrets.deleted(&key("t"), &facts(21)), [key("source")]);
        assert_eq!(secrets.known(&key("t")), Known::Absent);
        assert!(secrets.changed(&key("t"), facts(20)).is_empty(), "an echo from before the deletion");
    }

    #[test]
    fn a_second_list_finds_what_went_while_the_watch_was_down() {
        let secrets = secrets();
        let epoch = secrets.list_begins();
        assert_eq!(secrets.list_ends(epoch, |_| false), []);
        assert_eq!(secrets.list_ends(epoch, |_| true), [key("source")]);
        assert_eq!(secrets.known(&key("t")), Known::Absent);
        let epoch = secrets.list_begins();
        secrets.observe(&key("t"), Some(facts(30)));
        assert_eq!(secrets.list_ends(epoch, |_| true), [], "written by us while the list was read");
    }

    #[test]
    fn lists_of_several_namespaces_do_not_disturb_each_other() {
        let secrets = Secrets::new(2);
        secrets.reference(&key("source"), &[], &names(["t"]));
        let ours = secrets.list_begins();
        let _ = secrets.changed(&key("t"), facts(10));
        let theirs = secrets.list_begins();
        assert_eq!(secrets.list_ends(ours, |secret| &*secret.namespace == "ns"), []);
        assert_eq!(secrets.list_ends(theirs, |_| false), []);
        assert_eq!(secrets.known(&key("t")), Known::Present(Arc::new(facts(10))));
    }
}
