//! What one process knows of the lease, and what it does about it. Pure: the time is a parameter.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::ObjectMeta;
use tokio::time::Instant;

/// How a lease is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long others wait after the last sign of the holder before they take it.
    pub duration: Duration,
    /// How long the holder tries to renew it before it stops acting.
    pub renew_deadline: Duration,
    /// How often the holder renews it.
    pub retry_period: Duration,
}

impl Terms {
    /// Refuses terms under which two processes could lead, or none.
    ///
    /// # Errors
    /// What to write instead.
    pub fn check(self) -> Result<Self, &'static str> {
        if self.duration < Duration::from_secs(10) {
            Err("--leader-election-lease-duration: at least 10s, because a token request must end within it")
        } else if self.renew_deadline >= self.duration {
            Err(
                "--leader-election-renew-deadline: less than the lease duration, so that the holder stops first",
            )
        } else if self.retry_period.is_zero() || self.retry_period * 2 > self.renew_deadline {
            Err(
                "--leader-election-retry-period: at most half of the renew deadline, so that one failure is no loss",
            )
        } else {
            Ok(self)
        }
    }
}

/// A process that leads, or would like to.
#[derive(Debug)]
pub(super) struct Candidate {
    /// Of this process alone.
    identity: String,
    terms: Terms,
    seen: Option<Seen>,
    /// When the write was sent by which this process last got or kept the lease, while it leads.
    led_since: Option<Instant>,
    /// It was seen that another had the lease since, and nobody here has been told yet.
    lost: bool,
}

/// The lease as it was last seen.
#[derive(Debug)]
struct Seen {
    lease: Lease,
    /// Since when, by this process's own clock, it has been so. The times that stand in it are of another's clock.
    since: Instant,
}

impl Candidate {
    pub(super) fn new(identity: String, terms: Terms) -> Self {
        Candidate { identity, terms, seen: None, led_since: None, lost: false }
    }

    /// When the lease ends that this process leads by.
    pub(super) fn leads_until(&self) -> Option<Instant> {
        self.led_since.map(|since| since + self.terms.duration)
    }

    /// When this process stops leading, if it cannot renew before.
    pub(super) fn gives_up_at(&self) -> Option<Instant> {
        self.led_since.map(|since| since + self.terms.renew_deadline)
    }

    /// Who holds the lease, as far as is known.
    pub(super) fn holder(&self) -> Option<&str> {
        self.seen.as_ref().and_then(Seen::holder)
    }

    /// Takes in what a read has shown.
    pub(super) fn saw(&mut self, now: Instant, lease: Option<Lease>) {
        let version = |lease: &Lease| lease.metadata.resource_version.clone();
        self.seen = lease.map(|lease| match self.seen.take() {
            Some(seen) if version(&seen.lease) == version(&lease) => seen,
            _ => Seen { lease, since: now },
        });
        if self.holder() != Some(self.identity.as_str()) {
            self.lost |= self.led_since.take().is_some();
        }
    }

    /// Takes in that everybody here knows whether this process leads.
    pub(super) fn told(&mut self) {
        self.lost = false;
    }

    /// The lease as it should be written now, if it is for this process to write: it holds it, or nobody does.
    pub(super) fn wants(&self, now: Instant, wall: Timestamp) -> Option<Lease> {
        // Whoever acts here must learn of it first, also where the lease is free again: another may have spent, meanwhile,
        // the refresh token that is about to be sent.
        if self.lost {
            return None;
        }
        let seen = self.seen.as_ref();
        let ours = seen.and_then(Seen::holder) == Some(self.identity.as_str());
        if !ours && seen.is_some_and(|seen| !seen.is_free(now)) {
            return None;
        }
        let (metadata, before) = seen
            .map(|seen| (seen.lease.metadata.clone(), seen.lease.spec.clone().unwrap_or_default()))
            .unwrap_or_default();
        let transitions = before.lease_transitions.unwrap_or(0);
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.terms.duration.as_secs()).ok(),
            renew_time: Some(MicroTime(wall)),
            acquire_time: if ours { before.acquire_time } else { Some(MicroTime(wall)) },
            lease_transitions: Some(if ours || seen.is_none() {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..before
        };
        Some(Lease { metadata, spec: Some(spec) })
    }

    /// Takes in that the lease was written for this process, as asked for at `sent`.
    pub(super) fn wrote(&mut self, sent: Instant, lease: Lease) {
        self.seen = Some(Seen { lease, since: sent });
        self.led_since = Some(sent);
    }

    /// Stops leading where the lease could not be renewed for too long.
    pub(super) fn give_up_when_due(&mut self, now: Instant) {
        if self.gives_up_at().is_some_and(|at| now >= at) {
            self.led_since = None;
        }
    }

    /// The lease as it should be written by a leader that ends, so that another may take it at once.
    pub(super) fn release(&mut self, wall: Timestamp) -> Option<Lease> {
        self.led_since.take()?;
        let Seen { lease, .. } = self.seen.take()?;
        let spec = LeaseSpec {
            holder_identity: None,
            lease_duration_seconds: Some(1),
            renew_time: Some(MicroTime(wall)),
            ..lease.spec.unwrap_or_default()
        };
        Some(Lease { metadata: lease.metadata, spec: Some(spec) })
    }
}

impl Seen {
    fn holder(&self) -> Option<&str> {
        self.lease.spec.as_ref()?.holder_identity.as_deref().filter(|holder| !holder.is_empty())
    }

    /// Nobody holds it, or its holder has given no sign for as long as it asked others to wait.
    fn is_free(&self, now: Instant) -> bool {
        let seconds = self.lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds).unwrap_or(0);
        let duration = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        self.holder().is_none() || now.saturating_duration_since(self.since) >= duration
    }
}

/// A lease that nobody has written yet.
pub(super) fn named(lease: Lease, name: &str) -> Lease {
    Lease { metadata: ObjectMeta { name: Some(name.to_owned()), ..lease.metadata }, ..lease }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: Terms = Terms {
        duration: Duration::from_secs(15),
        renew_deadline: Duration::from_secs(10),
        retry_period: Duration::from_secs(2),
    };

    /// The API server, as far as a lease goes: it grants a write only of the version that it has.
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

    /// Some seconds into the test.
    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    fn wall() -> Timestamp {
        Timestamp::UNIX_EPOCH
    }

    fn look(candidate: &mut Candidate, server: &Server, now: Instant) {
        candidate.saw(now, server.lease.clone());
    }

    /// Writes what it wants; whether it leads now.
    fn act(candidate: &mut Candidate, server: &mut Server, now: Instant) -> bool {
        if let Some(written) = candidate.wants(now, wall()).and_then(|lease| server.write(lease)) {
            candidate.wrote(now, written);
        }
        candidate.leads_until().is_some()
    }

    fn two() -> (Candidate, Candidate, Server, Instant) {
        let [a, b] = ["a", "b"].map(|name| Candidate::new(name.into(), TERMS));
        (a, b, Server::default(), Instant::now())
    }

    #[test]
    fn one_of_two_that_begin_together_leads() {
        let (mut a, mut b, mut server, start) = two();
        look(&mut a, &server, start);
        look(&mut b, &server, start);
        assert!(act(&mut a, &mut server, start));
        assert!(!act(&mut b, &mut server, start), "the lease is there by now");
        look(&mut b, &server, start);
        assert_eq!((b.holder(), b.wants(start, wall())), (Some("a"), None));
    }

    #[test]
    fn a_lease_that_is_renewed_stays_whatever_times_stand_in_it() {
        let (mut a, mut b, mut server, start) = two();
        assert!(act(&mut a, &mut server, start));
        for seconds in (2..60).step_by(2) {
            let now = at(start, seconds);
            assert!(act(&mut a, &mut server, now));
            assert_eq!(a.leads_until(), Some(at(start, seconds + 15)));
            look(&mut b, &server, now);
            assert_eq!(b.wants(now, "2200-01-01T00:00:00Z".parse().unwrap()), None);
        }
    }

    #[test]
    fn a_lease_whose_holder_is_silent_is_taken_when_it_ends_and_not_before() {
        let (mut a, mut b, mut server, start) = two();
        assert!(act(&mut a, &mut server, start));
        look(&mut b, &server, at(start, 1));
        look(&mut b, &server, at(start, 15));
        assert_eq!(b.wants(at(start, 15), wall()), None, "it was first seen at 1 s");
        assert!(act(&mut b, &mut server, at(start, 16)));
        let spec = server.lease.as_ref().unwrap().spec.clone().unwrap();
        assert_eq!((spec.lease_transitions, spec.holder_identity.as_deref()), (Some(1), Some("b")));

        assert!(a.leads_until().unwrap() < at(start, 16), "what was paused may not act, whenever it wakes");
        assert_eq!(a.wants(at(start, 99), wall()).and_then(|lease| server.write(lease)), None);
        look(&mut a, &server, at(start, 99));
        assert_eq!((a.leads_until(), a.wants(at(start, 99), wall())), (None, None));
    }

    #[test]
    fn a_standby_that_was_paused_takes_nothing_that_was_renewed_meanwhile() {
        let (mut a, mut b, mut server, start) = two();
        assert!(act(&mut a, &mut server, start));
        look(&mut b, &server, start);
        assert!(act(&mut a, &mut server, at(start, 98)));
        look(&mut b, &server, at(start, 99));
        assert_eq!(b.wants(at(start, 99), wall()), None);
    }

    #[test]
    fn a_leader_that_cannot_renew_stops_before_another_may_begin() {
        let (mut a, _, mut server, start) = two();
        assert!(act(&mut a, &mut server, start));
        a.give_up_when_due(at(start, 9));
        assert!(a.leads_until().is_some());
        assert_eq!(a.gives_up_at(), Some(at(start, 10)));
        a.give_up_when_due(at(start, 10));
        assert_eq!(a.leads_until(), None);
        // The API server is back before anybody else took it.
        look(&mut a, &server, at(start, 11));
        assert!(act(&mut a, &mut server, at(start, 11)));
    }

    #[test]
    fn a_write_whose_answer_was_lost_is_recognised() {
        let (mut a, _, mut server, start) = two();
        let lost = a.wants(start, wall()).unwrap();
        server.write(lost).unwrap();
        assert!(!act(&mut a, &mut server, at(start, 1)), "409");
        look(&mut a, &server, at(start, 2));
        assert!(act(&mut a, &mut server, at(start, 2)));
        assert_eq!(a.leads_until(), Some(at(start, 17)));
        assert_eq!(server.lease.unwrap().spec.unwrap().lease_transitions, Some(0));
    }

    #[test]
    fn a_lease_that_is_released_or_deleted_is_free_at_once() {
        let (mut a, mut b, mut server, start) = two();
        assert_eq!(a.release(wall()), None, "not its own");
        assert!(act(&mut a, &mut server, start));
        look(&mut b, &server, start);
        let released = a.release(wall()).unwrap();
        server.write(released).unwrap();
        assert_eq!((a.leads_until(), server.holder()), (None, None));
        look(&mut b, &server, at(start, 1));
        assert!(act(&mut b, &mut server, at(start, 1)));

        server.lease = None;
        look(&mut b, &server, at(start, 2));
        assert_eq!(b.leads_until(), None);
        b.told();
        assert!(act(&mut b, &mut server, at(start, 2)));
    }

    #[test]
    fn a_leader_that_slept_through_anothers_term_says_so_before_it_leads_again() {
        let (mut a, mut b, mut server, start) = two();
        assert!(act(&mut a, &mut server, start));
        look(&mut b, &server, at(start, 1));
        assert!(act(&mut b, &mut server, at(start, 16)));
        let released = b.release(wall()).unwrap();
        server.write(released).unwrap();

        assert!(a.wants(at(start, 20), wall()).and_then(|lease| server.write(lease)).is_none(), "409");
        look(&mut a, &server, at(start, 20));
        assert!(!act(&mut a, &mut server, at(start, 20)), "though nobody holds it");
        a.told();
        assert!(act(&mut a, &mut server, at(start, 21)));
    }

    #[test]
    fn somebody_elses_label_costs_nothing() {
        let (mut a, _, mut server, start) = two();
        assert!(act(&mut a, &mut server, start));
        let mut labelled = server.lease.clone().unwrap();
        labelled.metadata.labels = Some([("a".to_owned(), "b".to_owned())].into());
        server.write(labelled).unwrap();
        assert!(a.wants(at(start, 2), wall()).and_then(|lease| server.write(lease)).is_none());
        look(&mut a, &server, at(start, 2));
        assert!(a.leads_until().is_some());
        assert!(act(&mut a, &mut server, at(start, 2)));
        assert!(server.lease.unwrap().metadata.labels.is_some());
    }

    #[test]
    fn terms_under_which_two_could_lead_are_refused() {
        let terms = |duration, renew_deadline, retry_period| {
            let [duration, renew_deadline, retry_period] =
                [duration, renew_deadline, retry_period].map(Duration::from_secs);
            Terms { duration, renew_deadline, retry_period }.check()
        };
        assert!(terms(15, 10, 2).is_ok() && terms(10, 8, 4).is_ok());
        for wrong in [(9, 6, 2), (15, 15, 2), (15, 10, 6), (15, 10, 0)] {
            assert!(terms(wrong.0, wrong.1, wrong.2).is_err(), "{wrong:?}");
        }
    }
}
