//! Ready turns False at the moment at which the token ends, also while a pass waits for an endpoint.

use jiff::Timestamp;
use tracing::debug;

use super::Context;
use super::memory::Written;
use super::reconcile::{Ending, Pass, timer};
use super::report;
use super::stop::Stop;
use crate::spec::Identity;
use crate::status::Reported;
use crate::time::plus;
use tokensource_api::{TokenSource, TokenSourceStatus};

/// Longer than a pass takes, in seconds: tokens that end later are not watched.
const LONGEST_PASS: u64 = 5 * 60;

/// What will be so when the token ends, should the pass not have ended before.
struct Expiry<'a> {
    context: &'a Context,
    source: &'a TokenSource,
    identity: &'a Identity,
    at: Timestamp,
    before: Reported,
    after: TokenSourceStatus,
}

/// Runs a pass, and tells people when their token ends meanwhile.
pub(super) async fn run(pass: &mut Pass<'_>) -> Result<Ending, Stop> {
    let Some(expiry) = Expiry::of(pass) else { return pass.run().await };
    let (told, ended) = {
        let mut running = Box::pin(pass.run());
        tokio::select! {
            biased;
            ended = &mut running => return ended,
            () = tokio::time::sleep(timer(expiry.at)) => {}
        }
        // Both: what is begun here must not arrive after the report of the pass.
        tokio::join!(Box::pin(expiry.tell()), running)
    };
    if told.is_some() {
        pass.memory.reported = told.map(Box::new);
    }
    ended
}

impl<'a> Expiry<'a> {
    /// Boxed: many passes may wait at once, and hardly any token ends meanwhile.
    fn of(pass: &mut Pass<'a>) -> Option<Box<Self>> {
        let now = pass.context.now();
        let expires_at = pass.record()?.expires_at;
        if expires_at > plus(now, LONGEST_PASS) {
            return None;
        }
        let before = report::before(pass.source, pass.reported, pass.memory);
        if before.ready().is_none_or(|(ready, _)| !ready) {
            return None;
        }
        let at = expires_at.max(now);
        Some(Box::new(Expiry {
            context: pass.context,
            source: pass.source,
            identity: pass.identity,
            at,
            after: report::situation(pass, at, pass.failing(), &before),
            before,
        }))
    }

    async fn tell(self: Box<Self>) -> Option<Written> {
        let Expiry { context, source, identity, before, after, .. } = *self;
        match report::write(context, source, identity, &before, after).await {
            Ok(reported) => reported,
            Err(error) => {
                debug!(source = %identity.key, %error, "the end of the token could not be told");
                None
            }
        }
    }
}
