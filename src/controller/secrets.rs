//! What is known of the Secrets that TokenSources name: metadata alone, and nothing of any other Secret.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::watch;

use crate::target::Facts;

/// An object's namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
}

impl Key {
    /// The key of `name` in `namespace`.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Key { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

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
    /// The names that each TokenSource uses.
    sources: HashMap<Key, Vec<String>>,
    /// Counts the lists that a watch began.
    epoch: u64,
}

#[derive(Debug)]
struct Entry {
    users: Vec<String>,
    known: Known,
    /// The newest revision of this Secret that was seen: what is older is stale.
    revision: u64,
    /// The list during or after which it was last looked at or first named.
    epoch: u64,
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

    /// Says which Secrets a TokenSource uses, instead of those that it used before.
    pub fn reference(&self, source: &Key, names: &[&str]) {
        let inner = &mut *self.lock();
        // Mostly nothing has changed: this is called for every event.
        if inner.sources.get(source).is_some_and(|before| before == names) {
            return;
        }
        let epoch = inner.epoch;
        let owned = names.iter().map(|name| (*name).to_owned()).collect();
        let before = inner.sources.insert(source.clone(), owned).unwrap_or_default();
        for name in before.iter().filter(|name| !names.contains(&name.as_str())) {
            inner.release(source, name);
        }
        for name in names.iter().filter(|name| before.iter().all(|before| before != *name)) {
            let key = Key::new(&source.namespace, name);
            let unknown = Entry { users: vec![], known: Known::Nothing, revision: 0, epoch };
            inner.secrets.entry(key).or_insert(unknown).users.push(source.name.clone());
        }
    }

    /// Forgets a TokenSource, and the Secrets that nobody else uses.
    pub fn forget(&self, source: &Key) {
        let inner = &mut *self.lock();
        for name in inner.sources.remove(source).unwrap_or_default() {
            inner.release(source, &name);
        }
    }

    /// Whether a TokenSource is known.
    #[must_use]
    pub fn knows(&self, source: &Key) -> bool {
        self.lock().sources.contains_key(source)
    }

    /// The TokenSources of a namespace (all where `None`).
    #[must_use]
    pub fn sources(&self, namespace: Option<&str>) -> Vec<Key> {
        let inner = self.lock();
        let of_it = |source: &&Key| namespace.is_none_or(|namespace| source.namespace == namespace);
        inner.sources.keys().filter(of_it).cloned().collect()
    }

    /// When the token expires that a TokenSource's target holds: of the names that it uses, the first is the target's.
    #[must_use]
    pub fn expiry(&self, source: &Key) -> Option<Timestamp> {
        let inner = self.lock();
        let target = Key::new(&source.namespace, inner.sources.get(source)?.first()?);
        match &inner.secrets.get(&target)?.known {
            Known::Present(facts) => facts.record.as_ref().map(|record| record.expires_at),
            _ => None,
        }
    }

    /// The TokenSources of these namespaces.
    #[must_use]
    pub fn sources_in(&self, namespaces: &[String]) -> Vec<Key> {
        if namespaces.is_empty() {
            return vec![];
        }
        self.lock().sources.keys().filter(|source| namespaces.contains(&source.namespace)).cloned().collect()
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

    /// The list of `namespace` (all where `None`) that began as `epoch` has ended. Returns the TokenSources whose
    /// Secrets have gone.
    pub fn list_ends(&self, namespace: Option<&str>, epoch: u64) -> Vec<Key> {
        let inner = &mut *self.lock();
        let gone = |(secret, entry): (&Key, &mut Entry)| {
            let listed = namespace.is_none_or(|namespace| namespace == secret.namespace);
            if !listed || entry.epoch >= epoch || entry.known == Known::Absent {
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
    fn release(&mut self, source: &Key, name: &str) {
        let key = Key::new(&source.namespace, name);
        if let Some(entry) = self.secrets.get_mut(&key) {
            entry.users.retain(|user| *user != source.name);
            if entry.users.is_empty() {
                self.secrets.remove(&key);
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
        self.users.iter().map(|user| Key::new(&secret.namespace, user)).collect()
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

    /// A TokenSource `source` with target `t`, listed at revision 10.
    fn secrets() -> Secrets {
        let secrets = Secrets::new(1);
        secrets.reference(&key("source"), &["t", "c"]);
        let epoch = secrets.list_begins();
        assert_eq!(secrets.changed(&key("t"), facts(10)), [key("source")]);
        secrets.list_ends(None, epoch);
        secrets
    }

    #[test]
    fn nothing_is_kept_of_other_peoples_secrets() {
        let secrets = secrets();
        assert!(secrets.changed(&key("other"), facts(11)).is_empty());
        secrets.observe(&key("other"), Some(facts(11)));
        assert_eq!(secrets.known(&key("other")), Known::Nothing);
        secrets.forget(&key("source"));
        assert!(secrets.lock().secrets.is_empty() && secrets.lock().sources.is_empty());
    }

    #[test]
    fn what_the_list_does_not_name_is_absent_and_what_came_later_is_unknown() {
        let secrets = secrets();
        assert_eq!(secrets.known(&key("c")), Known::Absent);
        secrets.reference(&key("later"), &["l", "t"]);
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
        assert_eq!(secrets.list_ends(Some("elsewhere"), epoch), []);
        assert_eq!(secrets.list_ends(None, epoch), [key("source")]);
        assert_eq!(secrets.known(&key("t")), Known::Absent);
        let epoch = secrets.list_begins();
        secrets.observe(&key("t"), Some(facts(30)));
        assert_eq!(secrets.list_ends(None, epoch), [], "written by us while the list was read");
    }

    #[test]
    fn lists_of_several_namespaces_do_not_disturb_each_other() {
        let secrets = Secrets::new(2);
        secrets.reference(&key("source"), &["t"]);
        let ours = secrets.list_begins();
        let _ = secrets.changed(&key("t"), facts(10));
        let theirs = secrets.list_begins();
        assert_eq!(secrets.list_ends(Some("ns"), ours), []);
        assert_eq!(secrets.list_ends(Some("other"), theirs), []);
        assert_eq!(secrets.known(&key("t")), Known::Present(Arc::new(facts(10))));
    }
}
