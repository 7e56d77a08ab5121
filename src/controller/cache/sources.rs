//! The TokenSources, as the watches have shown them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::source::CachedSource;
use crate::key::Key;

/// The cached sources by key.
#[derive(Debug, Default)]
pub(crate) struct Sources(Mutex<CachedSources>);

#[derive(Debug, Default)]
struct CachedSources {
    entries: HashMap<Key, SourceEntry>,
    /// The number of lists that watches have begun.
    epoch: u64,
}

#[derive(Debug)]
struct SourceEntry {
    cached: Arc<CachedSource>,
    /// The list during or after which it was last observed.
    epoch: u64,
}

impl Sources {
    /// Stores a TokenSource. Returns its key and the previous version.
    pub(crate) fn put(&self, mut cached: CachedSource) -> (Key, Option<Arc<CachedSource>>) {
        let sources = &mut *self.lock();
        let before = sources.entries.get(&cached.key).map(|entry| Arc::clone(&entry.cached));
        if let Some(before) = &before {
            cached.share_names(before);
        }
        let key = cached.key.clone();
        sources.entries.insert(key.clone(), SourceEntry { cached: Arc::new(cached), epoch: sources.epoch });
        (key, before)
    }

    /// Removes a TokenSource. Returns its last version.
    pub(crate) fn remove(&self, source: &Key) -> Option<Arc<CachedSource>> {
        self.lock().entries.remove(source).map(|entry| entry.cached)
    }

    /// The TokenSource with this key.
    pub(crate) fn get(&self, source: &Key) -> Option<Arc<CachedSource>> {
        self.lock().entries.get(source).map(|entry| Arc::clone(&entry.cached))
    }

    /// Whether there is a TokenSource with this key.
    pub(crate) fn knows(&self, source: &Key) -> bool {
        self.lock().entries.contains_key(source)
    }

    /// The keys that match a predicate.
    pub(crate) fn keys(&self, predicate: impl Fn(&Key) -> bool) -> Vec<Key> {
        self.lock().entries.keys().filter(|source| predicate(source)).cloned().collect()
    }

    /// Any key that matches a predicate.
    pub(crate) fn any(&self, predicate: impl Fn(&Key) -> bool) -> Option<Key> {
        self.lock().entries.keys().find(|source| predicate(source)).cloned()
    }

    /// A watch begins to list. Returns the epoch for [`Self::list_ends`].
    pub(crate) fn list_begins(&self) -> u64 {
        let sources = &mut *self.lock();
        sources.epoch += 1;
        sources.epoch
    }

    /// The list that began as `epoch` has ended. Returns the TokenSources within its `scope` that it did not contain.
    pub(crate) fn list_ends(&self, epoch: u64, scope: impl Fn(&Key) -> bool) -> Vec<Key> {
        let sources = self.lock();
        let gone = sources.entries.iter().filter(|(source, entry)| entry.epoch < epoch && scope(source));
        gone.map(|(source, _)| source.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, CachedSources> {
        // Ignores poisoning: no code panics between the steps of a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::SourceObject;

    fn cached(name: &str) -> CachedSource {
        let object = json!({"metadata": {"namespace": "ns", "name": name, "uid": "u"}, "spec":
            {"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "c"}}}});
        serde_json::from_value::<SourceObject>(object).unwrap().into()
    }

    #[test]
    fn sources_list_ends_returns_sources_missing_from_the_list() {
        let sources = Sources::default();
        let a = sources.put(cached("a")).0;
        let epoch = sources.list_begins();
        let b = sources.put(cached("b")).0;
        assert_eq!(sources.list_ends(epoch, |_| false), []);
        assert_eq!(sources.list_ends(epoch, |_| true), std::slice::from_ref(&a));
        assert!(sources.remove(&a).is_some() && !sources.knows(&a));
        assert_eq!(sources.keys(|_| true), [b]);
    }

    #[test]
    fn sources_put_shares_names_between_versions_of_an_object() {
        let sources = Sources::default();
        let (key, before) = sources.put(cached("a"));
        assert!(before.is_none());
        let before = sources.get(&key).unwrap();
        sources.put(cached("a"));
        let after = sources.get(&key).unwrap();
        assert!(!Arc::ptr_eq(&before, &after));
        assert!(
            Arc::ptr_eq(&before.key.name, &after.key.name)
                && Arc::ptr_eq(&before.secrets[0], &after.secrets[0])
        );
    }
}
