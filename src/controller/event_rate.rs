//! Which events are published. They stay in the API server's storage for an hour, and a tenant can cause one with each change of
//! a TokenSource. What is left out is in the status.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tenant_shares::has_share;
use tokio::time::Instant;

/// The events of a second: more than there are first tokens of one endpoint with its default limit, also for one namespace.
const PER_SECOND: usize = 200;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct EventRate(Mutex<Second>);

#[derive(Debug, Default)]
struct Second {
    begun: Option<Instant>,
    count: usize,
    namespaces: HashMap<Arc<str>, usize>,
}

impl EventRate {
    /// Whether an event of a namespace is published now.
    pub(super) fn admits(&self, namespace: &Arc<str>, now: Instant) -> bool {
        let mut second = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if second.begun.is_none_or(|begun| now.saturating_duration_since(begun) >= Duration::from_secs(1)) {
            *second = Second { begun: Some(now), ..Second::default() };
        }
        let has = second.namespaces.get(namespace).copied().unwrap_or_default();
        let is_admitted = has_share(has, PER_SECOND.saturating_sub(second.count));
        if is_admitted {
            second.count += 1;
            *second.namespaces.entry(Arc::clone(namespace)).or_default() += 1;
        }
        is_admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn event_rate_of_a_namespace_leaves_room_for_others() {
        let (rate, start) = (EventRate::default(), Instant::now());
        let admitted = |namespace: &str, count: usize, after: u64| {
            let now = start + Duration::from_millis(after);
            (0..count).filter(|_| rate.admits(&namespace.into(), now)).count()
        };
        assert_eq!(admitted("crowd", 10_000, 0), 160);
        assert_eq!(admitted("honest", 20, 500), 20);
        assert_eq!(admitted("crowd", 10_000, 999), 0);
        assert_eq!(admitted("crowd", 10_000, 1000), 160);
        assert!(rate.0.lock().unwrap().namespaces.len() == 1, "nothing is kept of the second before");
    }
}
