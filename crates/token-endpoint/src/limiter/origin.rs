//! An origin (scheme, host and port), which is what a server's limits are mostly counted by, and what each tenant has there.

use super::entry::{Tenant, Turn};
use super::identity::Identity;
use super::limits::Limits;
use super::rate::Rate;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tenant_shares::{Turns, has_share};
use tokio::time::Instant;

/// Two clients that are answered "too many requests" within this time mean the origin, and not one of them.
const SAME_LIMIT: Duration = Duration::from_secs(60);
/// How often the tenants that were limited are counted.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Origin {
    pub(super) in_flight: usize,
    pub(super) rate: Rate,
    pub(super) lanes: HashMap<Tenant, Lane>,
    pub(super) turns: Turns<Tenant, Turn>,
    pub(super) listed: Listed,
    /// When it was last seen how many tenants were limited.
    judged_at: Option<Instant>,
}

/// What one tenant has at one origin.
pub(super) struct Lane {
    pub(super) in_flight: usize,
    /// Lowered by answers to this tenant alone.
    pub(super) rate: Rate,
    /// The first entries of its endpoints whose circuits let one through.
    pub(super) heads: BTreeSet<(Turn, Arc<str>)>,
    pub(super) listed: Listed,
    /// How many endpoints of the tenant are known here.
    pub(super) endpoints: usize,
    /// When a request began last.
    pub(super) begun_at: Instant,
    /// The client that was answered "too many requests" last, and when.
    limited: Option<(Identity, Instant)>,
}

/// Where an origin, a lane or an endpoint stands in the indexes.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Listed {
    Nowhere,
    Ready(Turn),
    At(Instant),
    /// It has its share of what the process has under way.
    Held(Turn),
}

/// Whose rate is to be lowered.
pub(super) enum Limited {
    Client,
    Lane,
}

impl Origin {
    pub(super) fn new(limits: Limits, now: Instant) -> Self {
        Origin {
            in_flight: 0,
            rate: Rate::new(f64::from(limits.per_second), now),
            lanes: HashMap::new(),
            turns: Turns::default(),
            listed: Listed::Nowhere,
            judged_at: None,
        }
    }

    /// The lane that begins next, if there is room for one. A tenant that is alone may have all.
    pub(super) fn next(&self, limits: Limits) -> Option<(Turn, &Tenant)> {
        let free = limits.in_flight.saturating_sub(self.in_flight);
        if free == 0 {
            return None;
        }
        let is_alone = self.lanes.len() == 1;
        let may = |tenant: &Tenant| {
            is_alone || self.lanes.get(tenant).is_some_and(|lane| has_share(lane.in_flight, free))
        };
        self.turns.next(may)
    }

    /// "Too many requests" were answered to a client of a tenant. Lowers the origin's own rate where at least half of the tenants
    /// that asked in the last minute, and two at least, were answered so: one tenant must not slow the others down.
    pub(super) fn limited(&mut self, tenant: &Tenant, client: Identity, now: Instant) -> Limited {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < SAME_LIMIT;
        let Some(lane) = self.lanes.get_mut(tenant) else { return Limited::Client };
        let before = lane.limited.replace((client, now));
        let are_others = before.is_some_and(|(other, at)| other != client && is_recent(at));
        if self.judged_at.is_none_or(|at| now.saturating_duration_since(at) >= COUNT_INTERVAL) {
            self.judged_at = Some(now);
            let asked = self.lanes.values().filter(|lane| is_recent(lane.begun_at)).count();
            let limited = |lane: &&Lane| lane.limited.is_some_and(|(_, at)| is_recent(at));
            let limited = self.lanes.values().filter(limited).count();
            if limited >= 2 && limited * 2 >= asked {
                self.rate.slow_down(now);
            }
        }
        if are_others { Limited::Lane } else { Limited::Client }
    }

    /// Whether forgetting it would change nothing, but that one request may begin too soon.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.in_flight == 0 && !self.rate.is_slow(now)
    }
}

impl Lane {
    pub(super) fn new(limits: Limits, now: Instant) -> Self {
        Lane {
            in_flight: 0,
            rate: Rate::new(f64::from(limits.per_second), now),
            heads: BTreeSet::new(),
            listed: Listed::Nowhere,
            endpoints: 0,
            begun_at: now,
            limited: None,
        }
    }

    /// When the next request may begin, if the rate is lowered and that is later than now.
    pub(super) fn next_by_rate(&self, now: Instant) -> Option<Instant> {
        // At full speed the origin's rate is limit enough.
        (self.rate.is_slow(now) && self.rate.next > now).then_some(self.rate.next)
    }

    /// Whether forgetting it would change nothing but whether another tenant is alone.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        self.endpoints == 0 && self.in_flight == 0 && !self.rate.is_slow(now)
    }
}
