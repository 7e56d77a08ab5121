//! Counts the requests to the Kubernetes API server, including those of watches and of leader election, by a layer around
//! kube's client.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Method, Request, Response, Uri};
use tower::{Layer, Service};

use super::Metrics;

/// The layer that counts requests.
#[derive(Clone, Debug)]
pub struct CountRequests(pub Arc<Metrics>);

/// The service of [`CountRequests`].
#[derive(Clone, Debug)]
pub struct CountedService<S> {
    inner: S,
    metrics: Arc<Metrics>,
}

impl<S> Layer<S> for CountRequests {
    type Service = CountedService<S>;

    fn layer(&self, inner: S) -> CountedService<S> {
        CountedService { inner, metrics: Arc::clone(&self.0) }
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
        let (verb, resource) = (verb(request.method(), request.uri()), resource(request.uri().path()));
        let metrics = Arc::clone(&self.metrics);
        let call = self.inner.call(request);
        Box::pin(async move {
            let result = call.await;
            metrics.api_request(
                verb,
                resource,
                result.as_ref().ok().map(|response| response.status().as_u16()),
            );
            result
        })
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
    use super::*;

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
