//! Traces: spans go to the platform's collector over OTLP, if the standard environment variables say where it is.

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
/// The longest that the end of the process waits for the last spans.
const LAST_EXPORT: Duration = Duration::from_secs(3);
/// The longest answer of a collector that is read, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Why no traces are exported, though the environment asks for it. Values are not told: they may hold credentials.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unusable {
    /// A variable says what cannot be done.
    #[error("{0} {1}")]
    Variable(&'static str, &'static str),
    /// The exporter cannot be built.
    #[error("{0}")]
    Exporter(String),
}

/// What the environment says, as far as the libraries do not read it themselves: they read headers, resource attributes,
/// sampler and batches.
#[derive(Debug, PartialEq, Eq)]
struct Settings {
    endpoint: Url,
    timeout: Duration,
    /// If it is given a name.
    service: Option<String>,
}

impl Settings {
    /// `None` where nobody asks for traces.
    fn of(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, Unusable> {
        let read = |name: &'static str| {
            let value = variable(name)?;
            let value = value.trim();
            (!value.is_empty()).then(|| (name, value.to_owned()))
        };
        let says = |name, word: &str| read(name).is_some_and(|(_, value)| value.eq_ignore_ascii_case(word));
        let either = |first, second| read(first).or_else(|| read(second));
        if says("OTEL_SDK_DISABLED", "true") || says("OTEL_TRACES_EXPORTER", "none") {
            return Ok(None);
        }
        let Some((name, value)) = either(TRACES_ENDPOINT, ENDPOINT) else { return Ok(None) };
        let endpoint = endpoint(name, &value)?;

        if let Some((name, value)) =
            either("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
            && value != "http/protobuf"
        {
            return Err(Unusable::Variable(
                name,
                "must be http/protobuf, which is all that this program speaks",
            ));
        }
        if let Some((name, value)) =
            either("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION")
            && value != "none"
        {
            return Err(Unusable::Variable(name, "must be none: this program does not compress"));
        }
        let timeout = match either("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT") {
            None => 10_000,
            Some((name, value)) => {
                value.parse().map_err(|_| Unusable::Variable(name, "must be a number of milliseconds"))?
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

/// Where traces are sent. The general endpoint is a base, the one for traces is used as it is.
fn endpoint(name: &'static str, value: &str) -> Result<Url, Unusable> {
    let unusable = Unusable::Variable(name, "must be a URL that begins with http:// or https://");
    let Ok(mut url) = Url::parse(value) else { return Err(unusable) };
    if !matches!(url.scheme(), "http" | "https") {
        return Err(unusable);
    }
    if name == ENDPOINT {
        url.set_path(&format!("{}/v1/traces", url.path().trim_end_matches('/')));
    }
    Ok(url)
}

/// The library takes another sampler in silence where it does not understand these.
fn check_sampler(
    sampler: Option<(&'static str, String)>,
    argument: Option<(&'static str, String)>,
) -> Result<(), Unusable> {
    let Some((name, sampler)) = sampler else { return Ok(()) };
    let sampler = sampler.strip_prefix("parentbased_").unwrap_or(&sampler);
    let ratio = argument.and_then(|(_, value)| value.parse::<f64>().ok());
    match sampler {
        "always_on" | "always_off" => Ok(()),
        "traceidratio" if ratio.is_some_and(|ratio| (0.0..=1.0).contains(&ratio)) => Ok(()),
        "traceidratio" => Err(Unusable::Variable("OTEL_TRACES_SAMPLER_ARG", "must be a number from 0 to 1")),
        _ => Err(Unusable::Variable(
            name,
            "must be always_on, always_off or traceidratio, or one of them after parentbased_",
        )),
    }
}

/// The export of spans.
pub(super) struct Traces(SdkTracerProvider);

impl Traces {
    /// `None` where nobody asks for traces: then no span is ever made.
    pub(super) fn of_environment() -> Result<Option<Self>, Unusable> {
        let settings = Settings::of(|name| std::env::var(name).ok())?;
        settings.map(|settings| Self::new(&settings)).transpose()
    }

    fn new(settings: &Settings) -> Result<Self, Unusable> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(settings.endpoint.as_str())
            .with_timeout(settings.timeout)
            .with_http_client(
                Collector::new(settings.timeout).map_err(|error| Unusable::Exporter(cause(&error)))?,
            )
            .build()
            .map_err(|error| Unusable::Exporter(error.to_string()))?;
        // What is further down counts more.
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

    /// What turns the controller's spans into those of traces, and nothing else: log lines stay lines.
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

    /// Sends what is left, if the collector takes it in time.
    pub(super) async fn end(self) {
        let ended = tokio::task::spawn_blocking(move || self.0.shutdown_with_timeout(LAST_EXPORT)).await;
        if !matches!(ended, Ok(Ok(()))) {
            warn!("the last traces may be lost");
        }
    }
}

/// The way to the collector: the same HTTP stack as for everything else, but neither proxies nor the egress policy, which
/// are for token endpoints.
#[derive(Debug)]
struct Collector {
    client: reqwest::Client,
    /// The libraries export on a thread of their own, which has none.
    runtime: Handle,
    failing: Arc<AtomicBool>,
}

impl Collector {
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

    /// A line where it begins to fail, and one where it works again.
    fn note(&self, problem: Option<&str>) {
        let failed = self.failing.swap(problem.is_some(), Ordering::Relaxed);
        match problem {
            Some(problem) if !failed => warn!(problem, "traces cannot be exported"),
            None if failed => info!("traces are exported again"),
            _ => {}
        }
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let exchange = self.runtime.spawn(exchange(self.client.clone(), request));
        let answer = exchange.await.map_err(HttpError::from).and_then(|answer| answer);
        match &answer {
            Ok(answer) if answer.status().is_success() => self.note(None),
            Ok(answer) => self.note(Some(answer.status().as_str())),
            Err(error) => self.note(Some(&cause(&**error))),
        }
        answer
    }
}

async fn exchange(client: reqwest::Client, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let request = reqwest::Request::try_from(request).map_err(reqwest::Error::without_url)?;
    let mut response = client.execute(request).await.map_err(reqwest::Error::without_url)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(reqwest::Error::without_url)? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err("the collector's answer is too long".into());
        }
        body.extend_from_slice(&chunk);
    }
    let mut answer = Response::new(Bytes::from(body));
    *answer.status_mut() = response.status();
    *answer.headers_mut() = std::mem::take(response.headers_mut());
    Ok(answer)
}

/// The innermost error's text: the outer ones say little.
fn cause(error: &(dyn StdError + 'static)) -> String {
    std::iter::successors(Some(error), |&error| error.source())
        .last()
        .map(ToString::to_string)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Option<Settings>, Unusable> {
        Settings::of(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    const COLLECTOR: (&str, &str) = (ENDPOINT, "http://collector:4318");

    #[test]
    fn nobody_asks() {
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[(ENDPOINT, " ")]), Ok(None));
        assert_eq!(of(&[COLLECTOR, ("OTEL_SDK_DISABLED", "True")]), Ok(None));
        assert_eq!(of(&[COLLECTOR, ("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
        assert_eq!(of(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]), Ok(None));
    }

    #[test]
    fn where_traces_go() {
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
    fn what_cannot_be_done_is_told_by_the_name_of_its_variable() {
        for (name, value) in [
            (ENDPOINT, "user:secret@collector"),
            (TRACES_ENDPOINT, "grpc://user:secret@collector"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "secret"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "secret"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "secret"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "secret"),
            ("OTEL_TRACES_SAMPLER", "secret"),
        ] {
            let said = of(&[(name, value), COLLECTOR]).unwrap_err().to_string();
            assert!(said.starts_with(&format!("{name} must be ")), "{said}");
            assert!(!said.contains("secret"), "{said}");
        }
        let sampler = |argument| {
            let sampler = ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio");
            of(&[COLLECTOR, sampler, ("OTEL_TRACES_SAMPLER_ARG", argument)]).map(|_| ())
        };
        assert_eq!(sampler("0.1"), Ok(()));
        assert!(sampler("2").unwrap_err().to_string().starts_with("OTEL_TRACES_SAMPLER_ARG must be "));
    }
}
