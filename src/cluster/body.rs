//! The body of a response, reduced while it arrives.

use std::io;
use std::pin::Pin;

use futures::{AsyncBufRead, AsyncBufReadExt};
use http::Request;
use kube::Client;
use kube::api::ListParams;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Error as _};
use tokio::sync::Semaphore;

use super::kept;
use super::reduce::{Keep, Reduced, Reducer};

/// The most bytes of a response that is read without a permit of [`LARGE_READS`]: most Secrets have less.
const SMALL_BYTES: usize = 64 << 10;
/// Large objects in memory at once. Each has up to 3 MiB of data, and is there twice while it is parsed.
static LARGE_READS: Semaphore = Semaphore::const_new(3);

/// A list without its items.
#[derive(Deserialize)]
pub(super) struct List {
    pub(super) metadata: ListMetadata,
}

/// The metadata of a list, and of a bookmark.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListMetadata {
    resource_version: Option<String>,
    r#continue: Option<String>,
}

impl ListMetadata {
    /// The continue token of the next page.
    pub(super) fn next(&self) -> Option<String> {
        self.r#continue.clone().filter(|next| !next.is_empty())
    }

    /// The resourceVersion of the list.
    pub(super) fn version(self) -> Option<String> {
        self.resource_version.filter(|version| !version.is_empty())
    }
}

/// A response that arrives.
pub(super) struct Body {
    bytes: Pin<Box<dyn AsyncBufRead + Send>>,
    reducer: Reducer,
    /// The bytes that were read.
    pub(super) received: usize,
}

impl Body {
    /// Sends a request, and waits for the head of the response.
    ///
    /// # Errors
    /// [`kube::Error::Api`] for a response that is no success.
    pub(super) async fn of(client: &Client, request: Request<Vec<u8>>, keep: Keep) -> kube::Result<Self> {
        let bytes = Box::pin(client.request_stream(request).await?);
        Ok(Body { bytes, reducer: Reducer::new(keep), received: 0 })
    }

    /// What comes next; `None` at the end.
    ///
    /// # Errors
    /// The connection broke, or the response is not what was expected.
    pub(super) async fn next(&mut self) -> kube::Result<Option<Reduced>> {
        while let Some(found) = self.chunk().await? {
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Reads one chunk, or a part of it. Returns what is complete with it; `None` at the end.
    async fn chunk(&mut self) -> kube::Result<Option<Option<Reduced>>> {
        let chunk = self.bytes.fill_buf().await.map_err(kube::Error::ReadEvents)?;
        if chunk.is_empty() {
            let end = io::Error::from(io::ErrorKind::UnexpectedEof);
            return if self.reducer.is_complete() { Ok(None) } else { Err(kube::Error::ReadEvents(end)) };
        }
        let mut rest = chunk;
        let found = self.reducer.next(&mut rest).map_err(|error| serde_error(&error))?;
        let used = chunk.len() - rest.len();
        self.bytes.consume_unpin(used);
        self.received = self.received.saturating_add(used);
        Ok(Some(found))
    }
}

/// Sends a request, and returns what is kept of the one object in its response.
pub(super) async fn object(client: &Client, request: Request<Vec<u8>>, keep: Keep) -> kube::Result<Reduced> {
    let mut body = Body::of(client, request, keep).await?;
    body.next().await?.ok_or_else(|| serde_error(&"an empty response"))
}

/// Sends a request for a list, and has each of its items handled. Returns the continue token of the next page.
pub(super) async fn page(
    client: &Client,
    request: Request<Vec<u8>>,
    keep: Keep,
    mut each: impl FnMut(&Reduced) -> kube::Result<()>,
) -> kube::Result<Option<String>> {
    let mut body = Body::of(client, request, keep).await?;
    while let Some(reduced) = body.next().await? {
        if !reduced.is_item {
            return Ok(parse::<List>(&reduced)?.metadata.next());
        }
        each(&reduced)?;
    }
    Err(serde_error(&"an empty response"))
}

/// Lists one object of `path`, to find out whether that is possible and permitted.
pub(super) async fn list_one(client: &Client, path: String, params: ListParams) -> kube::Result<()> {
    let request = kube::core::Request::new(path).list_metadata(&params.limit(1));
    let request = request.map_err(kube::Error::BuildRequest)?;
    page(client, request, kept::IDENTITY.list, |_| Ok(())).await.map(drop)
}

/// Sends a request for an object that may be large. Who keeps it beyond the next call reduces it first.
/// Returns also the members that were too large.
pub(super) async fn whole_object<T: DeserializeOwned>(
    client: &Client,
    request: Request<Vec<u8>>,
    keep: Keep,
) -> kube::Result<(T, Vec<String>)> {
    let mut body = Body::of(client, request, keep).await?;
    let mut permit = None;
    loop {
        let found = body.chunk().await?.ok_or_else(|| serde_error(&"an empty response"))?;
        if let Some(reduced) = found {
            return Ok((parse(&reduced)?, reduced.too_large));
        }
        if permit.is_none() && body.reducer.stored() > SMALL_BYTES {
            // Until then the rest stays with the API server. Never closed.
            permit = LARGE_READS.acquire().await.ok();
        }
    }
}

/// Parses what was kept.
pub(super) fn parse<T: DeserializeOwned>(reduced: &Reduced) -> kube::Result<T> {
    serde_json::from_slice(&reduced.json).map_err(kube::Error::SerdeError)
}

fn serde_error(error: &impl std::fmt::Display) -> kube::Error {
    kube::Error::SerdeError(serde_json::Error::custom(error))
}
