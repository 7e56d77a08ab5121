//! What is reported of ClusterTokenIssuers: replaced as a whole, and written at each scrape. There are few of them, and the
//! platform names them. Only token requests are counted when they end.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::families::expected_results;
use super::lock::lock;

/// A ClusterTokenIssuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedIssuer {
    /// Its name.
    pub name: Arc<str>,
    /// Ready, where it is True or False, with the reason.
    pub ready: Option<(bool, String)>,
    /// The TokenSources that name it.
    pub sources: i64,
}

/// What is known of issuers.
#[derive(Debug, Default)]
pub(super) struct ReportedIssuers {
    issuers: Vec<ObservedIssuer>,
    /// By issuer and result, the token requests.
    requests: HashMap<Arc<str>, HashMap<&'static str, u64>>,
    /// By resource, for how long its watch has not been answered.
    pub(super) unread: Vec<(&'static str, Duration)>,
}

impl ReportedIssuers {
    /// Those that there are now. What was counted of others is dropped.
    pub(super) fn set(&mut self, issuers: Vec<ObservedIssuer>) {
        let names: BTreeSet<_> = issuers.iter().map(|issuer| Arc::clone(&issuer.name)).collect();
        self.requests.retain(|name, _| names.contains(name));
        for name in names {
            // Prometheus does not see an increase where a series starts at 1.
            let results = self.requests.entry(name).or_default();
            for result in expected_results() {
                results.entry(result).or_default();
            }
        }
        self.issuers = issuers;
    }

    /// Counts a token request. An issuer that has not been reported yet is by the next report.
    pub(super) fn requested(&mut self, issuer: &Arc<str>, result: &'static str) {
        *self.requests.entry(Arc::clone(issuer)).or_default().entry(result).or_default() += 1;
    }
}

#[derive(Debug)]
pub(super) struct IssuerCollector(pub(super) Arc<Mutex<ReportedIssuers>>);

impl Collector for IssuerCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let table = lock(&self.0);
        let mut family = encoder.encode_descriptor(
            "tokensource_issuer_ready",
            "Whether a ClusterTokenIssuer is Ready, with the reason; absent where that is unknown",
            None,
            MetricType::Gauge,
        )?;
        for issuer in &table.issuers {
            if let Some((ready, reason)) = &issuer.ready {
                let labels = [("issuer", &*issuer.name), ("reason", reason)];
                family.encode_family(&labels)?.encode_gauge(&i64::from(*ready))?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "tokensource_issuer_sources",
            "TokenSources that name a ClusterTokenIssuer which serves their namespace",
            None,
            MetricType::Gauge,
        )?;
        for issuer in &table.issuers {
            family.encode_family(&[("issuer", &*issuer.name)])?.encode_gauge(&issuer.sources)?;
        }
        let mut family = encoder.encode_descriptor(
            "tokensource_issuer_token_requests",
            "Token requests through a ClusterTokenIssuer, by their result",
            None,
            MetricType::Counter,
        )?;
        for (issuer, results) in &table.requests {
            for (result, count) in results {
                let labels = [("issuer", &**issuer), ("result", result)];
                family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "tokensource_issuers_unread_seconds",
            "For how long the watch of ClusterTokenIssuers, or of the namespaces that they select, has not been answered",
            None,
            MetricType::Gauge,
        )?;
        for (resource, unread) in &table.unread {
            family.encode_family(&[("resource", *resource)])?.encode_gauge(&unread.as_secs_f64())?;
        }
        Ok(())
    }
}
