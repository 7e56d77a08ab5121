//! What `report` reads: logs and metrics of pods as text, and events. Each is bounded.

use futures::AsyncReadExt as _;
use http::Request as HttpRequest;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Resource;
use kube::api::{ListParams, ObjectList};
use kube::core::Request;
use kube::core::subresource::LogParams;

use super::call_error::CallError;
use super::user::{PAGE_SIZE, UserCluster};
use crate::key::Key;

/// The most lines of a log, from its end.
const MAX_LOG_LINES: i64 = 5_000;
/// The most bytes of a log.
const MAX_LOG_BYTES: u32 = 4 << 20;
/// The most bytes of metrics.
const MAX_METRICS_BYTES: u32 = 4 << 20;
/// The most pages of events that are read of one namespace.
const MAX_EVENT_PAGES: usize = 10;

/// A text, of which the rest may have been left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BoundedText {
    pub(crate) text: String,
    /// Whether there was more.
    pub(crate) is_cut: bool,
}

impl UserCluster {
    /// The end of the log of a container, or of the one that ran before it.
    pub(crate) async fn pod_log(
        &self,
        pod: &Key,
        container: &str,
        previous: bool,
    ) -> Result<BoundedText, CallError> {
        let params = LogParams {
            container: Some(container.to_owned()),
            previous,
            tail_lines: Some(MAX_LOG_LINES),
            ..LogParams::default()
        };
        let request = Request::new(Pod::url_path(&(), Some(&pod.namespace))).logs(&pod.name, &params);
        let request = request.map_err(|error| CallError::from(kube::Error::BuildRequest(error)))?;
        self.text(request, MAX_LOG_BYTES).await
    }

    /// The metrics of the operator in a pod, through the API server's proxy.
    pub(crate) async fn pod_metrics(&self, pod: &Key, port: i32) -> Result<BoundedText, CallError> {
        let path = Pod::url_path(&(), Some(&pod.namespace));
        let request = HttpRequest::get(format!("{path}/{}:{port}/proxy/metrics", pod.name)).body(vec![]);
        self.text(request.map_err(|error| CallError::from(kube::Error::HttpError(error)))?, MAX_METRICS_BYTES)
            .await
    }

    /// The events of a namespace that match a field selector, as many as are read.
    pub(crate) async fn events(&self, namespace: &str, fields: &str) -> Result<Vec<Event>, CallError> {
        let mut params = ListParams::default().fields(fields).limit(PAGE_SIZE);
        let mut all = vec![];
        for _ in 0..MAX_EVENT_PAGES {
            let request = Request::new(Event::url_path(&(), Some(namespace))).list(&params);
            let request = request.map_err(|error| CallError::from(kube::Error::BuildRequest(error)))?;
            let page = self.call(self.client.request::<ObjectList<Event>>(request)).await?;
            all.extend(page.items);
            params.continue_token = page.metadata.continue_.filter(|token| !token.is_empty());
            if params.continue_token.is_none() {
                break;
            }
        }
        Ok(all)
    }

    /// Reads a response as text, at most `max_bytes` of it.
    async fn text(&self, request: HttpRequest<Vec<u8>>, max_bytes: u32) -> Result<BoundedText, CallError> {
        self.call(async {
            let stream = self.client.request_stream(request).await?;
            let mut bytes = vec![];
            let mut bounded = Box::pin(stream).take(u64::from(max_bytes) + 1);
            bounded.read_to_end(&mut bytes).await.map_err(kube::Error::ReadEvents)?;
            let is_cut = bytes.len() > max_bytes as usize;
            bytes.truncate(max_bytes as usize);
            Ok(BoundedText { text: String::from_utf8_lossy(&bytes).into_owned(), is_cut })
        })
        .await
    }
}
