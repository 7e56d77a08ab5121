//! The state of each TokenSource, in some hundred bytes, from which its series are computed when metrics are scraped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::lock::lock;
use crate::clock::Clock;
use crate::key::Key;
use tokensource_api::Reason;

/// The delay from which a reconciliation counts as overdue. Timers may be late on a busy machine.
const OVERDUE_AFTER: Duration = Duration::from_secs(60);

/// The state of a TokenSource after a reconciliation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObservedSource {
    /// Status and reason of the Ready condition.
    pub ready: (bool, Reason),
    /// The token in the target.
    pub token: Option<TokenTimes>,
    /// `spec.suspend`: no refresh is due.
    pub suspended: bool,
}

/// Refresh and expiry of a token, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenTimes {
    /// When the refresh is due.
    pub refresh_at: i64,
    /// When the token expires.
    pub expires_at: i64,
}

#[derive(Debug)]
struct TrackedSource {
    host: Arc<str>,
    /// The ClusterTokenIssuer whose endpoint that is: its host is not for those who read series of TokenSources.
    issuer: Option<Arc<str>>,
    /// `None` during the first reconciliation.
    observed: Option<ObservedSource>,
    /// Seconds without a valid token after there was one, up to `counted_at`.
    expired: i64,
    counted_at: i64,
    /// When the next reconciliation is due; `None` while one runs, and where only a change triggers one.
    reconcile_at: Option<Instant>,
}

/// All TokenSources with series.
#[derive(Debug, Default)]
pub(super) struct SourceTable(HashMap<Key, TrackedSource>);

impl SourceTable {
    pub(super) fn host(&self, source: &Key) -> Option<Arc<str>> {
        self.0.get(source).map(|source| Arc::clone(&source.host))
    }

    pub(super) fn names(&self) -> Vec<Key> {
        self.0.keys().cloned().collect()
    }

    pub(super) fn next_reconcile(&mut self, source: &Key, at: Option<Instant>) {
        if let Some(source) = self.0.get_mut(source) {
            source.reconcile_at = at;
        }
    }

    /// Adds a TokenSource, or changes its host.
    pub(super) fn set_host(&mut self, source: &Key, host: Arc<str>, now: Timestamp) {
        match self.0.get_mut(source) {
            Some(source) => source.host = host,
            None => {
                let counted_at = now.as_second();
                let new = TrackedSource {
                    host,
                    issuer: None,
                    observed: None,
                    expired: 0,
                    counted_at,
                    reconcile_at: None,
                };
                self.0.insert(source.clone(), new);
            }
        }
    }

    pub(super) fn set_issuer(&mut self, source: &Key, issuer: Option<&Arc<str>>) {
        if let Some(source) = self.0.get_mut(source) {
            source.issuer = issuer.cloned();
        }
    }

    pub(super) fn set_observed(&mut self, source: &Key, observed: ObservedSource, now: Timestamp) {
        if let Some(source) = self.0.get_mut(source) {
            let now = now.as_second();
            source.expired = source.expired_until(now);
            source.counted_at = now;
            source.observed = Some(observed);
        }
    }

    /// Removes a TokenSource. Returns its host.
    pub(super) fn forget(&mut self, source: &Key) -> Option<Arc<str>> {
        self.0.remove(source).map(|source| source.host)
    }
}

impl TrackedSource {
    fn expired_until(&self, now: i64) -> i64 {
        let observed = self.observed.filter(|observed| !observed.suspended);
        let Some(token) = observed.and_then(|observed| observed.token) else { return self.expired };
        self.expired + now.saturating_sub(token.expires_at.max(self.counted_at)).max(0)
    }

    /// The Ready condition, with Expired from the expiry on: the condition itself is written a moment later.
    fn ready(&self, now: i64) -> Option<(bool, Reason)> {
        let observed = self.observed?;
        let has_ended = observed.token.is_some_and(|token| token.expires_at <= now);
        Some(if observed.ready.0 && has_ended { (false, Reason::Expired) } else { observed.ready })
    }

    /// The part of the time from the due refresh to the expiry that has passed; above 1 after the expiry.
    fn lateness(&self, now: i64) -> Option<f64> {
        let observed = self.observed?;
        let token = observed.token?;
        let late = if observed.suspended { 0 } else { now.saturating_sub(token.refresh_at).max(0) };
        let room = token.expires_at.saturating_sub(token.refresh_at).max(1);
        #[expect(clippy::cast_precision_loss, reason = "seconds")]
        Some(late as f64 / room as f64)
    }
}

/// Encodes one series of all TokenSources at a time, in seconds since 1970.
type Encode = fn(&SourceTable, DescriptorEncoder<'_>, i64) -> Result<(), std::fmt::Error>;

/// Computes one series at each scrape.
#[derive(Debug)]
pub(super) struct SourceCollector {
    sources: Arc<Mutex<SourceTable>>,
    clock: Arc<Clock>,
    encode: Encode,
}

impl Collector for SourceCollector {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let now = self.clock.now().as_second();
        (self.encode)(&lock(&self.sources), encoder, now)
    }
}

/// The collectors of all series.
pub(super) fn collectors(
    sources: &Arc<Mutex<SourceTable>>,
    clock: &Arc<Clock>,
) -> impl Iterator<Item = SourceCollector> {
    let all: [Encode; 5] = [
        SourceTable::encode_expiry,
        SourceTable::encode_lateness,
        SourceTable::encode_expired,
        SourceTable::encode_ready,
        SourceTable::encode_overdue,
    ];
    let (sources, clock) = (Arc::clone(sources), Arc::clone(clock));
    all.into_iter().map(move |encode| SourceCollector {
        sources: Arc::clone(&sources),
        clock: Arc::clone(&clock),
        encode,
    })
}

impl SourceTable {
    fn encode_expiry(&self, mut encoder: DescriptorEncoder<'_>, _: i64) -> Result<(), std::fmt::Error> {
        let mut family = encoder.encode_descriptor(
            "tokensource_token_expiry_timestamp_seconds",
            "When the token in the target expires, in seconds since 1970",
            None,
            MetricType::Gauge,
        )?;
        self.each(|labels, source| match source.observed.and_then(|observed| observed.token) {
            Some(token) => family.encode_family(&labels)?.encode_gauge(&token.expires_at),
            None => Ok(()),
        })
    }

    fn encode_lateness(&self, mut encoder: DescriptorEncoder<'_>, now: i64) -> Result<(), std::fmt::Error> {
        let mut family = encoder.encode_descriptor(
            "tokensource_refresh_lateness_ratio",
            "How late the refresh is, as a part of the time from when it was due to the expiry of the token: 0 while it is not due, 1 and more after the expiry",
            None,
            MetricType::Gauge,
        )?;
        self.each(|labels, source| match source.lateness(now) {
            Some(lateness) => family.encode_family(&labels)?.encode_gauge(&lateness),
            None => Ok(()),
        })
    }

    fn encode_expired(&self, mut encoder: DescriptorEncoder<'_>, now: i64) -> Result<(), std::fmt::Error> {
        let mut family = encoder.encode_descriptor(
            "tokensource_token_expired_seconds",
            "For how long the target held an expired token while this process was running and the TokenSource was not suspended",
            None,
            MetricType::Counter,
        )?;
        self.each(|labels, source| {
            if source.observed.is_none() {
                return Ok(());
            }
            let seconds = source.expired_until(now).unsigned_abs();
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&seconds, None)
        })
    }

    fn encode_ready(&self, mut encoder: DescriptorEncoder<'_>, now: i64) -> Result<(), std::fmt::Error> {
        let mut family = encoder.encode_descriptor(
            "tokensource_ready",
            "Whether the target holds a token that is valid now and was requested for the present spec, with the reason of the Ready condition",
            None,
            MetricType::Gauge,
        )?;
        self.each(|[namespace, name, host], source| {
            let Some((ready, reason)) = source.ready(now) else { return Ok(()) };
            let labels = [namespace, name, host, ("reason", reason.as_str())];
            family.encode_family(&labels)?.encode_gauge(&i64::from(ready))
        })
    }

    fn encode_overdue(&self, mut encoder: DescriptorEncoder<'_>, _: i64) -> Result<(), std::fmt::Error> {
        let overdue = self
            .0
            .values()
            .filter(|source| source.reconcile_at.is_some_and(|at| at.elapsed() > OVERDUE_AFTER));
        let overdue = i64::try_from(overdue.count()).unwrap_or(i64::MAX);
        encoder
            .encode_descriptor(
                "tokensource_reconcile_overdue",
                "TokenSources whose reconciliation is overdue by more than a minute: always 0 while the operator makes progress",
                None,
                MetricType::Gauge,
            )?
            .encode_gauge(&overdue)
    }

    fn each(
        &self,
        mut write: impl FnMut([(&'static str, &str); 3], &TrackedSource) -> Result<(), std::fmt::Error>,
    ) -> Result<(), std::fmt::Error> {
        self.0.iter().try_for_each(|(key, source)| {
            // No host has a slash.
            let lent = source.issuer.as_ref().map(|issuer| format!("issuer/{issuer}"));
            let host = lent.as_deref().unwrap_or(&source.host);
            let labels = [("source_namespace", &*key.namespace), ("name", &*key.name), ("host", host)];
            write(labels, source)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(refresh_at: i64, expires_at: i64, suspended: bool) -> TrackedSource {
        let token = Some(TokenTimes { refresh_at, expires_at });
        let observed = Some(ObservedSource { ready: (true, Reason::TokenValid), token, suspended });
        TrackedSource {
            host: "h".into(),
            issuer: None,
            observed,
            expired: 0,
            counted_at: 0,
            reconcile_at: None,
        }
    }

    #[test]
    fn lateness_is_a_part_of_the_time_between_refresh_and_expiry() {
        for (now, expected) in [(50, 0.0), (100, 0.0), (150, 0.25), (300, 1.0), (500, 2.0)] {
            assert_eq!(source(100, 300, false).lateness(now), Some(expected), "{now}");
        }
        assert_eq!(source(100, 300, true).lateness(500), Some(0.0), "suspended: none is due");
        assert_eq!(source(300, 300, false).lateness(302), Some(2.0), "no time in between");
    }

    #[test]
    fn ready_is_false_from_the_expiry_of_the_token_on() {
        let source = source(100, 300, false);
        assert_eq!(source.ready(299), Some((true, Reason::TokenValid)));
        assert_eq!(source.ready(300), Some((false, Reason::Expired)));
    }

    #[test]
    fn expired_seconds_add_up_over_several_tokens() {
        let key = Key::new("ns", "name");
        let mut sources = SourceTable::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        let token = |refresh_at, expires_at| source(refresh_at, expires_at, false).observed.unwrap();
        sources.set_host(&key, "h".into(), at(0));
        let expired = |sources: &SourceTable, now| sources.0[&key].expired_until(now);
        sources.set_observed(&key, token(100, 300), at(0));
        assert_eq!((expired(&sources, 300), expired(&sources, 310)), (0, 10));
        sources.set_observed(&key, token(100, 300), at(320));
        assert_eq!(expired(&sources, 330), 30);
        sources.set_observed(&key, token(400, 500), at(340));
        assert_eq!((expired(&sources, 450), expired(&sources, 505)), (40, 45));
        sources.set_observed(&key, source(400, 500, true).observed.unwrap(), at(510));
        assert_eq!(expired(&sources, 600), 50, "suspended since 510");
    }
}
