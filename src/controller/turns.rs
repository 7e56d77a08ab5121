//! Whose TokenSource is looked at next: the earliest deadline first. Ten thousand new ones must neither fill memory nor
//! trample the API server nor hold up the refresh of a token that ends in a minute.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;
use tokio::time::Instant;

/// So many turns at once.
#[derive(Debug)]
pub struct Turns {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// Counts those who came, so that equal deadlines are served in order.
    came: u64,
    waiting: BTreeMap<(Instant, u64), oneshot::Sender<Turn>>,
}

/// A turn; dropping it passes it on.
#[derive(Debug)]
pub struct Turn(Option<Arc<Turns>>);

impl Turns {
    /// `at_once` turns at once.
    #[must_use]
    pub fn new(at_once: usize) -> Arc<Self> {
        Arc::new(Turns { state: Mutex::new(State { free: at_once, came: 0, waiting: BTreeMap::new() }) })
    }

    /// Waits for a turn.
    pub async fn take(self: &Arc<Self>, deadline: Instant) -> Turn {
        let turn = {
            let mut state = self.lock();
            if state.free > 0 {
                state.free -= 1;
                return Turn(Some(Arc::clone(self)));
            }
            let (wake, turn) = oneshot::channel();
            state.came += 1;
            let place = (deadline, state.came);
            state.waiting.insert(place, wake);
            turn
        };
        // Whoever has a turn passes it on when it ends, however it ends.
        turn.await.unwrap_or(Turn(None))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pass_on(self: &Arc<Self>) {
        loop {
            let next = {
                let mut state = self.lock();
                match state.waiting.pop_first() {
                    Some((_, next)) => next,
                    None => {
                        state.free += 1;
                        return;
                    }
                }
            };
            // Whoever waited may have given up.
            match next.send(Turn(Some(Arc::clone(self)))) {
                Ok(()) => return,
                Err(mut turn) => turn.0 = None,
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(turns) = self.0.take() {
            turns.pass_on();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_earliest_deadline_goes_first_and_equals_in_order() {
        let turns = Turns::new(1);
        let now = Instant::now();
        let held = turns.take(now).await;
        let order = Arc::new(Mutex::new(vec![]));
        let mut waiting = vec![];
        for (name, seconds) in [("late", 60), ("early", 5), ("early too", 5), ("middle", 30)] {
            let (turns, order) = (Arc::clone(&turns), Arc::clone(&order));
            waiting.push(tokio::spawn(async move {
                let _turn = turns.take(now + Duration::from_secs(seconds)).await;
                order.lock().unwrap().push(name);
            }));
            tokio::task::yield_now().await;
        }
        drop(held);
        for task in waiting {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), ["early", "early too", "middle", "late"]);
        assert_eq!(turns.lock().free, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gives_up_waiting_takes_no_turn_away() {
        let turns = Turns::new(1);
        let held = turns.take(Instant::now()).await;
        let given_up = tokio::time::timeout(Duration::from_secs(1), turns.take(Instant::now())).await;
        assert!(given_up.is_err());
        drop(held);
        assert_eq!(turns.lock().free, 1);
    }
}
