//! What `/livez` and `/readyz` tell.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use super::admin::{Check, Probe};
use crate::controller::Context;

/// 2026-01-01: no clock is right that says it is earlier, because this program was not written yet.
const EARLIEST: i64 = 1_767_225_600;
/// 2100-01-01.
const LATEST: i64 = 4_102_444_800;

/// Live: this process makes progress, and has a clock. An API server or a token endpoint that is down does not count,
/// because a restart would not help.
pub(super) fn live(context: Arc<Context>) -> Probe {
    Box::new(move || {
        let now = Instant::now();
        let heartbeats = context.heartbeats();
        vec![
            // That this is answered at all.
            Check { name: "ping", result: Ok(()) },
            Check { name: "loop", result: heartbeats.loops(now) },
            Check { name: "watches", result: heartbeats.watches(now) },
            Check { name: "looks", result: heartbeats.looks(now) },
            Check { name: "clock", result: clock(Timestamp::now()) },
        ]
    })
}

/// Ready: it knows all TokenSources and their Secrets, and so could act at once. A standby is ready too.
pub(super) fn ready(context: Arc<Context>) -> Probe {
    Box::new(move || {
        let unknown =
            "not all TokenSources, or not the metadata of all Secrets, have been listed yet".to_owned();
        let stopping = context.leadership().is_stopping();
        vec![
            Check { name: "caches", result: context.is_warm().then_some(()).ok_or(unknown) },
            Check { name: "shutdown", result: (!stopping).then_some(()).ok_or("stopping".to_owned()) },
        ]
    })
}

/// Whether a clock can be right.
fn clock(now: Timestamp) -> Result<(), String> {
    if (EARLIEST..LATEST).contains(&now.as_second()) {
        return Ok(());
    }
    Err(format!("it cannot be {now}: the node's clock is wrong, and so would be every expiry"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_cannot_be_right_is_seen() {
        for (time, sane) in [
            ("1970-01-01T00:10:00Z", false),
            ("2025-12-31T23:59:59Z", false),
            ("2026-01-01T00:00:00Z", true),
            ("2099-12-31T23:59:59Z", true),
            ("2100-01-01T00:00:00Z", false),
        ] {
            assert_eq!(clock(time.parse().unwrap()).is_ok(), sane, "{time}");
        }
    }
}
