//! The namespaces in which TokenSources are reconciled, where a label selector selects them.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::ResourceExt;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::cluster::{Event, FollowError, NamespaceObject};

/// The selected namespaces, as a watch has shown them.
#[derive(Debug)]
pub struct Namespaces {
    /// `None` selects all namespaces.
    selector: Option<String>,
    selected: Mutex<HashSet<String>>,
    /// Whether the first list has been read; true without a selector.
    listed: watch::Sender<bool>,
}

impl Namespaces {
    /// The namespaces with the labels of `selector`; without one, all.
    #[must_use]
    pub fn new(selector: Option<String>) -> Self {
        let listed = watch::Sender::new(selector.is_none());
        Namespaces { selector, selected: Mutex::default(), listed }
    }

    /// The label selector.
    #[must_use]
    pub fn selector(&self) -> Option<&str> {
        self.selector.as_deref()
    }

    /// Waits until the first list has been read.
    pub async fn ready(&self) {
        // The sender lives as long as `self`.
        let _ = self.listed.subscribe().wait_for(|listed| *listed).await;
    }

    /// Whether the first list has been read.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        *self.listed.borrow()
    }

    /// Whether the TokenSources of a namespace are reconciled.
    #[must_use]
    pub fn selects(&self, namespace: &str) -> bool {
        self.selector.is_none() || self.lock().contains(namespace)
    }

    /// Handles an event of the watch of selected namespaces. `list` holds the incomplete list between events. Returns the
    /// namespaces that were added or removed.
    pub(crate) fn handle(
        &self,
        list: &mut HashSet<String>,
        event: Result<Event<NamespaceObject>, FollowError>,
    ) -> Vec<String> {
        match event {
            Ok(Event::Init) => {
                list.clear();
                vec![]
            }
            Ok(Event::InitApply(namespace)) => {
                list.insert(namespace.name_any());
                vec![]
            }
            Ok(Event::InitDone) => {
                let before = std::mem::replace(&mut *self.lock(), std::mem::take(list));
                let changed = self.lock().symmetric_difference(&before).cloned().collect();
                self.listed.send_replace(true);
                changed
            }
            Ok(Event::Apply(namespace)) => {
                let name = namespace.name_any();
                let is_new = self.lock().insert(name.clone());
                if is_new {
                    info!(namespace = name, "namespace selected, its TokenSources are reconciled");
                }
                is_new.then_some(name).into_iter().collect()
            }
            Ok(Event::Delete(namespace)) => {
                let name = namespace.name_any();
                let was_there = self.lock().remove(&name);
                if was_there {
                    info!(
                        namespace = name,
                        "namespace no longer selected, its TokenSources are not reconciled"
                    );
                }
                was_there.then_some(name).into_iter().collect()
            }
            Err(error) => {
                warn!(%error, "the watch of namespaces failed");
                vec![]
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.selected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(name: &str) -> NamespaceObject {
        let mut namespace = NamespaceObject::default();
        namespace.metadata.name = Some(name.into());
        namespace
    }

    #[test]
    fn namespaces_without_selector_selects_every_namespace() {
        assert!(Namespaces::new(None).selects("any"));
    }

    #[test]
    fn namespaces_handle_returns_changes_of_events_and_of_a_second_list() {
        let namespaces = Namespaces::new(Some("team=a".into()));
        let mut list = HashSet::new();
        let mut changed = |event| {
            let mut names = namespaces.handle(&mut list, Ok(event));
            names.sort();
            names.join(" ")
        };
        assert_eq!(changed(Event::Init), "");
        assert_eq!(changed(Event::InitApply(namespace("a"))), "");
        assert!(!namespaces.selects("a"), "the list is not complete");
        assert_eq!(changed(Event::InitDone), "a");
        assert_eq!(changed(Event::Apply(namespace("a"))), "", "it was selected before");
        assert_eq!(changed(Event::Apply(namespace("b"))), "b");
        assert_eq!(changed(Event::Delete(namespace("a"))), "a");
        assert!(namespaces.selects("b") && !namespaces.selects("a"));

        changed(Event::Init);
        changed(Event::InitApply(namespace("c")));
        assert_eq!(changed(Event::InitDone), "b c", "the watch was down when b went and c came");
        assert!(namespaces.selects("c") && !namespaces.selects("b"));
    }
}
