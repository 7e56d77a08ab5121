//! A map of objects by namespace, then by name: what is done for one namespace costs no more where there are thousands.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::HashMap;
use std::sync::Arc;

use crate::key::Key;

/// See the module. Nothing is kept of a namespace without entries.
#[derive(Debug)]
pub(super) struct ByNamespace<V>(HashMap<Arc<str>, HashMap<Arc<str>, V>>);

impl<V> Default for ByNamespace<V> {
    fn default() -> Self {
        ByNamespace(HashMap::new())
    }
}

impl<V> ByNamespace<V> {
    pub(super) fn get(&self, key: &Key) -> Option<&V> {
        self.0.get(&key.namespace)?.get(&key.name)
    }

    pub(super) fn get_mut(&mut self, key: &Key) -> Option<&mut V> {
        self.0.get_mut(&key.namespace)?.get_mut(&key.name)
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.get(key).is_some()
    }

    /// The namespace, in memory that all its entries share.
    pub(super) fn namespace(&self, namespace: &Arc<str>) -> Arc<str> {
        let shared = self.0.get_key_value(namespace).map_or(namespace, |(shared, _)| shared);
        Arc::clone(shared)
    }

    /// The name of an entry, as it is stored.
    pub(super) fn name(&self, namespace: &str, name: &str) -> Option<&Arc<str>> {
        self.0.get(namespace)?.get_key_value(name).map(|(shared, _)| shared)
    }

    pub(super) fn insert(&mut self, key: &Key, value: V) {
        self.0.entry(Arc::clone(&key.namespace)).or_default().insert(Arc::clone(&key.name), value);
    }

    pub(super) fn get_or_insert_with(&mut self, key: &Key, value: impl FnOnce() -> V) -> &mut V {
        let names = self.0.entry(Arc::clone(&key.namespace)).or_default();
        names.entry(Arc::clone(&key.name)).or_insert_with(value)
    }

    pub(super) fn remove(&mut self, key: &Key) -> Option<V> {
        let names = self.0.get_mut(&key.namespace)?;
        let removed = names.remove(&key.name);
        if names.is_empty() {
            self.0.remove(&key.namespace);
        }
        removed
    }

    /// The values of a namespace; `None` for those of all.
    pub(super) fn values(&self, namespace: Option<&str>) -> impl Iterator<Item = &V> {
        let one = namespace.and_then(|of| self.0.get(of));
        let all = namespace.is_none().then(|| self.0.values()).into_iter().flatten();
        one.into_iter().chain(all).flat_map(HashMap::values)
    }

    /// Changes the entries of a namespace (`None`: those of all), each with its namespace and name.
    pub(super) fn change(
        &mut self,
        namespace: Option<&str>,
        mut change: impl FnMut(&Arc<str>, &Arc<str>, &mut V),
    ) {
        let mut of = |namespace: &Arc<str>, names: &mut HashMap<Arc<str>, V>| {
            names.iter_mut().for_each(|(name, value)| change(namespace, name, value));
        };
        let Some(one) = namespace else {
            return self.0.iter_mut().for_each(|(namespace, names)| of(namespace, names));
        };
        let shared = self.0.get_key_value(one).map(|(shared, _)| Arc::clone(shared));
        if let Some((shared, names)) = shared.zip(self.0.get_mut(one)) {
            of(&shared, names);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_namespace_shows_and_changes_one_namespace_or_all() {
        let mut map = ByNamespace::default();
        for (namespace, name) in [("a", "x"), ("a", "y"), ("b", "x")] {
            map.insert(&Key::new(namespace, name), 0);
        }
        *map.get_or_insert_with(&Key::new("a", "x"), || 7) += 1;
        map.change(Some("a"), |_, _, value| *value += 10);
        map.change(None, |_, _, value| *value += 100);
        map.change(Some("c"), |_, _, _| panic!("there is none"));
        let shown = |namespace| {
            let mut all: Vec<_> = map.values(namespace).copied().collect();
            all.sort_unstable();
            all
        };
        assert_eq!(map.get(&Key::new("a", "x")), Some(&111));
        assert_eq!(shown(Some("a")), [110, 111]);
        assert_eq!(shown(None), [100, 110, 111]);
        assert!(shown(Some("c")).is_empty());
        for (namespace, name) in [("a", "x"), ("a", "y"), ("b", "x")] {
            assert!(
                map.contains(&Key::new(namespace, name)) && map.remove(&Key::new(namespace, name)).is_some()
            );
        }
        assert!(map.is_empty() && map.remove(&Key::new("a", "x")).is_none());
    }
}
