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
    /// Permits of all that only [`Stake::Token`] may take.
    reserved: usize,
    /// Counts the arrivals, so that equal deadlines are served in order.
    arrivals: u64,
    token: Waiting,
    nothing: Waiting,
}

type Waiting = BTreeMap<(Instant, u64), oneshot::Sender<ApiPermit>>;

/// The right to make one call to the API server at a time.
#[derive(Debug)]
pub(super) struct ApiPermit(Option<Arc<ApiPermits>>);

impl ApiPermits {
    /// `all` permits, of which `reserved` are for [`Stake::Token`] alone.
    pub(super) fn new(all: usize, reserved: usize) -> Arc<Self> {
        let (token, nothing) = Default::default();
        Arc::new(ApiPermits { state: Mutex::new(State { free: all, reserved, arrivals: 0, token, nothing }) })
    }

    /// Waits for a permit.
    pub(super) async fn acquire(self: &Arc<Self>, deadline: Instant, stake: Stake) -> ApiPermit {
        let granted = {
            let mut state = self.lock();
            if state.may_take(stake) {
                state.free -= 1;
                return ApiPermit(Some(Arc::clone(self)));
            }
            let (grant, granted) = oneshot::channel();
            state.arrivals += 1;
            let place = (deadline, state.arrivals);
            state.waiting(stake).insert(place, grant);
            granted
        };
        // Each permit is handed on when it is dropped, so that the sender always answers.
        granted.await.unwrap_or(ApiPermit(None))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_on(self: &Arc<Self>) {
        loop {
            let next = {
                let mut state = self.lock();
                state.free += 1;
                let Some(next) = state.next() else { return };
                state.free -= 1;
                next
            };
            // The one that waited may have stopped waiting.
            match next.send(ApiPermit(Some(Arc::clone(self)))) {
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
            Stake::Nothing => self.free > self.reserved,
        }
    }

    fn next(&mut self) -> Option<oneshot::Sender<ApiPermit>> {
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
        self.waiting(stake).pop_first().map(|(_, grant)| grant)
    }
}

impl Drop for ApiPermit {
    fn drop(&mut self) {
        if let Some(permits) = self.0.take() {
            permits.hand_on();
        }
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
    async fn permits_are_not_lost_with_a_waiter_that_gives_up() {
        let permits = ApiPermits::new(1, 0);
        let held = permits.acquire(Instant::now(), Stake::Token).await;
        let wait = permits.acquire(Instant::now(), Stake::Token);
        assert!(tokio::time::timeout(Duration::from_secs(1), wait).await.is_err());
        drop(held);
        assert_eq!(permits.lock().free, 1);
    }
}
