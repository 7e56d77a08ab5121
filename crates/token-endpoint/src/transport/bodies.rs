//! Reads the bodies of answers within limits: of each, and of all that are being read.

use super::limits::{MAX_BODY, MAX_LARGE_BODIES};
use super::turns::{Tenant, Turns};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::fmt;
use std::sync::Arc;

/// The bodies that are being read. Small ones, as those of nearly all answers, do not wait for others.
pub(super) struct Bodies(Arc<Turns>);

impl fmt::Debug for Bodies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bodies")
    }
}

impl Default for Bodies {
    fn default() -> Self {
        Self(Arc::new(Turns::new(MAX_LARGE_BODIES)))
    }
}

impl Bodies {
    /// Reads a body, of which so many bytes need no turn. `None`: it has more than [`MAX_BODY`] bytes.
    pub(super) async fn read(
        &self,
        mut body: Incoming,
        small: usize,
        tenant: &Tenant,
    ) -> hyper::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        let mut turn = None;
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            if bytes.len() + data.len() > MAX_BODY {
                return Ok(None);
            }
            bytes.extend_from_slice(&data);
            // The rest waits in the connection's buffer, and then at the server.
            if bytes.len() > small && turn.is_none() {
                turn = Some(self.0.next(tenant).await);
            }
        }
        Ok(Some(bytes))
    }
}
