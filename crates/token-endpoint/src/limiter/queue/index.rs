//! Where endpoints, lanes and origins stand in the indexes.

use super::super::circuit::Passage;
use super::super::entry::{EndpointKey, Tenant};
use super::super::origin::Listed;
use super::{Queue, Timer};
use std::hash::Hash;
use std::sync::Arc;
use tenant_shares::has_share;
use tokio::time::Instant;

impl<K: Clone + Eq + Hash> Queue<K> {
    /// How many requests may begin before the process has all under way that it may.
    pub(super) fn free(&self) -> usize {
        self.limits.underway().saturating_sub(self.underway)
    }

    /// A tenant that is alone may have all.
    pub(super) fn tenant_has_share(&self, tenant: &str) -> bool {
        let underway = self.tenants.get(tenant).map_or(0, |state| state.underway);
        self.tenants.len() == 1 || has_share(underway, self.free())
    }

    /// An origin that hangs must leave room for the others, also where all are one tenant's.
    pub(super) fn origin_has_share(&self, origin: &str) -> bool {
        self.origins.get(origin).is_none_or(|origin| has_share(origin.in_flight, self.free()))
    }

    /// Puts the first entry of an endpoint where it belongs now.
    pub(super) fn list_endpoint(&mut self, key: &EndpointKey, now: Instant) {
        let Some(endpoint) = self.tenants.get_mut(&key.tenant).and_then(|it| it.endpoints.get_mut(&key.url))
        else {
            return;
        };
        let wanted = match (endpoint.queue.first_key_value(), endpoint.circuit.passage(now)) {
            (Some((turn, _)), Passage::Closed | Passage::Probe) => Listed::Ready(*turn),
            (Some(_), Passage::Blocked(at)) => Listed::At(at),
            _ => Listed::Nowhere,
        };
        let before = std::mem::replace(&mut endpoint.listed, wanted);
        let origin = Arc::clone(&endpoint.origin);
        if before != wanted {
            let lane = self.origins.get_mut(&origin).and_then(|it| it.lanes.get_mut(&key.tenant));
            if let Some(lane) = lane {
                if let Listed::Ready(turn) = before {
                    lane.heads.remove(&(turn, Arc::clone(&key.url)));
                }
                if let Listed::Ready(turn) = wanted {
                    lane.heads.insert((turn, Arc::clone(&key.url)));
                }
            }
            self.move_timer(before, wanted, &Timer::Endpoint(key.clone()));
        }
        self.list_lane(&origin, &key.tenant, now);
    }

    /// Puts a tenant's lane where it belongs now.
    pub(super) fn list_lane(&mut self, name: &Arc<str>, tenant: &Tenant, now: Instant) {
        let has_share = self.tenant_has_share(tenant);
        let Some(origin) = self.origins.get_mut(name) else { return };
        if let Some(lane) = origin.lanes.get_mut(tenant) {
            let wanted = match (lane.heads.first(), lane.next_by_rate(now)) {
                (None, _) => Listed::Nowhere,
                (Some(_), Some(at)) => Listed::At(at),
                (Some((turn, _)), None) if has_share => Listed::Ready(*turn),
                (Some((turn, _)), None) => Listed::Held(*turn),
            };
            let before = std::mem::replace(&mut lane.listed, wanted);
            if before != wanted {
                match wanted {
                    Listed::Ready(turn) => origin.turns.set(tenant, Some(turn)),
                    _ => origin.turns.set(tenant, None),
                }
                self.hold_lane(name, tenant, before, wanted);
                self.move_timer(before, wanted, &Timer::Lane(Arc::clone(name), Arc::clone(tenant)));
            }
        }
        self.list_origin(name, now);
    }

    fn hold_lane(&mut self, origin: &Arc<str>, tenant: &Tenant, before: Listed, wanted: Listed) {
        let Some(state) = self.tenants.get_mut(tenant) else { return };
        if let Listed::Held(turn) = before {
            state.held.remove(&(turn, Arc::clone(origin)));
        }
        if let Listed::Held(turn) = wanted {
            state.held.insert((turn, Arc::clone(origin)));
        }
        if state.held.is_empty() {
            self.held.remove(tenant);
        } else {
            self.held.insert(Arc::clone(tenant));
        }
    }

    /// Puts an origin where it belongs now.
    pub(super) fn list_origin(&mut self, name: &Arc<str>, now: Instant) {
        let has_share = self.origin_has_share(name);
        let limits = self.limits_of(name);
        let Some(origin) = self.origins.get_mut(name) else { return };
        let wanted = match origin.next(limits) {
            None => Listed::Nowhere,
            Some(_) if origin.rate.next > now => Listed::At(origin.rate.next),
            Some((turn, _)) if has_share => Listed::Ready(turn),
            Some((turn, _)) => Listed::Held(turn),
        };
        if origin.listed == wanted {
            return;
        }
        self.unlist_origin(name);
        match wanted {
            Listed::Ready(turn) => drop(self.ready.insert((turn, Arc::clone(name)))),
            Listed::At(at) => drop(self.timers.insert((at, Timer::Origin(Arc::clone(name))))),
            Listed::Held(_) => drop(self.over.insert(Arc::clone(name))),
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
            Listed::Held(_) => drop(self.over.remove(name)),
            Listed::Nowhere => {}
        }
    }

    /// Lists what waited for its share of the process and has it now, as much as may begin. Returns whether there was any.
    pub(super) fn list_held(&mut self, now: Instant) -> bool {
        let origins: Vec<_> = self.over.iter().filter(|it| self.origin_has_share(it)).cloned().collect();
        let tenants: Vec<_> = self.held.iter().filter(|it| self.tenant_has_share(it)).cloned().collect();
        let count = self.free();
        for origin in &origins {
            self.list_origin(origin, now);
        }
        for tenant in &tenants {
            let lanes = self.tenants.get(tenant).map(|state| state.held.iter().take(count));
            let lanes: Vec<_> = lanes.into_iter().flatten().map(|(_, origin)| Arc::clone(origin)).collect();
            for origin in lanes {
                self.list_lane(&origin, tenant, now);
            }
        }
        !origins.is_empty() || !tenants.is_empty()
    }

    fn move_timer(&mut self, before: Listed, wanted: Listed, timer: &Timer) {
        if let Listed::At(at) = before {
            self.timers.remove(&(at, timer.clone()));
        }
        if let Listed::At(at) = wanted {
            self.timers.insert((at, timer.clone()));
        }
    }
}
