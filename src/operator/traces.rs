//! Traces: exports spans over OTLP to the collector of the standard environment variables, if they are set.

use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::SdkTracerProvider;
use tokio::runtime::Handle;
use tracing::{Subscriber, info, warn};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;
use url::Url;

use crate::cluster::AGENT;
use crate::controller::SPANS;

const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const TRACES_ENDPOINT: &str = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
const SERVICE: &str = "tokensource-operator";
/// How long the process waits for the last export when it stops.
const LAST_EXPORT_TIMEOUT: Duration = Duration::from_secs(3);
/// The most bytes of a response of the collector.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// Traces cannot be exported, though the environment enables them. Contains no value of a variable, because it may be a
/// credential.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum TracesError {
    /// The value of a variable is invalid or not supported.
    #[error("{0} {1}")]
    Variable(&'static str, &'static str),
    /// The exporter cannot be built.
    #[error("{0}")]
    Exporter(String),
}

/// The settings that the libraries do not read from the environment themselves. They read headers, resource attributes,
/// sampler and batches.
#[derive(Debug, PartialEq, Eq)]
struct TraceSettings {
    endpoint: Url,
    timeout: Duration,
    /// `OTEL_SERVICE_NAME`.
    service: Option<String>,
}

impl TraceSettings {
    /// `None` where traces are not enabled.
    fn of(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, TracesError> {
        let read = |name: &'static str| {
            let value = variable(name)?;
            let value = value.trim();
            (!value.is_empty()).then(|| (name, value.to_owned()))
        };
        let is_set_to =
            |name, word: &str| read(name).is_some_and(|(_, value)| value.eq_ignore_ascii_case(word));
        let either = |first, second| read(first).or_else(|| read(second));
        if is_set_to("OTEL_SDK_DISABLED", "true") || is_set_to("OTEL_TRACES_EXPORTER", "none") {
            return Ok(None);
        }
        let Some((name, value)) = either(TRACES_ENDPOINT, ENDPOINT) else { return Ok(None) };
        let endpoint = endpoint(name, &value)?;

        if let Some((name, value)) =
            either("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
            && value != "http/protobuf"
        {
            return Err(TracesError::Variable(
                name,
                "must be http/protobuf, which is all that this program speaks",
            ));
        }
        if let Some((name, value)) =
            either("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION")
            && value != "none"
        {
            return Err(TracesError::Variable(name, "must be none: this program does not compress"));
        }
        let timeout = match either("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT") {
            None => 10_000,
            Some((name, value)) => {
                value.parse().map_err(|_| TracesError::Variable(name, "must be a number of milliseconds"))?
            }
        };
        check_sampler(read("OTEL_TRACES_SAMPLER"), read("OTEL_TRACES_SAMPLER_ARG"))?;
        Ok(Some(Self {
            endpoint,
            timeout: Duration::from_millis(timeout),
            service: read("OTEL_SERVICE_NAME").map(|(_, value)| value),
        }))
    }
}

/// The URL to which traces are sent. The general endpoint is a base URL, the one for traces is used unchanged.
fn endpoint(name: &'static str, value: &str) -> Result<Url, TracesError> {
    let unusable = TracesError::Variable(name, "must be a URL that begins with http:// or https://");
    let Ok(mut url) = Url::parse(value) else { return Err(unusable) };
    if !matches!(url.scheme(), "http" | "https") {
        return Err(unusable);
    }
    if name == ENDPOINT {
        url.set_path(&format!("{}/v1/traces", url.path().trim_end_matches('/')));
    }
    Ok(url)
}

/// Refuses samplers that the library does not know: it would use another one silently.
fn check_sampler(
    sampler: Option<(&'static str, String)>,
    argument: Option<(&'static str, String)>,
) -> Result<(), TracesError> {
    let Some((name, sampler)) = sampler else { return Ok(()) };
    let sampler = sampler.strip_prefix("parentbased_").unwrap_or(&sampler);
    let ratio = argument.and_then(|(_, value)| value.parse::<f64>().ok());
    match sampler {
        "always_on" | "always_off" => Ok(()),
        "traceidratio" if ratio.is_some_and(|ratio| (0.0..=1.0).contains(&ratio)) => Ok(()),
        "traceidratio" => {
            Err(TracesError::Variable("OTEL_TRACES_SAMPLER_ARG", "must be a number from 0 to 1"))
        }
        _ => Err(TracesError::Variable(
            name,
            "must be always_on, always_off or traceidratio, or one of them after parentbased_",
        )),
    }
}

/// The export of spans.
pub(super) struct Traces(SdkTracerProvider);

impl Traces {
    /// `None` where traces are not enabled: then no span is created.
    pub(super) fn of_environment() -> Result<Option<Self>, TracesError> {
        let settings = TraceSettings::of(|name| std::env::var(name).ok())?;
        settings.map(|settings| Self::new(&settings)).transpose()
    }

    fn new(settings: &TraceSettings) -> Result<Self, TracesError> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(settings.endpoint.as_str())
            .with_timeout(settings.timeout)
            .with_http_client(
                CollectorClient::new(settings.timeout)
                    .map_err(|error| TracesError::Exporter(innermost(&error)))?,
            )
            .build()
            .map_err(|error| TracesError::Exporter(error.to_string()))?;
        // Later attributes replace earlier ones.
        let resource = Resource::builder_empty()
            .with_attributes([
                KeyValue::new("service.name", SERVICE),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            ])
            .with_detectors(&[Box::new(TelemetryResourceDetector), Box::new(EnvResourceDetector::new())]);
        let resource = match &settings.service {
            Some(name) => resource.with_service_name(name.clone()),
            None => resource,
        };
        Ok(Self(
            SdkTracerProvider::builder()
                .with_batch_exporter(exporter)
                .with_resource(resource.build())
                .build(),
        ))
    }

    /// The layer that exports the controller's spans. Events are only logged.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer(SERVICE))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_level(false)
            .with_tracked_inactivity(false)
            .with_filter(Targets::new().with_target(SPANS, LevelFilter::INFO))
    }

    /// Exports the remaining spans, within [`LAST_EXPORT_TIMEOUT`].
    pub(super) async fn end(self) {
        let ended =
            tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(LAST_EXPORT_TIMEOUT)).await;
        if !matches!(ended, Ok(Ok(()))) {
            warn!("the last traces may be lost");
        }
    }
}

/// The HTTP client for the collector. Proxies and the egress policy do not apply: they are for token endpoints.
#[derive(Debug)]
struct CollectorClient {
    client: reqwest::Client,
    /// The libraries export on a thread without a runtime.
    runtime: Handle,
    failing: Arc<AtomicBool>,
}

impl CollectorClient {
    fn new(timeout: Duration) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .user_agent(AGENT)
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .http1_only()
            .timeout(timeout)
            .build()?;
        Ok(Self { client, runtime: Handle::current(), failing: Arc::default() })
    }

    /// Logs the first failure, and the first success after it.
    fn log_outcome(&self, problem: Option<&str>) {
        let failed = self.failing.swap(problem.is_some(), Ordering::Relaxed);
        match problem {
            Some(problem) if !failed => warn!(problem, "traces cannot be exported"),
            None if failed => info!("traces are exported again"),
            _ => {}
        }
    }
}

#[async_trait]
impl HttpClient for CollectorClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let exchange = self.runtime.spawn(exchange(self.client.clone(), request));
        let response = exchange.await.map_err(HttpError::from).and_then(|response| response);
        match &response {
            Ok(response) if response.status().is_success() => self.log_outcome(None),
            Ok(response) => self.log_outcome(Some(response.status().as_str())),
            Err(error) => self.log_outcome(Some(&innermost(&**error))),
        }
        response
    }
}

async fn exchange(client: reqwest::Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let request = reqwest::Request::try_from(request).map_err(reqwest::Error::without_url)?;
    let mut response = client.execute(request).await.map_err(reqwest::Error::without_url)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
        if body.len() + chunk.len() > MAX_RESPONSE_BYTES {
            return Err("the collector's response is too long".into());
        }
        body.extend_from_slice(&chunk);
    }
    let mut whole = Response::new(Bytes::from(body));
    *whole.status_mut() = response.status();
    *whole.headers_mut() = std::mem::take(response.headers_mut());
    Ok(whole)
}

/// The text of the innermost error. The outer ones are not specific.
fn innermost(error: &(dyn StdError + 'static)) -> String {
    std::iter::successors(Some(error), |&error| error.source())
        .last()
        .map(ToString::to_string)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Option<TraceSettings>, TracesError> {
        TraceSettings::of(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    const COLLECTOR: (&str, &str) = (ENDPOINT, "http://collector:4318");

    #[test]
    fn trace_settings_without_an_endpoint_or_disabled_are_none() {
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[(ENDPOINT, " ")]), Ok(None));
        assert_eq!(of(&[COLLECTOR, ("OTEL_SDK_DISABLED", "True")]), Ok(None));
        assert_eq!(of(&[COLLECTOR, ("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
        assert_eq!(of(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]), Ok(None));
    }

    #[test]
    fn trace_settings_endpoint_is_a_base_url_or_that_of_traces() {
        let to = |variables: &[_]| of(variables).unwrap().unwrap().endpoint.to_string();
        assert_eq!(to(&[COLLECTOR]), "http://collector:4318/v1/traces");
        assert_eq!(to(&[(ENDPOINT, "https://c.example/otlp/")]), "https://c.example/otlp/v1/traces");
        assert_eq!(to(&[COLLECTOR, (TRACES_ENDPOINT, "http://other:1/here")]), "http://other:1/here");
        let settings = of(&[COLLECTOR]).unwrap().unwrap();
        assert_eq!((settings.timeout, settings.service), (Duration::from_secs(10), None));
        let named = of(&[COLLECTOR, ("OTEL_SERVICE_NAME", "ours"), ("OTEL_EXPORTER_OTLP_TIMEOUT", "250")]);
        let named = named.unwrap().unwrap();
        assert_eq!((named.timeout, named.service.as_deref()), (Duration::from_millis(250), Some("ours")));
    }

    #[test]
    fn trace_settings_errors_name_the_variable_and_no_value() {
        for (name, value) in [
            (ENDPOINT, "user:secret@collector"),
            (TRACES_ENDPOINT, "grpc://user:secret@collector"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "secret"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "secret"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "secret"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "secret"),
            ("OTEL_TRACES_SAMPLER", "secret"),
        ] {
            let error = of(&[(name, value), COLLECTOR]).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name} must be ")), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
        let sampler = |argument| {
            let sampler = ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
            of(&[COLLECTOR, sampler, ("OTEL_TRACES_SAMPLER_ARG", argument)]).map(|_| ())
        };
        assert_eq!(sampler("0.1"), Ok(()));
        assert!(sampler("2").unwrap_err().to_string().starts_with("OTEL_TRACES_SAMPLER_ARG must be "));
    }
}
