//! Where endpoints and origins stand in the indexes.

use super::super::circuit::Passage;
use super::{Listed, Queue, Timer};
use std::hash::Hash;
use std::sync::Arc;
use tokio::time::Instant;

impl<K: Clone + Eq + Hash> Queue<K> {
    /// Puts the first entry of an endpoint where it belongs now.
    pub(super) fn list_endpoint(&mut self, name: &Arc<str>, now: Instant) {
        let Some(endpoint) = self.endpoints.get_mut(name) else { return };
        let wanted = match (endpoint.queue.first_key_value(), endpoint.circuit.passage(now)) {
            (Some((turn, _)), Passage::Closed | Passage::Probe) => Listed::Ready(*turn),
            (Some(_), Passage::Blocked(Some(at))) => Listed::At(at),
            _ => Listed::Nowhere,
        };
        let before = std::mem::replace(&mut endpoint.listed, wanted);
        let origin_name = Arc::clone(&endpoint.origin);
        if before != wanted {
            let origin = self.origins.get_mut(&origin_name);
            match before {
                Listed::Ready(turn) => {
                    origin.map(|origin| origin.heads.remove(&(turn, Arc::clone(name))));
                }
                Listed::At(at) => {
                    self.timers.remove(&(at, Timer::Endpoint(Arc::clone(name))));
                }
                Listed::Nowhere => {}
            }
            let origin = self.origins.get_mut(&origin_name);
            match wanted {
                Listed::Ready(turn) => {
                    origin.map(|origin| origin.heads.insert((turn, Arc::clone(name))));
                }
                Listed::At(at) => {
                    self.timers.insert((at, Timer::Endpoint(Arc::clone(name))));
                }
                Listed::Nowhere => {}
            }
        }
        self.list_origin(&origin_name, now);
    }

    /// Puts an origin where it belongs now.
    pub(super) fn list_origin(&mut self, name: &Arc<str>, now: Instant) {
        let Some(origin) = self.origins.get_mut(name) else { return };
        let wanted = match origin.heads.first() {
            Some((turn, _)) if origin.in_flight < self.limits.in_flight => {
                if origin.rate.next > now {
                    Listed::At(origin.rate.next)
                } else {
                    Listed::Ready(*turn)
                }
            }
            _ => Listed::Nowhere,
        };
        if origin.listed == wanted {
            return;
        }
        self.unlist_origin(name);
        match wanted {
            Listed::Ready(turn) => drop(self.ready.insert((turn, Arc::clone(name)))),
            Listed::At(at) => drop(self.timers.insert((at, Timer::Origin(Arc::clone(name))))),
            Listed::Nowhere => {}
        }
        if let Some(origin) = self.origins.get_mut(name) {
            origin.listed = wanted;
        }
    }

    pub(super) fn unlist_origin(&mut self, name: &Arc<str>) {
        let Some(origin) = self.origins.get_mut(name) else { return };
        match std::mem::replace(&mut origin.listed, Listed::Nowhere) {
            Listed::Ready(turn) => drop(self.ready.remove(&(turn, Arc::clone(name)))),
            Listed::At(at) => drop(self.timers.remove(&(at, Timer::Origin(Arc::clone(name))))),
            Listed::Nowhere => {}
        }
    }
}
