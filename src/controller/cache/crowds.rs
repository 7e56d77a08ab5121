//! Secrets that many TokenSources use, and that have changed. Each change of such a Secret concerns thousands: their
//! reconciliations are triggered in portions, so that a Secret that changes all the time costs a bounded amount.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::key::Key;

/// The TokenSources of a namespace that are triggered together, and the number of users from which on a Secret has a crowd.
pub(crate) const PORTION: usize = 100;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Crowds {
    namespaces: Mutex<HashMap<Arc<str>, Crowd>>,
    added: Notify,
}

#[derive(Debug, Default)]
struct Crowd {
    /// The Secrets whose users are to be triggered, each once.
    changed: VecDeque<Arc<str>>,
    /// What is left of the users of one of them.
    users: Vec<Key>,
}

impl Crowds {
    /// A Secret has changed.
    pub(super) fn add(&self, secret: &Key) {
        let mut namespaces = self.lock();
        let crowd = namespaces.entry(Arc::clone(&secret.namespace)).or_default();
        if !crowd.changed.contains(&secret.name) {
            crowd.changed.push_back(Arc::clone(&secret.name));
            self.added.notify_one();
        }
    }

    /// Waits for a portion of each namespace's, for one caller at a time.
    pub(super) async fn next(&self, users: impl Fn(&Key) -> Vec<Key>) -> Vec<Key> {
        loop {
            let portions = self.portions(&users);
            if !portions.is_empty() {
                return portions;
            }
            self.added.notified().await;
        }
    }

    fn portions(&self, users: impl Fn(&Key) -> Vec<Key>) -> Vec<Key> {
        let next = |(namespace, crowd): (&Arc<str>, &mut Crowd)| {
            let secret = if crowd.users.is_empty() { crowd.changed.pop_front() } else { None };
            secret.map(|name| Key { namespace: Arc::clone(namespace), name })
        };
        let begun: Vec<Key> = self.lock().iter_mut().filter_map(next).collect();
        // Not under the lock: the users are behind another one.
        let begun: Vec<(Key, Vec<Key>)> =
            begun.into_iter().map(|secret| (secret.clone(), users(&secret))).collect();
        let mut namespaces = self.lock();
        for (secret, users) in begun {
            namespaces.entry(secret.namespace).or_default().users = users;
        }
        let portion = |crowd: &mut Crowd| crowd.users.split_off(crowd.users.len().saturating_sub(PORTION));
        let portions = namespaces.values_mut().flat_map(portion).collect();
        namespaces.retain(|_, crowd| !crowd.users.is_empty() || !crowd.changed.is_empty());
        portions
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Crowd>> {
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
