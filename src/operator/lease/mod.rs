//! Leader election by a Lease of coordination.k8s.io, so that of several replicas one acts at a time.
//!
//! Written by hand, because no crate fits: kube-lease-manager renews without a precondition, and kube-leader-election and
//! kubert use older releases of kube. The decisions are in `candidate`, the calls in `cluster/lease.rs`.

mod candidate;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use candidate::LeaseCandidate;
pub use candidate::{LeaseTimings, LeaseTimingsError};

use crate::clock::{Clock, Moment, Standing};
use crate::cluster::{LeaseClient, LeaseError, LeaseName};
use crate::heartbeat::{Heartbeats, Loop};
use crate::restorations::{Restorations, revision};
use crate::text::shown;

/// The timeout of one call. The renew deadline may shorten it.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// The timeout of the read at the start.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// The timeout of the release of the Lease.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(3);

/// A running leader election.
pub(super) struct LeaderElection {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// The settings of this process in the leader election.
pub(super) struct Candidacy {
    client: LeaseClient,
    lease: LeaseName,
    /// Unique for each process.
    identity: String,
    timings: LeaseTimings,
    clock: Arc<Clock>,
}

/// The Lease cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "the Lease {lease} for leader election cannot be read: {error}; grant get, create and update of leases there, or name another namespace with --leader-election-namespace, or run a single operator with --leader-elect=false"
)]
pub struct LeaseUnusable {
    lease: LeaseName,
    #[source]
    error: LeaseError,
}

impl Candidacy {
    /// The settings of the process with this identity.
    pub(super) fn new(
        client: LeaseClient,
        lease: LeaseName,
        identity: String,
        timings: LeaseTimings,
        clock: Arc<Clock>,
    ) -> Self {
        Candidacy { client, lease, identity, timings, clock }
    }

    /// Reads the Lease once, so that missing rights stop the process at its start. An outage does not.
    pub(super) async fn check(&self) -> Result<(), LeaseUnusable> {
        match self.client.get(Instant::now() + CHECK_TIMEOUT).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_outage() => {
                warn!(%error, "the Lease cannot be read at the start");
                Ok(())
            }
            Err(error) => Err(LeaseUnusable { lease: self.lease.clone(), error }),
        }
    }
}

impl LeaderElection {
    /// Starts the election when `warm` completes: a leader whose caches are empty would only keep another from leading.
    /// `leads_until` receives the end of the Lease while this process holds it. While `may_lead` says no, it holds none.
    pub(super) fn start(
        candidacy: Candidacy,
        leads_until: watch::Sender<Option<Moment>>,
        heartbeats: Arc<Heartbeats>,
        restorations: Arc<Restorations>,
        warm: impl Future<Output = ()> + Send + 'static,
        may_lead: impl Fn() -> bool + Send + 'static,
    ) -> Self {
        let (end, ended) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut ended = ended;
            tokio::select! {
                _ = &mut ended => return,
                () = warm => {}
            }
            let mut elector = Elector::new(candidacy, leads_until, restorations);
            loop {
                heartbeats.beat(Loop::LeaderElection);
                if may_lead() {
                    elector.run_once().await;
                } else {
                    elector.release().await;
                }
                tokio::select! {
                    _ = &mut ended => break,
                    () = sleep(elector.pause()) => {}
                }
            }
            elector.release().await;
        });
        LeaderElection { end, task }
    }

    /// Ends the election, and releases the Lease if this process holds it, so that another can acquire it at once.
    pub(super) async fn end(self) {
        let _ = self.end.send(()); // without a receiver the task has ended
        let _ = self.task.await;
    }
}

/// RandomState is seeded by the system in each process, and differs with each use.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Executes the decisions of a candidate.
struct Elector {
    candidate: LeaseCandidate,
    timings: LeaseTimings,
    client: LeaseClient,
    leads_until: watch::Sender<Option<Moment>>,
    clock: Arc<Clock>,
    restorations: Arc<Restorations>,
    /// The resourceVersion of the Lease that was read or written last.
    revision: u64,
    /// How long the API server asks to wait.
    asked: Option<Duration>,
    /// The last message, so that the same one is not logged every second.
    last_logged: String,
}

impl Elector {
    fn new(
        candidacy: Candidacy,
        leads_until: watch::Sender<Option<Moment>>,
        restorations: Arc<Restorations>,
    ) -> Self {
        let Candidacy { client, lease, identity, timings, clock } = candidacy;
        info!(%lease, %identity, "leader election started");
        let candidate = LeaseCandidate::new(identity, timings);
        Elector {
            candidate,
            timings,
            client,
            leads_until,
            clock,
            restorations,
            revision: 0,
            asked: None,
            last_logged: String::new(),
        }
    }

    /// A standby reads twice as often as a leader renews, so that it acquires a released Lease soon. Where the API server asks
    /// to wait, the retry period is the longest that can be waited. Up to a fifth is left out, so that many do not call at once.
    fn pause(&mut self) -> Duration {
        let most = self.timings.retry_period;
        let usual = if self.candidate.leads_until().is_some() { most } else { most / 2 };
        let pause = self.asked.take().map_or(usual, |asked| asked.clamp(usual, most));
        let part = u32::try_from(random() % 1000).unwrap_or_default();
        pause - pause / 5 * part / 1000
    }

    /// Acquires or renews the Lease where that is possible, and publishes whether this process leads.
    async fn run_once(&mut self) {
        if self.clock.standing() == Standing::Implausible {
            self.log_implausible();
            return self.release().await;
        }
        // A leader that was suspended must not continue as if nothing had been, even if no other has led meanwhile.
        if !self.candidate.resign_if_ended(self.clock.moment())
            && let Err(error) = self.acquire_or_renew().await
        {
            self.asked = error.retry_after();
            self.log_failure(error.to_string());
        }
        self.candidate.resign_if_overdue(self.clock.moment());
        let until = self.candidate.leads_until();
        let before = self.leads_until.send_replace(until);
        self.candidate.loss_published();
        match (before.is_some(), until.is_some()) {
            (false, true) => info!("leading"),
            (true, false) => warn!(
                holder = self.candidate.holder().unwrap_or_default(),
                "not leading any more: nothing new is begun"
            ),
            (false, false) => self.log_holder(),
            (true, true) => {}
        }
    }

    async fn acquire_or_renew(&mut self) -> Result<(), LeaseError> {
        if self.candidate.leads_until().is_none() {
            self.observe().await?;
        }
        match self.write_desired().await {
            // Another process acquired the Lease, or changed only its metadata.
            Err(LeaseError::Conflict) => {
                self.observe().await?;
                self.write_desired().await
            }
            other => other,
        }
    }

    async fn observe(&mut self) -> Result<(), LeaseError> {
        let lease = self.client.get(self.call_deadline()).await?;
        self.notice_restoration(lease.as_ref());
        self.candidate.observe(self.clock.moment(), lease);
        Ok(())
    }

    async fn write_desired(&mut self) -> Result<(), LeaseError> {
        let sent = self.clock.moment();
        let is_doubtful = self.clock.standing() == Standing::Doubtful;
        let Some(lease) = self.candidate.desired(sent, self.clock.now(), is_doubtful) else { return Ok(()) };
        let lease = self.client.write(lease, self.call_deadline()).await?;
        self.notice_restoration(Some(&lease));
        self.candidate.written(sent, lease);
        Ok(())
    }

    /// Each answer about the Lease is newer than the one before, unless the storage was restored.
    fn notice_restoration(&mut self, lease: Option<&Lease>) {
        let Some(now) = lease.and_then(|lease| revision(lease.metadata.resource_version.as_deref())) else {
            return;
        };
        let before = std::mem::replace(&mut self.revision, now);
        if now < before {
            self.restorations.noticed("the Lease for leader election", before, now);
        }
    }

    /// The calls of a leader end at its renew deadline, so that it resigns in time.
    fn call_deadline(&self) -> Instant {
        let left = self.candidate.resigns_at().map(|at| self.clock.moment().left_until(at));
        Instant::now() + left.map_or(CALL_TIMEOUT, |left| left.min(CALL_TIMEOUT))
    }

    async fn release(&mut self) {
        let released = self.candidate.release(self.clock.now());
        self.leads_until.send_replace(None);
        let Some(released) = released else { return };
        match self.client.write(released, Instant::now() + RELEASE_TIMEOUT).await {
            Ok(_) => info!("released the lease"),
            Err(error) => {
                warn!(%error, "the lease could not be released: another process takes it when it ends")
            }
        }
    }

    fn log_implausible(&mut self) {
        const IMPLAUSIBLE: &str = "time";
        if self.last_logged != IMPLAUSIBLE {
            warn!(
                time = %self.clock.moment().wall,
                "the time of this node's clock cannot be right, so this process does not lead"
            );
            self.last_logged = IMPLAUSIBLE.to_owned();
        }
    }

    fn log_failure(&mut self, error: String) {
        if self.last_logged != error {
            warn!(%error, "the Lease for leader election cannot be read or written");
            self.last_logged = error;
        }
    }

    fn log_holder(&mut self) {
        let holder = self.candidate.holder().unwrap_or_default();
        if !holder.is_empty() && self.last_logged != holder {
            info!(holder = %shown(holder), "another process leads; this one stands by");
            self.last_logged = holder.to_owned();
        }
    }
}
