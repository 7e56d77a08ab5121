//! Whether this process may act, and until when.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

/// The least that a token request may have to be worth beginning.
const LEAST: Duration = Duration::from_secs(5);
/// Taken off a lease's end: clocks of two machines run at speeds that differ a little.
const MARGIN: Duration = Duration::from_secs(1);

/// Whether this process may act: while it leads, and was not told to stop.
#[derive(Clone, Debug)]
pub struct Leadership {
    /// When the lease ends that this process holds; `None` where it holds none.
    lease: watch::Receiver<Option<Instant>>,
    stopping: watch::Receiver<bool>,
}

impl Leadership {
    /// A leadership by a lease, until the process stops.
    #[must_use]
    pub fn new(lease: watch::Receiver<Option<Instant>>, stopping: watch::Receiver<bool>) -> Self {
        Leadership { lease, stopping }
    }

    /// A leadership without a lease: no other process is there.
    #[must_use]
    pub fn alone(stopping: watch::Receiver<bool>) -> Self {
        let years = Duration::from_secs(100 * 365 * 24 * 60 * 60);
        Leadership { lease: watch::channel(Some(Instant::now() + years)).1, stopping }
    }

    /// Whether this process leads. What it has begun it may still write then, though it may have been told to stop.
    #[must_use]
    pub fn leads(&self) -> bool {
        self.lease.borrow().is_some_and(|end| Instant::now() < end)
    }

    /// Whether it was told to stop.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Whether anything new may be begun.
    #[must_use]
    pub fn may_begin(&self) -> bool {
        self.leads() && !self.is_stopping()
    }

    /// Waits until this process leads.
    pub async fn begins(&self) {
        wait(self.lease.clone(), |lease| lease.is_some()).await;
    }

    /// Waits until this process does not lead any more, or is told to stop: nothing new is begun then.
    pub async fn ends(&self) {
        tokio::select! {
            () = wait(self.lease.clone(), |lease| lease.is_none()) => {}
            () = self.stops() => {}
        }
    }

    /// Waits until this process is told to stop.
    pub async fn stops(&self) {
        wait(self.stopping.clone(), |stopping| *stopping).await;
    }

    /// How long a token request may take that would like to take `wish`: it must end before the lease does, because
    /// another process may ask for the same token from then on. Waits for the lease to be renewed where it is too short;
    /// `None` where nothing is to be begun.
    pub async fn lasts(&self, wish: Duration) -> Option<Duration> {
        let mut lease = self.lease.clone();
        loop {
            let left = lease
                .borrow_and_update()
                .map(|end| end.saturating_duration_since(Instant::now()).saturating_sub(MARGIN));
            match left {
                None => return None,
                Some(_) if self.is_stopping() => return None,
                Some(left) if left >= wish.min(LEAST) => return Some(left.min(wish)),
                Some(_) => {}
            }
            tokio::select! {
                changed = lease.changed() => changed.ok()?,
                () = self.stops() => return None,
            }
        }
    }
}

/// Waits for a value like this. If whoever sets it has gone, the process ends, and nobody needs to know.
async fn wait<T>(mut receiver: watch::Receiver<T>, condition: impl FnMut(&T) -> bool) {
    if receiver.wait_for(condition).await.is_err() {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn leadership(
        lease: Option<Duration>,
    ) -> (watch::Sender<Option<Instant>>, watch::Sender<bool>, Leadership) {
        let (lease, leads) = watch::channel(lease.map(|left| Instant::now() + left));
        let (stop, stopping) = watch::channel(false);
        (lease, stop, Leadership::new(leads, stopping))
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_request_ends_before_the_lease() {
        let (lease, _stop, leadership) = leadership(Some(15 * SECOND));
        assert_eq!(leadership.lasts(5 * SECOND).await, Some(5 * SECOND));
        assert_eq!(leadership.lasts(30 * SECOND).await, Some(14 * SECOND));
        tokio::time::advance(9 * SECOND).await;
        assert_eq!(leadership.lasts(30 * SECOND).await, Some(5 * SECOND));
        tokio::time::advance(SECOND).await;
        assert_eq!(leadership.lasts(4 * SECOND).await, Some(4 * SECOND), "no more than it asks for");
        let waits = tokio::spawn(async move { leadership.lasts(30 * SECOND).await });
        tokio::time::advance(SECOND).await;
        lease.send_replace(Some(Instant::now() + 15 * SECOND));
        assert_eq!(waits.await.unwrap(), Some(14 * SECOND), "once it is renewed");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_begins_without_a_lease_or_when_the_process_stops() {
        let (lease, _stop, standby) = leadership(None);
        assert!(!standby.leads() && standby.begins().now_or_never().is_none());
        assert_eq!(standby.lasts(SECOND).await, None);
        lease.send_replace(Some(Instant::now() + 10 * SECOND));
        standby.begins().await;
        assert!(standby.leads() && standby.ends().now_or_never().is_none());
        tokio::time::advance(11 * SECOND).await;
        assert!(!standby.leads(), "nobody has said so yet, but its time is over");
        lease.send_replace(None);
        standby.ends().await;
        let (_stop, stopping) = watch::channel(false);
        let alone = Leadership::alone(stopping);
        alone.begins().await;
        assert!(alone.may_begin() && alone.ends().now_or_never().is_none());
        assert_eq!(alone.lasts(30 * SECOND).await, Some(30 * SECOND));

        let (lease, stop, leadership) = leadership(Some(10 * SECOND));
        stop.send_replace(true);
        leadership.ends().await;
        assert_eq!(leadership.lasts(SECOND).await, None);
        assert!(leadership.leads() && !leadership.may_begin(), "what was begun is still written");
        drop(lease);
    }
}
