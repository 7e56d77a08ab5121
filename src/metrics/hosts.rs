//! The values of the label `host`: the hosts of the token endpoints of all TokenSources, up to a limit.

use std::collections::HashMap;
use std::sync::Arc;

/// The most hosts with a label of their own.
pub(super) const MAX_HOSTS: usize = 200;
/// The label of all further hosts.
pub(super) const OTHER: &str = "other";

/// The labels, with the number of TokenSources of each.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    named: HashMap<Arc<str>, usize>,
}

impl Hosts {
    /// The label of a host.
    pub(super) fn label(&self, host: &str) -> Arc<str> {
        self.named.get_key_value(host).map_or_else(|| OTHER.into(), |(named, _)| Arc::clone(named))
    }

    /// The label of a host for one more TokenSource.
    pub(super) fn claim(&mut self, host: &str) -> Arc<str> {
        if !self.named.contains_key(host) && self.named.len() >= MAX_HOSTS {
            return OTHER.into();
        }
        *self.named.entry(host.into()).or_default() += 1;
        self.label(host)
    }

    /// A TokenSource does not use a label any more. Returns the label if it was the last one.
    pub(super) fn release(&mut self, label: &Arc<str>) -> Option<Arc<str>> {
        let users = self.named.get_mut(label)?;
        *users -= 1;
        if *users > 0 {
            return None;
        }
        self.named.remove(label);
        Some(Arc::clone(label))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_bounded_and_a_label_lives_as_long_as_its_users() {
        let mut hosts = Hosts::default();
        let names: Vec<Arc<str>> = (0..MAX_HOSTS).map(|n| hosts.claim(&format!("host-{n}"))).collect();
        assert_eq!(&*hosts.claim("one-too-many"), OTHER);
        assert_eq!(hosts.release(&hosts.label("one-too-many")), None);
        assert_eq!(&*hosts.claim("host-7"), "host-7");
        assert_eq!(hosts.release(&names[7]), None, "another TokenSource uses it");
        assert_eq!(hosts.release(&names[7]).as_deref(), Some("host-7"));
        assert_eq!(&*hosts.label("host-7"), OTHER);
        assert_eq!(&*hosts.claim("one-too-many"), "one-too-many");
    }
}
