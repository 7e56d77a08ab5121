//! What is kept of tenants, endpoints and identities: it ends by time, and is bounded by number. A tenant that has more than its
//! share loses what is its own.

use super::super::entry::{EndpointKey, Tenant};
use super::super::identity::Identity;
use super::super::identity_state::IdentityState;
use super::super::limits::Limits;
use super::super::origin::{Lane, Origin};
use super::super::tenant::{Endpoint, TenantState};
use super::{Queue, Timer};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;
use tenant_shares::{has_share, share};
use tokio::time::Instant;

/// Endpoints, identities and lanes of a tenant, above which those that say nothing are forgotten.
const PRUNE_ABOVE: usize = 1024;
/// Those of all tenants together, each of about half a KiB.
const MAX_KEPT: usize = 16_384;
/// Clients that have succeeded, of all tenants together.
const MAX_SUCCEEDED: usize = 65_536;
/// How often what is old is looked for.
const FORGET_INTERVAL: Duration = Duration::from_secs(600);
/// How long a tenant counts as one of those that share an origin, since its last request.
const LANE_KEPT: Duration = Duration::from_secs(3600);
/// How long it counts that a client has succeeded.
const SUCCEEDED_KEPT: Duration = Duration::from_secs(24 * 3600);

impl<K: Clone + Eq + Hash> Queue<K> {
    pub(super) fn tenant(&mut self, tenant: &Tenant, now: Instant) -> &mut TenantState<K> {
        if !self.tenants.contains_key(tenant) {
            self.timers.insert((now + FORGET_INTERVAL, Timer::Tenant(Arc::clone(tenant))));
        }
        self.tenants.entry(Arc::clone(tenant)).or_insert_with(|| TenantState::new(PRUNE_ABOVE))
    }

    /// The limits of an origin.
    pub(super) fn limits_of(&self, origin: &str) -> Limits {
        self.own_limits.get(origin).copied().unwrap_or(self.limits)
    }

    /// Gives limits of its own to an origin.
    pub(super) fn limit_origin(&mut self, name: &str, limits: Limits) {
        if self.own_limits.get(name) == Some(&limits) {
            return;
        }
        self.own_limits.insert(name.into(), limits);
        if let Some(origin) = self.origins.get_mut(name) {
            origin.rate.limit_to(f64::from(limits.per_second));
        }
    }

    pub(super) fn known_endpoint(&mut self, endpoint: &EndpointKey) -> Option<&mut Endpoint<K>> {
        self.tenants.get_mut(&endpoint.tenant)?.endpoints.get_mut(&endpoint.url)
    }

    /// The key of an endpoint, which is known from now on.
    pub(super) fn endpoint(&mut self, tenant: &Tenant, url: &str, origin: &str, now: Instant) -> EndpointKey {
        let state = self.tenant(tenant, now);
        if let Some((url, _)) = state.endpoints.get_key_value(url) {
            return EndpointKey { tenant: Arc::clone(tenant), url: Arc::clone(url) };
        }
        let known = self.origins.get_key_value(origin).map(|(name, _)| Arc::clone(name));
        let origin = known.unwrap_or_else(|| origin.into());
        let limits = self.limits_of(&origin);
        let lanes = self.origins.entry(Arc::clone(&origin)).or_insert_with(|| Origin::new(limits, now));
        let lane = lanes.lanes.entry(Arc::clone(tenant)).or_insert_with(|| Lane::new(limits, now));
        lane.endpoints += 1;
        let url: Arc<str> = url.into();
        let state = self.tenant(tenant, now);
        state.origins.insert(Arc::clone(&origin));
        state.endpoints.insert(Arc::clone(&url), Endpoint::new(origin));
        EndpointKey { tenant: Arc::clone(tenant), url }
    }

    /// Forgets an endpoint that says nothing.
    pub(super) fn forget_endpoint(&mut self, endpoint: &EndpointKey, now: Instant) {
        let Some(state) = self.tenants.get_mut(&endpoint.tenant) else { return };
        if state.endpoints.get(&endpoint.url).is_none_or(|it| !it.is_idle(now)) {
            return;
        }
        let Some(Endpoint { origin, .. }) = state.endpoints.remove(&endpoint.url) else { return };
        let lane = self.origins.get_mut(&origin).and_then(|it| it.lanes.get_mut(&endpoint.tenant));
        if let Some(lane) = lane {
            lane.endpoints = lane.endpoints.saturating_sub(1);
        }
    }

    pub(super) fn client(
        &mut self,
        tenant: &Tenant,
        client: Identity,
        now: Instant,
    ) -> &mut IdentityState<K> {
        let limit = f64::from(self.limits.per_second);
        let state = self.tenant(tenant, now);
        let has_succeeded = state.succeeded.contains_key(&client);
        state.identities.entry(client).or_insert_with(|| IdentityState::new(true, has_succeeded, limit, now))
    }

    /// The state of a grant or a request, which exists only where it says something.
    pub(super) fn state(
        &mut self,
        tenant: &Tenant,
        identity: Identity,
        now: Instant,
    ) -> &mut IdentityState<K> {
        let limit = f64::from(self.limits.per_second);
        let state = self.tenant(tenant, now);
        state.identities.entry(identity).or_insert_with(|| IdentityState::new(false, false, limit, now))
    }

    /// A client has succeeded.
    pub(super) fn has_succeeded(&mut self, tenant: &Tenant, client: Identity, now: Instant) {
        let (all, is_alone) = (self.succeeded, self.tenants.len() == 1);
        let state = self.tenant(tenant, now);
        let free = MAX_SUCCEEDED.saturating_sub(all);
        let is_new = !state.succeeded.contains_key(&client);
        let has_room = if is_alone { free > 0 } else { has_share(state.succeeded.len(), free) };
        let mut forgotten = 0;
        if is_new && !has_room {
            forgotten = state.succeeded.len();
            state.succeeded.clear();
        }
        state.succeeded.insert(client, now);
        self.succeeded = (all + usize::from(is_new)).saturating_sub(forgotten);
    }

    /// What a tenant has changed its requests for stays only for a time.
    pub(super) fn forget_old(&mut self, tenant: &Tenant, now: Instant) {
        self.forget_idle(tenant, LANE_KEPT, now);
        let Some(state) = self.tenants.get_mut(tenant) else { return };
        let before = state.succeeded.len();
        state.succeeded.retain(|_, at| now.saturating_duration_since(*at) < SUCCEEDED_KEPT);
        self.succeeded = self.succeeded.saturating_sub(before - state.succeeded.len());
        if state.is_unknown() {
            self.tenants.remove(tenant);
        } else {
            self.timers.insert((now + FORGET_INTERVAL, Timer::Tenant(Arc::clone(tenant))));
        }
    }

    /// Before something new is kept of a tenant: forgets what says nothing, now and then, and beyond its share all that is not
    /// in use.
    pub(super) fn prune(&mut self, tenant: &Tenant, now: Instant) {
        if self.tenants.get(tenant).is_none_or(|state| state.kept() < state.prune_above) {
            return;
        }
        self.forget_idle(tenant, Duration::ZERO, now);
        let others = self.tenants.iter().filter(|(name, _)| *name != tenant);
        let share = share(MAX_KEPT, others.map(|(_, state)| state.kept()).sum());
        let Some(state) = self.tenants.get_mut(tenant) else { return };
        if state.kept() > share {
            state.identities.retain(|_, state| state.in_flight > 0 || !state.parked().is_empty());
            let unused = state.endpoints.iter().filter(|(_, endpoint)| endpoint.queue.is_empty());
            let unused: Vec<_> = unused.map(|(url, _)| Arc::clone(url)).collect();
            for url in unused {
                if let Some(endpoint) = state.endpoints.get_mut(&url) {
                    endpoint.circuit = Default::default();
                }
            }
            self.forget_idle(tenant, Duration::ZERO, now);
        }
        let Some(state) = self.tenants.get_mut(tenant) else { return };
        let kept = state.kept();
        state.prune_above = kept.saturating_mul(2).min(share.max(kept + PRUNE_ABOVE)).max(PRUNE_ABOVE);
    }

    /// Forgets what says nothing of a tenant, and its lanes where no request has begun for `lane_kept`.
    fn forget_idle(&mut self, tenant: &Tenant, lane_kept: Duration, now: Instant) {
        let Some(state) = self.tenants.get_mut(tenant) else { return };
        state.identities.retain(|_, state| !state.is_idle(now));
        let idle = state.endpoints.iter().filter(|(_, endpoint)| endpoint.is_idle(now));
        let idle: Vec<_> = idle.map(|(url, _)| Arc::clone(url)).collect();
        for url in idle {
            self.forget_endpoint(&EndpointKey { tenant: Arc::clone(tenant), url }, now);
        }
        let (Some(state), origins) = (self.tenants.get_mut(tenant), &mut self.origins) else { return };
        state.origins.retain(|name| {
            let Some(origin) = origins.get_mut(name) else { return false };
            let is_last = origin.lanes.len() == 1;
            let is_old =
                |lane: &Lane| lane.is_idle(now) && now.saturating_duration_since(lane.begun_at) >= lane_kept;
            if !origin.lanes.get(tenant).is_none_or(is_old) || (is_last && !origin.is_idle(now)) {
                return true;
            }
            origin.lanes.remove(tenant);
            origin.turns.forget(tenant);
            if origin.lanes.is_empty() {
                origins.remove(name);
            }
            false
        });
    }

    /// Origins, endpoints and identities.
    #[cfg(test)]
    pub(in crate::limiter) fn remembered(&self) -> usize {
        let of_tenants = self.tenants.values().map(|state| state.endpoints.len() + state.identities.len());
        self.origins.len() + of_tenants.sum::<usize>()
    }
}
