#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! What to do for one TokenSource, now. One pure function of what was observed: the same facts always give the
//! same answer, whoever asks and after whichever restart.

use std::fmt;

use jiff::Timestamp;

use super::schedule::{MIN_REFRESH_INTERVAL, Policy, cached_retry_after, spread};
use crate::secret::{Facts, Inputs, KeySet, Owner, Ownership, Record, Version, ownership};
use crate::time::{plus, seconds_between};

/// A record's issue time may be this far in the future, in seconds, before our clock or its is called wrong.
const CLOCK_TOLERANCE: u64 = 5 * 60;

/// Everything that a decision depends on, but the time.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The TokenSource.
    pub source: &'a Owner,
    /// It is being deleted.
    pub deleting: bool,
    /// `spec.suspend`.
    pub suspended: bool,
    /// The schedule that its spec asks for.
    pub policy: Policy,
    /// What a mint would be asked for now.
    pub wanted: &'a Wanted,
    /// The credentials Secret, if it exists.
    pub credentials: Option<&'a Version>,
    /// The state of the credentials Secret whose values this process last saw, if any.
    pub seen_credentials: Option<&'a Version>,
    /// The values in that state are those that the token in the target was minted with.
    pub seen_as_minted: bool,
    /// The Secret under the target's name, if it exists.
    pub target: Option<&'a Facts>,
    /// The name under which a refresh token that rotates would be kept is somebody else's Secret.
    pub foreign_refresh_token: bool,
    /// The attempts that failed since the last success.
    pub failure: Option<&'a Failure>,
    /// A token request waits, or is in flight.
    pub minting: bool,
    /// What a token request brought and is not yet all written.
    pub pending: Option<Pending<'a>>,
    /// When this process last minted because the target was missing or changed.
    pub restored_at: Option<Timestamp>,
    /// When this process last wrote the target's metadata again because somebody had changed it.
    pub metadata_restored_at: Option<Timestamp>,
    /// When this process began to look.
    pub since: Timestamp,
}

impl<'a> Observed<'a> {
    /// Nothing but what is asked for.
    #[must_use]
    pub fn nothing(source: &'a Owner, wanted: &'a Wanted, policy: Policy, since: Timestamp) -> Self {
        Observed {
            source,
            deleting: false,
            suspended: false,
            policy,
            wanted,
            credentials: None,
            seen_credentials: None,
            seen_as_minted: false,
            target: None,
            foreign_refresh_token: false,
            failure: None,
            minting: false,
            pending: None,
            restored_at: None,
            metadata_restored_at: None,
            since,
        }
    }
}

/// What the spec asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// A digest of `spec.provider` and `spec.credentials`.
    pub provider: String,
    /// The value of the annotation by which a person asks for a new token.
    pub refresh_request: Option<String>,
    /// A digest of the target's template; `None`: there is none.
    pub template: Option<String>,
    /// The data keys of the target.
    pub keys: KeySet,
    /// The target has a controller ownerReference (`deletionPolicy: Delete`).
    pub owner_reference: bool,
}

/// A row of failed attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was tried.
    pub tried: Tried,
    /// When to try again; `None` where only a change helps.
    pub next_attempt_at: Option<Timestamp>,
    /// The issuer asked for patience: a changed spec is no reason to ask sooner, changed values are.
    pub issuer_asks_to_wait: bool,
    /// It was the API server that refused to write the target, in this state of it.
    pub refused_target: Option<Option<Version>>,
}

/// What an attempt was made with, as digests, so that status can hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The spec, as far as an attempt depends on it.
    pub spec: String,
    /// The refresh request.
    pub request: String,
    /// The credentials Secret's uid and resourceVersion.
    pub credentials: String,
}

impl Tried {
    /// Whether `other` is by another spec, or asked for anew.
    #[must_use]
    pub fn is_asked_otherwise(&self, other: &Self) -> bool {
        self.spec != other.spec || self.request != other.request
    }
}

/// A mint whose result is in memory.
#[derive(Clone, Copy, Debug)]
pub struct Pending<'a> {
    /// What its token was minted from; `None` where it holds no usable token.
    pub inputs: Option<&'a Inputs>,
    /// When its token would be refreshed, if it holds one: from then on it is not written.
    pub refresh_at: Option<Timestamp>,
    /// It holds a refresh token, the only copy, that is not persisted yet.
    pub unsaved_refresh_token: bool,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: the TokenSource is being deleted.
    Nothing,
    /// Nothing until somebody else acts; a watch will tell.
    Blocked(Blocked),
    /// Nothing: it is suspended.
    Suspended,
    /// Read the credentials, to see whether their values changed or only their metadata.
    Compare,
    /// Write the record, the label and the ownerReference again, and no token.
    UpdateMetadata,
    /// Request a token.
    Mint(MintReason),
    /// Wait for the token request that waits already, or is in flight.
    Minting(MintReason),
    /// Write what was minted.
    Write,
    /// Nothing is needed before this time.
    Fresh(Option<Timestamp>),
    /// Something is needed, but nothing is to be tried before this time (`None`: before something changes).
    Wait(Option<Timestamp>),
}

/// Who must act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// The target is somebody else's.
    Conflict {
        /// Whose, in words.
        whose: String,
        /// It could be handed over.
        adoptable: bool,
    },
    /// A Secret under the target's name is being deleted.
    AwaitingDeletion,
    /// The name under which a refresh token that rotates would be kept is somebody else's Secret.
    ForeignRefreshToken,
    /// The credentials Secret does not exist.
    CredentialsMissing,
}

/// Why a token is minted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MintReason {
    /// The target does not exist.
    TargetMissing,
    /// The record on the target is missing or cannot be read.
    RecordMissing,
    /// Somebody handed the target over.
    Adopted,
    /// Somebody changed or removed what we wrote.
    TargetChanged,
    /// The target's template changed.
    TemplateChanged,
    /// The provider's spec changed.
    SpecChanged,
    /// The credentials changed.
    CredentialsChanged,
    /// A person asked for it.
    Requested,
    /// It is time.
    Due,
}

impl MintReason {
    /// Whether it mends what somebody did to the target: these mints are damped, because two controllers
    /// that fight over a Secret must not fight over the endpoint.
    #[must_use]
    pub fn restores(self) -> bool {
        matches!(
            self,
            MintReason::TargetMissing
                | MintReason::RecordMissing
                | MintReason::Adopted
                | MintReason::TargetChanged
        )
    }
}

impl fmt::Display for MintReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            MintReason::TargetMissing => "target missing",
            MintReason::RecordMissing => "record missing",
            MintReason::Adopted => "target handed over",
            MintReason::TargetChanged => "target changed by somebody",
            MintReason::TemplateChanged => "template changed",
            MintReason::SpecChanged => "spec changed",
            MintReason::CredentialsChanged => "credentials changed",
            MintReason::Requested => "refresh requested",
            MintReason::Due => "refresh due",
        })
    }
}

/// Decides what to do at `now`. `tried` is what an attempt would be made with.
#[must_use]
pub fn decide(now: Timestamp, observed: &Observed<'_>, tried: &Tried) -> Decision {
    if observed.deleting {
        return Decision::Nothing;
    }
    // A rotated refresh token is the only copy of a credential: nothing goes before it.
    if observed.pending.is_some_and(|pending| pending.unsaved_refresh_token) {
        return unless_waiting(now, observed, tried, Decision::Write);
    }
    if let Some(target) = observed.target {
        match ownership(target, observed.source) {
            Ownership::Foreign { whose, adoptable } => {
                return Decision::Blocked(Blocked::Conflict { whose, adoptable });
            }
            Ownership::Predecessors => return Decision::Blocked(Blocked::AwaitingDeletion),
            Ownership::Ours | Ownership::Offered if target.terminating => {
                return Decision::Blocked(Blocked::AwaitingDeletion);
            }
            Ownership::Ours | Ownership::Offered => {}
        }
    }
    let Some(reason) = needed(now, observed) else {
        return match observed.target.and_then(|target| Some((target, target.record.as_deref()?))) {
            Some((target, record))
                if !observed.suspended && needs_metadata_update(observed, target, record) =>
            {
                if let Some(next) = damped(now, observed.metadata_restored_at)
                    && !touched(observed, record)
                {
                    return Decision::Fresh(Some(next.min(due_at(now, observed, record))));
                }
                // A refused write of the record waits as any other; another failure does not concern it.
                let refused = observed.failure.filter(|failure| failure.refused_target.is_some());
                unless_waiting(
                    now,
                    &Observed { failure: refused, ..*observed },
                    tried,
                    Decision::UpdateMetadata,
                )
            }
            Some((_, record)) => Decision::Fresh(Some(due_at(now, observed, record))),
            None => Decision::Fresh(None),
        };
    };
    if observed.suspended {
        return Decision::Suspended;
    }
    let Some(credentials) = observed.credentials else {
        return Decision::Blocked(Blocked::CredentialsMissing);
    };
    if observed.foreign_refresh_token {
        return Decision::Blocked(Blocked::ForeignRefreshToken);
    }
    let waits_for_credentials = reason == MintReason::CredentialsChanged
        || observed.failure.is_some_and(|failure| failure.tried.credentials != tried.credentials);
    if waits_for_credentials && observed.seen_credentials.is_some_and(|seen| seen != credentials) {
        return Decision::Compare;
    }
    if pending_fits(now, observed, credentials) {
        return unless_waiting(now, observed, tried, Decision::Write);
    }
    if observed.minting {
        return Decision::Minting(reason);
    }
    if let Some(next) = damped(now, observed.restored_at).filter(|_| reason.restores()) {
        return Decision::Wait(Some(next));
    }
    unless_waiting(now, observed, tried, Decision::Mint(reason))
}

/// When what was put right at `last` may be put right again, if that is later: whoever fights over the Secret is not
/// to be outrun.
fn damped(now: Timestamp, last: Option<Timestamp>) -> Option<Timestamp> {
    let last = last?;
    let next = plus(last, MIN_REFRESH_INTERVAL);
    (now < next && last <= now).then_some(next)
}

fn due_at(now: Timestamp, observed: &Observed<'_>, record: &Record) -> Timestamp {
    refresh_at(now, observed.since, &observed.source.uid, &observed.policy, record)
}

/// When the token of `record` is due for a refresh. `since` is when this process began to look.
#[must_use]
pub fn refresh_at(
    now: Timestamp,
    since: Timestamp,
    uid: &str,
    policy: &Policy,
    record: &Record,
) -> Timestamp {
    let lifetime = record.lifetime();
    if seconds_between(now, record.issued_at) > CLOCK_TOLERANCE {
        // One of two clocks is wrong, so this record's times say nothing. Refresh soon, but not all at once.
        return plus(since.min(now), spread(uid, record.issued_at, lifetime / 3));
    }
    if record.cached {
        return plus(record.issued_at, cached_retry_after(lifetime));
    }
    policy.refresh_at(uid, record.issued_at, lifetime)
}

/// What the checks judge.
struct Situation<'a> {
    now: Timestamp,
    observed: &'a Observed<'a>,
    target: Option<&'a Facts>,
    /// The record on the target, if there is one.
    record: Option<&'a Record>,
    /// The same, if it is of this version: of another one nothing is compared.
    readable: Option<&'a Record>,
}

/// Why a token is needed: the first of these that has a reason.
const CHECKS: [fn(&Situation<'_>) -> Option<MintReason>; 9] = [
    target_missing,
    handed_over,
    record_missing,
    // Before the keys: another template mostly has other keys, and no other writer changed those.
    template_changed,
    target_changed,
    spec_changed,
    credentials_changed,
    requested,
    due,
];

/// Why a token is needed, if it is.
#[must_use]
pub fn needed(now: Timestamp, observed: &Observed<'_>) -> Option<MintReason> {
    let target = observed.target;
    let record = target.and_then(|target| target.record.as_deref());
    let readable = record.filter(|record| !record.is_of_another_version());
    let situation = Situation { now, observed, target, record, readable };
    CHECKS.iter().find_map(|check| check(&situation))
}

fn target_missing(it: &Situation<'_>) -> Option<MintReason> {
    it.target.is_none().then_some(MintReason::TargetMissing)
}

fn handed_over(it: &Situation<'_>) -> Option<MintReason> {
    let is_offered = ownership(it.target?, it.observed.source) == Ownership::Offered;
    is_offered.then_some(MintReason::Adopted)
}

fn record_missing(it: &Situation<'_>) -> Option<MintReason> {
    it.record.is_none().then_some(MintReason::RecordMissing)
}

fn template_changed(it: &Situation<'_>) -> Option<MintReason> {
    (it.readable?.template != it.observed.wanted.template).then_some(MintReason::TemplateChanged)
}

fn target_changed(it: &Situation<'_>) -> Option<MintReason> {
    (it.target?.owned_keys != it.observed.wanted.keys).then_some(MintReason::TargetChanged)
}

fn spec_changed(it: &Situation<'_>) -> Option<MintReason> {
    (it.readable?.inputs.provider != it.observed.wanted.provider).then_some(MintReason::SpecChanged)
}

fn credentials_changed(it: &Situation<'_>) -> Option<MintReason> {
    let moved = credentials_moved(it.observed, it.readable?);
    (moved && !known_as_minted(it.observed)).then_some(MintReason::CredentialsChanged)
}

fn requested(it: &Situation<'_>) -> Option<MintReason> {
    let request = it.observed.wanted.refresh_request.as_ref()?;
    (it.record?.refresh_request.as_ref() != Some(request)).then_some(MintReason::Requested)
}

fn due(it: &Situation<'_>) -> Option<MintReason> {
    (it.now >= due_at(it.now, it.observed, it.record?)).then_some(MintReason::Due)
}

/// The credentials Secret is not in the state that the token was minted from.
fn credentials_moved(observed: &Observed<'_>, record: &Record) -> bool {
    observed.credentials.is_some_and(|it| *it != record.inputs.credentials)
}

/// It was read in the state that it is in, and holds what the token was minted with.
fn known_as_minted(observed: &Observed<'_>) -> bool {
    observed.seen_as_minted && observed.credentials == observed.seen_credentials
}

fn needs_metadata_update(observed: &Observed<'_>, target: &Facts, record: &Record) -> bool {
    !record.is_of_another_version()
        && (!target.labelled
            || touched(observed, record)
            || target.controller.is_some() != observed.wanted.owner_reference
            || record.owner.uid != observed.source.uid)
}

/// The credentials Secret moved, and holds what it held.
fn touched(observed: &Observed<'_>, record: &Record) -> bool {
    credentials_moved(observed, record) && known_as_minted(observed)
}

fn pending_fits(now: Timestamp, observed: &Observed<'_>, credentials: &Version) -> bool {
    observed.pending.is_some_and(|pending| {
        let minted_from_these = |inputs: &Inputs| {
            inputs.provider == observed.wanted.provider && inputs.credentials == *credentials
        };
        pending.refresh_at.is_some_and(|at| now < at) && pending.inputs.is_some_and(minted_from_these)
    })
}

/// `decision`, or the wait that a failure asks for.
fn unless_waiting(now: Timestamp, observed: &Observed<'_>, tried: &Tried, decision: Decision) -> Decision {
    let Some(failure) = observed.failure else { return decision };
    let values_changed = failure.tried.credentials != tried.credentials;
    let spec_changed = failure.tried.is_asked_otherwise(tried) && !failure.issuer_asks_to_wait;
    let target_changed = failure
        .refused_target
        .as_ref()
        .is_some_and(|refused| refused.as_ref() != observed.target.map(|target| &target.version));
    if values_changed || spec_changed || target_changed {
        return decision;
    }
    match failure.next_attempt_at {
        Some(at) if at <= now => decision,
        waits => Decision::Wait(waits),
    }
}

#[cfg(test)]
mod tests;
