//! The values of the label `host`: the hosts of the token endpoints of all TokenSources, up to a limit.

use std::collections::HashMap;
use std::sync::Arc;

use tenant_shares::has_share;

/// The most hosts with a label of their own; one namespace alone has 200 of them.
const MAX_HOSTS: usize = 250;
/// The label of all further hosts.
pub(super) const OTHER: &str = "other";

/// The labels, with their TokenSources.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    named: HashMap<Arc<str>, Label>,
    /// How many labels each namespace was the first to use.
    owned: HashMap<Arc<str>, usize>,
}

#[derive(Debug)]
struct Label {
    users: usize,
    /// The namespace that was the first to use it.
    owner: Arc<str>,
}

impl Hosts {
    /// The label of a host.
    pub(super) fn label(&self, host: &str) -> Arc<str> {
        self.named.get_key_value(host).map_or_else(|| OTHER.into(), |(named, _)| Arc::clone(named))
    }

    /// The label of a host for one more TokenSource of a namespace, which has its share of new labels.
    pub(super) fn claim(&mut self, host: &str, namespace: &Arc<str>) -> Arc<str> {
        if let Some(label) = self.named.get_mut(host) {
            label.users += 1;
            return self.label(host);
        }
        let owned = self.owned.get(namespace).copied().unwrap_or_default();
        if !has_share(owned, MAX_HOSTS.saturating_sub(self.named.len())) {
            return OTHER.into();
        }
        self.owned.insert(Arc::clone(namespace), owned + 1);
        self.named.insert(host.into(), Label { users: 1, owner: Arc::clone(namespace) });
        self.label(host)
    }

    /// A TokenSource does not use a label any more. Returns the label if it was the last one.
    pub(super) fn release(&mut self, label: &Arc<str>) -> Option<Arc<str>> {
        let used = self.named.get_mut(label)?;
        used.users -= 1;
        if used.users > 0 {
            return None;
        }
        let owner = self.named.remove(label)?.owner;
        if let Some(owned) = self.owned.get_mut(&owner) {
            *owned -= 1;
            if *owned == 0 {
                self.owned.remove(&owner);
            }
        }
        Some(Arc::clone(label))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_bounded_and_a_label_lives_as_long_as_its_users() {
        let (mut hosts, a) = (Hosts::default(), "a".into());
        let names: Vec<Arc<str>> = (0..200).map(|n| hosts.claim(&format!("host-{n}"), &a)).collect();
        assert_eq!(&*hosts.claim("one-too-many", &a), OTHER);
        assert_eq!(hosts.release(&hosts.label("one-too-many")), None);
        assert_eq!(&*hosts.claim("host-7", &"b".into()), "host-7");
        assert_eq!(hosts.release(&names[7]), None, "another TokenSource uses it");
        assert_eq!(hosts.release(&names[7]).as_deref(), Some("host-7"));
        assert_eq!(&*hosts.label("host-7"), OTHER);
        assert_eq!(&*hosts.claim("one-too-many", &a), "one-too-many");
    }

    #[test]
    fn hosts_of_one_namespace_leave_labels_to_others() {
        let mut hosts = Hosts::default();
        for n in 0..1000 {
            hosts.claim(&format!("crowd-{n}"), &"crowd".into());
        }
        assert!((0..20).all(|n| *hosts.claim(&format!("other-{n}"), &"other".into()) != *OTHER));
        assert!(hosts.named.len() <= MAX_HOSTS);
    }
}
