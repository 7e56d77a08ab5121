//! What the API server asks for when it is overloaded. It answers 429 in plain text with the header `Retry-After`
//! (`tooManyRequests` in k8s.io/apiserver), of which kube's errors keep only the text: this makes a Status of it.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{Response, StatusCode};
use http_body_util::{Either, Full};
use serde_json::json;

/// The response, or a Status with `retryAfterSeconds` instead of a text with `Retry-After`.
pub(super) fn as_status<B>(response: Response<B>) -> Response<Either<B, Full<Bytes>>> {
    let (head, body) = response.into_parts();
    let code = head.status;
    let is_json =
        head.headers.get(CONTENT_TYPE).is_some_and(|it| it.as_bytes().starts_with(b"application/json"));
    let asked = head.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    let is_busy = matches!(code, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
    let body = match asked {
        Some(seconds) if is_busy && !is_json => {
            let status = json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code.as_u16(),
                "message": "the API server asks to wait", "reason": "TooManyRequests",
                "details": {"retryAfterSeconds": seconds},
            });
            Either::Right(Full::from(status.to_string()))
        }
        _ => Either::Left(body),
    };
    Response::from_parts(head, body)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kube::Client;
    use tower::util::MapResponseLayer;

    use super::*;
    use crate::cluster::{CallError, Kubernetes};
    use crate::key::Key;

    #[tokio::test]
    async fn retry_after_of_a_response_in_plain_text_is_read() {
        token_endpoint::transport::install_crypto_provider();
        let busy = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            let response = Response::builder().status(429).header(RETRY_AFTER, "7");
            let text = Full::<Bytes>::from("Too many requests, please try again later.");
            Ok::<_, std::convert::Infallible>(response.body(text).unwrap())
        });
        let client = Client::new(tower::Layer::layer(&MapResponseLayer::new(as_status), busy), "default");
        let Err(CallError::Unavailable(why)) =
            Kubernetes::new(client).secret_facts(&Key::new("ns", "a")).await
        else {
            panic!("it is unavailable");
        };
        assert_eq!((&*why.message, why.retry_after), ("status 429", Some(Duration::from_secs(7))));
    }
}
