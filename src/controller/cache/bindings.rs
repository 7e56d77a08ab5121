//! Where the operator has its rights by namespace: the namespaces that have TokenSources, and whether a RoleBinding grants the
//! rights there, as reads have shown it.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::binding::Grant;

/// Whether the operator has its rights in a namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// No read has shown it yet.
    Unknown,
    /// It has, and the Secrets there were listed.
    Granted,
    /// It has not.
    Refused,
}

/// See the module.
#[derive(Debug)]
pub struct Bindings {
    /// `None`: the operator has its rights wherever it follows TokenSources.
    grant: Option<Grant>,
    namespaces: Mutex<HashMap<Arc<str>, Namespace>>,
    /// The namespaces that are to be read without delay.
    asked: Mutex<Vec<Arc<str>>>,
    is_asked: Notify,
}

#[derive(Debug)]
struct Namespace {
    /// The number of its TokenSources.
    sources: usize,
    access: Access,
}

impl Bindings {
    pub(crate) fn new(grant: Option<Grant>) -> Self {
        Bindings { grant, namespaces: Mutex::default(), asked: Mutex::default(), is_asked: Notify::new() }
    }

    /// A TokenSource has appeared in a namespace.
    pub(crate) fn source_added(&self, namespace: &Arc<str>) {
        if self.grant.is_none() {
            return;
        }
        match self.lock().entry(Arc::clone(namespace)) {
            Entry::Occupied(mut entry) => entry.get_mut().sources += 1,
            Entry::Vacant(entry) => {
                entry.insert(Namespace { sources: 1, access: Access::Unknown });
                self.push(Arc::clone(namespace));
            }
        }
    }

    /// A TokenSource is gone from a namespace. Without one, nothing is kept of the namespace.
    pub(crate) fn source_removed(&self, namespace: &Arc<str>) {
        if let Entry::Occupied(mut entry) = self.lock().entry(Arc::clone(namespace)) {
            entry.get_mut().sources -= 1;
            if entry.get().sources == 0 {
                entry.remove();
            }
        }
    }

    /// How many TokenSources a namespace has.
    pub(crate) fn sources(&self, namespace: &str) -> usize {
        self.lock().get(namespace).map_or(0, |it| it.sources)
    }

    /// The namespaces that have TokenSources.
    pub(crate) fn namespaces(&self) -> Vec<Arc<str>> {
        self.lock().keys().cloned().collect()
    }

    /// Whether the operator has its rights in a namespace.
    pub(crate) fn access(&self, namespace: &str) -> Access {
        match self.grant {
            None => Access::Granted,
            Some(_) => self.lock().get(namespace).map_or(Access::Unknown, |it| it.access),
        }
    }

    /// The command that grants the rights in a namespace, where they are missing.
    pub(crate) fn missing(&self, namespace: &str) -> Option<String> {
        let grant = self.grant.as_ref()?;
        (self.access(namespace) == Access::Refused).then(|| grant.command(namespace))
    }

    /// Stores what reads have shown. Returns whether that has changed.
    pub(crate) fn shown(&self, namespace: &str, access: Access) -> bool {
        let mut namespaces = self.lock();
        let before = namespaces.get_mut(namespace).map(|it| std::mem::replace(&mut it.access, access));
        before.is_some_and(|before| before != access)
    }

    /// Has a namespace read without delay, if it has TokenSources.
    pub(crate) fn ask(&self, namespace: &str) {
        let known = self.lock().get_key_value(namespace).map(|(namespace, _)| Arc::clone(namespace));
        known.into_iter().for_each(|namespace| self.push(namespace));
    }

    fn push(&self, namespace: Arc<str>) {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(namespace);
        self.is_asked.notify_one();
    }

    /// Waits for namespaces that are to be read without delay.
    pub(crate) async fn asked(&self) -> Vec<Arc<str>> {
        loop {
            let asked = std::mem::take(&mut *self.asked.lock().unwrap_or_else(PoisonError::into_inner));
            if !asked.is_empty() {
                return asked;
            }
            self.is_asked.notified().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Namespace>> {
        // Ignores poisoning: no code panics between the steps of a change.
        self.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by_namespace() -> Bindings {
        let account = "system:operator".parse().unwrap();
        Bindings::new(Some(Grant { role: "served".into(), account }))
    }

    #[test]
    fn bindings_without_a_grant_grant_every_namespace() {
        let bindings = Bindings::new(None);
        bindings.source_added(&"a".into());
        assert_eq!((bindings.access("a"), bindings.missing("a")), (Access::Granted, None));
        assert!(bindings.namespaces().is_empty(), "nothing is kept");
    }

    #[tokio::test]
    async fn bindings_keep_a_namespace_from_its_first_source_to_its_last() {
        let (bindings, a) = (by_namespace(), Arc::from("a"));
        bindings.source_added(&a);
        bindings.source_added(&a);
        assert_eq!(bindings.asked().await, [Arc::clone(&a)], "once");
        assert_eq!((bindings.access("a"), bindings.sources("a")), (Access::Unknown, 2));
        assert!(bindings.shown("a", Access::Refused) && !bindings.shown("a", Access::Refused));
        let command = "kubectl -n a create rolebinding tokensource-operator --clusterrole=served --serviceaccount=system:operator";
        assert_eq!(bindings.missing("a").as_deref(), Some(command));
        assert!(bindings.shown("a", Access::Granted));
        assert_eq!(bindings.missing("a"), None);
        bindings.source_removed(&a);
        assert_eq!(bindings.access("a"), Access::Granted);
        bindings.ask("a");
        bindings.ask("without TokenSources");
        assert_eq!(bindings.asked().await, [Arc::clone(&a)]);
        bindings.source_removed(&a);
        assert_eq!((bindings.access("a"), bindings.sources("a")), (Access::Unknown, 0));
        assert!(!bindings.shown("a", Access::Granted), "it has no TokenSource");
    }
}
