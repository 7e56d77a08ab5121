//! One reconciliation of one TokenSource, in the order in which it happens. It calls the API server, and never waits for a
//! token endpoint: a token request is a task of its own, whose result triggers the next reconciliation.

mod act;
mod feeding;
mod observe;
mod propagate;
mod reconciliation;
mod report;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokensource_api::Reason;
use tracing::{debug, error, warn};

use super::cache::source::CachedSource;
use super::context::Context;
use super::issuing;
use super::outcome::Outcome;
use super::propagation::Prompt;
use super::spans;
use super::state::SourceState;
use crate::cluster::{MAX_SPEC_BYTES, Unavailable};
use crate::key::Key;
use crate::refresh::{Decision, api_server_wait};
use crate::spec::{Identity, NO_HOST};
use crate::status::Problem;
use crate::text::shown;
use crate::time::seconds_between;
use reconciliation::{Reconciliation, Rest, Step};

/// Decisions in one reconciliation, before others go first.
const MAX_STEPS: usize = 12;
/// How often a circle of TokenSources is looked for again: a change of one that is not next to this one triggers nothing here.
const CIRCLE_CHECK: Duration = Duration::from_secs(5 * 60);
/// The longest that a timer is set for. Nothing is done when it ends early.
const MAX_TIMER: Duration = Duration::from_secs(24 * 60 * 60);

/// Reconciles a TokenSource. Returns after how long to do it again, if nothing triggers it before.
pub(super) async fn reconcile(
    cached: &Arc<CachedSource>,
    state: &mut SourceState,
    context: &Arc<Context>,
) -> Option<Duration> {
    let cached = match context.with_spec(cached).await {
        Ok(Some(cached)) => cached,
        // The watch shows that, too.
        Ok(None) => return None,
        Err(error) => {
            warn!(source = %cached.key, %error, "the spec cannot be read; trying again");
            state.api_failures = state.api_failures.saturating_add(1);
            let (now, uid) = (context.clock.now(), cached.uid().cloned().unwrap_or_default());
            let remaining = context.expiry(&cached.key).map_or(0, |at| seconds_between(now, at));
            return Some(api_server_wait(now, &uid, state.api_failures, None, state.awaiting(remaining)));
        }
    };
    let mut source = match cached.source() {
        Ok(source) => source,
        Err(error) => {
            drop_request(context, &cached.key, state);
            error!(source = %cached.key, error = %shown(&error.to_string()), "this TokenSource does not fit the schema and is left alone: is the CustomResourceDefinition of another version?");
            return None;
        }
    };
    let mut identity = Identity::of(&source, &cached.key)?;
    let reported = &cached.reported;
    state.clock_is(context.clock.corrected());
    state.is_about(reported, &identity.owner);
    state.storage_is(context.restorations.count());
    let invalid = |reason, message| (Problem { reason, message, passes: false }, None);
    let not_opened_by = context.bindings.missing(&cached.key.namespace);
    let resolved = match (not_opened_by, context.sources.exceeds(&cached), cached.is_too_large()) {
        (Some(command), ..) => Err(invalid(Reason::NamespaceNotOpened, not_opened(&cached.key, &command))),
        (None, Some(max), _) => Err(invalid(Reason::TooManySources, too_many(&cached.key.namespace, max))),
        (None, None, true) => Err(invalid(Reason::SpecInvalid, too_large())),
        (None, None, false) => {
            context.resolve(&mut source, &mut identity).map_err(|unusable| (unusable.into(), None))
        }
    };
    let resolved = resolved.and_then(|spec| {
        feeding::feeds_itself(context, &identity)
            .map_or(Ok(spec), |problem| Err((problem, Some(CIRCLE_CHECK))))
    });
    let mut spec = match resolved {
        Ok(spec) => spec,
        Err((problem, again)) => {
            drop_request(context, &identity.key, state);
            let issuer = issuing::unusable_issuer(&source, problem.reason);
            context.metrics.set_host(&identity.key, NO_HOST, issuer.as_ref());
            let ended = report::invalid(context, &source, reported, &identity, state, problem).await;
            let next = after(context, &identity, state, ended.map_err(Outcome::from));
            return next.into_iter().chain(again).min();
        }
    };
    context.metrics.set_host(&identity.key, spec.host(), spec.issuer.as_ref().map(|issuer| &issuer.name));
    spans::is_about(spec.host());
    state.prompt = spec.prompt.then(|| {
        state.prompt.take().unwrap_or_else(|| {
            let record = context.record(&identity).map(|dated| dated.record);
            let target = context.secrets.known(&identity.target).present();
            let stored_at = target.and_then(|target| target.stored_at);
            let age = record.map(|record| Prompt::age(record.issued_at, stored_at, context.now()));
            Box::new(Prompt::take_up(reported, source.metadata.generation, age))
        })
    });
    if let Some(prompt) = &mut state.prompt {
        propagate::settle(context, &identity.key, prompt);
        if prompt.fails() {
            spec.use_unprompted_delay();
        }
    }
    let mut reconciliation = Reconciliation {
        context,
        source: &source,
        reported,
        identity: &identity,
        spec: &spec,
        state,
        cause: None,
        held: None,
    };
    let ended = reconciliation.run().await;
    after(context, &identity, state, ended)
}

/// The message about a TokenSource that is not served.
fn too_many(namespace: &str, max: usize) -> String {
    format!(
        "namespace {namespace} has more TokenSources than --max-sources-per-namespace {max} of the operator (Helm value maxSourcesPerNamespace), and this is not one of the {max} oldest"
    )
}

/// The message where no RoleBinding grants the operator its rights.
fn not_opened(source: &Key, command: &str) -> String {
    format!(
        "the operator has no rights in namespace {}: run `{command}`, which the namespace's role admin permits; it is seen within a minute",
        source.namespace
    )
}

/// The message about a spec that is not kept.
fn too_large() -> String {
    format!(
        "spec has more than {} KiB as JSON, and such a spec is not read: shorten spec.target.template and the lists and parameters of spec.provider",
        MAX_SPEC_BYTES >> 10
    )
}

/// After how long to reconcile again.
fn after(
    context: &Context,
    identity: &Identity,
    state: &mut SourceState,
    ended: Result<Option<Duration>, Outcome>,
) -> Option<Duration> {
    let asked = match ended {
        Ok(again) => {
            // A token request may still fail for the API server.
            if !context.mints.is_minting(&identity.key) {
                state.api_failures = 0;
            }
            return again;
        }
        Err(Outcome::Gone | Outcome::NotLeading) => return None,
        Err(Outcome::ApiServer(why)) => {
            warn!(source = %identity.key, error = %why, "the Kubernetes API server did not answer as expected; trying again");
            why.retry_after
        }
        Err(Outcome::Retry | Outcome::Outdated | Outcome::Failed(_)) => None,
    };
    state.api_failures = state.api_failures.saturating_add(1);
    let now = context.clock.now();
    let expires_at = context.record(identity).map(|record| record.record.expires_at);
    let remaining = expires_at.map_or(0, |at| seconds_between(now, at));
    let wait =
        api_server_wait(now, &identity.owner.uid, state.api_failures, asked, state.awaiting(remaining));
    // Ready turns False at expiry, also where calls about Secrets fail.
    let at_expiry = expires_at.filter(|at| *at > now).map(|at| timer(now, at));
    Some(at_expiry.map_or(wait, |at_expiry| wait.min(at_expiry)))
}

/// The spec cannot be used: takes back what is queued, and drops a token that is not written yet.
fn drop_request(context: &Context, key: &Key, state: &mut SourceState) {
    context.mints.cancel(key);
    if let Some(result) = context.mints.take_result(key).filter(|result| result.uid == state.uid) {
        act::token_request::count_cause(context, state, &result);
    }
    state.pending = None;
}

impl Reconciliation<'_> {
    async fn run(&mut self) -> Result<Option<Duration>, Outcome> {
        let rest = match self.take_result() {
            Ok(()) => self.observe_decide_act().await,
            Err(outcome) => Err(outcome),
        };
        // A token that waits until its refresh token is saved is written soon, also when this process ends.
        let is_saving = self.context.saver.holds(&self.identity.key);
        self.state.hold_nothing_back(!is_saving && matches!(rest, Ok(_) | Err(Outcome::Gone)));
        // Before the report: pods do not wait for status.
        if matches!(rest, Ok(_) | Err(Outcome::ApiServer(_))) {
            self.propagate();
        }
        if let Err(Outcome::ApiServer(why)) = &rest {
            self.report_api_failure(why).await;
        }
        let rest = rest?;
        let again = self.next(&rest);
        let mut next_report = None;
        if !rest.is_quiet || self.expired_unreported() {
            let problem = if rest.is_quiet { self.failing() } else { rest.problem };
            next_report = self.report(problem).await?;
        }
        let again = again.map(|next| timer(self.context.clock.now(), next));
        Ok(again.into_iter().chain(next_report).chain(self.next_propagation()).min())
    }

    /// Reports that the API server fails: it may fail for Secrets alone, because of an admission webhook or of their encryption.
    /// Seldom, because in an outage each report is one more call that fails.
    async fn report_api_failure(&mut self, why: &Unavailable) {
        let failures = self.state.api_failures.saturating_add(1);
        let is_turn = failures > 1 && failures.is_power_of_two();
        let has_expired = why.is_answer && self.expired_unreported();
        if why.retry_after.is_some() || !(is_turn || has_expired) {
            return;
        }
        let is_known = self.context.secrets.known(&self.identity.target).observed().is_some();
        if !is_known && report::before(self.source, self.reported, self.state).has_token {
            return; // its token may be valid
        }
        let what = if why.is_answer { why.to_string() } else { "no answer".to_owned() };
        let message = format!(
            "calls to the Kubernetes API server about this TokenSource or its Secrets fail ({what}); an admission webhook that fails is the usual cause, or the encryption of Secrets"
        );
        let problem = Problem { reason: Reason::KubernetesApiError, message, passes: true };
        if let Err(error) = self.report(Some(problem)).await {
            debug!(source = %self.identity.key, %error, "the failure of the API server could not be reported");
        }
    }

    async fn observe_decide_act(&mut self) -> Result<Rest, Outcome> {
        for _ in 0..MAX_STEPS {
            if !self.context.may_act_in(&self.identity.key.namespace) {
                return Err(self.let_go());
            }
            self.observe().await?;
            if let Some(problem) = self.unreadable_target() {
                self.context.mints.cancel(&self.identity.key);
                return Ok(Rest { until: None, problem: Some(problem), is_quiet: false });
            }
            let Some(decision) = self.decide() else { continue };
            match self.act(decision).await {
                Ok(Step::Rest(rest)) => return Ok(rest),
                Ok(Step::Again) | Err(Outcome::Retry) => {}
                Err(Outcome::Failed(attempt)) => {
                    self.observe().await?;
                    self.failed(attempt, None, None);
                }
                Err(outcome) => return Err(outcome),
            }
        }
        Err(Outcome::Retry)
    }

    async fn act(&mut self, decision: Decision) -> Result<Step, Outcome> {
        if !matches!(decision, Decision::Blocked(_)) {
            self.state.blocked = None;
        }
        // What is queued keeps its deadline while it is found out whether it is still needed.
        if !matches!(decision, Decision::Mint(_) | Decision::Minting(_) | Decision::Compare) {
            self.context.mints.cancel(&self.identity.key);
        }
        match decision {
            Decision::Nothing => Err(Outcome::Gone),
            Decision::Blocked(blocked) => Ok(Step::rest(None, Some(self.blocked(blocked)))),
            Decision::Suspended => {
                // When it goes on, an attempt is made at once, unless the issuer wants none.
                self.state.failed =
                    self.state.failed.take().filter(|failed| failed.failure.issuer_asks_to_wait);
                Ok(Step::rest(None, None))
            }
            Decision::Fresh(until) => {
                // What failed is not needed any more: the request or the edit was taken back. Nor is a token that was not
                // written: the one that is there fits, and may be newer, by another process.
                self.state.failed = None;
                self.state.pending = None;
                Ok(Step::rest(until, None))
            }
            Decision::Wait(until) => Ok(Step::rest(until, self.failing())),
            Decision::Held(cause, until) => {
                self.held = Some((cause, until));
                Ok(Step::rest(Some(until), self.failing().or_else(|| self.held_back(cause, until))))
            }
            Decision::Compare => self.compare_credentials().await,
            Decision::UpdateMetadata => Box::pin(self.update_metadata()).await,
            Decision::Mint(reason) => Box::pin(self.request_token(reason)).await,
            Decision::Minting(reason) => Ok(self.wait_for_token(reason)),
            // The saver triggers the next reconciliation.
            Decision::Saving => Ok(Step::rest(
                None,
                self.context.saver.problem(&self.identity.key).or_else(|| self.failing()),
            )),
            Decision::HandingOver(until) => Ok(Step::rest(Some(until), Some(self.handing_over(until)))),
            Decision::Write => Box::pin(self.write()).await,
        }
    }

    /// Does nothing more for a namespace that is not selected, or not bound, any more.
    fn let_go(&mut self) -> Outcome {
        self.context.mints.cancel(&self.identity.key);
        self.state.pending = None;
        self.state.report_times = None;
        Outcome::NotLeading
    }

    /// Whether the token has expired, and Ready is still reported: that does not wait for the endpoint.
    fn expired_unreported(&mut self) -> bool {
        let now = self.context.now();
        self.record().is_some_and(|record| record.expires_at <= now)
            && report::before(self.source, self.reported, self.state).ready().is_some_and(|(ready, _)| ready)
    }

    /// When to reconcile again: Ready turns False at expiry, even if nothing else happens.
    fn next(&self, rest: &Rest) -> Option<Timestamp> {
        let now = self.context.now();
        let expires_at = self.record().map(|record| record.expires_at).filter(|expires_at| *expires_at > now);
        [rest.until, expires_at].into_iter().flatten().min()
    }
}

/// From `now` until `next`. Timers stand still while the machine is suspended: `clock_check` sees that.
fn timer(now: Timestamp, next: Timestamp) -> Duration {
    Duration::try_from(next.duration_since(now)).unwrap_or_default().min(MAX_TIMER)
}
