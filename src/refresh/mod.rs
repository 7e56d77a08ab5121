//! When to refresh, what to do now, and how long to wait after a failure. Pure.

mod backoff;
mod decision;
mod schedule;

pub use backoff::{Failed, attempt_timeout, wait};
pub use decision::{Blocked, Decision, Failure, Observed, Pending, Tried, Wanted, Why, decide, refresh_at};
pub use schedule::{
    DEFAULT_MAX_INTERVAL, FLOOR, LEAST_INTERVAL, PROMPT_DELAY, Policy, Propagation, RETRY_ROOM, SKEW,
    cached_retry_after, spread,
};
