//! Heartbeats, by which a part that hangs is distinguished from one that has nothing to do. Waiting for an API server that is
//! down or for a slow endpoint does not stop a heartbeat: such waits have timeouts, and the call is tried again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Uri;
use tokio::time::Instant;

/// The longest time between two heartbeats of a loop, which has one every 10 s.
const MAX_LOOP_SILENCE: Duration = Duration::from_secs(2 * 60);
/// The longest time between two requests of a watch: it is started again every 290 s, after a failure within 30 s, and a list
/// that hangs is given up after 295 s.
const MAX_WATCH_SILENCE: Duration = Duration::from_secs(12 * 60);
/// The longest time without the end of a reconciliation while one is due. Every step of a reconciliation is bounded, to some
/// minutes in total.
const MAX_RECONCILE_SILENCE: Duration = Duration::from_secs(10 * 60);

/// The heartbeats of all parts.
#[derive(Debug, Default)]
pub struct Heartbeats(Mutex<LastBeats>);

#[derive(Debug, Default)]
struct LastBeats {
    loops: BTreeMap<Loop, Instant>,
    /// By the path of the request.
    watches: BTreeMap<String, Instant>,
    /// When a reconciliation became due, if none has ended since.
    reconcile_due: Option<Instant>,
}

/// A loop that never ends while the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loop {
    /// It begins reconciliations.
    WorkQueue,
    /// It begins token requests.
    MintQueue,
    /// It renews the lease, or waits for it.
    LeaderElection,
    /// It saves unsaved refresh tokens.
    RefreshTokenSaver,
    /// It reads the namespaces that are bound.
    Namespaces,
}

impl Loop {
    fn name(self) -> &'static str {
        match self {
            Loop::WorkQueue => "the work queue",
            Loop::MintQueue => "the mint queue",
            Loop::LeaderElection => "leader election",
            Loop::RefreshTokenSaver => "the saver of refresh tokens",
            Loop::Namespaces => "the reader of namespaces",
        }
    }
}

/// A running reconciliation.
#[must_use]
pub(crate) struct Reconciling<'a>(&'a Heartbeats);

/// A part without a heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresponsive {
    /// A loop, leader election or a watch.
    #[error("{part} has had no heartbeat for {seconds} s")]
    Silent {
        /// The part.
        part: String,
        /// The time since its last heartbeat.
        seconds: u64,
    },
    /// No reconciliation ends.
    #[error("no reconciliation has ended for {seconds} s, though one is due")]
    NoReconciliation {
        /// The time since it became due.
        seconds: u64,
    },
}

impl Heartbeats {
    /// A heartbeat of a loop.
    pub fn beat(&self, of: Loop) {
        self.last_beats().loops.insert(of, Instant::now());
    }

    /// A request to the API server. Watches, and the lists with which they start again, are heartbeats.
    pub fn request(&self, uri: &Uri) {
        let has = |start| uri.query().is_some_and(|query| query.split('&').any(|it| it.starts_with(start)));
        let watches = &mut self.last_beats().watches;
        if has("watch=true") {
            watches.insert(uri.path().to_owned(), Instant::now());
        } else if has("limit=")
            && let Some(beat) = watches.get_mut(uri.path())
        {
            *beat = Instant::now();
        }
    }

    /// A reconciliation is due. One is requested periodically, to check that reconciliations end.
    pub(crate) fn expect_reconciliation(&self) {
        self.last_beats().reconcile_due.get_or_insert_with(Instant::now);
    }

    /// A reconciliation starts. It ends when the returned guard is dropped.
    pub(crate) fn reconciling(&self) -> Reconciling<'_> {
        Reconciling(self)
    }

    /// No reconciliation is due, because none runs from now on.
    pub(crate) fn rest(&self) {
        self.last_beats().reconcile_due = None;
    }

    /// Checks that a loop runs, if it was started; and of the work queue, that reconciliations end.
    ///
    /// # Errors
    /// The time without a heartbeat, or without a reconciliation.
    pub fn check(&self, of: Loop, now: Instant) -> Result<(), Unresponsive> {
        let beats = self.last_beats();
        let beat = beats.loops.get(&of).map(|at| (of.name().to_owned(), *at));
        find_silent(&beat.into_iter().collect(), now, MAX_LOOP_SILENCE, "")?;
        match beats.reconcile_due.map(|since| now.saturating_duration_since(since)) {
            Some(waited) if of == Loop::WorkQueue && waited > MAX_RECONCILE_SILENCE => {
                Err(Unresponsive::NoReconciliation { seconds: waited.as_secs() })
            }
            _ => Ok(()),
        }
    }

    /// Checks that every watch is started again when it ends.
    ///
    /// # Errors
    /// The watch without a heartbeat.
    pub fn check_watches(&self, now: Instant) -> Result<(), Unresponsive> {
        find_silent(&self.last_beats().watches, now, MAX_WATCH_SILENCE, "the watch of ")
    }

    fn last_beats(&self) -> MutexGuard<'_, LastBeats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reconciling<'_> {
    fn drop(&mut self) {
        self.0.rest();
    }
}

/// Finds the first part whose last heartbeat is older than `max_silence`.
fn find_silent(
    beats: &BTreeMap<String, Instant>,
    now: Instant,
    max_silence: Duration,
    prefix: &str,
) -> Result<(), Unresponsive> {
    let silent = beats.iter().find_map(|(name, at)| {
        let silence = now.saturating_duration_since(*at);
        (silence > max_silence).then(|| (format!("{prefix}{name}"), silence.as_secs()))
    });
    silent.map_or(Ok(()), |(part, seconds)| Err(Unresponsive::Silent { part, seconds }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    #[test]
    fn check_reports_a_loop_without_heartbeat_and_no_other() {
        for (of, name) in [
            (Loop::WorkQueue, "the work queue"),
            (Loop::MintQueue, "the mint queue"),
            (Loop::LeaderElection, "leader election"),
            (Loop::RefreshTokenSaver, "the saver of refresh tokens"),
            (Loop::Namespaces, "the reader of namespaces"),
        ] {
            let heartbeats = Heartbeats::default();
            assert_eq!(heartbeats.check(of, after(3600)), Ok(()), "it has not started");
            heartbeats.beat(of);
            assert_eq!(heartbeats.check(of, after(110)), Ok(()));
            let error = heartbeats.check(of, after(130)).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name} has had no heartbeat for 1")), "{error}");
            let others = [
                Loop::WorkQueue,
                Loop::MintQueue,
                Loop::LeaderElection,
                Loop::RefreshTokenSaver,
                Loop::Namespaces,
            ];
            let silent = others.into_iter().filter(|it| heartbeats.check(*it, after(130)).is_err());
            assert_eq!(silent.collect::<Vec<_>>(), [of]);
        }
    }

    #[test]
    fn check_watches_reports_a_watch_that_is_not_started_again() {
        let heartbeats = Heartbeats::default();
        heartbeats.request(&Uri::from_static("/api/v1/namespaces/a/secrets?&labelSelector=a&limit=100"));
        heartbeats.request(&Uri::from_static("/api/v1/namespaces/a/secrets/one"));
        heartbeats.request(&Uri::from_static(
            "/api/v1/namespaces/a/pods?&fieldSelector=status.phase%3DRunning&limit=50",
        ));
        assert_eq!(heartbeats.check_watches(after(3600)), Ok(()), "no watch has started");
        heartbeats.request(&Uri::from_static("/api/v1/secrets?&watch=true&timeoutSeconds=290"));
        assert_eq!(heartbeats.check_watches(after(700)), Ok(()));
        let silent = Instant::now().checked_sub(Duration::from_secs(3600)).unwrap();
        heartbeats.last_beats().watches.values_mut().for_each(|beat| *beat = silent);
        assert!(heartbeats.check_watches(Instant::now()).is_err());
        heartbeats.request(&Uri::from_static("/api/v1/secrets?&limit=500"));
        assert_eq!(heartbeats.check_watches(after(700)), Ok(()), "it is listed again");
        let error = heartbeats.check_watches(after(730)).unwrap_err().to_string();
        assert!(error.contains("the watch of /api/v1/secrets"), "{error}");
    }

    #[test]
    fn check_work_queue_reports_reconciliations_that_do_not_end() {
        let heartbeats = Heartbeats::default();
        assert_eq!(heartbeats.check(Loop::WorkQueue, after(3600)), Ok(()), "none is due");
        heartbeats.expect_reconciliation();
        assert_eq!(heartbeats.check(Loop::WorkQueue, after(590)), Ok(()));
        assert!(matches!(
            heartbeats.check(Loop::WorkQueue, after(610)),
            Err(Unresponsive::NoReconciliation { seconds: 609.. })
        ));
        let running = heartbeats.reconciling();
        assert!(heartbeats.check(Loop::WorkQueue, after(610)).is_err(), "it has not ended");
        drop(running);
        assert_eq!(heartbeats.check(Loop::WorkQueue, after(610)), Ok(()));
        heartbeats.expect_reconciliation();
        heartbeats.rest();
        assert_eq!(heartbeats.check(Loop::WorkQueue, after(610)), Ok(()), "another process leads");
    }
}
