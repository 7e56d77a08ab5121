#![deny(clippy::disallowed_methods, clippy::disallowed_types)]
//! The decision what to do for one TokenSource: a pure function of what was observed, so that a restart or a change of
//! leader does not change it.

use std::fmt;

use jiff::Timestamp;

use super::damping::Cause;
use super::issue_time::DatedRecord;
use super::schedule::{MIN_REFRESH_INTERVAL, Policy};
use crate::secret::{Facts, Inputs, KeySet, Owner, Ownership, Record, Version, ownership};
use crate::time::plus;

/// How far the time of a failure may lie in the future, in seconds: the clocks of two processes differ a little.
const MAX_CLOCK_DIFFERENCE: u64 = 30;

/// Everything that a decision depends on, except for the time.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The TokenSource.
    pub source: &'a Owner,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// `spec.suspend`.
    pub suspended: bool,
    /// The schedule of its spec.
    pub policy: Policy,
    /// What a token would be requested with now.
    pub wanted: &'a Wanted,
    /// The credentials Secret, if it exists.
    pub credentials: Option<&'a Version>,
    /// The version of the credentials Secret whose values this process read last, if any.
    pub seen_credentials: Option<&'a Version>,
    /// Whether the values in that version are those that the token in the target was requested with.
    pub seen_as_minted: bool,
    /// The Secret with the target's name, if it exists.
    pub target: Option<&'a Facts>,
    /// Whether the Secret with the name for the stored refresh token has another owner.
    pub foreign_refresh_token: bool,
    /// The attempts that failed since the last success.
    pub failure: Option<&'a Failure>,
    /// Whether a token request is queued or in flight.
    pub minting: bool,
    /// A token that is not written yet.
    pub pending: Option<Pending<'a>>,
    /// Whether the only copy of a rotated refresh token is in memory.
    pub unsaved_refresh_token: bool,
    /// Until when another process may hold the next refresh token, which it would save.
    pub predecessor_until: Option<Timestamp>,
    /// When this process last restored the target's metadata.
    pub metadata_restored_at: Option<Timestamp>,
    /// The record on the target, with its times by the clock of `now`.
    pub dated: Option<&'a DatedRecord>,
}

impl<'a> Observed<'a> {
    /// An observation without Secrets and without past attempts.
    #[must_use]
    pub fn nothing(source: &'a Owner, wanted: &'a Wanted, policy: Policy) -> Self {
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
            unsaved_refresh_token: false,
            predecessor_until: None,
            metadata_restored_at: None,
            dated: None,
        }
    }
}

/// What the spec asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// A digest of `spec.provider` and `spec.credentials`.
    pub provider: Box<str>,
    /// The value of the annotation that requests a new token.
    pub refresh_request: Option<Box<str>>,
    /// A digest of the target's template, if there is one.
    pub template: Option<Box<str>>,
    /// The data keys of the target.
    pub keys: KeySet,
    /// Whether the target has a controller ownerReference (`deletionPolicy: Delete`).
    pub owner_reference: bool,
}

/// Failed attempts in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the last attempt was made with.
    pub tried: Tried,
    /// When it failed.
    pub failed_at: Timestamp,
    /// When the next attempt is due; `None` where only a change helps.
    pub next_attempt_at: Option<Timestamp>,
    /// Whether the issuer asked to wait: then only changed values of the credentials cause an attempt sooner.
    pub issuer_asks_to_wait: bool,
    /// The version of the target (`None` inside: absent) for which the API server refused the write, if that failed.
    pub refused_target: Option<Option<Version>>,
}

/// What an attempt was made with, as digests, which can be stored in status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The part of the spec on which an attempt depends.
    pub spec: String,
    /// The refresh request.
    pub request: String,
    /// The credentials Secret's uid and resourceVersion.
    pub credentials: String,
}

impl Tried {
    /// Whether `other` has another spec or another refresh request.
    #[must_use]
    pub fn is_asked_otherwise(&self, other: &Self) -> bool {
        self.spec != other.spec || self.request != other.request
    }
}

/// A token that is in memory only.
#[derive(Clone, Copy, Debug)]
pub struct Pending<'a> {
    /// What its token was requested with.
    pub inputs: &'a Inputs,
    /// When its token would be refreshed. From then on it is written only where the target's expires sooner.
    pub refresh_at: Timestamp,
    /// When its token expires.
    pub expires_at: Timestamp,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: the TokenSource is being deleted.
    Nothing,
    /// Nothing until a user or another controller acts, which a watch will show.
    Blocked(Blocked),
    /// Nothing: it is suspended.
    Suspended,
    /// Read the credentials, to find out whether their values or only their metadata changed.
    Compare,
    /// Write the record, the label and the ownerReference, without a new token.
    UpdateMetadata,
    /// Request a token.
    Mint(MintReason),
    /// A token is needed because of what others did, who have done so just before: not before this time. That is found after
    /// [`decide`].
    Held(Cause, Timestamp),
    /// Wait for the token request that is queued or in flight.
    Minting(MintReason),
    /// Wait until the refresh token is saved, which the saver does.
    Saving,
    /// Wait until this time for another process, which may hold the next refresh token.
    HandingOver(Timestamp),
    /// Write the token.
    Write,
    /// Nothing is needed before this time.
    Fresh(Option<Timestamp>),
    /// A token is needed, but no attempt is due before this time (`None`: before something changes).
    Wait(Option<Timestamp>),
}

/// Why nothing can be done until a user or another controller acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// The target has another owner.
    Conflict {
        /// The owner, as a clause of a message.
        whose: String,
        /// Whether it can be handed over.
        adoptable: bool,
    },
    /// The Secret with the target's name is being deleted.
    AwaitingDeletion,
    /// The Secret with the name for the stored refresh token has another owner.
    ForeignRefreshToken,
    /// The credentials Secret does not exist.
    CredentialsMissing,
}

/// Why a token is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MintReason {
    /// The target does not exist.
    TargetMissing,
    /// The record on the target is missing or cannot be parsed.
    RecordMissing,
    /// The target was handed over.
    Adopted,
    /// Another writer changed or removed keys of the target.
    TargetChanged,
    /// The target's template changed.
    TemplateChanged,
    /// `spec.provider` or `spec.credentials` changed.
    SpecChanged,
    /// The values of the credentials changed, or may have changed while the operator was down.
    CredentialsChanged,
    /// A user requested it by the annotation.
    Requested,
    /// The refresh is due.
    Due,
}

impl MintReason {
    /// Whether it restores the target after another writer.
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
            MintReason::TargetChanged => "target changed by another writer",
            MintReason::TemplateChanged => "template changed",
            MintReason::SpecChanged => "spec changed",
            MintReason::CredentialsChanged => "credentials changed",
            MintReason::Requested => "refresh requested",
            MintReason::Due => "refresh due",
        })
    }
}

/// The decision at `now`. `tried` is what an attempt would be made with.
#[must_use]
pub fn decide(now: Timestamp, observed: &Observed<'_>, tried: &Tried) -> Decision {
    if observed.deleting {
        return Decision::Nothing;
    }
    // The rotated refresh token is the only copy of a credential: saving it comes first.
    if observed.unsaved_refresh_token {
        return Decision::Saving;
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
    // Whether or not a token can be had: with the reference, the Secret would be deleted with the TokenSource.
    if is_to_be_released(observed)
        && let update @ Decision::UpdateMetadata = unless_write_refused(now, observed, tried)
    {
        return update;
    }
    let Some(reason) = needed(now, observed) else {
        return match observed.target.and_then(|target| Some((target, target.record.as_deref()?))) {
            Some((target, record))
                if !observed.suspended && needs_metadata_update(observed, target, record) =>
            {
                if let Some(next) = next_restoration(now, observed.metadata_restored_at)
                    && !only_metadata_moved(observed, record)
                {
                    return Decision::Fresh([Some(next), due_at(observed)].into_iter().flatten().min());
                }
                unless_write_refused(now, observed, tried)
            }
            Some(_) => Decision::Fresh(due_at(observed)),
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
    let moved_since =
        |inputs: &Inputs| inputs.provider == observed.wanted.provider && inputs.credentials != *credentials;
    let waits_for_credentials = reason == MintReason::CredentialsChanged
        // A label that was set while the token was requested costs no other token.
        || observed.pending.is_some_and(|pending| moved_since(pending.inputs))
        || observed.failure.is_some_and(|failure| failure.tried.credentials != tried.credentials);
    if waits_for_credentials && observed.seen_credentials.is_some_and(|seen| seen != credentials) {
        return Decision::Compare;
    }
    if pending_fits(now, observed, credentials) {
        return unless_waiting(now, observed, tried, Decision::Write);
    }
    if let Some(until) = observed.predecessor_until.filter(|until| now < *until) {
        return Decision::HandingOver(until);
    }
    if observed.minting {
        return Decision::Minting(reason);
    }
    unless_waiting(now, observed, tried, Decision::Mint(reason))
}

/// Whether the target has an ownerReference that `deletionPolicy: Retain` has no use for.
fn is_to_be_released(observed: &Observed<'_>) -> bool {
    let is_ours = |target: &&Facts| ownership(target, observed.source) == Ownership::Ours;
    observed.target.filter(is_ours).is_some_and(|target| {
        let is_readable = target.record.as_deref().is_some_and(|record| !record.is_of_another_version());
        is_readable && target.controlled_by.is_some() && !observed.wanted.owner_reference
    })
}

/// [`Decision::UpdateMetadata`], which only a refused write delays; other failures are unrelated.
fn unless_write_refused(now: Timestamp, observed: &Observed<'_>, tried: &Tried) -> Decision {
    let refused = observed.failure.filter(|failure| failure.refused_target.is_some());
    unless_waiting(now, &Observed { failure: refused, ..*observed }, tried, Decision::UpdateMetadata)
}

/// When the metadata of a target that was restored at `last` may be restored again, if that is in the future.
fn next_restoration(now: Timestamp, last: Option<Timestamp>) -> Option<Timestamp> {
    let last = last?;
    let next = plus(last, MIN_REFRESH_INTERVAL);
    (now < next && last <= now).then_some(next)
}

pub(super) fn due_at(observed: &Observed<'_>) -> Option<Timestamp> {
    observed.dated.map(|dated| dated.refresh_at(&observed.source.uid, &observed.policy))
}

/// The input of the checks.
struct CheckInput<'a> {
    now: Timestamp,
    observed: &'a Observed<'a>,
    target: Option<&'a Facts>,
    /// The record on the target, if there is one.
    record: Option<&'a Record>,
    /// The same, if it has this build's format version: the inputs of others are not comparable.
    readable: Option<&'a Record>,
}

/// The checks for why a token is needed. The first reason applies.
const CHECKS: [fn(&CheckInput<'_>) -> Option<MintReason>; 9] = [
    target_missing,
    handed_over,
    record_missing,
    // Before the keys: another template usually has other keys, which is no change by another writer.
    template_changed,
    target_changed,
    spec_changed,
    credentials_changed,
    requested,
    due,
];

/// Why a token is needed, if one is.
#[must_use]
pub fn needed(now: Timestamp, observed: &Observed<'_>) -> Option<MintReason> {
    let target = observed.target;
    let record = target.and_then(|target| target.record.as_deref());
    let readable = record.filter(|record| !record.is_of_another_version());
    let input = CheckInput { now, observed, target, record, readable };
    CHECKS.iter().find_map(|check| check(&input))
}

fn target_missing(input: &CheckInput<'_>) -> Option<MintReason> {
    input.target.is_none().then_some(MintReason::TargetMissing)
}

fn handed_over(input: &CheckInput<'_>) -> Option<MintReason> {
    let is_offered = ownership(input.target?, input.observed.source) == Ownership::Offered;
    is_offered.then_some(MintReason::Adopted)
}

fn record_missing(input: &CheckInput<'_>) -> Option<MintReason> {
    input.record.is_none().then_some(MintReason::RecordMissing)
}

fn template_changed(input: &CheckInput<'_>) -> Option<MintReason> {
    (input.readable?.template != input.observed.wanted.template).then_some(MintReason::TemplateChanged)
}

fn target_changed(input: &CheckInput<'_>) -> Option<MintReason> {
    (input.target?.owned_keys != input.observed.wanted.keys).then_some(MintReason::TargetChanged)
}

fn spec_changed(input: &CheckInput<'_>) -> Option<MintReason> {
    (input.readable?.inputs.provider != input.observed.wanted.provider).then_some(MintReason::SpecChanged)
}

fn credentials_changed(input: &CheckInput<'_>) -> Option<MintReason> {
    let moved = credentials_moved(input.observed, input.readable?);
    (moved && !known_as_minted(input.observed)).then_some(MintReason::CredentialsChanged)
}

fn requested(input: &CheckInput<'_>) -> Option<MintReason> {
    let request = input.observed.wanted.refresh_request.as_ref()?;
    (input.record?.refresh_request.as_ref() != Some(request)).then_some(MintReason::Requested)
}

fn due(input: &CheckInput<'_>) -> Option<MintReason> {
    input.record?;
    (input.now >= due_at(input.observed)?).then_some(MintReason::Due)
}

/// Whether the credentials Secret has another version than the token was requested with.
fn credentials_moved(observed: &Observed<'_>, record: &Record) -> bool {
    observed.credentials.is_some_and(|it| *it != record.inputs.credentials)
}

/// Whether its present version was read, and has the values that the token was requested with.
fn known_as_minted(observed: &Observed<'_>) -> bool {
    observed.seen_as_minted && observed.credentials == observed.seen_credentials
}

fn needs_metadata_update(observed: &Observed<'_>, target: &Facts, record: &Record) -> bool {
    !record.is_of_another_version()
        && (!target.labelled
            || only_metadata_moved(observed, record)
            || target.controlled_by.is_some() != observed.wanted.owner_reference
            || record.owner.uid != observed.source.uid)
}

/// Whether the credentials Secret has another version with the same values.
fn only_metadata_moved(observed: &Observed<'_>, record: &Record) -> bool {
    credentials_moved(observed, record) && known_as_minted(observed)
}

fn pending_fits(now: Timestamp, observed: &Observed<'_>, credentials: &Version) -> bool {
    observed.pending.is_some_and(|pending| {
        let requested_with_these = |inputs: &Inputs| {
            inputs.provider == observed.wanted.provider && inputs.credentials == *credentials
        };
        // Better than what readers have now, until the next is there: its endpoint may be slow.
        let is_better = || {
            let expires_at = observed.dated.map(|dated| dated.record.expires_at);
            now < pending.expires_at && expires_at.is_none_or(|expires_at| expires_at < pending.expires_at)
        };
        (now < pending.refresh_at || is_better()) && requested_with_these(pending.inputs)
    })
}

/// `decision`, or the wait after a failure.
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
        // A failure in the future was dated by another clock: how long ago it was is unknown.
        Some(at) if at <= now || failure.failed_at > plus(now, MAX_CLOCK_DIFFERENCE) => decision,
        waits => Decision::Wait(waits),
    }
}

#[cfg(test)]
mod tests;
