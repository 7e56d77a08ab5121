//! Turns of tenants: a resource of the process is limited, and shared out among them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tenant_shares::has_share;
use tokio::sync::oneshot;

/// For whom requests are made: an opaque name, as in [`limiter`](crate::limiter).
pub(super) type Tenant = Arc<str>;

/// Whose turn it is: of the tenants that wait, that of the one with the fewest turns; among these, of the one whose last turn began
/// the longest ago. Of one half of the turns a tenant has its share, as of all that is limited; the other half is for tenants with
/// none, so that a few cannot take all.
pub(super) struct Turns {
    max: usize,
    state: Mutex<TurnState>,
}

#[derive(Default)]
struct TurnState {
    under_way: HashMap<Tenant, usize>,
    total: usize,
    /// How many turns were given, and for each tenant which of them was its last.
    given: u64,
    last: HashMap<Tenant, u64>,
    waiting: VecDeque<(Tenant, oneshot::Sender<Turn>)>,
}

/// A turn. It ends when it is dropped.
pub(super) struct Turn {
    tenant: Tenant,
    turns: Arc<Turns>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let turns = Arc::clone(&self.turns);
        turns.ended(&self.tenant);
        turns.give();
    }
}

impl Turns {
    pub(super) fn new(max: usize) -> Self {
        Self { max, state: Mutex::default() }
    }

    /// Waits for a turn.
    pub(super) async fn next(self: &Arc<Self>, tenant: &Tenant) -> Turn {
        loop {
            let (sender, turn) = oneshot::channel();
            self.state().waiting.push_back((tenant.clone(), sender));
            self.give();
            if let Ok(turn) = turn.await {
                return turn;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, TurnState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives out what is free. A turn that its waiter does not take any more comes back by its drop.
    fn give(self: &Arc<Self>) {
        loop {
            let Some((tenant, waiter)) = self.state().next(self.max) else { return };
            drop(waiter.send(Turn { tenant, turns: Arc::clone(self) }));
        }
    }

    fn ended(&self, tenant: &Tenant) {
        let mut state = self.state();
        state.total -= 1;
        if let Some(count) = state.under_way.get_mut(tenant) {
            *count -= 1;
            if *count == 0 {
                state.under_way.remove(tenant);
            }
        }
    }
}

impl TurnState {
    /// Takes out the next waiter, and counts its turn.
    fn next(&mut self, max: usize) -> Option<(Tenant, oneshot::Sender<Turn>)> {
        self.waiting.retain(|(_, waiter)| !waiter.is_closed());
        if self.total >= max {
            return None;
        }
        let count = |tenant: &Tenant| self.under_way.get(tenant).copied().unwrap_or_default();
        let last = |tenant: &Tenant| self.last.get(tenant).copied().unwrap_or_default();
        let waiting = self.waiting.iter().enumerate();
        let waiting = waiting.map(|(at, (tenant, _))| (count(tenant), last(tenant), at));
        let free = (max / 2).saturating_sub(self.total);
        let (.., at) = waiting.filter(|(count, ..)| *count == 0 || has_share(*count, free)).min()?;
        let (tenant, waiter) = self.waiting.remove(at)?;
        if self.last.len() > 2 * max {
            let waits: HashSet<&Tenant> = self.waiting.iter().map(|(tenant, _)| tenant).collect();
            self.last.retain(|tenant, _| waits.contains(tenant) || self.under_way.contains_key(tenant));
        }
        self.given += 1;
        self.last.insert(tenant.clone(), self.given);
        *self.under_way.entry(tenant.clone()).or_default() += 1;
        self.total += 1;
        Some((tenant, waiter))
    }
}
