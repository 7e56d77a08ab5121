//! The namespaces in which TokenSources are reconciled, where the platform selects them by their labels.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use tokio::sync::watch;
use tracing::{info, warn};

/// Which namespaces are selected, as far as a watch has told.
#[derive(Debug)]
pub struct Namespaces {
    /// The labels that select; without any, all namespaces are.
    selector: Option<String>,
    selected: Mutex<HashSet<String>>,
    /// The first list has been read, or there is none to read.
    listed: watch::Sender<bool>,
}

impl Namespaces {
    /// Those that `selector` selects; all without one.
    #[must_use]
    pub fn new(selector: Option<String>) -> Self {
        let listed = watch::Sender::new(selector.is_none());
        Namespaces { selector, selected: Mutex::default(), listed }
    }

    /// The labels that select.
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

    /// Takes in what a watch on the selected namespaces tells. `list` is what it has told of a list that is not
    /// complete yet. Returns the namespaces that are selected since, or no more.
    pub fn take_in(
        &self,
        list: &mut HashSet<String>,
        event: watcher::Result<Event<PartialObjectMeta<Namespace>>>,
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
                    info!(namespace = name, "selected: its TokenSources are reconciled from now on");
                }
                is_new.then_some(name).into_iter().collect()
            }
            Ok(Event::Delete(namespace)) => {
                let name = namespace.name_any();
                let was_there = self.lock().remove(&name);
                if was_there {
                    info!(
                        namespace = name,
                        "no longer selected: its TokenSources are left alone from now on"
                    );
                }
                was_there.then_some(name).into_iter().collect()
            }
            Err(error) => {
                warn!(%error, "watching namespaces");
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

    fn namespace(name: &str) -> PartialObjectMeta<Namespace> {
        let mut namespace = PartialObjectMeta::default();
        namespace.metadata.name = Some(name.into());
        namespace
    }

    #[test]
    fn without_a_selector_every_namespace_is_selected() {
        assert!(Namespaces::new(None).selects("any"));
    }

    #[test]
    fn what_changes_is_told_also_by_a_second_list() {
        let namespaces = Namespaces::new(Some("team=a".into()));
        let mut list = HashSet::new();
        let mut told = |event| {
            let mut changed = namespaces.take_in(&mut list, Ok(event));
            changed.sort();
            changed.join(" ")
        };
        assert_eq!(told(Event::Init), "");
        assert_eq!(told(Event::InitApply(namespace("a"))), "");
        assert!(!namespaces.selects("a"), "the list is not complete");
        assert_eq!(told(Event::InitDone), "a");
        assert_eq!(told(Event::Apply(namespace("a"))), "", "nothing has changed for us");
        assert_eq!(told(Event::Apply(namespace("b"))), "b");
        assert_eq!(told(Event::Delete(namespace("a"))), "a");
        assert!(namespaces.selects("b") && !namespaces.selects("a"));

        told(Event::Init);
        told(Event::InitApply(namespace("c")));
        assert_eq!(told(Event::InitDone), "b c", "the watch was down when b went and c came");
        assert!(namespaces.selects("c") && !namespaces.selects("b"));
    }
}
