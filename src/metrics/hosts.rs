//! The hosts that metrics name: those of the token endpoints of the TokenSources that there are, and not too many.

use std::collections::HashMap;
use std::sync::Arc;

/// The most hosts that are named.
pub(super) const MOST: usize = 200;
/// What the rest are called.
pub(super) const OTHER: &str = "other";

/// The hosts, with the number of TokenSources of each.
#[derive(Debug, Default)]
pub(super) struct Hosts {
    named: HashMap<Arc<str>, usize>,
}

impl Hosts {
    /// The name of a host in metrics.
    pub(super) fn known(&self, host: &str) -> Arc<str> {
        self.named.get_key_value(host).map_or_else(|| OTHER.into(), |(named, _)| Arc::clone(named))
    }

    /// The same, for one more TokenSource that uses it.
    pub(super) fn claim(&mut self, host: &str) -> Arc<str> {
        if !self.named.contains_key(host) && self.named.len() >= MOST {
            return OTHER.into();
        }
        *self.named.entry(host.into()).or_default() += 1;
        self.known(host)
    }

    /// A TokenSource uses a name no more. Returns it if it was the last one.
    pub(super) fn release(&mut self, name: &Arc<str>) -> Option<Arc<str>> {
        let users = self.named.get_mut(name)?;
        *users -= 1;
        if *users > 0 {
            return None;
        }
        self.named.remove(name);
        Some(Arc::clone(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_too_many_hosts_and_a_name_lives_as_long_as_its_users() {
        let mut hosts = Hosts::default();
        let names: Vec<Arc<str>> = (0..MOST).map(|n| hosts.claim(&format!("host-{n}"))).collect();
        assert_eq!(&*hosts.claim("one-too-many"), OTHER);
        assert_eq!(hosts.release(&hosts.known("one-too-many")), None);
        assert_eq!(&*hosts.claim("host-7"), "host-7");
        assert_eq!(hosts.release(&names[7]), None, "somebody uses it still");
        assert_eq!(hosts.release(&names[7]).as_deref(), Some("host-7"));
        assert_eq!(&*hosts.known("host-7"), OTHER);
        assert_eq!(&*hosts.claim("one-too-many"), "one-too-many");
    }
}
