//! A cache that tenants share: what is in it ends by time, and where it is full, the tenant with the most entries loses the one
//! that was not used for longest. So no tenant pushes out what another one uses.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug)]
pub(crate) struct TenantCache<K, V> {
    max: usize,
    /// How long an entry is kept that is not used.
    kept: Duration,
    entries: HashMap<K, CacheEntry<V>>,
}

#[derive(Debug)]
struct CacheEntry<V> {
    value: V,
    used: Instant,
    /// The tenant that it was added for.
    tenant: Arc<str>,
}

impl<K: Clone + Eq + Hash, V> TenantCache<K, V> {
    pub(crate) fn new(max: usize, kept: Duration) -> Self {
        TenantCache { max, kept, entries: HashMap::new() }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// The value, which is used now; a new one for this tenant where there is none.
    pub(crate) fn get_or_insert_with(
        &mut self,
        key: K,
        tenant: &Arc<str>,
        now: Instant,
        value: impl FnOnce() -> V,
    ) -> &mut V {
        if !self.entries.contains_key(&key) {
            let kept = self.kept;
            self.entries.retain(|_, entry| now.saturating_duration_since(entry.used) < kept);
            if self.entries.len() >= self.max {
                self.evict();
            }
        }
        let entry = self.entries.entry(key).or_insert_with(|| CacheEntry {
            value: value(),
            used: now,
            tenant: Arc::clone(tenant),
        });
        entry.used = now;
        &mut entry.value
    }

    fn evict(&mut self) {
        let entries = self.entries.iter().map(|(key, entry)| (key, &entry.tenant, entry.used));
        if let Some(key) = surplus(entries).cloned() {
            self.entries.remove(&key);
        }
    }
}

/// Which of these entries a full cache loses: of the tenant with the most, the one that was not used for longest.
pub(crate) fn surplus<'a, K>(
    entries: impl Iterator<Item = (&'a K, &'a Arc<str>, Instant)> + Clone,
) -> Option<&'a K> {
    let mut counts = HashMap::<&str, usize>::new();
    for (_, tenant, _) in entries.clone() {
        *counts.entry(tenant).or_default() += 1;
    }
    let worst = entries.max_by_key(|(_, tenant, used)| (counts.get(&***tenant).copied(), Reverse(*used)));
    worst.map(|(key, ..)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn cache_entries_of_a_tenant_are_pushed_out_by_its_own_alone() {
        let (mut cache, start) = (TenantCache::new(100, Duration::from_secs(60)), Instant::now());
        let at = |n: u32| start + Duration::from_millis(1) * n;
        for n in 0..3 {
            cache.get_or_insert_with(format!("b-{n}"), &"b".into(), at(n), || n);
        }
        for n in 0..10_000 {
            cache.get_or_insert_with(format!("a-{n}"), &"a".into(), at(n), || n);
        }
        assert_eq!(cache.entries.len(), 100);
        assert!((0..3).all(|n| cache.get(&format!("b-{n}")) == Some(&n)));
        assert!(cache.get(&"a-9999".to_owned()).is_some() && cache.get(&"a-0".to_owned()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn cache_entries_that_are_not_used_end_by_time() {
        let (mut cache, start) = (TenantCache::new(100, Duration::from_secs(60)), Instant::now());
        for n in 0..10 {
            cache.get_or_insert_with(n, &"a".into(), start, || n);
        }
        cache.get_or_insert_with(0, &"a".into(), start + Duration::from_secs(50), || 7);
        cache.get_or_insert_with(99, &"a".into(), start + Duration::from_secs(70), || 99);
        let mut left: Vec<_> = cache.entries.keys().copied().collect();
        left.sort_unstable();
        assert_eq!((left, cache.get(&0)), (vec![0, 99], Some(&0)));
    }
}
