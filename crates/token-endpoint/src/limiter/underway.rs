//! What a tenant has under way: its requests, and what is still to be done with their answers.

use super::entry::Tenant;
use super::shared::Shared;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

/// Counts a request as under way until it is dropped: keep it with an answer that takes memory until it is dealt with.
pub struct Underway<K: Clone + Eq + Hash> {
    shared: Arc<Shared<K>>,
    tenant: Tenant,
}

impl<K: Clone + Eq + Hash> Underway<K> {
    pub(super) fn new(shared: Arc<Shared<K>>, tenant: Tenant) -> Arc<Self> {
        Arc::new(Self { shared, tenant })
    }
}

impl<K: Clone + Eq + Hash> fmt::Debug for Underway<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Underway").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl<K: Clone + Eq + Hash> Drop for Underway<K> {
    fn drop(&mut self) {
        self.shared.queue().ended(&self.tenant, self.shared.now());
        self.shared.changed.notify_one();
    }
}
