//! One look at one TokenSource: gather, resolve, decide, mint, render, apply, report.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use jiff::Timestamp;
use tokio::time::Instant;
use tracing::{Instrument, error, warn};

use super::cache::secrets::Known;
use super::cache::source::Watched;
use super::gather::not_lent;
use super::memory::{Failed, Memory};
use super::pods::Prompt;
use super::stop::{Attempt, Stop};
use super::turns::Turn;
use super::{Context, expiry, report, spans};
use crate::cluster::CallError;
use crate::key::Key;
use crate::providers::CredentialsError;
use crate::refresh::{Blocked, Decision, Failure, MintReason, Observed, decide, wait};
use crate::secret::{Ownership, Record, Version, ownership};
use crate::spec::NO_HOST;
use crate::spec::{Identity, Resolved};
use crate::status::{Problem, Reported};
use crate::time::{plus, seconds_between};
use token_endpoint::Class;
use tokensource_api::{Reason, TokenSource};

/// How often one pass decides anew before it lets others go first.
const MOST_STEPS: usize = 12;
/// The longest that a timer is set for. Nothing is done when it ends early.
const LONGEST_TIMER: Duration = Duration::from_secs(24 * 60 * 60);
/// A first mint should be done this long after it was asked for.
const FIRST_MINT: Duration = Duration::from_secs(30);
/// Nobody waits for a turn behind those who came this much later.
const UNHURRIED: Duration = Duration::from_secs(60);
/// The wait before asking again whether many others ask the same endpoint first, in seconds.
const COME_BACK: u64 = 3;
/// The wait before trying again what the API server did not answer.
const API_SERVER_RETRY: Duration = Duration::from_secs(5);
/// The wait before looking again at what no watch tells, in seconds: a name's addresses, another TokenSource's
/// refresh token.
const LOOK_AGAIN: u64 = 5 * 60;

/// One look at one TokenSource.
///
/// Its steps that are rarely taken, or take much room, are boxed where they are awaited: a look that waits for an endpoint
/// must not hold room for all of them.
pub(super) struct Pass<'a> {
    pub(super) context: &'a Context,
    /// Without its status.
    pub(super) source: &'a TokenSource,
    /// What people were told so far.
    pub(super) reported: &'a Reported,
    pub(super) identity: &'a Identity,
    pub(super) resolved: &'a Resolved,
    pub(super) memory: &'a mut Memory,
    /// The turn to look.
    pub(super) turn: Option<Turn>,
    /// The turn to send the user's refresh token, until what came of it is persisted.
    pub(super) seed_turn: Option<tokio::sync::OwnedMutexGuard<()>>,
}

/// How a pass ended.
pub(super) struct Ending {
    /// When to look again, at the latest.
    until: Option<Timestamp>,
    /// What stands in the way of a token that is wanted.
    problem: Option<Problem>,
}

/// A look at a TokenSource, and after how long to look again if nothing concerns it before. It never fails, so that one
/// source's trouble is its own.
pub(super) async fn reconcile(watched: &Watched, context: &Context, turn: Turn) -> Option<Duration> {
    let _looking = context.heartbeats.look();
    let key = &watched.key;
    if !context.namespaces.selects(&key.namespace) && !context.memories.holds_refresh_token(key) {
        context.metrics.forget(key);
        return None;
    }
    let _look = context.metrics.look(key);
    if !context.leadership.may_begin() {
        return None;
    }
    let next = guarded_look(watched, context, turn).await;
    context.metrics.next_reconcile(key, next);
    // It may have gone meanwhile, and its series with it.
    if !context.serves(key) {
        context.metrics.forget(key);
    }
    next
}

/// A look after all others, at a TokenSource whose token is not written yet. It mints nothing, unless this process leads
/// again.
pub(super) async fn look_again(watched: Arc<Watched>, context: &Context) {
    let turn = context.turns.take(deadline(&watched.key, context)).await;
    guarded_look(&watched, context, turn).await;
}

async fn guarded_look(watched: &Watched, context: &Context, turn: Turn) -> Option<Duration> {
    let look = look_at(watched, context, turn).instrument(spans::look(&watched.key));
    let looked = AssertUnwindSafe(Box::pin(look)).catch_unwind().await;
    if !context.sources.knows(&watched.key) {
        // It has gone meanwhile.
        context.memories.forget(&watched.key);
    }
    looked.unwrap_or_else(|_| {
        error!(source = %watched.key, "a bug: the look at this TokenSource panicked");
        context.metrics.panicked();
        Some(Duration::from_secs(60))
    })
}

/// Returns when to look again at the latest; `None` where only a change brings something new.
pub(super) async fn look_at(watched: &Watched, context: &Context, turn: Turn) -> Option<Duration> {
    match watched.source() {
        Ok(source) => look(&source, watched, context, turn).await,
        Err(error) => {
            error!(source = %watched.key, %error, "this TokenSource does not fit the schema and is left alone: is the CustomResourceDefinition of another version?");
            None
        }
    }
}

/// When this TokenSource's look should have been made: in time for readers of the file that holds its token, soon where
/// there is none.
pub(super) fn deadline(source: &Key, context: &Context) -> Instant {
    let expires_at = context.expiry(source);
    let left = expires_at.map_or(0, |expires_at| seconds_between(context.now(), expires_at));
    let left = Duration::from_secs(left.saturating_sub(context.propagation_delay));
    Instant::now() + if expires_at.is_some() { left.min(UNHURRIED) } else { FIRST_MINT }
}

async fn look(source: &TokenSource, watched: &Watched, context: &Context, turn: Turn) -> Option<Duration> {
    let reported = &watched.reported;
    let identity = Identity::of(source, &watched.key)?;
    let memory = context.memories.of(&identity.key);
    let memory = &mut *memory.lock().await;
    memory.is_about(reported, &identity.owner);
    let mut resolved = match Resolved::of(source, context.propagation_delay) {
        Ok(resolved) => resolved,
        Err(error) => {
            let problem = Problem { reason: error.reason(), message: error.to_string(), passes: false };
            context.metrics.belongs(&identity.key, NO_HOST);
            report::invalid(context, source, reported, &identity, memory, problem).await;
            return None;
        }
    };
    context.metrics.belongs(&identity.key, resolved.host());
    spans::is_about(resolved.host());
    memory.prompt = resolved.prompt.then(|| {
        let taken_up = || Box::new(Prompt::take_up(reported, source.metadata.generation, Instant::now()));
        memory.prompt.take().unwrap_or_else(taken_up)
    });
    if memory.prompt.as_ref().is_some_and(|prompt| prompt.fails()) {
        resolved.leave_pods_to_the_kubelet();
    }
    let mut pass = Pass {
        context,
        source,
        reported,
        identity: &identity,
        resolved: &resolved,
        memory,
        turn: Some(turn),
        seed_turn: None,
    };
    match expiry::run(&mut pass).await {
        Ok(ending) => {
            let next = pass.next(&ending);
            if report::report(&mut pass, ending.problem).await.is_err() {
                return Some(API_SERVER_RETRY);
            }
            // Last of all: no token and no status waits for pods.
            if pass.tell_pods().await {
                return Some(Duration::ZERO);
            }
            let pods = pass.memory.prompt.as_ref().and_then(|prompt| prompt.next());
            let pods = pods.map(|at| at.saturating_duration_since(Instant::now()));
            next.map(timer).into_iter().chain(pods).min()
        }
        Err(Stop::ApiServer(message)) => {
            warn!(source = %identity.key, error = %message, "the Kubernetes API server did not answer as expected; trying again");
            Some(API_SERVER_RETRY)
        }
        Err(Stop::Gone | Stop::NotLeading) => None,
        Err(Stop::Again | Stop::Failed(_)) => Some(API_SERVER_RETRY),
    }
}

/// From now until `next`, by the wall clock; the clock's own steps are watched for elsewhere.
pub(super) fn timer(next: Timestamp) -> Duration {
    let left = next.duration_since(Timestamp::now());
    Duration::try_from(left).unwrap_or_default().min(LONGEST_TIMER)
}

impl Pass<'_> {
    /// Decides and acts until there is nothing to do now.
    pub(super) async fn run(&mut self) -> Result<Ending, Stop> {
        for _ in 0..MOST_STEPS {
            if !self.is_served() {
                return Err(Box::pin(self.let_go()).await);
            }
            self.look_where_nobody_has().await?;
            let Some(decision) = self.decide() else { continue };
            if !matches!(decision, Decision::Blocked(_)) {
                self.memory.blocked = None;
            }
            let acted = match decision {
                Decision::Nothing => return Err(Stop::Gone),
                Decision::Blocked(blocked) => return Ok(self.blocked(blocked)),
                Decision::Suspended => {
                    // Who lets it go on wants an attempt at once, unless the issuer wants none.
                    self.memory.failed =
                        self.memory.failed.take().filter(|failed| failed.failure.issuer_asks_to_wait);
                    return Ok(Ending { until: None, problem: None });
                }
                Decision::Fresh(until) => {
                    // What failed is needed no more: somebody took the request back, or the edit.
                    self.memory.failed = None;
                    // Nor is a token that was not written: what is there fits, and may be newer, by another process.
                    self.memory.pending = None;
                    return Ok(Ending { until, problem: None });
                }
                Decision::Wait(until) => {
                    let problem = self.failing().or_else(|| self.contested());
                    return Ok(Ending { until, problem });
                }
                Decision::Compare => self.compare().await,
                Decision::Restamp => Box::pin(self.restamp()).await,
                Decision::Mint(_) if self.is_crowded_out() => {
                    let until = Some(plus(self.context.now(), COME_BACK));
                    return Ok(Ending { until, problem: self.failing() });
                }
                Decision::Mint(why) => Box::pin(self.mint_and_write(why)).await,
                Decision::Write => self.write().await,
            };
            match acted {
                Ok(()) | Err(Stop::Again) => {}
                Err(Stop::Failed(attempt)) => {
                    self.look_where_nobody_has().await?;
                    self.failed(attempt);
                }
                Err(stop) => return Err(stop),
            }
        }
        Err(Stop::Again)
    }

    /// Whether the platform still selects the namespace.
    pub(super) fn is_served(&self) -> bool {
        self.context.namespaces.selects(&self.identity.key.namespace)
    }

    /// Does nothing more for a namespace that was selected, but to save a refresh token that may be the only copy.
    async fn let_go(&mut self) -> Stop {
        match self.save_refresh_token().await {
            Ok(()) => {
                self.memory.pending = None;
                Stop::NotLeading
            }
            Err(stop) => stop,
        }
    }

    /// Decides from what is known; `None` where something is not known yet.
    fn decide(&mut self) -> Option<Decision> {
        self.forget_what_is_written();
        let known = |key| match self.context.secrets.known(key) {
            Known::Nothing => None,
            Known::Absent => Some(None),
            Known::Present(facts) => Some(Some(facts)),
        };
        let target = known(&self.identity.target)?;
        let credentials = known(&self.identity.credentials)?.filter(|facts| self.context.may_use(facts));
        let foreign_refresh_token = self.resolved.sends_refresh_token()
            && known(&self.identity.refresh_token)?.is_some_and(|facts| !self.keeps_refresh_token(&facts));
        let credentials = credentials.as_deref().map(|facts| &facts.version);
        let tried = self.resolved.tried(credentials);
        let observed = Observed { foreign_refresh_token, ..self.observe(target.as_deref(), credentials) };
        Some(decide(self.context.now(), &observed, &tried))
    }

    /// Whether many others are to ask the same endpoint first. While this one waits in the agenda, it holds no memory.
    fn is_crowded_out(&self) -> bool {
        let url = &self.resolved.description.request.token_url;
        let party = self.context.secrets.party(&self.identity.credentials);
        self.context.gate.is_crowded(url, party, self.deadline())
    }

    async fn mint_and_write(&mut self, why: MintReason) -> Result<(), Stop> {
        match self.mint_within_span(why).await {
            Ok(()) => self.write().await,
            // It may have brought a refresh token, whatever was wrong with the rest.
            Err(stop) => Box::pin(self.save_refresh_token()).await.and(Err(stop)),
        }
    }

    /// Goes on looking after it has waited for something else than the API server, before those who have not begun:
    /// what it waited for is not to be lost. Whoever waits gives up its turn: however many they are, they hold nobody up.
    pub(super) async fn go_on(&mut self) {
        self.turn = Some(self.context.turns.take(Instant::now()).await);
    }

    /// When a new token should be there: a refresh in time for readers of the file, a first mint soon.
    pub(super) fn deadline(&self) -> Instant {
        let now = self.context.now();
        let remaining = self.record().map_or(0, |record| seconds_between(now, record.expires_at));
        let left = remaining.saturating_sub(self.resolved.policy.propagation_delay);
        Instant::now() + if remaining > 0 { Duration::from_secs(left) } else { FIRST_MINT }
    }

    /// When to look again after this ending: Ready turns False at expiry, even if nothing else happens.
    fn next(&self, ending: &Ending) -> Option<Timestamp> {
        let now = self.context.now();
        let flips_at = self.record().map(|record| record.expires_at).filter(|expires_at| *expires_at > now);
        [ending.until, flips_at].into_iter().flatten().min()
    }

    /// Reads the metadata of Secrets that the watch has not shown yet: those of a new TokenSource.
    async fn look_where_nobody_has(&self) -> Result<(), CallError> {
        self.known(&self.identity.target).await?;
        self.known(&self.identity.credentials).await?;
        if self.resolved.sends_refresh_token() {
            self.known(&self.identity.refresh_token).await?;
        }
        Ok(())
    }

    fn observe<'o>(
        &'o self,
        target: Option<&'o crate::secret::Facts>,
        credentials: Option<&'o Version>,
    ) -> Observed<'o> {
        Observed {
            source: &self.identity.owner,
            deleting: self.source.metadata.deletion_timestamp.is_some(),
            suspended: self.source.spec.suspend == Some(true),
            policy: self.resolved.policy,
            wanted: &self.resolved.wanted,
            credentials,
            seen_credentials: self.memory.seen_credentials.as_ref().map(|(version, _)| version),
            seen_as_minted: self.seen_as_minted().is_some(),
            target,
            foreign_refresh_token: false,
            failure: self.memory.failed.as_deref().map(|failed| &failed.failure),
            pending: self.memory.pending.as_deref().map(super::memory::PendingMint::for_decision),
            healed_at: self.memory.healed.as_ref().map(|healed| healed.at),
            mended_at: self.mended().map(|mended| mended.at),
            since: self.context.since,
        }
    }

    /// What is known of a Secret; looks where nobody has looked yet.
    pub(super) async fn known(&self, key: &Key) -> Result<Known, CallError> {
        let known = self.context.secrets.known(key);
        if known != Known::Nothing {
            return Ok(known);
        }
        let facts = self.context.kubernetes.secret_facts(key).await?;
        self.context.secrets.observe(key, facts.clone());
        Ok(facts.map_or(Known::Absent, |facts| Known::Present(Arc::new(facts))))
    }

    /// The record on the target, where that is ours.
    pub(super) fn record(&self) -> Option<Arc<Record>> {
        match self.context.secrets.known(&self.identity.target) {
            Known::Present(facts) if ownership(&facts, &self.identity.owner) == Ownership::Ours => {
                facts.record.clone()
            }
            _ => None,
        }
    }

    /// Whether nobody has changed or removed what was written into the target.
    pub(super) fn target_is_intact(&self) -> bool {
        matches!(self.context.secrets.known(&self.identity.target), Known::Present(facts) if facts.owned_keys == self.resolved.wanted.keys)
    }

    /// A write whose answer was lost may have happened: its token need not stay in memory.
    fn forget_what_is_written(&mut self) {
        let Some(pending) = &self.memory.pending else { return };
        let written = self.record();
        let template = &self.resolved.wanted.template;
        let holds = |record: &Record| {
            written.as_ref().is_some_and(|it| it.token_id == record.token_id && it.template == *template)
        };
        let is_written = pending.refresh_token.is_none()
            && pending.token.as_ref().is_none_or(|token| holds(&token.record) && !token.record.cached);
        if is_written {
            self.memory.pending = None;
        }
    }

    /// The state of the credentials Secret that was last read, if its values are those that the token in the target
    /// was minted with.
    pub(super) fn seen_as_minted(&self) -> Option<&Version> {
        let (version, digest) = self.memory.seen_credentials.as_ref()?;
        (digest.is_some() && *digest == self.memory.minted_with).then_some(version)
    }

    fn blocked(&mut self, blocked: Blocked) -> Ending {
        let target = &self.identity.target.name;
        let passes = blocked == Blocked::AwaitingDeletion;
        let (reason, message) = match blocked {
            Blocked::Conflict { whose, adoptable } => {
                (Reason::TargetConflict, self.conflict(&whose, adoptable))
            }
            Blocked::AwaitingDeletion => (
                Reason::TargetConflict,
                format!("Secret {target} is being deleted; it will be created again when it has gone"),
            ),
            Blocked::ForeignRefreshToken => (
                Reason::TargetConflict,
                format!(
                    "Secret {} is where the refresh token of this TokenSource would be kept, but this operator did not create it for this TokenSource: delete it if nobody needs it, or give the TokenSource another name",
                    self.identity.refresh_token.name
                ),
            ),
            Blocked::CredentialsMissing if self.credentials_exist() => {
                (Reason::CredentialsInvalid, not_lent(&self.identity.credentials))
            }
            Blocked::CredentialsMissing => {
                let error = CredentialsError::secret_not_found(
                    &self.source.spec.credentials,
                    &self.resolved.description,
                );
                (error.reason(), error.to_string())
            }
        };
        if !passes && self.memory.blocked.replace(reason) != Some(reason) {
            warn!(source = %self.identity.key, host = self.resolved.host(), %reason, error = %message, "blocked");
        }
        Ending { until: None, problem: Some(Problem { reason, message, passes }) }
    }

    /// The credentials Secret is there, whether or not it may be used.
    fn credentials_exist(&self) -> bool {
        matches!(self.context.secrets.known(&self.identity.credentials), Known::Present(_))
    }

    /// The failed attempts as a problem, while they are why nothing happens.
    pub(super) fn failing(&self) -> Option<Problem> {
        let failed = self.memory.failed.as_ref()?;
        // A quota or a policy may let a write pass at the next attempt; where there is none, a person must act.
        let passes = failed.reason == Reason::TargetRefused && failed.failure.next_attempt_at.is_some();
        Some(Problem { reason: failed.reason, message: failed.message.clone(), passes })
    }

    fn failed(&mut self, attempt: Attempt) {
        let now = self.context.now();
        // Of the credentials the state that was read: they may have been put right while the endpoint was asked.
        let read = self.memory.seen_credentials.as_ref().map(|(version, _)| version);
        let tried = match self.context.secrets.known(&self.identity.credentials) {
            Known::Present(facts) => self.resolved.tried(Some(read.unwrap_or(&facts.version))),
            _ => self.resolved.tried(None),
        };
        let count = Failed::count_with(self.memory.failed.as_deref(), &tried, attempt.held_for.is_some());
        let fits = |record: &Arc<Record>| record.inputs.provider == self.resolved.wanted.provider;
        let waits = wait(
            now,
            &crate::refresh::Failed {
                class: attempt.class,
                count,
                retry_after: attempt.retry_after,
                expires_at: self.record().filter(fits).map(|record| record.expires_at),
                propagation_delay: self.resolved.policy.propagation_delay,
                uid: &self.identity.owner.uid,
            },
        );
        // The server may have spent the refresh token: once more at once, while it may still remember the answer.
        let at_once = attempt.outcome_unknown && self.resolved.sends_refresh_token() && count == 1;
        let unwatched = matches!(attempt.reason, Reason::EndpointRefusedByPolicy | Reason::GrantRejected);
        let held = attempt.held_for.flatten();
        let waits = if at_once { Some(1) } else { held.or(waits).or(unwatched.then_some(LOOK_AGAIN)) };
        let next_attempt_at = waits.map(|seconds| plus(now, seconds));
        warn!(
            source = %self.identity.key,
            host = self.resolved.host(),
            reason = %attempt.reason,
            error = %attempt.message,
            count,
            next_attempt_at = next_attempt_at.map(tracing::field::display),
            "failed"
        );
        self.memory.failed = Some(Box::new(Failed {
            failure: Failure {
                tried,
                next_attempt_at,
                issuer_asks_to_wait: attempt.retry_after.is_some() || attempt.class == Class::LockedOut,
                refused_target: attempt.target,
            },
            count,
            values_changed: false,
            at: now,
            reason: attempt.reason,
            message: attempt.message,
        }));
    }
}
