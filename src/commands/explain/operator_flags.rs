//! What the operator's flags say of what `explain` judges.

use k8s_openapi::api::apps::v1::Deployment;

use crate::commands::operator::{flag, has_switch};
use crate::token_request::propagation_delay;

/// The propagation delay that `run` has by default, in seconds.
pub(super) const DEFAULT_PROPAGATION_DELAY: u64 = 90;

/// Those that are not known are as by default.
#[derive(Clone, Copy, Debug)]
pub(super) struct OperatorFlags {
    /// How long a mounted file may lag behind the Secret where a spec does not say, in seconds.
    pub(super) propagation_delay: u64,
    /// Whether credentials must be released for use.
    pub(super) needs_label: bool,
}

impl Default for OperatorFlags {
    fn default() -> Self {
        OperatorFlags { propagation_delay: DEFAULT_PROPAGATION_DELAY, needs_label: false }
    }
}

impl OperatorFlags {
    pub(super) fn of(deployment: &Deployment) -> Self {
        let values = flag(deployment, "default-propagation-delay");
        let delay = values.last().and_then(|value| propagation_delay(value).ok());
        OperatorFlags {
            propagation_delay: delay.unwrap_or(DEFAULT_PROPAGATION_DELAY),
            needs_label: has_switch(deployment, "require-credentials-label"),
        }
    }
}
