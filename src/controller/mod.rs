//! The effects: watches, one reader, one minter, one writer, and the report.

mod agenda;
mod contest;
mod expiry;
mod gather;

mod looks;

mod memory;
mod mint;

mod pods;

mod reconcile;
mod report;

mod cache;

mod spans;

mod stop;

mod turns;
mod watch;

mod write;

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

pub(crate) use spans::TARGET as SPANS;
pub use watch::run;

use crate::cluster::Kubernetes;
use crate::heartbeat::Heartbeats;
use crate::key::Key;
use crate::leadership::Leadership;
use crate::metrics::Metrics;
use crate::secret::Facts;
use cache::namespaces::Namespaces;
use cache::secrets::Secrets;
use cache::sources::Sources;
use memory::{Memories, Seeds};
use pods::Rounds;
use token_endpoint::{Discovery, Gate, Transport};
use turns::Turns;

/// Looks at once. Each makes one call to the API server at a time, and more would only wait there; those that have not
/// begun hold hardly any memory.
const LOOKS_AT_ONCE: usize = 32;

/// What every reconcile shares.
pub struct Context {
    /// The API server.
    kubernetes: Kubernetes,
    /// Token endpoints.
    transport: Transport,
    discovery: Discovery,
    gate: Gate,
    sources: Sources,
    secrets: Secrets,
    namespaces: Namespaces,
    memories: Memories,
    seeds: Seeds,
    rounds: Rounds,
    /// To look, which includes calls to the API server but not waiting for an endpoint.
    turns: Arc<Turns>,
    heartbeats: Arc<Heartbeats>,
    metrics: Arc<Metrics>,
    leadership: Leadership,
    /// How long a mounted file may lag behind the Secret where a spec does not say, in seconds.
    propagation_delay: u64,
    /// Only Secrets that are lent by a label are read as credentials.
    require_credentials_label: bool,
    /// Who reports events: the pod's name.
    instance: String,
    /// When this process began to look.
    since: Timestamp,
}

/// What a [`Context`] is made of.
pub struct Parts {
    /// The API server.
    pub kubernetes: Kubernetes,
    /// Token endpoints.
    pub transport: Transport,
    /// Who asks them when.
    pub gate: Gate,
    /// How many watches on Secrets there will be.
    pub watches: usize,
    /// Whether this process may act.
    pub leadership: Leadership,
    /// Where signs of life go.
    pub heartbeats: Arc<Heartbeats>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How long a mounted file may lag behind the Secret where a spec does not say, in seconds.
    pub propagation_delay: u64,
    /// The labels of the namespaces to reconcile in; `None` for all that are watched.
    pub namespace_selector: Option<String>,
    /// Read only Secrets as credentials that are lent by a label.
    pub require_credentials_label: bool,
    /// Who reports events: the pod's name.
    pub instance: String,
}

impl Context {
    /// A context that knows nothing yet.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts {
            kubernetes,
            transport,
            gate,
            watches,
            leadership,
            heartbeats,
            metrics,
            propagation_delay,
            namespace_selector,
            require_credentials_label,
            instance,
        } = parts;
        Context {
            rounds: Rounds::new(kubernetes.clone()),
            kubernetes,
            discovery: Discovery::new(transport.clone()),
            transport,
            gate,
            sources: Sources::default(),
            secrets: Secrets::new(watches),
            memories: Memories::default(),
            seeds: Seeds::default(),
            turns: Turns::new(LOOKS_AT_ONCE),
            namespaces: Namespaces::new(namespace_selector),
            heartbeats,
            metrics,
            leadership,
            propagation_delay,
            require_credentials_label,
            instance,
            since: Timestamp::now(),
        }
    }

    /// Writes all metrics. Those of TokenSources are told by whoever leads.
    pub fn write_metrics(&self, text: &mut impl fmt::Write) {
        let leads = self.leadership.leads();
        if !leads {
            self.metrics.forget_all();
        }
        self.metrics.leads(leads);
        self.metrics.write(text);
    }

    /// Whether a TokenSource exists and is reconciled.
    fn serves(&self, source: &Key) -> bool {
        self.leadership.leads() && self.namespaces.selects(&source.namespace) && self.sources.knows(source)
    }

    /// When the token expires that a TokenSource's target holds.
    fn expiry(&self, source: &Key) -> Option<Timestamp> {
        let watched = self.sources.get(source)?;
        self.secrets.expiry(&source.sibling(Arc::clone(watched.secrets.first()?)))
    }

    /// Whether a Secret may be read as credentials.
    fn may_use(&self, secret: &Facts) -> bool {
        secret.lent || !self.require_credentials_label
    }

    /// Signs of life.
    #[must_use]
    pub fn heartbeats(&self) -> &Heartbeats {
        &self.heartbeats
    }

    /// Whether this process may act.
    #[must_use]
    pub fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// Waits until all TokenSources and the metadata of their Secrets have been read once.
    pub async fn warm(&self) {
        self.namespaces.ready().await;
        self.secrets.ready().await;
    }

    /// Whether all TokenSources and the metadata of their Secrets have been read once.
    #[must_use]
    pub fn is_warm(&self) -> bool {
        // Secrets are listed after TokenSources.
        self.namespaces.is_ready() && self.secrets.is_ready()
    }

    /// The time in whole seconds: a finer clock would make refreshes depend on what status cannot hold.
    fn now(&self) -> Timestamp {
        Timestamp::from_second(Timestamp::now().as_second()).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}
