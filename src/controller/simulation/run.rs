//! The operator of a simulation: the real queues, decisions, back-off and limiter; the calls are simulated.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::Timestamp;
use token_endpoint::{Admission, EndpointPermit, Error, Expedite, Terms};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::endpoint::{Endpoints, Who, description, identity};
use super::plan::{CALM, Plan, RECOVERY, Trouble, TroubleKind};
use super::source::{Brought, Failed, Simulated};
use super::users;
use crate::controller::api_permits::{ApiPermits, Stake};
use crate::controller::mint_queue::{MintQueue, MintRequest, MintResult};
use crate::controller::work_queue::{Urgency, WorkQueue};
use crate::key::Key;
use crate::refresh::{
    Decision, MintReason, Policy, attempt_timeout, decide, is_last_attempt, needed, patience, refresh_at,
};
use crate::secret::{Inputs, Minted, Record};
use crate::time::{plus, seconds_between};
use crate::uid::Uid;

const START: Timestamp = Timestamp::constant(1_800_000_000, 0);
pub(super) const POLICY: Policy =
    Policy { before: None, max_interval: 24 * 60 * 60, propagation_delay: 90, min_interval: 0 };
/// Reconciliations of one source within a second that are a loop.
const LOOP: usize = 40;
/// A source whose request waits is reconciled again after this time, and one whose write failed after the other.
const MINTING_CHECK: Duration = Duration::from_secs(60);
const API_SERVER_RETRY: Duration = Duration::from_secs(5);
const NOT_NEEDED_WAIT: Duration = Duration::from_secs(1);
/// An outage that ends so long before a token does costs no token.
const ROOM: Duration = Duration::from_secs(90);
/// The same for throttling: 30 s and a quarter, and a rate that has to recover.
const THROTTLED_ROOM: Duration = Duration::from_secs(180);

pub(super) struct Outcome {
    pub(super) violations: Vec<String>,
    pub(super) requests: usize,
    pub(super) reconciliations: usize,
}

pub(super) struct Simulation {
    pub(super) plan: Plan,
    pub(super) started: Instant,
    work: WorkQueue,
    permits: Arc<ApiPermits>,
    mints: MintQueue,
    state: Mutex<State>,
    /// Whether every step is printed.
    tells: bool,
}

pub(super) struct State {
    pub(super) sources: HashMap<Key, Simulated>,
    brought: HashMap<Key, Brought>,
    /// The number of the present secret, by client.
    pub(super) secrets: Vec<usize>,
    endpoints: Endpoints,
    violations: Vec<String>,
    writes: usize,
    reconciliations: usize,
}

/// Runs the simulation. `tells`: prints every step.
pub(super) fn run(plan: Plan, tells: bool) -> Outcome {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let simulation = Simulation::new(plan, tells);
        let mut tasks = JoinSet::new();
        tasks.spawn(work(Arc::clone(&simulation)));
        tasks.spawn(mint_loop(Arc::clone(&simulation)));
        tasks.spawn(users::act(Arc::clone(&simulation)));
        sleep_until(simulation.started + CALM + RECOVERY).await;
        simulation.check_end();
        join_ended(&mut tasks);
        drop(tasks);
        let state = simulation.state();
        Outcome {
            violations: state.violations.clone(),
            requests: state.endpoints.requests,
            reconciliations: state.reconciliations,
        }
    })
}

/// A task that panicked fails the simulation.
fn join_ended(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.try_join_next() {
        ended.unwrap();
    }
}

async fn work(simulation: Arc<Simulation>) {
    let mut tasks = JoinSet::new();
    loop {
        let urgency = |key: &Key| simulation.urgency(key);
        let (key, permit) = simulation.work.next(&simulation.permits, urgency).await;
        let simulation = Arc::clone(&simulation);
        tasks.spawn(async move {
            let again = simulation.reconcile(&key).await;
            drop(permit);
            simulation.work.done(key, again.map(|wait| Instant::now() + wait));
        });
        join_ended(&mut tasks);
    }
}

async fn mint_loop(simulation: Arc<Simulation>) {
    let mut tasks = JoinSet::new();
    loop {
        let (key, permit) = simulation.mints.next().await;
        if let Some(request) = simulation.mints.begin(&key) {
            tasks.spawn(mint(Arc::clone(&simulation), key, request, permit));
        }
        join_ended(&mut tasks);
    }
}

async fn mint(simulation: Arc<Simulation>, key: Key, request: MintRequest, permit: EndpointPermit<Key>) {
    let now = simulation.now();
    let (n, tried, credentials, timeout, remaining, is_needed) = {
        let state = simulation.state();
        let source = &state.sources[&key];
        let observed = source.observed(true);
        let remaining = source.record().map_or(0, |record| seconds_between(now, record.expires_at));
        let timeout = Duration::from_secs(attempt_timeout(remaining, POLICY.propagation_delay, false));
        let is_needed = needed(now, &observed).is_some();
        (source.n, source.tried(), source.credentials.clone(), timeout, remaining, is_needed)
    };
    if !is_needed {
        simulation.mints.abandon(&key);
        sleep(NOT_NEEDED_WAIT).await;
        return simulation.trigger(key);
    }
    let planned = simulation.plan.sources[n].clone();
    sleep(simulation.plan.api_latency).await;
    let secret = simulation.state().secrets[planned.client];
    let limiter = simulation.mints.limiter();
    let client = identity(limiter, &key, planned.endpoint, planned.client, secret);
    if let Some(why) = request.expedite {
        limiter.expedite(&key.namespace, client, why);
    }
    let terms = Terms {
        exclusive: false,
        patience: (remaining > 0).then(|| Duration::from_secs(patience(remaining))),
        is_last_attempt: is_last_attempt(remaining, POLICY.propagation_delay),
    };
    simulation.mints.requeue(&key, request.clone());
    let outcome = match permit.admit(client, terms) {
        Admission::Parked => return,
        Admission::Rejected(known) => {
            if simulation.mints.begin(&key).is_none() {
                return;
            }
            Err(Failed::Known(known))
        }
        Admission::Granted(permit) => {
            if simulation.mints.begin(&key).is_none() {
                return;
            }
            simulation.send(&key, (planned.endpoint, planned.client, secret), permit, timeout).await
        }
    };
    let outcome = outcome.map(|()| planned.lifetime);
    let brought = Brought { tried, secret, credentials, sent_at: now, outcome };
    simulation.state().brought.insert(key.clone(), brought);
    simulation.mints.finish(&key, MintResult::empty(Uid::default(), request.reason, None));
    simulation.trigger(key);
}

impl Simulation {
    fn new(plan: Plan, tells: bool) -> Arc<Self> {
        let sources = plan.sources.iter().enumerate().map(|(n, _)| {
            let simulated = Simulated::new(n, plan.seed);
            (Key::new("simulation", &format!("source-{n}")), simulated)
        });
        let state = State {
            sources: sources.collect(),
            brought: HashMap::new(),
            secrets: vec![0; plan.wrong.len()],
            endpoints: Endpoints::new(&plan),
            violations: Vec::new(),
            writes: 0,
            reconciliations: 0,
        };
        Arc::new(Simulation {
            started: Instant::now(),
            work: WorkQueue::default(),
            permits: ApiPermits::new(8, 2),
            mints: MintQueue::new(plan.limits),
            state: Mutex::new(state),
            tells,
            plan,
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        let mut keys: Vec<_> = self.state().sources.keys().cloned().collect();
        keys.sort();
        keys
    }

    fn now(&self) -> Timestamp {
        START + self.started.elapsed()
    }

    fn violated(&self, what: String) {
        self.state().violations.push(format!("{:?}: {what}", self.started.elapsed()));
    }

    /// Prints a step, where one seed is repeated.
    fn tell(&self, what: impl FnOnce() -> String) {
        if self.tells {
            println!("{:?} {}", self.started.elapsed(), what());
        }
    }

    pub(super) fn trigger(&self, key: Key) {
        let urgency = self.urgency(&key);
        self.work.trigger(key, urgency);
    }

    fn urgency(&self, key: &Key) -> Urgency {
        let has_record = self.state().sources[key].record().is_some();
        let stake = if has_record { Stake::Token } else { Stake::Nothing };
        Urgency { deadline: self.deadline(key), stake }
    }

    fn deadline(&self, key: &Key) -> Instant {
        let state = self.state();
        let remaining =
            state.sources[key].record().map_or(0, |record| seconds_between(self.now(), record.expires_at));
        let left = remaining.saturating_sub(POLICY.propagation_delay);
        Instant::now() + Duration::from_secs(if remaining > 0 { left } else { 30 })
    }

    async fn reconcile(&self, key: &Key) -> Option<Duration> {
        sleep(self.plan.api_latency).await;
        if self.is_loop(key) {
            self.violated(format!("{key} is reconciled in a loop"));
            return Some(Duration::from_secs(3600));
        }
        if self.mints.take_result(key).is_some() {
            self.take_in(key);
        }
        loop {
            let now = self.now();
            let minting = self.mints.is_minting(key);
            let decision = {
                let state = self.state();
                let source = &state.sources[key];
                decide(now, &source.observed(minting), &source.tried())
            };
            self.tell(|| format!("{key} {decision:?}"));
            if !matches!(decision, Decision::Mint(_) | Decision::Minting(_)) {
                self.mints.cancel(key);
            }
            let until = |at: Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or_default();
            match decision {
                Decision::Fresh(at) => {
                    let mut state = self.state();
                    let source = state.sources.get_mut(key)?;
                    source.failed = None;
                    source.pending = None;
                    return at.map(until);
                }
                Decision::Wait(at) => return at.map(until),
                Decision::Compare => {
                    let mut state = self.state();
                    let client = self.plan.sources[state.sources[key].n].client;
                    let secret = state.secrets[client];
                    let source = state.sources.get_mut(key)?;
                    source.seen = Some((source.credentials.clone(), secret));
                }
                Decision::UpdateMetadata => {
                    let mut state = self.state();
                    let source = state.sources.get_mut(key)?;
                    let credentials = source.credentials.clone();
                    let record = source.target.as_mut()?.record.as_mut()?;
                    Arc::make_mut(record).inputs.credentials = credentials;
                }
                Decision::Mint(reason) => {
                    if minting {
                        self.violated(format!("{key} is to request a second token at once"));
                    }
                    self.request(key, reason);
                    return Some(MINTING_CHECK);
                }
                Decision::Minting(reason) => {
                    if !self.mints.has_begun(key) {
                        self.request(key, reason);
                    }
                    return Some(MINTING_CHECK);
                }
                Decision::Write => {
                    sleep(self.plan.api_latency).await;
                    if !self.write(key) {
                        return Some(API_SERVER_RETRY);
                    }
                }
                // No source of these has a refresh token, or is suspended, deleted or in conflict.
                other => {
                    self.violated(format!("{key}: {other:?}"));
                    return None;
                }
            }
        }
    }

    fn is_loop(&self, key: &Key) -> bool {
        let second = self.started.elapsed().as_secs();
        let mut state = self.state();
        state.reconciliations += 1;
        let Some(source) = state.sources.get_mut(key) else { return true };
        let (at, times) = source.in_second;
        source.in_second = if at == second { (at, times + 1) } else { (second, 1) };
        source.in_second.1 > LOOP
    }

    fn request(&self, key: &Key, reason: MintReason) {
        let (endpoint, expedite) = {
            let state = self.state();
            let source = &state.sources[key];
            let tried = source.failed.as_ref().map(|(failure, _)| &failure.tried);
            let expedite = tried.and_then(|tried| {
                let values_changed = tried.credentials != source.tried().credentials;
                let values_changed = values_changed.then_some(Expedite::ChangedValues);
                if tried.is_asked_otherwise(&source.tried()) { Some(Expedite::Asked) } else { values_changed }
            });
            (self.plan.sources[source.n].endpoint, expedite)
        };
        let request = MintRequest { reason, cause: None, policy: POLICY, expedite, original: None };
        self.mints.request(key, request, &description(endpoint).token_url, self.deadline(key));
    }

    async fn send(
        &self,
        key: &Key,
        who: Who,
        permit: EndpointPermit<Key>,
        timeout: Duration,
    ) -> Result<(), Failed> {
        let (arrived, wrong) = self.state().endpoints.arrive(&self.plan, key, who, self.started);
        if let Some(wrong) = wrong {
            self.violated(wrong);
        }
        self.tell(|| format!("{key} asks {who:?}"));
        let outcome = arrived.answer(self.plan.latency, timeout).await;
        self.tell(|| format!("{key} is answered {:?}", outcome.as_ref().map_err(Error::class)));
        self.state().endpoints.leave(key, &arrived, &outcome);
        permit.finish(&outcome);
        outcome.map_err(Failed::Answered)
    }

    /// Takes in what a token request brought, as the reconciliation does.
    fn take_in(&self, key: &Key) {
        let now = self.now();
        let mut state = self.state();
        let Some(brought) = state.brought.remove(key) else { return };
        let Some(source) = state.sources.get_mut(key) else { return };
        source.seen = Some((brought.credentials.clone(), brought.secret));
        match brought.outcome {
            Ok(lifetime) => {
                let minted = Minted {
                    issued_at: brought.sent_at,
                    expires_at: plus(brought.sent_at, lifetime),
                    token_id: format!("{:012x}", now.as_millisecond()),
                    token_type: "Bearer".into(),
                    scope: None,
                    is_jwt: false,
                    lifetime_is_assumed: false,
                    remarks: vec![],
                };
                let inputs = Inputs { provider: "p".into(), credentials: brought.credentials };
                let before = source.record().cloned();
                let request = source.wanted.refresh_request.clone();
                let record = Record::new(source.owner.clone(), inputs, request, minted, before.as_ref());
                let due = refresh_at(&source.owner.uid, &POLICY, &record);
                source.pending = Some((record, due, brought.secret));
            }
            Err(failed) => source.failed(now, brought.tried, failed),
        }
    }

    /// Writes what is pending. False: the API server did not answer.
    fn write(&self, key: &Key) -> bool {
        let now = self.now();
        let mut state = self.state();
        state.writes += 1;
        let fails = self.plan.failed_writes.is_some_and(|nth| state.writes.is_multiple_of(nth));
        let Some(source) = state.sources.get_mut(key) else { return true };
        // Not twice in a row: how long the API server fails is no question of this simulation.
        source.write_failed = fails && !source.write_failed;
        if source.write_failed {
            drop(state);
            self.tell(|| format!("{key} is not written"));
            return false;
        }
        let Some((record, _, secret)) = source.pending.take() else { return true };
        let n = source.n;
        let before = source.record().cloned();
        source.write(record, secret);
        drop(state);
        if let Some(before) = before
            && before.expires_at < now
        {
            self.check_lost(n, &before);
        }
        true
    }

    /// A token has expired before the next one was written: only trouble excuses that.
    fn check_lost(&self, n: usize, lost: &Record) {
        let since = |at: Timestamp| Duration::try_from(at.duration_since(START)).unwrap_or_default();
        let (issued, expired) = (since(lost.issued_at), since(lost.expires_at));
        let planned = &self.plan.sources[n];
        let excuses = |trouble: &Trouble| {
            let room = match trouble.kind {
                TroubleKind::Throttled { .. } => THROTTLED_ROOM,
                TroubleKind::Unavailable | TroubleKind::Hanging => ROOM,
            };
            trouble.endpoint == planned.endpoint && trouble.from < expired && trouble.to + room > expired
        };
        let rejected = self.plan.wrong[planned.client]
            .is_some_and(|(from, to)| from < expired && to + ROOM > issued.max(expired.saturating_sub(ROOM)));
        if !rejected && !self.plan.troubles.iter().any(excuses) {
            self.violated(format!("source {n} lost the token from {issued:?} to {expired:?} without need"));
        }
    }

    /// When all trouble is long over, every source has a valid token, and nothing is stuck.
    fn check_end(&self) {
        let now = self.now();
        let missing: Vec<_> = {
            let state = self.state();
            let is_stale =
                |source: &&Simulated| source.record().is_none_or(|record| record.expires_at <= now);
            let stale = state.sources.values().filter(is_stale);
            stale.map(|source| (source.n, format!("{:?}", source.failed))).collect()
        };
        if !missing.is_empty() {
            self.violated(format!("no valid token although all is well for {RECOVERY:?}: {missing:?}"));
        }
    }
}
