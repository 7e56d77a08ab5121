//! Secrets that have changed, and whose users cannot all be reconciled at once: each change of a Secret that many use concerns
//! thousands, and so do changes of many Secrets. The reconciliations of a namespace are triggered in portions, so that Secrets that
//! change all the time cost a bounded amount. Those whose target has changed go first: they restore it.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::key::Key;

/// The TokenSources of a namespace that are triggered in one round.
pub(crate) const PORTION: usize = 100;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Crowds {
    round: Mutex<Round>,
    added: Notify,
}

/// By namespace.
#[derive(Debug, Default)]
struct Round {
    /// The number of TokenSources that were triggered at once since the last round.
    at_once: HashMap<Arc<str>, usize>,
    /// What waits for the next one.
    crowds: HashMap<Arc<str>, Crowd>,
}

#[derive(Debug, Default)]
struct Crowd {
    /// The Secrets whose writers are to be triggered, and those whose other users are.
    written: Names,
    read: Names,
    /// What is left of the writers of some, and of the other users of one, of these Secrets; the next is the last.
    writers: Vec<Key>,
    readers: Vec<Key>,
}

/// Names in the order of arrival, each once.
#[derive(Debug, Default)]
struct Names {
    order: VecDeque<Arc<str>>,
    known: HashSet<Arc<str>>,
}

impl Names {
    fn add(&mut self, name: &Arc<str>) {
        if self.known.insert(Arc::clone(name)) {
            self.order.push_back(Arc::clone(name));
        }
    }

    fn pop(&mut self) -> Option<Arc<str>> {
        let name = self.order.pop_front()?;
        self.known.remove(&name);
        Some(name)
    }
}

/// The users of a Secret.
#[derive(Debug, Default)]
pub(super) struct Users {
    /// Those whose target it is.
    pub(super) writers: Vec<Key>,
    /// The others.
    pub(super) readers: Vec<Key>,
}

impl Crowd {
    fn waits(&self) -> bool {
        let names = [&self.written, &self.read].iter().any(|names| !names.order.is_empty());
        names || !self.writers.is_empty() || !self.readers.is_empty()
    }

    /// The next portion; `users` are those of a Secret by its name.
    fn portion(&mut self, mut users: impl FnMut(Arc<str>) -> Users) -> Vec<Key> {
        let mut portion = vec![];
        // As many Secrets as TokenSources: some have no user any more.
        for _ in 0..PORTION {
            if portion.len() + self.writers.len() >= PORTION {
                break;
            }
            let Some(name) = self.written.pop() else { break };
            let writers = users(name).writers;
            self.writers.splice(0..0, writers.into_iter().rev());
        }
        take(&mut portion, &mut self.writers);
        for _ in 0..PORTION {
            take(&mut portion, &mut self.readers);
            if !self.readers.is_empty() {
                break;
            }
            let Some(name) = self.read.pop() else { break };
            self.readers = users(name).readers;
            self.readers.reverse();
        }
        portion
    }
}

/// Moves the last of `from`, as many as there is room for.
fn take(portion: &mut Vec<Key>, from: &mut Vec<Key>) {
    let room = PORTION.saturating_sub(portion.len());
    portion.extend(from.drain(from.len().saturating_sub(room)..).rev());
}

impl Crowds {
    /// Whether so many users of a Secret that has changed may be triggered at once; otherwise it is to be added.
    pub(super) fn admit(&self, secret: &Key, users: usize) -> bool {
        let round = &mut *self.lock();
        if round.crowds.contains_key(&secret.namespace) {
            return false;
        }
        let at_once = round.at_once.entry(Arc::clone(&secret.namespace)).or_default();
        let admits = *at_once + users <= PORTION;
        if admits {
            *at_once += users;
        }
        admits
    }

    /// A Secret has changed.
    pub(super) fn add(&self, secret: &Key) {
        let crowd = &mut self.lock().crowds;
        let crowd = crowd.entry(Arc::clone(&secret.namespace)).or_default();
        crowd.written.add(&secret.name);
        crowd.read.add(&secret.name);
        self.added.notify_one();
    }

    /// Waits for a round: a portion of each namespace's. For one caller at a time.
    pub(super) async fn next(&self, users: impl Fn(&Key) -> Users) -> Vec<Key> {
        loop {
            let portions = self.portions(&users);
            if !portions.is_empty() {
                return portions;
            }
            // What is left may have no users any more.
            if self.lock().crowds.is_empty() {
                self.added.notified().await;
            }
        }
    }

    fn portions(&self, users: impl Fn(&Key) -> Users) -> Vec<Key> {
        // Not under the lock: the users are behind another one, under which Secrets are added.
        let Round { mut crowds, .. } = std::mem::take(&mut *self.lock());
        let mut portions = vec![];
        for (namespace, crowd) in &mut crowds {
            portions.extend(crowd.portion(|name| users(&Key::from_parts(Arc::clone(namespace), name))));
        }
        crowds.retain(|_, crowd| crowd.waits());
        let mut round = self.lock();
        for (namespace, mut crowd) in crowds {
            if let Some(meanwhile) = round.crowds.remove(&namespace) {
                meanwhile.written.order.iter().for_each(|name| crowd.written.add(name));
                meanwhile.read.order.iter().for_each(|name| crowd.read.add(name));
            }
            round.crowds.insert(namespace, crowd);
        }
        portions
    }

    fn lock(&self) -> MutexGuard<'_, Round> {
        self.round.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// The users of `target` are one writer and 250 others, and those of any other Secret 50 others.
    fn users(secret: &Key) -> Users {
        let keys = |what: &str, count: u32| {
            (0..count).map(|n| secret.sibling(format!("{}-{what}-{n}", secret.name))).collect()
        };
        match &*secret.name {
            "target" => Users { writers: keys("writer", 1), readers: keys("reader", 250) },
            _ => Users { writers: vec![], readers: keys("reader", 50) },
        }
    }

    fn round(crowds: &Crowds) -> Vec<Key> {
        crowds.next(users).now_or_never().unwrap_or_default()
    }

    #[tokio::test]
    async fn crowd_writers_of_a_target_go_first_however_many_users_others_have() {
        let crowds = Crowds::default();
        (0..100).for_each(|n| crowds.add(&Key::new("ns", &format!("secret-{n}"))));
        assert_eq!(round(&crowds).len(), PORTION);
        crowds.add(&Key::new("ns", "target"));
        assert_eq!(&*round(&crowds)[0].name, "target-writer-0");
        // It changes again while its readers wait.
        crowds.add(&Key::new("ns", "target"));
        assert_eq!(&*round(&crowds)[0].name, "target-writer-0");
        let mut left = vec![];
        while let Some(next) = Some(round(&crowds)).filter(|next| !next.is_empty()) {
            assert!(next.len() <= PORTION);
            left.extend(next);
            assert!(left.len() < 10_000, "it has no end");
        }
        let readers = left.iter().filter(|key| key.name.starts_with("target-reader-")).count();
        assert_eq!((readers, left.len()), (250, 100 * 50 + 250 - 300 + 2));
    }

    #[tokio::test]
    async fn crowd_of_many_secrets_is_bounded_as_one_secret_is() {
        let crowds = Crowds::default();
        let secret = |n: u32| Key::new("ns", &format!("secret-{n}"));
        let changes = |n: u32| {
            let admitted = crowds.admit(&secret(n), 50);
            if !admitted {
                crowds.add(&secret(n));
            }
            admitted
        };
        assert_eq!((0..1000).filter(|n| changes(*n)).count(), 2);
        assert!(crowds.admit(&Key::new("other", "secret"), 50), "others are not concerned");
        assert_eq!(round(&crowds).len(), PORTION);
        assert!(!changes(0), "in their order");
        let rounds = (0..10_000).take_while(|_| !round(&crowds).is_empty()).count();
        assert!(rounds < 10_000, "they have an end");
        assert!(changes(0) && crowds.lock().crowds.is_empty());
    }
}
