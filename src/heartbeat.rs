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
    /// By scope: a namespace, or all namespaces.
    loops: BTreeMap<String, Instant>,
    leader_election: Option<Instant>,
    /// By the path of the request.
    watches: BTreeMap<String, Instant>,
    /// When a reconciliation became due, if none has ended since.
    reconcile_due: Option<Instant>,
}

/// A running reconciliation.
#[must_use]
pub(crate) struct Looking<'a>(&'a Heartbeats);

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
    /// A heartbeat of the loop of `scope`.
    pub fn tick(&self, scope: &str) {
        self.last_beats().loops.insert(scope.to_owned(), Instant::now());
    }

    /// A heartbeat of leader election.
    pub fn beat_leader_election(&self) {
        self.last_beats().leader_election = Some(Instant::now());
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
    pub(crate) fn await_look(&self) {
        self.last_beats().reconcile_due.get_or_insert_with(Instant::now);
    }

    /// A reconciliation starts. It ends when the returned guard is dropped.
    pub(crate) fn look(&self) -> Looking<'_> {
        Looking(self)
    }

    /// No reconciliation is due, because none runs from now on.
    pub(crate) fn rest(&self) {
        self.last_beats().reconcile_due = None;
    }

    /// Checks that every loop of the work queue runs, and that reconciliations end.
    ///
    /// # Errors
    /// The loop without a heartbeat, or the time without a reconciliation.
    pub fn check_work_queue(&self, now: Instant) -> Result<(), Unresponsive> {
        let beats = self.last_beats();
        find_silent(&beats.loops, now, MAX_LOOP_SILENCE, "the loop of ")?;
        match beats.reconcile_due.map(|since| now.saturating_duration_since(since)) {
            Some(waited) if waited > MAX_RECONCILE_SILENCE => {
                Err(Unresponsive::NoReconciliation { seconds: waited.as_secs() })
            }
            _ => Ok(()),
        }
    }

    /// Checks that leader election runs, if it was started.
    ///
    /// # Errors
    /// It has had no heartbeat for too long.
    pub fn check_leader_election(&self, now: Instant) -> Result<(), Unresponsive> {
        let beat = self.last_beats().leader_election.map(|at| ("leader election".to_owned(), at));
        find_silent(&beat.into_iter().collect(), now, MAX_LOOP_SILENCE, "")
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

impl Drop for Looking<'_> {
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
    fn check_work_queue_reports_a_loop_without_heartbeat() {
        let heartbeats = Heartbeats::default();
        assert_eq!(heartbeats.check_work_queue(after(3600)), Ok(()), "no loop has started");
        heartbeats.tick("all namespaces");
        assert_eq!(heartbeats.check_work_queue(after(110)), Ok(()));
        let error = heartbeats.check_work_queue(after(130)).unwrap_err().to_string();
        assert!(error.starts_with("the loop of all namespaces has had no heartbeat for 1"), "{error}");
    }

    #[test]
    fn check_leader_election_reports_a_missing_heartbeat() {
        let heartbeats = Heartbeats::default();
        assert_eq!(heartbeats.check_leader_election(after(3600)), Ok(()), "it has not started");
        heartbeats.beat_leader_election();
        assert_eq!(heartbeats.check_leader_election(after(110)), Ok(()));
        let error = heartbeats.check_leader_election(after(130)).unwrap_err().to_string();
        assert!(error.starts_with("leader election has had no heartbeat for 1"), "{error}");
        assert_eq!(heartbeats.check_work_queue(after(130)), Ok(()));
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
        assert_eq!(heartbeats.check_work_queue(after(3600)), Ok(()), "none is due");
        heartbeats.await_look();
        assert_eq!(heartbeats.check_work_queue(after(590)), Ok(()));
        assert!(matches!(
            heartbeats.check_work_queue(after(610)),
            Err(Unresponsive::NoReconciliation { seconds: 609.. })
        ));
        let running = heartbeats.look();
        assert!(heartbeats.check_work_queue(after(610)).is_err(), "it has not ended");
        drop(running);
        assert_eq!(heartbeats.check_work_queue(after(610)), Ok(()));
        heartbeats.await_look();
        heartbeats.rest();
        assert_eq!(heartbeats.check_work_queue(after(610)), Ok(()), "another process leads");
    }
}
