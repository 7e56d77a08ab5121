//! Offsets of the servers' clocks, by the header `Date`.

use crate::response::http_date;
use http::HeaderMap;
use http::header::DATE;
use jiff::{SignedDuration, Timestamp};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use url::Url;

/// Bounds the memory: origins may be the choice of untrusted parties.
const MAX_CLOCKS: usize = 1024;
/// Assertions are dated by a server's clock if that differs by more than this, in seconds.
const CLOCK_TOLERANCE: i64 = 30;
/// A clock that differs by more than this is ignored, in seconds.
const MAX_CLOCK_OFFSET: i64 = 60 * 60;

/// Seconds by which the clock of an origin is ahead of the local one.
#[derive(Debug, Default)]
pub(super) struct ServerClocks(Mutex<HashMap<String, i64>>);

impl ServerClocks {
    pub(super) fn offset(&self, url: &Url) -> Option<SignedDuration> {
        let clocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        clocks.get(&url.origin().ascii_serialization()).map(|&seconds| SignedDuration::from_secs(seconds))
    }

    pub(super) fn record(&self, url: &Url, headers: &HeaderMap) {
        let Some(date) = headers.get(DATE).and_then(|value| http_date(value.to_str().ok()?.trim())) else {
            return;
        };
        let ahead = date.as_second() - Timestamp::now().as_second();
        let origin = url.origin().ascii_serialization();
        let mut clocks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ahead.abs() <= CLOCK_TOLERANCE || ahead.abs() > MAX_CLOCK_OFFSET {
            clocks.remove(&origin);
            return;
        }
        if clocks.len() >= MAX_CLOCKS {
            clocks.clear(); // the next answers fill it again
        }
        clocks.insert(origin, ahead);
    }
}
