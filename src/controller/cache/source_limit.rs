//! Which TokenSources of a namespace are served, where their number is limited: the oldest.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::source::Age;

/// See the module. Each step costs the logarithm of the number of TokenSources; without a limit nothing is kept.
#[derive(Debug, Default)]
pub(crate) struct SourceLimit {
    max: Option<usize>,
    namespaces: HashMap<Arc<str>, Split>,
}

#[derive(Debug, Default)]
struct Split {
    served: BTreeSet<Age>,
    beyond: BTreeSet<Age>,
}

impl SourceLimit {
    /// So many for each namespace.
    pub(crate) fn new(max: Option<usize>) -> Self {
        SourceLimit { max, namespaces: HashMap::new() }
    }

    /// The limit, if this TokenSource is beyond it.
    pub(crate) fn exceeded_by(&self, namespace: &str, age: &Age) -> Option<usize> {
        self.max.filter(|_| self.namespaces.get(namespace).is_some_and(|split| split.beyond.contains(age)))
    }

    /// A TokenSource is there. Returns the name of another one that is not served any more.
    pub(crate) fn add(&mut self, namespace: &Arc<str>, age: Age) -> Option<Arc<str>> {
        let max = self.max?;
        let split = self.namespaces.entry(Arc::clone(namespace)).or_default();
        if split.served.contains(&age) || split.beyond.contains(&age) {
            return None;
        }
        split.served.insert(age.clone());
        let youngest = if split.served.len() > max { split.served.pop_last()? } else { return None };
        let name = Arc::clone(&youngest.1);
        let is_other = youngest != age;
        split.beyond.insert(youngest);
        is_other.then_some(name)
    }

    /// A TokenSource is gone. Returns the name of another one that is served from now on.
    pub(crate) fn remove(&mut self, namespace: &str, age: &Age) -> Option<Arc<str>> {
        let split = self.namespaces.get_mut(namespace)?;
        split.beyond.remove(age);
        let oldest = if split.served.remove(age) { split.beyond.pop_first() } else { None };
        let name = oldest.as_ref().map(|(_, name)| Arc::clone(name));
        split.served.extend(oldest);
        if split.served.is_empty() {
            self.namespaces.remove(namespace);
        }
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_limit_serves_the_oldest_in_whatever_order_they_are_shown() {
        let age = |created| (created, Arc::from(format!("source-{created}")));
        let namespace = "ns".into();
        for order in [[1, 2, 3, 4, 5], [5, 4, 3, 2, 1], [3, 5, 1, 4, 2]] {
            let mut limit = SourceLimit::new(Some(3));
            let beyond = |limit: &SourceLimit| {
                (1..=5)
                    .filter(|created| limit.exceeded_by("ns", &age(*created)) == Some(3))
                    .collect::<Vec<_>>()
            };
            for created in order {
                limit.add(&namespace, age(created));
                limit.add(&namespace, age(created));
            }
            assert_eq!(beyond(&limit), [4, 5], "{order:?}");
            assert_eq!(limit.remove("ns", &age(2)).as_deref(), Some("source-4"));
            assert_eq!(limit.remove("ns", &age(5)), None);
            assert_eq!(limit.add(&namespace, age(2)).as_deref(), Some("source-4"), "the youngest goes");
            assert_eq!(beyond(&limit), [4]);
            for created in [1, 2, 3, 4] {
                limit.remove("ns", &age(created));
            }
            assert!(limit.namespaces.is_empty());
        }
    }

    #[test]
    fn source_limit_is_for_each_namespace_and_off_by_default() {
        let mut limit = SourceLimit::new(Some(1));
        for namespace in ["a", "b"] {
            limit.add(&namespace.into(), (1, "s".into()));
            assert_eq!(limit.exceeded_by(namespace, &(1, "s".into())), None);
        }
        let mut none = SourceLimit::default();
        none.add(&"a".into(), (1, "s".into()));
        assert!(none.namespaces.is_empty() && none.exceeded_by("a", &(1, "s".into())).is_none());
    }
}
