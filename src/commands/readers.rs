//! Which token a container reads, as far as it follows from the times.

use jiff::Timestamp;

use crate::cluster::{CallError, Kubernetes};
use crate::secret::{Pod, Use, UseKind};
use crate::time::{plus, seconds_between};

/// The token that the target holds.
#[derive(Clone, Debug)]
pub(crate) struct HeldToken {
    pub(crate) id: String,
    pub(crate) issued_at: Timestamp,
    pub(crate) expires_at: Timestamp,
}

/// What a container has of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reads {
    /// The pod does not run yet.
    NotRunning,
    /// It has had the token since the container's start.
    SinceStart(Timestamp),
    /// The pod was annotated, so that its files have it.
    SinceAnnotation(Timestamp),
    /// Its files have had the token from this time on, at the latest.
    Since(Timestamp),
    /// Its files may have the token before it until this time.
    From(Timestamp),
    /// It has this token from its start, and will get no other.
    FixedAtThis(Timestamp),
    /// It has an earlier token from its start, which ends at this time or has ended.
    FixedAtEarlier { started_at: Timestamp, ends_at: Timestamp },
    /// It has a token from its start, which is not known.
    Fixed,
}

impl Reads {
    /// What a container has of `token`; a mounted file lags behind the Secret by at most `delay` seconds.
    pub(crate) fn of(now: Timestamp, token: &HeldToken, delay: u64, pod: &Pod, used: Use<'_>) -> Self {
        if pod.phase() != "Running" {
            return Reads::NotRunning;
        }
        let started = pod.started_at(used.container);
        let since_start = started.filter(|started| *started >= token.issued_at);
        if used.way == UseKind::Folder {
            let annotated = pod.refreshed_at().filter(|at| *at >= token.issued_at);
            let arrives = plus(token.issued_at, delay);
            return match (since_start, annotated) {
                (Some(started), _) => Reads::SinceStart(started),
                (None, Some(at)) => Reads::SinceAnnotation(at),
                (None, None) if arrives <= now => Reads::Since(arrives),
                (None, None) => Reads::From(arrives),
            };
        }
        match (started, since_start) {
            (None, _) => Reads::Fixed,
            (_, Some(started_at)) => Reads::FixedAtThis(started_at),
            (Some(started_at), None) => {
                let lifetime = seconds_between(token.issued_at, token.expires_at);
                Reads::FixedAtEarlier { started_at, ends_at: plus(started_at, lifetime) }
            }
        }
    }
}

/// The pods of a namespace that have not ended, as far as `keep` keeps them. Reads page by page.
pub(crate) async fn pods_of(
    kubernetes: &Kubernetes,
    namespace: &str,
    keep: impl Fn(&Pod) -> bool + Send + Sync,
) -> Result<Vec<Pod>, CallError> {
    const NOT_ENDED: &str = "status.phase!=Succeeded,status.phase!=Failed";
    let (mut found, mut next) = (vec![], None);
    loop {
        let each = |pod: Pod| found.extend(Some(pod).filter(&keep));
        next = kubernetes.pods(namespace, NOT_ENDED, next.as_deref(), each).await?;
        if next.is_none() {
            return Ok(found);
        }
    }
}
