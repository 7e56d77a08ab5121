//! How many reconciliations and token requests call the API server at once. A namespace has a share of the permits, and a part
//! of them is kept for TokenSources whose token is at stake: neither ten thousand new ones nor another namespace hold up a
//! refresh.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tenant_shares::{Turns, has_share};
use tokio::sync::{Notify, oneshot};

/// What would be lost by a late reconciliation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stake {
    /// A token that readers use now, or one that is in memory alone.
    Token,
    /// Nothing yet.
    Nothing,
}

/// See the module. Dropping an [`ApiPermit`] hands it on.
#[derive(Debug)]
pub struct ApiPermits {
    state: Mutex<State>,
    /// A permit is free that nothing waits for here.
    freed: Notify,
}

/// The permits that are free, and those in use by namespace.
#[derive(Debug)]
pub struct State {
    free: usize,
    /// How many more [`Stake::Nothing`] may take: the others are kept for [`Stake::Token`].
    free_for_nothing: usize,
    in_use: HashMap<Arc<str>, usize>,
    /// Counts the arrivals, so that those of a namespace are served in order.
    arrivals: u64,
    waiting: HashMap<Arc<str>, BTreeMap<u64, oneshot::Sender<ApiPermit>>>,
    turns: Turns<Arc<str>, u64>,
}

/// The right to make one call to the API server at a time.
#[derive(Debug)]
pub struct ApiPermit(Option<(Arc<ApiPermits>, Arc<str>, Stake)>);

impl ApiPermit {
    /// The namespace and the stake that it is for.
    #[must_use]
    pub fn of(&self) -> Option<(&Arc<str>, Stake)> {
        self.0.as_ref().map(|(_, namespace, stake)| (namespace, *stake))
    }
}

/// A place among those that wait. One that gives up leaves it.
struct Place<'a> {
    permits: &'a ApiPermits,
    namespace: Arc<str>,
    place: u64,
}

impl ApiPermits {
    /// `all` permits, of which `reserved` are for [`Stake::Token`] alone.
    #[must_use]
    pub fn new(all: usize, reserved: usize) -> Arc<Self> {
        let state = State {
            free: all,
            free_for_nothing: all.saturating_sub(reserved),
            in_use: HashMap::new(),
            arrivals: 0,
            waiting: HashMap::new(),
            turns: Turns::default(),
        };
        Arc::new(ApiPermits { state: Mutex::new(state), freed: Notify::new() })
    }

    /// Waits for a permit, for work of a namespace that has begun: it goes before all that has not.
    pub async fn acquire(self: &Arc<Self>, namespace: &Arc<str>) -> ApiPermit {
        let (granted, _place) = {
            let mut state = self.lock();
            if state.may_take(namespace, Stake::Token) {
                return self.grant(&mut state, namespace, Stake::Token);
            }
            let (grant, granted) = oneshot::channel();
            state.arrivals += 1;
            let place = state.arrivals;
            state.waiting.entry(Arc::clone(namespace)).or_default().insert(place, grant);
            state.set_turn(namespace);
            (granted, Place { permits: self, namespace: Arc::clone(namespace), place })
        };
        // Each permit is handed on when it is dropped, so that the sender always answers.
        granted.await.unwrap_or(ApiPermit(None))
    }

    /// A permit for what `choose` names, of what may have one now.
    pub fn try_acquire(
        self: &Arc<Self>,
        choose: impl FnOnce(&State) -> Option<(Arc<str>, Stake)>,
    ) -> Option<ApiPermit> {
        let mut state = self.lock();
        let (namespace, stake) = choose(&state)?;
        Some(self.grant(&mut state, &namespace, stake))
    }

    /// Waits until a permit is free that nothing waits for here. For one caller at a time.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }

    fn grant(self: &Arc<Self>, state: &mut State, namespace: &Arc<str>, stake: Stake) -> ApiPermit {
        state.take(namespace, stake);
        ApiPermit(Some((Arc::clone(self), Arc::clone(namespace), stake)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hand_on(self: &Arc<Self>, namespace: &str, stake: Stake) {
        self.lock().give_back(namespace, stake);
        loop {
            let (next, permit) = {
                let mut state = self.lock();
                let Some((next, namespace)) = state.next() else { break };
                (next, self.grant(&mut state, &namespace, Stake::Token))
            };
            // The one that waited may have stopped waiting.
            if let Err(mut permit) = next.send(permit)
                && let Some((_, namespace, stake)) = permit.0.take()
            {
                self.lock().give_back(&namespace, stake);
            }
        }
        self.freed.notify_one();
    }
}

impl State {
    /// Whether work of a namespace may have a permit now.
    #[must_use]
    pub fn may_take(&self, namespace: &str, stake: Stake) -> bool {
        let free = match stake {
            Stake::Token => self.free,
            Stake::Nothing => self.free.min(self.free_for_nothing),
        };
        has_share(self.in_use.get(namespace).copied().unwrap_or_default(), free)
    }

    fn take(&mut self, namespace: &Arc<str>, stake: Stake) {
        self.free = self.free.saturating_sub(1);
        if stake == Stake::Nothing {
            self.free_for_nothing = self.free_for_nothing.saturating_sub(1);
        }
        *self.in_use.entry(Arc::clone(namespace)).or_default() += 1;
    }

    fn give_back(&mut self, namespace: &str, stake: Stake) {
        self.free += 1;
        if stake == Stake::Nothing {
            self.free_for_nothing += 1;
        }
        if let Some(in_use) = self.in_use.get_mut(namespace) {
            *in_use -= 1;
            if *in_use == 0 {
                self.in_use.remove(namespace);
            }
        }
    }

    fn next(&mut self) -> Option<(oneshot::Sender<ApiPermit>, Arc<str>)> {
        let namespace = self.turns.next(|namespace| self.may_take(namespace, Stake::Token));
        let namespace = namespace.map(|(_, namespace)| Arc::clone(namespace))?;
        let (_, next) = self.waiting.get_mut(&namespace)?.pop_first()?;
        self.turns.took(&namespace);
        self.set_turn(&namespace);
        Some((next, namespace))
    }

    fn set_turn(&mut self, namespace: &Arc<str>) {
        let waiting = self.waiting.get(namespace);
        let first = waiting.and_then(|waiting| waiting.first_key_value()).map(|(place, _)| *place);
        if first.is_none() {
            self.waiting.remove(namespace);
        }
        self.turns.set(namespace, first);
    }
}

impl Drop for ApiPermit {
    fn drop(&mut self) {
        if let Some((permits, namespace, stake)) = self.0.take() {
            permits.hand_on(&namespace, stake);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.permits.lock();
        if let Some(waiting) = state.waiting.get_mut(&self.namespace) {
            waiting.remove(&self.place);
        }
        state.set_turn(&self.namespace);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::task::JoinHandle;

    use super::*;

    fn namespace(name: &str) -> Arc<str> {
        name.into()
    }

    /// Whether work of this namespace and stake gets a permit now.
    fn try_one(permits: &Arc<ApiPermits>, name: &str, stake: Stake) -> Option<ApiPermit> {
        permits.try_acquire(|state| state.may_take(name, stake).then(|| (namespace(name), stake)))
    }

    fn acquire(permits: &Arc<ApiPermits>, name: &str) -> JoinHandle<ApiPermit> {
        let (permits, namespace) = (Arc::clone(permits), namespace(name));
        tokio::spawn(async move { permits.acquire(&namespace).await })
    }

    async fn is_granted(waiting: &mut JoinHandle<ApiPermit>) -> bool {
        tokio::time::timeout(Duration::from_secs(1), waiting).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn permits_of_one_namespace_go_in_the_order_of_arrival() {
        let permits = ApiPermits::new(1, 0);
        let held = permits.acquire(&namespace("a")).await;
        let (mut first, mut second) = (acquire(&permits, "a"), acquire(&permits, "a"));
        assert!(!is_granted(&mut second).await);
        drop(held);
        assert!(is_granted(&mut first).await && is_granted(&mut second).await);
        assert_eq!(permits.lock().free, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn permits_that_are_reserved_go_to_tokens_at_stake_alone() {
        let permits = ApiPermits::new(3, 1);
        let held = ["a", "b"].map(|name| try_one(&permits, name, Stake::Nothing).unwrap());
        assert!(try_one(&permits, "c", Stake::Nothing).is_none(), "one is reserved");
        let token = try_one(&permits, "c", Stake::Token).unwrap();
        drop(held);
        assert!(try_one(&permits, "c", Stake::Nothing).is_some());
        drop(token);
        assert_eq!(permits.lock().free, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn permits_of_a_crowd_leave_some_to_other_namespaces() {
        let permits = ApiPermits::new(40, 10);
        let crowd: Vec<_> = (0..1000).map(|_| acquire(&permits, "crowd")).collect();
        tokio::task::yield_now().await;
        assert_eq!(permits.lock().free, 8, "a single namespace has 32");
        assert!(try_one(&permits, "crowd", Stake::Token).is_none());
        let others: Vec<_> = ["a", "b"].map(|name| try_one(&permits, name, Stake::Token)).into();
        assert!(others.iter().all(Option::is_some));
        // One that waits because all are in use comes soon, however many of the crowd came before it.
        let mut all = vec![];
        for n in 0.. {
            let Some(permit) = try_one(&permits, &format!("ns-{n}"), Stake::Token) else { break };
            all.push(permit);
        }
        let mut waits = acquire(&permits, "late");
        tokio::task::yield_now().await;
        drop(all.pop());
        assert!(is_granted(&mut waits).await);
        crowd.into_iter().for_each(|task| task.abort());
    }

    #[tokio::test(start_paused = true)]
    async fn permits_forget_a_waiter_that_gives_up_and_lose_nothing() {
        let permits = ApiPermits::new(1, 0);
        let held = permits.acquire(&namespace("a")).await;
        let a = namespace("a");
        let wait = permits.acquire(&a);
        assert!(tokio::time::timeout(Duration::from_secs(1), wait).await.is_err());
        assert!(permits.lock().waiting.is_empty());
        let aborted = acquire(&permits, "a");
        tokio::task::yield_now().await;
        drop(held);
        aborted.abort();
        drop(aborted.await);
        let state = permits.lock();
        assert_eq!((state.free, state.in_use.len()), (1, 0));
    }
}
