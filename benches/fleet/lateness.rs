//! By how much refreshes come after they were due.

use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use tokensource_api::TokenSource;

/// The seconds of each refresh, in order.
pub struct Lateness(Vec<i64>);

impl Lateness {
    /// Watches TokenSources for some time: status says when a token was issued, and when its refresh was due.
    pub async fn observe(sources: Api<TokenSource>, time: Duration) -> Self {
        let mut events = pin!(watcher(sources, watcher::Config::default()));
        let (until, mut late) = (tokio::time::Instant::now() + time, vec![]);
        let mut due: HashMap<(Option<String>, String), (i64, i64)> = HashMap::new();
        while let Ok(Some(event)) = tokio::time::timeout_at(until, events.next()).await {
            let (watcher::Event::Apply(source) | watcher::Event::InitApply(source)) = event.unwrap() else {
                continue;
            };
            let key = (source.namespace(), source.name_any());
            let Some(token) = source.status.and_then(|status| status.token) else { continue };
            let times = (token.issued_at.as_second(), token.refresh_at.as_second());
            let before = due.insert(key, times);
            if let Some((issued_at, refresh_at)) = before.filter(|(issued_at, _)| *issued_at < times.0) {
                debug_assert!(issued_at < refresh_at);
                late.push((times.0 - refresh_at).max(0));
            }
        }
        late.sort_unstable();
        Lateness(late)
    }

    /// The seconds that so many percent of the refreshes do not exceed.
    pub fn at(&self, percent: usize) -> i64 {
        self.0.get(self.0.len() * percent / 100).or(self.0.last()).copied().unwrap_or(i64::MAX)
    }
}

impl fmt::Display for Lateness {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (half, most, all) = (self.at(50), self.at(99), self.at(100));
        write!(out, "{} refreshes, late by {half} s (50 %), {most} s (99 %), {all} s at most", self.0.len())
    }
}
