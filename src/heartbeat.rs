//! Signs of life, by which a part that hangs is told from one that has nothing to do. What waits for somebody else, an
//! API server that is down or an endpoint that is slow, gives signs: it gives up in time, and tries again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::Uri;
use tokio::time::Instant;

/// A loop ticks every ten seconds.
const LOOP_PATIENCE: Duration = Duration::from_secs(2 * 60);
/// A watch is begun anew every 290 s, and when it fails after 30 s at most; a list that hangs is given up after 295 s.
const WATCH_PATIENCE: Duration = Duration::from_secs(12 * 60);
/// Every step of a look is bounded, to some minutes all together, however many others there are.
const LOOK_PATIENCE: Duration = Duration::from_secs(10 * 60);

/// Signs of life of a controller.
#[derive(Debug, Default)]
pub struct Heartbeats(Mutex<Signs>);

#[derive(Debug, Default)]
struct Signs {
    loops: BTreeMap<String, Instant>,
    watches: BTreeMap<String, Instant>,
    /// Since when a look has been waited for, if none has ended since.
    awaited: Option<Instant>,
}

/// A look under way.
#[must_use]
pub(crate) struct Looking<'a>(&'a Heartbeats);

impl Heartbeats {
    /// The loop for `scope` came round.
    pub fn tick(&self, scope: &str) {
        self.signs().loops.insert(scope.to_owned(), Instant::now());
    }

    /// A request goes to the API server: those of watches are signs of life, and so are the lists by which they are taken up
    /// again.
    pub fn request(&self, uri: &Uri) {
        let has = |start| uri.query().is_some_and(|query| query.split('&').any(|it| it.starts_with(start)));
        let watches = &mut self.signs().watches;
        if has("watch=true") {
            watches.insert(uri.path().to_owned(), Instant::now());
        } else if has("limit=")
            && let Some(sign) = watches.get_mut(uri.path())
        {
            *sign = Instant::now();
        }
    }

    /// A look is asked for, only to see that looks are made.
    pub(crate) fn await_look(&self) {
        self.signs().awaited.get_or_insert_with(Instant::now);
    }

    /// A look begins; it ends when what comes back is dropped.
    pub(crate) fn look(&self) -> Looking<'_> {
        Looking(self)
    }

    /// No look is made from now on.
    pub(crate) fn rest(&self) {
        self.signs().awaited = None;
    }

    /// Whether the loops come round.
    ///
    /// # Errors
    /// Which do not.
    pub fn loops(&self, now: Instant) -> Result<(), String> {
        overdue(&self.signs().loops, now, LOOP_PATIENCE).map_err(|it| format!("the loop of {it}"))
    }

    /// Whether every watch is kept up.
    ///
    /// # Errors
    /// Which is not.
    pub fn watches(&self, now: Instant) -> Result<(), String> {
        overdue(&self.signs().watches, now, WATCH_PATIENCE).map_err(|it| format!("the watch of {it}"))
    }

    /// Whether looks are made and come to an end.
    ///
    /// # Errors
    /// For how long none has.
    pub fn looks(&self, now: Instant) -> Result<(), String> {
        match self.signs().awaited.map(|since| now.saturating_duration_since(since)) {
            Some(waited) if waited > LOOK_PATIENCE => Err(format!(
                "no look at a TokenSource has ended for {} s, though they are due",
                waited.as_secs()
            )),
            _ => Ok(()),
        }
    }

    fn signs(&self) -> MutexGuard<'_, Signs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Looking<'_> {
    fn drop(&mut self) {
        self.0.rest();
    }
}

/// The first of these that has given no sign for longer than `patience`.
fn overdue(signs: &BTreeMap<String, Instant>, now: Instant, patience: Duration) -> Result<(), String> {
    let silent = |(name, at): (&String, &Instant)| {
        let silence = now.saturating_duration_since(*at);
        (silence > patience).then(|| format!("{name} has given no sign for {} s", silence.as_secs()))
    };
    signs.iter().find_map(silent).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: u64) -> Instant {
        Instant::now() + Duration::from_secs(seconds)
    }

    #[test]
    fn a_loop_that_stopped_is_seen() {
        let heartbeats = Heartbeats::default();
        assert_eq!(heartbeats.loops(after(3600)), Ok(()), "none has begun");
        heartbeats.tick("all namespaces");
        assert_eq!(heartbeats.loops(after(110)), Ok(()));
        assert!(heartbeats.loops(after(130)).unwrap_err().contains("the loop of all namespaces"));
    }

    #[test]
    fn a_watch_that_is_not_taken_up_again_is_seen() {
        let heartbeats = Heartbeats::default();
        heartbeats.request(&Uri::from_static("/api/v1/namespaces/a/secrets?&labelSelector=a&limit=100"));
        heartbeats.request(&Uri::from_static("/api/v1/namespaces/a/secrets/one"));
        heartbeats.request(&Uri::from_static(
            "/api/v1/namespaces/a/pods?&fieldSelector=status.phase%3DRunning&limit=50",
        ));
        assert_eq!(heartbeats.watches(after(3600)), Ok(()), "no watch has begun");
        heartbeats.request(&Uri::from_static("/api/v1/secrets?&watch=true&timeoutSeconds=290"));
        assert_eq!(heartbeats.watches(after(700)), Ok(()));
        let silent = Instant::now().checked_sub(Duration::from_secs(3600)).unwrap();
        heartbeats.signs().watches.values_mut().for_each(|sign| *sign = silent);
        assert!(heartbeats.watches(Instant::now()).is_err());
        heartbeats.request(&Uri::from_static("/api/v1/secrets?&limit=500"));
        assert_eq!(heartbeats.watches(after(700)), Ok(()), "it is listed again");
        assert!(heartbeats.watches(after(730)).unwrap_err().contains("/api/v1/secrets"));
    }

    #[test]
    fn looks_that_are_not_made_or_do_not_end_are_seen() {
        let heartbeats = Heartbeats::default();
        assert_eq!(heartbeats.looks(after(3600)), Ok(()), "none is due");
        heartbeats.await_look();
        assert_eq!(heartbeats.looks(after(590)), Ok(()));
        assert!(heartbeats.looks(after(610)).unwrap_err().starts_with("no look at a TokenSource"));
        let looking = heartbeats.look();
        assert!(heartbeats.looks(after(610)).is_err(), "it has not ended");
        drop(looking);
        assert_eq!(heartbeats.looks(after(610)), Ok(()));
        heartbeats.await_look();
        heartbeats.rest();
        assert_eq!(heartbeats.looks(after(610)), Ok(()), "another process leads");
    }
}
