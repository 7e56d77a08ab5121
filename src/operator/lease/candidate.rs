//! The decisions of one process in the leader election. Pure: the time is a parameter.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use crate::clock::Moment;

/// With a longer one a leader would be silent for as long as one that hangs.
const MAX_RETRY_PERIOD: Duration = Duration::from_secs(60);

/// The durations of leader election, with the meaning that they have in Kubernetes' own components.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimings {
    /// How long a Lease is valid after its last renewal. Others acquire it only then.
    pub duration: Duration,
    /// How long the holder tries to renew before it stops acting.
    pub renew_deadline: Duration,
    /// How often the holder renews.
    pub retry_period: Duration,
}

/// Timings with which two processes could lead, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseTimingsError {
    /// The lease duration is too short.
    #[error("--leader-election-lease-duration: at least 10s, because a token request must end within it")]
    Duration,
    /// The renew deadline is not less than the lease duration.
    #[error("--leader-election-renew-deadline: less than the lease duration, so that the holder stops first")]
    RenewDeadline,
    /// The retry period is zero or too long.
    #[error(
        "--leader-election-retry-period: at most half of the renew deadline, so that one failure is no loss, and at most 1m, because /livez fails after 2m without a round"
    )]
    RetryPeriod,
}

impl LeaseTimings {
    /// Checks that at most one process can lead, and that one failed renewal does not end the leadership.
    ///
    /// # Errors
    /// See [`LeaseTimingsError`].
    pub fn check(self) -> Result<Self, LeaseTimingsError> {
        if self.duration < Duration::from_secs(10) {
            Err(LeaseTimingsError::Duration)
        } else if self.renew_deadline >= self.duration {
            Err(LeaseTimingsError::RenewDeadline)
        } else if self.retry_period.is_zero()
            || self.retry_period * 2 > self.renew_deadline
            || self.retry_period > MAX_RETRY_PERIOD
        {
            Err(LeaseTimingsError::RetryPeriod)
        } else {
            Ok(self)
        }
    }
}

/// A process that leads or wants to lead.
#[derive(Debug)]
pub(super) struct LeaseCandidate {
    /// Unique for each process.
    identity: String,
    timings: LeaseTimings,
    observed: Option<ObservedLease>,
    /// When this process first observed that there is no Lease.
    absent_since: Option<Moment>,
    /// While this process leads: when it sent its last successful write of the Lease.
    renewed_at: Option<Moment>,
    /// Another process held the Lease since, and this has not been published yet.
    loss_pending: bool,
}

/// The last observed version of the Lease.
#[derive(Debug)]
struct ObservedLease {
    lease: Lease,
    /// When this process first observed this version. The times in the Lease are not used, because they are from the
    /// holder's clock.
    since: Moment,
}

impl LeaseCandidate {
    pub(super) fn new(identity: String, timings: LeaseTimings) -> Self {
        LeaseCandidate {
            identity,
            timings,
            observed: None,
            absent_since: None,
            renewed_at: None,
            loss_pending: false,
        }
    }

    /// When the Lease ends, while this process holds it.
    pub(super) fn leads_until(&self) -> Option<Moment> {
        self.renewed_at.map(|at| at.plus(self.timings.duration))
    }

    /// When this process stops leading unless it renews before.
    pub(super) fn resigns_at(&self) -> Option<Moment> {
        self.renewed_at.map(|at| at.plus(self.timings.renew_deadline))
    }

    /// The holder in the last observed version of the Lease.
    pub(super) fn holder(&self) -> Option<&str> {
        self.observed.as_ref().and_then(ObservedLease::holder)
    }

    /// Applies the result of a read.
    pub(super) fn observe(&mut self, now: Moment, lease: Option<Lease>) {
        let version = |lease: &Lease| lease.metadata.resource_version.clone();
        self.observed = lease.map(|lease| match self.observed.take() {
            Some(observed) if version(&observed.lease) == version(&lease) => observed,
            _ => ObservedLease { lease, since: now },
        });
        self.absent_since = self.observed.is_none().then(|| self.absent_since.unwrap_or(now));
        if self.holder() != Some(self.identity.as_str()) {
            self.loss_pending |= self.renewed_at.take().is_some();
        }
    }

    /// The loss of the leadership has been published within this process.
    pub(super) fn loss_published(&mut self) {
        self.loss_pending = false;
    }

    /// The Lease that this process should write now: it is the holder, or the Lease is free. `is_doubtful`: its clock is, so
    /// it leaves a free Lease to others for as long as a Lease lasts; if all clocks are wrong, one must lead.
    pub(super) fn desired(&self, now: Moment, time: Timestamp, is_doubtful: bool) -> Option<Lease> {
        // A loss must be published before this process leads again, also where the Lease is free again: another process
        // may have used the refresh token that this one is about to send.
        if self.loss_pending {
            return None;
        }
        let observed = self.observed.as_ref();
        let ours = observed.and_then(ObservedLease::holder) == Some(self.identity.as_str());
        let hesitates = if is_doubtful { self.timings.duration } else { Duration::ZERO };
        let is_free = match observed {
            Some(observed) => observed.is_free(now, hesitates),
            None => self.absent_since.map_or(Duration::ZERO, |since| now.since(since)) >= hesitates,
        };
        if !ours && !is_free {
            return None;
        }
        let (metadata, before) = observed
            .map(|observed| {
                (observed.lease.metadata.clone(), observed.lease.spec.clone().unwrap_or_default())
            })
            .unwrap_or_default();
        let transitions = before.lease_transitions.unwrap_or(0);
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.timings.duration.as_secs()).ok(),
            renew_time: Some(MicroTime(time)),
            acquire_time: if ours { before.acquire_time } else { Some(MicroTime(time)) },
            lease_transitions: Some(if ours || observed.is_none() {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..before
        };
        Some(Lease { metadata, spec: Some(spec) })
    }

    /// The desired Lease was written, by a request sent at `sent`: this process leads.
    pub(super) fn written(&mut self, sent: Moment, lease: Lease) {
        self.absent_since = None;
        self.observed = Some(ObservedLease { lease, since: sent });
        self.renewed_at = Some(sent);
    }

    /// Stops leading after the renew deadline.
    pub(super) fn resign_if_overdue(&mut self, now: Moment) {
        if self.resigns_at().is_some_and(|at| now.has_reached(at)) {
            self.renewed_at = None;
        }
    }

    /// Stops leading if the Lease has ended unnoticed: the process stood still, or the machine was suspended. Returns whether
    /// it has; the loss must be published before this process leads again.
    pub(super) fn resign_if_ended(&mut self, now: Moment) -> bool {
        let has_ended = self.leads_until().is_some_and(|end| now.has_reached(end));
        if has_ended {
            self.renewed_at = None;
        }
        has_ended
    }

    /// Stops leading; returns the Lease without a holder, so that another process can acquire it at once.
    pub(super) fn release(&mut self, time: Timestamp) -> Option<Lease> {
        self.renewed_at.take()?;
        let ObservedLease { lease, .. } = self.observed.take()?;
        let spec = LeaseSpec {
            holder_identity: None,
            lease_duration_seconds: Some(1),
            renew_time: Some(MicroTime(time)),
            ..lease.spec.unwrap_or_default()
        };
        Some(Lease { metadata: lease.metadata, spec: Some(spec) })
    }
}

impl ObservedLease {
    fn holder(&self) -> Option<&str> {
        self.lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
    }

    /// Whether it has had no holder, or has not changed for its duration, `hesitates` ago already.
    fn is_free(&self, now: Moment, hesitates: Duration) -> bool {
        let seconds = self.lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
        let duration = match self.holder() {
            Some(_) => Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
            None => Duration::ZERO,
        };
        now.since(self.since) >= duration.saturating_add(hesitates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMINGS: LeaseTimings = LeaseTimings {
        duration: Duration::from_secs(15),
        renew_deadline: Duration::from_secs(10),
        retry_period: Duration::from_secs(2),
    };

    /// An API server with one Lease. It accepts a write only for the present version.
    #[derive(Default)]
    struct Server {
        lease: Option<Lease>,
        version: u64,
    }

    impl Server {
        fn write(&mut self, mut lease: Lease) -> Option<Lease> {
            let has = self.lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
            if lease.metadata.resource_version != has {
                return None;
            }
            self.version += 1;
            lease.metadata.resource_version = Some(self.version.to_string());
            self.lease = Some(lease.clone());
            Some(lease)
        }

        fn holder(&self) -> Option<&str> {
            self.lease.as_ref()?.spec.as_ref()?.holder_identity.as_deref()
        }
    }

    fn at(start: Moment, seconds: u64) -> Moment {
        start.plus(Duration::from_secs(seconds))
    }

    fn wall() -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn observe(candidate: &mut LeaseCandidate, server: &Server, now: Moment) {
        candidate.observe(now, server.lease.clone());
    }

    /// Writes the desired Lease; returns whether the candidate leads then.
    fn try_to_lead(candidate: &mut LeaseCandidate, server: &mut Server, now: Moment) -> bool {
        if let Some(written) = candidate.desired(now, wall(), false).and_then(|lease| server.write(lease)) {
            candidate.written(now, written);
        }
        candidate.leads_until().is_some()
    }

    fn two() -> (LeaseCandidate, LeaseCandidate, Server, Moment) {
        let [a, b] = ["a", "b"].map(|name| LeaseCandidate::new(name.into(), TIMINGS));
        (a, b, Server::default(), Moment::default())
    }

    #[test]
    fn candidate_of_two_that_start_together_one_leads() {
        let (mut a, mut b, mut server, start) = two();
        observe(&mut a, &server, start);
        observe(&mut b, &server, start);
        assert!(try_to_lead(&mut a, &mut server, start));
        assert!(!try_to_lead(&mut b, &mut server, start), "the Lease exists by now");
        observe(&mut b, &server, start);
        assert_eq!((b.holder(), b.desired(start, wall(), false)), (Some("a"), None));
    }

    #[test]
    fn candidate_does_not_acquire_a_renewed_lease_whatever_its_times_are() {
        let (mut a, mut b, mut server, start) = two();
        assert!(try_to_lead(&mut a, &mut server, start));
        for seconds in (2..60).step_by(2) {
            let now = at(start, seconds);
            assert!(try_to_lead(&mut a, &mut server, now));
            assert_eq!(a.leads_until(), Some(at(start, seconds + 15)));
            observe(&mut b, &server, now);
            assert_eq!(b.desired(now, "2200-01-01T00:00:00Z".parse().unwrap(), false), None);
        }
    }

    #[test]
    fn candidate_acquires_an_expired_lease_and_not_before() {
        let (mut a, mut b, mut server, start) = two();
        assert!(try_to_lead(&mut a, &mut server, start));
        observe(&mut b, &server, at(start, 1));
        observe(&mut b, &server, at(start, 15));
        assert_eq!(b.desired(at(start, 15), wall(), false), None, "it was first observed at 1 s");
        assert!(try_to_lead(&mut b, &mut server, at(start, 16)));
        let spec = server.lease.as_ref().unwrap().spec.clone().unwrap();
        assert_eq!((spec.lease_transitions, spec.holder_identity.as_deref()), (Some(1), Some("b")));

        assert!(
            at(start, 16).has_reached(a.leads_until().unwrap()),
            "a paused leader must not act when it resumes"
        );
        assert_eq!(a.desired(at(start, 99), wall(), false).and_then(|lease| server.write(lease)), None);
        observe(&mut a, &server, at(start, 99));
        assert_eq!((a.leads_until(), a.desired(at(start, 99), wall(), false)), (None, None));
    }

    #[test]
    fn candidate_that_was_paused_does_not_acquire_a_lease_renewed_meanwhile() {
        let (mut a, mut b, mut server, start) = two();
        assert!(try_to_lead(&mut a, &mut server, start));
        observe(&mut b, &server, start);
        assert!(try_to_lead(&mut a, &mut server, at(start, 98)));
        observe(&mut b, &server, at(start, 99));
        assert_eq!(b.desired(at(start, 99), wall(), false), None);
    }

    #[test]
    fn candidate_that_cannot_renew_resigns_before_another_leads() {
        let (mut a, _, mut server, start) = two();
        assert!(try_to_lead(&mut a, &mut server, start));
        a.resign_if_overdue(at(start, 9));
        assert!(a.leads_until().is_some());
        assert_eq!(a.resigns_at(), Some(at(start, 10)));
        a.resign_if_overdue(at(start, 10));
        assert_eq!(a.leads_until(), None);
        // The API server is back before another process acquires the Lease.
        observe(&mut a, &server, at(start, 11));
        assert!(try_to_lead(&mut a, &mut server, at(start, 11)));
    }

    #[test]
    fn candidate_recognises_its_write_whose_response_was_lost() {
        let (mut a, _, mut server, start) = two();
        let lost = a.desired(start, wall(), false).unwrap();
        server.write(lost).unwrap();
        assert!(!try_to_lead(&mut a, &mut server, at(start, 1)), "409");
        observe(&mut a, &server, at(start, 2));
        assert!(try_to_lead(&mut a, &mut server, at(start, 2)));
        assert_eq!(a.leads_until(), Some(at(start, 17)));
        assert_eq!(server.lease.unwrap().spec.unwrap().lease_transitions, Some(0));
    }

    #[test]
    fn candidate_acquires_a_released_or_deleted_lease_at_once() {
        let (mut a, mut b, mut server, start) = two();
        assert_eq!(a.release(wall()), None, "it does not hold it");
        assert!(try_to_lead(&mut a, &mut server, start));
        observe(&mut b, &server, start);
        let released = a.release(wall()).unwrap();
        server.write(released).unwrap();
        assert_eq!((a.leads_until(), server.holder()), (None, None));
        observe(&mut b, &server, at(start, 1));
        assert!(try_to_lead(&mut b, &mut server, at(start, 1)));

        server.lease = None;
        observe(&mut b, &server, at(start, 2));
        assert_eq!(b.leads_until(), None);
        b.loss_published();
        assert!(try_to_lead(&mut b, &mut server, at(start, 2)));
    }

    #[test]
    fn candidate_that_lost_the_lease_unnoticed_publishes_it_before_it_leads_again() {
        let (mut a, mut b, mut server, start) = two();
        assert!(try_to_lead(&mut a, &mut server, start));
        observe(&mut b, &server, at(start, 1));
        assert!(try_to_lead(&mut b, &mut server, at(start, 16)));
        let released = b.release(wall()).unwrap();
        server.write(released).unwrap();

        assert!(
            a.desired(at(start, 20), wall(), false).and_then(|lease| server.write(lease)).is_none(),
            "409"
        );
        observe(&mut a, &server, at(start, 20));
        assert!(!try_to_lead(&mut a, &mut server, at(start, 20)), "though the Lease is free");
        a.loss_published();
        assert!(try_to_lead(&mut a, &mut server, at(start, 21)));
    }

    #[test]
    fn candidate_keeps_the_leadership_and_the_label_when_another_labels_the_lease() {
        let (mut a, _, mut server, start) = two();
        assert!(try_to_lead(&mut a, &mut server, start));
        let mut labelled = server.lease.clone().unwrap();
        labelled.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
        server.write(labelled).unwrap();
        assert!(a.desired(at(start, 2), wall(), false).and_then(|lease| server.write(lease)).is_none());
        observe(&mut a, &server, at(start, 2));
        assert!(a.leads_until().is_some());
        assert!(try_to_lead(&mut a, &mut server, at(start, 2)));
        assert!(server.lease.unwrap().metadata.labels.is_some());
    }

    #[test]
    fn lease_timings_with_which_two_could_lead_are_refused() {
        let check = |duration, renew_deadline, retry_period| {
            let [duration, renew_deadline, retry_period] =
                [duration, renew_deadline, retry_period].map(Duration::from_secs);
            LeaseTimings { duration, renew_deadline, retry_period }.check().map(drop)
        };
        assert!(check(15, 10, 2).is_ok() && check(10, 8, 4).is_ok());
        for (timings, error) in [
            ((9, 6, 2), LeaseTimingsError::Duration),
            ((15, 15, 2), LeaseTimingsError::RenewDeadline),
            ((15, 10, 6), LeaseTimingsError::RetryPeriod),
            ((15, 10, 0), LeaseTimingsError::RetryPeriod),
            ((600, 480, 61), LeaseTimingsError::RetryPeriod),
        ] {
            assert_eq!(check(timings.0, timings.1, timings.2), Err(error), "{timings:?}");
        }
    }

    #[test]
    fn candidate_that_wakes_after_the_end_of_its_lease_publishes_the_loss_before_it_leads_again() {
        let (mut a, _, mut server, start) = two();
        assert!(try_to_lead(&mut a, &mut server, start));
        let suspended = Moment { slept: Duration::from_secs(3600), ..at(start, 1) };
        assert!(!a.resign_if_ended(at(start, 14)) && a.resign_if_ended(suspended));
        assert_eq!(a.leads_until(), None);
        assert!(try_to_lead(&mut a, &mut server, suspended), "nothing else leads");

        // A virtual machine may notice a pause by its wall clock alone.
        let paused = Moment { wall: suspended.plus(Duration::from_secs(3600)).wall, ..suspended };
        assert!(a.resign_if_ended(paused));
        let set_back = Moment { wall: Timestamp::UNIX_EPOCH, ..suspended };
        assert!(try_to_lead(&mut a, &mut server, suspended) && !a.resign_if_ended(set_back));
    }

    #[test]
    fn candidate_does_not_take_the_lease_of_another_when_its_wall_clock_is_set() {
        let (mut a, mut b, mut server, start) = two();
        assert!(try_to_lead(&mut a, &mut server, start));
        observe(&mut b, &server, start);
        let set = Moment { wall: at(start, 86_400).wall, ..at(start, 1) };
        assert_eq!(b.desired(set, wall(), false), None);
    }

    #[test]
    fn candidate_of_doubtful_clock_waits_a_lease_longer_and_never_refuses() {
        let (mut a, mut b, mut server, start) = two();
        observe(&mut b, &server, start);
        assert_eq!(b.desired(at(start, 14), wall(), true), None, "there is none yet");
        assert!(b.desired(at(start, 15), wall(), true).is_some());

        assert!(try_to_lead(&mut a, &mut server, start));
        observe(&mut b, &server, start);
        assert_eq!(b.desired(at(start, 29), wall(), true), None, "it has expired");
        assert!(b.desired(at(start, 30), wall(), true).is_some());
        assert!(a.desired(at(start, 1), wall(), true).is_some(), "the holder renews");

        let released = a.release(wall()).unwrap();
        server.write(released).unwrap();
        observe(&mut b, &server, at(start, 40));
        assert_eq!(b.desired(at(start, 54), wall(), true), None, "it was released");
        assert!(b.desired(at(start, 55), wall(), true).is_some());
    }
}
