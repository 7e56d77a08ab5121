//! Leadership: whether this process may act, and until when.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use jiff::Timestamp;
use tokio::sync::watch;

use crate::clock::{Clock, Moment};

/// The shortest timeout with which a token request is started.
const MIN_REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Subtracted from the end of the Lease, because the clocks of two machines run at slightly different speeds.
const CLOCK_MARGIN: Duration = Duration::from_secs(1);

/// Ready when a term has ended, or this process must stop.
pub type EndOfTerm = Shared<BoxFuture<'static, ()>>;

/// Whether this process may act: it leads, and has not been told to stop.
#[derive(Clone, Debug)]
pub struct Leadership {
    /// When the Lease of this process ends; `None` while it holds none.
    lease: watch::Receiver<Option<Moment>>,
    stopping: watch::Receiver<bool>,
    /// Timers stand still while the machine is suspended, and the Lease ends.
    clock: Arc<Clock>,
}

impl Leadership {
    /// Leadership by a Lease.
    #[must_use]
    pub fn new(
        lease: watch::Receiver<Option<Moment>>,
        clock: Arc<Clock>,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Leadership { lease, stopping, clock }
    }

    /// Leadership without leader election.
    #[must_use]
    pub fn without_election(clock: Arc<Clock>, stopping: watch::Receiver<bool>) -> Self {
        let never = Moment { awake: Duration::MAX, slept: Duration::ZERO, wall: Timestamp::MAX };
        Leadership { lease: watch::channel(Some(never)).1, stopping, clock }
    }

    /// Whether this process leads. It may then write the results of what it has started, also after it was told to stop.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.lease.borrow().is_some_and(|end| !self.clock.moment().has_reached(end))
    }

    /// Whether this process was told to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Whether this process may start something new.
    #[must_use]
    pub fn may_start(&self) -> bool {
        self.leads() && !self.is_stopping()
    }

    /// Waits until this process leads.
    pub async fn wait_until_leading(&self) {
        wait(self.lease.clone(), |lease| lease.is_some()).await;
    }

    /// Waits until this process stops leading, or must stop.
    pub async fn wait_until_ended(&self) {
        tokio::select! {
            () = wait(self.lease.clone(), |lease| lease.is_none()) => {}
            () = self.wait_until_stopping() => {}
        }
    }

    /// The end of the present term. Those that wait for the same one see it alike: a Lease that is lost and won again at once ends the
    /// term for all of them, or for none.
    pub fn end_of_term(&self) -> EndOfTerm {
        let leadership = self.clone();
        async move { leadership.wait_until_ended().await }.boxed().shared()
    }

    /// Waits until this process must stop.
    pub async fn wait_until_stopping(&self) {
        wait(self.stopping.clone(), |stopping| *stopping).await;
    }

    /// The timeout of a token request, at most `wanted`. The request must end before the Lease, because from then on another
    /// process may request the same token. Waits for a renewal where too little time is left; `None` where this process
    /// must not start anything.
    pub async fn request_timeout(&self, wanted: Duration) -> Option<Duration> {
        let mut lease = self.lease.clone();
        loop {
            let left = lease
                .borrow_and_update()
                .map(|end| self.clock.moment().left_until(end).saturating_sub(CLOCK_MARGIN));
            match left {
                None => return None,
                Some(_) if self.is_stopping() => return None,
                Some(left) if left >= wanted.min(MIN_REQUEST_TIMEOUT) => return Some(left.min(wanted)),
                Some(_) => {}
            }
            tokio::select! {
                changed = lease.changed() => changed.ok()?,
                () = self.wait_until_stopping() => return None,
            }
        }
    }
}

/// Waits until the value meets the condition. Without a sender it waits forever, because the process is ending.
async fn wait<T>(mut receiver: watch::Receiver<T>, condition: impl FnMut(&T) -> bool) {
    if receiver.wait_for(condition).await.is_err() {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::FutureExt;
    use tokio::time::Instant;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn leadership(
        lease: Option<Duration>,
    ) -> (watch::Sender<Option<Moment>>, watch::Sender<bool>, Leadership) {
        let start = Instant::now();
        let wall = move || Timestamp::UNIX_EPOCH + start.elapsed();
        let read = move || Moment { awake: start.elapsed(), wall: wall(), ..Moment::default() };
        by_clock(lease, Arc::new(Clock::reading(read)))
    }

    fn by_clock(
        lease: Option<Duration>,
        clock: Arc<Clock>,
    ) -> (watch::Sender<Option<Moment>>, watch::Sender<bool>, Leadership) {
        let (lease, leads) = watch::channel(lease.map(|left| clock.moment().plus(left)));
        let (stop, stopping) = watch::channel(false);
        (lease, stop, Leadership::new(leads, clock, stopping))
    }

    fn ends_in(leadership: &Leadership, left: Duration) -> Option<Moment> {
        Some(leadership.clock.moment().plus(left))
    }

    #[tokio::test(start_paused = true)]
    async fn leadership_of_a_machine_that_wakes_has_ended_with_the_lease() {
        for by_sleep in [true, false] {
            let missed = Arc::new(Mutex::new(Duration::ZERO));
            let (passed, start) = (Arc::clone(&missed), Instant::now());
            let clock = Arc::new(Clock::reading(move || {
                let (awake, missed) = (start.elapsed(), *passed.lock().unwrap());
                let now = Moment { awake, ..Moment::default() }.plus(Duration::ZERO);
                // A suspended machine counts its sleep; a paused one notices nothing but a step of its wall clock.
                let slept = if by_sleep { missed } else { Duration::ZERO };
                Moment { slept, wall: now.wall + awake + missed, ..now }
            }));
            let (lease, _stop, leadership) = by_clock(Some(15 * SECOND), clock);
            assert!(leadership.may_start());
            *missed.lock().unwrap() = 3600 * SECOND;
            assert!(!leadership.may_start() && !leadership.leads(), "{by_sleep}");
            let waiting = leadership.request_timeout(5 * SECOND).now_or_never();
            assert_eq!(waiting, None, "it waits for the renewal");
            lease.send_replace(ends_in(&leadership, 15 * SECOND));
            assert!(leadership.may_start(), "it was renewed");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn request_timeout_ends_before_the_lease() {
        let (lease, _stop, leadership) = leadership(Some(15 * SECOND));
        assert_eq!(leadership.request_timeout(5 * SECOND).await, Some(5 * SECOND));
        assert_eq!(leadership.request_timeout(30 * SECOND).await, Some(14 * SECOND));
        tokio::time::advance(9 * SECOND).await;
        assert_eq!(leadership.request_timeout(30 * SECOND).await, Some(5 * SECOND));
        tokio::time::advance(SECOND).await;
        assert_eq!(leadership.request_timeout(4 * SECOND).await, Some(4 * SECOND), "not more than wanted");
        let renewed = ends_in(&leadership, 16 * SECOND);
        let waiting = tokio::spawn(async move { leadership.request_timeout(30 * SECOND).await });
        tokio::time::advance(SECOND).await;
        lease.send_replace(renewed);
        assert_eq!(waiting.await.unwrap(), Some(14 * SECOND), "after the renewal");
    }

    #[tokio::test(start_paused = true)]
    async fn leadership_without_a_lease_or_after_stop_starts_nothing() {
        let (lease, _stop, standby) = leadership(None);
        assert!(!standby.leads() && standby.wait_until_leading().now_or_never().is_none());
        assert_eq!(standby.request_timeout(SECOND).await, None);
        lease.send_replace(ends_in(&standby, 10 * SECOND));
        standby.wait_until_leading().await;
        assert!(standby.leads() && standby.wait_until_ended().now_or_never().is_none());
        tokio::time::advance(11 * SECOND).await;
        assert!(!standby.leads(), "the Lease has expired, though no loss was published");
        lease.send_replace(None);
        standby.wait_until_ended().await;
        let (_stop, stopping) = watch::channel(false);
        let alone = Leadership::without_election(Arc::default(), stopping);
        alone.wait_until_leading().await;
        assert!(alone.may_start() && alone.wait_until_ended().now_or_never().is_none());
        assert_eq!(alone.request_timeout(30 * SECOND).await, Some(30 * SECOND));

        let (lease, stop, leadership) = leadership(Some(10 * SECOND));
        stop.send_replace(true);
        leadership.wait_until_ended().await;
        assert_eq!(leadership.request_timeout(SECOND).await, None);
        assert!(leadership.leads() && !leadership.may_start(), "results are still written");
        drop(lease);
    }
}
