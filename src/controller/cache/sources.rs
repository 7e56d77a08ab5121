//! The TokenSources, as the watch has shown them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::source::CachedSource;
use crate::key::Key;

/// All that are known.
#[derive(Debug, Default)]
pub(crate) struct Sources(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    known: HashMap<Key, Entry>,
    /// Counts the lists that a watch began.
    epoch: u64,
}

#[derive(Debug)]
struct Entry {
    cached: Arc<CachedSource>,
    /// The list during or after which it was last seen.
    epoch: u64,
}

impl Sources {
    /// Takes in a TokenSource. Returns its key, and what it was before.
    pub(crate) fn put(&self, mut cached: CachedSource) -> (Key, Option<Arc<CachedSource>>) {
        let inner = &mut *self.lock();
        let before = inner.known.get(&cached.key).map(|entry| Arc::clone(&entry.cached));
        if let Some(before) = &before {
            cached.share_names(before);
        }
        let key = cached.key.clone();
        inner.known.insert(key.clone(), Entry { cached: Arc::new(cached), epoch: inner.epoch });
        (key, before)
    }

    /// A TokenSource is gone. Returns what it was.
    pub(crate) fn remove(&self, source: &Key) -> Option<Arc<CachedSource>> {
        self.lock().known.remove(source).map(|entry| entry.cached)
    }

    /// The TokenSource of this key.
    pub(crate) fn get(&self, source: &Key) -> Option<Arc<CachedSource>> {
        self.lock().known.get(source).map(|entry| Arc::clone(&entry.cached))
    }

    /// Whether a TokenSource is known.
    pub(crate) fn knows(&self, source: &Key) -> bool {
        self.lock().known.contains_key(source)
    }

    /// Those for which `holds` holds.
    pub(crate) fn keys(&self, holds: impl Fn(&Key) -> bool) -> Vec<Key> {
        self.lock().known.keys().filter(|source| holds(source)).cloned().collect()
    }

    /// Any one of them.
    pub(crate) fn any(&self, holds: impl Fn(&Key) -> bool) -> Option<Key> {
        self.lock().known.keys().find(|source| holds(source)).cloned()
    }

    /// A watch begins to list. To be handed to [`Self::list_ends`].
    pub(crate) fn list_begins(&self) -> u64 {
        let inner = &mut *self.lock();
        inner.epoch += 1;
        inner.epoch
    }

    /// The list that began as `epoch` has ended. Returns those of it that went unseen.
    pub(crate) fn list_ends(&self, epoch: u64, of_it: impl Fn(&Key) -> bool) -> Vec<Key> {
        let inner = self.lock();
        let gone = inner.known.iter().filter(|(source, entry)| entry.epoch < epoch && of_it(source));
        gone.map(|(source, _)| source.clone()).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is complete before anything can panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cluster::Source;

    fn cached(name: &str) -> CachedSource {
        let object = json!({"metadata": {"namespace": "ns", "name": name, "uid": "u"}, "spec":
            {"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "c"}}}});
        serde_json::from_value::<Source>(object).unwrap().into()
    }

    #[test]
    fn a_list_finds_what_went_unseen() {
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
    fn all_versions_of_an_object_share_its_names() {
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
