//! Reads the header `Date` of every response of the API server, for the corrected clock, by a layer around kube's client.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::DATE;
use http::{Request, Response};
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use tower::{Layer, Service};

use crate::clock::Clock;

/// The layer that reads dates.
#[derive(Clone, Debug)]
pub(super) struct ReadDate(pub(super) Arc<Clock>);

/// The service of [`ReadDate`].
#[derive(Clone, Debug)]
pub(super) struct DatedService<S> {
    inner: S,
    clock: Arc<Clock>,
}

impl<S> Layer<S> for ReadDate {
    type Service = DatedService<S>;

    fn layer(&self, inner: S) -> DatedService<S> {
        DatedService { inner, clock: Arc::clone(&self.0) }
    }
}

impl<S, In, Out> Service<Request<In>> for DatedService<S>
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
        let clock = Arc::clone(&self.clock);
        let sent = clock.moment();
        let call = self.inner.call(request);
        Box::pin(async move {
            let result = call.await;
            if let Some(date) = result.as_ref().ok().and_then(date) {
                clock.server_said(date, sent);
            }
            result
        })
    }
}

/// RFC 9110, 6.6.1.
fn date<Body>(response: &Response<Body>) -> Option<Timestamp> {
    static PARSER: rfc2822::DateTimeParser = rfc2822::DateTimeParser::new();
    PARSER.parse_timestamp(response.headers().get(DATE)?.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn date_of_a_response_reaches_the_clock() {
        let clock = Arc::new(Clock::new());
        let service = tower::service_fn(|date: Request<&'static str>| async move {
            Ok::<_, Infallible>(Response::builder().header(DATE, *date.body()).body(()).unwrap())
        });
        let service = ReadDate(Arc::clone(&clock)).layer(service);
        service.clone().oneshot(Request::new("soon")).await.unwrap();
        assert_eq!(clock.difference(), None);
        service.oneshot(Request::new("Sun, 06 Nov 2044 08:49:37 GMT")).await.unwrap();
        assert!(clock.difference().is_some_and(|seconds| seconds > 365 * 24 * 60 * 60));
        assert!(clock.now() > "2044-11-06T08:49:37Z".parse().unwrap());
    }
}
