//! The refresh schedule, the decision what to do next, and the back-off after failures. Pure.

mod api_server;
mod backoff;
mod cause;
mod damping;
mod decision;
mod issue_time;
mod schedule;

pub use api_server::{Awaiting, api_server_wait};
pub use backoff::{FailedAttempt, attempt_timeout, is_last_attempt, patience, wait};
pub use cause::{Caused, caused};
pub use damping::{Cause, Dampings};
pub use decision::{
    Blocked, Decision, Failure, MintReason, Observed, Pending, Tried, Wanted, decide, needed,
};
pub use issue_time::{DatedRecord, IssueTime, refresh_at};
pub use schedule::{
    DEFAULT_MAX_INTERVAL, MIN_REFRESH_INTERVAL, MIN_REQUEST_INTERVAL, PROMPT_DELAY, Policy,
    PropagationSafety, RETRY_ROOM, SKEW, cached_retry_after, spread,
};
