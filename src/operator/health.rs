//! The checks of `/livez` and `/readyz`.

use std::sync::Arc;

use tokio::time::Instant;

use super::admin::{HealthCheck, Probe};
use super::liveness::Liveness;
use crate::controller::Context;

/// Live: this process makes progress. An API server or a token endpoint that is down does not count, nor does a wrong clock,
/// because a restart would not help. A process whose clock is implausible does not lead.
pub(super) fn live(liveness: Arc<Liveness>) -> Probe {
    Box::new(move || {
        let parts = liveness.parts(Instant::now());
        // Passes by being answered.
        let mut checks = vec![HealthCheck::passed("ping")];
        checks.extend(parts.into_iter().map(|(name, part)| HealthCheck::new(name, part)));
        checks
    })
}

/// Ready: all TokenSources and their Secrets are known, so this process could act at once. A standby is ready too.
pub(super) fn ready(context: Arc<Context>) -> Probe {
    Box::new(move || {
        let caches = context.is_warm().then_some(()).ok_or(NotReady::Caches);
        let stopping = context.leadership().is_stopping();
        vec![
            HealthCheck::new("caches", caches),
            HealthCheck::new("shutdown", (!stopping).then_some(()).ok_or(NotReady::Stopping)),
        ]
    })
}

#[derive(Debug, thiserror::Error)]
enum NotReady {
    #[error("not all TokenSources, or not the metadata of all Secrets, have been listed yet")]
    Caches,
    #[error("stopping")]
    Stopping,
}
