//! Counts the requests to the Kubernetes API server, including those of watches and of leader election, by a layer around
//! kube's client.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Method, Request, Response, Uri};
use tokio::time::Instant;
use tower::{Layer, Service};

use super::Metrics;

/// A request that is dropped after this time was not answered in time. One that is dropped sooner was not needed any more: a
/// watch ended, or a scraper left. The timeouts of calls are longer.
const MIN_UNANSWERED: Duration = Duration::from_secs(1);
/// The status of a request that RBAC does not grant.
const FORBIDDEN: u16 = 403;

/// The layer that counts requests.
#[derive(Clone, Debug)]
pub struct CountRequests {
    metrics: Arc<Metrics>,
    counts_refusals: bool,
}

impl CountRequests {
    /// Counts all requests.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        CountRequests { metrics, counts_refusals: true }
    }

    /// Counts no refusals (403): for requests that show whether a right is granted.
    #[must_use]
    pub fn without_refusals(self) -> Self {
        CountRequests { counts_refusals: false, ..self }
    }
}

/// The service of [`CountRequests`].
#[derive(Clone, Debug)]
pub struct CountedService<S> {
    inner: S,
    counts: CountRequests,
}

impl<S> Layer<S> for CountRequests {
    type Service = CountedService<S>;

    fn layer(&self, inner: S) -> CountedService<S> {
        CountedService { inner, counts: self.clone() }
    }
}

impl<S, In, Out> Service<Request<In>> for CountedService<S>
where
    S: Service<Request<In>, Response = Response<Out>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<In>) -> Self::Future {
        let sent = SentRequest {
            counts: self.counts.clone(),
            verb: verb(request.method(), request.uri()),
            resource: resource(request.uri().path()),
            since: Instant::now(),
            has_ended: false,
        };
        let call = self.inner.call(request);
        Box::pin(async move {
            let result = call.await;
            sent.ended(result.as_ref().ok().map(|response| response.status().as_u16()));
            result
        })
    }
}

/// A request until its response begins. It is counted then, or when its timeout drops it.
struct SentRequest {
    counts: CountRequests,
    verb: &'static str,
    resource: &'static str,
    since: Instant,
    has_ended: bool,
}

impl SentRequest {
    /// With the status of the response; `None` where there is none.
    fn ended(mut self, code: Option<u16>) {
        self.has_ended = true;
        if code != Some(FORBIDDEN) || self.counts.counts_refusals {
            self.counts.metrics.api_request(self.verb, self.resource, code);
        }
    }
}

impl Drop for SentRequest {
    fn drop(&mut self) {
        if !self.has_ended && self.since.elapsed() >= MIN_UNANSWERED {
            self.counts.metrics.api_request(self.verb, self.resource, None);
        }
    }
}

/// The verb, in the terms of RBAC.
fn verb(method: &Method, uri: &Uri) -> &'static str {
    let names_an_object = segments(uri.path()).is_some_and(|(_, name, _)| name.is_some());
    let watches =
        || uri.query().unwrap_or_default().split('&').any(|it| matches!(it, "watch=true" | "watch=1"));
    match *method {
        Method::GET if watches() => "watch",
        Method::GET if names_an_object => "get",
        Method::GET => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    }
}

/// The resource, in the terms of RBAC; `other` for resources that the operator does not use.
fn resource(path: &str) -> &'static str {
    match segments(path).map(|(resource, _, subresource)| (resource, subresource)) {
        Some(("tokensources", None)) => "tokensources",
        Some(("tokensources", Some("status"))) => "tokensources/status",
        Some(("clustertokenissuers", None)) => "clustertokenissuers",
        Some(("clustertokenissuers", Some("status"))) => "clustertokenissuers/status",
        Some(("secrets", None)) => "secrets",
        Some(("configmaps", None)) => "configmaps",
        Some(("events", None)) => "events",
        Some(("leases", None)) => "leases",
        Some(("namespaces", None)) => "namespaces",
        Some(("pods", None)) => "pods",
        Some(("servicecidrs", None)) => "servicecidrs",
        Some(("serviceaccounts", None)) => "serviceaccounts",
        Some(("serviceaccounts", Some("token"))) => "serviceaccounts/token",
        Some(("selfsubjectreviews", None)) => "selfsubjectreviews",
        Some(("tokenreviews", None)) => "tokenreviews",
        Some(("subjectaccessreviews", None)) => "subjectaccessreviews",
        _ => "other",
    }
}

/// Resource, name and subresource of `/api/v1/...` or `/apis/GROUP/VERSION/...`, usually after `namespaces/NAMESPACE`.
fn segments(path: &str) -> Option<(&str, Option<&str>, Option<&str>)> {
    let mut rest = path.split('/').filter(|segment| !segment.is_empty());
    match rest.next()? {
        "api" => rest.next()?,
        "apis" => rest.nth(1)?,
        _ => return None,
    };
    let (first, name, third) = (rest.next()?, rest.next(), rest.next());
    match (first, third) {
        ("namespaces", Some(resource)) => Some((resource, rest.next(), rest.next())),
        _ => Some((first, name, third)),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::metrics::tests::text;

    fn counts() -> CountRequests {
        CountRequests::new(Arc::new(Metrics::new(Arc::default())))
    }

    /// What was counted, by verb, resource and code.
    fn counted(counts: &CountRequests) -> Vec<String> {
        let text = text(&counts.metrics);
        let lines =
            text.lines().filter_map(|line| line.strip_prefix("tokensource_kubernetes_requests_total"));
        lines.map(str::to_owned).collect()
    }

    fn request() -> Request<()> {
        Request::get("/api/v1/namespaces/a/secrets/b").body(()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn request_that_its_timeout_drops_is_counted_once_and_without_a_code() {
        let counts = counts();
        let mut service = counts.layer(tower::service_fn(|_: Request<()>| {
            std::future::pending::<Result<Response<()>, Infallible>>()
        }));
        // It was not needed any more.
        tokio::time::timeout(Duration::from_millis(900), service.call(request())).await.unwrap_err();
        assert_eq!(counted(&counts), Vec::<String>::new());
        tokio::time::timeout(Duration::from_secs(10), service.call(request())).await.unwrap_err();
        assert_eq!(counted(&counts), [r#"{verb="get",resource="secrets",code="none"} 1"#]);
    }

    #[tokio::test]
    async fn request_is_counted_by_its_status_and_a_refusal_only_where_it_is_a_fault() {
        for (code, expected) in
            [(200, [true, true]), (500, [true, true]), (401, [true, true]), (403, [true, false])]
        {
            let lines_of = async |counts: CountRequests| {
                let mut service = counts.layer(tower::service_fn(move |_: Request<()>| async move {
                    Ok::<_, Infallible>(Response::builder().status(code).body(()).unwrap())
                }));
                service.call(request()).await.unwrap();
                counted(&counts)
            };
            let line = format!(r#"{{verb="get",resource="secrets",code="{code}"}} 1"#);
            let all = [lines_of(counts()).await, lines_of(counts().without_refusals()).await];
            assert_eq!(all.map(|lines| lines == [line.clone()]), expected, "{code}");
        }
    }

    #[tokio::test]
    async fn request_that_fails_is_counted_without_a_code() {
        let counts = counts();
        let mut service = counts
            .layer(tower::service_fn(|_: Request<()>| std::future::ready(Err::<Response<()>, _>("refused"))));
        service.call(request()).await.unwrap_err();
        assert_eq!(counted(&counts), [r#"{verb="get",resource="secrets",code="none"} 1"#]);
    }

    #[test]
    fn verb_and_resource_of_requests() {
        for (method, uri, expected) in [
            ("GET", "/api/v1/namespaces/a/secrets/b", ("get", "secrets")),
            ("GET", "/api/v1/namespaces/a/secrets?&labelSelector=a%3Db", ("list", "secrets")),
            ("GET", "/api/v1/secrets?&watch=true&timeoutSeconds=290", ("watch", "secrets")),
            ("GET", "/apis/tokensource.dev/v1alpha1/tokensources?&limit=1", ("list", "tokensources")),
            (
                "PATCH",
                "/apis/tokensource.dev/v1alpha1/namespaces/a/tokensources/b/status?&fieldManager=c",
                ("patch", "tokensources/status"),
            ),
            ("POST", "/apis/events.k8s.io/v1/namespaces/a/events?", ("create", "events")),
            ("PUT", "/apis/coordination.k8s.io/v1/namespaces/a/leases/b", ("update", "leases")),
            ("GET", "/api/v1/namespaces?&watch=true", ("watch", "namespaces")),
            ("GET", "/api/v1/namespaces/a", ("get", "namespaces")),
            (
                "PATCH",
                "/apis/tokensource.dev/v1alpha1/clustertokenissuers/a/status?",
                ("patch", "clustertokenissuers/status"),
            ),
            (
                "GET",
                "/apis/tokensource.dev/v1alpha1/clustertokenissuers?&watch=true",
                ("watch", "clustertokenissuers"),
            ),
            ("POST", "/api/v1/namespaces/a/serviceaccounts/b/token", ("create", "serviceaccounts/token")),
            ("GET", "/api/v1/namespaces/a/serviceaccounts/b", ("get", "serviceaccounts")),
            ("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", ("create", "selfsubjectreviews")),
            ("DELETE", "/api/v1/namespaces/a/secrets/b?", ("delete", "secrets")),
            ("GET", "/apis/networking.k8s.io/v1/servicecidrs?&limit=100", ("list", "servicecidrs")),
            ("POST", "/apis/authentication.k8s.io/v1/tokenreviews?", ("create", "tokenreviews")),
            ("GET", "/version", ("list", "other")),
            ("GET", "/apis/apps/v1/deployments", ("list", "other")),
        ] {
            let uri: Uri = uri.parse().unwrap();
            let method: Method = method.parse().unwrap();
            assert_eq!((verb(&method, &uri), resource(uri.path())), expected, "{method} {uri}");
        }
    }
}
