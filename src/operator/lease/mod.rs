//! Leader election by a Lease of coordination.k8s.io, so that of several replicas one acts at a time.
//!
//! No library, because none does this: kube-lease-manager renews without a precondition, and kube-leader-election and
//! kubert are on older releases of kube. What is decided is in `candidate`; here are the calls.

mod candidate;

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, info, warn};

use candidate::Candidate;
pub use candidate::Terms;

use crate::heartbeat::Heartbeats;

/// The longest that one call may take. The renew deadline may cut it shorter.
const CALL_LIMIT: Duration = Duration::from_secs(5);
/// The longest that the release of the lease may take.
const RELEASE_LIMIT: Duration = Duration::from_secs(3);

/// A process that stands for election, or leads.
pub(super) struct Election {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

/// What a process stands for election with.
pub(super) struct Standing {
    api: Api<Lease>,
    lease: LeaseName,
    /// No other process may ever have the same: the one before it in the same pod may have gone without a word.
    identity: String,
    terms: Terms,
}

/// Which Lease.
#[derive(Clone, Debug)]
pub struct LeaseName {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl fmt::Display for LeaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The Lease cannot be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "the Lease {lease} for leader election cannot be read: {error}; grant get, create and update of leases there, or name another namespace with --leader-election-namespace, or run a single operator with --leader-elect=false"
)]
pub struct LeaseUnusable {
    lease: LeaseName,
    error: String,
}

impl Standing {
    /// Stands as `name`, made unique. The client should be used for nothing else: what is asked here must
    /// not wait behind other calls.
    pub(super) fn new(client: Client, lease: LeaseName, name: &str, terms: Terms) -> Self {
        // Seeded by the system, anew in each process.
        let random = RandomState::new().build_hasher().finish();
        let api = Api::namespaced(client, &lease.namespace);
        Standing { api, lease, identity: format!("{name}_{random:016x}"), terms }
    }

    /// Fails early, with the remedy.
    pub(super) async fn check(&self) -> Result<(), LeaseUnusable> {
        let error = match self.api.get_opt(&self.lease.name).await {
            Ok(_) => return Ok(()),
            // Without the whole status beside it.
            Err(kube::Error::Api(status)) => status.message.clone(),
            Err(error) => error.to_string(),
        };
        Err(LeaseUnusable { lease: self.lease.clone(), error })
    }
}

impl Election {
    /// Stands from when `warm` is over: a leader that knows no TokenSource yet would only keep another from leading.
    /// `leads_until` is told when the lease ends that this process holds.
    pub(super) fn start(
        standing: Standing,
        leads_until: watch::Sender<Option<Instant>>,
        heartbeats: Arc<Heartbeats>,
        warm: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let (end, ended) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut ended = ended;
            tokio::select! {
                _ = &mut ended => return,
                () = warm => {}
            }
            let mut elector = Elector::new(standing, leads_until);
            loop {
                heartbeats.tick("leader election");
                elector.round().await;
                tokio::select! {
                    _ = &mut ended => break,
                    () = sleep(elector.pause()) => {}
                }
            }
            elector.release().await;
        });
        Election { end, task }
    }

    /// Releases the lease, if this process holds it, so that another may take it at once.
    pub(super) async fn end(self) {
        let _ = self.end.send(()); // whoever does not listen has ended
        let _ = self.task.await;
    }
}

/// The calls of a candidate.
struct Elector {
    candidate: Candidate,
    terms: Terms,
    api: Api<Lease>,
    name: String,
    leads_until: watch::Sender<Option<Instant>>,
    /// What was logged last, so that the same is not said every second.
    said: String,
}

impl Elector {
    fn new(standing: Standing, leads_until: watch::Sender<Option<Instant>>) -> Self {
        let Standing { api, lease, identity, terms } = standing;
        info!(%lease, %identity, "standing for election");
        let candidate = Candidate::new(identity, terms);
        Elector { candidate, terms, api, name: lease.name, leads_until, said: String::new() }
    }

    /// A standby looks twice as often as a leader renews: what was released should be taken at once.
    fn pause(&self) -> Duration {
        if self.candidate.leads_until().is_some() {
            self.terms.retry_period
        } else {
            self.terms.retry_period / 2
        }
    }

    /// Keeps or gets the lease, if it is to be had, and tells how that stands.
    async fn round(&mut self) {
        if let Err(error) = self.try_to_lead().await {
            self.say_of_failure(error.to_string());
        }
        self.candidate.give_up_when_due(Instant::now());
        let until = self.candidate.leads_until();
        let before = self.leads_until.send_replace(until);
        self.candidate.told();
        match (before.is_some(), until.is_some()) {
            (false, true) => info!("leading"),
            (true, false) => warn!(
                holder = self.candidate.holder().unwrap_or_default(),
                "not leading any more: nothing new is begun"
            ),
            (false, false) => self.say_who_leads(),
            (true, true) => {}
        }
    }

    async fn try_to_lead(&mut self) -> Result<(), CallFailed> {
        if self.candidate.leads_until().is_none() {
            self.look().await?;
        }
        match self.write_what_is_wanted().await {
            // Somebody wrote it meanwhile, to take it or only to label it.
            Err(CallFailed::Conflict) => {
                self.look().await?;
                self.write_what_is_wanted().await
            }
            other => other,
        }
    }

    async fn look(&mut self) -> Result<(), CallFailed> {
        let lease = call(self.limit(), self.api.get_opt(&self.name)).await?;
        self.candidate.saw(Instant::now(), lease);
        Ok(())
    }

    async fn write_what_is_wanted(&mut self) -> Result<(), CallFailed> {
        let sent = Instant::now();
        let Some(lease) = self.candidate.wants(sent, Timestamp::now()) else { return Ok(()) };
        let lease = write(&self.api, &self.name, lease, self.limit()).await?;
        self.candidate.wrote(sent, lease);
        Ok(())
    }

    /// A leader's calls end when it gives up, so that this is noticed in time.
    fn limit(&self) -> Instant {
        let limit = Instant::now() + CALL_LIMIT;
        self.candidate.gives_up_at().map_or(limit, |gives_up_at| gives_up_at.min(limit))
    }

    async fn release(&mut self) {
        let released = self.candidate.release(Timestamp::now());
        self.leads_until.send_replace(None);
        let Some(released) = released else { return };
        match write(&self.api, &self.name, released, Instant::now() + RELEASE_LIMIT).await {
            Ok(_) => info!("released the lease"),
            Err(error) => {
                warn!(%error, "the lease could not be released: another process takes it when it ends")
            }
        }
    }

    fn say_of_failure(&mut self, error: String) {
        if self.said != error {
            warn!(%error, "the Lease for leader election cannot be read or written");
            self.said = error;
        }
    }

    fn say_who_leads(&mut self) {
        let holder = self.candidate.holder().unwrap_or_default();
        if !holder.is_empty() && self.said != holder {
            info!(%holder, "another process leads; this one stands by");
            self.said = holder.to_owned();
        }
    }
}

/// Creates the lease, or replaces the very version that it names.
async fn write(api: &Api<Lease>, name: &str, lease: Lease, limit: Instant) -> Result<Lease, CallFailed> {
    let params = PostParams::default();
    if lease.metadata.resource_version.is_some() {
        call(limit, api.replace(name, &params, &lease)).await
    } else {
        call(limit, api.create(&params, &candidate::named(lease, name))).await
    }
}

#[derive(Debug, thiserror::Error)]
enum CallFailed {
    #[error("it has changed meanwhile")]
    Conflict,
    #[error("no answer in time")]
    TooLate,
    #[error(transparent)]
    Other(Box<kube::Error>),
}

async fn call<T>(limit: Instant, call: impl Future<Output = kube::Result<T>>) -> Result<T, CallFailed> {
    match timeout_at(limit, call).await {
        Err(_) => Err(CallFailed::TooLate),
        // 404: somebody deleted it.
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {
            debug!(code = status.code, "the Lease has changed meanwhile");
            Err(CallFailed::Conflict)
        }
        Ok(result) => result.map_err(|error| CallFailed::Other(Box::new(error))),
    }
}
