//! Whether a restart would help. A part of the process that hangs is restarted with it, but not while the process holds the
//! only copy of a refresh token and its saver runs: then it gives up the lease, so that another replica serves the others.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tracing::error;

use crate::heartbeat::{Heartbeats, Loop, Unresponsive};

/// How long a hanging part is tolerated. What cannot be saved by then is unlikely to be saved ever.
const MAX_TOLERATED: Duration = Duration::from_secs(30 * 60);

/// See the module.
pub(super) struct Liveness {
    heartbeats: Arc<Heartbeats>,
    /// How many refresh tokens are in memory alone.
    unsaved: Box<dyn Fn() -> usize + Send + Sync>,
    /// Since when a part hangs.
    hangs_since: Mutex<Option<Instant>>,
}

impl Liveness {
    pub(super) fn new(
        heartbeats: Arc<Heartbeats>,
        unsaved: impl Fn() -> usize + Send + Sync + 'static,
    ) -> Self {
        Liveness { heartbeats, unsaved: Box::new(unsaved), hangs_since: Mutex::default() }
    }

    /// The parts, each with why it hangs. Those that are tolerated are no failure.
    pub(super) fn parts(&self, now: Instant) -> Vec<(&'static str, Result<(), Unresponsive>)> {
        let heartbeats = &self.heartbeats;
        let saver = heartbeats.check(Loop::RefreshTokenSaver, now);
        let mut parts = vec![
            ("watches", heartbeats.check_watches(now).and_then(|()| heartbeats.check(Loop::Namespaces, now))),
            ("work-queue", heartbeats.check(Loop::WorkQueue, now)),
            ("mint-queue", heartbeats.check(Loop::MintQueue, now)),
            ("leader-election", heartbeats.check(Loop::LeaderElection, now)),
        ];
        let hanging = parts.iter().find_map(|(_, part)| part.as_ref().err());
        if self.tolerates(hanging, saver.is_ok(), now) {
            parts.iter_mut().for_each(|(_, part)| *part = Ok(()));
        }
        parts.push(("refresh-token-saver", saver));
        parts
    }

    /// Whether this process may lead: not while a hanging part is tolerated.
    pub(super) fn may_lead(&self, now: Instant) -> bool {
        self.parts(now);
        let hangs = self.hangs_since.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        !(hangs && (self.unsaved)() > 0)
    }

    fn tolerates(&self, hanging: Option<&Unresponsive>, saver_runs: bool, now: Instant) -> bool {
        let mut hangs_since = self.hangs_since.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(hanging) = hanging else {
            *hangs_since = None;
            return false;
        };
        let unsaved = (self.unsaved)();
        if hangs_since.is_none() && unsaved > 0 {
            error!(unsaved, part = %hanging, "a part of this process hangs; it stays alive, without leading, to save refresh tokens");
        }
        let since = *hangs_since.get_or_insert(now);
        unsaved > 0 && saver_runs && now.saturating_duration_since(since) < MAX_TOLERATED
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// After a heartbeat of every loop.
    fn liveness() -> (Arc<Heartbeats>, Arc<AtomicUsize>, Liveness) {
        let (heartbeats, unsaved) = (Arc::new(Heartbeats::default()), Arc::new(AtomicUsize::new(0)));
        [Loop::WorkQueue, Loop::MintQueue, Loop::LeaderElection, Loop::RefreshTokenSaver]
            .into_iter()
            .for_each(|it| heartbeats.beat(it));
        let count = Arc::clone(&unsaved);
        let liveness = Liveness::new(Arc::clone(&heartbeats), move || count.load(Ordering::SeqCst));
        (heartbeats, unsaved, liveness)
    }

    /// Heartbeats of all loops but the mint queue. Returns which parts fail.
    fn failing(heartbeats: &Heartbeats, liveness: &Liveness, saver_runs: bool) -> Vec<&'static str> {
        let saver = saver_runs.then_some(Loop::RefreshTokenSaver);
        [Loop::WorkQueue, Loop::LeaderElection].into_iter().chain(saver).for_each(|it| heartbeats.beat(it));
        let parts = liveness.parts(Instant::now());
        parts.into_iter().filter(|(_, part)| part.is_err()).map(|(name, _)| name).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn liveness_of_a_hanging_queue_fails_and_keeps_the_lease_while_nothing_is_unsaved() {
        let (heartbeats, _, liveness) = liveness();
        assert_eq!(failing(&heartbeats, &liveness, true), [""; 0]);
        tokio::time::advance(3 * MINUTE).await;
        assert_eq!(failing(&heartbeats, &liveness, true), ["mint-queue"]);
        assert!(liveness.may_lead(Instant::now()), "a restart releases it");
    }

    #[tokio::test(start_paused = true)]
    async fn liveness_of_a_hanging_queue_is_tolerated_for_thirty_minutes_while_a_refresh_token_is_unsaved() {
        let (heartbeats, unsaved, liveness) = liveness();
        unsaved.store(1, Ordering::SeqCst);
        assert!(liveness.may_lead(Instant::now()), "nothing hangs");
        tokio::time::advance(3 * MINUTE).await;
        for _ in 0..29 {
            assert_eq!(failing(&heartbeats, &liveness, true), [""; 0]);
            assert!(!liveness.may_lead(Instant::now()));
            tokio::time::advance(MINUTE).await;
        }
        tokio::time::advance(MINUTE).await;
        assert_eq!(failing(&heartbeats, &liveness, true), ["mint-queue"]);
        // It goes on by itself: the next time counts anew.
        heartbeats.beat(Loop::MintQueue);
        assert_eq!(failing(&heartbeats, &liveness, true), [""; 0]);
        assert!(liveness.may_lead(Instant::now()));
        tokio::time::advance(3 * MINUTE).await;
        assert_eq!(failing(&heartbeats, &liveness, true), [""; 0]);
        // Saved: nothing is lost by a restart.
        unsaved.store(0, Ordering::SeqCst);
        assert_eq!(failing(&heartbeats, &liveness, true), ["mint-queue"]);
    }

    #[tokio::test(start_paused = true)]
    async fn liveness_without_a_running_saver_fails() {
        let (heartbeats, unsaved, liveness) = liveness();
        unsaved.store(1, Ordering::SeqCst);
        tokio::time::advance(3 * MINUTE).await;
        assert_eq!(failing(&heartbeats, &liveness, false), ["mint-queue", "refresh-token-saver"]);
    }
}
