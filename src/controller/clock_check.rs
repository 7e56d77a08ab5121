//! Looks after the corrected clock: what it finds leads to reconciliations, metrics and log lines.

use std::time::Duration;

use tracing::{info, warn};

use super::context::Context;
use crate::clock::{Changes, NOTABLE_DIFFERENCE};

/// How often the clocks are compared. No timer of a TokenSource is late by more after the machine was suspended.
const CLOCK_CHECK: Duration = Duration::from_secs(10);
/// A shorter suspension is not reported, in seconds.
const MIN_SLEEP: u64 = 5;

/// Compares the clocks of this machine with each other and with the API server's. Never ends.
pub(super) async fn run(context: &Context) {
    let mut was_notable = false;
    loop {
        let (changes, is_open) = context.clock.check(CLOCK_CHECK);
        handle(context, changes);
        if is_open && let Err(error) = context.kubernetes.ask_for_the_time().await {
            warn!(%error, "wall clock and monotonic clock disagree, and the API server, which decides, does not answer");
        }
        let difference = context.clock.difference();
        context.metrics.clock_difference(difference);
        let seconds = difference.unwrap_or(0);
        let is_notable = seconds.unsigned_abs() >= NOTABLE_DIFFERENCE.as_secs().unsigned_abs();
        if is_notable && !was_notable {
            warn!(
                seconds,
                "the API server's clock differs from this node's: repair the time synchronization of the one that is wrong"
            );
        } else if was_notable && !is_notable {
            info!(seconds, "the API server's clock and this node's agree again");
        }
        was_notable = is_notable;
        tokio::select! {
            () = context.clock.changed() => {}
            () = tokio::time::sleep(CLOCK_CHECK) => {}
        }
    }
}

/// Where the wall clock was set, nothing follows: ages are known without it. Where time has passed that no timer counted,
/// every TokenSource is reconciled, those first whose tokens end first.
fn handle(context: &Context, changes: Changes) {
    let Changes { stepped, slept, corrected } = changes;
    if let Some(seconds) = stepped {
        context.metrics.clock_stepped();
        warn!(seconds, "the wall clock was set");
    }
    if slept >= MIN_SLEEP {
        context.metrics.clock_stepped();
        warn!(seconds = slept, "the machine was suspended: every TokenSource is reconciled");
    }
    if corrected != 0 {
        warn!(
            seconds = corrected,
            "the time was corrected, as the API server's clock shows it: every TokenSource is reconciled"
        );
    }
    context.mints.limiter().has_slept(slept);
    if slept > 0 || corrected != 0 {
        context.trigger_all();
    }
}
