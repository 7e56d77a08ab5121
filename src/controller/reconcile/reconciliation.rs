//! What the steps of a reconciliation work on.

use jiff::Timestamp;
use tokensource_api::TokenSource;

use crate::controller::context::Context;
use crate::controller::state::SourceState;
use crate::refresh::Cause;
use crate::spec::{Identity, Resolved};
use crate::status::{Problem, Reported};

/// One reconciliation of one TokenSource.
pub(super) struct Reconciliation<'a> {
    pub(super) context: &'a Context,
    /// Without its status.
    pub(super) source: &'a TokenSource,
    /// What was reported when the watch last showed it.
    pub(super) reported: &'a Reported,
    pub(super) identity: &'a Identity,
    pub(super) spec: &'a Resolved,
    pub(super) state: &'a mut SourceState,
    /// What others have changed, where that leads to the token request that was decided on.
    pub(super) cause: Option<Cause>,
    /// Until when that is held back.
    pub(super) held: Option<(Cause, Timestamp)>,
}

/// How a reconciliation ended, where it went well.
pub(super) struct Rest {
    /// When to reconcile again, at the latest.
    pub(super) until: Option<Timestamp>,
    /// What blocks a token that is needed.
    pub(super) problem: Option<Problem>,
    /// A token request has just been queued: there is nothing to report until its result is there.
    pub(super) is_quiet: bool,
}

/// What a decision led to.
pub(super) enum Step {
    /// Decide again.
    Again,
    Rest(Rest),
}

impl Step {
    pub(super) fn rest(until: Option<Timestamp>, problem: Option<Problem>) -> Self {
        Step::Rest(Rest { until, problem, is_quiet: false })
    }
}
