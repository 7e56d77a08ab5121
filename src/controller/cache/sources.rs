//! The TokenSources, as the watches have shown them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::by_namespace::ByNamespace;
use super::source::CachedSource;
use super::source_limit::SourceLimit;
use crate::key::Key;
use crate::status::Reported;

/// The cached sources by key.
#[derive(Debug, Default)]
pub(crate) struct Sources(Mutex<CachedSources>);

#[derive(Debug, Default)]
struct CachedSources {
    entries: ByNamespace<SourceEntry>,
    limit: SourceLimit,
    /// The number of lists that watches have begun.
    epoch: u64,
}

#[derive(Debug)]
struct SourceEntry {
    cached: Arc<CachedSource>,
    /// The list during or after which it was last observed.
    epoch: u64,
    /// The digest of the status that this process wrote last.
    own_report: Option<u64>,
}

/// What a watch has shown of a TokenSource.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) key: Key,
    /// The version before.
    pub(crate) before: Option<Arc<CachedSource>>,
    /// Nothing has changed but the status, which is as this process has written it.
    pub(crate) is_own_report: bool,
    /// Others that are served from now on, or not any more, because of the age of this one.
    pub(crate) others: Vec<Key>,
}

impl CachedSources {
    /// Those of a namespace; `None` for those of all.
    fn all(&self, namespace: Option<&str>) -> impl Iterator<Item = &CachedSource> {
        self.entries.values(namespace).map(|entry| &*entry.cached)
    }
}

impl Sources {
    /// Serves at most so many of a namespace.
    pub(crate) fn limited_to(max: Option<usize>) -> Self {
        Sources(Mutex::new(CachedSources { limit: SourceLimit::new(max), ..CachedSources::default() }))
    }

    /// The limit, if this TokenSource is one of those beyond it: the youngest of its namespace.
    pub(crate) fn exceeds(&self, source: &CachedSource) -> Option<usize> {
        self.lock().limit.exceeded_by(&source.key.namespace, &source.age())
    }

    /// Stores a TokenSource.
    pub(crate) fn put(&self, mut cached: CachedSource) -> Change {
        let sources = &mut *self.lock();
        let entry = sources.entries.get(&cached.key);
        let own_report = entry.and_then(|entry| entry.own_report);
        let before = entry.map(|entry| Arc::clone(&entry.cached));
        match &before {
            Some(before) => cached.share_names(before),
            None => {
                let namespace = sources.entries.namespace(&cached.key.namespace);
                cached.key = Key::from_parts(namespace, Arc::clone(&cached.key.name));
            }
        }
        let is_own_report = own_report == Some(cached.reported.digest())
            && before.as_ref().is_some_and(|before| before.asks_for_the_same(&cached));
        let key = cached.key.clone();
        // One of the same name may have taken its place.
        let replaced = before.as_ref().filter(|before| before.age() != cached.age());
        let next = replaced.and_then(|before| sources.limit.remove(&key.namespace, &before.age()));
        let displaced = sources.limit.add(&key.namespace, cached.age());
        let others = next.into_iter().chain(displaced).map(|name| key.sibling(name)).collect();
        let entry = SourceEntry { cached: Arc::new(cached), epoch: sources.epoch, own_report };
        sources.entries.insert(&key, entry);
        Change { key, before, is_own_report, others }
    }

    /// This process is about to write this status.
    pub(crate) fn will_report(&self, source: &Key, report: &Reported) {
        if let Some(entry) = self.lock().entries.get_mut(source) {
            entry.own_report = Some(report.digest());
        }
    }

    /// Removes a TokenSource. Returns its last version, and another one that is served from now on.
    pub(crate) fn remove(&self, source: &Key) -> Option<(Arc<CachedSource>, Option<Key>)> {
        let sources = &mut *self.lock();
        let cached = sources.entries.remove(source)?.cached;
        let next = sources.limit.remove(&source.namespace, &cached.age());
        Some((cached, next.map(|name| source.sibling(name))))
    }

    /// The TokenSource with this key.
    pub(crate) fn get(&self, source: &Key) -> Option<Arc<CachedSource>> {
        self.lock().entries.get(source).map(|entry| Arc::clone(&entry.cached))
    }

    /// Whether there is a TokenSource with this key.
    pub(crate) fn knows(&self, source: &Key) -> bool {
        self.lock().entries.contains(source)
    }

    /// The keys of a namespace; `None` for those of all.
    pub(crate) fn keys(&self, namespace: Option<&str>) -> Vec<Key> {
        self.lock().all(namespace).map(|cached| cached.key.clone()).collect()
    }

    /// The keys of a namespace (`None`: of all) that name an issuer for which this holds.
    pub(crate) fn of_issuers(&self, namespace: Option<&str>, holds: impl Fn(&str) -> bool) -> Vec<Key> {
        let sources = self.lock();
        let all = sources.all(namespace).filter(|cached| cached.issuer.as_deref().is_some_and(&holds));
        all.map(|cached| cached.key.clone()).collect()
    }

    /// The TokenSources that name issuers, each with the issuer's name.
    pub(crate) fn with_issuers(&self) -> Vec<(Arc<str>, Key)> {
        let sources = self.lock();
        let issuer = |cached: &CachedSource| Some((Arc::clone(cached.issuer.as_ref()?), cached.key.clone()));
        sources.all(None).filter_map(issuer).collect()
    }

    /// Any key.
    pub(crate) fn any(&self) -> Option<Key> {
        self.lock().all(None).next().map(|cached| cached.key.clone())
    }

    /// A watch begins to list. Returns the epoch for [`Self::list_ends`].
    pub(crate) fn list_begins(&self) -> u64 {
        let sources = &mut *self.lock();
        sources.epoch += 1;
        sources.epoch
    }

    /// The list of a namespace (`None`: of all) that began as `epoch` has ended. Returns the TokenSources that it did not
    /// contain.
    pub(crate) fn list_ends(&self, epoch: u64, namespace: Option<&str>) -> Vec<Key> {
        let sources = self.lock();
        let gone = sources.entries.values(namespace).filter(|entry| entry.epoch < epoch);
        gone.map(|entry| entry.cached.key.clone()).collect()
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
        CachedSource::after(serde_json::from_value::<SourceObject>(object).unwrap(), |_| None)
    }

    #[test]
    fn sources_list_ends_returns_sources_missing_from_the_list() {
        let sources = Sources::default();
        let a = sources.put(cached("a")).key;
        let epoch = sources.list_begins();
        let b = sources.put(cached("b")).key;
        assert_eq!(sources.list_ends(epoch, Some("other")), []);
        assert_eq!(sources.list_ends(epoch, None), std::slice::from_ref(&a));
        assert!(sources.remove(&a).is_some() && !sources.knows(&a));
        assert_eq!(sources.keys(Some("ns")), [b]);
    }

    #[test]
    fn sources_put_names_those_who_are_served_from_now_on_or_not_any_more() {
        let sources = Sources::limited_to(Some(1));
        let put = |name: &str, uid: &str, created: u32| {
            let object = json!({
                "metadata": {"namespace": "ns", "name": name, "uid": uid,
                    "creationTimestamp": format!("2026-11-26T20:00:{created:02}Z")},
                "spec": {"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "c"}}},
            });
            let others = sources
                .put(CachedSource::after(serde_json::from_value::<SourceObject>(object).unwrap(), |_| None))
                .others;
            others.iter().map(|other| other.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(put("a", "1", 10), Vec::<String>::new());
        assert_eq!(put("b", "2", 20), Vec::<String>::new());
        assert_eq!(put("c", "3", 5), ["a"], "an older one");
        assert_eq!(put("c", "4", 30), ["a"], "made anew while the watch was down");
    }

    #[test]
    fn sources_put_shares_names_between_versions_of_an_object() {
        let sources = Sources::default();
        let Change { key, before, .. } = sources.put(cached("a"));
        assert!(before.is_none());
        let before = sources.get(&key).unwrap();
        sources.put(cached("a"));
        let after = sources.get(&key).unwrap();
        assert!(!Arc::ptr_eq(&before, &after));
        assert!(
            Arc::ptr_eq(&before.key.name, &after.key.name)
                && Arc::ptr_eq(&before.secrets[0], &after.secrets[0])
        );
        let other = sources.put(cached("b")).key;
        assert!(Arc::ptr_eq(&other.namespace, &key.namespace));
    }

    #[test]
    fn sources_put_recognizes_a_status_that_this_process_wrote_and_nothing_else() {
        let version = |status: serde_json::Value, generation: i64| {
            let object = json!({
                "metadata": {"namespace": "ns", "name": "a", "uid": "u", "generation": generation},
                "spec": {"provider": {"vgs": {}}, "credentials": {"secretRef": {"name": "c"}}},
                "status": status,
            });
            CachedSource::after(serde_json::from_value::<SourceObject>(object).unwrap(), |_| None)
        };
        let (sources, ours) = (Sources::default(), json!({"observedGeneration": 1}));
        let key = sources.put(version(json!({}), 1)).key;
        assert!(!sources.put(version(ours.clone(), 1)).is_own_report, "nothing was written yet");
        sources.will_report(&key, &version(ours.clone(), 1).reported);
        assert!(sources.put(version(ours.clone(), 1)).is_own_report);
        assert!(!sources.put(version(json!({"observedGeneration": 7}), 1)).is_own_report, "another writer's");
        assert!(!sources.put(version(ours, 2)).is_own_report, "the spec has changed, too");
    }
}
