//! `Retry-After` (RFC 9110, 10.2.3): how far it is believed.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use super::body::ErrorBody;
use super::class::Reach;
use super::shape::Shape;
use http::StatusCode;

/// Caps what an endpoint asks for, in seconds.
const MAX_WAIT: u64 = 60 * 60;
/// Caps what an intermediary asks for, in seconds.
const MAX_WAIT_OF_INTERMEDIARY: u64 = 5 * 60;

/// How long to wait at least, and which requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetryAfter {
    pub(crate) seconds: u64,
    /// [`Reach::Client`] or [`Reach::Own`].
    pub(crate) reach: Reach,
}

impl RetryAfter {
    /// A web page, or a client error without JSON, mostly comes from an intermediary: it knows nothing of the client.
    pub(crate) fn of(seconds: u64, status: StatusCode, body: &ErrorBody, shape: &Shape) -> Self {
        let is_asked_of_all =
            matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        let (most, reach) = match body {
            ErrorBody::NotJson if shape.is_web_page() => (MAX_WAIT_OF_INTERMEDIARY, Reach::Own),
            ErrorBody::NotJson if is_asked_of_all => (MAX_WAIT, Reach::Client),
            ErrorBody::NotJson if status.is_client_error() => (MAX_WAIT_OF_INTERMEDIARY, Reach::Own),
            ErrorBody::NotJson => (MAX_WAIT, Reach::Own),
            _ => (MAX_WAIT, Reach::Client),
        };
        Self { seconds: seconds.min(most), reach }
    }
}
