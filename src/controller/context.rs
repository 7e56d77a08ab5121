//! What all reconciliations and token requests share.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use token_endpoint::{Limits, Transport};
use tokio::time::Instant;

use super::api_permits::{ApiPermits, Stake};
use super::attempt_memory::AttemptMemory;
use super::cache::bindings::{Access, Bindings};
use super::cache::issuers::{IssuerSettings, Issuers, issuer_of};
use super::cache::namespaces::Namespaces;
use super::cache::secrets::Secrets;
use super::cache::source::CachedSource;
use super::cache::sources::Sources;
use super::endpoints::AllEndpoints;
use super::event_rate::EventRate;
use super::issue_times::IssueTimes;
use super::mint_queue::MintQueue;
use super::propagation::Rounds;
use super::refresh_token::{RefreshTokens, Rotation};
use super::refresh_token_saver::Saver;
use super::report_rate::ReportRate;
use super::state::States;
use super::work_queue::{Urgency, WorkQueue};
use crate::binding::Grant;
use crate::clock::Clock;
use crate::cluster::{CallError, Kubernetes};
use crate::heartbeat::{Heartbeats, Loop};
use crate::key::Key;
use crate::leadership::Leadership;
use crate::metrics::Metrics;
use crate::refresh::{DatedRecord, Policy};
use crate::restorations::Restorations;
use crate::secret::{Facts, Ownership, Record, Version, ownership};
use crate::spec::{Identity, Resolved};
use crate::time::seconds_between;
use crate::token_request::ServiceAccountTokens;

/// Calls to the API server at once, each by one reconciliation or token request. More would only wait there. One namespace alone
/// has 32 of them.
const API_PERMITS: usize = 40;
/// Of these, the permits for TokenSources whose token is at stake.
const RESERVED_API_PERMITS: usize = 10;
/// A first token should be requested this long after the TokenSource was created.
const FIRST_TOKEN: Duration = Duration::from_secs(30);
/// The latest deadline of a reconciliation: those that are triggered later than this go behind it.
const MAX_DEADLINE: Duration = Duration::from_secs(60);

/// See the module.
pub struct Context {
    pub(super) clock: Arc<Clock>,
    pub(super) issue_times: IssueTimes,
    pub(super) kubernetes: Kubernetes,
    pub(super) endpoints: AllEndpoints,
    pub(super) issuers: Issuers,
    pub(super) limits: Limits,
    pub(super) sources: Sources,
    pub(super) secrets: Secrets,
    pub(super) namespaces: Namespaces,
    pub(super) bindings: Bindings,
    pub(super) states: States,
    pub(super) refresh_tokens: RefreshTokens,
    pub(super) saver: Saver,
    pub(super) report_rate: ReportRate,
    pub(super) event_rate: EventRate,
    pub(super) work: WorkQueue,
    pub(super) mints: MintQueue,
    pub(super) rounds: Arc<Rounds>,
    pub(super) permits: Arc<ApiPermits>,
    pub(super) attempt_memory: Arc<AttemptMemory>,
    pub(super) heartbeats: Arc<Heartbeats>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) leadership: Leadership,
    pub(super) restorations: Arc<Restorations>,
    /// How long a mounted file may lag behind the Secret where a spec does not say, in seconds.
    pub(super) propagation_delay: u64,
    /// The shortest time between two token requests that changes by others cause.
    pub(super) change_interval: Duration,
    require_credentials_label: bool,
    pub(super) service_account_tokens: ServiceAccountTokens,
    /// The labels and annotations that templates may set; empty: any.
    pub(super) template_metadata_only: Vec<String>,
    /// The reporter of events: the pod's name.
    pub(super) instance: String,
    /// Earlier than every deadline: results are written before anything new is begun.
    earliest: Instant,
}

/// What a [`Context`] is made of.
pub struct Parts {
    /// What time it is.
    pub clock: Arc<Clock>,
    /// The API server.
    pub kubernetes: Kubernetes,
    /// Token endpoints.
    pub transport: Transport,
    /// How often each of them is asked at most.
    pub limits: Limits,
    /// How many TokenSources of one namespace are served: the oldest; `None` for all.
    pub max_sources_per_namespace: Option<usize>,
    /// How many watches on Secrets there will be.
    pub watches: usize,
    /// Whether this process may act.
    pub leadership: Leadership,
    /// Where heartbeats go.
    pub heartbeats: Arc<Heartbeats>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// How long a mounted file may lag behind the Secret where a spec does not say, in seconds.
    pub propagation_delay: u64,
    /// The shortest time between two token requests that changes of credentials, spec or refresh request cause.
    pub change_interval: Duration,
    /// The labels of the namespaces to reconcile in; `None` for all that are watched.
    pub namespace_selector: Option<String>,
    /// What RoleBindings grant, where the operator has its rights by namespace.
    pub grant: Option<Grant>,
    /// Read only Secrets as credentials that are labelled for it.
    pub require_credentials_label: bool,
    /// Which tokens of ServiceAccounts are sent where.
    pub service_account_tokens: ServiceAccountTokens,
    /// How ClusterTokenIssuers are served; `None`: not at all.
    pub issuers: Option<IssuerSettings>,
    /// The labels and annotations that templates may set; empty: any.
    pub template_metadata_only: Vec<String>,
    /// The reporter of events: the pod's name.
    pub instance: String,
    /// The name of this process, which no other has.
    pub process: String,
    /// How long a predecessor may lead after its last renewal of the lease; zero without leader election.
    pub lease_duration: Duration,
}

impl Context {
    /// A context with empty caches.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let restorations = Arc::<Restorations>::default();
        let follows_lender = parts.issuers.as_ref().is_some_and(|issuers| issuers.follows_secrets);
        Context {
            issue_times: IssueTimes::new(Arc::clone(&parts.clock)),
            clock: parts.clock,
            rounds: Rounds::new(parts.kubernetes.clone()),
            kubernetes: parts.kubernetes,
            endpoints: AllEndpoints::new(parts.transport),
            limits: parts.limits,
            sources: Sources::limited_to(parts.max_sources_per_namespace),
            secrets: Secrets::new(parts.watches + usize::from(follows_lender), Arc::clone(&restorations)),
            issuers: Issuers::new(parts.issuers),
            namespaces: Namespaces::new(parts.namespace_selector),
            bindings: Bindings::new(parts.grant),
            states: States::default(),
            refresh_tokens: RefreshTokens::new(parts.process, parts.lease_duration),
            saver: Saver::new(),
            report_rate: ReportRate::default(),
            event_rate: EventRate::default(),
            work: WorkQueue::default(),
            mints: MintQueue::new(parts.limits),
            permits: ApiPermits::new(API_PERMITS, RESERVED_API_PERMITS),
            attempt_memory: AttemptMemory::new(),
            heartbeats: parts.heartbeats,
            metrics: parts.metrics,
            leadership: parts.leadership,
            restorations,
            propagation_delay: parts.propagation_delay,
            change_interval: parts.change_interval,
            require_credentials_label: parts.require_credentials_label,
            service_account_tokens: parts.service_account_tokens,
            template_metadata_only: parts.template_metadata_only,
            instance: parts.instance,
            earliest: Instant::now(),
        }
    }

    /// A TokenSource with its spec, which is read where it is too long to be cached; `None` where it does not exist any more.
    ///
    /// # Errors
    /// The read failed.
    pub(super) async fn with_spec(
        &self,
        cached: &Arc<CachedSource>,
    ) -> Result<Option<Arc<CachedSource>>, CallError> {
        if !cached.lacks_spec() {
            return Ok(Some(Arc::clone(cached)));
        }
        let found = self.kubernetes.source(&cached.key).await?.map(CachedSource::whole);
        Ok(found.filter(|found| found.uid() == cached.uid()).map(Arc::new))
    }

    /// Has a TokenSource reconciled.
    pub(super) fn trigger(&self, source: Key) {
        if let Some(issuer) = issuer_of(&source.name) {
            return self.issuers.touch(issuer);
        }
        let urgency = self.urgency(&source);
        self.work.trigger(source, urgency);
    }

    /// Has every TokenSource reconciled.
    pub(super) fn trigger_all(&self) {
        self.sources.keys(None).into_iter().for_each(|source| self.trigger(source));
    }

    /// How urgent the reconciliation of a TokenSource is that something triggers now: a result is to be written first of
    /// all, a token refreshed in time for the readers of its file, and a first one requested soon.
    pub(super) fn urgency(&self, source: &Key) -> Urgency {
        if self.mints.has_result(source) {
            return Urgency { deadline: self.earliest, stake: Stake::Token };
        }
        let now = Instant::now();
        match self.expiry(source) {
            Some(expires_at) => {
                let left = seconds_between(self.now(), expires_at).saturating_sub(self.propagation_delay);
                let left = Duration::from_secs(left).min(MAX_DEADLINE);
                Urgency { deadline: now + left, stake: Stake::Token }
            }
            None => Urgency { deadline: now + FIRST_TOKEN, stake: Stake::Nothing },
        }
    }

    /// When a new token should be there: a refresh in time for the readers of the file, a first one soon.
    pub(super) fn deadline(&self, policy: &Policy, record: Option<&Record>) -> Instant {
        let remaining = record.map_or(0, |record| seconds_between(self.now(), record.expires_at));
        let left = Duration::from_secs(remaining.saturating_sub(policy.propagation_delay));
        Instant::now() + if remaining > 0 { left } else { FIRST_TOKEN }
    }

    /// The record on the target, where that is ours, with its times by the corrected clock.
    pub(super) fn record(&self, identity: &Identity) -> Option<DatedRecord> {
        let target = self.secrets.known(&identity.target).present()?;
        let is_ours = ownership(&target, &identity.owner) == Ownership::Ours;
        is_ours.then(|| self.issue_times.dated(&identity.key, &identity.owner.uid, &target)).flatten()
    }

    /// A TokenSource is gone: nothing more is kept of it.
    pub(super) fn forget(&self, source: &Key) {
        self.issue_times.forget(source);
        self.refresh_tokens.forget(source);
        self.metrics.forget(source);
    }

    /// The refresh token of a TokenSource, as the cluster and this process hold it.
    pub(super) fn rotation<'a>(&'a self, identity: &'a Identity) -> Rotation<'a> {
        Rotation {
            kubernetes: &self.kubernetes,
            secrets: &self.secrets,
            tokens: &self.refresh_tokens,
            identity,
        }
    }

    /// When the token expires that a TokenSource's target holds.
    pub(super) fn expiry(&self, source: &Key) -> Option<Timestamp> {
        let cached = self.sources.get(source)?;
        let expires_at = self.secrets.expiry(&source.sibling(Arc::clone(cached.secrets.first()?)))?;
        Some(self.issue_times.expiry(source, expires_at))
    }

    /// The number of parts in which metrics are written.
    #[must_use]
    pub fn metrics_parts(&self) -> usize {
        self.metrics.parts()
    }

    /// Writes a part of all metrics. Those of TokenSources are written by the leader.
    pub fn write_metrics(&self, part: usize, text: &mut impl fmt::Write) {
        let leads = self.leadership.leads();
        if !leads {
            self.metrics.forget_all();
        }
        self.metrics.leads(leads);
        self.metrics.queues(self.work.pending(), self.mints.queued(), self.mints.unwritten());
        self.metrics.unsaved_refresh_tokens(self.saver.len());
        self.metrics.write(part, text);
    }

    /// Whether a TokenSource exists and is reconciled.
    pub(super) fn serves(&self, source: &Key) -> bool {
        self.leadership.leads() && self.namespaces.selects(&source.namespace) && self.sources.knows(source)
    }

    /// Whether tokens are requested and written in a namespace.
    pub(super) fn may_act_in(&self, namespace: &str) -> bool {
        self.namespaces.selects(namespace) && self.bindings.access(namespace) == Access::Granted
    }

    /// Whether something of a TokenSource is in memory that the API server should have.
    pub(super) fn has_unwritten(&self, source: &Key) -> bool {
        self.mints.has_result(source) || self.states.has_unwritten(source)
    }

    /// Whether a Secret may be read as credentials, or as what `spec.tls` names.
    pub(super) fn may_use(&self, identity: &Identity, secret: &Facts) -> bool {
        // Other Secrets of the operator's namespace are not for issuers.
        let needs_label = self.require_credentials_label || identity.lender.is_some();
        // A stored refresh token is spent by its own TokenSource alone.
        secret.rare().refresh_token_of.is_none() && (secret.released || !needs_label)
    }

    /// The version of the credentials on which a token depends, as far as the caches know, if they exist and may be used.
    pub(super) fn credentials_version(&self, identity: &Identity, spec: &Resolved) -> Option<Version> {
        let Some(key) = &identity.credentials else { return Some(Version::of_nothing()) };
        let facts = self.secrets.known(key).present().filter(|facts| self.may_use(identity, facts))?;
        Some(spec.credentials_version(&facts.version))
    }

    /// Saves unsaved refresh tokens, for as long as the process lives, also while it does not lead and while it stops.
    pub async fn save_refresh_tokens(&self) {
        let beat = || self.heartbeats.beat(Loop::RefreshTokenSaver);
        self.saver.run(&self.kubernetes, &self.secrets, beat, |source| self.trigger(source)).await;
    }

    /// Waits until every refresh token is saved.
    pub async fn refresh_tokens_saved(&self) {
        self.saver.all_saved().await;
    }

    /// How many refresh tokens are in memory alone.
    #[must_use]
    pub fn unsaved_refresh_tokens(&self) -> usize {
        self.saver.len()
    }

    /// A term of leadership has ended, and what had begun in it: another process may lead. Of what is remembered only the
    /// unsaved refresh tokens stay, which the saver holds, because the rest may be older than what that process did.
    pub(super) fn end_term(&self) {
        self.mints.drop_results();
        self.states.clear();
        self.refresh_tokens.end_term();
    }

    /// When which part of the process last showed that it makes progress.
    #[must_use]
    pub fn heartbeats(&self) -> &Heartbeats {
        &self.heartbeats
    }

    /// Whether this process may act.
    #[must_use]
    pub fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// Restorations of the API server's storage.
    #[must_use]
    pub fn restorations(&self) -> &Arc<Restorations> {
        &self.restorations
    }

    /// The storage was restored: everything is read anew, and until then a token is requested only after a live read of what
    /// it is requested for.
    pub(super) fn storage_restored(&self) {
        self.secrets.forget_requests();
        self.mints.clear();
        self.trigger_all();
    }

    /// Waits until all TokenSources and the metadata of their Secrets have been read once.
    pub async fn warm(&self) {
        self.namespaces.ready().await;
        self.issuers.ready().await;
        self.secrets.ready().await;
    }

    /// Whether all TokenSources and the metadata of their Secrets have been read once.
    #[must_use]
    pub fn is_warm(&self) -> bool {
        // Secrets are listed after TokenSources.
        self.namespaces.is_ready() && self.issuers.is_ready() && self.secrets.is_ready()
    }

    /// The corrected time, in whole seconds.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.second()
    }
}
