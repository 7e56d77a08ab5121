//! Counts the requests to the Kubernetes API server, those of the watches and of leader election among them: a layer
//! around kube's client, which sees them all.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Method, Request, Response, Uri};
use tower::{Layer, Service};

use super::Metrics;

/// Counts what passes through it.
#[derive(Clone, Debug)]
pub struct CountRequests(pub Arc<Metrics>);

/// A service whose requests are counted.
#[derive(Clone, Debug)]
pub struct Counted<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S> Layer<S> for CountRequests {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Counted<S> {
        Counted { inner, metrics: Arc::clone(&self.0) }
    }
}

impl<S, In, Out> Service<Request<In>> for Counted<S>
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
        let (verb, resource) = (verb(request.method(), request.uri()), resource(request.uri().path()));
        let metrics = Arc::clone(&self.metrics);
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            metrics.requested(verb, resource, answer.as_ref().ok().map(|answer| answer.status().as_u16()));
            answer
        })
    }
}

/// The verb, as RBAC calls it.
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

/// The resource, as RBAC calls it, of those that the operator uses.
fn resource(path: &str) -> &'static str {
    match segments(path).map(|(resource, _, subresource)| (resource, subresource)) {
        Some(("tokensources", None)) => "tokensources",
        Some(("tokensources", Some("status"))) => "tokensources/status",
        Some(("secrets", None)) => "secrets",
        Some(("configmaps", None)) => "configmaps",
        Some(("events", None)) => "events",
        Some(("leases", None)) => "leases",
        Some(("namespaces", None)) => "namespaces",
        Some(("pods", None)) => "pods",
        _ => "other",
    }
}

/// Resource, name and subresource: `/api/v1/...` or `/apis/GROUP/VERSION/...`, mostly with `namespaces/NAMESPACE` in it.
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
    use super::*;

    #[test]
    fn a_request_is_told_by_verb_and_resource() {
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
            ("DELETE", "/api/v1/namespaces/a/secrets/b?", ("delete", "secrets")),
            ("GET", "/version", ("list", "other")),
            ("GET", "/apis/apps/v1/deployments", ("list", "other")),
        ] {
            let uri: Uri = uri.parse().unwrap();
            let method: Method = method.parse().unwrap();
            assert_eq!((verb(&method, &uri), resource(uri.path())), expected, "{method} {uri}");
        }
    }
}
