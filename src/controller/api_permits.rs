//! How many reconciliations and token requests call the API server at once. The earliest deadline goes first, and a part
//! of the permits is kept for TokenSources whose token is at stake: ten thousand new ones must not hold up a refresh.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

/// What would be lost by a late reconciliation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stake {
    /// A token that readers use now, or one that is in memory alone.
    Token,
    /// Nothing yet.
    Nothing,
}

/// See the module. Dropping an [`ApiPermit`] hands it on.
#[derive(Debug)]
pub(super) struct ApiPermits {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// How many more [`Stake::Nothing`] may take: the others are kept for [`Stake::Token`].
    free_for_nothing: usize,
    /// Counts the arrivals, so that equal deadlines are served in order.
    arrivals: u64,
    token: Waiting,
    nothing: Waiting,
}

type Waiting = BTreeMap<(Instant, u64), oneshot::Sender<ApiPermit>>;

/// The right to make one call to the API server at a time.
#[derive(Debug)]
pub(super) struct ApiPermit(Option<(Arc<ApiPermits>, Stake)>);

/// A place among those that wait. One that gives up leaves it.
struct Place<'a> {
    permits: &'a ApiPermits,
    stake: Stake,
    place: (Instant, u64),
}

impl ApiPermits {
    /// `all` permits, of which `reserved` are for [`Stake::Token`] alone.
    pub(super) fn new(all: usize, reserved: usize) -> Arc<Self> {
        let (token, nothing) = Default::default();
        let free_for_nothing = all.saturating_sub(reserved);
        let state = State { free: all, free_for_nothing, arrivals: 0, token, nothing };
        Arc::new(ApiPermits { state: Mutex::new(state) })
    }

    /// Waits for a permit.
    pub(super) async fn acquire(self: &Arc<Self>, deadline: Instant, stake: Stake) -> ApiPermit {
        let (granted, _place) = {
            let mut state = self.lock();
            if state.may_take(stake) {
                state.take(stake);
                return ApiPermit(Some((Arc::clone(self), stake)));
            }
            let (grant, granted) = oneshot::channel();
            state.arrivals += 1;
            let place = (deadline, state.arrivals);
            state.waiting(stake).insert(place, grant);
            (granted, Place { permits: self, stake, place })
        };
        // Each permit is handed on when it is dropped, so that the sender always answers.
        granted.await.unwrap_or(ApiPermit(None))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_on(self: &Arc<Self>, mut stake: Stake) {
        loop {
            let next = {
                let mut state = self.lock();
                state.give_back(stake);
                let Some((next, its_stake)) = state.next() else { return };
                stake = its_stake;
                state.take(stake);
                next
            };
            // The one that waited may have stopped waiting.
            match next.send(ApiPermit(Some((Arc::clone(self), stake)))) {
                Ok(()) => return,
                Err(mut permit) => permit.0 = None,
            }
        }
    }
}

impl State {
    fn waiting(&mut self, stake: Stake) -> &mut Waiting {
        match stake {
            Stake::Token => &mut self.token,
            Stake::Nothing => &mut self.nothing,
        }
    }

    fn may_take(&self, stake: Stake) -> bool {
        match stake {
            Stake::Token => self.free > 0,
            Stake::Nothing => self.free > 0 && self.free_for_nothing > 0,
        }
    }

    fn take(&mut self, stake: Stake) {
        self.free -= 1;
        if stake == Stake::Nothing {
            self.free_for_nothing -= 1;
        }
    }

    fn give_back(&mut self, stake: Stake) {
        self.free += 1;
        if stake == Stake::Nothing {
            self.free_for_nothing += 1;
        }
    }

    fn next(&mut self) -> Option<(oneshot::Sender<ApiPermit>, Stake)> {
        let first = |waiting: &Waiting| waiting.first_key_value().map(|(place, _)| *place);
        let (token, nothing) = (first(&self.token), first(&self.nothing));
        let stake = match (token, nothing) {
            (Some(token), Some(nothing)) if nothing < token && self.may_take(Stake::Nothing) => {
                Stake::Nothing
            }
            (Some(_), _) => Stake::Token,
            (None, Some(_)) if self.may_take(Stake::Nothing) => Stake::Nothing,
            _ => return None,
        };
        self.waiting(stake).pop_first().map(|(_, grant)| (grant, stake))
    }
}

impl Drop for ApiPermit {
    fn drop(&mut self) {
        if let Some((permits, stake)) = self.0.take() {
            permits.hand_on(stake);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let Place { permits, stake, place } = self;
        permits.lock().waiting(*stake).remove(place);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(now: Instant, seconds: u64) -> Instant {
        now + Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn permits_go_to_the_earliest_deadline_and_equal_ones_in_order() {
        let permits = ApiPermits::new(1, 0);
        let now = Instant::now();
        let held = permits.acquire(now, Stake::Nothing).await;
        let order = Arc::new(Mutex::new(vec![]));
        let mut waiting = vec![];
        let token = Stake::Token;
        for (name, seconds, stake) in [
            ("late", 60, Stake::Nothing),
            ("early", 5, Stake::Nothing),
            ("early too", 5, token),
            ("middle", 30, token),
        ] {
            let (permits, order) = (Arc::clone(&permits), Arc::clone(&order));
            waiting.push(tokio::spawn(async move {
                let _permit = permits.acquire(at(now, seconds), stake).await;
                order.lock().unwrap().push(name);
            }));
            tokio::task::yield_now().await;
        }
        drop(held);
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), ["early", "early too", "middle", "late"]);
        assert_eq!(permits.lock().free, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn permits_that_are_reserved_go_to_tokens_at_stake_alone() {
        let permits = ApiPermits::new(3, 1);
        let now = Instant::now();
        let held = [permits.acquire(now, Stake::Nothing).await, permits.acquire(now, Stake::Nothing).await];
        let second = Duration::from_secs(1);
        let new = tokio::time::timeout(second, permits.acquire(now, Stake::Nothing)).await;
        assert!(new.is_err(), "one is reserved");
        let token = permits.acquire(at(now, 60), Stake::Token).await;
        drop(held);
        assert!(tokio::time::timeout(second, permits.acquire(now, Stake::Nothing)).await.is_ok());
        drop(token);
        assert_eq!(permits.lock().free, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn permits_go_to_new_sources_by_deadline_however_many_tokens_are_at_stake() {
        let permits = ApiPermits::new(2, 1);
        let now = Instant::now();
        let mut held =
            vec![permits.acquire(now, Stake::Token).await, permits.acquire(now, Stake::Token).await];
        let acquire = |seconds, stake| {
            let permits = Arc::clone(&permits);
            tokio::spawn(async move { permits.acquire(at(now, seconds), stake).await })
        };
        let (mut new, later) = (acquire(30, Stake::Nothing), acquire(60, Stake::Token));
        tokio::task::yield_now().await;
        held.pop();
        assert!(tokio::time::timeout(Duration::from_secs(1), &mut new).await.is_ok());
        assert!(!later.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn permits_forget_a_waiter_that_gives_up() {
        let permits = ApiPermits::new(1, 1);
        let _held = permits.acquire(Instant::now(), Stake::Token).await;
        for stake in [Stake::Token, Stake::Nothing] {
            let wait = permits.acquire(Instant::now(), stake);
            assert!(tokio::time::timeout(Duration::from_secs(1), wait).await.is_err());
        }
        let state = permits.lock();
        assert_eq!((state.token.len(), state.nothing.len()), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn permits_are_not_lost_with_a_waiter_that_gives_up() {
        let permits = ApiPermits::new(1, 0);
        let held = permits.acquire(Instant::now(), Stake::Token).await;
        let wait = permits.acquire(Instant::now(), Stake::Token);
        assert!(tokio::time::timeout(Duration::from_secs(1), wait).await.is_err());
        drop(held);
        assert_eq!(permits.lock().free, 1);
    }
}
