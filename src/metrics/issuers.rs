//! What is reported of ClusterTokenIssuers: replaced as a whole, and written at each scrape. There are few of them, and the
//! platform names them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;

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
    pub(super) issuers: Vec<ObservedIssuer>,
    /// By resource, for how long its watch has not been answered.
    pub(super) unread: Vec<(&'static str, Duration)>,
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
