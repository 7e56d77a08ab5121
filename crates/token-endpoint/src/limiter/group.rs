//! One client that several tenants are lent: whether the endpoint accepts it concerns them all, and nothing else that one of them
//! is answered.

use super::entry::Tenant;
use super::hold::{EXPEDITED, Hold};
use super::identity::{GroupClient, Identity};
use super::known_rejection::{KnownRejection, SharedBy};
use super::terms::Terms;
use crate::error::{Class, Error, Reach};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use tokio::time::Instant;

/// Clients above which those that say nothing are looked for. There are as many as the owner lends, and has lent.
const PRUNE_ABOVE: usize = 64;
/// Clients above which it is forgotten which have succeeded.
const MAX_SUCCEEDED: usize = 4096;
/// How long it is known that a client has succeeded, after it did last.
const MEMORY: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) struct Groups {
    states: HashMap<GroupClient, ClientState>,
    prune_above: usize,
}

impl Default for Groups {
    fn default() -> Self {
        Groups { states: HashMap::new(), prune_above: PRUNE_ABOVE }
    }
}

#[derive(Default)]
struct ClientState {
    /// The endpoint has answered otherwise than by rejecting the client, since it last did: requests go side by side.
    is_accepted: bool,
    hold: Option<Hold>,
    /// When the endpoint last gave it a token.
    succeeded_at: Option<Instant>,
    /// The tenant that was answered 401 since the last success, by an answer that does not name the client.
    doubted_by: Option<Tenant>,
    /// A wait was shortened since the last success. Once is enough: tenants do not hammer at what only the owner can mend.
    was_expedited: bool,
    /// A request finds out whether the client is accepted; the time of the last attempt of the hold, if it is that.
    trial: Option<Option<Instant>>,
    /// Who waits for its end: tenants with the identity that is theirs.
    waiting: BTreeSet<(Tenant, Identity)>,
}

/// What a request may do as far as its client is concerned.
pub(super) enum GroupStanding {
    Free,
    /// Another request finds out whether the client is accepted.
    Busy,
    Held(KnownRejection),
}

impl Groups {
    pub(super) fn standing(&self, client: GroupClient, terms: Terms, now: Instant) -> GroupStanding {
        let Some(state) = self.states.get(&client) else { return GroupStanding::Free };
        match &state.hold {
            Some(hold) if hold.holds(terms, now) => {
                GroupStanding::Held(KnownRejection::of(hold, SharedBy::Group, now))
            }
            _ if state.trial.is_some() && !state.is_accepted => GroupStanding::Busy,
            _ => GroupStanding::Free,
        }
    }

    /// A tenant's requests with this identity wait for the end of the trial.
    pub(super) fn wait(&mut self, client: GroupClient, tenant: &Tenant, identity: Identity) {
        self.states.entry(client).or_default().waiting.insert((Tenant::clone(tenant), identity));
    }

    /// Whether a tenant's requests with this identity wait for the end of a trial.
    pub(super) fn is_waited_for(&self, tenant: &Tenant, identity: Identity) -> bool {
        let place = (Tenant::clone(tenant), identity);
        self.states.values().any(|state| state.trial.is_some() && state.waiting.contains(&place))
    }

    /// A request is sent. Returns whether it is a trial.
    pub(super) fn began(&mut self, client: GroupClient, terms: Terms, now: Instant) -> bool {
        if self.states.len() >= self.prune_above {
            self.prune(now);
        }
        let state = self.states.entry(client).or_default();
        if state.is_accepted {
            return false;
        }
        state.trial = Some(state.hold.as_mut().and_then(|hold| hold.begins(terms, now)));
        true
    }

    fn prune(&mut self, now: Instant) {
        self.states.retain(|_, state| !state.is_idle(now) || state.has_succeeded_lately(now));
        if self.states.len() >= MAX_SUCCEEDED {
            self.states.retain(|_, state| !state.is_idle(now));
        }
        self.prune_above = (2 * self.states.len()).max(PRUNE_ABOVE);
    }

    /// What the outcome of a request of `tenant` that `began` then says of its client. Returns whether it holds the client back.
    ///
    /// A client that has succeeded is not held back by one tenant's 401 without a code: some servers answer that to a scope or an
    /// audience.
    pub(super) fn learn(
        &mut self,
        client: GroupClient,
        tenant: &Tenant,
        outcome: Result<(), &Error>,
        began: Instant,
        now: Instant,
    ) -> bool {
        let state = self.states.entry(client).or_default();
        let Err(error) = outcome else {
            state.hold.take_if(|hold| !hold.outlasts_success(began));
            state.is_accepted = state.hold.is_none();
            state.succeeded_at = Some(now);
            state.doubted_by = None;
            state.was_expedited = false;
            return false;
        };
        if matches!((error.class(), error.reach()), (Class::Rejected | Class::LockedOut, Reach::Client)) {
            let first = state.doubted_by.get_or_insert_with(|| Tenant::clone(tenant));
            if error.names_client() || state.succeeded_at.is_none() || first != tenant {
                state.hold = Some(Hold::rejected(state.hold.as_ref(), error, began, now));
                state.is_accepted = false;
                return true;
            }
        }
        // The others need not wait for a request that fails otherwise.
        if !error.is_unsent() && state.hold.is_none() {
            state.is_accepted = true;
        }
        false
    }

    /// A trial has ended. Returns who waited for that.
    pub(super) fn trial_ended(
        &mut self,
        client: GroupClient,
        is_unsent: bool,
    ) -> BTreeSet<(Tenant, Identity)> {
        let Some(state) = self.states.get_mut(&client) else { return BTreeSet::new() };
        let last_attempt = state.trial.take().flatten().filter(|_| is_unsent);
        if let (Some(hold), Some(at)) = (&mut state.hold, last_attempt) {
            hold.give_back(at);
        }
        std::mem::take(&mut state.waiting)
    }

    pub(super) fn expedite(&mut self, client: GroupClient) {
        let Some(state) = self.states.get_mut(&client).filter(|state| !state.was_expedited) else { return };
        state.was_expedited = state.hold.as_mut().is_some_and(|hold| hold.expedite(EXPEDITED));
    }

    /// Whether the endpoint has given the client a token, whichever tenant asked.
    pub(super) fn has_succeeded(&self, client: GroupClient) -> bool {
        self.states.get(&client).is_some_and(|state| state.succeeded_at.is_some())
    }

    /// Whether the client is known to be accepted or rejected.
    pub(super) fn is_settled(&self, client: GroupClient, now: Instant) -> bool {
        self.states.get(&client).is_some_and(|state| {
            state.is_accepted || state.hold.as_ref().is_some_and(|hold| hold.holds(Terms::default(), now))
        })
    }
}

impl ClientState {
    fn has_succeeded_lately(&self, now: Instant) -> bool {
        self.succeeded_at.is_some_and(|at| now.saturating_duration_since(at) < MEMORY)
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.trial.is_none()
            && self.waiting.is_empty()
            && self.hold.as_ref().is_none_or(|hold| hold.is_over(now))
    }
}
